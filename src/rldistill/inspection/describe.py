"""What a policy file, a dataset, a run folder or a preset is, in one record."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rldistill.adapters.load import FileKind, check_reading, detect_kind
from rldistill.adapters.program import ProgramPolicy
from rldistill.data import Dataset, is_dataset_folder
from rldistill.envs import make_task
from rldistill.errors import PolicyFileError, UsageError
from rldistill.inspection.expected import source_of
from rldistill.loading.named import PolicyFile, as_policy, played_by
from rldistill.networks import OutputLayer, PolicyNetwork, measure_size, parse_architecture
from rldistill.networks.architecture import PRESETS, did_you_mean
from rldistill.options.reading import Reading
from rldistill.policies import TorchPolicy, fit_policy
from rldistill.policies.sighted import SightedPolicy

# Presets are described on the paper's images and with all of Atari's actions unless told.
_IMAGE_SHAPE = (4, 84, 84)
_ALL_ACTIONS = 18
# Of Stable-Baselines3, whose files have a state value.
_ACTOR_CRITICS = ("a2c", "ppo", "ppo_lstm", "ppo_mask", "trpo")
_FREE_SIZE = re.compile(r"(mlp|conv|combined):")


def describe(
    target: str | Path,
    *,
    heads: Sequence[int] = (),
    reading: Reading = Reading(),  # noqa: B008 (frozen)
    task: str | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    sees: str | Sequence[str] | None = None,
    names: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Any]:
    """Describe a policy of any library, a dataset folder, a run folder, or a network by its name.

    Of a network that is named by its name, such as `net3`, `heads` are the outputs of each head; none: one of 18. The
    others are what the user says of a policy file that does not say it itself; `sees` are the parts of the task's
    observations that it takes, and `names` those of spans.

    Raises:
        RldistillError: neither a path nor a network; a file that cannot be trusted, is damaged, does not fit the task
            or does not say what its outputs are; `heads` for something that has its own.
    """
    text, path = str(target), Path(target)
    is_network = not path.exists() and (text in PRESETS or _FREE_SIZE.match(text)) is not None
    said = [*reading.to_dict(), *(["trust"] if reading.trust else []), *([] if task is None else ["task"])]
    if said and (is_network or is_dataset_folder(path)):
        raise UsageError(f"{' and '.join(said)} is for policy files, {target} is none. Leave it out.")
    if is_network:
        return _describe_network(text, heads or (_ALL_ACTIONS,))
    if heads:
        raise UsageError(f"--heads belongs with a preset, {target} has heads of its own.")
    if is_dataset_folder(path):
        return _describe_dataset(path)
    if not path.exists():
        raise PolicyFileError(
            f"Nothing to inspect: {target} is neither a file, a folder, nor a network "
            f"({', '.join(PRESETS)}, conv:8-8-8:32).{did_you_mean(text)}"
        )
    return _describe_file(path, reading, task, env_kwargs, sees, names)


def _describe_file(
    path: Path,
    reading: Reading,
    task: str | None,
    env_kwargs: Mapping[str, Any] | None,
    sees: str | Sequence[str] | None,
    names: Mapping[str, Sequence[int]] | None,
) -> dict[str, Any]:
    kind: FileKind = detect_kind(path) if path.is_file() else "policy"
    check_reading(path, kind, reading)
    if kind in ("torchscript", "torch_export") and not reading.trust:
        return _describe_unread(path, kind, "it holds code of its maker. Add --trust if you trust where it came from.")
    playable = None if task is None else make_task(task, env_kwargs)  # a wrong name is no fault of the file
    try:
        policy = as_policy(
            PolicyFile(path, reading), device="cpu", task=task, env_kwargs=env_kwargs, sees=sees, names=names
        )
    except UsageError as error:
        is_said = task is not None or kind in ("policy", "sb3", "weights")
        if sees is not None or (is_said and reading.outputs is not None):
            raise
        return _describe_unread(path, kind, str(error))
    if playable is not None:
        fit_policy(policy, played_by(policy, playable).task)
    if isinstance(policy, SightedPolicy):
        policy = policy.policy
    if isinstance(policy, ProgramPolicy):
        return _describe_program(policy)
    assert isinstance(policy, TorchPolicy), "files hold weights or programs"
    return _describe_policy(policy)


def _describe_network(name: str, heads: Sequence[int]) -> dict[str, Any]:
    architecture = parse_architecture(name)
    if architecture.kind != "conv":
        kind = "an mlp" if architecture.kind == "mlp" else "a combined network"
        raise UsageError(f"inspect {name}: the size of {kind} depends on its task. Inspect a policy file instead.")
    sizes = {f"head{index}": size for index, size in enumerate(heads)}
    with torch.device("cpu"):
        outputs = {name: OutputLayer.choice(size) for name, size in sizes.items()}
        size = measure_size(PolicyNetwork(architecture, _IMAGE_SHAPE, outputs))
    return {
        "kind": "network",
        "name": name,
        **vars(size),
        "heads": sizes,
        "task": None,
        "fingerprint": None,
        "architecture": architecture.to_dict(),
    }


def _describe_policy(policy: TorchPolicy) -> dict[str, Any]:
    size = measure_size(policy.network, bytes_per_parameter=policy.spec.stored_dtype.itemsize)
    tasks: list[dict[str, Any]] = [{"task": own.name, "fingerprint": own.fingerprint.to_dict()} for own in policy.tasks]
    return {
        "kind": "policy",
        "name": policy.name,
        **vars(size),
        "heads": policy.spec.head_sizes,
        **tasks[0],
        "output_kind": policy.output_kind,
        "behaviour": policy.behaviour,
        "state_value": _state_value(policy),
        **_remembered(policy),
        "tasks": [own | {"behaviour": policy.for_task(own["task"]).behaviour} for own in tasks],
        "policy_hash": policy.hash,
        "weights_dtype": policy.spec.weights_dtype,
        "architecture": policy.spec.to_dict()["architecture"],
        "provenance": dict(policy.spec.provenance),
    }


def _state_value(policy: TorchPolicy) -> str | None:
    """Say what became of an actor-critic's value; None where nothing says that there was one."""
    architecture = policy.spec.architecture
    if architecture is not None and architecture.value_head:
        return "kept, on the policy's own features"
    unused, algorithm = (source_of(policy).get(key) for key in ("unused", "algorithm"))
    # What stands beside an actor is its critic; beside the student of rsl_rl's distillation, its teacher.
    has_critic = isinstance(unused, list) and bool(unused) and algorithm != "distillation"
    had_value = algorithm in _ACTOR_CRITICS or has_critic
    return "left out: its file computes it with layers of its own" if had_value else None


