"""A shard: one safetensors file of segments, each a run of consecutive steps of one episode.

A segment carries everything its observations need, so that stacking never leaves a shard: first the *lead rows* (copies
of the rows before its first step, at most `frame_stack` − 1), then one row per step, then, where the episode ended, its
last observation. Its rows fill blocks of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from rldistill.data.codec import find_bad_block
from rldistill.data.layout import OBSERVATION, FieldSpec, StepLayout
from rldistill.data.manifest import DATASET_REMEDY, ShardEntry
from rldistill.errors import DatasetError
from rldistill.limits import HEADER, MAX_BLOCK_BYTES, read_json
from rldistill.storage import sha256_bytes, sha256_file, write_atomically

SEGMENT_ARRAYS = ("episode", "first_step", "num_steps", "num_lead_rows", "has_last_observation")
_MOST_DIMENSIONS = 8
_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "<i2",
    "U16": "<u2",
    "I32": "<i4",
    "U32": "<u4",
    "I64": "<i8",
    "U64": "<u8",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
}


class _DamageError(Exception):
    """What is wrong with a shard, to be told with its path."""


@dataclass(frozen=True)
class Blocks:
    """The rows of one part of the observations in one shard."""

    first: NDArray[np.int64]  # `[num_segments]`, the first block of each segment
    num_rows: NDArray[np.int64]  # `[num_blocks]`
    offsets: NDArray[np.int64]  # `[num_blocks + 1]`, where each block begins, and the end
    data: NDArray[np.uint8]  # the compressed blocks, mapped

    @classmethod
    def of(cls, tensors: Mapping[str, NDArray[Any]], field: str) -> "Blocks":
        """Return the blocks of a field of the observations."""
        return cls(*(tensors[name] for name in block_tensors(field)))

    def tensors(self, field: str) -> dict[str, NDArray[Any]]:
        """Return them by the names of a shard's tensors."""
        return dict(zip(block_tensors(field), (self.first, self.num_rows, self.offsets, self.data), strict=True))


def block_tensors(field: str) -> tuple[str, str, str, str]:
    """Return the names of the tensors that hold a field's blocks: those of the parts end in the part's name."""
    part = field.removeprefix(OBSERVATION)
    return f"segment.first_block{part}", f"block.num_rows{part}", f"block.offsets{part}", f"block.bytes{part}"


@dataclass(frozen=True)
class Shard:
    """The tensors of one shard, checked against each other; blocks stay on disk until touched."""

    file: str  # its name
    # `segment.NAME` `[num_segments]` for each of `SEGMENT_ARRAYS`, `step.NAME` `[num_steps, …]` for each field, and
    # those of the blocks.
    tensors: Mapping[str, NDArray[Any]]

    @property
    def num_steps(self) -> int:
        """Steps in the shard."""
        return int(self.tensors["segment.num_steps"].sum())


def shard_name(index: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{index:06d}.safetensors"


def write_shard(folder: Path, file: str, tensors: Mapping[str, NDArray[Any]]) -> ShardEntry:
    """Write a shard durably and return what the manifest is to list.

    Raises:
        DiskFullError: no space; no part of the shard stays behind.
    """
    data = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})
    write_atomically(folder / file, data)
    num_steps = int(tensors["segment.num_steps"].sum())
    return ShardEntry(file, sha256_bytes(data), len(data), num_steps, len(tensors["segment.num_steps"]))


def open_shard(
    folder: Path, entry: ShardEntry, layout: StepLayout, *, verify: bool, remedy: str = DATASET_REMEDY
) -> Shard:
    """Map a listed shard and check that it is what the manifest and its own arrays say.

    Args:
        folder: of the dataset.
        entry: what the manifest lists.
        layout: gives the fields.
        verify: whether to compare the checksum, which reads the whole file.
        remedy: what to do about a damaged one, for the message.

    Raises:
        DatasetError: missing, truncated, altered or inconsistent; the shard is named.
    """
    path = folder / entry.file
    try:
        tensors = _checked_tensors(path, entry, layout, verify=verify)
    except _DamageError as error:
        raise DatasetError(f"Shard {path} is damaged: {error}. {remedy}") from error
    except FileNotFoundError as error:
        raise DatasetError(f"Shard {path} is missing, but the manifest lists it. {remedy}") from error
    except OSError as error:
        raise DatasetError(f"Shard {path} cannot be read: {error.strerror or error}.") from error
    return Shard(entry.file, tensors)


def _checked_tensors(path: Path, entry: ShardEntry, layout: StepLayout, *, verify: bool) -> dict[str, NDArray[Any]]:
    num_bytes = path.stat().st_size
    if not path.is_file():
        raise _DamageError("it is no file")
    if num_bytes != entry.num_bytes:
        raise _DamageError(f"it has {num_bytes} bytes, the manifest lists {entry.num_bytes}")
    if verify and sha256_file(path) != entry.sha256:
        raise _DamageError("its checksum is not the one the manifest lists")
    try:
        tensors = _map_tensors(path)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _DamageError("it is not a safetensors file") from error
    _check_layout(tensors, entry, layout)
    return tensors


