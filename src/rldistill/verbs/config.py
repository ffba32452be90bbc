"""Configurations of the verbs: frozen data, checked as a whole, to and from TOML.

The docstring of a field is its help on the command line.
"""

import json
from collections.abc import Collection
from dataclasses import MISSING, dataclass, fields, is_dataclass
from fractions import Fraction
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, get_args, get_type_hints

import tyro

from rldistill.checks import check_not_negative, check_num_envs, check_positive
from rldistill.errors import UsageError
from rldistill.options.declaration import check_types, option_types
from rldistill.options.reading import Reading

# A student may be better than its teacher; a requirement beyond this is a percentage.
_MOST_RETENTION = 2.0


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Play the same episodes with every policy and with random play, and compare."""

    policies: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Policy files or run folders."""
    task: str | None = None
    """Task to play, or several with commas between; none: all that the first policy has heads for."""
    teacher: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """The reference, once for each teacher; none: those that the first policy's file names, if they are still there."""
    trust: bool = False
    """A policy that is a program (TorchScript, torch.export) may run the code in it; ONNX runs without limits."""
    outputs: str | None = None
    """What a file gives that does not say it: q_values, logits, gaussian or actions; of several outputs
    also which, such as logits=policy or gaussian=mu,log_std. Of a box whose bounds -1 and 1 stand for:
    actions=rescale."""
    input_scale: str | None = None
    """Of a program that takes floats where the task gives bytes: 1 if it scales them itself, else 1/255."""
    activation: str | None = None
    """Of a checkpoint, which does not say it: elu, relu, tanh, …; none: elu for rsl_rl's, that of the script for
    CleanRL's."""
    normalizer: Path | None = None
    """Running statistics of a teacher's observations: vecnormalize.pkl, or an .npz or .safetensors with mean and var;
    none: what lies beside a Stable-Baselines3 zip; the word none: without."""
    behaviour: str | None = None
    """How the policies and teachers named here act: greedy, or sample from their distribution; none: as each file
    says. A teacher that only a student's file names acts as it was recorded; the table shows who acts how."""
    num_episodes: int = 30
    """Episodes of each policy."""
    exploration_epsilon: float | None = None
    """Chance of a uniformly random action; none: 0.05 for Atari, else 0, whatever the data were collected with."""
    require_retention: float | None = None
    """Fail (exit 1) unless the one-sided 95 % lower bound of retention reaches this share, from 0 to 2; of several
    tasks, of its mean."""
    env_kwargs: str = "{}"
    """Settings of the task as JSON, such as '{"frame_skip": 4}'."""
    out: Path | None = None
    """JSON file to write; none: evaluation.json in the run folder, if one is named alone."""
    seed: int = 0
    """Episode i is a function of (seed, i)."""
    num_envs: int = 16
    """Environments stepped together; changes no result."""
    num_threads: int = 0
    """Threads of torch and of the emulator; 0: one per processor."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, "num_episodes")
        check_num_envs(self.num_envs)
        check_not_negative(self, "seed", "num_threads")
        if self.require_retention is not None and not 0 <= self.require_retention <= _MOST_RETENTION:
            raise UsageError(
                f"require_retention must lie in [0, {_MOST_RETENTION:g}], got {self.require_retention:g}. It is a "
                "share of the teacher's skill: 0.95 asks for 95 %, 1 for as much as the teacher's."
            )
        if self.task is not None and not all(name.strip() for name in self.task.split(",")):
            raise UsageError(f"task: got {self.task!r}, expected names with commas between, such as atari:pong.")

    @property
    def tasks(self) -> str | tuple[str, ...] | None:
        """What `task` names: one, several, or none."""
        names = () if self.task is None else tuple(name.strip() for name in self.task.split(","))
        return names if len(names) > 1 else self.task


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Say what a policy file, a dataset folder, a run folder or a preset is."""

    target: tyro.conf.Positional[str | None] = None
    """Policy file, dataset folder, run folder, or a preset such as net3."""
    heads: str | None = None
    """With a preset: outputs of each head, such as 3,3,6; none: one head of 18."""
    task: str | None = None
    """Task of a policy file that does not say it."""
    env_kwargs: str = "{}"
    """Settings of the task as JSON, such as '{"frame_skip": 4}'."""
    trust: bool = False
    """A policy that is a program (TorchScript, torch.export) may run the code in it; ONNX runs without limits."""
    outputs: str | None = None
    """What a file gives that does not say it: q_values, logits, gaussian or actions; of several outputs
    also which, such as logits=policy or gaussian=mu,log_std. Of a box whose bounds -1 and 1 stand for:
    actions=rescale."""
    input_scale: str | None = None
    """Of a program that takes floats where the task gives bytes: 1 if it scales them itself, else 1/255."""
    activation: str | None = None
    """Of a checkpoint, which does not say it: elu, relu, tanh, …; none: elu for rsl_rl's, that of the script for
    CleanRL's."""
    normalizer: Path | None = None
    """Running statistics of a teacher's observations: vecnormalize.pkl, or an .npz or .safetensors with mean and var;
    none: what lies beside a Stable-Baselines3 zip; the word none: without."""
    behaviour: str | None = None
    """How the policy acts: greedy, or sample from its distribution; none: as its file says."""
    full: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show everything in words, too: the configuration of the run, and all numbers of long lists."""
    verify: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Play the policy, and compare its score with random play and with what it is said to score (exit 1: a gap)."""
    num_episodes: int = 100
    """With --verify: episodes of the policy and of random play."""
    expected_return: float | None = None
    """With --verify: what it is said to score; none: what was recorded beside its file."""
    expected_standard_error: float | None = None
    """With --verify: standard error of --expected-return, where it is known."""
    seed: int = 0
    """With --verify: episode i is a function of (seed, i)."""
    num_envs: int = 16
    """With --verify: environments stepped together; changes no result."""
    num_threads: int = 0
    """With --verify: threads of torch and of the emulator; 0: one per processor."""
    device: str = "auto"
    """With --verify: auto, cpu or cuda."""

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, "num_episodes")
        check_num_envs(self.num_envs)
        check_not_negative(self, "seed", "num_threads")
        for name in ("expected_return", "expected_standard_error"):
            if getattr(self, name) is not None and not self.verify:
                raise UsageError(f"{name} belongs with --verify, which plays the policy.")

    @property
    def head_sizes(self) -> tuple[int, ...]:
        """The heads as numbers.

        Raises:
            UsageError: not positive integers.
        """
        texts = [] if self.heads is None else self.heads.split(",")
        if not all(text.strip().isdigit() and int(text) > 0 for text in texts):
            raise UsageError(f"heads: got {self.heads!r}, expected positive integers such as 3,3,6.")
        return tuple(int(text) for text in texts)