def _remembered(policy: TorchPolicy | ProgramPolicy) -> dict[str, int]:
    """Return how many numbers a policy with a memory keeps of one environment; nothing of one without."""
    state = policy.initial_state(1)
    return {} if state is None else {"num_remembered": sum(part.numel() for part in state)}


def _describe_program(policy: ProgramPolicy) -> dict[str, Any]:
    program, task = policy.program, policy.tasks[0]
    return {
        "kind": "program",
        "name": policy.name,
        "format": program.format,
        "num_parameters": program.num_parameters,
        "num_bytes": program.num_bytes,
        "num_macs": None,
        "heads": {task.name: task.fingerprint.action_layout.num_outputs(policy.output_kind)},
        "task": task.name,
        "fingerprint": task.fingerprint.to_dict(),
        "output_kind": policy.output_kind,
        "outputs": policy.outputs.text,
        "input_scale": policy.input_scale,
        **_remembered(policy),
        "behaviour": policy.behaviour,
        "policy_hash": policy.hash,
    }


def _describe_unread(path: Path, kind: FileKind, note: str) -> dict[str, Any]:
    """Say what can be known of a file that needs more words, and which."""
    unknown = ("num_parameters", "num_macs", "heads", "task", "fingerprint")
    return {
        "kind": "policy" if kind in ("policy", "sb3", "weights") else "program",
        "name": path.stem,
        "format": kind,
        "num_bytes": path.stat().st_size,
        **dict.fromkeys(unknown),
        "note": f"not loaded: {note}",
    }


def _describe_dataset(path: Path) -> dict[str, Any]:
    dataset = Dataset.open(path)
    manifest, origin = dataset.manifest, dataset.provenance
    return {
        "kind": "dataset",
        "name": path.name,
        "num_steps": manifest.num_steps,
        "num_episodes": manifest.num_episodes,
        "num_interrupted": manifest.num_interrupted,
        "num_bytes": sum(shard.num_bytes for shard in manifest.shards),
        "is_complete": manifest.is_complete,
        "task": origin.task.name,
        "fingerprint": origin.task.fingerprint.to_dict(),
        "protocol": origin.task.protocol.to_dict(),
        "teacher": vars(origin.teacher),
        "behaviour": origin.behaviour,
        "seed": origin.seed,
        "exploration_epsilon": origin.exploration_epsilon,
        "fields": {name: f"{spec.dtype} {list(spec.shape)} {spec.role}" for name, spec in origin.fields.items()},
    }
