"""From a dataset to training batches: the held-out split, uniform sampling, decoding ahead.

A batch is a function of (seed, update) alone. A run that starts again at update 1,000
therefore sees what it would have seen, and no sampler state is ever saved.
"""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rldistill.data.pools import Pools
from rldistill.data.reader import Dataset
from rldistill.data.store import StepStore
from rldistill.errors import DatasetError, UsageError
from rldistill.seeding import UpdateNumbers, places, stream_generator

MIN_HELD_OUT_FRACTION = 0.10
MIN_HELD_OUT_EPISODES = 5

BatchT = TypeVar("BatchT")


@dataclass(frozen=True)
class EpisodeSplit:
    """Indices of steps to train on and of steps never trained on; no episode is in both."""

    train: NDArray[np.int64]  # `[S − H]`, increasing
    held_out: NDArray[np.int64]  # `[H]`, increasing


def check_held_out_fraction(held_out_fraction: float) -> None:
    """Check a held-out fraction before any file is read.

    Raises:
        UsageError: below 0.10, or not below 1.
    """
    if not MIN_HELD_OUT_FRACTION <= held_out_fraction < 1:
        raise UsageError(
            f"held_out_fraction must be at least {MIN_HELD_OUT_FRACTION} and less than 1, got {held_out_fraction}."
        )


def split_episodes(dataset: Dataset, held_out_fraction: float, seed: int) -> EpisodeSplit:
    """Hold episodes out, chosen at random, until they make up the fraction of steps and are five or more.

    Episodes that begin alike are held out together, or not at all.

    Raises:
        UsageError: the fraction is below 0.10, or not below 1.
        DatasetError: too few episodes to hold five out and have one left.
    """
    check_held_out_fraction(held_out_fraction)
    beginnings, num_episodes = dataset.beginnings, len(dataset.episode_numbers)
    numbers, sizes = np.unique(beginnings, return_counts=True)
    alike = "" if num_episodes == len(numbers) else f", of which {len(numbers)} begin differently"
    if len(numbers) < MIN_HELD_OUT_EPISODES + 1:
        raise DatasetError(
            f"Dataset {dataset.path} holds {num_episodes} episodes{alike}, but {MIN_HELD_OUT_EPISODES} are held out "
            "to measure the student and at least 1 must be left to train on. Collect more steps"
            f"{', with another --seed' if alike else ''}."
        )
    order = stream_generator(seed, "held_out").permutation(len(numbers))
    held_out_steps = np.cumsum(sizes[order])
    needed = int(np.searchsorted(held_out_steps, held_out_fraction * dataset.num_steps)) + 1
    num_held_out = max(needed, MIN_HELD_OUT_EPISODES)
    if num_held_out >= len(numbers):
        cause, way = "Their lengths differ too much", "Collect more steps"
        if held_out_fraction > MIN_HELD_OUT_FRACTION:
            cause += ", or the fraction is too large"
            way += f", or lower --held-out-fraction, to {MIN_HELD_OUT_FRACTION:g} at the least"
        raise DatasetError(
            f"Dataset {dataset.path}: holding {held_out_fraction:g} of its {dataset.num_steps} steps out, in whole "
            f"episodes, leaves none of its {num_episodes} episodes{alike} to train on. {cause}. {way}."
        )
    is_held_out = np.isin(beginnings, numbers[order[:num_held_out]])
    return EpisodeSplit(train=np.flatnonzero(~is_held_out), held_out=np.flatnonzero(is_held_out))


