"""Running statistics of observations: `vecnormalize.pkl`, or plain arrays in an `.npz` or a `.safetensors`.

A teacher that was trained behind a normaliser plays at random without them. `vecnormalize.pkl` is a pickle of a whole
environment wrapper of Stable-Baselines3; only its statistics and settings are read (see `unpickle`). The arrays are
`mean` and `var`, of the shape of an observation, and, where they differ from what that wrapper does, the numbers
`epsilon` (1e-8), `clip` (10; infinite: no clipping, as Gymnasium's wrapper alone does) and `count`. The file's content,
not its name, says which it is.

Conventions of the wrapper: clip((o - mean) / √(variance + epsilon), ± clip), computed in float64.
"""

import io
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rldistill.adapters.arrays import ARRAY_GLOBALS, array_from, number_from, read_npy
from rldistill.adapters.unpickle import Record, read_pickle
from rldistill.adapters.weights import is_safetensors, opened_archive, read_tensors
from rldistill.errors import MismatchError, PolicyFileError, first_line, listed, reading_file
from rldistill.limits import MAX_NORMALISED, STATISTICS, BeyondLimitsError, read_file
from rldistill.networks import InputNormalization
from rldistill.storage import sha256_file

_WAY_ON = "Save its mean and var to an .npz and name that with --normalizer, or do without: --normalizer none."
_OF_ANOTHER_POLICY = "Was it saved with another policy? Name this one's own, or do without: --normalizer none."
_NEEDED = ("mean", "var")
_DEFAULTS: Mapping[str, float] = {"count": 0.0, "epsilon": 1e-8, "clip": 10.0}

_VEC_NORMALIZE = "stable_baselines3.common.vec_env.vec_normalize.VecNormalize"
_RUNNING_STATISTICS = "stable_baselines3.common.running_mean_std.RunningMeanStd"
_SPACES = ("box.Box", "dict.Dict", "discrete.Discrete", "multi_binary.MultiBinary", "multi_discrete.MultiDiscrete")
# Generators of random numbers that spaces drag along; never looked at.
_GENERATORS = (
    *("_pickle.__randomstate_ctor", "_pickle.__generator_ctor", "_pickle.__bit_generator_ctor"),
    *("_mt19937.MT19937", "_pcg64.PCG64", "bit_generator.SeedSequence", "bit_generator.__pyx_unpickle_SeedSequence"),
)
_ALLOWED_GLOBALS = ARRAY_GLOBALS | {
    *(_VEC_NORMALIZE, _RUNNING_STATISTICS, "collections.OrderedDict", "builtins.set"),
    *(f"{library}.spaces.{space}" for library in ("gym", "gymnasium") for space in _SPACES),
    *(f"numpy.random.{name}" for name in _GENERATORS),
}


@dataclass(frozen=True)
class RunningStatistics:
    """Mean and variance of one observation space."""

    mean: NDArray[np.float64]  # of the observation's shape, float64
    variance: NDArray[np.float64]  # likewise; the square of the spread
    count: float  # observations that they were taken over (and the 0.0001 that the wrapper starts with)


@dataclass(frozen=True)
class NormalizerRecord:
    """What a file says about observations."""

    # Under the key of each normalised part of a Dict observation; under `""` for any other observation; empty where
    # observations were not normalised.
    statistics: Mapping[str, RunningStatistics]
    epsilon: float  # added to the variance
    clip: float  # bound on the normalised observation; infinite: there is none
    norm_obs: bool = True  # whether observations were normalised

    @property
    def positive_epsilon(self) -> float:
        """Epsilon for our layer: wrappers allow 0 where no variance is; the smallest number does the same."""
        return max(self.epsilon, sys.float_info.min)


def read_normalizer(path: Path) -> NormalizerRecord:
    """Read running statistics; nothing in the file is executed.

    Raises:
        PolicyFileError: missing, empty, damaged, neither arrays of these names nor a `VecNormalize`, statistics that
            cannot be, or a pickle that wants more than statistics (names the global).
    """
    source = f"Normaliser file {path}"
    with reading_file(source, PolicyFileError):
        try:
            data = read_file(path, STATISTICS.num_bytes)
        except BeyondLimitsError as error:
            raise PolicyFileError(f"{source} is refused: it {error}.") from error
        except OSError as error:
            raise PolicyFileError(f"{source} cannot be read: {error.strerror or error}. Is the path right?") from error
        try:
            if data.startswith(b"PK"):
                return _from_arrays(_npz_arrays(data, source))
            if is_safetensors(data[:9]):
                return _from_arrays(_safetensors_arrays(data, source))
            return _from_vec_normalize(_pickled_wrapper(data, source))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise PolicyFileError(f"{source}: its statistics cannot be used: {reason}. {_WAY_ON}") from error


