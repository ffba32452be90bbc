"""Environments that show samples of an observation space of any kind, such as `tests.kit.shown_env:ShownWhole-v0`."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

_OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "Whole": spaces.Box(0, 100, (2,), np.int64),
    "Bytes": spaces.Box(0, 255, (3,), np.uint8),
    "Parts": spaces.Dict(
        robot=spaces.Dict(pos=spaces.Box(-1, 1, (2,)), vel=spaces.Box(-9, 9, (3,), np.float64)),
        mode=spaces.Discrete(3, start=5),
    ),
    "Reaching": spaces.Dict(goal=spaces.Box(-1, 1, (2,)), arm=spaces.Box(-1, 1, (3,))),
    "Camera": spaces.Dict(camera=spaces.Box(0, 255, (3, 36, 36), np.uint8), state=spaces.Box(-1, 1, (4,))),
    "Unbounded": spaces.Box(-1, 1, (2,)),
    "Choice": spaces.Discrete(5),
    "LateChoice": spaces.Discrete(5, start=2),
    "Choices": spaces.MultiDiscrete([3, 4]),
    "Switches": spaces.MultiBinary(4),
    "Image": spaces.Box(0, 255, (3, 9, 9), np.uint8),
    "ChannelsLast": spaces.Box(0, 255, (9, 9, 3), np.uint8),
    "TwoRowsOfChoices": spaces.Box(-1, 1, (2,)),
    "TwoRowsOfSwitches": spaces.Box(-1, 1, (2,)),
    "LateChoices": spaces.Box(-1, 1, (2,)),
    "LateAction": spaces.Box(-1, 1, (2,)),
}
_ACTIONS: dict[str, spaces.Space[Any]] = {
    "Reaching": spaces.Box(-1, 1, (2,)),
    "Unbounded": spaces.Box(-np.inf, np.inf, (2,)),
    "TwoRowsOfChoices": spaces.MultiDiscrete(np.array([[3, 2], [2, 2]])),
    "TwoRowsOfSwitches": spaces.MultiBinary([2, 2]),
    "LateChoices": spaces.MultiDiscrete([3, 2], start=[1, 5]),
    "LateAction": spaces.Discrete(3, start=4),
}


class Shown(gymnasium.Env[Any, Any]):
    """Five steps, each with a reward of 1."""

    def __init__(self, name: str) -> None:
        self.observation_space = _OBSERVATIONS[name]
        self.action_space = _ACTIONS.get(name, spaces.Discrete(3))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self._steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any):
        self._steps += 1
        return self.observation_space.sample(), 1.0, self._steps == 5, False, {}


def shown_task(name: str) -> str:
    """Return the task that shows a space of this name."""
    return f"tests.kit.shown_env:Shown{name}-v0"


for _name in _OBSERVATIONS:
    gymnasium.register(f"Shown{_name}-v0", entry_point=Shown, kwargs={"name": _name})
