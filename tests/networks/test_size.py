"""Parameters and multiply-accumulates: the paper's numbers, and small networks counted by hand."""

import pytest
from torch import nn

from rldistill.networks import Architecture, ModuleNetwork, OutputLayer, PolicyNetwork, measure_size, parse_architecture

ATARI = (4, 84, 84)


def network_of(architecture, shape, heads):
    return PolicyNetwork(architecture, shape, {name: OutputLayer.choice(size) for name, size in heads.items()})


def size_of(architecture, shape, heads, **options):
    return measure_size(network_of(architecture, shape, heads), **options)


@pytest.mark.parametrize(
    ("name", "num_parameters"), [("dqn", 1_693_362), ("net1", 427_874), ("net2", 113_346), ("net3", 61_954)]
)
def test_presets_have_the_papers_parameter_counts_at_18_actions(name, num_parameters):
    assert size_of(parse_architecture(name), ATARI, {"task": 18}).num_parameters == num_parameters


@pytest.mark.parametrize(("name", "num_macs"), [("dqn", 9_352_192), ("net3", 2_134_400)])
def test_presets_have_the_contracts_multiply_accumulates_at_18_actions(name, num_macs):
    assert size_of(parse_architecture(name), ATARI, {"task": 18}).num_macs == num_macs


def test_net3_is_27_times_smaller_than_dqn():
    dqn, net3 = (size_of(parse_architecture(name), ATARI, {"task": 18}) for name in ("dqn", "net3"))
    assert round(dqn.num_parameters / net3.num_parameters) == 27


@pytest.mark.parametrize(
    ("name", "num_extra"), [("dqn", 2 * (32 + 64 + 64 + 512)), ("net3", 2 * (16 + 16 + 16 + 64)), ("mlp:8", 2 * 8)]
)
def test_layer_norm_adds_a_weight_and_a_bias_per_channel_or_unit_and_no_multiplications(name, num_extra):
    shape = (5,) if name.startswith("mlp") else ATARI
    plain = size_of(parse_architecture(name), shape, {"task": 6})
    normed = size_of(parse_architecture(name, layer_norm=True), shape, {"task": 6})
    assert normed.num_parameters - plain.num_parameters == num_extra
    assert normed.num_macs == plain.num_macs


def test_an_mlp_counted_by_hand():
    size = size_of(parse_architecture("mlp:8x3"), (5,), {"task": 2})
    assert size.num_parameters == (5 * 8 + 8) + (8 * 3 + 3) + (3 * 2 + 2)
    assert size.num_macs == 5 * 8 + 8 * 3 + 3 * 2


def test_a_conv_counted_by_hand():
    size = size_of(parse_architecture("conv:2:3"), (1, 12, 16), {"task": 4})
    # 8×8 kernels with stride 4 leave 2×3 positions of 2 channels: 12 features.
    assert size.num_parameters == (64 * 2 + 2) + (12 * 3 + 3) + (3 * 4 + 4)
    assert size.num_macs == 6 * 2 * 64 + 12 * 3 + 3 * 4


def test_multiply_accumulates_are_those_of_one_head_and_parameters_those_of_all():
    architecture = Architecture("x", "mlp", (8,), head_hidden=(4,))
    one, two = (size_of(architecture, (5,), heads) for heads in ({"a": 2}, {"a": 2, "b": 3}))
    assert one.num_macs == two.num_macs == 5 * 8 + 8 * 4 + 4 * 2
    assert two.num_parameters - one.num_parameters == (8 * 4 + 4) + (4 * 3 + 3)


def test_multiply_accumulates_are_those_of_the_head_that_was_asked_about():
    network = network_of(Architecture("x", "mlp", (8,)), (5,), {"a": 2, "b": 3})
    assert [measure_size(network, head=head).num_macs for head in (0, 1)] == [5 * 8 + 8 * 2, 5 * 8 + 8 * 3]


def test_a_value_head_is_counted():
    size = size_of(Architecture("x", "mlp", (8,), value_head=True), (5,), {"a": 2})
    assert size.num_macs == 5 * 8 + 8 * 2 + 8 * 1
    assert size.num_parameters == (5 * 8 + 8) + (8 * 2 + 2) + (8 + 1)


def test_bytes_follow_the_width_of_a_parameter():
    architecture = parse_architecture("net3")
    full, half = (size_of(architecture, ATARI, {"a": 18}, bytes_per_parameter=width) for width in (4, 2))
    assert (full.num_bytes, half.num_bytes) == (4 * 61_954, 2 * 61_954)


def test_a_module_without_weights_has_the_size_0():
    size = measure_size(ModuleNetwork(nn.Flatten(), (2,), 2))
    assert (size.num_parameters, size.num_bytes, size.num_macs) == (0, 0, 0)


def test_measuring_leaves_a_module_in_training_as_it_was():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    network = ModuleNetwork(module, (2,), 2)
    assert measure_size(network).num_macs == 2 * 3 + 3 * 2
    assert network.training and module.training
    assert module[1].num_batches_tracked == 0
