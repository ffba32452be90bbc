"""Residual torsos, norms with a weight per pixel, distributions of values, and a spread that a tanh bounds."""

from dataclasses import replace

import pytest
import torch

from rldistill.errors import UsageError
from rldistill.networks import Architecture, GaussianOptions, OutputLayer, PolicyNetwork, ValueAtoms
from rldistill.networks.impala import ImpalaStage
from rldistill.policies import TorchPolicy, load_policy
from rldistill.types import ActionLayout
from tests.kit.small_policies import box_task, image_task, small_policy

IMPALA = Architecture("impala", "impala", (16,), (4, 8), kernel_sizes=(3, 3), strides=(2, 2))
NORMED = Architecture(
    "normed", "conv", (8,), (4, 4), kernel_sizes=(8, 4), strides=(4, 2), layer_norm=True, elementwise_norm=True
)


def test_a_stage_halves_images_rounding_up():
    images = torch.randn(2, 3, 21, 20, generator=torch.Generator().manual_seed(0))
    assert ImpalaStage(3, 5)(images).shape == (2, 5, 11, 10)


def test_a_block_without_weights_changes_nothing():
    stage = ImpalaStage(1, 1)
    for parameter in stage.parameters():
        torch.nn.init.zeros_(parameter)
    stage.convolution.weight.data[0, 0, 1, 1] = 1.0
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert stage(image).view(4).tolist() == [5, 7, 13, 15]  # the maxima of 3x3 around every second pixel


@pytest.mark.parametrize("architecture", [IMPALA, NORMED], ids=lambda value: value.name)
def test_such_policies_come_back_as_they_were_saved(architecture, tmp_path):
    policy = small_policy(image_task(), network=architecture)
    policy.save(tmp_path / "p.safetensors")
    loaded = load_policy(tmp_path / "p.safetensors")
    frames = torch.randint(0, 256, (3, 4, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert loaded.hash == policy.hash
    assert torch.equal(loaded(frames)[0].q_values, policy(frames)[0].q_values)


def test_norms_have_a_weight_for_each_pixel_of_each_channel():
    network = PolicyNetwork(NORMED, (4, 84, 84), {"a": OutputLayer.choice(3)})
    assert network.torso[1].weight.shape == (4, 20, 20)
    assert network.torso[4].weight.shape == (4, 9, 9)


def test_what_came_later_stands_in_a_description_only_where_it_says_something():
    assert Architecture.from_dict(NORMED.to_dict()) == NORMED
    assert "elementwise_norm" not in IMPALA.to_dict()


@pytest.mark.parametrize("change", [{"layer_norm": True}, {"kernel_sizes": (3, 2)}])
def test_residual_stages_have_odd_kernels_and_no_norm(change):
    with pytest.raises(UsageError, match=r"residual stages have odd kernels and no layer norm\.$"):
        replace(IMPALA, **change)


def test_q_values_are_the_expectation_of_their_distribution():
    layer = OutputLayer("q_values", ActionLayout.discrete(2), atoms=ValueAtoms(-1.0, 1.0, 3))
    network = PolicyNetwork(Architecture("x", "mlp", ()), (1,), {"a": layer})
    head = network.heads[0]
    torch.nn.init.zeros_(head.output.weight)
    head.output.bias.data = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 1e9])
    assert network(torch.zeros(1, 1)).outputs.tolist() == [[0, 1]]
    head.output.bias.data = torch.tensor([0.0, 0.0, 1.0986123, 1.0986123, 0.0, 0.0])  # weights 1, 1, 3 and 3, 1, 1
    torch.testing.assert_close(network(torch.zeros(1, 1)).outputs, torch.tensor([[0.4, -0.4]]))


def test_a_policy_with_a_distribution_of_values_comes_back_as_it_was_saved(tmp_path):
    policy = small_policy()
    atoms = ValueAtoms(-10.0, 10.0, 51)
    spec = replace(policy.spec, atoms=atoms)
    network = PolicyNetwork(spec.architecture, (4,), spec.output_layers, zero_output=False)
    TorchPolicy(network, spec).save(tmp_path / "p.safetensors")
    loaded = load_policy(tmp_path / "p.safetensors")
    assert loaded.spec.atoms == atoms
    rows = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(rows)[0].q_values, TorchPolicy(network, spec)(rows)[0].q_values)


@pytest.mark.parametrize("atoms", [(1.0, -1.0, 3), (0.0, 1.0, 1), (0.0, float("inf"), 5)])
def test_atoms_lie_between_finite_bounds(atoms):
    with pytest.raises(ValueError, match=r"^atoms must be two or more between finite bounds, got ValueAtoms"):
        ValueAtoms(*atoms)


def test_atoms_belong_to_q_values():
    with pytest.raises(ValueError, match=r"^atoms belong to q_values, got logits\.$"):
        OutputLayer("logits", ActionLayout.discrete(2), atoms=ValueAtoms(0.0, 1.0, 2))


def test_a_spread_that_a_tanh_bounds_lies_between_its_bounds():
    policy = small_policy(box_task(), output_kind="gaussian", gaussian=GaussianOptions("state_tanh"))
    layer = policy.network.heads[0].rows.log_std_layer
    observations = torch.zeros(1, 4)
    torch.testing.assert_close(policy(observations)[0].log_std, torch.full((1, 2), -1.5))  # halfway
    layer.bias.data.fill_(100)
    torch.testing.assert_close(policy(observations)[0].log_std, torch.full((1, 2), 2.0))
    layer.bias.data.fill_(-100)
    torch.testing.assert_close(policy(observations)[0].log_std, torch.full((1, 2), -5.0))
