"""The network itself: forward passes against torch's functions, initialisation, and observations that do not fit."""

import pytest
import torch
from torch.nn import functional

from rldistill.errors import MismatchError
from rldistill.networks import Architecture, OutputLayer, PolicyNetwork, parse_architecture
from rldistill.networks.torsos import image_shape, to_images


def make_network(text, shape, heads=None, *, seed=0, layer_norm=False, **options):
    architecture = text if isinstance(text, Architecture) else parse_architecture(text, layer_norm=layer_norm)
    generator = torch.Generator().manual_seed(seed)
    return PolicyNetwork(architecture, shape, choices(heads or {"task": 6}), generator=generator, **options)


def choices(heads):
    return {name: OutputLayer.choice(size) for name, size in heads.items()}


def frames(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_a_conv_network_computes_what_torchs_functions_compute():
    network = make_network("dqn", (4, 84, 84), input_scale=1 / 255, zero_output=False)
    observations = frames(3, 4, 84, 84)
    weights = network.state_dict()
    x = observations.float() / 255
    for layer, stride in ((0, 4), (2, 2), (4, 1)):
        weight, bias = weights[f"torso.{layer}.weight"], weights[f"torso.{layer}.bias"]
        x = functional.relu(functional.conv2d(x, weight, bias, stride))
    x = functional.relu(functional.linear(x.flatten(1), weights["torso.7.weight"], weights["torso.7.bias"]))
    output = network(observations)
    torch.testing.assert_close(output.features, x)
    expected = functional.linear(x, weights["heads.0.output.weight"], weights["heads.0.output.bias"])
    torch.testing.assert_close(output.outputs, expected)
    assert output.value is None


def test_layer_norm_spans_channels_and_space_and_comes_before_the_activation():
    network = make_network("conv:4-4:8", (3, 36, 36), layer_norm=True, zero_output=False)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(generator=generator)
    weights = network.state_dict()
    observations = torch.randn(2, 3, 36, 36, generator=generator)
    x = observations
    for layer, stride in ((0, 4), (3, 2)):
        x = functional.conv2d(x, weights[f"torso.{layer}.weight"], weights[f"torso.{layer}.bias"], stride)
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        variance = x.var(dim=(1, 2, 3), keepdim=True, correction=0)
        norm = (x - mean) / (variance + 1e-5).sqrt()
        scale, shift = (weights[f"torso.{layer + 1}.{part}"][None, :, None, None] for part in ("weight", "bias"))
        x = functional.relu(norm * scale + shift)
    x = functional.linear(x.flatten(1), weights["torso.7.weight"], weights["torso.7.bias"])
    x = functional.relu(functional.layer_norm(x, (8,), weights["torso.8.weight"], weights["torso.8.bias"]))
    torch.testing.assert_close(network(observations).features, x, atol=1e-4, rtol=1e-4)


def test_a_tanh_mlp_with_hidden_heads_and_value_computes_what_torchs_functions_compute():
    architecture = Architecture("x", "mlp", (8,), head_hidden=(4,), activation="tanh", value_head=True)
    network = make_network(architecture, (2, 3), {"a": 2, "b": 5}, zero_output=False)
    observations = torch.randn(7, 2, 3, generator=torch.Generator().manual_seed(0))
    weights = network.state_dict()

    def linear(x, name):
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    shared = torch.tanh(linear(observations.flatten(1), "torso.1"))
    for head, num_outputs in enumerate((2, 5)):
        hidden = torch.tanh(linear(shared, f"heads.{head}.hidden.0"))
        output = network(observations, head)
        assert output.outputs.shape == (7, num_outputs)
        torch.testing.assert_close(output.outputs, linear(hidden, f"heads.{head}.output"))
        torch.testing.assert_close(output.value, linear(hidden, f"heads.{head}.value").squeeze(1))
        torch.testing.assert_close(output.features, hidden)


def test_a_network_without_hidden_layers_is_linear():
    network = make_network(Architecture("linear", "mlp", ()), (3,), {"a": 2}, zero_output=False)
    observations = torch.eye(3)
    head = network.heads[0].output
    torch.testing.assert_close(network(observations).outputs, head.weight.T + head.bias)


def test_bytes_and_their_floats_give_the_same_and_stay_untouched():
    network = make_network("net3", (4, 84, 84), input_scale=1 / 255, zero_output=False)
    observations = frames(2, 4, 84, 84)
    kept, floats = observations.clone(), observations.float()
    torch.testing.assert_close(network(observations).outputs, network(floats).outputs, rtol=0, atol=0)
    assert torch.equal(observations, kept)
    assert torch.equal(floats, kept.float())


def test_a_zero_output_layer_is_the_uniform_policy():
    outputs = make_network("net3", (4, 84, 84), input_scale=1 / 255)(frames(5, 4, 84, 84)).outputs
    assert torch.equal(outputs, torch.zeros(5, 6))
    assert torch.equal(outputs.softmax(dim=1), torch.full((5, 6), 1 / 6))


def test_a_learners_output_layer_is_not_zero():
    outputs = make_network("net3", (4, 84, 84), input_scale=1 / 255, zero_output=False)(frames(5, 4, 84, 84)).outputs
    assert outputs.std(dim=1).min() > 0.01


def test_gradients_pass_a_zero_output_layer_in_the_first_update():
    network = make_network("mlp:8", (4,), {"a": 3})
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    observations = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        optimizer.zero_grad()
        functional.cross_entropy(network(observations).outputs, torch.arange(16) % 3).backward()
        optimizer.step()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.parametrize("zero_output", [True, False])
def test_equal_seeds_give_equal_weights_and_others_do_not(zero_output):
    first, same, other = (make_network("net3", (4, 84, 84), seed=seed, zero_output=zero_output) for seed in (0, 0, 1))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name]), name
    assert not torch.equal(first.torso[0].weight, other.torso[0].weight)
    assert torch.equal(first.heads[0].output.weight, other.heads[0].output.weight) == zero_output


