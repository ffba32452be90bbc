"""Environments that are solvable by design, and others that show what spaces and memory can do.

Importing this file registers `TinyChain-v0`, so that `tests.kit.tiny_envs:TinyChain-v0` is a task.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

CHAIN_TASK = "tests.kit.tiny_envs:TinyChain-v0"
TURNED_CHAIN_TASK = "tests.kit.tiny_envs:TurnedChain-v0"


class TinyChain(gymnasium.Env[int, int]):
    """Five states in a row, begun at the left one.

    RIGHT steps right; at the right end it ends the episode with reward 1. LEFT ends the episode at once with 0.3.
    Greed for the next reward alone gives 0.3; the optimum is 1.
    """

    LEFT, RIGHT = 0, 1
    OPTIMAL_RETURN = 1.0

    def __init__(self, num_states: int = 5) -> None:
        self.observation_space = spaces.Discrete(num_states)
        self.action_space = spaces.Discrete(2)
        self._num_states = num_states
        self._state = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self._state = 0
        return self._state, {}

    def step(self, action: int):
        if action == self.LEFT:
            return self._state, 0.3, True, False, {}
        if self._state == self._num_states - 1:
            return self._state, 1.0, True, False, {}
        self._state += 1
        return self._state, 0.0, False, False, {}


class TurnedChain(TinyChain):
    """The same chain with three actions: 0 steps right, the others end the episode.

    The best action of one chain is the worst of the other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Discrete(3)

    def step(self, action: int):
        return super().step(self.RIGHT if action == 0 else self.LEFT)


class ContextualBandit(gymnasium.Env[np.ndarray, int]):
    """Ten decisions an episode; in each, the action that the observation points at gives 1. The optimum is 10."""

    NUM_DECISIONS = 10
    OPTIMAL_RETURN = 10.0

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0.0, 1.0, (3,), np.float32)
        self.action_space = spaces.Discrete(3)

    def _draw(self) -> np.ndarray:
        self._context = int(self.np_random.integers(3))
        return np.eye(3, dtype=np.float32)[self._context]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self._num_done = 0
        return self._draw(), {}

    def step(self, action: int):
        reward = float(action == self._context)
        self._num_done += 1
        return self._draw(), reward, False, self._num_done == self.NUM_DECISIONS, {}


class ShiftedSpaces(gymnasium.Env[int, int]):
    """Observations 5, 6, 7 and actions −1, 0, 1: the next observation is 6 + the action that was taken."""

    def __init__(self) -> None:
        self.observation_space = spaces.Discrete(3, start=5)
        self.action_space = spaces.Discrete(3, start=-1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        return 5, {}

    def step(self, action: int):
        assert self.action_space.contains(action), action
        return 6 + int(action), float(action), False, False, {}


class Remembering(gymnasium.Env[np.ndarray, int]):
    """Shows how often it was reset since it was built: the same seed gives another episode the second time."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = spaces.Discrete(2)
        self._num_resets = 0
        self.is_closed = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self._num_resets += 1
        return np.array([self._num_resets, self.np_random.random()]), {}

    def step(self, action: int):
        return np.array([self._num_resets, self.np_random.random()]), 1.0, bool(action), bool(action), {}

    def close(self) -> None:
        self.is_closed = True


class OddSpaces(gymnasium.Env[Any, Any]):
    """An environment that is its spaces and nothing else."""

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        self.observation_space = observation_space
        self.action_space = action_space


class Recorder(OddSpaces):
    """Shows samples of its observation space, takes nothing but its own actions, and keeps them in `actions`."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.actions: list[Any] = []
        self.shown: list[Any] = [self.observation_space.sample()]
        return self.shown[-1], {}

    def step(self, action: Any):
        assert self.action_space.contains(action), action
        self.actions.append(action)
        self.shown.append(self.observation_space.sample())
        return self.shown[-1], 0.0, False, False, {}


gymnasium.register("TinyChain-v0", entry_point=TinyChain)
gymnasium.register("TurnedChain-v0", entry_point=TurnedChain)
