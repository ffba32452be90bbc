"""A task whose observations have parts that say everything and parts that say nothing, as a Dict and as a vector."""

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from rldistill.envs import make_task
from rldistill.policies import TorchPolicy
from rldistill.sight import Sight
from rldistill.tasks import ObservationFingerprint, Task
from rldistill.types import ActionLayout
from tests.kit.small_policies import small_policy

PARTS_TASK, VECTOR_TASK = "tests.kit.seen_env:Parts-v0", "tests.kit.seen_env:Vector-v0"
STATE_ONLY = Task("state", ObservationFingerprint((2,), "float32", ActionLayout.discrete(2)))


class Parts(gymnasium.Env):
    """Eight steps; the right action is whether the first number of `state` is above zero. `hint` says the same."""

    def __init__(self) -> None:
        inner = {"hint": spaces.Box(-9, 9, (1,), np.float32), "noise": spaces.Box(-9, 9, (3,), np.float32)}
        self.observation_space = spaces.Dict(inner | {"state": spaces.Box(-9, 9, (2,), np.float32)})
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        return self._observation(), {}

    def step(self, action):
        self._steps += 1
        reward = float(int(action) == int(self._state[0] > 0))
        return self._observation(), reward, self._steps == 8, False, {}

    def _observation(self):
        self._state = self.np_random.normal(size=2).astype(np.float32)
        noise = self.np_random.normal(size=3).astype(np.float32)
        return {"state": self._state, "hint": np.sign(self._state[:1]), "noise": noise}


class Vector(Parts):
    """The same as a vector: hint, noise, state."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(-9, 9, (6,), np.float32)

    def _observation(self):
        parts = super()._observation()
        return np.concatenate([parts["hint"], parts["noise"], parts["state"]])


gymnasium.register("Parts-v0", entry_point=Parts)
gymnasium.register("Vector-v0", entry_point=Vector)
SPANS = {"hint": [0, 1], "noise": [1, 4], "state": [4]}


def student_of_hint() -> TorchPolicy:
    """Return a policy that sees `hint` and `noise`, uses the first alone, and always acts right."""
    sight = Sight(("hint", "noise"))
    policy = small_policy(make_task(PARTS_TASK).task, network="mlp:2", output_kind="q_values", sight=sight)
    weights = policy.network.state_dict()
    weights["torso.1.weight"] = torch.tensor([[1.0, 0.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0]])
    weights["torso.1.bias"] = torch.zeros(2)
    weights["heads.0.output.weight"] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    weights["heads.0.output.bias"] = torch.zeros(2)
    policy.network.load_state_dict(weights)
    return policy


def teacher_of_state() -> TorchPolicy:
    """Return a policy of `state` alone that always acts right; it knows nothing of other parts."""
    policy = small_policy(STATE_ONLY, network="mlp:2", output_kind="q_values", name="of-state")
    weights = policy.network.state_dict()
    weights["torso.1.weight"] = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    weights["torso.1.bias"] = torch.zeros(2)
    weights["heads.0.output.weight"] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    weights["heads.0.output.bias"] = torch.zeros(2)
    policy.network.load_state_dict(weights)
    return policy
