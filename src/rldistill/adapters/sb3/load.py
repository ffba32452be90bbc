"""Load a zip of Stable-Baselines3 or sb3-contrib as a policy of our own."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from rldistill.adapters.archive import open_archive
from rldistill.adapters.formats import FileStart, Format, Reading
from rldistill.adapters.found import make_policy
from rldistill.adapters.normalizer_file import WITHOUT_NORMALIZER, read_normalizer
from rldistill.adapters.notices import warn
from rldistill.adapters.sb3.beside import find_normalizer, folders_beside, recorded_return
from rldistill.adapters.sb3.data import Sb3Data, parse_data
from rldistill.adapters.sb3.inputs import in_our_order, make_normalization
from rldistill.adapters.sb3.network import read_layers
from rldistill.adapters.sb3.normalizer import VecNormalizeRecord
from rldistill.adapters.sb3.stacking import check_stacking
from rldistill.adapters.sb3.task_record import ATARI_WRAPPER, Teacher, is_atari, record_task
from rldistill.adapters.sb3.zoo_files import ZooFiles, read_zoo_files
from rldistill.adapters.weights import Weights, read_torch_data, read_weights
from rldistill.errors import MismatchError, PolicyFileError, UsageError
from rldistill.limits import JSON
from rldistill.networks.layers import MisfitError
from rldistill.policies import TorchPolicy
from rldistill.storage import sha256_file
from rldistill.tasks import Task
from rldistill.types import resolve_device

_EXPORT_IT = (
    "Export it to ONNX or TorchScript, and load that; or load it with Stable-Baselines3 and pass its network: "
    "rd.load_policy(module, task=…, outputs=…)."
)
_OURS = ("stable_baselines3.", "sb3_contrib.")
_MOST_VERSION_BYTES = 1 << 10
_ALGORITHMS = {
    "stable_baselines3.dqn.policies": "dqn",
    "sb3_contrib.qrdqn.policies": "qrdqn",
    "stable_baselines3.sac.policies": "sac",
    "sb3_contrib.tqc.policies": "tqc",
    "sb3_contrib.ars.policies": "ars",
    "sb3_contrib.common.maskable.policies": "ppo_mask",
}


@dataclass(frozen=True)
class Sb3File:
    """The parts of a zip that are read.

    Attributes:
        data: its plain fields.
        weights: of `policy.pth`.
        version: of the library that wrote it; None where the zip does not say it.
        source: what messages call it.
    """

    data: Sb3Data
    weights: Weights
    version: str | None
    source: str


def load_sb3(
    path: str | Path,
    *,
    device: str = "cpu",
    task: str | Task | None = None,
    normalizer: str | Path | None = None,
) -> TorchPolicy:
    """Load a zip as a policy of our own: it can be saved, distilled and exported, and needs neither library.

    Nothing in it is executed: of the pickled fields of its JSON two observations are read, and they, tensors and
    statistics as data.

    Args:
        path: the zip.
        device: `auto`, `cpu` or `cuda`.
        task: the environment's id, where the files beside the zip do not say it, or say another; or a whole task,
            whose record counts where the files carry none (Atari, images with their channels last).
        normalizer: its `vecnormalize.pkl`, or arrays as `read_normalizer` takes them; None: the one that lies beside
            it, unless zip or config.yml say that observations were not normalised; `"none"`: do without.

    Raises:
        PolicyFileError: missing, damaged, not a zip of these libraries, hostile, or a network that
            cannot be rebuilt: recurrent, of its maker's own, with unknown layers; or it saw joined
            observations, which the task does not give.
    """
    path = Path(path)
    file = read_sb3(path)
    zoo = read_zoo_files(folders_beside(path))
    normalizer_path, record, stray = _find_statistics(path, file, zoo, normalizer)
    check_stacking(file.data.observation_space, zoo, record, task, source=file.source)
    remarks = _remarks(path, file, zoo, is_normalizer_missing=normalizer_path is None and normalizer is None)
    remarks = [*([] if stray is None else [stray]), *remarks]
    for remark in remarks:
        warn(remark)
    try:
        policy = _convert(file, zoo, record, task, normalizer_path)
    except (ValueError, MismatchError, UsageError) as error:
        raise PolicyFileError(
            f"{file.source} cannot be rebuilt: it has {str(error).rstrip('.')}. {_EXPORT_IT}"
        ) from error
    source = _source(path, file, zoo, normalizer_path, record, remarks)
    return policy.with_provenance({"source": source}).to(resolve_device(device))


def _is_sb3(file: FileStart) -> bool:
    return {"data", "policy.pth"} <= file.members


def _load(path: Path, reading: Reading, task: Task | None, _module: nn.Module | None) -> TorchPolicy:
    return load_sb3(path, task=task, normalizer=reading.normalizer)


SB3 = Format("sb3", "Stable-Baselines3 zip", _is_sb3, _load, frozenset({"normalizer"}), says_task=True)


def read_sb3(path: Path) -> Sb3File:
    """Read the parts of a zip that a network needs.

    Raises:
        PolicyFileError: missing, damaged, hostile, or not a zip of these libraries.
    """
    source = f"Policy file {path}"
    with open_archive(path) as archive:
        data = parse_data(archive.read("data", most=JSON.num_bytes), source=source)
        member = f"policy.pth in {path}"
        content = read_torch_data(archive.read("policy.pth"), source=member, num_bytes=archive.num_bytes)
        weights = read_weights(content, source=member)
        name = "_stable_baselines3_version"
        version = archive.read(name, most=_MOST_VERSION_BYTES) if name in archive.names else b""
    if not data.policy_module.startswith(_OURS):
        raise PolicyFileError(
            f"{source} has a policy of its maker's own, {data.policy_module or 'unknown'}.{data.policy_class}, which "
            f"cannot be rebuilt from its weights. {_EXPORT_IT}"
        )
    return Sb3File(data, weights, version.decode("utf-8", "replace").strip()[:40] or None, source)


def algorithm_name(data: Sb3Data, weights: Weights) -> str:
    """Return the algorithm as the zoo calls it: those that share a class of policies are told apart by their settings.

    A zip with DDPG's settings and several critics may be of either class, and is `td3/ddpg`; so is one that does not
    say them.
    """
    if data.policy_module in _ALGORITHMS:
        return _ALGORITHMS[data.policy_module]
    if data.policy_module.startswith("stable_baselines3.td3"):
        if data.learned_as_ddpg is False:
            return "td3"
        has_several_critics = any(name.startswith("critic.qf1.") for name in weights.tensors)
        return "ddpg" if data.learned_as_ddpg and not has_several_critics else "td3/ddpg"
    if "clip_range" in data.field_names:
        return "ppo"
    return "trpo" if "cg_max_steps" in data.field_names else "a2c"


def _convert(
    file: Sb3File,
    zoo: ZooFiles,
    record: VecNormalizeRecord | None,
    named: str | Task | None,
    normalizer_path: Path | None,
) -> TorchPolicy:
    data, space = file.data, file.data.observation_space
    layers, layout = read_layers(file.weights.tensors, data, source=file.source)
    task = record_task(Teacher(data, zoo, record, layout), named)
    # Convolutions get an image as the library did; fully connected layers get it as the task shows it.
    seen = space.shape if layers.first.is_convolution else task.fingerprint.observation_shape
    if not layers.first.is_convolution or layers.images:
        layers = in_our_order(layers, space, seen)
    scale = layers.input_scale if space.kind == "box" else 1.0
    if record is not None:
        try:
            layers = replace(layers, normalization=make_normalization(record, space, seen, scale=scale))
        except ValueError as error:
            raise PolicyFileError(
                f"{file.source}: Normaliser file {normalizer_path} has {error}. It is probably of another run: name "
                "the zip's own with --normalizer FILE (in Python normalizer=), or do without: --normalizer none."
            ) from error
    name = f"{algorithm_name(data, file.weights)} {zoo.environment or task.name}"
    try:
        return make_policy(layers, task, name=name, behaviour="greedy", provenance={})
    except MisfitError as error:
        raise ValueError(f"layers that do not fit observations {space.description}: {error}") from error


def _find_statistics(
    path: Path, file: Sb3File, zoo: ZooFiles, normalizer: str | Path | None
) -> tuple[Path | None, VecNormalizeRecord | None, str | None]:
    """Return the normaliser of a zip and what it says, or, of one that is not its own, a line that says so."""
    if normalizer == WITHOUT_NORMALIZER:
        return None, None, None
    if normalizer is not None:
        return Path(normalizer), read_normalizer(Path(normalizer)), None
    beside = find_normalizer(path)
    if beside is None:
        return None, None, None
    reason = _why_not_normalised(file.data, zoo)
    try:
        record = read_normalizer(beside)
    except PolicyFileError:
        if reason is None:
            raise
        record = None  # another run's, and damaged: it is not used anyway
    if reason is None or (record is not None and not record.norm_obs):
        return beside, record, None
    stray = (
        f"{file.source}: {beside} lies beside it and is not used, since {reason} that observations were not "
        f"normalised: it is probably of another run. If it belongs to this zip, name it: --normalizer {beside}."
    )
    return None, None, stray


def _why_not_normalised(data: Sb3Data, zoo: ZooFiles) -> str | None:
    """Return what says that a teacher saw its environment's own observations; None: nothing does."""
    if zoo.observations_normalised is not None:
        return None if zoo.observations_normalised else "config.yml says"
    keeps_others = "_last_original_obs" in data.field_names and bool(data.num_timesteps)
    says_no = _is_on_policy(data) and keeps_others and not data.saw_other_observations
    return "the zip itself says" if says_no else None


