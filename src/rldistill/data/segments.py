"""What a writer or a replay holds between two shards: open segments, and the values of their steps.

Rows wait together, a megabyte of them, before each episode gets its own: one by one would take longer than the steps of
many environments. They are compressed as soon as they fill a block, so that many slots with long episodes never pile up
raw frames.
"""

import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rldistill.data.codec import encode_block, rows_per_block
from rldistill.data.layout import FieldSpec, StepLayout
from rldistill.data.shard import Blocks

Row = Mapping[str, NDArray[Any]]
"""One observation as it is stored, by field."""
Rows = Mapping[str, NDArray[Any]]
"""Several observations, `[N, …]` by field."""
_MOST_WAITING, _BYTES_OF_AN_ENTRY = 1 << 20, 256  # what two arrays take beside their numbers


class _RowBuffer:
    """The rows of one field, in compressed blocks."""

    def __init__(self, spec: FieldSpec) -> None:
        self.blocks: list[bytes] = []
        self.block_num_rows: list[int] = []
        dtype = np.dtype(spec.dtype)
        self._pending = np.empty((rows_per_block(dtype.itemsize * prod(spec.shape)), *spec.shape), dtype)
        self._num_pending = 0

    def add(self, rows: NDArray[Any]) -> None:
        while len(rows):
            taken = rows[: len(self._pending) - self._num_pending]
            self._pending[self._num_pending : self._num_pending + len(taken)] = taken
            self._num_pending += len(taken)
            if self._num_pending == len(self._pending):
                self.compress()
            rows = rows[len(taken) :]

    def compress(self) -> None:
        if self._num_pending:
            self.blocks.append(encode_block(self._pending[: self._num_pending]))
            self.block_num_rows.append(self._num_pending)
            self._num_pending = 0


class SegmentBuffer:
    """The rows of consecutive steps of one episode.

    Args:
        episode: its number.
        first_step: of the segment within its episode.
        lead_rows: the rows before `first_step` that stacking needs, oldest first.
        specs: dtype and shape of a row of each field.
        num_context_rows: rows that the next segment of the episode would need as its lead.

    Attributes:
        num_steps: so far; the rows of the newest may still wait.
        has_last_observation: whether the state after the last step has a row, too.
    """

    def __init__(
        self,
        episode: int,
        first_step: int,
        lead_rows: Sequence[Row],
        specs: Mapping[str, FieldSpec],
        num_context_rows: int,
    ) -> None:
        self.episode = episode
        self.first_step = first_step
        self.num_lead_rows = len(lead_rows)
        self.num_steps = 0
        self.has_last_observation = False
        self._specs = specs
        self._rows = {name: _RowBuffer(spec) for name, spec in specs.items()}
        self._context: deque[Row] = deque(maxlen=num_context_rows)
        for row in lead_rows:
            self.add({name: part[None] for name, part in row.items()})

    @property
    def is_empty(self) -> bool:
        """Whether a shard would gain nothing from it."""
        return self.num_steps == 0 and not self.has_last_observation

    @property
    def next_step(self) -> int:
        """Number of the step that would follow, within the episode."""
        return self.first_step + self.num_steps

    def add(self, rows: Rows) -> None:
        """Add the rows of what followed."""
        for name, buffer in self._rows.items():
            buffer.add(rows[name])
        if kept := self._context.maxlen:
            newest = {name: part[-kept:].copy() for name, part in rows.items()}
            num_rows = len(next(iter(newest.values())))
            self._context.extend({name: part[row] for name, part in newest.items()} for row in range(num_rows))

    def seal(self) -> None:
        """Compress what is pending; no row may follow."""
        for rows in self._rows.values():
            rows.compress()

    def successor(self) -> "SegmentBuffer":
        """Return an empty segment that goes on where this one stops."""
        return SegmentBuffer(self.episode, self.next_step, list(self._context), self._specs, self._context.maxlen or 0)

    def blocks(self, name: str) -> tuple[list[bytes], list[int]]:
        """Return the sealed blocks of a field, and how many rows each holds."""
        return self._rows[name].blocks, self._rows[name].block_num_rows


