"""Whether a zip's network saw normalised observations, told by the last ones that were kept in it.

Beside the last observation that the network saw, a zip keeps the last one of the environment itself. On-policy
algorithms do so behind `VecNormalize` alone. Off-policy ones always do: without the wrapper it is the
observation of the step before, and only what cannot be the environment's own tells that there was one. Both are
pickled arrays, which are read as data.
"""

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from rldistill.adapters.arrays import ARRAY_GLOBALS, array_from
from rldistill.adapters.sb3.spaces import Space
from rldistill.adapters.unpickle import read_pickle
from rldistill.errors import PolicyFileError

# Vectors of some environments in base64; images are not normalised.
_MOST_CHARACTERS = 1 << 20
# Of a bound or of the width between two: environments round, and so does the text of a space.
_TOLERANCE = 0.01


def were_normalised(values: Mapping[str, Any], space: Space) -> bool:
    """Return whether the last observation that a network saw cannot be one of its environment's own.

    Args:
        values: the fields of a zip's JSON.
        space: of the observations.
    """
    if space.kind != "box" or len(space.shape) != 1:
        return False
    seen, own = (_array(values.get(name)) for name in ("_last_obs", "_last_original_obs"))
    if seen is None or own is None or seen.shape != own.shape or seen.shape[-1:] != space.shape:
        return False
    if (seen.dtype, own.dtype) == (np.float32, np.float64):
        return True  # the wrapper makes float32 of whatever it gets
    return _may_be(own, space) and not _may_be(seen, space)


def _may_be(rows: NDArray[Any], space: Space) -> bool:
    """Whether observations lie in a space, as far as its text says its bounds."""
    try:
        low, high = (np.asarray(bounds, np.float64) for bounds in space.bounds())
    except ValueError:
        return True
    size = np.where(np.isfinite(high - low), high - low, np.maximum(np.abs(low), np.abs(high)))
    margin = np.where(np.isfinite(size), _TOLERANCE * size, math.inf)
    return bool(((rows >= low - margin) & (rows <= high + margin)).all())


def _array(value: object) -> NDArray[Any] | None:
    pickled = cast(Mapping[str, Any], value).get(":serialized:") if isinstance(value, Mapping) else None
    if not isinstance(pickled, str) or len(pickled) > _MOST_CHARACTERS:
        return None
    try:
        data = base64.b64decode(pickled)
        array = array_from(read_pickle(data, allowed=ARRAY_GLOBALS, source="observation"))
    except (PolicyFileError, ValueError, binascii.Error):
        return None  # a hint that cannot be read is no hint
    return array if array.ndim and array.dtype.kind == "f" else None
