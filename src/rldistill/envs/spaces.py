"""Gymnasium's spaces as the library sees them: arrays of one shape, and an `ActionLayout`.

Observations of a Box stay as they are. Everything else becomes one float32 vector: Discrete
and MultiDiscrete as one-hot codes, MultiBinary as zeros and ones, Dict and Tuple as their
parts one after the other, keys sorted. What the parts were stands in the fingerprint.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rldistill.errors import TaskError
from rldistill.tasks import ObservationFingerprint, ObservationPart
from rldistill.types import ActionLayout, Actions

Space = spaces.Space[Any]

_OBSERVATIONS = "Box, Discrete, MultiBinary, MultiDiscrete, Dict or Tuple"
_ACTIONS = "Discrete, MultiDiscrete, MultiBinary or a Box of floating-point numbers"


def space_fingerprint(name: str, observation_space: Space, action_space: Space) -> ObservationFingerprint:
    """Return the fingerprint of a Gymnasium task.

    Raises:
        TaskError: a kind of space that is not supported.
    """
    leaves = _leaves(observation_space)
    unknown = [leaf.space for leaf in leaves if not isinstance(leaf.space, _LEAF_KINDS)]
    if unknown or not leaves:
        within = "" if unknown == [observation_space] else f" with {_shown(unknown[0])} inside" if unknown else ""
        raise TaskError(
            f"Task {name!r}: got observations {_shown(observation_space)}{within}, expected {_OBSERVATIONS}."
        )
    layout = _action_layout(action_space)
    if layout is None:
        raise TaskError(f"Task {name!r}: got actions {_shown(action_space)}, expected {_ACTIONS}.")
    if isinstance(observation_space, spaces.Box):
        return ObservationFingerprint(observation_space.shape, _box_dtype(observation_space), layout)
    parts = [ObservationPart(leaf.name, _leaf_shape(leaf.space), _leaf_dtype(leaf.space)) for leaf in leaves]
    # Bytes are scaled to [0, 1] on their way into a network, which is right for images alone.
    all_images = all(part.dtype == "uint8" and len(part.shape) == 3 for part in parts)
    return ObservationFingerprint(
        (sum(part.size for part in parts),),
        "uint8" if all_images else "float32",
        layout,
        observation_parts=tuple(parts) if isinstance(observation_space, spaces.Dict | spaces.Tuple) else (),
    )


class SpaceCodec:
    """Turns a task's own observations into arrays, and its actions into arrays and back."""

    def __init__(self, observation_space: Space, action_space: Space, dtype: str) -> None:
        self._box_shape = observation_space.shape if isinstance(observation_space, spaces.Box) else None
        self._leaves = _leaves(observation_space)
        self._action_space = action_space
        self._dtype = np.dtype(dtype)

    def encode(self, observation: object) -> NDArray[np.generic]:
        """Return one observation as an array."""
        if self._box_shape is not None:
            return np.asarray(observation, self._dtype)
        parts = [_encode(leaf.space, np.asarray(leaf.value(observation))[None]) for leaf in self._leaves]
        return np.concatenate(parts, axis=-1, dtype=self._dtype, casting="unsafe")[0]

    def encode_batch(self, observations: object) -> NDArray[np.generic]:
        """Return the observations of a vector environment as an array, `[N, ...]`."""
        if self._box_shape is not None:
            return np.asarray(observations, self._dtype)
        parts = [_encode(leaf.space, np.asarray(leaf.value(observations))) for leaf in self._leaves]
        return np.concatenate(parts, axis=-1, dtype=self._dtype, casting="unsafe")

    def decode(self, actions: Actions) -> NDArray[Any]:
        """Return actions `[N, ...]` in the space's own numbering, dtype and shape."""
        space = self._action_space
        if isinstance(space, spaces.Discrete):
            return actions + int(space.start)
        assert space.shape is not None, "checked by space_fingerprint"
        own = actions.reshape(len(actions), *space.shape).astype(space.dtype)
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
        """Return actions as single environments take them: numbers of Discrete spaces, arrays of the others."""
        own = self.decode(actions)
        return list(own) if isinstance(self._action_space, spaces.Discrete) else [np.asarray(row) for row in own]


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


def _leaf_dtype(space: Space) -> str:
    return "uint8" if isinstance(space, spaces.Box) and _box_dtype(space) == "uint8" else "float32"


def _encode(space: Space, values: NDArray[Any]) -> NDArray[Any]:
    """Return values of a leaf `[N, ...]` as rows `[N, size]`."""
    if isinstance(space, spaces.Discrete):
        return np.eye(int(space.n))[values.reshape(-1) - int(space.start)]
    rows = values.reshape(len(values), -1)
    if isinstance(space, spaces.MultiDiscrete):
        choices = zip((rows - space.start.reshape(-1)).T, space.nvec.reshape(-1), strict=True)
        return np.concatenate([np.eye(int(size))[choice] for choice, size in choices], axis=-1)
    return rows


def _action_layout(space: Space) -> ActionLayout | None:
    if isinstance(space, spaces.Discrete):
        return ActionLayout.discrete(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return ActionLayout("multi_discrete", tuple(int(size) for size in space.nvec.reshape(-1)))
    if isinstance(space, spaces.MultiBinary):
        return ActionLayout("multi_binary", (int(np.prod(space.shape)),))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high = (tuple(float(bound) for bound in side.reshape(-1)) for side in (space.low, space.high))
        return ActionLayout("box", (len(low),), low, high, "clip")
    return None


def _shown(space: Space) -> str:
    return " ".join(str(space).split())