class ShardBuffer:
    """The steps since the last shard: of episodes that are under way, and of those that ended.

    Attributes:
        under_way: segments by the number of their episode.
        ended: segments of the episodes that ended since the last shard.
        num_steps: that are buffered.
    """

    def __init__(self, layout: StepLayout, under_way: Mapping[int, SegmentBuffer] | None = None) -> None:
        self.under_way = dict(under_way or {})
        self._layout = layout
        self._empty()

    def append(self, episodes: NDArray[np.int64], rows: NDArray[Any], values: Mapping[str, NDArray[Any]]) -> None:
        """Add one step of each of N episodes, copied: its row of the observations, and its `values` `[N, …]`."""
        for episode in episodes.tolist():
            segment = self.under_way.get(episode)
            if segment is None:
                fields, num_context_rows = self._layout.observation_fields, self._layout.frame_stack - 1
                segment = self.under_way[episode] = SegmentBuffer(episode, 0, [], fields, num_context_rows)
            segment.num_steps += 1
        self._wait(episodes, rows)
        self._episodes.append(episodes.copy())
        for name, column in self._values.items():
            column.append(values[name].copy())
        self.num_steps += len(episodes)

    def end(self, episode: int, last_row: NDArray[Any] | None) -> None:
        """End an episode with the row of the state after its last step; None: it is given up."""
        segment = self.under_way.pop(episode)
        self.ended.append(segment)
        if last_row is not None:
            segment.has_last_observation = True
            self._wait(np.array([episode]), np.asarray(last_row)[None])

    def _wait(self, episodes: NDArray[np.int64], rows: NDArray[Any]) -> None:
        """Keep a copy of one row for each of some episodes, until there are many."""
        self._waiting.append((episodes.copy(), rows.copy()))
        self._num_waiting_bytes += rows.nbytes + _BYTES_OF_AN_ENTRY
        if self._num_waiting_bytes >= _MOST_WAITING:
            self._hand_out()

    def _hand_out(self) -> None:
        """Give each episode its rows that wait, in their order."""
        if not self._waiting:
            return
        waiting, self._waiting, self._num_waiting_bytes = self._waiting, [], 0
        episodes = np.concatenate([numbers for numbers, _ in waiting])
        order = np.argsort(episodes, kind="stable")
        parts = self._layout.split(np.concatenate([rows for _, rows in waiting])[order])
        numbers, first = np.unique(episodes[order], return_index=True)
        segments = self.under_way | {segment.episode: segment for segment in self.ended}
        for episode, start, end in zip(numbers.tolist(), first, [*first[1:], len(episodes)], strict=True):
            segments[episode].add({name: part[start:end] for name, part in parts.items()})

    def tensors(self) -> dict[str, NDArray[Any]] | None:
        """Compress what is pending and lay all out as the tensors of a shard; None where there is nothing.

        The segments stand in the order of their episodes, and the steps in the order of the segments.
        """
        self._hand_out()
        written = [segment for segment in (*self.ended, *self.under_way.values()) if not segment.is_empty]
        if not written:
            return None
        segments = sorted(written, key=lambda segment: segment.episode)
        for segment in segments:
            segment.seal()
        tensors = {
            "segment.episode": np.array([segment.episode for segment in segments], np.int64),
            "segment.first_step": np.array([segment.first_step for segment in segments], np.int64),
            "segment.num_steps": np.array([segment.num_steps for segment in segments], np.int64),
            "segment.num_lead_rows": np.array([segment.num_lead_rows for segment in segments], np.int64),
            "segment.has_last_observation": np.array([segment.has_last_observation for segment in segments], np.bool_),
        }
        for name in self._layout.observation_fields:
            tensors |= _blocks(segments, name).tensors(name)
        episodes = np.concatenate([np.empty(0, np.int64), *self._episodes])
        # Stable: within an episode, steps stay in the order in which they were appended.
        order = np.argsort(episodes, kind="stable")
        for name, spec in self._layout.step_fields.items():
            no_values = np.empty((0, *spec.shape), np.dtype(spec.dtype))
            tensors[f"step.{name}"] = np.concatenate([no_values, *self._values[name]])[order]
        return tensors

    def clear(self) -> None:
        """Forget what `tensors` gave, which a shard holds now; episodes under way go on from where they are."""
        self.under_way = {episode: segment.successor() for episode, segment in self.under_way.items()}
        self._empty()

    def _empty(self) -> None:
        self.ended: list[SegmentBuffer] = []
        self.num_steps = 0
        # Episodes and their rows, as they came.
        self._waiting: list[tuple[NDArray[np.int64], NDArray[Any]]] = []
        self._num_waiting_bytes = 0
        self._episodes: list[NDArray[np.int64]] = []
        self._values: dict[str, list[NDArray[Any]]] = {name: [] for name in self._layout.step_fields}


def _blocks(segments: Sequence[SegmentBuffer], field: str) -> Blocks:
    """Return the blocks of sealed segments, one segment after the other."""
    blocks, num_rows = zip(*(segment.blocks(field) for segment in segments), strict=True)
    data = [block for of_segment in blocks for block in of_segment]
    return Blocks(
        first=np.cumsum([0, *map(len, blocks)])[:-1].astype(np.int64),
        num_rows=np.array(list(itertools.chain.from_iterable(num_rows)), np.int64),
        offsets=np.cumsum([0, *map(len, data)]).astype(np.int64),
        data=np.frombuffer(b"".join(data), np.uint8),
    )