def _remarks(path: Path, file: Sb3File, zoo: ZooFiles, *, is_normalizer_missing: bool) -> list[str]:
    """Return what may make the policy play badly, one line each."""
    remarks: list[str] = []
    if is_normalizer_missing and _was_normalised(file.data, zoo):
        remarks.append(
            f"{file.source}: its teacher saw normalised observations, but {path.with_name('vecnormalize.pkl')} is "
            "missing. Without these statistics it plays about as well as at random. Fetch the file, or name it with "
            "--normalizer (in Python normalizer=)."
        )
    if algorithm_name(file.data, file.weights) == "ppo_mask":
        remarks.append(
            f"{file.source}: its teacher (MaskablePPO) was told which actions were allowed. Nobody tells it here: it "
            "may choose others."
        )
    if wrappers := _foreign_wrappers(zoo):
        remarks.append(
            f"{file.source}: its environment was wrapped in {', '.join(wrappers)}, which is not done here. It plays "
            "well only where the task does the same."
        )
    if zoo.not_understood:
        remarks.append(
            f"{file.source}: the files beside it name {', '.join(zoo.not_understood)}, which is not understood here "
            "and was left out. Where it changes what its teacher saw or did, it plays badly: let an environment of "
            "yours do the same (--task module:EnvId)."
        )
    return remarks


