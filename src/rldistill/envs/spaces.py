"""Gymnasium's spaces as the library sees them: arrays of one shape, and an `ActionLayout`.

Observations of a Box stay as they are. Discrete and MultiDiscrete become one-hot codes, MultiBinary zeros and ones.
Dict and Tuple become structured arrays with a field for each part, keys sorted (`rldistill.observations`).

What an environment gives is checked where it becomes an array: another shape would be broadcast, another type cast,
and an index below `start` counted from the end. Numbers outside the bounds of a Box are kept as they are: many
environments give them, and nothing is lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rldistill.errors import EnvironmentFaultError, TaskError
from rldistill.observations import fields, structured_dtype
from rldistill.tasks import ObservationFingerprint, ObservationPart
from rldistill.types import ActionLayout, Actions

Space = spaces.Space[Any]

_OBSERVATIONS = "Box, Discrete, MultiBinary, MultiDiscrete, Dict or Tuple"
_LONGEST_SPACE = 300
_ACTIONS = "Discrete, MultiDiscrete, MultiBinary or a Box of floating-point numbers"


def space_fingerprint(name: str, observation_space: Space, action_space: Space) -> ObservationFingerprint:
    """Return the fingerprint of a Gymnasium task. Raises TaskError: a kind of space that is not supported."""
    leaves = _leaves(observation_space)
    unknown = [leaf.space for leaf in leaves if not isinstance(leaf.space, _LEAF_KINDS)]
    if unknown or not leaves:
        within = "" if unknown == [observation_space] else f" with {_shown(unknown[0])} inside" if unknown else ""
        got = f"{_shown(observation_space)}{within}"
        raise TaskError(f"Task {name!r}: got observations {got}, expected {_OBSERVATIONS}.")
    for space in (*(leaf.space for leaf in leaves), action_space):
        if isinstance(space, spaces.Box) and 0 in space.shape:
            raise TaskError(f"Task {name!r}: got the space {_shown(space)}, expected one of at least one number.")
    layout = _action_layout(action_space)
    if layout is None:
        raise TaskError(f"Task {name!r}: got actions {_shown(action_space)}, expected {_ACTIONS}.")
    if isinstance(observation_space, spaces.Box):
        # A single number is a vector of one.
        return ObservationFingerprint(observation_space.shape or (1,), _box_dtype(observation_space), layout)
    parts = _parts(leaves)
    names = [part.name for part in parts]
    if len(set(names)) != len(names):
        twice = next(part for part in names if names.count(part) > 1)
        raise TaskError(f"Task {name!r}: got two parts of observations called {twice!r}, expected different names.")
    # Bytes are scaled to [0, 1] on their way into a network, which is right for images alone.
    all_images = all(part.dtype == "uint8" and len(part.shape) == 3 for part in parts)
    return ObservationFingerprint(
        (sum(part.size for part in parts),),
        "uint8" if all_images else "float32",
        layout,
        observation_parts=parts if isinstance(observation_space, spaces.Dict | spaces.Tuple) else (),
    )


class SpaceCodec:
    """Turns a task's own observations into arrays of the fingerprint's type, and its actions into arrays and back.

    `what` is how messages call the environment.
    """

    def __init__(
        self, observation_space: Space, action_space: Space, dtype: str, what: str = "The environment"
    ) -> None:
        self._is_box = isinstance(observation_space, spaces.Box)
        self._box_shape = (observation_space.shape or (1,)) if isinstance(observation_space, spaces.Box) else ()
        self._leaves = _leaves(observation_space)
        is_of_parts = isinstance(observation_space, spaces.Dict | spaces.Tuple)
        self._structured = structured_dtype(_parts(self._leaves)) if is_of_parts else None
        self._action_space = action_space
        self._dtype = np.dtype(dtype)
        self._narrow: np.dtype[Any] = self._dtype if self._structured is None else self._structured
        # Most simulators give float64: all slots are narrowed at once.
        self._wide = np.dtype(np.float64) if self._is_box and self._dtype == np.float32 else self._narrow
        self._what = what

    def widened(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return rows `[N, ...]` of the type that `encode` gives, which `narrowed` turns back."""
        return rows.astype(self._wide)

    def narrowed(self, rows: NDArray[Any]) -> NDArray[np.generic]:
        """Return a copy of such rows in the fingerprint's type; what is too large for it becomes infinite."""
        with np.errstate(over="ignore"):
            return rows.astype(self._narrow)

    def encode(self, observation: object) -> NDArray[np.generic]:
        """Return one observation as an array. Raises EnvironmentFaultError: it is not what the space declares."""
        if self._is_box:
            # What most environments give at most steps needs no more than a look.
            if (
                isinstance(observation, np.ndarray)
                and observation.shape == self._box_shape
                and observation.dtype in (self._narrow, self._wide)
            ):
                return observation
            return self._of_leaf(self._leaves[0], observation, is_batch=False)[0].reshape(self._box_shape)
        return self._together([self._of_leaf(leaf, observation, is_batch=False) for leaf in self._leaves])[0]

    def encode_batch(self, observations: object) -> NDArray[np.generic]:
        """Return the observations of a vector environment as an array, `[N, ...]`; raises as `encode`."""
        parts = [self._of_leaf(leaf, observations, is_batch=True) for leaf in self._leaves]
        if self._is_box:
            return parts[0].reshape(-1, *self._box_shape)
        return self._together(parts)

    def _together(self, parts: Sequence[NDArray[Any]]) -> NDArray[np.generic]:
        """Return rows `[N, size]` of all leaves as one array `[N, ...]`, with a field for each of several parts."""
        if self._structured is None:
            return parts[0].astype(self._dtype, copy=False)
        together = np.empty(len(parts[0]), self._structured)
        for leaf, rows in zip(self._leaves, parts, strict=True):
            place = together[leaf.name]
            place[...] = rows.reshape(place.shape)
        return together

    def _of_leaf(self, leaf: "_Leaf", observation: object, *, is_batch: bool) -> NDArray[Any]:
        """Return one part of an observation, or of many, as rows `[N, size]`."""
        space = leaf.space
        try:
            found = np.asarray(leaf.value(observation))
            values = _checked(space, found if is_batch else found[None])
        except _FaultError as fault:
            got, expected = fault.args
        except (KeyError, IndexError, TypeError, ValueError):  # no such part, or lists of different lengths
            got, expected = f"a {type(observation).__name__}", "a value of it"
        else:
            return _encode(space, values)
        part = f" of part {leaf.name!r}" if leaf.path else ""
        raise EnvironmentFaultError(
            f"{self._what} gave an observation that its space does not hold: got {got}{part}, expected {expected}, as "
            f"{_shown(space)} declares. Fix the environment, or its declared space."
        )

    def decode(self, actions: Actions) -> NDArray[Any]:
        """Return actions `[N, ...]` in the space's own numbering, dtype and shape."""
        space = self._action_space
        if isinstance(space, spaces.Discrete):
            return actions + int(space.start)
        assert space.shape is not None, "checked by space_fingerprint"
        own = actions.reshape(len(actions), *space.shape).astype(space.dtype)
        if isinstance(space, spaces.Box):
            return own.clip(space.low, space.high)  # as float32, a bound of float64 may lie beyond itself
        return own + space.start if isinstance(space, spaces.MultiDiscrete) else own

    def encode_actions(self, actions: NDArray[Any]) -> Actions:
        """Return actions `[N, ...]` of the space as the library numbers and shapes them: what `decode` undoes."""
        space = self._action_space
        if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
            actions = actions.astype(np.int64) - space.start
        if isinstance(space, spaces.Discrete):
            return actions.reshape(len(actions))
        return actions.reshape(len(actions), -1).astype(np.float32 if isinstance(space, spaces.Box) else np.int64)

    def decode_each(self, actions: Actions) -> list[Any]:
        """Return actions as a space samples them, one per environment: NumPy's numbers of Discrete, else arrays."""
        own = self.decode(actions)
        if isinstance(self._action_space, spaces.Discrete):
            return list(own)
        return [np.asarray(row) for row in own]


