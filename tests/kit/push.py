"""An environment with a box of actions whose scores are known, and policies that push."""

from dataclasses import replace

import gymnasium
import numpy as np
import torch

from rldistill.envs import make_task
from rldistill.networks import InputNormalization, parse_architecture
from rldistill.policies import TorchPolicy

PUSH_TASK = "tests.kit.push:Push-v2"


class Push(gymnasium.Env):
    """Ten pushes. Each pays the distance that was pushed, at most `largest`, and less where there is friction."""

    def __init__(self, largest: float = 2.0, friction: float = 0.0) -> None:
        self.observation_space = gymnasium.spaces.Box(-10.0, 10.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-largest, largest, (1,), np.float32)
        self._friction = friction
        self._steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        return self._observation(), {}

    def step(self, action):
        self._steps += 1
        return self._observation(), float(action[0]) - self._friction, self._steps == 10, False, {}

    def _observation(self):
        return np.array([5.0, self.np_random.uniform(5.0, 5.2)], np.float32)


gymnasium.register("Push-v2", entry_point=Push)


def push_policy(kind="gaussian", *, mapping="tanh_rescale", normalised=True, **options):
    """Return a policy that sees 0 and 0.2 at most, and gives tanh(1) of the box's half width; else much more."""
    task = make_task(PUSH_TASK).task
    layout = replace(task.fingerprint.action_layout, mapping=mapping)
    task = replace(task, fingerprint=replace(task.fingerprint, action_layout=layout))
    normalization = InputNormalization((5.0, 5.1), (1.0, 1.0)) if normalised else None
    policy = TorchPolicy.create(
        replace(parse_architecture("mlp:2"), activation="tanh"),
        [task],
        output_kind=kind,
        normalization=normalization,
        generator=torch.Generator().manual_seed(0),
        name="push",
        **options,
    )
    state = policy.network.state_dict()
    state["torso.1.weight"] = torch.eye(2)
    state["heads.0.output.weight"] = torch.tensor([[-3.0, 0.0]])
    state["heads.0.output.bias"] = torch.tensor([1.0])
    if kind == "gaussian":
        state["heads.0.rows.log_std_layer.bias"] = torch.tensor([-20.0])
    policy.network.load_state_dict(state)
    return policy
