"""The normaliser that a user names: `vecnormalize.pkl`, or plain arrays in an `.npz` or a `.safetensors`.

The arrays are `mean` and `var`, of the shape of an observation, and, where they differ from what
Stable-Baselines3's wrapper does, the numbers `epsilon` (1e-8), `clip` (10; infinite: no clipping, as
Gymnasium's wrapper alone does) and `count`. The file's content, not its name, says which it is.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rldistill.adapters.archive import open_archive
from rldistill.adapters.arrays import read_npy
from rldistill.adapters.sb3.inputs import smallest_epsilon
from rldistill.adapters.sb3.normalizer import (
    OTHER_STATISTICS,
    RunningStatistics,
    VecNormalizeRecord,
    read_vec_normalize,
)
from rldistill.adapters.weights import is_safetensors, read_tensors
from rldistill.errors import MismatchError, PolicyFileError, first_line, reading_file
from rldistill.limits import MAX_NORMALISED, STATISTICS, BeyondLimitsError, check_file
from rldistill.networks import InputNormalization
from rldistill.storage import sha256_file

_KIND = "Normaliser file"
_OF_ANOTHER_POLICY = "Was it saved with another policy? Name this one's own, or do without: --normalizer none."
_NEEDED = ("mean", "var")
_OPTIONAL = ("count", "epsilon", "clip")
_MOST_SHOWN = 8
_DEFAULTS: Mapping[str, float] = {"count": 0.0, "epsilon": 1e-8, "clip": 10.0}


def read_normalizer(path: Path) -> VecNormalizeRecord:
    """Read running statistics; nothing in the file is executed.

    Raises:
        PolicyFileError: missing, damaged, neither arrays of these names nor a `VecNormalize`, or statistics that
            cannot be.
    """
    with reading_file(f"{_KIND} {path}", PolicyFileError):
        return _read(path)


def _read(path: Path) -> VecNormalizeRecord:
    source = f"{_KIND} {path}"
    try:
        check_file(path, STATISTICS.num_bytes)
        with path.open("rb") as file:
            head = file.read(9)
    except (OSError, BeyondLimitsError):
        return read_vec_normalize(path)  # says what is wrong
    if not (head.startswith(b"PK") or is_safetensors(head)):
        return read_vec_normalize(path)
    arrays = _from_npz(path, source) if head.startswith(b"PK") else _from_safetensors(path, source)
    try:
        return _record(arrays)
    except ValueError as error:
        raise PolicyFileError(f"{source}: its statistics cannot be used: {error}. {OTHER_STATISTICS}") from error


def normalization_for(path: Path, num_inputs: int, *, policy: str) -> tuple[InputNormalization | None, dict[str, Any]]:
    """Return what a file does to the inputs of a network, and what its policy records of the file.

    Args:
        path: of the file.
        num_inputs: numbers in an observation.
        policy: what messages call the policy.

    Returns:
        None in place of the statistics where the file says that observations were not normalised.

    Raises:
        PolicyFileError: as `read_normalizer`.
        MismatchError: it is of other observations.
    """
    record = read_normalizer(path)
    entry: dict[str, Any] = {"file": path.name, "sha256": sha256_file(path)}
    if not record.norm_obs:
        return None, entry
    if list(record.statistics) != [""]:
        raise MismatchError(
            f"Normaliser file {path} has statistics of the parts {', '.join(map(repr, record.statistics))}, {policy} "
            f"takes observations of one part. {_OF_ANOTHER_POLICY}"
        )
    statistics = record.statistics[""]
    if statistics.mean.size != num_inputs:
        raise MismatchError(
            f"Normaliser file {path} has statistics of shape {list(statistics.mean.shape)}, {policy} takes "
            f"{num_inputs} numbers. {_OF_ANOTHER_POLICY}"
        )
    mean, variance = (tuple(array.reshape(-1).tolist()) for array in (statistics.mean, statistics.variance))
    entry["num_observations"] = round(statistics.count)
    return InputNormalization(mean, variance, smallest_epsilon(record.epsilon), record.clip), entry


def _from_npz(path: Path, source: str) -> dict[str, NDArray[Any]]:
    with open_archive(path, kind=_KIND) as archive:
        members = {name.removesuffix(".npy"): name for name in archive.names}
        # Before anything is unpacked: the arrays of a small file may fill the memory.
        _check_names(members, source)
        _check_bytes(archive.unpacked_bytes, source)
        return {name: _array(archive.read(member), f"{source}: {member}") for name, member in sorted(members.items())}


def _array(data: bytes, member: str) -> NDArray[Any]:
    try:
        return read_npy(data)
    except Exception as error:  # NumPy parses the header as Python, and raises almost anything for a damaged one
        reason = first_line(error)
        raise PolicyFileError(f"{member} in it is no array of numbers: {reason}.") from error


def _from_safetensors(path: Path, source: str) -> dict[str, NDArray[Any]]:
    tensors = cast(dict[str, Tensor], read_tensors(path.read_bytes(), source=source))
    _check_names(tensors, source)
    # NumPy lacks some of torch's floats; all else stays as it is, so that what is no number is refused by its type.
    return {
        name: (tensor.double() if tensor.is_floating_point() else tensor).numpy() for name, tensor in tensors.items()
    }


def _check_names(names: Collection[str], source: str) -> None:
    if {*_NEEDED} <= {*names} <= {*_NEEDED, *_OPTIONAL}:
        return
    shown = ", ".join(sorted(names)[:_MOST_SHOWN]) or "of no name"
    more = len(names) - _MOST_SHOWN
    raise PolicyFileError(
        f"{source}: got arrays {shown}{f' and {more} more' if more > 0 else ''}, expected {' and '.join(_NEEDED)}, and "
        f"perhaps {', '.join(_OPTIONAL)}. Save it again under these names."
    )


def _check_bytes(num_bytes: int, source: str) -> None:
    if num_bytes > STATISTICS.num_bytes:
        raise PolicyFileError(
            f"{source} is refused: got {num_bytes >> 20:,} MiB, expected at most {STATISTICS.num_bytes >> 20:,} MiB."
        )


def _record(arrays: Mapping[str, NDArray[Any]]) -> VecNormalizeRecord:
    if max(arrays[name].size for name in _NEEDED) > MAX_NORMALISED:
        raise ValueError(f"more than {MAX_NORMALISED:,} numbers")
    mean, variance = (_finite(name, arrays[name]) for name in _NEEDED)
    if mean.shape != variance.shape or not mean.size:
        raise ValueError(f"a mean of shape {list(mean.shape)} and a var of shape {list(variance.shape)}")
    if (variance < 0).any():
        raise ValueError("var holds negative numbers; it is the square of the spread")
    numbers = {name: _number(name, arrays[name]) if name in arrays else _DEFAULTS[name] for name in _OPTIONAL}
    if not (numbers["epsilon"] >= 0 and numbers["clip"] > 0 and numbers["count"] >= 0):
        raise ValueError(f"epsilon {numbers['epsilon']:g} must be 0 or more and clip {numbers['clip']:g} positive")
    return VecNormalizeRecord(
        statistics={"": RunningStatistics(mean, variance, numbers["count"])},
        epsilon=numbers["epsilon"],
        clip=numbers["clip"],
        norm_obs=True,
        norm_reward=False,
        observation_shapes={"": mean.shape},
    )


def _finite(name: str, array: NDArray[Any]) -> NDArray[np.float64]:
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} is {array.dtype.name}, expected numbers")
    converted = array.astype(np.float64)
    if not np.isfinite(converted).all():
        raise ValueError(f"{name} holds NaN or infinity")
    return converted


def _number(name: str, array: NDArray[Any]) -> float:
    if array.size != 1 or array.dtype.kind not in "fiu":
        raise ValueError(f"{name} is {array.dtype.name} {list(array.shape)}, expected one number")
    number = float(array.reshape(-1)[0])
    if not (np.isfinite(number) or (name == "clip" and number > 0)):
        raise ValueError(f"{name} is {number}")
    return number
