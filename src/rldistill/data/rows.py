"""The rows of one part of the observations, decoded when they are asked for.

Rows are numbered over the blocks of all shards, in the order in which they lie there.
"""

import itertools
from collections.abc import Sequence
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rldistill.data.codec import decode_block
from rldistill.data.layout import FieldSpec
from rldistill.data.shard import Blocks
from rldistill.errors import DatasetError


class RowStore:
    """All rows of one field of a `StepStore`, which gives its blocks, shard after shard."""

    def __init__(
        self, spec: FieldSpec, shards: Sequence[Blocks], *, frame_stack: int, origin: str, remedy: str
    ) -> None:
        self._shape, self._dtype = spec.shape, np.dtype(spec.dtype)
        self._frame_stack = frame_stack
        self._origin, self._remedy = origin, remedy
        self._blocks = [
            blocks.data[begin:end] for blocks in shards for begin, end in itertools.pairwise(blocks.offsets.tolist())
        ]
        num_rows = np.concatenate([np.empty(0, np.int64), *(blocks.num_rows for blocks in shards)])
        self._first_rows = np.concatenate([[0], np.cumsum(num_rows)]).astype(np.int64)

    @property
    def num_decoded_bytes(self) -> int:
        """What all rows would take, decoded."""
        return int(self._first_rows[-1]) * prod(self._shape) * self._dtype.itemsize

    @cached_property
    def decoded(self) -> NDArray[Any]:
        """Every row of every block, `[num_rows, ...]`."""
        rows = np.empty((int(self._first_rows[-1]), *self._shape), self._dtype)
        for block, (begin, end) in enumerate(itertools.pairwise(self._first_rows.tolist())):
            self._decode(block, rows[begin:end])
        return rows

    def single(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return rows `[B, ...]`, newly allocated; each block is decoded once."""
        found = np.empty((len(rows), *self._shape), self._dtype)
        order = np.argsort(rows, kind="stable")
        blocks, firsts = np.unique(self._block_of(rows[order]), return_index=True)
        scratch = np.empty((0, *self._shape), self._dtype)
        for block, (first, last) in zip(
            blocks.tolist(), itertools.pairwise([*firsts.tolist(), len(rows)]), strict=True
        ):
            begin, _, scratch = self._read(block, scratch)
            places = order[first:last]
            found[places] = scratch[rows[places] - begin]
        return found

    def stacks(self, rows: NDArray[np.int64], num_earlier: NDArray[np.int64]) -> NDArray[Any]:
        """Return new stacks `[B, frame_stack, ...]` that end at `rows`; zeros stand before an episode's first row.

        Args:
            rows: `[B]`.
            num_earlier: `[B]`, how many rows of the same episode stand before each.
        """
        stack = self._frame_stack
        stacks = np.empty((len(rows), stack, *self._shape), self._dtype)
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
        scratch = np.empty((0, *self._shape), self._dtype)
        for block, index in pieces:
            if block != decoded:
                begin, end, scratch = self._read(block, scratch)
                decoded = block
            first, last = max(first_list[index], begin), min(last_list[index] + 1, end)
            place = stack - 1 - last_list[index]
            stacks[index, first + place : last + place] = scratch[first - begin : last - begin]
        return stacks

    def _read(self, block: int, scratch: NDArray[Any]) -> tuple[int, int, NDArray[Any]]:
        """Return the first row of a block, the one after its last, and its rows: in `scratch`, if that is enough."""
        begin, end = int(self._first_rows[block]), int(self._first_rows[block + 1])
        if len(scratch) < end - begin:
            scratch = np.empty((end - begin, *self._shape), self._dtype)
        self._decode(block, scratch)
        return begin, end, scratch

    def _decode(self, block: int, rows: NDArray[Any]) -> None:
        try:
            decode_block(self._blocks[block], rows)
        except (ValueError, RuntimeError) as error:
            raise DatasetError(
                f"{self._origin} is damaged: block {block}, counted over all shards, cannot be decompressed. "
                f"{self._remedy}"
            ) from error

    def _block_of(self, rows: NDArray[np.int64]) -> NDArray[np.intp]:
        return np.searchsorted(self._first_rows, rows, side="right") - 1
