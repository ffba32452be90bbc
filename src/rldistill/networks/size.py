"""How big a network is: parameters, bytes, multiply-accumulates."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

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
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, *network.observation_shape, device=device), head)
    # It counts a multiplication and an addition as two.
    return counter.get_total_flops() // 2
