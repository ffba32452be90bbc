"""A task that only a memory solves: what is right in an episode is shown at its first step alone."""

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from rldistill.policies import TorchPolicy
from rldistill.tasks import ObservationFingerprint, Task
from rldistill.types import ActionLayout
from tests.kit.small_policies import small_policy

CUE_TASK, PICTURE_TASK = "tests.kit.cue_env:Cue-v0", "tests.kit.cue_env:Picture-v0"
_ALL = Task("cue", ObservationFingerprint((1,), "float32", ActionLayout.discrete(2)))


class Cue(gymnasium.Env):
    """Six to nine steps. `shown` is the cue, −1 or 1, at the first and 0 at all others; `always` is the cue."""

    def __init__(self) -> None:
        part = spaces.Box(-1, 1, (1,), np.float32)
        self.observation_space = spaces.Dict({"always": part, "shown": part})
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps, self._length = 0, int(self.np_random.integers(6, 10))
        self._cue = np.float32(self.np_random.choice([-1, 1]))
        return self._observation(), {}

    def step(self, action):
        self._steps += 1
        reward = float(int(action) == int(self._cue > 0)) / self._length
        return self._observation(), reward, self._steps == self._length, False, {}

    def _observation(self):
        shown = self._cue if self._steps == 0 else np.float32(0)
        return {"always": np.array([self._cue]), "shown": np.array([shown])}


class Picture(Cue):
    """The same, and what is shown is a picture: dark or bright at the first step, grey at all others."""

    def __init__(self) -> None:
        super().__init__()
        picture = spaces.Box(0, 255, (1, 36, 36), np.uint8)
        self.observation_space = spaces.Dict({"always": self.observation_space["always"], "shown": picture})

    def _observation(self):
        parts = super()._observation()
        return {"always": parts["always"], "shown": np.full((1, 36, 36), 127 + 120 * parts["shown"][0], np.uint8)}


gymnasium.register("Cue-v0", entry_point=Cue)
gymnasium.register("Picture-v0", entry_point=Picture)


def teacher_of_cue() -> TorchPolicy:
    """Return a policy that sees the cue at every step and acts right."""
    policy = small_policy(_ALL, network="mlp:2", output_kind="logits", name="of-cue")
    weights = policy.network.state_dict()
    weights["torso.1.weight"] = torch.tensor([[4.0], [-4.0]])
    weights["heads.0.output.weight"] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    weights["torso.1.bias"], weights["heads.0.output.bias"] = torch.zeros(2), torch.zeros(2)
    policy.network.load_state_dict(weights)
    return policy
