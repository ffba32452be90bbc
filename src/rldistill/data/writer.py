"""Writing a dataset so that a kill, a full disk or a power cut loses nothing that was reported.

Steps are buffered and go to disk a shard at a time; then the manifest is replaced. A
writer that starts again deletes shards the manifest does not list and goes on from the
episodes it calls running: the caller plays them again up to where they stand.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rldistill.data.layout import OBSERVATION, FieldSpec
from rldistill.data.manifest import (
    MANIFEST_NAME,
    Manifest,
    Provenance,
    RunningEpisode,
    is_dataset_folder,
    load_manifest,
    save_manifest,
)
from rldistill.data.reader import Dataset
from rldistill.data.segments import SegmentBuffer, ShardBuffer
from rldistill.data.shard import shard_name, write_shard
from rldistill.errors import MismatchError, NumericalError, OutputExistsError
from rldistill.observations import structured_dtype
from rldistill.storage import folder_lock, is_temporary, sync_folder, temporary_files

DEFAULT_STEPS_PER_SHARD = 8192
_SHARDS = "shard-*.safetensors"


class DatasetWriter:
    """The only writer of a dataset folder; make it with `create` or `resume`, and use it in a `with`.

    Episodes must be begun in the order of their numbers: `next_episode`, with `running`, is
    all that a later process knows of what was played. A shard is written at the start of an
    `append`, never between an `append` and the `end_episode` that belongs to it.

    Leaving the `with` writes what is buffered; leaving it by an exception does not, because
    the exception may have come in the middle of a step. To stop cleanly, leave normally.

    Attributes:
        path: the folder.
        num_steps: steps appended, listed or not.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        stack: contextlib.ExitStack,
        *,
        steps_per_shard: int,
        segments: Mapping[int, SegmentBuffer] | None = None,
    ) -> None:
        self.path = path
        self._manifest = manifest
        self._provenance = manifest.provenance
        self._layout = manifest.provenance.layout
        self._row_spec = self._layout.row_spec
        self._stack = stack
        self._buffer = ShardBuffer(self._layout, segments)
        self._num_interrupted_now = 0
        self._closed_numbers: set[int] = set()
        self._next_episode = manifest.next_episode
        self._steps_per_shard = steps_per_shard
        self._is_closed = False

    @classmethod
    def create(
        cls,
        path: Path,
        provenance: Provenance,
        *,
        target_num_steps: int,
        steps_per_shard: int = DEFAULT_STEPS_PER_SHARD,
        overwrite: bool = False,
    ) -> Self:
        """Begin a dataset in a new or empty folder.

        Args:
            path: of the folder.
            provenance: how the data will be made.
            target_num_steps: steps to be reached, recorded for a resume.
            steps_per_shard: steps after which a shard is written.
            overwrite: whether a dataset of ours that lies there is deleted.

        Raises:
            OutputExistsError: the folder holds something.
            LockedError: another process writes there.
        """
        if path.exists() and not path.is_dir():
            raise OutputExistsError(f"{path} exists and is not a folder. Choose another --out.")
        if path.is_dir():
            _check_free(path, overwrite=overwrite)  # before the lock, which is a file: not even that is left there
        with contextlib.ExitStack() as stack:
            stack.enter_context(folder_lock(path))
            _clear(path, overwrite=overwrite)
            manifest = Manifest(provenance, target_num_steps)
            save_manifest(path, manifest)
            return cls(path, manifest, stack.pop_all(), steps_per_shard=steps_per_shard)

    @classmethod
    def resume(
        cls,
        path: Path,
        provenance: Provenance,
        *,
        target_num_steps: int,
        steps_per_shard: int = DEFAULT_STEPS_PER_SHARD,
    ) -> Self:
        """Go on with a dataset; every listed shard is verified first, unlisted ones are deleted.

        Raises:
            MismatchError: the dataset was begun with another task, teacher, seed, ε or fields; all are named.
            DatasetError: not a dataset, or damaged.
            LockedError: another process writes there.
        """
        manifest = load_manifest(path)
        with contextlib.ExitStack() as stack:
            stack.enter_context(folder_lock(path))
            manifest = load_manifest(path)  # again: the writer that held the lock may just have ended
            differences = manifest.provenance.differences(provenance)
            if differences:
                raise MismatchError(
                    f"Dataset {path} cannot be resumed with other settings: {'; '.join(differences)}. "
                    "Use the settings it was begun with, or begin anew with --overwrite."
                )
            dataset = Dataset.open(path, allow_empty=True)
            listed = {shard.file for shard in manifest.shards}
            _delete_own_files(path, keep=listed)
            manifest = replace(manifest, target_num_steps=target_num_steps, is_complete=False)
            segments = {entry.episode: _continued(dataset, entry) for entry in manifest.running}
            writer = cls(path, manifest, stack.pop_all(), steps_per_shard=steps_per_shard, segments=segments)
        writer._closed_numbers = set(dataset.episode_numbers.tolist()) - set(segments)
        return writer

    @property
    def provenance(self) -> Provenance:
        """How the data are made."""
        return self._provenance

    @property
    def num_steps(self) -> int:
        """Steps appended so far, those of earlier processes included."""
        return self._manifest.num_steps + self._buffer.num_steps

    @property
    def num_listed_steps(self) -> int:
        """Steps that the manifest lists: those that no kill can take away."""
        return self._manifest.num_steps

    @property
    def running(self) -> dict[int, int]:
        """Episodes that have begun and not ended, with the number of their steps appended."""
        return {episode: segment.next_step for episode, segment in sorted(self._buffer.under_way.items())}

    @property
    def next_episode(self) -> int:
        """Smallest number above every episode of which steps were appended."""
        return self._next_episode

    def append(
        self, episodes: Sequence[int] | NDArray[Any], observations: NDArray[Any], values: Mapping[str, NDArray[Any]]
    ) -> None:
        """Add one step to each of N episodes; a number not seen before begins an episode.

        Args:
            episodes: `[N]`, all different.
            observations: `[N, …]`, one row each: the newest frame where frames are stacked, else
                the whole observation; what the step was decided on.
            values: `[N, …]` by name, for every field but the observation.

        Raises:
            NumericalError: a NaN or an infinity in a target or a reward.
            DiskFullError: a shard was due and could not be written.
        """
        numbers = np.asarray(episodes, np.int64)
        self._check(numbers, observations, values)
        if self._buffer.num_steps >= self._steps_per_shard:
            self.flush()
        self._buffer.append(numbers, np.asarray(observations), values)
        self._next_episode = max(self._next_episode, *(numbers + 1).tolist(), 0)

    def end_episode(self, episode: int, last_observation: NDArray[Any]) -> None:
        """Say that an episode ended with the step appended last.

        Args:
            episode: its number.
            last_observation: one row: the state after that step.
        """
        self._check_rows(last_observation[None], 1)
        self._buffer.end(episode, last_observation)
        self._closed_numbers.add(episode)

    def interrupt(self, episode: int) -> None:
        """Give an episode up: its steps stay, and it will not be continued."""
        self._buffer.end(episode, None)
        self._closed_numbers.add(episode)
        self._num_interrupted_now += 1

    def flush(self) -> None:
        """Write everything appended so far and list it; call it only between steps.

        Raises:
            DiskFullError: no space; what was listed before is intact.
        """
        self._write(is_complete=False)

    def finish(self) -> None:
        """Write everything, mark running episodes as interrupted and the dataset as complete; then close.

        Raises:
            DiskFullError: no space; what was listed before is intact.
        """
        for episode in list(self._buffer.under_way):
            self.interrupt(episode)
        self._write(is_complete=True)
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self._is_closed:
                self.flush()
        finally:
            self._release()

    def _release(self) -> None:
        self._is_closed = True
        self._stack.close()

    def _write(self, *, is_complete: bool) -> None:
        running = tuple(RunningEpisode(episode, num_steps) for episode, num_steps in self.running.items() if num_steps)
        manifest = replace(
            self._manifest,
            num_episodes=self._manifest.num_episodes + sum(s.has_last_observation for s in self._buffer.ended),
            num_interrupted=self._manifest.num_interrupted + self._num_interrupted_now,
            next_episode=self._next_episode,
            running=running,
            is_complete=is_complete,
        )
        tensors = self._buffer.tensors()
        if tensors is not None:
            manifest = manifest.with_shard(write_shard(self.path, shard_name(len(manifest.shards)), tensors))
        if manifest != self._manifest:
            save_manifest(self.path, manifest)
        self._manifest = manifest
        self._num_interrupted_now = 0
        self._buffer.clear()

    def _check(self, episodes: NDArray[np.int64], rows: NDArray[Any], values: Mapping[str, NDArray[Any]]) -> None:
        num_episodes = len(episodes)
        if len(set(episodes.tolist())) != num_episodes or (num_episodes and episodes.min() < 0):
            raise ValueError(f"episodes must be different numbers from 0, got {episodes.tolist()}.")
        if ended := self._closed_numbers.intersection(episodes.tolist()):
            raise ValueError(f"episode {min(ended)} has ended; a new one needs a new number.")
        self._check_rows(rows, num_episodes)
        specs = self._provenance.step_fields
        if set(values) != set(specs):
            raise ValueError(f"values must be {', '.join(specs)}, got {', '.join(values)}.")
        for name, spec in specs.items():
            _check_array(name, values[name], num_episodes, spec)
            if spec.role in ("target", "reward") and not np.isfinite(values[name]).all():
                slot = int(np.argwhere(~np.isfinite(values[name]))[0, 0])
                episode = int(episodes[slot])
                raise NumericalError(
                    f"{name} of episode {episode}, step {self.running.get(episode, 0)}, is not finite: "
                    f"{values[name][slot].tolist()}. "
                    "Nothing of this step was stored. Check the teacher and the environment."
                )

    def _check_rows(self, rows: NDArray[Any], num_episodes: int) -> None:
        if not rows.dtype.names:
            _check_array("observations", rows, num_episodes, self._row_spec)
            return
        expected = structured_dtype(self._provenance.task.fingerprint.separate_parts)
        if rows.dtype != expected or rows.shape != (num_episodes,):
            raise ValueError(f"observations must be {expected} [{num_episodes}], got {rows.dtype} {list(rows.shape)}.")