class UniformSampler:
    """Draws windows of consecutive steps uniformly, with replacement: neighbouring windows never make up a batch.

    Every episode is cut into windows from its first step on, so that each step lies in exactly one; the last window
    of an episode may be short. Where observations do not fit into memory decoded, single steps are drawn from `Pools`.

    Args:
        store: to draw from.
        indices: steps that may be drawn.
        seed: what is drawn is a function of it and of the update.
        window_length: T, steps of a window; 1: single steps.
        burn_in: steps before a window that come with it, as far as its episode has them.
        rows_per_update: drawn on average over all updates, as `Pools`; None: those of every single one.
    """

    def __init__(
        self,
        store: StepStore,
        indices: NDArray[np.int64],
        *,
        seed: int,
        window_length: int = 1,
        burn_in: int = 0,
        rows_per_update: float | None = None,
    ) -> None:
        if not len(indices):
            raise ValueError("indices must not be empty.")
        self._starts = indices
        self._numbers = UpdateNumbers(seed, "batch")
        self._window_length, self._burn_in = window_length, burn_in
        if window_length > 1 or burn_in:
            self._cut(store, indices)
        # Frames that are stacked stay compressed, and windows bring their neighbours with them.
        is_pooled = window_length == 1 and not burn_in and not store.is_decoded and store.layout.frame_stack == 1
        self._pools = Pools(store, indices, seed=seed, rows_per_update=rows_per_update) if is_pooled else None

    @property
    def starts(self) -> NDArray[np.int64]:
        """The first steps of all windows, increasing."""
        return self._starts

    def draw(self, update: int, num_windows: int) -> NDArray[np.int64]:
        """Return the first steps `[B]` of the windows of an update."""
        starts = self._starts if self._pools is None else self._pools.of(update, num_windows)
        return starts[places(self._numbers.of(update, num_windows), len(starts))]

    def windows(self, update: int, num_windows: int) -> NDArray[np.int64]:
        """Return the steps of an update, as `from_starts`."""
        return self.from_starts(self.draw(update, num_windows))

    def from_starts(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the steps `[burn_in + T, B]` of windows; -1 pads those that have fewer, before or behind them."""
        steps = np.empty((self._burn_in + self._window_length, len(starts)), np.int64)
        steps[self._burn_in] = starts
        for time in range(self._burn_in + 1, len(steps)):
            steps[time] = np.where(steps[time - 1] < 0, -1, self._next_steps[steps[time - 1]])
        for time in range(self._burn_in - 1, -1, -1):
            steps[time] = np.where(steps[time + 1] < 0, -1, self._steps_before[steps[time + 1]])
        return steps

    def _cut(self, store: StepStore, indices: NDArray[np.int64]) -> None:
        """Find where windows begin, for every step the next one of its window, and the one before in its episode."""
        may_be_drawn = np.zeros(store.num_steps, bool)
        may_be_drawn[indices] = True
        following = store.next_steps
        goes_on = following >= 0
        goes_on[goes_on] = may_be_drawn[following[goes_on]]
        follows = np.zeros(store.num_steps, bool)
        follows[following[goes_on & may_be_drawn]] = True
        self._steps_before = np.full(store.num_steps, -1)
        self._steps_before[following[goes_on]] = np.flatnonzero(goes_on)
        begins = may_be_drawn & ((store.steps_in_episode % self._window_length == 0) | ~follows)
        goes_on[goes_on] = ~begins[following[goes_on]]
        self._starts = np.flatnonzero(begins)
        self._next_steps = np.where(goes_on, following, -1)


def prefetch(
    batch_of: Callable[[int], BatchT],
    first_update: int,
    num_updates: int,
    *,
    depth: int | None = None,
    num_threads: int = 1,
) -> Generator[BatchT]:
    """Yield the batches of consecutive updates, in order, decoding ahead in background threads.

    Wrap it in `contextlib.closing` where the loop may be left early: closing waits for the
    threads, so none outlives it.

    Args:
        batch_of: returns the batch of an update; called from several threads.
        first_update: number of the first update.
        num_updates: batches to yield.
        depth: batches decoded ahead; None: four for each thread.
        num_threads: threads that decode.

    Raises:
        Exception: whatever `batch_of` raised, when its batch is due.
    """
    last = first_update + num_updates
    depth = depth or 4 * num_threads
    executor = ThreadPoolExecutor(num_threads, thread_name_prefix="rldistill-prefetch")
    try:
        waiting: deque[Future[BatchT]] = deque(
            executor.submit(batch_of, update) for update in range(first_update, min(first_update + depth, last))
        )
        for update in range(first_update, last):
            batch = waiting.popleft().result()
            if update + depth < last:
                waiting.append(executor.submit(batch_of, update + depth))
            yield batch
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
