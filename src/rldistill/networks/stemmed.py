"""One network for tasks of different observations: a stem for each kind of observation, all above it shared.

    4 numbers ─ stem ─┐                     ┌─ head of CartPole
    6 numbers ─ stem ─┼─ torso (and memory) ┼─ head of Acrobot
    8 numbers ─ stem ─┘                     └─ head of LunarLander

A stem is what touches the observation: its scaling or normalisation, and the first layer of an mlp.
"""

import copy
from collections.abc import Sequence

from torch import nn

from rldistill.networks.architecture import Architecture
from rldistill.networks.module_network import ModuleNetwork
from rldistill.networks.policy_network import NetworkOutput, PolicyNetwork
from rldistill.observations import Tensors
from rldistill.types import State

_WIDTHS = 2


def stem_problem(architecture: Architecture) -> str | None:
    """Return why a network cannot see several kinds of observation, as messages say it; None: it can."""
    if architecture.kind != "mlp":
        return "images go through convolutions that see one kind of them"
    if architecture.stack:
        return "a stack holds observations of one length"
    if len(architecture.hidden) < _WIDTHS and not (architecture.hidden and architecture.memory):
        return "its only layer would be a stem of each, and nothing shared"
    return None


class StemmedNetwork(nn.Module):
    """Networks of one kind of observation each that share everything but their stems.

    Each of them computes by itself what a task needs, with layers that belong to all: to play, to train or to count one
    task is to do so with one `PolicyNetwork`. The layers are registered here, once and by what they are.

    Args:
        networks: one for each kind of observation, with the heads of its tasks; of one architecture. Their torsos and
            memories above the stems become those of the first.
        places: of each head of all, which network it is of, and which of its heads.
    """

    def __init__(self, networks: Sequence[PolicyNetwork], places: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        first = networks[0]
        self.architecture = first.architecture
        self.head_names = tuple(networks[number].head_names[head] for number, head in places)
        # Flattening, the first layer, its norm, its activation.
        split = 3 + self.architecture.layer_norm
        stems = [nn.Sequential(*list(own.torso.children())[:split]) for own in networks]
        self.scales = nn.ModuleList(own.scale for own in networks)
        self.stems = nn.ModuleList(stems)
        self.torso = nn.Sequential(*list(first.torso.children())[split:])
        self.memory, self.memory_above = first.memory, first.memory_above
        self.heads = nn.ModuleList(networks[number].heads[head] for number, head in places)
        for own, stem in zip(networks, stems, strict=True):
            own.torso = nn.Sequential(*stem, *self.torso)
            own.memory, own.memory_above = self.memory, self.memory_above
        # In a tuple, which is not registered: their layers are, above. Copies and loaded weights keep them shared.
        self._networks, self._places = tuple(networks), tuple(places)

    def alone(self, head: int) -> tuple[PolicyNetwork, int]:
        """Return the network of the observations of a head's task, and which of its heads that is."""
        number, own = self._places[head]
        return self._networks[number], own

    def with_head(self, head: int) -> PolicyNetwork:
        """Return a copy of what one head's task needs, an ordinary network; nothing is shared with this one."""
        network, own = copy.deepcopy(self).alone(head)
        return network.with_head(own)

    def initial_state(self, num_envs: int) -> State:
        """Return what is remembered when an episode begins; None: nothing."""
        return self._networks[0].initial_state(num_envs)

    def forward(
        self, observations: Tensors, head: int = 0, state: State = None, block: int | None = None
    ) -> NetworkOutput:
        """Return one head's outputs for observations of its own task, and the next state, as `PolicyNetwork` does."""
        network, own = self.alone(head)
        return network.forward(observations, own, state, block)


Network = PolicyNetwork | ModuleNetwork | StemmedNetwork


def network_of(network: Network, head: int) -> tuple[PolicyNetwork | ModuleNetwork, int]:
    """Return what computes a head's outputs, and which of its heads that is."""
    return network.alone(head) if isinstance(network, StemmedNetwork) else (network, head)
