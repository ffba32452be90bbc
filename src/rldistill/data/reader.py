"""Reading a dataset: fields in memory, observations decoded where and when they are asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rldistill.data.codec import decode_block, release_gil
from rldistill.data.manifest import Manifest, Provenance, load_manifest
from rldistill.data.shard import SEGMENT_ARRAYS, Shard, open_shard
from rldistill.errors import DatasetError, NumericalError


@dataclass(frozen=True)
class Segment:
    """Consecutive steps of one episode within one shard.

    Attributes:
        shard: file name.
        episode: number of the episode.
        first_step: its place in the episode.
        steps: indices of its steps in the dataset.
        has_last_observation: whether the episode ended with it.
    """

    shard: str
    episode: int
    first_step: int
    steps: range
    has_last_observation: bool


class Dataset:
    """A dataset folder, opened for reading; the manifest is read once, so a writer may be at work.

    Steps are numbered 0 to `num_steps` − 1 in the order in which they lie in the shards.
    All methods may be called from several threads.

    Attributes:
        path: the folder.
        manifest: what it listed when it was opened.
    """

    def __init__(self, path: Path, manifest: Manifest, shards: Sequence[Shard]) -> None:
        self.path = path
        self.manifest = manifest
        self._shards = tuple(shards)
        self._segments = {name: _concatenated([s.segments[name] for s in shards], np.int64) for name in SEGMENT_ARRAYS}
        self._fields = {
            name: _concatenated([s.steps[name] for s in shards], np.dtype(spec.dtype), spec.shape)
            for name, spec in manifest.provenance.step_fields.items()
        }
        self._blocks = [
            s.block_bytes[begin:end]
            for s in shards
            for begin, end in zip(s.block_offsets, s.block_offsets[1:], strict=False)
        ]
        self._block_first_row = _starts(_concatenated([s.block_num_rows for s in shards], np.int64))
        self._index_steps()
        release_gil()

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True, allow_empty: bool = False) -> Self:
        """Open a dataset and check it.

        Args:
            path: the folder.
            verify: whether to compare the shards' checksums, which reads every byte once.
            allow_empty: whether a dataset without a step is accepted.

        Raises:
            DatasetError: not a dataset, damaged, of a newer version, or empty; says which shard and what to do.
            NumericalError: a NaN or an infinity in a target or a reward; says where.
        """
        path = Path(path)
        manifest = load_manifest(path)
        if not manifest.num_steps and not allow_empty:
            raise DatasetError(
                f"Dataset {path} is empty: it lists no step. Collect some: run its collection with --resume."
            )
        dataset = cls(path, manifest, [open_shard(path, entry, manifest, verify=verify) for entry in manifest.shards])
        dataset._check_episodes()
        dataset._check_finite()
        return dataset

    @property
    def provenance(self) -> Provenance:
        """How the data were made."""
        return self.manifest.provenance

    @property
    def num_steps(self) -> int:
        """Steps in the dataset."""
        return self.manifest.num_steps

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Of one observation as a network sees it, the stack included."""
        return self.provenance.task.fingerprint.observation_shape

    @property
    def target_names(self) -> tuple[str, ...]:
        """Fields with the teacher's outputs, such as `("q_values",)` or `("mean", "log_std")`."""
        return tuple(name for name, spec in self.provenance.fields.items() if spec.role == "target")

    @property
    def target_name(self) -> str:
        """The one field with the teacher's outputs."""
        names = self.target_names
        assert len(names) == 1, f"target_name belongs to datasets with one target, this one has {names}"
        return names[0]

    @property
    def episodes(self) -> NDArray[np.int64]:
        """`[num_steps]`, the episode of every step."""
        return self._step_episode

    @property
    def steps_in_episode(self) -> NDArray[np.int64]:
        """`[num_steps]`, the place of every step in its episode, from 0."""
        return self._step_in_episode

    @cached_property
    def episode_numbers(self) -> NDArray[np.int64]:
        """Numbers of the episodes of which there are steps, increasing."""
        return np.unique(self._segments["episode"])

    def field(self, name: str) -> NDArray[Any]:
        """Return the values of a field for all steps, `[num_steps, …]`; not to be written to."""
        return self._fields[name]

    def segments(self) -> list[Segment]:
        """Return all segments in the order of the shards."""
        files = [shard.file for shard in self._shards for _ in shard.segments["episode"]]
        starts = self._segment_first_index
        return [
            Segment(file, int(episode), int(first_step), range(starts[i], starts[i + 1]), bool(has_last))
            for i, (file, episode, first_step, has_last) in enumerate(
                zip(
                    files,
                    self._segments["episode"],
                    self._segments["first_step"],
                    self._segments["has_last_observation"],
                    strict=True,
                )
            )
        ]

    def episode_steps(self, episode: int) -> NDArray[np.int64]:
        """Return the indices of an episode's steps in time order, across shards."""
        return np.flatnonzero(self._step_episode == episode)

    def observations(self, indices: Sequence[int] | NDArray[Any]) -> NDArray[Any]:
        """Decode the observations of some steps, stacked, zeros standing before an episode's first row.

        Each block that is needed is decompressed once.

        Args:
            indices: `[B]`, in any order, repeats allowed.

        Returns:
            `[B, *observation_shape]`, newly allocated.
        """
        steps = np.asarray(indices, np.int64)
        return self._stacked(self._step_row[steps], self._step_in_episode[steps])

    def last_observation(self, episode: int) -> NDArray[Any] | None:
        """Return the observation after an episode's last step, stacked; None where it has not ended."""
        is_last = (self._segments["episode"] == episode) & (self._segments["has_last_observation"] == 1)
        if not is_last.any():
            return None
        segment = np.flatnonzero(is_last)
        num_steps = self._segments["first_step"][segment] + self._segments["num_steps"][segment]
        last_row = self._segment_first_row[segment + 1] - 1
        return self._stacked(last_row, num_steps)[0]

    def _stacked(self, rows: NDArray[np.int64], num_earlier: NDArray[np.int64]) -> NDArray[Any]:
        """Gather the stacks that end at `rows`; `num_earlier` rows of the same episode stand before each."""
        spec = self.provenance.observation_field
        stack = self.provenance.frame_stack
        stacks = np.empty((len(rows), stack, *spec.shape), np.dtype(spec.dtype))
        first_rows = rows - np.minimum(num_earlier, stack - 1)
        for index in np.flatnonzero(num_earlier < stack - 1):
            stacks[index, : stack - 1 - num_earlier[index]] = 0
        first_blocks = self._block_of(first_rows)
        last_blocks = self._block_of(rows)
        # A stack lies in one block or, where blocks meet, in several: one piece for each.
        pieces = [
            (block, index)
            for index, (first, last) in enumerate(zip(first_blocks.tolist(), last_blocks.tolist(), strict=True))
            for block in range(first, last + 1)
        ]
        pieces.sort()
        first_list, last_list = first_rows.tolist(), rows.tolist()
        decoded, begin, end = -1, 0, 0
        scratch = np.empty((0, *spec.shape), np.dtype(spec.dtype))
        for block, index in pieces:
            if block != decoded:
                begin, end = int(self._block_first_row[block]), int(self._block_first_row[block + 1])
                if len(scratch) < end - begin:
                    scratch = np.empty((end - begin, *spec.shape), np.dtype(spec.dtype))
                self._decode(block, scratch)
                decoded = block
            first, last = max(first_list[index], begin), min(last_list[index] + 1, end)
            place = stack - 1 - last_list[index]
            stacks[index, first + place : last + place] = scratch[first - begin : last - begin]
        return stacks.reshape(len(rows), *self.observation_shape)

    def _decode(self, block: int, rows: NDArray[Any]) -> None:
        try:
            decode_block(self._blocks[block], rows)
        except (ValueError, RuntimeError) as error:
            raise DatasetError(
                f"Dataset {self.path} is damaged: block {block}, counted over all shards, cannot be decompressed. "
                "Copy it again, or collect anew with --overwrite."
            ) from error

    def _block_of(self, rows: NDArray[np.int64]) -> NDArray[np.intp]:
        return np.searchsorted(self._block_first_row, rows, side="right") - 1

    def _index_steps(self) -> None:
        """Find for every step its episode, its place there, and its row among the rows of all blocks."""
        segments = self._segments
        num_steps = segments["num_steps"]
        num_rows = segments["num_lead_rows"] + num_steps + segments["has_last_observation"]
        self._segment_first_index = _starts(num_steps)
        self._segment_first_row = _starts(num_rows)
        segment_of_step = np.repeat(np.arange(len(num_steps)), num_steps)
        place = np.arange(len(segment_of_step)) - self._segment_first_index[segment_of_step]
        self._step_episode = segments["episode"][segment_of_step]
        self._step_in_episode = segments["first_step"][segment_of_step] + place
        self._step_row = (self._segment_first_row[:-1] + segments["num_lead_rows"])[segment_of_step] + place

    def _check_episodes(self) -> None:
        """Check that every episode's segments follow one another, and that the manifest counts them right."""
        num_seen: dict[int, int] = {}
        ended: set[int] = set()
        for segment in self.segments():
            if segment.first_step != num_seen.get(segment.episode, 0) or segment.episode in ended:
                raise self._inconsistent(
                    f"shard {segment.shard} goes on with episode {segment.episode} at step {segment.first_step}, "
                    f"of which {num_seen.get(segment.episode, 0)} steps came before"
                )
            num_seen[segment.episode] = segment.first_step + len(segment.steps)
            if segment.has_last_observation:
                ended.add(segment.episode)
        running = {entry.episode: entry.num_steps for entry in self.manifest.running}
        counted: Mapping[str, tuple[object, object]] = {
            "num_episodes": (self.manifest.num_episodes, len(ended)),
            "num_interrupted": (self.manifest.num_interrupted, len(num_seen) - len(ended) - len(running)),
            "next_episode": (self.manifest.next_episode, max(num_seen, default=-1) + 1),
            "running": (running, {episode: num_seen.get(episode) for episode in running if episode not in ended}),
        }
        for name, (listed, found) in counted.items():
            if listed != found:
                raise self._inconsistent(f"the manifest says {name} {listed}, its shards say {found}")

    def _check_finite(self) -> None:
        """Check that no target or reward is a NaN or an infinity."""
        for name, spec in self.provenance.step_fields.items():
            if spec.role not in ("target", "reward"):
                continue
            values = self._fields[name]
            is_finite = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
            if not is_finite.all():
                index = int(np.argmin(is_finite))
                shard = next(segment.shard for segment in self.segments() if index in segment.steps)
                raise NumericalError(
                    f"Dataset {self.path} holds a {name} that is not finite: {values[index].tolist()} "
                    f"in shard {shard}, episode {self.episodes[index]}, step {self._step_in_episode[index]}. "
                    "The teacher gave it; check the teacher and collect anew with --overwrite."
                )

    def _inconsistent(self, reason: str) -> DatasetError:
        return DatasetError(
            f"Dataset {self.path} contradicts itself: {reason}. It was altered after it was written. "
            "Copy it again, or collect anew with --overwrite."
        )


def _concatenated(arrays: Sequence[NDArray[Any]], dtype: DTypeLike, shape: tuple[int, ...] = ()) -> NDArray[Any]:
    return np.concatenate([np.empty((0, *shape), dtype), *arrays])


def _starts(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each of consecutive runs begins, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
