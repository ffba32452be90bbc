"""Rows of continuous heads against formulas, and observations normalised as their statistics say."""

import numpy as np
import pytest
import torch

from rldistill.networks import (
    Architecture,
    GaussianOptions,
    InputNormalization,
    NormalizeInput,
    OutputLayer,
    PolicyNetwork,
)
from rldistill.networks.output_layer import ValueAtoms
from rldistill.types import ActionLayout

LOW, HIGH = (-1.0, 0.0), (1.0, 10.0)
CLIPPED = ActionLayout("box", (2,), LOW, HIGH, "clip")
SQUASHED = ActionLayout("box", (2,), LOW, HIGH, "tanh_rescale")


def network_of(kind, layout=CLIPPED, **gaussian):
    layer = OutputLayer(kind, layout, GaussianOptions(**gaussian))
    generator = torch.Generator().manual_seed(0)
    architecture = Architecture("x", "mlp", (5,), activation="tanh")
    return PolicyNetwork(architecture, (3,), {"task": layer}, zero_output=False, generator=generator)


def rows(num_rows=7):
    return torch.randn(num_rows, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("std", ["state", "parameter", "fixed"])
def test_a_gaussian_starts_with_a_deviation_of_1(std):
    outputs = network_of("gaussian", std=std)(rows()).outputs
    assert outputs.shape == (7, 4)
    assert torch.equal(outputs[:, 2:], torch.zeros(7, 2))
    assert outputs[:, :2].std() > 0.1


def test_a_deviation_of_the_state_is_linear_in_the_features_and_bounded():
    network = network_of("gaussian")
    layer = network.heads[0].rows.log_std_layer
    torch.nn.init.constant_(layer.weight, 0.5)
    torch.nn.init.constant_(layer.bias, 0.1)
    output = network(rows())
    expected = 0.1 + 0.5 * output.features.sum(dim=1)
    torch.testing.assert_close(output.outputs[:, 2], expected)
    torch.nn.init.constant_(layer.bias, 50)
    assert network(rows()).outputs[:, 2:].unique().tolist() == [2]
    torch.nn.init.constant_(layer.bias, -50)
    assert network(rows()).outputs[:, 2:].unique().tolist() == [-20]


def test_what_learns_of_a_deviation():
    names = {std: [n for n, _ in network_of("gaussian", std=std).named_parameters() if "std" in n] for std in STDS}
    assert names["fixed"] == []
    assert names["parameter"] == names["gsde"] == ["heads.0.rows.log_std"]
    assert names["state"] == ["heads.0.rows.log_std_layer.weight", "heads.0.rows.log_std_layer.bias"]


STDS = ("state", "parameter", "fixed", "gsde")


def test_exploration_that_depends_on_the_features():
    network = network_of("gaussian", std="gsde")
    network.heads[0].rows.log_std.data.fill_(np.log(3))
    output = network(rows())
    variance = 9 * output.features.square().sum(dim=1) + 1e-6
    torch.testing.assert_close(output.outputs[:, 2], 0.5 * variance.log())
    assert torch.isfinite(network(torch.zeros(1, 3)).outputs).all()


def test_a_mean_is_clipped_where_it_is_said_to_be():
    free, limited = network_of("gaussian"), network_of("gaussian", mean_limit=0.25)
    torch.testing.assert_close(limited(rows()).outputs[:, :2], free(rows()).outputs[:, :2].clamp(-0.25, 0.25))


def test_a_deterministic_head_gives_the_environments_units():
    clipped, squashed = network_of("actions")(rows()).outputs, network_of("actions", SQUASHED)(rows()).outputs
    torch.testing.assert_close(squashed[:, 0], torch.tanh(clipped[:, 0]))
    torch.testing.assert_close(squashed[:, 1], 5 + 5 * torch.tanh(clipped[:, 1]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("q_values", CLIPPED), "box actions have gaussian or actions, got q_values"),
        (("actions", ActionLayout("box", (1,), (-np.inf,), (np.inf,), "tanh_rescale")), "needs finite bounds"),
    ],
)
def test_a_layer_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        OutputLayer(*arguments)


@pytest.mark.parametrize(
    ("options", "message"), [({"std": "both"}, "^std must be"), ({"mean_limit": 0}, "^mean_limit")]
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GaussianOptions(**options)


def test_observations_are_normalised_as_their_statistics_say_and_clipped():
    layer = NormalizeInput(InputNormalization((1.0, 0.0), (4.0, 0.0), epsilon=0.25, clip=3.0))
    normalised = layer(torch.tensor([[2.0, 1.0], [100.0, -100.0]]))
    torch.testing.assert_close(normalised, torch.tensor([[1 / 4.25**0.5, 2.0], [3.0, -3.0]]))
    assert normalised.dtype == torch.float32


def test_statistics_are_measured_and_a_number_that_never_changes_is_shifted_alone():
    layer = NormalizeInput(InputNormalization((0.0, 0.0), (1.0, 1.0), epsilon=1e-6))
    layer.measure(torch.tensor([[1.0, 7.0], [5.0, 7.0]]))
    assert (layer.mean.tolist(), layer.variance.tolist()) == ([3.0, 7.0], [4.0, 1.0])
    expected = torch.tensor([[1.0, 0.5]])
    torch.testing.assert_close(layer(torch.tensor([[5.0, 7.5]])), expected, rtol=1e-5, atol=0)


def test_statistics_keep_their_digits_where_the_mean_is_large():
    layer = NormalizeInput(InputNormalization((1e6,), (1e-4,), clip=1e9))
    torch.testing.assert_close(layer(torch.tensor([[1e6 + 0.5]])), torch.tensor([[50.0]]), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    "arguments", [((0.0,), (1.0, 1.0)), ((), ()), ((0.0,), (-1.0,)), ((0.0,), (1.0,), 0.0), ((0.0,), (1.0,), 1.0, -1.0)]
)
def test_statistics_that_are_none_are_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        InputNormalization(*arguments)


BLOCK = 16
HEADS = {
    **{kind: OutputLayer.choice(5, kind) for kind in ("q_values", "logits")},
    "atoms": OutputLayer("q_values", ActionLayout.discrete(5), atoms=ValueAtoms(-10.0, 10.0, 51)),
    "beta": OutputLayer("actions", CLIPPED, is_beta=True),
    "clipped": OutputLayer("actions", CLIPPED),
    "squashed": OutputLayer("actions", SQUASHED),
    **{
        std: OutputLayer("gaussian", SQUASHED, GaussianOptions(std, mean_limit=2.0))
        for std in ("state", "state_tanh", "parameter", "fixed", "gsde")
    },
}


@pytest.mark.parametrize("activation", ["relu", "tanh", "elu", "silu"])
@pytest.mark.parametrize("name", HEADS)
def test_several_blocks_at_once_are_each_of_them_to_the_last_bit(name, activation):
    architecture = Architecture("x", "mlp", (37, 64), head_hidden=(19,), activation=activation, value_head=True)
    generator = torch.Generator().manual_seed(0)
    network = PolicyNetwork(architecture, (11,), {"task": HEADS[name]}, zero_output=False, generator=generator).eval()
    observations = 3 * torch.randn(5 * BLOCK, 11, generator=generator)
    with torch.inference_mode():
        together = network(observations, 0, None, BLOCK)
        alone = [network(part, 0, None, None) for part in observations.split(BLOCK)]
    assert torch.equal(together.outputs, torch.cat([each.outputs for each in alone]))
    assert torch.equal(together.value, torch.cat([each.value for each in alone]))
    assert len(together.outputs.unique(dim=0)) > 1
