"""Running statistics in the order of the observation, and in that of a network which turns its images first.

A network of convolutions computes with images `[C, H, W]` (`torsos.to_images`), and keeps its statistics in that order.
Whoever else names numbers of an observation, such as datasets, contracts and students of other layers, counts them as
the environment gives them.
"""

import math

import torch

from rldistill.networks import Architecture, InputNormalization, PolicyNetwork
from rldistill.networks.torsos import to_images
from rldistill.policies.torch_policy import TorchPolicy


def observed_statistics(policy: TorchPolicy) -> InputNormalization | None:
    """Return the statistics that a policy normalises by, number by number of what it sees; None: it has none."""
    statistics, network = policy.normalization, policy.network
    if statistics is None or not isinstance(network, PolicyNetwork):
        return statistics
    places = _places_in_images(network.architecture, network.observation_shape)
    return statistics if places is None else statistics.at(places.argsort().tolist())


def statistics_for(
    architecture: Architecture, observation_shape: tuple[int, ...], observed: InputNormalization | None
) -> InputNormalization | None:
    """Return statistics of an observation in the order of a network of these layers."""
    places = None if observed is None else _places_in_images(architecture, observation_shape)
    return observed if observed is None or places is None else observed.at(places.tolist())


def _places_in_images(architecture: Architecture, observation_shape: tuple[int, ...]) -> torch.Tensor | None:
    """Return the place in the observation of each number that the network computes with; None: they are the same."""
    if not architecture.takes_images:
        return None
    numbers = torch.arange(math.prod(observation_shape)).reshape(1, *observation_shape)
    turned = to_images(numbers)
    return None if turned.shape == numbers.shape else turned.flatten()
