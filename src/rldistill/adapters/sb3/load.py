"""Load a zip of Stable-Baselines3 or sb3-contrib as a policy of our own.

Nothing in a zip is executed: of the pickled fields of its JSON two observations are read, and they, tensors and
statistics as data.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from rldistill.adapters.formats import FileStart, Format, make_policy, warn
from rldistill.adapters.normalizer_file import NormalizerRecord, read_normalizer
from rldistill.adapters.sb3.beside import (
    ATARI_WRAPPER,
    ZooFiles,
    find_normalizer,
    folders_beside,
    read_zoo_files,
    recorded_return,
)
from rldistill.adapters.sb3.data import Sb3Data, parse_data
from rldistill.adapters.sb3.network import read_layers
from rldistill.adapters.sb3.task_record import (
    Teacher,
    check_stacking,
    in_our_order,
    is_sampled,
    make_normalization,
    record_task,
    unused_settings,
)
from rldistill.adapters.weights import Weights, open_archive, read_torch_data, read_weights
from rldistill.errors import MismatchError, PolicyFileError, UsageError, printable
from rldistill.limits import JSON
from rldistill.networks.layers import MisfitError
from rldistill.options.reading import WITHOUT_NORMALIZER, Reading
from rldistill.policies import TorchPolicy
from rldistill.policies.behaviour import Behaviour
from rldistill.storage import sha256_file
from rldistill.tasks import Task
from rldistill.types import OutputKind

_EXPORT_IT = (
    "Export it to ONNX or TorchScript, and load that; or load it with Stable-Baselines3 and pass its network: "
    "rd.load_policy(module, task=…, outputs=…)."
)
_OURS = ("stable_baselines3.", "sb3_contrib.")
_ON_POLICY = ("stable_baselines3.common.", "sb3_contrib.ars.", "sb3_contrib.common.")
_VERSION = "_stable_baselines3_version"
_MOST_VERSION_BYTES = 1 << 10
_ALGORITHMS = {
    "stable_baselines3.dqn.policies": "dqn",
    "sb3_contrib.qrdqn.policies": "qrdqn",
    "stable_baselines3.sac.policies": "sac",
    "sb3_contrib.tqc.policies": "tqc",
    "sb3_contrib.crossq.policies": "crossq",
    "sb3_contrib.ars.policies": "ars",
    "sb3_contrib.common.maskable.policies": "ppo_mask",
    "sb3_contrib.common.recurrent.policies": "ppo_lstm",
}


@dataclass(frozen=True)
class _Sb3File:
    """A zip, as far as it is read, and the files beside it."""

    path: Path
    data: Sb3Data  # its plain fields
    weights: Weights  # of `policy.pth`
    version: str | None  # of the library that wrote it; None where the zip does not say it
    zoo: ZooFiles  # what RL-Zoo's files beside it say
    recorded: dict[str, Any] | None  # the return that a file beside it says

    @property
    def source(self) -> str:
        """What messages call it."""
        return f"Policy file {self.path}"

    @property
    def algorithm(self) -> str:
        """As the zoo calls it: those that share a class of policies are told apart by their settings.

        A zip with DDPG's settings and several critics may be of either class, and is `td3/ddpg`; so is one that does
        not say them.
        """
        data = self.data
        if data.policy_module in _ALGORITHMS:
            return _ALGORITHMS[data.policy_module]
        if data.policy_module.startswith("stable_baselines3.td3"):
            if data.learned_as_ddpg is False:
                return "td3"
            has_several_critics = any(name.startswith("critic.qf1.") for name in self.weights.tensors)
            return "ddpg" if data.learned_as_ddpg and not has_several_critics else "td3/ddpg"
        if "clip_range" in data.field_names:
            return "ppo"
        return "trpo" if "cg_max_steps" in data.field_names else "a2c"

    @property
    def is_on_policy(self) -> bool:
        """Whether its algorithm keeps the environment's own observations only behind a normaliser."""
        return self.data.policy_module.startswith(_ON_POLICY)

    def behaviour(self, kind: OutputKind) -> Behaviour:
        """Return how its publisher played it, as far as its files say: by sampling, where there are chances."""
        has_chances = kind in ("logits", "gaussian") and self.algorithm != "ars"
        is_greedy = (self.recorded or {}).get("is_deterministic", not is_sampled(self.zoo))
        return "sample" if has_chances and not is_greedy else "greedy"

    @property
    def was_normalised(self) -> bool:
        """Whether the files say that its teacher saw normalised observations."""
        if self.zoo.observations_normalised is not None:
            return self.zoo.observations_normalised
        return self.data.saw_normalised_observations or (self.is_on_policy and self.data.saw_other_observations)

    @property
    def why_not_normalised(self) -> str | None:
        """What says that its teacher saw its environment's own observations; None: nothing does."""
        if self.zoo.observations_normalised is not None:
            return None if self.zoo.observations_normalised else "config.yml says"
        keeps_others = "_last_original_obs" in self.data.field_names and bool(self.data.num_timesteps)
        says_no = self.is_on_policy and keeps_others and not self.data.saw_other_observations
        return "the zip itself says" if says_no else None