def _foreign_wrappers(zoo: ZooFiles) -> list[str]:
    """Return what the zoo did to a teacher's environment, and tasks of ours do not."""
    if is_atari(zoo) and zoo.frame_stack == 4:
        return [name for name in zoo.wrappers if name != ATARI_WRAPPER]
    return [*zoo.wrappers, *([f"VecFrameStack of {zoo.frame_stack}"] if zoo.frame_stack > 1 else [])]


def _was_normalised(data: Sb3Data, zoo: ZooFiles) -> bool:
    if zoo.observations_normalised is not None:
        return zoo.observations_normalised
    return data.saw_normalised_observations or (_is_on_policy(data) and data.saw_other_observations)


def _is_on_policy(data: Sb3Data) -> bool:
    return data.policy_module.startswith(("stable_baselines3.common.", "sb3_contrib.ars.", "sb3_contrib.common."))


def _source(
    path: Path,
    file: Sb3File,
    zoo: ZooFiles,
    normalizer_path: Path | None,
    record: VecNormalizeRecord | None,
    remarks: list[str],
) -> dict[str, Any]:
    """Return where the policy comes from, as plain JSON."""
    statistics = None
    if normalizer_path is not None and record is not None:
        counts = [part.count for part in record.statistics.values()]
        statistics = {
            "file": normalizer_path.name,
            "sha256": sha256_file(normalizer_path),
            "num_observations": round(max(counts, default=0)),
        }
    return {
        "format": "stable-baselines3",
        "file": path.name,
        "sha256": sha256_file(path),
        "algorithm": algorithm_name(file.data, file.weights),
        "library_version": file.version,
        "policy_class": f"{file.data.policy_module}.{file.data.policy_class}".rstrip("."),
        "environment": zoo.environment,
        "num_timesteps": file.data.num_timesteps,
        "normalizer": statistics,
        "recorded_return": recorded_return(path),
        "weights_converted_from": list(file.weights.converted_from),
        "notes": remarks,
    }
