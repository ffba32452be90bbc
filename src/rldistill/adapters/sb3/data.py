"""The member `data` of a zip: JSON, of which only the plain fields are read, and the spaces in it.

What JSON cannot hold stands there twice: pickled under `:serialized:`, where two observations alone are read, as data,
and as the text that Python prints, which is all that a network needs. Of a space each attribute is JSON where it can
be, else text: `"shape": "[3]"` or `"_shape": [3]`, `"n": "2"` or `2`, `"low": "[-1. -1. -8.]"`, and the parts of a
Dict space are one text. Arrays of more than 1,000 numbers are abbreviated there.
"""

import base64
import binascii
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from rldistill.adapters.arrays import ARRAY_GLOBALS, array_from
from rldistill.adapters.unpickle import read_pickle
from rldistill.errors import PolicyFileError, first_line
from rldistill.limits import read_json

SpaceKind = Literal["box", "discrete", "multi_discrete", "multi_binary", "dict"]

_KINDS: Mapping[str, SpaceKind] = {
    "Box": "box",
    "Discrete": "discrete",
    "MultiDiscrete": "multi_discrete",
    "MultiBinary": "multi_binary",
    "Dict": "dict",
}
_MOST_DIMENSIONS = 8
_PRINTED_SPACE = re.compile(r"<class '[\w.]*?(\w+)'>")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|\.\d+(?:e[-+]?\d+)?|inf|nan)", re.IGNORECASE)
# A part of a Dict space: its key, then the name of its class and a parenthesis.
_PART = re.compile(r"""(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\s*[:,]\s*(\w+)\(""")


