"""A dataset of ours as a Minari dataset, written a piece of an episode at a time."""

import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rldistill.adapters.minari_data.record import (
    KEY,
    MINARI_ROLES,
    action_space,
    dataset_record,
    environment_spec,
    import_minari,
    observation_space,
)
from rldistill.data import Dataset
from rldistill.errors import DatasetError, OutputExistsError, UsageError
from rldistill.events import Callback, MessageEvent, ProgressEvent, StopRequestedError, notify
from rldistill.storage import writing

if TYPE_CHECKING:
    from minari.dataset.minari_storage import MinariStorage

# Of an Atari stack 29 MB: episodes of any length pass through a bounded memory.
_STEPS_PER_PIECE = 1024


def to_minari(dataset: str | Path | Dataset, dataset_id: str, *, callbacks: Sequence[Callback] = ()) -> Path:
    """Write a dataset of ours into Minari's folder of local datasets.

    The teacher's outputs become infos, task, teacher, seed and exploration stand in the metadata: `from_minari`
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
    target = _free_place(dataset_id)
    source = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)
    episodes = [_Episode.of(source, int(number)) for number in source.episode_numbers]
    whole = [episode for episode in episodes if len(episode.steps)]
    if not whole:
        raise DatasetError(
            f"{source.path} has nothing for Minari: none of its {len(episodes)} episodes ended or has a second step. "
            "Collect more of it: `rldistill collect … --resume`."
        )
    for message in _messages(source, episodes):
        notify(callbacks, message)
    # A folder that begins with a dot is none of Minari's datasets.
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with writing(target):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            _write(source, whole, temporary, dataset_id, callbacks)
            temporary.rename(target)
    except StopRequestedError:
        raise KeyboardInterrupt("stopped; nothing was written.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


@dataclass(frozen=True)
class _Episode:
    """An episode as Minari can have it.

    Attributes:
        number: in our dataset.
        steps: indices of those of its steps that become Minari's.
        cut_step: index of the step whose observation becomes the last one; None where the episode ended by itself.
    """

    number: int
    steps: NDArray[np.int64]
    cut_step: int | None

    @classmethod
    def of(cls, source: Dataset, number: int) -> "_Episode":
        steps = source.episode_steps(number)
        if source.last_observation(number) is not None:
            return cls(number, steps, None)
        return cls(number, steps[:-1], int(steps[-1]))

    def last_observation(self, source: Dataset) -> NDArray[Any]:
        """Return the observation that ends it, `[1, *observation_shape]`."""
        if self.cut_step is not None:
            return source.observations([self.cut_step])
        last = source.last_observation(self.number)
        assert last is not None, "as found by `of`"
        return last[None]

    def pieces(self) -> Iterator[tuple[NDArray[np.int64], bool]]:
        """Yield its steps, some at a time, and whether they are the last ones."""
        for begin in range(0, len(self.steps), _STEPS_PER_PIECE):
            yield self.steps[begin : begin + _STEPS_PER_PIECE], begin + _STEPS_PER_PIECE >= len(self.steps)


def _free_place(dataset_id: str) -> Path:
    """Return the folder of a Minari dataset that does not exist yet, in a namespace that does."""
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.namespace import create_namespace, list_local_namespaces
    from minari.storage import get_dataset_path

    try:
        namespace, _, _ = parse_dataset_id(dataset_id)
    except (ValueError, TypeError) as error:  # the latter: a name without version
        raise UsageError(
            f"dataset_id: got {dataset_id!r}, expected (namespace/)name-v(version), such as 'cartpole/teacher-v0'."
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


def _messages(source: Dataset, episodes: Sequence[_Episode]) -> Iterator[MessageEvent]:
    fingerprint = source.provenance.task.fingerprint
    row = math.prod(fingerprint.observation_shape) * np.dtype(fingerprint.observation_dtype).itemsize
    ours = sum(shard.num_bytes for shard in source.manifest.shards)
    stacked = ", stacks of frames included" if fingerprint.frame_stack > 1 else ""
    yield MessageEvent(
        f"Minari keeps whole observations, uncompressed{stacked}: about {_size(row * source.num_steps)} for what takes "
        f"{_size(ours)} in {source.path}."
    )
    cut = [episode for episode in episodes if episode.cut_step is not None]
    left_out = sum(not len(episode.steps) for episode in cut)
    if cut:
        yield MessageEvent(
            f"{len(cut)} episodes had not ended: cut before their last step, and marked as truncated"
            + (f"; {left_out} of them had one step and are left out." if left_out else ".")
        )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def _write(
    source: Dataset, episodes: Sequence[_Episode], folder: Path, dataset_id: str, callbacks: Sequence[Callback]
) -> None:
    from minari import __version__
    from minari.dataset.minari_storage import MinariStorage

    origin = source.provenance
    storage = MinariStorage.new(
        folder / "data",
        observation_space=observation_space(origin.task.fingerprint),
        action_space=action_space(origin.task.fingerprint.action_layout),
        env_spec=environment_spec(origin.task),
        data_format="hdf5",
        jpeg_encoding=False,  # Minari's default alters the pixels
    )
    storage.update_metadata(
        {
            "dataset_id": dataset_id,
            "minari_version": __version__,
            "algorithm_name": origin.teacher.name,
            "description": f"Teacher {origin.teacher.name} ({origin.teacher.hash[:12]}) playing {origin.task.name}, "
            f"with its {origin.teacher.output_kind} as infos of rldistill.",
            KEY: dataset_record(source.manifest),
        }
    )
    num_steps, done = sum(len(episode.steps) for episode in episodes), 0
    for index, episode in enumerate(episodes):
        _write_episode(source, storage, index, episode)
        done += len(episode.steps)
        notify(callbacks, ProgressEvent("convert", done, num_steps, "steps"))


def _write_episode(source: Dataset, storage: "MinariStorage", index: int, episode: _Episode) -> None:
    from minari.data_collector import EpisodeBuffer

    names = _names_by_role(source)
    for steps, is_last in episode.pieces():
        observations, infos = source.observations(steps), _infos(source, steps)
        truncated = source.field(names["truncated"])[steps]
        if is_last:
            observations = np.concatenate([observations, episode.last_observation(source)])
            last_infos = _last_infos(source, episode)
            infos = {name: np.concatenate([rows, last_infos[name]]) for name, rows in infos.items()}
            truncated[-1] |= episode.cut_step is not None
        actions = source.field(names["action"])[steps]
        piece: dict[str, Any] = {  # arrays, where Minari's annotations say lists
            "observations": observations,
            "actions": actions if actions.dtype.kind == "f" else actions.astype(np.int64),
            "rewards": source.field(names["reward"])[steps],
            "terminations": source.field(names["terminated"])[steps],
            "truncations": truncated,
            "infos": {KEY: infos},
        }
        storage.update_episodes([EpisodeBuffer(id=index, **piece)])
    # Minari counts the steps of the last piece only.
    metadata = {"total_steps": len(episode.steps), f"{KEY}/episode": episode.number}
    if episode.cut_step is not None:
        metadata |= {f"{KEY}/last_step/{role}": source.field(name)[episode.cut_step] for role, name in names.items()}
    storage.update_episode_metadata([metadata], [index])


def _names_by_role(source: Dataset) -> dict[str, str]:
    fields = source.provenance.step_fields
    return {role: next(name for name, spec in fields.items() if spec.role == role) for role in MINARI_ROLES}


def _infos(source: Dataset, steps: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    fields = source.provenance.step_fields
    return {name: source.field(name)[steps] for name, spec in fields.items() if spec.role not in MINARI_ROLES}


def _last_infos(source: Dataset, episode: _Episode) -> dict[str, NDArray[Any]]:
    """Return the infos of the last observation, `[1, …]`: Minari has one more of them than steps.

    Of an episode that ended the teacher never saw it: NaN.
    """
    if episode.cut_step is not None:
        return _infos(source, np.array([episode.cut_step]))
    return {
        name: np.full_like(rows, np.nan if rows.dtype.kind == "f" else 0)
        for name, rows in _infos(source, episode.steps[-1:]).items()
    }
