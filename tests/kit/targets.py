"""One-step environments of every kind of action, of which the best action is known for every observation."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

LOW, HIGH = np.array([-1.0, 0.0], np.float32), np.array([1.0, 10.0], np.float32)
ACTION_SPACES: dict[str, spaces.Space[Any]] = {
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary(2),
    "box": spaces.Box(LOW, HIGH),
}
EPISODE_LENGTH = 5


class Targets(gymnasium.Env[Any, Any]):
    """Two numbers in [-1, 1] are shown; the nearer an action is to what they say, the more it is worth, at most 1.

    Args:
        kind: of the actions.
        as_dict: show each number under a key of its own.
        keys: what these are called.
        sizes: numbers under each; those beyond the two that count are zeros.
    """

    def __init__(
        self,
        kind: str = "box",
        *,
        as_dict: bool = False,
        keys: tuple[str, str] = ("left", "right"),
        sizes: tuple[int, int] = (1, 1),
    ) -> None:
        self.action_space = ACTION_SPACES[kind]
        self._parts = dict(zip(keys, sizes, strict=True))
        self.observation_space = (
            spaces.Dict({key: spaces.Box(-1, 1, (size,), np.float32) for key, size in self._parts.items()})
            if as_dict
            else spaces.Box(-1, 1, (2,), np.float32)
        )
        self._kind, self._as_dict = kind, as_dict
        self._numbers, self._step = np.zeros(2, np.float32), 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self._step = 0
        return self._show(), {}

    def step(self, action: Any):
        assert self.action_space.contains(action), action
        distance = np.abs(np.asarray(action, np.float64) - best_action(self._kind, self._numbers))
        value = float(np.mean(distance / _WIDTHS[self._kind]))
        self._step += 1
        return self._show(), 1 - value, self._step == EPISODE_LENGTH, False, {}

    def _show(self) -> Any:
        self._numbers = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        if not self._as_dict:
            return self._numbers.copy()
        shown = zip(self._parts.items(), self._numbers, strict=True)
        return {key: np.pad([number], (0, size - 1)) for (key, size), number in shown}


_WIDTHS = {"multi_discrete": np.array([1, 2]), "multi_binary": np.ones(2), "box": HIGH - LOW}


def best_action(kind: str, numbers: np.ndarray) -> np.ndarray:
    """Return the action that is worth 1."""
    first, second = numbers
    match kind:
        case "multi_discrete":
            return np.array([int(first > 0), int(second > -1 / 3) + int(second > 1 / 3)])
        case "multi_binary":
            return (numbers > 0).astype(np.int8)
        case _:
            return np.array([first, 5 + 5 * second])


for _kind in ACTION_SPACES:
    gymnasium.register(f"Targets-{_kind}-v0", entry_point=Targets, kwargs={"kind": _kind})
    gymnasium.register(f"DictTargets-{_kind}-v0", entry_point=Targets, kwargs={"kind": _kind, "as_dict": True})
# The same length of vector, made of other parts.
for _name, _layout in {
    "OtherKeys": {"keys": ("near", "far")},
    "Wide": {"sizes": (1, 3)},
    "WideOnTheLeft": {"sizes": (3, 1)},
}.items():
    gymnasium.register(f"{_name}-v0", entry_point=Targets, kwargs={"as_dict": True, **_layout})


def targets_task(kind: str, *, as_dict: bool = False) -> str:
    """Return the name by which such an environment is made."""
    return f"tests.kit.targets:{'Dict' if as_dict else ''}Targets-{kind}-v0"
