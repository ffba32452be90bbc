"""How big a network is: parameters, bytes, multiply-accumulates."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from rldistill.networks.stemmed import Network, network_of


@dataclass(frozen=True)
class NetworkSize:
    """Counts for one network.

    `num_parameters` counts every weight and bias; `num_bytes` is what they take in the
    network's own dtype; `num_macs` are the multiply-accumulates of convolutions and linear
    layers for one observation and one head, biases not counted.
    """

    num_parameters: int
    num_bytes: int
    num_macs: int


def measure_size(network: Network, *, head: int = 0, bytes_per_parameter: int = 4) -> NetworkSize:
    """Measure a network: multiply-accumulates by running one observation through one of its heads."""
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    return NetworkSize(num_parameters, num_parameters * bytes_per_parameter, _count_macs(network, head))


def _count_macs(network: Network, head: int) -> int:
    # A module of somebody's own may have no weights.
    device = next((weight.device for weight in network.parameters()), torch.device("cpu"))
    network, head = network_of(network, head)
    was_training = network.training
    network.eval()  # a batch norm takes no statistics of one observation
    try:
        with torch.no_grad(), _Counter() as counter:
            network(torch.zeros(1, *network.observation_shape, device=device), head)
    finally:
        network.train(was_training)
    return counter.num_macs


# How many products each number is a sum of, by function, from its first two arguments.
_SUMMED: Mapping[Callable[..., Any], Callable[[Tensor, Tensor], int]] = {
    functional.linear: lambda _, weight: weight.shape[-1],
    **dict.fromkeys(
        (functional.conv1d, functional.conv2d, functional.conv3d), lambda _, weight: prod(weight.shape[1:])
    ),
    **dict.fromkeys((torch.matmul, torch.mm, torch.bmm, Tensor.matmul), lambda rows, _: rows.shape[-1]),
}


class _Counter(TorchFunctionMode):
    """Counts multiply-accumulates; torch's own counter imports its compiler, which takes a second."""

    def __init__(self) -> None:
        super().__init__()
        self.num_macs = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        given = func(*args, **(kwargs or {}))
        if func in _SUMMED:
            self.num_macs += given.numel() * _SUMMED[func](args[0], args[1])
        return given