def _check_array(name: str, array: NDArray[Any], num_episodes: int, spec: FieldSpec) -> None:
    expected = (num_episodes, *spec.shape)
    if array.dtype != np.dtype(spec.dtype) or array.shape != expected:
        raise ValueError(f"{name} must be {spec.dtype} {list(expected)}, got {array.dtype} {list(array.shape)}.")


def _continued(dataset: Dataset, entry: RunningEpisode) -> SegmentBuffer:
    """Return an empty segment that goes on with an episode whose steps are listed."""
    specs, num_context_rows = dataset.provenance.observation_fields, dataset.provenance.frame_stack - 1
    num_lead_rows = min(num_context_rows, entry.num_steps)
    lead_rows: list[dict[str, NDArray[Any]]] = []
    if num_lead_rows:
        newest = dataset.observations(dataset.episode_steps(entry.episode)[-1:])[0]
        lead_rows = [{OBSERVATION: row} for row in newest[-num_lead_rows:]]  # several parts are never stacked
    return SegmentBuffer(entry.episode, entry.num_steps, lead_rows, specs, num_context_rows)


def _check_free(path: Path, *, overwrite: bool) -> bool:
    """Return whether a folder holds nothing, so that nothing need be deleted for a new dataset.

    Raises:
        OutputExistsError: it holds something that is not ours, or a dataset that is not to be overwritten.
    """
    if all(entry.name == ".lock" or is_temporary(entry, MANIFEST_NAME) for entry in path.iterdir()):
        return True
    if not is_dataset_folder(path):
        raise OutputExistsError(f"{path} exists and holds no dataset of ours. Choose another --out.")
    if not overwrite:
        raise OutputExistsError(
            f"{path} already holds a dataset. Go on with it by --resume, or replace it by --overwrite."
        )
    return False


def _clear(path: Path, *, overwrite: bool) -> None:
    """Make a folder ready for a new dataset, after the checks of `_check_free`."""
    if _check_free(path, overwrite=overwrite):
        return
    # The manifest goes last: until then the folder is recognisably ours, so a kill can be followed by another try.
    _delete_own_files(path, keep=set())
    (path / MANIFEST_NAME).unlink(missing_ok=True)
    sync_folder(path)


def is_dataset_file(path: Path) -> bool:
    """Whether a path is called as a file of a dataset is, or what a kill left of one."""
    names = (_SHARDS, MANIFEST_NAME)
    return path.name == ".lock" or any(path.match(name) or is_temporary(path, name) for name in names)


def _delete_own_files(path: Path, *, keep: set[str]) -> None:
    """Delete shards that are not to be kept, and half-written files."""
    half_written = [*temporary_files(path, _SHARDS), *temporary_files(path, MANIFEST_NAME)]
    for file in [*path.glob(_SHARDS), *half_written]:
        if file.name not in keep:
            file.unlink()