@dataclass(frozen=True)
class _Leaf:
    """A space that is not made of others, with the keys that lead to it."""

    path: tuple[Any, ...]
    space: Space

    @property
    def name(self) -> str:
        return ".".join(str(key) for key in self.path)

    def value(self, observation: object) -> object:
        for key in self.path:
            observation = cast(Mapping[Any, object], observation)[key]
        return observation


_LEAF_KINDS = (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)


def _leaves(space: Space, path: tuple[Any, ...] = ()) -> list[_Leaf]:
    if isinstance(space, spaces.Dict):
        inner = [(key, space.spaces[key]) for key in sorted(space.spaces, key=str)]
    elif isinstance(space, spaces.Tuple):
        inner = list(enumerate(space.spaces))
    else:
        return [_Leaf(path, space)]
    return [leaf for key, part in inner for leaf in _leaves(part, (*path, key))]


def _parts(leaves: Sequence[_Leaf]) -> tuple[ObservationPart, ...]:
    return tuple(ObservationPart(leaf.name, _leaf_shape(leaf.space), _leaf_dtype(leaf.space)) for leaf in leaves)


def _leaf_shape(space: Space) -> tuple[int, ...]:
    if isinstance(space, spaces.Discrete):
        return (int(space.n),)
    if isinstance(space, spaces.MultiDiscrete):
        return (int(space.nvec.sum()),)
    assert space.shape is not None, "of a fixed size, as checked"
    return space.shape


def _box_dtype(space: spaces.Box) -> str:
    # Networks compute in float32; half the memory of float64, and nothing a network could see is lost.
    dtype = str(np.dtype(space.dtype))
    return "float32" if dtype.startswith("float") else dtype


class _FaultError(Exception):
    """What was got, and what was expected."""