def _map_tensors(path: Path) -> dict[str, NDArray[Any]]:
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(num_bytes - 8, HEADER.num_bytes):
            raise ValueError("header length")
        header: dict[str, Any] = read_json(file.read(length), HEADER)
    header.pop("__metadata__", None)
    # The safetensors package copies whatever it hands to numpy; blocks are to stay on disk until they are decoded.
    # Python's mmap would keep a file descriptor for each shard, of which a process may have no more than 1,024.
    content = torch.from_file(str(path), shared=False, size=num_bytes, dtype=torch.uint8).numpy()
    content.flags.writeable = False
    tensors: dict[str, NDArray[Any]] = {}
    for name, item in header.items():
        dtype, shape, (begin, end) = np.dtype(_DTYPES[item["dtype"]]), tuple(item["shape"]), item["data_offsets"]
        if len(shape) > _MOST_DIMENSIONS:
            raise ValueError(f"shape of {name}")
        count = prod(shape)
        is_inside = 0 <= begin <= end <= num_bytes - 8 - length
        if not is_inside or min(shape, default=0) < 0 or count * dtype.itemsize != end - begin:
            raise ValueError(f"tensor {name}")
        tensors[name] = np.frombuffer(content, dtype, count, 8 + length + begin).reshape(shape)
    return tensors


def _check_layout(tensors: Mapping[str, NDArray[Any]], entry: ShardEntry, layout: StepLayout) -> None:
    segment_shape = (entry.num_segments,)
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        f"segment.{name}": ("bool" if name == "has_last_observation" else "int64", segment_shape)
        for name in SEGMENT_ARRAYS
    }
    for name, spec in layout.step_fields.items():
        expected[f"step.{name}"] = (spec.dtype, (entry.num_steps, *spec.shape))
    for field in layout.observation_fields:
        first, num_rows, offsets, data = block_tensors(field)
        num_blocks = tensors[num_rows].size if num_rows in tensors else 0
        expected |= {first: ("int64", segment_shape), num_rows: ("int64", (num_blocks,))}
        expected |= {offsets: ("int64", (num_blocks + 1,))}
        expected[data] = ("uint8", tensors[data].shape[:1] if data in tensors else (0,))
    for name, (dtype, shape) in expected.items():
        if name not in tensors:
            raise _DamageError(f"it has no tensor {name}")
        found = tensors[name]
        if found.dtype != np.dtype(dtype) or found.shape != shape:
            raise _DamageError(f"{name} is {found.dtype} {list(found.shape)}, expected {dtype} {list(shape)}")
    num_rows_of = _check_segments(tensors, entry, layout.frame_stack)
    for field, spec in layout.observation_fields.items():
        _check_blocks(Blocks.of(tensors, field), spec, num_rows_of)


def _check_segments(tensors: Mapping[str, NDArray[Any]], entry: ShardEntry, stack: int) -> NDArray[np.int64]:
    """Check that segments add up, and return how many rows each needs."""
    first_step, num_steps = tensors["segment.first_step"], tensors["segment.num_steps"]
    lead = tensors["segment.num_lead_rows"]
    if (first_step < 0).any() or (num_steps < 0).any() or int(num_steps.sum()) != entry.num_steps:
        raise _DamageError(f"its segments do not add up to {entry.num_steps} steps")
    if (lead != np.minimum(stack - 1, first_step)).any():
        raise _DamageError("a segment has another number of lead rows than its first step needs")
    return lead + num_steps + tensors["segment.has_last_observation"]


def _check_blocks(blocks: Blocks, spec: FieldSpec, num_rows_of: NDArray[np.int64]) -> None:
    """Check that rows and blocks add up, and that every block is safe to decompress.

    Args:
        blocks: of one field.
        spec: dtype and shape of its rows.
        num_rows_of: `[num_segments]`, the rows that each segment needs.
    """
    row_bytes = int(np.dtype(spec.dtype).itemsize * prod(spec.shape))
    # Bounding rows first keeps the product with their bytes from wrapping.
    most_rows = MAX_BLOCK_BYTES // row_bytes
    if (blocks.num_rows < 1).any() or (blocks.num_rows > most_rows).any():
        raise _DamageError(
            f"a block has an impossible number of rows, of {row_bytes:,} bytes each at most {most_rows:,}"
        )
    borders = np.append(blocks.first, len(blocks.num_rows))
    rows_before = np.concatenate([[0], np.cumsum(blocks.num_rows)])
    if (np.diff(borders) < 0).any() or (len(borders) and (borders[0] != 0 or borders[-1] != len(blocks.num_rows))):
        raise _DamageError("its segments do not share out its blocks")
    if (np.diff(rows_before[borders]) != num_rows_of).any():
        raise _DamageError("its blocks do not hold as many rows as its segments")
    if blocks.offsets[0] != 0 or blocks.offsets[-1] != len(blocks.data) or (np.diff(blocks.offsets) < 0).any():
        raise _DamageError("its block offsets do not lead through its bytes")
    bad_block = find_bad_block(blocks.data, blocks.offsets, blocks.num_rows * row_bytes)
    if bad_block is not None:
        raise _DamageError(f"block {bad_block} does not decompress to {blocks.num_rows[bad_block]} rows")
