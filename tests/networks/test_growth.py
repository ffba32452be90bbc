"""A larger network that begins where a smaller one stands."""

import pytest
import torch

from rldistill.networks import OutputLayer, parse_architecture
from rldistill.networks.growth import grow
from rldistill.networks.policy_network import PolicyNetwork
from rldistill.tasks import ObservationPart
from rldistill.types import ActionLayout


def network(name, shape, seed, **options):
    torch.manual_seed(seed)
    heads = {"task": OutputLayer("q_values", ActionLayout.discrete(3))}
    generator = torch.Generator().manual_seed(seed)
    return PolicyNetwork(parse_architecture(name), shape, heads, zero_output=False, generator=generator, **options)


@pytest.mark.parametrize(
    ("small", "large", "shape"),
    [
        ("mlp:4", "mlp:16", (5,)),
        ("mlp:16x8", "mlp:32x8", (5,)),
        ("mlp:8", "mlp:8", (5,)),
        ("net3", "net2", (4, 84, 84)),
        ("net2", "dqn", (4, 84, 84)),
    ],
)
def test_the_larger_network_computes_what_the_smaller_does_and_can_learn_more(small, large, shape):
    old, new = network(small, shape, 0), network(large, shape, 1)
    rows = torch.rand(3, *shape)
    before = old(rows, 0).outputs
    assert not torch.allclose(new(rows, 0).outputs, before, atol=1e-3)
    assert grow(old, new)
    assert torch.allclose(new(rows, 0).outputs, before, atol=1e-5)
    # What the new units give counts from the first step on.
    new(rows, 0).outputs.square().sum().backward()
    (weight, earlier) = (list(own.parameters())[-2] for own in (new, old))
    num_known = earlier.shape[1]
    assert weight.shape[1] == num_known or weight.grad[:, num_known:].any()


@pytest.mark.parametrize(
    ("small", "large"), [("mlp:16", "mlp:8"), ("mlp:8", "mlp:16x16"), ("gru:4", "gru:8"), ("mlp:8", "gru:8")]
)
def test_other_layers_or_narrower_ones_stay_as_they_are(small, large):
    old, new = network(small, (5,), 0), network(large, (5,), 1)
    before = {name: weight.clone() for name, weight in new.state_dict().items()}
    assert not grow(old, new)
    assert all(torch.equal(weight, before[name]) for name, weight in new.state_dict().items())


IMAGE, VECTOR = ObservationPart("image", (36, 36, 3), "uint8"), ObservationPart("vector", (4,))


@pytest.mark.parametrize("parts", [(VECTOR, IMAGE), (IMAGE, VECTOR)])
def test_a_network_of_an_image_and_other_parts_stays_as_it_is(parts):
    shape = (sum(part.size for part in parts),)
    old, new = (network(name, shape, 0, parts=parts) for name in ("combined:4-4:8:6", "combined:8-8:16:12"))
    rows = 10 * torch.rand(3, *shape)
    before = new(rows, 0).outputs
    assert not grow(old, new)
    assert torch.equal(new(rows, 0).outputs, before)