def _checked(space: Space, values: NDArray[Any]) -> NDArray[Any]:
    """Return values of a leaf `[N, ...]`, in the type that they are kept in; raises `_FaultError`."""
    if values.dtype.kind not in "biuf":
        raise _FaultError(f"values of type {values.dtype}", "numbers")
    shape = space.shape or ()
    is_single = shape == () and values.size == len(values)  # an array of one number is as good as the number
    if not is_single and values.shape[1:] != shape:
        raise _FaultError(f"shape {list(values.shape[1:])}", f"shape {list(shape)}")
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return _checked_choices(space, values)
    if isinstance(space, spaces.MultiBinary) or _box_dtype(cast(spaces.Box, space)) == "float32":
        # Beyond float32 it becomes infinite, and is told as that.
        with np.errstate(over="ignore"):
            return values.astype(np.float32, copy=False)
    return _exact(values, np.dtype(_box_dtype(cast(spaces.Box, space))))


def _checked_choices(space: "spaces.Discrete | spaces.MultiDiscrete", values: NDArray[Any]) -> NDArray[Any]:
    """Return choices `[N, ...]` of the space's own counting."""
    sizes = space.n if isinstance(space, spaces.Discrete) else space.nvec
    chosen = _exact(values, np.dtype(np.int64)).reshape(len(values), *np.shape(space.start))
    is_outside = (chosen < space.start) | (chosen >= space.start + sizes)
    if is_outside.any():
        place = np.unravel_index(int(is_outside.argmax()), is_outside.shape)
        first, size = (int(np.broadcast_to(each, chosen.shape)[place]) for each in (space.start, sizes))
        raise _FaultError(str(chosen[place]), f"{first} to {first + size - 1}")
    return chosen


def _exact(values: NDArray[Any], dtype: "np.dtype[Any]") -> NDArray[Any]:
    """Return whole numbers in the type that the space declares; none is altered."""
    if np.can_cast(values.dtype, dtype):
        return values.astype(dtype, copy=False)
    with np.errstate(invalid="ignore"):
        kept = values.astype(dtype)
    if (wrong := kept != values).any():
        limits = np.iinfo(dtype)
        got = f"{values[wrong].reshape(-1)[0]} ({values.dtype})"
        raise _FaultError(got, f"whole numbers from {limits.min} to {limits.max}")
    return kept


def check_finite(what: str, name: str, values: NDArray[Any]) -> None:
    """Check that an environment's `observation` or `reward`, a row per slot, is finite; or EnvironmentFaultError."""
    for part in fields(values).values():
        check_finite(what, name, part)
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    rows = values.reshape(len(values), -1)
    row = rows[int((~np.isfinite(rows)).any(axis=1).argmax())]
    shown = ", ".join(f"{value:g}" for value in row[:6].tolist()) + (", …" if len(row) > 6 else "")
    got = f"[{shown}]" if name == "observation" else shown
    raise EnvironmentFaultError(
        f"{what} gave the {name} {got}, expected finite numbers: nothing can be learned from NaN or infinity. Mend the "
        "environment; a simulation that diverges should end its episode before."
    )


def _leaf_dtype(space: Space) -> str:
    return "uint8" if isinstance(space, spaces.Box) and _box_dtype(space) == "uint8" else "float32"


def _encode(space: Space, values: NDArray[Any]) -> NDArray[Any]:
    """Return values of a leaf `[N, ...]` as rows `[N, size]`."""
    if isinstance(space, spaces.Discrete):
        rows = np.zeros((len(values), int(space.n)), np.float32)
        rows[np.arange(len(values)), values.reshape(-1) - int(space.start)] = 1
        return rows
    rows = values.reshape(len(values), -1)
    if isinstance(space, spaces.MultiDiscrete):
        choices = zip((rows - space.start.reshape(-1)).T, space.nvec.reshape(-1), strict=True)
        return np.concatenate([np.eye(int(size))[choice] for choice, size in choices], axis=-1)
    return rows


def _action_layout(space: Space) -> ActionLayout | None:
    if isinstance(space, spaces.Discrete):
        return ActionLayout("discrete", (int(space.n),), start=(int(space.start),))
    if isinstance(space, spaces.MultiDiscrete):
        sizes, start = (tuple(int(number) for number in own.reshape(-1)) for own in (space.nvec, space.start))
        return ActionLayout("multi_discrete", sizes, start=start)
    if isinstance(space, spaces.MultiBinary):
        return ActionLayout("multi_binary", (int(np.prod(space.shape)),))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high = (tuple(float(bound) for bound in side.reshape(-1)) for side in (space.low, space.high))
        return ActionLayout("box", (len(low),), low, high, "clip")
    return None


def action_space(layout: ActionLayout) -> Space:
    """Return the space of actions as we number and shape them: from 0, and flat."""
    match layout.kind:
        case "discrete":
            return spaces.Discrete(layout.sizes[0])
        case "multi_discrete":
            return spaces.MultiDiscrete(list(layout.sizes))
        case "multi_binary":
            return spaces.MultiBinary(layout.sizes[0])
        case "box":
            return spaces.Box(np.array(layout.low, np.float32), np.array(layout.high, np.float32), dtype=np.float32)


def _shown(space: Space) -> str:
    text = " ".join(str(space).split())
    return text if len(text) <= _LONGEST_SPACE else text[:_LONGEST_SPACE] + "…"
