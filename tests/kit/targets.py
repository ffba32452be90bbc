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
    """

    def __init__(self, kind: str = "box", *, as_dict: bool = False) -> None:
        self.action_space = ACTION_SPACES[kind]
        number = spaces.Box(-1, 1, (1,), np.float32)
        self.observation_space = (
            spaces.Dict({"left": number, "right": number}) if as_dict else spaces.Box(-1, 1, (2,), np.float32)
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
        return {"left": self._numbers[:1], "right": self._numbers[1:]} if self._as_dict else self._numbers.copy()


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


def targets_task(kind: str, *, as_dict: bool = False) -> str:
    """Return the name by which such an environment is made."""
    return f"tests.kit.targets:{'Dict' if as_dict else ''}Targets-{kind}-v0"