@dataclass(frozen=True)
class _Statistics:
    """The running statistics of a zip: their file, what it says, and a remark on one that is not the zip's own."""

    path: Path | None = None
    record: NormalizerRecord | None = None
    stray: str | None = None


def load_sb3(path: str | Path, *, task: Task | None = None, normalizer: str | Path | None = None) -> TorchPolicy:
    """Load a zip as a policy of our own: it can be saved, distilled and exported, and needs neither library.

    Args:
        path: the zip.
        task: where the files beside the zip do not say it, or say another; its record counts where the files carry
            none (Atari, images with their channels last).
        normalizer: its `vecnormalize.pkl`, or arrays as `read_normalizer` takes them; None: the one that lies beside
            it, unless zip or config.yml say that observations were not normalised; `"none"`: do without.

    Raises:
        PolicyFileError: missing, damaged, not a zip of these libraries, hostile, or a network that cannot be rebuilt:
            of its maker's own, with unknown layers; or it saw joined observations, which the task lacks.
    """
    file = _read(Path(path))
    # First the statistics: which of the files beside a zip are its own decides what its task looks like.
    statistics = _find_statistics(file, normalizer)
    check_stacking(file.data.observation_space, file.zoo, statistics.record, task, source=file.source)
    is_missing = statistics.path is None and normalizer is None and file.was_normalised
    remarks = [*filter(None, [statistics.stray]), *_remarks(file, task, is_normalizer_missing=is_missing)]
    for remark in remarks:
        warn(remark)
    try:
        policy = _convert(file, statistics, task)
    except (ValueError, MismatchError, UsageError) as error:
        reason = str(error).rstrip(".")
        raise PolicyFileError(f"{file.source} cannot be rebuilt: it has {reason}. {_EXPORT_IT}") from error
    return policy.with_provenance({"source": _source(file, statistics, remarks)})


def _is_sb3(file: FileStart) -> bool:
    return {"data", "policy.pth"} <= file.members


def _load(path: Path, reading: Reading, task: Task | None, _module: nn.Module | None) -> TorchPolicy:
    return load_sb3(path, task=task, normalizer=reading.normalizer)


SB3 = Format("sb3", "Stable-Baselines3 zip", _is_sb3, _load, frozenset({"normalizer"}), says_task=True)


def _read(path: Path) -> _Sb3File:
    source, member = f"Policy file {path}", f"policy.pth in {path}"
    with open_archive(path) as archive:
        data = parse_data(archive.read("data", most=JSON.num_bytes), source=source)
        content = read_torch_data(archive.read("policy.pth"), source=member, num_bytes=archive.num_bytes)
        weights = read_weights(content, source=member)
        version = archive.read(_VERSION, most=_MOST_VERSION_BYTES) if _VERSION in archive.names else b""
    if not data.policy_module.startswith(_OURS):
        raise PolicyFileError(
            f"{source} has a policy of its maker's own, {data.policy_module or 'unknown'}.{data.policy_class}, which "
            f"cannot be rebuilt from its weights. {_EXPORT_IT}"
        )
    shown_version = version.decode("utf-8", "replace").strip()[:40] or None
    zoo, recorded = read_zoo_files(folders_beside(path)), recorded_return(path)
    return _Sb3File(path, data, weights, shown_version, zoo, recorded)


def _convert(file: _Sb3File, statistics: _Statistics, named: Task | None) -> TorchPolicy:
    space, record = file.data.observation_space, statistics.record
    layers, layout = read_layers(file.weights.tensors, file.data)
    # The task needs the layout of the layers, and the layers the order in which the task shows its inputs.
    task = record_task(Teacher(file.data, file.zoo, record, layout), named)
    # Convolutions get an image as the library did; fully connected layers get it as the task shows it.
    seen = space.shape if layers.first.is_convolution else task.fingerprint.observation_shape
    if not layers.first.is_convolution or layers.images:
        layers = in_our_order(layers, space, seen)
    if record is not None:
        scale = layers.input_scale if space.kind == "box" else 1.0
        try:
            layers = replace(layers, normalization=make_normalization(record, space, seen, scale=scale))
        except ValueError as error:
            raise PolicyFileError(
                f"{file.source}: Normaliser file {statistics.path} has {error}. It is probably of another run: name "
                "the zip's own with --normalizer FILE (in Python normalizer=), or do without: --normalizer none."
            ) from error
    name = f"{file.algorithm} {file.zoo.environment or task.name}"
    try:
        return make_policy(layers, task, name=name, behaviour=file.behaviour(layers.kind), provenance={})
    except MisfitError as error:
        raise ValueError(f"layers that do not fit observations {space.description}: {error}") from error


