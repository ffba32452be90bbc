"""Configurations of the verbs: frozen data, checked as a whole, to and from TOML.

The docstring of a field is its help on the command line.
"""

import json
import math
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypedDict

import tyro

from rldistill.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TrainTeacherConfig:
    """Train a teacher."""

    task: str | None = None
    """Task to learn: atari:<game>, a Gymnasium id, or module:EnvId."""
    tasks: str | None = None
    """Several tasks to learn with one network, a head for each, such as atari:pong,atari:breakout."""
    out: Path
    """Run folder."""
    algorithm: str = "pqn"
    """Learning algorithm: pqn or dqn; an option below without a value has that algorithm's own."""
    num_steps: int = 2_500_000
    """Decisions over all environments and the whole schedule; with --tasks, of each task."""
    network: str = "dqn"
    """Preset (dqn, net1, net2, net3, multitask3, multitask10), mlp:64x64 or conv:8-8-8:32."""
    layer_norm: bool | None = None
    """Normalise every layer of the torso: on for pqn, which needs it, off for dqn."""
    zero_output: bool = False
    """Begin with an output layer of zero: all actions tie, and greedy play is the first action."""
    env_kwargs: str = "{}"
    """Settings of the task as JSON, such as '{"frame_skip": 4}'."""
    num_envs: int | None = None
    """Environments stepped in parallel, of each task: 32 for pqn, 4 for dqn."""
    learning_rate: float | None = None
    """pqn: 2.5e-4 at the start, falls linearly to 0; dqn: constant, 2.5e-4 with rmsprop, 6.25e-5 with adam."""
    gamma: float | None = None
    """Discount of a step: 0.99."""
    exploration_start: float | None = None
    """Chance of a random action at the start: 1."""
    exploration_end: float | None = None
    """Chance of a random action in the end: 0.05 for pqn, 0.1 for dqn."""
    clip_rewards: bool | None = None
    """Learn from rewards clipped to [-1, 1]: on. Scores are always raw."""
    cut_at_life_loss: bool | None = None
    """A lost life ends the return that is learned from, never the game: on."""
    rollout_length: int | None = None
    """pqn: steps in each environment between updates: 32."""
    num_epochs: int | None = None
    """pqn: passes over each rollout: 2."""
    num_minibatches: int | None = None
    """pqn: gradient steps per pass: 8."""
    max_gradient_norm: float | None = None
    """pqn: gradients are scaled down to this norm: 10."""
    return_lambda: float | None = None
    """pqn: mixes one-step and longer returns, in [0, 1]: 0.65."""
    exploration_fraction: float | None = None
    """pqn: share of the run over which exploration falls: 0.1."""
    replay_capacity: int | None = None
    """dqn: newest steps that are kept, of each task: 1,000,000."""
    learning_starts: int | None = None
    """dqn: steps of random play before the first update, of each task: 50,000."""
    steps_per_update: int | None = None
    """dqn: steps of play for each update: 4."""
    batch_size: int | None = None
    """dqn: transitions per update: 32."""
    target_network_update_period: int | None = None
    """dqn: updates between copies to the target network: 10,000."""
    optimizer: str | None = None
    """dqn: rmsprop (centred, as in the paper) or adam (better): rmsprop."""
    double_q: bool | None = None
    """dqn: the online network selects the next action, the target network evaluates it: off."""
    num_return_steps: int | None = None
    """dqn: rewards that are summed before the value takes over: 1."""
    exploration_steps: int | None = None
    """dqn: steps after learning starts over which exploration falls: 1,000,000."""
    init_from: Path | None = None
    """Policy file whose weights to begin with, with a fresh optimiser."""
    start_step: int = 0
    """With --init-from: the place in the schedule to begin at, in steps."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """auto, cpu or cuda."""
    precision: str = "auto"
    """auto, float32 or bfloat16."""
    num_threads: int = 0
    """Threads of torch and of the emulator; 0: one per processor."""
    checkpoint_period: int = 100_000
    """Steps between checkpoints, over all tasks."""

    def __post_init__(self) -> None:
        if (self.task is None) == (self.tasks is None):
            raise UsageError("give --task ID, or --tasks ID,ID,… to learn several with one network.")
        twice = [name for name in self.task_names if self.task_names.count(name) > 1]
        if twice or not all(self.task_names):
            problem = f"{twice[0]} twice" if twice else f"{self.tasks!r}"
            raise UsageError(f"tasks: got {problem}, expected different tasks, separated by commas.")
        if self.algorithm not in ("pqn", "dqn"):
            raise UsageError(f"algorithm: got {self.algorithm!r}, expected pqn or dqn.")
        check_positive(self, "num_steps", "checkpoint_period")
        check_not_negative(self, "seed", "num_threads")
        if not 0 <= self.start_step < self.num_steps:
            raise UsageError(f"start_step must lie in [0, num_steps), got {self.start_step} of {self.num_steps}.")
        if self.start_step and self.init_from is None:
            raise UsageError("start_step belongs with init_from: it says where in the schedule those weights stand.")

    @property
    def task_names(self) -> tuple[str, ...]:
        """What is to be learned, in the order of the heads."""
        if self.task is not None:
            return (self.task,)
        return tuple(name.strip() for name in (self.tasks or "").split(","))


class TrainTeacherSettings(TypedDict, total=False):
    """The fields of `TrainTeacherConfig` that have defaults, for keyword arguments in Python."""

    algorithm: str
    network: str
    layer_norm: bool
    zero_output: bool
    num_envs: int
    learning_rate: float
    gamma: float
    exploration_start: float
    exploration_end: float
    clip_rewards: bool
    cut_at_life_loss: bool
    rollout_length: int
    num_epochs: int
    num_minibatches: int
    max_gradient_norm: float
    return_lambda: float
    exploration_fraction: float
    replay_capacity: int
    learning_starts: int
    steps_per_update: int
    batch_size: int
    target_network_update_period: int
    optimizer: str
    double_q: bool
    num_return_steps: int
    exploration_steps: int
    init_from: Path | None
    start_step: int
    seed: int
    device: str
    precision: str
    num_threads: int
    checkpoint_period: int


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """Let a teacher play and store what it saw, said and did."""

    teacher: tyro.conf.Positional[Path | None] = None
    """Policy file of the teacher."""
    task: str | None = None
    """Task to play; none: the teacher's own."""
    out: Path
    """Dataset folder."""
    num_steps: int = 50_000
    """Decisions to store in all."""
    exploration_epsilon: float | None = None
    """Chance of a uniformly random action; none: the protocol's, 0.05 for Atari."""
    env_kwargs: str = "{}"
    """Settings of the task as JSON, such as '{"frame_skip": 4}'."""
    seed: int = 0
    """Episode i is a function of (seed, i)."""
    num_envs: int = 16
    """Environments stepped together."""
    num_threads: int = 0
    """Threads of torch and of the emulator; 0: one per processor."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        check_positive(self, "num_steps", "num_envs")
        check_not_negative(self, "seed", "num_threads")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Play the same episodes with every policy and with random play, and compare."""

    policies: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Policy files or run folders."""
    task: str | None = None
    """Task to play, or several with commas between; none: all that the first policy has heads for."""
    teacher: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """The reference, once for each teacher; none: those a student's file names, if they are still there."""
    num_episodes: int = 30
    """Episodes of each policy."""
    exploration_epsilon: float | None = None
    """Chance of a uniformly random action; none: the protocol's, 0.05 for Atari."""
    require_retention: float | None = None
    """Fail (exit 1) unless the one-sided 95 % lower bound of retention reaches this; of several tasks, of its mean."""
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
        check_positive(self, "num_episodes", "num_envs")
        check_not_negative(self, "seed", "num_threads")
        if self.require_retention is not None and not math.isfinite(self.require_retention):
            raise UsageError(f"require_retention must be a number such as 0.95, got {self.require_retention}.")
        if self.task is not None and not all(name.strip() for name in self.task.split(",")):
            raise UsageError(f"task: got {self.task!r}, expected names with commas between, such as atari:pong.")

    @property
    def tasks(self) -> str | tuple[str, ...] | None:
        """What `task` names: one, several, or none."""
        names = () if self.task is None else tuple(name.strip() for name in self.task.split(","))
        return names if len(names) > 1 else self.task


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig:
    """Collect, distil, evaluate and film: the bundled Pong teacher becomes a net3; a second call goes on."""

    teacher: Path | None = None
    """Policy file of another teacher; none: the bundled Pong teacher."""
    out: Path = Path("quickstart")
    """Folder for data, student, figure and film."""
    num_steps: int = 60_000
    """Decisions to store."""
    num_updates: int = 12_000
    """Gradient steps."""
    num_episodes: int = 30
    """Episodes of each policy in the evaluation."""
    seed: int = 0
    """Seed of everything random."""
    num_envs: int = 16
    """Environments stepped together."""
    num_threads: int = 0
    """Threads of torch and of the emulator; 0: one per processor."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        check_positive(self, "num_steps", "num_updates", "num_episodes", "num_envs")
        check_not_negative(self, "seed", "num_threads")


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Say what a policy file, a dataset folder, a run folder or a preset is."""

    target: tyro.conf.Positional[str | None] = None
    """Policy file, dataset folder, run folder, or a preset such as net3."""
    heads: str | None = None
    """With a preset: outputs of each head, such as 3,3,6; none: one head of 18."""

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


