"""Running statistics as those who feed a policy see them: in the order of the observation's own numbers."""

import math

import torch

from rldistill.networks import InputNormalization, PolicyNetwork
from rldistill.networks.torsos import to_images
from rldistill.policies import TorchPolicy


def observed_statistics(policy: TorchPolicy) -> InputNormalization | None:
    """Return the statistics that a policy normalises by, number by number of what it sees; None: it has none.

    A network of convolutions turns its images first (`torsos.to_images`), and keeps its statistics in that order.
    """
    statistics, network = policy.normalization, policy.network
    if statistics is None or not isinstance(network, PolicyNetwork) or not network.takes_images:
        return statistics
    shape = network.observation_shape
    numbers = torch.arange(math.prod(shape)).reshape(1, *shape)
    turned = to_images(numbers)
    if turned.shape == numbers.shape:
        return statistics
    return statistics.at(turned.flatten().argsort().tolist())