def _find_statistics(file: _Sb3File, normalizer: str | Path | None) -> _Statistics:
    """Return the statistics of a zip: those that are named, else those beside it unless they are another run's."""
    if normalizer == WITHOUT_NORMALIZER:
        return _Statistics()
    if normalizer is not None:
        return _Statistics(Path(normalizer), read_normalizer(Path(normalizer)))
    beside, reason = find_normalizer(file.path), file.why_not_normalised
    if beside is None:
        return _Statistics()
    try:
        record = read_normalizer(beside)
    except PolicyFileError:
        if reason is None:
            raise
        record = None  # another run's, and damaged: it is not used anyway
    if reason is None or (record is not None and not record.norm_obs):
        return _Statistics(beside, record)
    stray = (
        f"{file.source}: {beside} lies beside it and is not used, since {reason} that observations were not "
        f"normalised: it is probably of another run. If it belongs to this zip, name it: --normalizer {beside}."
    )
    return _Statistics(stray=stray)


def _remarks(file: _Sb3File, task: Task | None, *, is_normalizer_missing: bool) -> list[str]:
    """Return what may make the policy play badly, one line each."""
    remarks: list[str] = []
    if is_normalizer_missing:
        remarks.append(
            f"its teacher saw normalised observations, but {file.path.with_name('vecnormalize.pkl')} is missing. "
            "Without these statistics it plays about as well as at random. Fetch the file, or name it with "
            "--normalizer (in Python normalizer=)."
        )
    if file.algorithm == "ppo_mask":
        told = "its teacher (MaskablePPO) was told which actions were allowed."
        remarks.append(f"{told} Nobody tells it here: it may choose others.")
    if wrappers := _foreign_wrappers(file.zoo):
        remarks.append(
            f"its environment was wrapped in {', '.join(wrappers)}, which is not done here. It plays well only where "
            "the task does the same."
        )
    if file.zoo.not_understood:
        remarks.append(
            f"the files beside it name {', '.join(file.zoo.not_understood)}, which is not understood here and was left "
            "out. Where it changes what its teacher saw or did, it plays badly: let an environment of yours do the "
            "same (--task module:EnvId)."
        )
    if task is not None and (settings := unused_settings(file.zoo, task)):
        given = printable(json.dumps(dict(settings)), 200)
        remarks.append(
            f"the files beside it give its environment {given}, and task {task.name!r} is played without. If it is the "
            "teacher's environment, say so: --env-kwargs (in Python env_kwargs=)."
        )
    return [f"{file.source}: {remark}" for remark in remarks]


def _foreign_wrappers(zoo: ZooFiles) -> list[str]:
    """Return what the zoo did to a teacher's environment, and tasks of ours do not."""
    if zoo.is_atari and zoo.frame_stack == 4:
        return [name for name in zoo.wrappers if name != ATARI_WRAPPER]
    return [*zoo.wrappers, *([f"VecFrameStack of {zoo.frame_stack}"] if zoo.frame_stack > 1 else [])]


def _source(file: _Sb3File, statistics: _Statistics, remarks: list[str]) -> dict[str, Any]:
    """Return where the policy comes from, as plain JSON."""
    normalizer = None
    if statistics.path is not None and statistics.record is not None:
        counts = [part.count for part in statistics.record.statistics.values()]
        normalizer = {
            "file": statistics.path.name,
            "sha256": sha256_file(statistics.path),
            "num_observations": round(max(counts, default=0)),
        }
    return {
        "format": "stable-baselines3",
        "file": file.path.name,
        "sha256": sha256_file(file.path),
        "algorithm": file.algorithm,
        "library_version": file.version,
        "policy_class": f"{file.data.policy_module}.{file.data.policy_class}".rstrip("."),
        "environment": file.zoo.environment,
        "num_timesteps": file.data.num_timesteps,
        "normalizer": normalizer,
        "recorded_return": file.recorded,
        "weights_converted_from": list(file.weights.converted_from),
        "notes": remarks,
    }
