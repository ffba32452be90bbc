"""Statistics of images are in the observation's order for whoever names its numbers, and in [C, H, W] in a network."""

import numpy as np
import pytest
import torch

from rldistill.networks import Architecture, InputNormalization, parse_architecture
from rldistill.networks.torsos import to_images
from rldistill.policies.entry import teacher_entry
from rldistill.policies.input_statistics import observed_statistics, statistics_for
from rldistill.tasks import ObservationFingerprint, Task
from rldistill.types import ActionLayout
from tests.kit.small_policies import small_policy

CONVOLUTIONS = Architecture("made-up", "conv", (6,), (4,), (4,), (2,))


def statistics(size: int) -> InputNormalization:
    return InputNormalization(tuple(np.arange(size, dtype=float)), tuple(np.arange(size) + 1.0))


def policy_on(shape, network, observed):
    task = Task("images", ObservationFingerprint(shape, "float32", ActionLayout.discrete(3)))
    return small_policy(task, network=network, normalization=statistics_for(network, shape, observed))


@pytest.mark.parametrize("shape", [(10, 10, 3), (3, 10, 10)])
def test_a_network_of_convolutions_normalises_every_pixel_by_its_own_statistics(shape):
    observed = statistics(300)
    policy = policy_on(shape, CONVOLUTIONS, observed)
    rows = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    mean, deviation = (torch.tensor(part).reshape(shape) for part in (observed.mean, np.sqrt(observed.variance)))
    torch.testing.assert_close(
        policy.network.scale(to_images(rows)), to_images((rows - mean) / deviation).clamp(-10, 10).float()
    )
    assert observed_statistics(policy) == observed


@pytest.mark.parametrize("network", [CONVOLUTIONS, parse_architecture("mlp:8")])
def test_what_is_recorded_of_a_teacher_has_the_order_of_its_observations(network):
    """Else a student of other layers would normalise each pixel by another one's statistics."""
    shape, observed = (10, 10, 3), statistics(300)
    recorded = teacher_entry(policy_on(shape, network, observed), None).normalization
    assert recorded is not None
    assert list(recorded["mean"]) == list(observed.mean)
    assert list(recorded["variance"]) == list(observed.variance)
