"""Blocks: up to 32 observation rows, compressed together with blosc2 and LZ4HC.

Neighbouring frames are nearly equal, so a block is hardly larger than its first frames; a larger block saves little and
makes a random sample pay for rows it does not need. zstd would make frames 0.6 times as large and random samples a
third as fast (Pong: 39 against 64 bytes a frame, 24,000 against 67,000 samples a second): training reads each block
hundreds of times, so speed won.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rldistill.limits import MAX_BLOCK_BYTES

ROWS_PER_BLOCK = 32
_COMPRESSION_LEVEL = 5
_ONE_THREAD: dict[str, Any] = {"nthreads": 1}
_HEADER_BYTES = 32
_LARGEST_BUILTIN_CODEC = 4
_LARGEST_BUILTIN_FILTER = 4


def rows_per_block(row_bytes: int) -> int:
    """Return how many rows a block holds: fewer of rows that are so large that a reader would refuse the block."""
    return max(1, min(ROWS_PER_BLOCK, MAX_BLOCK_BYTES // max(row_bytes, 1)))


def release_gil() -> None:
    """Let blosc2 work outside Python's lock, for good: a decoding thread must not stall the one that trains."""
    import blosc2  # here and below: importing it takes longer than loading a policy, which needs no blocks

    blosc2.set_releasegil(True)


def encode_block(rows: NDArray[Any]) -> bytes:
    """Compress rows `[R, …]` into one self-describing blosc2 chunk."""
    import blosc2

    itemsize = rows.dtype.itemsize
    # Shuffling sorts the bytes of numbers by significance; with one byte per number there is nothing to sort.
    shuffle = blosc2.Filter.NOFILTER if itemsize == 1 else blosc2.Filter.SHUFFLE
    options: dict[str, Any] = {
        "codec": blosc2.Codec.LZ4HC,
        "clevel": _COMPRESSION_LEVEL,
        "typesize": itemsize,
        "filters": [shuffle],
        "filters_meta": [0],
    }
    chunk = blosc2.compress2(np.ascontiguousarray(rows), **options, **_ONE_THREAD)
    assert isinstance(chunk, bytes)
    return chunk


def decode_block(chunk: NDArray[np.uint8], rows: NDArray[Any]) -> None:
    """Decompress a chunk that `find_bad_block` has passed into contiguous rows `[R, …]`, at least as many as it holds.

    `blosc2.decompress` would do, but works inside Python's lock and would stall the training thread.

    Raises:
        ValueError: the chunk is damaged.
    """
    import blosc2

    blosc2.decompress2(chunk, dst=rows, **_ONE_THREAD)


def find_bad_block(data: NDArray[np.uint8], offsets: NDArray[np.int64], num_bytes: NDArray[np.int64]) -> int | None:
    """Return the first block that must not be handed to the decompressor, None where all may.

    blosc2 believes a chunk's header: a wrong size would be written past the end of our
    buffer, and a codec from outside would be looked up as a plugin. So the header of every
    block is compared with what the shard says before any is decompressed.

    Args:
        data: the blocks, one after the other.
        offsets: `[num_blocks + 1]`, where each begins, and the end; increasing and inside `data`.
        num_bytes: `[num_blocks]`, expected size of the decompressed block.
    """
    lengths = np.diff(offsets)
    if not len(lengths):
        return None
    too_short = lengths < _HEADER_BYTES
    if too_short.any():
        return int(np.argmax(too_short))
    headers = data[offsets[:-1, None] + np.arange(_HEADER_BYTES)]
    sizes = headers[:, 4:16].copy().view("<i4").astype(np.int64)
    is_bad = (sizes[:, 0] != num_bytes) | (sizes[:, 2] != lengths)
    is_bad |= (headers[:, 2] >> 5) > _LARGEST_BUILTIN_CODEC
    is_bad |= (headers[:, 16:22] > _LARGEST_BUILTIN_FILTER).any(axis=1)
    # The low bits announce dictionaries and chunks whose bytes lie elsewhere; we write neither.
    is_bad |= (headers[:, 31] & 0x0F) != 0
    return int(np.argmax(is_bad)) if is_bad.any() else None