def normalization_for(path: Path, num_inputs: int, *, policy: str) -> tuple[InputNormalization | None, dict[str, Any]]:
    """Return what a file does to the inputs of a network, and what its policy records of the file.

    The first is None where the file says that observations were not normalised.

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
    return InputNormalization(mean, variance, record.positive_epsilon, record.clip), entry


# Plain arrays


def _npz_arrays(data: bytes, source: str) -> dict[str, NDArray[Any]]:
    with opened_archive(io.BytesIO(data), source=source) as archive:
        members = {name.removesuffix(".npy"): name for name in archive.names}
        # Before anything is unpacked: the arrays of a small file may fill the memory.
        _check_names(members, source)
        if archive.unpacked_bytes > STATISTICS.num_bytes:
            raise PolicyFileError(
                f"{source} is refused: got {archive.unpacked_bytes >> 20:,} MiB, expected at most "
                f"{STATISTICS.num_bytes >> 20:,} MiB."
            )
        arrays: dict[str, NDArray[Any]] = {}
        for name, member in sorted(members.items()):
            content = archive.read(member)
            try:
                arrays[name] = read_npy(content)
            except Exception as error:  # NumPy parses the header as Python: damaged, it raises almost anything
                reason = first_line(error)
                raise PolicyFileError(f"{source}: {member} in it is no array of numbers: {reason}.") from error
        return arrays


def _safetensors_arrays(data: bytes, source: str) -> dict[str, NDArray[Any]]:
    tensors = cast(dict[str, Tensor], read_tensors(data, source=source))
    _check_names(tensors, source)
    # NumPy lacks some of torch's floats; all else stays as it is, so that what is no number is refused by its type.
    numbers = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    return {name: tensor.numpy() for name, tensor in numbers.items()}


def _check_names(names: Collection[str], source: str) -> None:
    if {*_NEEDED} <= {*names} <= {*_NEEDED, *_DEFAULTS}:
        return
    raise PolicyFileError(
        f"{source}: got arrays {listed(sorted(names)) or 'of no name'}, expected {' and '.join(_NEEDED)}, and perhaps "
        f"{', '.join(_DEFAULTS)}. Save it again under these names."
    )


def _from_arrays(arrays: Mapping[str, NDArray[Any]]) -> NormalizerRecord:
    numbers = {name: _number(name, arrays[name]) if name in arrays else usual for name, usual in _DEFAULTS.items()}
    if not (numbers["epsilon"] >= 0 and numbers["clip"] > 0 and numbers["count"] >= 0):
        raise ValueError(f"epsilon {numbers['epsilon']:g} must be 0 or more and clip {numbers['clip']:g} positive")
    statistics = _statistics({name: arrays[name] for name in _NEEDED}, numbers["count"])
    return NormalizerRecord({"": statistics}, numbers["epsilon"], numbers["clip"])


def _statistics(arrays: Mapping[str, NDArray[Any]], count: float) -> RunningStatistics:
    """Return statistics of the arrays `mean` and `var`. Raises ValueError: no such statistics can be."""
    _check_count(max(array.size for array in arrays.values()))
    mean, variance = (_finite(name, arrays[name]) for name in _NEEDED)
    if mean.shape != variance.shape or not mean.size:
        raise ValueError(f"a mean of shape {list(mean.shape)} and a var of shape {list(variance.shape)}")
    if (variance < 0).any():
        raise ValueError("var holds negative numbers; it is the square of the spread")
    return RunningStatistics(mean, variance, count)


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


def _check_count(num_numbers: int) -> None:
    if num_numbers > MAX_NORMALISED:
        raise ValueError(f"more than {MAX_NORMALISED:,} numbers")


# Stable-Baselines3's wrapper


def _pickled_wrapper(data: bytes, source: str) -> dict[Any, Any]:
    try:
        content = read_pickle(data, allowed=_ALLOWED_GLOBALS, source=source)
    except PolicyFileError as error:
        if not data:
            raise  # it says what to do
        raise PolicyFileError(f"{error} {_WAY_ON}") from error
    if isinstance(content, Record) and content.name == _VEC_NORMALIZE and isinstance(content.state, dict):
        return cast(dict[Any, Any], content.state)
    kind = content.name if isinstance(content, Record) else type(content).__name__
    raise PolicyFileError(f"{source}: got a {kind}, expected a VecNormalize of Stable-Baselines3. {_WAY_ON}")


def _from_vec_normalize(state: Mapping[Any, Any]) -> NormalizerRecord:
    norm_obs = bool(state.get("norm_obs", True))
    epsilon, clip = number_from(state["epsilon"]), number_from(state["clip_obs"], may_be_infinite=True)
    if epsilon < 0 or clip <= 0:
        raise ValueError(f"epsilon {epsilon} must be 0 or more and clip_obs {clip} positive")
    statistics = _all_statistics(state["obs_rms"], state.get("norm_obs_keys")) if norm_obs else {}
    return NormalizerRecord(statistics, epsilon, clip, norm_obs)


def _all_statistics(value: object, chosen_keys: object) -> dict[str, RunningStatistics]:
    if not isinstance(value, dict):
        return {"": _running_statistics(value)}
    parts: dict[str, RunningStatistics] = {}
    for key, part in cast(dict[Any, Any], value).items():
        parts[str(key)] = _running_statistics(part)
        # Parts may share one array, which costs the file nothing.
        _check_count(sum(statistics.mean.size for statistics in parts.values()))
    if not isinstance(chosen_keys, list):
        return parts
    # The wrapper keeps statistics of keys it was told to leave alone in one old version only: the list decides.
    return {str(key): parts[str(key)] for key in cast(list[Any], chosen_keys)}


def _running_statistics(value: object) -> RunningStatistics:
    if not (isinstance(value, Record) and value.name == _RUNNING_STATISTICS and isinstance(value.state, dict)):
        kind = value.name if isinstance(value, Record) else type(value).__name__
        raise ValueError(f"expected running statistics, got {kind}")
    state = cast(dict[Any, Any], value.state)
    return _statistics({name: array_from(state[name]) for name in _NEEDED}, number_from(state["count"]))