@dataclass(frozen=True)
class Space:
    """One space."""

    kind: SpaceKind
    shape: tuple[int, ...] = ()  # of one observation or action in it
    dtype: str = ""  # numpy name; empty where the text does not say it
    sizes: tuple[int, ...] = ()  # discrete: `(n,)`; multi_discrete: one size per dimension
    low: tuple[float, ...] = ()  # box: lower bounds, flat; one number where all are equal or the text is abbreviated
    high: tuple[float, ...] = ()  # likewise
    start: int = 0  # discrete: the lowest number
    # Dict: the parts by key, in the order in which networks see them.
    parts: Mapping[str, "Space"] = field(default_factory=dict[str, "Space"])

    @property
    def is_image(self) -> bool:
        """Whether the library treats it as an image: bytes from 0 to 255 in three dimensions."""
        bounds_fit = set(self.low) == {0.0} and set(self.high) == {255.0}
        return self.kind == "box" and len(self.shape) == 3 and self.dtype == "uint8" and bounds_fit

    @property
    def num_inputs(self) -> int:
        """How many numbers a network gets for it: choices are one-hot."""
        if self.kind == "dict":
            return sum(part.num_inputs for part in self.parts.values())
        return sum(self.sizes) if self.sizes else math.prod(self.shape)

    def image_keys(self, *, float_images: bool) -> list[str]:
        """Return the keys of a Dict's images, sorted; `float_images`: also of those that are not of bytes."""
        return sorted(
            key for key, part in self.parts.items() if len(part.shape) == 3 and (float_images or part.dtype == "uint8")
        )

    @property
    def description(self) -> str:
        """Kind and size, as messages call it."""
        if self.kind == "dict":
            return "dict of " + ", ".join(f"{key} {part.description}" for key, part in self.parts.items())
        return f"{self.kind} {list(self.sizes or self.shape)}"

    def bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the lower and upper bounds of a box, one number per dimension, or raise ValueError: not all said."""
        num_dimensions = math.prod(self.shape)
        low, high = (values * num_dimensions if len(values) == 1 else values for values in (self.low, self.high))
        if not (len(low) == len(high) == num_dimensions):
            raise ValueError(f"a box of shape {list(self.shape)} with {len(low)} lower and {len(high)} upper bounds")
        return low, high


def parse_space(data: Any) -> Space:  # noqa: ANN401 (JSON of a stranger)
    """Read a space out of the JSON of a zip. Raises ValueError: of another kind, or not what the library writes."""
    if not (isinstance(data, dict) and isinstance(data.get(":type:"), str)):
        raise ValueError(f"no space but a {type(data).__name__}")
    values = cast(dict[str, Any], data)
    found = _PRINTED_SPACE.fullmatch(values[":type:"])
    name = found[1] if found else values[":type:"]
    if name not in _KINDS:
        raise ValueError(f"a space of type {name[:60]}")
    kind = _KINDS[name]
    if kind == "dict":
        return Space("dict", parts=_parse_parts(str(values.get("spaces", ""))))
    return _from_fields(kind, values)


def _from_fields(kind: SpaceKind, values: Mapping[str, Any]) -> Space:
    if kind == "box":
        return Space(
            "box",
            _shape(values.get("_shape", values.get("shape"))),
            dtype=str(values.get("dtype") or ""),
            low=_bounds(values.get("low"), values.get("low_repr")),
            high=_bounds(values.get("high"), values.get("high_repr")),
        )
    return _choices(kind, values.get("nvec" if kind == "multi_discrete" else "n"), values.get("start", 0))


def _choices(kind: SpaceKind, sizes: object, start: object) -> Space:
    numbers = _integers(sizes)
    if not numbers or min(numbers) < 1:
        raise ValueError(f"a {kind} space of sizes {str(sizes)[:60]}")
    if kind == "discrete":
        return Space("discrete", (), "int64", numbers, start=(_integers(start) or (0,))[0])
    if kind == "multi_discrete":
        if any(_integers(start)):
            raise ValueError("a multi_discrete space that does not start at 0")
        return Space("multi_discrete", (len(numbers),), "int64", numbers)
    return Space("multi_binary", _shape(sizes), "int8")


def _parse_parts(text: str) -> dict[str, Space]:
    """Read `{'a': Box(-1.0, 1.0, (3,), float32), …}`, or the same printed as an `OrderedDict([…])`."""
    parts: dict[str, Space] = {}
    position = 0
    while found := _PART.search(text, position):
        end = _closing(text, found.end())
        key = (found[1] if found[1] is not None else found[2]).replace("\\'", "'").replace("\\\\", "\\")
        parts[key] = _parse_part(found[3], text[found.end() : end])
        position = end
    if not parts:
        raise ValueError(f"a Dict space of {text[:60]!r}")
    return parts


def _closing(text: str, start: int) -> int:
    """Return where the parenthesis closes that was opened just before `start`."""
    depth = 1
    for position in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth == 0:
            return position
    raise ValueError("a Dict space whose text ends too early")


def _parse_part(name: str, text: str) -> Space:
    """Read a part from its arguments, such as `-1.0, 1.0, (3,), float32` or `[-1. -2.], [1. 2.], (2,), float32`."""
    kind = _KINDS.get(name)
    if kind is None or kind == "dict":
        raise ValueError(f"a part of type {name[:60]} in a Dict space")
    if kind != "box":
        sizes, _, start = text.partition("start=")
        return _choices(kind, sizes, start or 0)
    shape = re.search(r"\(([\d, ]*)\)", text)
    if shape is None:  # gym before 0.18 prints `Box(3,)` and nothing else
        return Space("box", _shape(text))
    low, _, high = text[: shape.start()].partition("]," if "[" in text[: shape.start()] else ",")
    fields = {"shape": shape[1], "low": low, "high": high, "dtype": text[shape.end() :].strip(", ")}
    return _from_fields("box", fields)


def _bounds(value: object, short: object) -> tuple[float, ...]:
    """Read bounds; those of an abbreviated array stand for all of them only where they are equal."""
    numbers = _numbers(value)
    if "..." not in str(value):
        return numbers
    if len(set(numbers)) != 1:
        numbers = _numbers(short)
    return numbers[:1] if len(set(numbers)) == 1 else ()


def _numbers(value: object) -> tuple[float, ...]:
    return tuple(float(number) for number in _NUMBER.findall(str(value)))


def _shape(value: object) -> tuple[int, ...]:
    sizes = _integers(value)
    if len(sizes) > _MOST_DIMENSIONS:
        raise ValueError(f"a space of {len(sizes):,} dimensions, expected at most {_MOST_DIMENSIONS}")
    return sizes


def _integers(value: object) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"-?\d{1,18}", str(value)))


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
