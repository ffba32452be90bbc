"""Networks of one depth, stacked: one batched product computes a layer of all of them.

Layers of vectors are so small that an update's time goes to calling operations, not to arithmetic: sixteen students in
one product cost little more than one. Narrower layers are padded with zeros to the widest. A padded unit has weights of
zero in and out, so its output and all its gradients are zero, and no optimiser moves it.
"""

import copy
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from rldistill.networks.policy_network import Head, PolicyNetwork


def can_be_stacked(network: nn.Module) -> bool:
    """Whether a network is of vectors, and none of its layers answers to padding."""
    if not isinstance(network, PolicyNetwork) or network.architecture.kind != "mlp":
        return False
    if network.architecture.layer_norm or network.architecture.value_head or network.architecture.remembers:
        return False
    layers = chain(_torso(network), *(head.hidden for head in _heads(network)))
    return all(_keeps_zero(layer) for layer in layers if not isinstance(layer, nn.Linear))


def depth(network: PolicyNetwork) -> tuple[int, ...]:
    """Return what networks of one stack have in common: the layers of the torso, and of each head."""
    return len(_torso(network)), *(len(head.hidden) for head in _heads(network))


class StackedNetworks(nn.Module):
    """S networks in one, whose weights are from now on parts of its own: what it learns, they have learned.

    Args:
        networks: that can be stacked, of one depth, with the same inputs and heads.
    """

    def __init__(self, networks: Sequence[PolicyNetwork]) -> None:
        super().__init__()
        first = networks[0]
        self.scale = first.scale
        self.torso = nn.Sequential(*map(_stacked, zip(*map(_torso, networks), strict=True)))
        self.heads = nn.ModuleList(_StackedHead(heads) for heads in zip(*map(_heads, networks), strict=True))

    def features(self, observations: Tensor) -> Tensor:
        """Return the shared features `[S, B, F]` of observations `[B, *observation_shape]`."""
        return self.torso(self.scale(observations))

    def outputs(self, features: Tensor, head: int) -> Tensor:
        """Return a head's rows `[S, B, O]`, in float32 as a single network's."""
        return self.heads[head](features.float())


class StackedLinear(nn.Module):
    """Linear layers in one: weights `[S, I, O]`, biases `[S, 1, O]`."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        num_inputs = max(layer.in_features for layer in layers)
        num_outputs = max(layer.out_features for layer in layers)
        weight = layers[0].weight.new_zeros(len(layers), num_inputs, num_outputs)
        bias = layers[0].bias.new_zeros(len(layers), 1, num_outputs)
        for index, layer in enumerate(layers):
            _share(layer.weight, weight[index, : layer.in_features, : layer.out_features].T)
            _share(layer.bias, bias[index, 0, : layer.out_features])
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, rows: Tensor) -> Tensor:
        """Return `[S, B, O]` for rows `[S, B, I]`, or for rows `[B, I]` that all of them see."""
        return torch.baddbmm(self.bias, rows.expand(len(self.weight), *rows.shape[-2:]), self.weight)


class _StackedHead(nn.Module):
    def __init__(self, heads: Sequence[Head]) -> None:
        super().__init__()
        self.hidden = nn.Sequential(*map(_stacked, zip(*(head.hidden for head in heads), strict=True)))
        self.output = StackedLinear([head.output for head in heads])
        self.rows = copy.deepcopy(heads[0].rows)
        for name, _ in heads[0].rows.named_parameters(recurse=False):  # a spread that is the same in all states
            own = [head.rows.get_parameter(name) for head in heads]
            stack = torch.zeros(len(heads), 1, *own[0].shape, device=own[0].device)
            for index, parameter in enumerate(own):
                _share(parameter, stack[index, 0])
            self.rows.register_parameter(name, nn.Parameter(stack))
        for name, _ in heads[0].rows.named_children():  # one that depends on the state
            self.rows.add_module(name, _stacked([head.rows.get_submodule(name) for head in heads]))

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.hidden(features)
        return self.rows(self.output(hidden), hidden)


@torch.no_grad()
def _share(parameter: Tensor, place: Tensor) -> None:
    """Let a parameter lie at a place in a stack."""
    place.copy_(parameter)
    parameter.data = place


def _stacked(layers: Sequence[nn.Module]) -> nn.Module:
    """Return the layers at one place of all networks as one; activations are alike, and flattening is of all."""
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return StackedLinear(linear) if linear else layers[0]


def _torso(network: PolicyNetwork) -> list[nn.Module]:
    return list(network.torso.children())


def _heads(network: PolicyNetwork) -> list[Head]:
    return [head for head in network.heads if isinstance(head, Head)]


@torch.no_grad()
def _keeps_zero(layer: nn.Module) -> bool:
    return not layer(torch.zeros(1, 1)).any()
