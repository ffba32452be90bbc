"""A task with two teachers: on one kind of terrain the right action is what is wrong on the other."""

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from rldistill.envs import make_task
from rldistill.policies import TorchPolicy
from tests.kit.small_policies import small_policy

TERRAIN_TASK, INFO_TASK = "tests.kit.terrain_env:Terrain-v0", "tests.kit.terrain_env:Told-v0"
SPANS = {"state": [0, 2], "terrain": [2]}


class Told(gymnasium.Env):
    """Eight steps over two terrains that only `info` names; walkers do what the first number of `state` says."""

    def __init__(self, kinds: int = 2) -> None:
        self.observation_space = spaces.Box(-9, 9, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._kinds = kinds

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        return self._look(), self._info()

    def step(self, action):
        self._steps += 1
        reward = float(int(action) == (int(self._state[0] > 0) if self._terrain == 0 else int(self._state[0] <= 0)))
        return self._look(), reward, self._steps == 8, False, self._info()

    def _look(self):
        self._state = self.np_random.normal(size=2).astype(np.float32)
        self._terrain = int(self.np_random.integers(self._kinds))
        return self._state

    def _info(self):
        return {"terrain": ["walk", "climb", "swim"][self._terrain]}


class Terrain(Told):
    """The same with the terrain's number behind the state."""

    def __init__(self, kinds: int = 2) -> None:
        super().__init__(kinds)
        self.observation_space = spaces.Box(-9, 9, (3,), np.float32)

    def _look(self):
        return np.concatenate([super()._look(), np.array([self._terrain], np.float32)])

    def _info(self):
        return {}


gymnasium.register("Told-v0", entry_point=Told)
gymnasium.register("Terrain-v0", entry_point=Terrain)


def terrain_teacher(name: str, task: str = TERRAIN_TASK) -> TorchPolicy:
    """Return the teacher of a terrain, `walk` or `climb`: right there, and wrong on the other."""
    policy = small_policy(make_task(task).task, network="mlp:2", output_kind="q_values", name=name)
    weights = {key: torch.zeros_like(value) for key, value in policy.network.state_dict().items()}
    weights["torso.1.weight"][:, 0] = torch.tensor([1.0, -1.0])
    right = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    weights["heads.0.output.weight"] = right if name == "walk" else right.flip(0)
    policy.network.load_state_dict(weights)
    return policy


def terrain_teachers(task: str = TERRAIN_TASK) -> dict[str, TorchPolicy]:
    """Return both by name."""
    return {name: terrain_teacher(name, task) for name in ("walk", "climb")}


def by_last_number(observations):
    """Return the name of each row's teacher."""
    return np.where(observations[:, -1] == 0, "walk", "climb")