def test_weights_are_kaiming_normal_and_biases_zero():
    network = make_network("dqn", (4, 84, 84))
    for layer, fan_in in ((0, 4 * 64), (2, 32 * 16), (4, 64 * 9), (7, 3136)):
        weight = network.torso[layer].weight
        assert weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)
        assert not network.torso[layer].bias.any()


def test_conv_weights_are_laid_out_channels_last():
    network = make_network("net3", (4, 84, 84))
    assert network.torso[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(4,), (84, 84), (2, 4, 84, 84, 3), ()])
def test_convolutions_on_anything_but_images_are_refused(shape):
    with pytest.raises(MismatchError) as caught:
        make_network("net3", shape)
    assert str(caught.value) == (
        f"Network 'net3' takes images [C, H, W], got observations of shape {list(shape)}. "
        "Choose mlp:64x64 or another mlp."
    )


@pytest.mark.parametrize(
    ("shape", "image"),
    [
        ((4, 84, 84), (4, 84, 84)),
        ((3, 64, 48), (3, 64, 48)),
        ((4, 84, 60, 3), (12, 84, 60)),  # four colour frames
        ((210, 160, 3), (3, 210, 160)),  # one colour image, as Gymnasium has it
        ((84, 84, 1), (1, 84, 84)),
        ((84, 96, 12), (12, 84, 96)),  # four colour images side by side
        ((64, 64, 2), (2, 64, 64)),
        ((32, 40, 16), (32, 40, 16)),
        ((4, 36, 3), (4, 36, 3)),  # too low for an image with its channels last
        ((84, 84), None),
        ((4,), None),
    ],
)
def test_observations_of_rank_3_and_4_are_images(shape, image):
    assert image_shape(shape) == image


def test_colour_frames_become_channels_frame_by_frame():
    observations = torch.arange(2 * 2 * 5 * 6 * 3).reshape(2, 2, 5, 6, 3)
    images = to_images(observations)
    assert images.shape == (2, 6, 5, 6)
    for frame in range(2):
        for colour in range(3):
            assert torch.equal(images[:, 3 * frame + colour], observations[:, frame, :, :, colour])


def test_images_with_their_channels_last_are_turned_and_others_left():
    last = torch.arange(2 * 5 * 6 * 3).reshape(2, 5, 6, 3)
    assert torch.equal(to_images(last), last.permute(0, 3, 1, 2))
    first = torch.zeros(2, 4, 84, 84)
    assert to_images(first) is first


@pytest.mark.parametrize("shape", [(4, 84, 84, 3), (84, 84, 3)])
def test_a_conv_network_takes_colour(shape):
    network = make_network("net3", shape, input_scale=1 / 255, zero_output=False)
    observations = frames(2, *shape)
    turned = PolicyNetwork(network.architecture, image_shape(shape), choices({"task": 6}), input_scale=1 / 255)
    turned.load_state_dict(network.state_dict())
    torch.testing.assert_close(network(observations).outputs, turned(to_images(observations)).outputs)


@pytest.mark.parametrize(("height", "width", "left"), [(35, 84, "2x9"), (7, 7, "7x7"), (84, 20, "9x1")])
def test_images_that_the_kernels_use_up_are_refused(height, width, left):
    with pytest.raises(MismatchError) as caught:
        make_network("net3", (4, height, width))
    assert str(caught.value).startswith(
        f"Network 'net3' does not fit: got images of {height}x{width}, of which {left} is left before a kernel of "
    )


@pytest.mark.parametrize(("height", "width"), [(36, 36), (36, 100)])
def test_the_smallest_image_that_fits_is_taken(height, width):
    network = make_network("net3", (4, height, width))
    assert network(torch.zeros(1, 4, height, width)).outputs.shape == (1, 6)


def test_heads_stay_in_float32_under_bfloat16():
    network = make_network("net3", (4, 84, 84), input_scale=1 / 255, zero_output=False)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(frames(3, 4, 84, 84))
    assert output.outputs.dtype == output.features.dtype == torch.float32
    exact = network(frames(3, 4, 84, 84)).outputs
    assert not torch.equal(output.outputs, exact)  # the torso did round
    torch.testing.assert_close(output.outputs, exact, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("text", ["conv:4-4:8", "mlp:8x6"])
def test_layers_compute_the_same_in_every_mode_and_their_hooks_are_not_called(text):
    network = make_network(text, (3, 36, 36), layer_norm=True, zero_output=False)
    observations, called = frames(16, 3, 36, 36), []
    with torch.no_grad():
        expected = network(observations)
    for layer in network.torso:
        layer.register_forward_hook(lambda *_: called.append(1))
    with torch.inference_mode():
        played = network(observations)
    trained = network(observations)
    assert not called
    # Rows that are trained on are not evened out in memory: on some processors sums differ in their last bits.
    torch.testing.assert_close(trained.outputs, expected.outputs, atol=1e-6, rtol=1e-5)
    assert torch.equal(played.outputs, expected.outputs)
    assert torch.equal(played.features, expected.features)