def parse_options(text: str) -> dict[str, Any]:
    """Read `env_kwargs`.

    Raises:
        UsageError: not a JSON object.
    """
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"env_kwargs is not JSON: got {text!r} ({error}), expected an object such as '{{\"frame_skip\": 4}}'."
        ) from error
    if not isinstance(options, dict):
        raise UsageError(f"env_kwargs: got {text!r}, expected a JSON object such as '{{\"frame_skip\": 4}}'.")
    return options  # pyright: ignore[reportUnknownVariableType]


def check_positive(config: object, *names: str) -> None:
    """Check that fields are 1 or more.

    Raises:
        UsageError: names the field and its value.
    """
    for name in names:
        if getattr(config, name) < 1:
            raise UsageError(f"{name} must be 1 or more, got {getattr(config, name)}.")


def check_not_negative(config: object, *names: str) -> None:
    """Check that fields are 0 or more, and numbers.

    Raises:
        UsageError: names the field and its value.
    """
    for name in names:
        if not 0 <= getattr(config, name) < math.inf:
            raise UsageError(f"{name} must be 0 or more, got {getattr(config, name)}.")


def config_values(config: object) -> dict[str, Any]:
    """Return a configuration's fields, in order."""
    assert is_dataclass(config)
    return {item.name: getattr(config, item.name) for item in fields(config)}
