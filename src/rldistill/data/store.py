"""Steps in segments, ready to be read at random: fields in memory, observations decoded when asked for.

A store is made once from whole shards and never changes; what grows, as a replay does, makes itself a new one.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rldistill.data.layout import StepLayout
from rldistill.data.manifest import DATASET_REMEDY
from rldistill.data.rows import RowStore
from rldistill.data.shard import SEGMENT_ARRAYS, Blocks, Shard

# Observations that are not stacked and take no more than this are decoded once and kept: of a vector, one compressed
# block of 32 rows would otherwise be unpacked for nearly every row that is drawn. Stacked frames stay compressed.
_MOST_BYTES_DECODED = 256 * 2**20

UNKNOWN = np.iinfo(np.int64).min
"""In `next_steps`: what came after this step is not in the store."""


class StepStore:
    """All steps of some shards, numbered in the order in which they lie there.

    All methods may be called from several threads. The shards are checked; messages say whose steps they are (`origin`)
    and what to do about damage (`remedy`).

    Attributes:
        layout: what every step holds.
        segments: by name, `[num_segments]` each, as in the shards, one after the other.
        segment_first_index: `[num_segments + 1]`, the first step of each, and the number of steps.
        episodes: `[num_steps]`, the episode of every step.
        steps_in_episode: `[num_steps]`, the place of every step in its episode, from 0.
    """

    def __init__(
        self, layout: StepLayout, shards: Sequence[Shard], *, origin: str, remedy: str = DATASET_REMEDY
    ) -> None:
        self.layout = layout
        self.segments = {
            name: _concatenated([shard.tensors[f"segment.{name}"] for shard in shards], np.int64)
            for name in SEGMENT_ARRAYS
        }
        self._fields = {
            name: _concatenated([s.tensors[f"step.{name}"] for s in shards], np.dtype(spec.dtype), spec.shape)
            for name, spec in layout.step_fields.items()
        }
        self._rows = {
            name: RowStore(
                spec,
                [Blocks.of(shard.tensors, name) for shard in shards],
                frame_stack=layout.frame_stack,
                origin=origin,
                remedy=remedy,
            )
            for name, spec in layout.observation_fields.items()
        }
        # Steps, increasing, and their observations: the newest two sets of `keep_decoded`.
        self._kept: tuple[tuple[NDArray[np.int64], dict[str, NDArray[Any]]], ...] = ()
        self._index_steps()

    @property
    def num_steps(self) -> int:
        """Steps in the store."""
        return int(self.segment_first_index[-1])

    def field(self, name: str) -> NDArray[Any]:
        """Return the values of a field for all steps, `[num_steps, …]`; not to be written to."""
        return self._fields[name]

    @cached_property
    def is_decoded(self) -> bool:
        """Whether observations are kept decoded, so that reading them costs no more than copying them."""
        num_bytes = sum(rows.num_decoded_bytes for rows in self._rows.values())
        return self.layout.frame_stack == 1 and num_bytes <= _MOST_BYTES_DECODED

    @property
    def num_rows_decoded(self) -> int:
        """Observations that may be kept decoded: those that take a stated share of memory."""
        num_bytes = sum(rows.num_decoded_bytes for rows in self._rows.values())
        return _MOST_BYTES_DECODED * self.num_steps // max(num_bytes, 1)

    def keep_decoded(self, steps: NDArray[np.int64]) -> None:
        """Decode the observations of steps, increasing, and keep them for `parts`, with those of the call before."""
        self._kept = self._kept[:1]  # before: three sets at once would take more than the stated share of memory
        kept = (steps, self._stacked(self._step_row[steps], self.steps_in_episode[steps]))
        self._kept = (kept, *self._kept)

    def observations(self, steps: NDArray[np.int64]) -> NDArray[Any]:
        """Decode the observations of steps `[B]`, stacked: `[B, *observation_shape]`, newly allocated."""
        return self.layout.joined(self.parts(steps))

    def parts(self, steps: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Decode the observations of steps `[B]` by field, stacked: `[B, ...]` each, newly allocated."""
        rows = self._step_row[steps]
        if self.is_decoded:
            return {name: part.decoded[rows] for name, part in self._rows.items()}
        for kept, parts in self._kept:
            places = np.minimum(np.searchsorted(kept, steps), len(kept) - 1)
            if np.array_equal(kept[places], steps):
                return {name: part[places] for name, part in parts.items()}
        return self._stacked(rows, self.steps_in_episode[steps])

    def last_observations(self, segments: NDArray[np.int64]) -> NDArray[Any]:
        """Decode, stacked, the observations after the last steps of segments `[B]` that have them."""
        return self.layout.joined(self._stacked(*self._last_rows(segments)))

    def observations_and_next(
        self, steps: NDArray[np.int64], next_steps: NDArray[np.int64]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Decode observations `[B]` with those of later steps, each block once.

        Args:
            steps: `[B]`.
            next_steps: `[B]`, steps, or −1 − s for the last observation of segment s.
        """
        is_end = next_steps < 0
        rows = np.where(is_end, 0, self._step_row[next_steps])
        num_earlier = np.where(is_end, 0, self.steps_in_episode[next_steps])
        rows[is_end], num_earlier[is_end] = self._last_rows(-1 - next_steps[is_end])
        rows = np.concatenate([self._step_row[steps], rows])
        num_earlier = np.concatenate([self.steps_in_episode[steps], num_earlier])
        stacks = self.layout.joined(self._stacked(rows, num_earlier))
        return stacks[: len(steps)], stacks[len(steps) :]

    @cached_property
    def segment_of_step(self) -> NDArray[np.int64]:
        """`[num_steps]`, the segment of every step."""
        return np.repeat(np.arange(len(self.segments["episode"])), self.segments["num_steps"])

    @cached_property
    def next_steps(self) -> NDArray[np.int64]:
        """`[num_steps]`, the step that followed, in whichever segment it lies.

        −1 − s where the episode ended: its last observation is that of segment s. `UNKNOWN`
        where the store does not hold what followed.
        """
        episode, first, num_steps = (self.segments[name] for name in ("episode", "first_step", "num_steps"))
        # An episode that a shard's border cut goes on in the segment that begins where this one stops.
        order = np.lexsort((num_steps, first, episode))
        here, there = order[:-1], order[1:]
        goes_on = (episode[here] == episode[there]) & (first[here] + num_steps[here] == first[there])
        here, there = here[goes_on], there[goes_on]
        after = np.full(len(order), UNKNOWN, np.int64)
        # A segment without steps holds a last observation and nothing else.
        after[here] = np.where(num_steps[there] > 0, self.segment_first_index[there], -1 - there)
        has_last = np.flatnonzero(self.segments["has_last_observation"])
        after[has_last] = -1 - has_last
        following = np.arange(1, self.num_steps + 1)
        has_steps = num_steps > 0
        following[self.segment_first_index[1:][has_steps] - 1] = after[has_steps]
        return following

    def _last_rows(self, segments: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        num_steps = self.segments["first_step"][segments] + self.segments["num_steps"][segments]
        return self._segment_first_row[segments + 1] - 1, num_steps

    def _stacked(self, rows: NDArray[np.int64], num_earlier: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Gather the stacks that end at `rows`; `num_earlier` rows of the same episode stand before each."""
        if self.layout.frame_stack == 1:
            return {name: part.single(rows) for name, part in self._rows.items()}
        return {name: part.stacks(rows, num_earlier) for name, part in self._rows.items()}

    def _index_steps(self) -> None:
        """Find for every step its episode, its place there, and its row among the rows of all blocks."""
        segments = self.segments
        num_steps = segments["num_steps"]
        num_rows = segments["num_lead_rows"] + num_steps + segments["has_last_observation"]
        self.segment_first_index = _starts(num_steps)
        self._segment_first_row = _starts(num_rows)
        place = np.arange(self.num_steps) - self.segment_first_index[self.segment_of_step]
        self.episodes = segments["episode"][self.segment_of_step]
        self.steps_in_episode = segments["first_step"][self.segment_of_step] + place
        self._step_row = (self._segment_first_row[:-1] + segments["num_lead_rows"])[self.segment_of_step] + place


def _concatenated(arrays: Sequence[NDArray[Any]], dtype: DTypeLike, shape: tuple[int, ...] = ()) -> NDArray[Any]:
    return np.concatenate([np.empty((0, *shape), dtype), *arrays])


def _starts(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each of consecutive runs begins, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
