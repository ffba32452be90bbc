"""Environments that break a promise: importing this file makes `tests.kit.unruly_envs:Forgetful-v0` a task."""

import itertools
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

DIVERGING_TASK = "tests.kit.unruly_envs:Diverging-v0"
FORGETFUL_TASK = "tests.kit.unruly_envs:Forgetful-v0"
_resets = itertools.count()


class Forgetful(gymnasium.Env[np.ndarray, int]):
    """Forgets its seed: each reset of the process begins another episode of 30 steps."""

    NUM_STEPS = 30

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0.0, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(2)

    def _observation(self) -> np.ndarray:
        return np.array([self._number, self._step], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self._number, self._step = next(_resets), 0
        return self._observation(), {}

    def step(self, action: int):
        self._step += 1
        return self._observation(), 1.0, self._step == self.NUM_STEPS, False, {}


class Diverging(gymnasium.Env[np.ndarray, int]):
    """A simulation that becomes unstable: NaN from its third step on."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self._step = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: int):
        self._step += 1
        return np.array([1.0, 0.0 if self._step < 3 else np.nan], np.float32), 1.0, False, self._step == 9, {}


gymnasium.register("Forgetful-v0", entry_point=Forgetful)
gymnasium.register("Diverging-v0", entry_point=Diverging)
