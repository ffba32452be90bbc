"""A small network with a memory, and a policy around it."""

import torch
from torch import Tensor, nn

from rldistill.networks import parse_architecture
from rldistill.networks.input_layer import ScaleInput
from rldistill.networks.policy_network import NetworkOutput
from rldistill.policies import TorchPolicy
from rldistill.tasks import ObservationFingerprint, Task
from rldistill.types import ActionLayout, State


class GRUNetwork(nn.Module):
    """Q-values of what a GRU cell remembers of a vector."""

    def __init__(self, num_inputs: int = 2, num_actions: int = 3, *, width: int = 8, seed: int = 0) -> None:
        super().__init__()
        self.observation_shape = (num_inputs,)
        self.scale = ScaleInput(1.0)
        self.width = width
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.cell = nn.GRUCell(num_inputs, width)
            self.output = nn.Linear(width, num_actions)

    def initial_state(self, num_envs: int) -> State:
        return (torch.zeros(num_envs, self.width),)

    def forward(self, observations: Tensor, head: int = 0, state: State = None) -> NetworkOutput:
        assert state is not None
        hidden = self.cell(self.scale(observations), state[0])
        return NetworkOutput(self.output(hidden), hidden, state=(hidden,))


def gru_policy(num_inputs: int = 2, num_actions: int = 3, *, seed: int = 0) -> TorchPolicy:
    """Return a policy that acts by what a `GRUNetwork` remembers."""
    layout = ActionLayout.discrete(num_actions)
    task = Task("made-up", ObservationFingerprint((num_inputs,), "float32", layout))
    spec = TorchPolicy.create(parse_architecture("mlp:4"), [task]).spec
    return TorchPolicy(GRUNetwork(num_inputs, num_actions, seed=seed), spec)
