"""What a policy does with the numbers that it sees before its first layer, in the order of the observation."""

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


def factors(policy: TorchPolicy) -> list[float]:
    """Return the factor on each number that a policy sees, `[P]`; where statistics are applied, behind these."""
    spec, architecture = policy.spec, policy.spec.architecture
    if architecture is None or architecture.kind != "combined":
        return [spec.input_scale if policy.normalization is None else 1.0] * spec.num_observed
    found: list[float] = []
    for part in spec.observation_parts:
        is_image = part.is_image or (architecture.float_images and len(part.shape) == 3)
        found += [spec.input_scale if is_image else 1.0] * part.size
    # What is appended behind the parts goes in as it is.
    return found + [1.0] * (spec.num_observed - len(found))
