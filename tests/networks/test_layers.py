"""A network as plain layers: named by its sizes, and built with exactly these weights."""

import pytest
import torch

from rldistill.networks import OutputLayer, PolicyNetwork, parse_architecture
from rldistill.networks.layers import Layer, MisfitError, NetworkLayers, fill_network


def layer(*shape, **more):
    return Layer(torch.randn(shape, generator=torch.Generator().manual_seed(shape[0])), torch.ones(shape[0]), **more)


IMAGES = (layer(4, 3, 8, 8, stride=4), layer(5, 4, 4, 4, stride=2), layer(6, 5, 3, 3), layer(7, 6 * 7 * 7))


@pytest.mark.parametrize(
    ("layers", "name"),
    [
        (NetworkLayers((layer(8, 4), layer(5, 8)), layer(2, 5), "logits"), "mlp:8x5"),
        (NetworkLayers((layer(8, 4),), layer(2, 6), "logits", head=(layer(6, 8),)), "mlp:8:6"),
        (NetworkLayers(IMAGES, layer(2, 7), "q_values"), "conv:4-5-6:7"),
        (NetworkLayers(IMAGES, layer(2, 9), "q_values", head=(layer(9, 7),)), "conv:4-5-6:7:9"),
        (NetworkLayers((), layer(2, 9), "q_values", images=(IMAGES,), head=(layer(9, 8),)), "combined:4-5-6:7:9"),
    ],
)
def test_its_architecture_is_that_of_its_name(layers, name):
    assert layers.architecture == parse_architecture(name)


def test_a_network_without_hidden_layers_is_linear():
    assert NetworkLayers((), layer(2, 4), "logits").architecture.name == "linear"


def network_for(layers, num_inputs=4):
    with torch.device("meta"):
        return PolicyNetwork(layers.architecture, (num_inputs,), {"a": OutputLayer.choice(2, layers.kind)})


def test_a_network_is_filled_with_the_weights_and_computes_what_they_say():
    first, value = layer(8, 4, norm=(torch.full((8,), 2.0), torch.zeros(8))), layer(1, 8)
    layers = NetworkLayers((first,), layer(2, 8), "logits", activation="tanh", value=value)
    network = network_for(layers)
    fill_network(network, layers)
    rows = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    hidden = rows @ first.weight.T + first.bias
    features = (2 * torch.nn.functional.layer_norm(hidden, (8,))).tanh()
    output = network(rows)
    torch.testing.assert_close(output.outputs, features @ layers.output.weight.T + layers.output.bias)
    torch.testing.assert_close(output.value, (features @ value.weight.T + value.bias).squeeze(1))
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert network.state_dict()["torso.1.weight"].data_ptr() != first.weight.data_ptr()


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (NetworkLayers((layer(8, 5),), layer(2, 8), "logits"), "torso.1.weight [8, 5] instead of [8, 4]"),
        (
            NetworkLayers((layer(8, 4),), Layer(torch.ones(2, 8, dtype=torch.int64), torch.ones(2)), "logits"),
            "heads.0.output.weight [2, 8] of whole numbers instead of [2, 8]",
        ),
    ],
)
def test_layers_of_other_sizes_are_listed(wrong, line):
    with pytest.raises(MisfitError) as caught:
        fill_network(network_for(wrong), wrong)
    assert str(caught.value) == line