def reading_of(config: "EvaluateConfig | InspectConfig") -> Reading:
    """Return what is said of files."""
    said = {name: getattr(config, name) for name in option_types(Reading)}
    if said["input_scale"] is not None:
        said["input_scale"] = float(Fraction(said["input_scale"]))
    said["normalizer"] = None if said["normalizer"] is None else str(said["normalizer"])
    return Reading(**said)


_EXAMPLES = {"env_kwargs": "'{\"frame_skip\": 4}'", "learner": "'{\"learning_rate\": 1e-4}'"}


def parse_options(text: str, name: str = "env_kwargs") -> dict[str, Any]:
    """Read an option that is a JSON object.

    Args:
        text: as on the command line.
        name: of the option, for error messages.

    Raises:
        UsageError: not a JSON object.
    """
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{name} is not JSON: got {text!r} ({error}), expected an object such as {_EXAMPLES[name]}."
        ) from error
    if not isinstance(options, dict):
        raise UsageError(f"{name}: got {text!r}, expected a JSON object such as {_EXAMPLES[name]}.")
    return options  # pyright: ignore[reportUnknownVariableType]


def value_types(config_type: type[Any]) -> dict[str, set[type]]:
    """Return the types that a field's value may have in JSON or TOML; a float may be written as an integer there."""
    types: dict[str, set[type]] = {}
    for name, hint in get_type_hints(config_type).items():
        types[name] = set(get_args(hint)) if isinstance(hint, UnionType) else {hint}
        types[name] |= {int} if float in types[name] else set()
    return types


def wrong_type(name: str, value: object, types: Collection[type]) -> str:
    """Return what to say of a value of none of these types."""
    expected = " or ".join(sorted(item.__name__ for item in types if item is not NoneType))
    return f"{name} is {value!r}, expected {expected}."


def config_values(config: object) -> dict[str, Any]:
    """Return a configuration's fields, in order."""
    assert is_dataclass(config)
    return {item.name: getattr(config, item.name) for item in fields(config)}


def default_values(config_type: type[Any]) -> dict[str, Any]:
    """Return the defaults of a configuration's options, without those that have none."""
    return {item.name: item.default for item in fields(config_type) if item.default is not MISSING}
