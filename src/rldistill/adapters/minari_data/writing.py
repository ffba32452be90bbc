"""What is written to Minari: a dataset of ours, an episode at a time, in pieces of bounded size.

Minari has places for observations, actions, rewards and the two flags. The rest goes under the key `rldistill`:

    metadata.json             {schema_version, provenance, identity}
    metadata of an episode    {episode, last_step: {action, reward, terminated, truncated}}
    infos                     {q_values or logits or mean, log_std or actions: [T + 1, …]}

An episode in Minari ends with an observation. An episode of ours that was given up has none after its last step: the
observation of that step becomes the last one, and what was done there becomes `last_step`.
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from rldistill.data import Dataset
from rldistill.envs.spaces import action_space
from rldistill.errors import DatasetError, OutputExistsError, UsageError, optional_import
from rldistill.events import Callback, ProgressEvent, StopRequestedError, notify, tell
from rldistill.storage import writing
from rldistill.tasks import ObservationFingerprint, Task

if TYPE_CHECKING:
    from minari.dataset.minari_storage import MinariStorage

KEY = "rldistill"
SCHEMA_VERSION = 1
# Fields with a place of their own in a Minari episode; all others are infos.
_MINARI_FIELDS = ("action", "reward", "terminated", "truncated")

# 29 MB of Atari stacks: memory is bounded, however long an episode is.
_STEPS_PER_PIECE = 1024


def import_minari() -> Any:  # noqa: ANN401 (a module)
    """Import Minari, and check for what its HDF5 storage imports beside h5py without asking for it."""
    what = "Reading or writing Minari datasets"
    minari, *_ = [optional_import(name, what=what, extra="minari") for name in ("minari", "h5py", "PIL")]
    return minari


def to_minari(dataset: str | Path | Dataset, dataset_id: str, *, callbacks: Sequence[Callback] = ()) -> Path:
    """Write a dataset of ours into Minari's folder of local datasets.

    The teacher's outputs become infos; task, teacher, seed and exploration go into the metadata: `from_minari`
    makes the same dataset of it again. An episode that was given up is cut before its last step and marked as
    truncated; one of a single step is left out.

    Args:
        dataset: folder, or an opened dataset.
        dataset_id: Minari's name, `(namespace/)name-v0`.
        callbacks: receive events and may stop the conversion.

    Returns:
        The folder, below `MINARI_DATASETS_PATH` or `~/.minari/datasets`.

    Raises:
        RldistillError: Minari is not installed; nothing can be written there.
        UsageError: no name that Minari accepts.
        OutputExistsError: there is a Minari dataset of that name.
        DatasetError: no dataset, damaged, or none of its episodes has two steps.
        KeyboardInterrupt: stopped; nothing stays behind.
    """
    import_minari()
    target = _free_folder(dataset_id)
    source = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)
    lengths = _lengths(source, callbacks)
    # A folder that begins with a dot is none of Minari's datasets.
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with writing(target):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            storage = _new_storage(temporary / "data", source, dataset_id)
            done, total = 0, sum(lengths.values())
            for index, (number, num_steps) in enumerate(lengths.items()):
                _write_episode(storage, index, source, number, num_steps)
                done += num_steps
                notify(callbacks, ProgressEvent("convert", done, total, "steps"))
            temporary.rename(target)
    except StopRequestedError:
        raise KeyboardInterrupt("stopped; nothing was written.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _free_folder(dataset_id: str) -> Path:
    """Return the folder of a Minari dataset that does not exist yet, in a namespace that does."""
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.namespace import create_namespace, list_local_namespaces
    from minari.storage import get_dataset_path

    try:
        namespace, _, _ = parse_dataset_id(dataset_id)
    except (ValueError, TypeError) as error:  # the latter: a name without version
        longer = " with a namespace of two letters or more" if dataset_id.find("/") == 1 else ""
        raise UsageError(
            f"dataset_id: got {dataset_id!r}, expected (namespace/)name-v(version){longer}, such as "
            "'cartpole/teacher-v0'."
        ) from error
    target = get_dataset_path(dataset_id)
    if target.exists():
        raise OutputExistsError(
            f"{target} already holds a Minari dataset. Choose another version, or remove it by "
            f"`minari delete {dataset_id}`."
        )
    with writing(target):
        if namespace is not None and namespace not in list_local_namespaces():
            create_namespace(namespace)
    return target


def _lengths(source: Dataset, callbacks: Sequence[Callback]) -> dict[int, int]:
    """Return how many steps of each episode are written, by number; tell the user what that costs and leaves out."""
    numbers, counts = np.unique(source.episodes, return_counts=True)
    ended = {segment.episode for segment in source.segments() if segment.has_last_observation}
    pairs = zip(numbers.tolist(), counts.tolist(), strict=True)
    all_lengths = {number: count - (number not in ended) for number, count in pairs}
    lengths = {number: length for number, length in all_lengths.items() if length}
    if not lengths:
        raise DatasetError(
            f"{source.path} has nothing for Minari: none of its {len(all_lengths)} episodes ended or has a second "
            "step. Collect more of it: `rldistill collect … --resume`."
        )
    fingerprint = source.provenance.task.fingerprint
    row = math.prod(fingerprint.observation_shape) * np.dtype(fingerprint.observation_dtype).itemsize
    ours = sum(shard.num_bytes for shard in source.manifest.shards)
    stacked = ", stacks of frames included" if fingerprint.frame_stack > 1 else ""
    theirs = f"whole observations, uncompressed{stacked}: about {_size(row * source.num_steps)}"
    tell(callbacks, f"Minari keeps {theirs} for what takes {_size(ours)} in {source.path}.")
    left_out = len(all_lengths) - len(lengths)
    if num_cut := len(all_lengths) - len(ended):
        text = f"{num_cut} episodes had not ended: cut before their last step, and marked as truncated"
        text += f"; {left_out} of them had one step and are left out." if left_out else "."
        tell(callbacks, text)
    return lengths


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def _new_storage(folder: Path, source: Dataset, dataset_id: str) -> "MinariStorage":
    from minari import __version__
    from minari.dataset.minari_storage import MinariStorage

    origin = source.provenance
    storage = MinariStorage.new(
        folder,
        observation_space=_observation_space(origin.task.fingerprint),
        action_space=action_space(origin.task.fingerprint.action_layout),
        env_spec=_environment_spec(origin.task),
        data_format="hdf5",
        jpeg_encoding=False,  # Minari's default alters the pixels
    )
    identity = source.manifest.identity
    metadata = {
        "dataset_id": dataset_id,
        "minari_version": __version__,
        "algorithm_name": origin.teacher.name,
        "description": f"Teacher {origin.teacher.name} ({origin.teacher.hash[:12]}) playing {origin.task.name}, with "
        f"its {origin.teacher.output_kind} as infos of rldistill.",
        KEY: {"schema_version": SCHEMA_VERSION, "provenance": origin.to_dict(), "identity": identity},
    }
    storage.update_metadata(metadata)
    return storage


def _observation_space(fingerprint: ObservationFingerprint) -> spaces.Box:
    """Return the space of whole observations, stacks included: bytes and integers bounded by their type."""
    dtype = np.dtype(fingerprint.observation_dtype)
    low, high = (-np.inf, np.inf) if dtype.kind == "f" else (0, 1)
    if dtype.kind in "iu":
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return spaces.Box(low, high, fingerprint.observation_shape, dtype.type)


def _environment_spec(task: Task) -> EnvSpec | None:
    """Return the specification from which Minari makes a task's environment again; None where it cannot.

    Our Atari is no environment of Gymnasium, and one that was given as an object in Python has no name there.
    """
    registered = None if task.is_atari else gymnasium.registry.get(task.name.rpartition(":")[2])
    if registered is None or not isinstance(registered.entry_point, str):
        return None
    kwargs = dict(task.environment_kwargs)
    try:
        spec = EnvSpec.from_json(registered.to_json())
    except (TypeError, ValueError):  # with objects among its settings, which JSON cannot say
        return None
    spec.max_episode_steps = kwargs.pop("max_episode_steps", spec.max_episode_steps)
    spec.kwargs = {**spec.kwargs, **kwargs}
    return spec


def _write_episode(storage: "MinariStorage", index: int, source: Dataset, number: int, num_steps: int) -> None:
    """Write an episode's first `num_steps` steps: all of them where it ended, else all but the last."""
    from minari.data_collector import EpisodeBuffer

    steps = source.episode_steps(number)
    last_observation = source.last_observation(number)
    for begin in range(0, num_steps, _STEPS_PER_PIECE):
        end = min(begin + _STEPS_PER_PIECE, num_steps)
        is_last = end == num_steps
        # The last piece has one observation more than steps; a cut episode has it in its own last step.
        seen = steps[begin : end + is_last]
        observations = source.observations(seen)
        infos = {name: source.field(name)[seen] for name in source.provenance.step_fields if name not in _MINARI_FIELDS}
        action, reward, terminated, truncated = (source.field(name)[steps[begin:end]] for name in _MINARI_FIELDS)
        if is_last and last_observation is not None:
            observations = np.concatenate([observations, last_observation[None]])
            # The teacher was never asked about it.
            for name, rows in infos.items():
                unknown = np.full_like(rows[:1], np.nan if rows.dtype.kind == "f" else 0)
                infos[name] = np.concatenate([rows, unknown])
        elif is_last:
            truncated[-1] = True
        piece: Mapping[str, Any] = {  # arrays, where Minari's annotations say lists
            "observations": observations.astype(source.provenance.task.fingerprint.observation_dtype, copy=False),
            "actions": action if action.dtype.kind == "f" else action.astype(np.int64),
            "rewards": reward,
            "terminations": terminated,
            "truncations": truncated,
            "infos": {KEY: infos},
        }
        storage.update_episodes([EpisodeBuffer(id=index, **piece)])
    # Minari counts the steps of the last piece only.
    metadata = {"total_steps": num_steps, f"{KEY}/episode": number}
    if last_observation is None:
        metadata |= {f"{KEY}/last_step/{name}": source.field(name)[steps[-1]] for name in _MINARI_FIELDS}
    storage.update_episode_metadata([metadata], [index])
