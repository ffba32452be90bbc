"""How much a stranger's file may ask of its reader: bytes, items and depth, checked before the work.

A file of a few hundred bytes can describe more than any memory holds: lists that share lists, aliases that multiply,
declared sizes. Each budget below is far above what real files need (given beside it) and keeps the reading of one file
under about 5 seconds and 1 GB on a slow core.
"""

import json
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast


class BeyondLimitsError(ValueError):
    """What a file asks of its reader and no honest file needs; the end of the sentence "it …"."""


@dataclass(frozen=True)
class Budget:
    """What a file of one kind may take."""

    num_bytes: int  # of the file, or of the text in it
    num_items: int  # values in it, each counted as often as it is reached
    depth: int = 64  # containers within containers


JSON = Budget(num_bytes=16 << 20, num_items=1 << 23)
"""Manifests (200 bytes for each shard: 80,000 shards) and the `data` of a Stable-Baselines3 zip, which holds the last
observations of the training as text (39 kB at most among 70 published ones; 2.4 MB for 64 Atari environments)."""
HEADER = Budget(num_bytes=8 << 20, num_items=1 << 22)
"""Of safetensors: about 100 bytes for each tensor, and our description of a policy (3 kB)."""
YAML = Budget(num_bytes=32 << 10, num_items=10_000)
"""The zoo's `config.yml` and `args.yml` (1 kB). Its reader is pure Python: 32 KiB may take a second."""
STATISTICS = Budget(num_bytes=64 << 20, num_items=100_000)
"""`vecnormalize.pkl` (600 instructions, 20 kB; images in it take megabytes)."""
TENSORS = Budget(num_bytes=2 << 30, num_items=2_000_000)
"""Pickles of `torch.save`, without the tensors' bytes (40 instructions for each tensor and each optimiser moment; one
or two for each number of a list of losses). Two million take 4 seconds."""

TOO_MUCH = (
    "This is far more than a policy needs, so it was not read. If the file is yours, save its weights alone: "
    "torch.save(model.state_dict(), 'weights.pt')."
)
"""What to say of a file beyond a budget."""

MAX_LAYERS = 1024
"""Of a declared network, over all heads (57 games with two layers each: 117). Making one takes a millisecond."""
MAX_REMEMBERED = 1 << 24
"""Numbers that a program or a module remembers of one environment (512 for an LSTM of 256 units)."""
MAX_FEATURE_MAP = 1 << 24
"""Numbers that a convolution makes of one observation (112,896 for IMPALA on Atari); inference takes 16 at a time."""
MAX_NORMALISED = 1 << 22
"""Numbers of an observation that is normalised by running statistics (vectors; 28,224 for stacked Atari frames)."""
MAX_BLOCK_BYTES = 256 << 20
"""Of a dataset's block, unpacked: 32 rows of 8 MiB (226 kB for Atari)."""
FREE_UNPACKED_BYTES = 128 << 20
MAX_UNPACKED_RATIO = 2
"""An archive may unpack to `FREE_UNPACKED_BYTES` and this many times its own size: weights hardly compress."""
_MOST_DIGITS = 300  # what a float can hold


def read_json(text: str | bytes, budget: Budget = JSON, *, finite: bool = True) -> Any:  # noqa: ANN401 (whatever it says)
    """Read JSON of a stranger.

    Args:
        text: UTF-8 where it is bytes.
        budget: that its length must keep; JSON shares nothing, so its length bounds all else.
        finite: whether NaN and infinities, which are no JSON, are refused.

    Raises:
        ValueError: too long, too deep, no JSON, or with a number that no float can hold.
    """
    if len(text) > budget.num_bytes:
        raise BeyondLimitsError(f"takes {len(text):,} bytes, at most {budget.num_bytes:,} are read")
    checks: dict[str, Any] = {"parse_constant": _refuse_constant, "parse_float": _finite_float} if finite else {}
    try:
        return json.loads(text, parse_int=_small_integer, **checks)
    except RecursionError as error:
        raise BeyondLimitsError("is nested too deeply") from error


def read_file(path: Path, num_bytes: int) -> bytes:
    """Return the bytes of a file that must be one: a pipe or a device might never end.

    Raises:
        OSError: it cannot be read.
        BeyondLimitsError: too large, or no regular file.
    """
    check_file(path, num_bytes)
    with path.open("rb") as file:
        content = file.read(num_bytes + 1)
    if len(content) > num_bytes:
        raise BeyondLimitsError(f"takes more than {num_bytes:,} bytes")
    return content


def check_file(path: Path, num_bytes: int) -> None:
    """Check that a path is a regular file of at most that many bytes; raises as `read_file`."""
    try:
        status = path.stat()
    except ValueError as error:  # a NUL in its name
        raise BeyondLimitsError("has a name that no file can have") from error
    if not stat.S_ISREG(status.st_mode):
        raise BeyondLimitsError("is no regular file")
    if status.st_size > num_bytes:
        raise BeyondLimitsError(f"takes {status.st_size:,} bytes, at most {num_bytes:,} are read")


def is_file(path: str | Path) -> bool:
    """Whether a path out of a file, which may say anything, is that of a regular file here."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # a name that is too long, or that holds a NUL
        return False


def plain_children(value: object) -> list[Any]:
    """Return what a dict, list, tuple or set holds; nothing for any other value."""
    if isinstance(value, Mapping):
        mapping = cast(Mapping[Any, Any], value)
        return [*mapping, *mapping.values()]
    return list(cast(list[Any], value)) if isinstance(value, list | tuple | set | frozenset) else []


def check_tree(root: object, budget: Budget, children: Callable[[object], list[Any]] = plain_children) -> None:
    """Check what may share its parts: as a tree, in which shared parts count each time, it must keep a budget.

    What walks, prints, compares or hashes it afterwards can then do so in the plain, recursive way, as this check does
    within the budget's depth. Each part is looked at once, however often it is shared.

    Args:
        root: containers of whatever `children` knows.
        budget: its items and its depth.
        children: what a value holds.

    Raises:
        BeyondLimitsError: more values, deeper, or a container within itself.
    """
    measured: dict[int, tuple[int, int]] = {}
    entered: set[int] = set()

    def measure(value: object, depth: int) -> tuple[int, int]:
        """Return how many values a part holds, itself among them, and how many containers deep it is."""
        content = children(value)
        if not content:
            return 1, 1
        if id(value) in measured:
            return measured[id(value)]
        if id(value) in entered:
            raise BeyondLimitsError("holds itself")
        if depth > budget.depth:
            raise BeyondLimitsError(f"is nested more than {budget.depth} deep")
        entered.add(id(value))
        num_items, height = 1, 1
        for part in content:
            num_inner, inner_height = measure(part, depth + 1)
            num_items, height = num_items + num_inner, max(height, 1 + inner_height)
            if num_items > budget.num_items:
                raise BeyondLimitsError(f"holds more than {budget.num_items:,} values")
            if depth + inner_height > budget.depth:
                raise BeyondLimitsError(f"is nested more than {budget.depth} deep")
        measured[id(value)] = num_items, height
        return num_items, height

    measure(root, 1)


def _small_integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise BeyondLimitsError(f"holds a number of {len(text):,} digits")
    return int(text)


def _finite_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise BeyondLimitsError(f"holds the number {text[:20]}, which is none")
    return value


def _refuse_constant(text: str) -> float:
    raise BeyondLimitsError(f"holds {text}, which is no number")
