"""`vecnormalize.pkl`: the running statistics with which a teacher saw its observations.

A teacher that was trained behind `VecNormalize` plays at random without them. The file is a
pickle of a whole environment wrapper; only its statistics and settings are read (see `unpickle`).
Conventions of the wrapper: clip((o − mean) / √(variance + epsilon), ± clip), computed in float64.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from rldistill.adapters.arrays import ARRAY_GLOBALS, array_from, number_from
from rldistill.adapters.unpickle import Record, read_pickle
from rldistill.errors import PolicyFileError
from rldistill.limits import MAX_NORMALISED, STATISTICS, BeyondLimitsError, read_file

OTHER_STATISTICS = "Save its mean and var to an .npz and name that with --normalizer, or do without: --normalizer none."
"""What whoever has a normaliser that cannot be used may do."""

_VEC_NORMALIZE = "stable_baselines3.common.vec_env.vec_normalize.VecNormalize"
_STATISTICS = "stable_baselines3.common.running_mean_std.RunningMeanStd"
_SPACES = frozenset(
    f"{library}.spaces.{space}"
    for library in ("gym", "gymnasium")
    for space in (
        "box.Box",
        "dict.Dict",
        "discrete.Discrete",
        "multi_binary.MultiBinary",
        "multi_discrete.MultiDiscrete",
    )
)
# Generators of random numbers that spaces drag along; never looked at.
_GENERATORS = frozenset(
    f"numpy.random.{name}"
    for name in (
        "_pickle.__randomstate_ctor",
        "_pickle.__generator_ctor",
        "_pickle.__bit_generator_ctor",
        "_mt19937.MT19937",
        "_pcg64.PCG64",
        "bit_generator.SeedSequence",
        "bit_generator.__pyx_unpickle_SeedSequence",
    )
)
_CONTAINERS = frozenset({"collections.OrderedDict", "builtins.set"})
ALLOWED_GLOBALS = frozenset({_VEC_NORMALIZE, _STATISTICS}) | _SPACES | _GENERATORS | _CONTAINERS | ARRAY_GLOBALS


@dataclass(frozen=True)
class RunningStatistics:
    """Mean and variance of one observation space.

    Attributes:
        mean: of the observation's shape, float64.
        variance: likewise; the square of the spread.
        count: observations that they were taken over (and the 0.0001 that the wrapper starts with).
    """

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    count: float


@dataclass(frozen=True)
class VecNormalizeRecord:
    """What `vecnormalize.pkl` says about observations.

    Attributes:
        statistics: under the key of each normalised part of a Dict observation; under `""` for
            any other observation; empty where observations were not normalised.
        epsilon: added to the variance.
        clip: bound on the normalised observation; infinite: there is none.
        norm_obs: whether observations were normalised.
        norm_reward: whether rewards were; of no concern to a policy.
        observation_shapes: shapes of the training environment's observations, under the same
            keys; parts whose shape the file does not say are left out.
    """

    statistics: Mapping[str, RunningStatistics]
    epsilon: float
    clip: float
    norm_obs: bool
    norm_reward: bool
    observation_shapes: Mapping[str, tuple[int, ...]]


def read_vec_normalize(path: Path) -> VecNormalizeRecord:
    """Read the statistics out of a `vecnormalize.pkl`; nothing that it names is ever called.

    Raises:
        PolicyFileError: missing, empty, damaged, not a `VecNormalize`, statistics that cannot be,
            or a pickle that wants more than statistics (names the global).
    """
    source = f"Normaliser file {path}"
    try:
        data = read_file(path, STATISTICS.num_bytes)
    except BeyondLimitsError as error:
        raise PolicyFileError(f"{source} is refused: it {error}.") from error
    except OSError as error:
        raise PolicyFileError(f"{source} cannot be read: {error.strerror or error}. Is the path right?") from error
    try:
        content = read_pickle(data, allowed=ALLOWED_GLOBALS, source=source)
    except PolicyFileError as error:
        if not data:
            raise  # it says what to do
        raise PolicyFileError(f"{error} {OTHER_STATISTICS}") from error
    if not (isinstance(content, Record) and content.name == _VEC_NORMALIZE and isinstance(content.state, dict)):
        kind = content.name if isinstance(content, Record) else type(content).__name__
        raise PolicyFileError(
            f"{source}: got a {kind}, expected a VecNormalize of Stable-Baselines3. {OTHER_STATISTICS}"
        )
    try:
        return _record(cast(dict[Any, Any], content.state))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise PolicyFileError(f"{source}: its statistics cannot be used: {reason}. {OTHER_STATISTICS}") from error


def _record(state: dict[Any, Any]) -> VecNormalizeRecord:
    norm_obs = bool(state.get("norm_obs", True))
    epsilon, clip = number_from(state["epsilon"]), number_from(state["clip_obs"], may_be_infinite=True)
    if epsilon < 0 or clip <= 0:
        raise ValueError(f"epsilon {epsilon} must be 0 or more and clip_obs {clip} positive")
    return VecNormalizeRecord(
        statistics=_statistics(state["obs_rms"], state.get("norm_obs_keys")) if norm_obs else {},
        epsilon=epsilon,
        clip=clip,
        norm_obs=norm_obs,
        norm_reward=bool(state.get("norm_reward", True)),
        observation_shapes=_observation_shapes(state.get("observation_space")),
    )


def _statistics(value: object, chosen_keys: object) -> dict[str, RunningStatistics]:
    if not isinstance(value, dict):
        return {"": _running_statistics(value)}
    parts: dict[str, RunningStatistics] = {}
    for key, part in cast(dict[Any, Any], value).items():
        parts[str(key)] = _running_statistics(part)
        # Parts may share one array, which costs the file nothing.
        if sum(statistics.mean.size for statistics in parts.values()) > MAX_NORMALISED:
            raise ValueError(f"more than {MAX_NORMALISED:,} numbers")
    if not isinstance(chosen_keys, list):
        return parts
    # The wrapper keeps statistics of keys it was told to leave alone in one old version only: the list decides.
    return {str(key): parts[str(key)] for key in cast(list[Any], chosen_keys)}


def _running_statistics(value: object) -> RunningStatistics:
    if not (isinstance(value, Record) and value.name == _STATISTICS and isinstance(value.state, dict)):
        kind = value.name if isinstance(value, Record) else type(value).__name__
        raise ValueError(f"expected running statistics, got {kind}")
    state = cast(dict[Any, Any], value.state)
    arrays = [array_from(state[key]) for key in ("mean", "var")]
    if max(array.size for array in arrays) > MAX_NORMALISED:
        raise ValueError(f"more than {MAX_NORMALISED:,} numbers")
    mean, variance = (array.astype(np.float64) for array in arrays)
    if mean.shape != variance.shape:
        raise ValueError(f"a mean of shape {list(mean.shape)} and a variance of shape {list(variance.shape)}")
    if not (np.isfinite(mean).all() and np.isfinite(variance).all() and (variance >= 0).all()):
        raise ValueError("mean or variance holds NaN, infinity or, for a variance, a negative number")
    return RunningStatistics(mean, variance, number_from(state["count"]))


def _observation_shapes(space: object) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the parts of a Dict space, or of any other space under `""`."""
    if not (isinstance(space, Record) and isinstance(space.state, dict)):
        return {}
    state = cast(dict[str, Any], space.state)
    if not space.name.endswith(".Dict"):
        shape = state.get("_shape", state.get("shape"))
        return {"": cast(tuple[int, ...], shape)} if _is_shape(shape) else {}
    parts = state.get("spaces")
    items = parts.entries if isinstance(parts, Record) else list(parts.items() if isinstance(parts, dict) else [])
    return {
        str(key): shape
        for key, part in items
        if isinstance(part, Record) and not part.name.endswith(".Dict")
        for shape in _observation_shapes(part).values()
    }


def _is_shape(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(size, int) for size in cast(tuple[Any, ...], value))
