"""The member `data` of a zip: JSON. Only its plain fields are read.

What JSON cannot hold stands there twice: pickled under `:serialized:`, where two observations alone are read, as data,
and as the text that Python prints, which is all that a network needs.
"""

import base64
import binascii
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from rldistill.adapters.arrays import ARRAY_GLOBALS, array_from
from rldistill.adapters.sb3.spaces import Space, parse_space
from rldistill.adapters.unpickle import read_pickle
from rldistill.errors import PolicyFileError, first_line
from rldistill.limits import read_json

_FUNCTION = re.compile(r"<function (\w+)\.")
_CLASS = re.compile(r"<class '([\w.]+)'>")
# Vectors of some environments in base64; images are not normalised.
_MOST_CHARACTERS = 1 << 20
# Of a bound or of the width between two: environments round, and so does the text of a space.
_TOLERANCE = 0.01


@dataclass(frozen=True)
class Sb3Data:
    """What a zip says about its network in plain text."""

    policy_module: str  # where the policy's class is defined: `stable_baselines3.sac.policies`
    policy_class: str  # its name; empty where the file does not say it
    policy_kwargs: Mapping[str, Any]  # what the network was made with, as far as it is plain
    observation_space: Space  # as the network sees it: images have their channels first
    action_space: Space  # the environment's
    field_names: frozenset[str]  # all fields of the algorithm
    # Of TD3 and DDPG, whose networks are the same: whether the actor learned at every update and the target's actions
    # without noise, as DDPG sets it; None where the file does not say it.
    learned_as_ddpg: bool | None
    num_timesteps: int | None  # steps of training; None where the file does not say it
    # Whether the environment's own observations were kept beside those that the network saw: on-policy algorithms do so
    # behind `VecNormalize` alone.
    saw_other_observations: bool
    # Whether the last observation that the network saw cannot be one of the environment's own.
    saw_normalised_observations: bool


def parse_data(content: bytes, *, source: str) -> Sb3Data:
    """Read the member `data`. Raises PolicyFileError: no JSON, or not what the library writes."""
    try:
        # NaN stands there in honest files, in fields that no network needs.
        values = read_json(content, finite=False)
        if not isinstance(values, dict):
            raise ValueError(f"a {type(values).__name__}")
        return _parse(cast(dict[str, Any], values))
    except KeyError as error:
        what = f"{source}: its data have no field {error}, which every zip of Stable-Baselines3 has."
        raise PolicyFileError(f"{what} Was it written by another library?") from error
    except (ValueError, TypeError, RecursionError) as error:
        what = f"{source}: its data are not what Stable-Baselines3 writes: {first_line(error)}."
        raise PolicyFileError(f"{what} Was it written by another library?") from error


def _parse(values: dict[str, Any]) -> Sb3Data:
    policy_class = _record(values["policy_class"])
    function = _FUNCTION.match(str(policy_class.get("__init__", "")))
    kwargs = {key: value for key, value in _record(values.get("policy_kwargs")).items() if not key.startswith(":")}
    num_timesteps, learning = values.get("num_timesteps"), (values.get("policy_delay"), values.get("target_noise_clip"))
    observation_space = parse_space(values["observation_space"])
    return Sb3Data(
        policy_module=str(policy_class.get("__module__", "")),
        policy_class=function[1] if function else "",
        policy_kwargs=kwargs,
        observation_space=observation_space,
        action_space=parse_space(values["action_space"]),
        field_names=frozenset(values),
        learned_as_ddpg=None if None in learning else learning == (1, 0),
        num_timesteps=num_timesteps if isinstance(num_timesteps, int) else None,
        saw_other_observations=values.get("_last_original_obs") is not None,
        saw_normalised_observations=_saw_normalised(values, observation_space),
    )


def _saw_normalised(values: Mapping[str, Any], space: Space) -> bool:
    """Return whether the last observation that a network saw cannot be one of its environment's own.

    Beside it a zip keeps the environment's own last observation. On-policy algorithms do so behind `VecNormalize`
    alone. Off-policy ones always do: without the wrapper it is the observation of the step before, and only what
    cannot be the environment's own tells that there was one.
    """
    if space.kind != "box" or len(space.shape) != 1:
        return False
    seen, own = (_observation(values.get(name)) for name in ("_last_obs", "_last_original_obs"))
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


def _observation(value: object) -> NDArray[Any] | None:
    pickled = cast(Mapping[str, Any], value).get(":serialized:") if isinstance(value, Mapping) else None
    if not isinstance(pickled, str) or len(pickled) > _MOST_CHARACTERS:
        return None
    try:
        data = base64.b64decode(pickled)
        array = array_from(read_pickle(data, allowed=ARRAY_GLOBALS, source="observation"))
    except (PolicyFileError, ValueError, binascii.Error):
        return None  # a hint that cannot be read is no hint
    return array if array.ndim and array.dtype.kind == "f" else None


def _record(value: object) -> dict[str, Any]:
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def printed_class(value: object) -> str | None:
    """Return the name in `<class 'a.b.C'>`, or None for any other value."""
    found = _CLASS.fullmatch(value) if isinstance(value, str) else None
    return found[1] if found else None


def is_true(value: object, *, default: bool = False) -> bool:
    """Return a truth value that is JSON in some versions and text in others."""
    return default if value is None else value in (True, "True")
