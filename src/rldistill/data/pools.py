"""Random steps of observations that do not fit into memory decoded.

A compressed block holds 32 rows, and unpacking one for each row that is drawn costs several times an update of a small
network. So runs of 32 steps are shuffled and shared out into pools that fit into memory: a pool is decoded once, and
rows are drawn from it alone until it gave as many as it has; then comes the next, and after the last another shuffling.
Over all pools every step is as likely as any other; within one, a batch is uniform over its steps. A run may lie in two
blocks, and a block in two pools: it is unpacked for each.
"""

import threading

import numpy as np
from numpy.typing import NDArray

from rldistill.data.codec import ROWS_PER_BLOCK
from rldistill.data.store import StepStore
from rldistill.seeding import stream_generator


class Pools:
    """The steps of a store in pools; what belongs to a pool is a function of the seed and its number.

    Args:
        store: decodes.
        steps: that may be drawn, increasing.
        seed: of the shuffling.
        rows_per_update: drawn on average, over the updates that draw none too; None: those of every single one.
    """

    def __init__(
        self, store: StepStore, steps: NDArray[np.int64], *, seed: int, rows_per_update: float | None = None
    ) -> None:
        self._store, self._steps, self._seed = store, steps, seed
        self._rows_per_update = rows_per_update
        self._num_groups = -(-len(steps) // ROWS_PER_BLOCK)
        # Two at a time are in memory: threads that decode ahead reach the next before all have left the last.
        most_rows = max(store.num_rows_decoded // 2, ROWS_PER_BLOCK)
        self._num_pools = min(-(-len(steps) // most_rows), self._num_groups)
        self._lock = threading.Lock()
        self._decoded: dict[int, NDArray[np.int64]] = {}

    def of(self, update: int, num_rows: int) -> NDArray[np.int64]:
        """Return the steps that an update of so many rows draws from, decoded; may be called from several threads."""
        num_drawn = int(update * (self._rows_per_update or num_rows))
        number = num_drawn * self._num_pools // len(self._steps)
        with self._lock:
            if number not in self._decoded:
                steps = self.steps_of(number)
                self._store.keep_decoded(steps)
                # As the store: the newest two.
                self._decoded = {number: steps} | dict(list(self._decoded.items())[:1])
            return self._decoded[number]

    def steps_of(self, number: int) -> NDArray[np.int64]:
        """Return the steps of a pool, increasing."""
        shuffling, place = divmod(number, self._num_pools)
        order = stream_generator(self._seed, "pools", shuffling).permutation(self._num_groups)
        # Steps that follow each other lie in the same blocks.
        first = np.sort(np.array_split(order, self._num_pools)[place]) * ROWS_PER_BLOCK
        places = (first[:, None] + np.arange(ROWS_PER_BLOCK)).ravel()
        return self._steps[places[places < len(self._steps)]]
