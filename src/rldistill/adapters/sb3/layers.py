"""From the layers of an actor to an architecture of ours and the weights in it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rldistill.adapters.sb3.actor import Actor, Layer
from rldistill.adapters.sb3.data import Sb3Data, is_true, printed_class
from rldistill.adapters.sb3.outputs import Output
from rldistill.networks import Architecture, InputNormalization, PolicyNetwork
from rldistill.networks.architecture import Activation
from rldistill.policies.spec import PolicySpec

_ACTIVATIONS: Mapping[str, Activation] = {
    "ReLU": "relu",
    "Tanh": "tanh",
    "ELU": "elu",
    "LeakyReLU": "leaky_relu",
    "Sigmoid": "sigmoid",
    "SiLU": "silu",
    "GELU": "gelu",
    "SELU": "selu",
    "Softplus": "softplus",
    "Identity": "identity",
}
# The convolutions of NatureCNN; strides leave no trace in the weights.
_KERNELS = (8, 4, 3)
_STRIDES = (4, 2, 1)
_EXTRACTORS = frozenset({"FlattenExtractor", "NatureCNN", "CombinedExtractor"})


@dataclass(frozen=True)
class Torso:
    """The layers below the head.

    Attributes:
        architecture: all sizes and activations.
        convolutions: weights `[out, in, k, k]` and biases, in order.
        layers: fully connected layers of torso and head, in order, without the output.
        input_scale: factor on the observations.
    """

    architecture: Architecture
    convolutions: tuple[tuple[Tensor, Tensor], ...]
    layers: tuple[Layer, ...]
    input_scale: float


def make_torso(actor: Actor, data: Sb3Data) -> Torso:
    """Return the layers below the head.

    Raises:
        ValueError: an activation or a features extractor that is not known, or layers that do not fit
            the observations.
    """
    _check_extractor(data)
    activation = _activation(actor, data)
    if actor.extractor:
        return _nature_cnn(actor, data, activation)
    sizes = tuple(len(layer.weight) for layer in actor.hidden)
    name = "mlp:" + "x".join(map(str, sizes)) if sizes else "linear"
    architecture = Architecture(name, "mlp", sizes, activation=activation, value_head=actor.value is not None)
    return Torso(architecture, (), actor.hidden, _input_scale(data))


def _check_extractor(data: Sb3Data) -> None:
    given = data.policy_kwargs.get("features_extractor_class")
    name = printed_class(given)
    module, _, short = (name or "").rpartition(".")
    if given is not None and not (module == "stable_baselines3.common.torch_layers" and short in _EXTRACTORS):
        raise ValueError(f"a features extractor of its maker's own, {name or given}")


def _activation(actor: Actor, data: Sb3Data) -> Activation:
    given = data.policy_kwargs.get("activation_fn")
    if given is None:
        return "tanh" if actor.family == "actor_critic" else "relu"
    name = printed_class(given)
    module, _, short = (name or "").rpartition(".")
    if module.startswith("torch.nn.") and short in _ACTIVATIONS:
        return _ACTIVATIONS[short]
    if not actor.hidden:
        return "relu"  # after no layer
    raise ValueError(f"the activation {str(name or given)[:80]}, expected one of {', '.join(_ACTIVATIONS)}")


def _input_scale(data: Sb3Data) -> float:
    # Bytes that are no image are not scaled, and images only where the teacher was not told to leave them alone.
    scales = data.observation_space.is_image and is_true(data.policy_kwargs.get("normalize_images"), default=True)
    return 1 / 255 if scales else 1.0


def _nature_cnn(actor: Actor, data: Sb3Data, activation: Activation) -> Torso:
    """Return the torso of NatureCNN: its layers have ReLUs whatever the MLP above them has."""
    expected = {f"cnn.{index}.{part}" for index in (0, 2, 4) for part in ("weight", "bias")}
    expected |= {"linear.0.weight", "linear.0.bias"}
    unknown = sorted(actor.extractor.keys() ^ expected)
    if unknown:
        raise ValueError(f"a features extractor that is not NatureCNN: {', '.join(unknown[:6])}")
    tensors = actor.extractor
    convolutions = tuple((tensors[f"cnn.{index}.weight"], tensors[f"cnn.{index}.bias"]) for index in (0, 2, 4))
    kernels = tuple(weight.shape[-1] for weight, _ in convolutions if weight.dim() == 4)
    if kernels != _KERNELS or any(weight.shape[2] != weight.shape[3] for weight, _ in convolutions):
        raise ValueError(f"convolutions of kernels {kernels}, expected NatureCNN with {_KERNELS}")
    if len(data.observation_space.shape) != 3:
        raise ValueError(f"convolutions for observations of {data.observation_space.description}")
    features = Layer(tensors["linear.0.weight"], tensors["linear.0.bias"])
    channels = tuple(len(weight) for weight, _ in convolutions)
    head_sizes = tuple(len(layer.weight) for layer in actor.hidden)
    architecture = Architecture(
        _conv_name(channels, len(features.weight), head_sizes),
        "conv",
        (len(features.weight),),
        channels,
        kernel_sizes=_KERNELS,
        strides=_STRIDES,
        head_hidden=head_sizes,
        activation="relu",
        head_activation=activation if head_sizes else None,
        value_head=actor.value is not None,
    )
    return Torso(architecture, convolutions, (features, *actor.hidden), _input_scale(data))


def _conv_name(channels: tuple[int, ...], num_features: int, head_sizes: tuple[int, ...]) -> str:
    if (channels, num_features, head_sizes) == ((32, 64, 64), 512, ()):
        return "dqn"
    head = ":" + "x".join(map(str, head_sizes)) if head_sizes else ""
    return f"conv:{'-'.join(map(str, channels))}:{num_features}{head}"


def build_network(
    torso: Torso,
    output: Output,
    actor: Actor,
    spec: PolicySpec,
    normalization: InputNormalization | None,
) -> PolicyNetwork:
    """Return the network that a description declares, with the actor's weights in it.

    Raises:
        ValueError: a layer of another size than the network around it.
        MismatchError: images smaller than the convolutions need.
    """
    # On the meta device a network of any declared size costs nothing until its shapes are checked.
    with torch.device("meta"):
        network = PolicyNetwork(
            torso.architecture,
            spec.observation_shape,
            spec.output_layers,
            input_scale=spec.input_scale,
            normalization=normalization,
        )
    state = _state(network, torso, output, actor)
    if normalization is not None:
        state["scale.mean"] = torch.tensor(normalization.mean, dtype=torch.float64)
        state["scale.variance"] = torch.tensor(normalization.variance, dtype=torch.float64)
    expected = network.state_dict()
    assert expected.keys() == state.keys(), "every layer of the network has one in the file"
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(f"{name} of {list(tensor.shape)} where {list(expected[name].shape)} is expected")
    network.load_state_dict({name: tensor.clone() for name, tensor in state.items()}, assign=True)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    network.use_channels_last()
    return network


def _state(network: PolicyNetwork, torso: Torso, output: Output, actor: Actor) -> dict[str, Tensor]:
    """Return the file's tensors under our names: layers go by their order."""
    below_output = [
        (name, module)
        for name, module in network.named_modules()
        if name.startswith(("torso.", "heads.0.hidden.")) and isinstance(module, nn.Conv2d | nn.Linear)
    ]
    given = [*torso.convolutions, *((layer.weight, layer.bias) for layer in torso.layers)]
    layers = {name: pair for (name, _), pair in zip(below_output, given, strict=True)}
    layers["heads.0.output"] = (output.layer.weight, output.layer.bias)
    if actor.value is not None:
        layers["heads.0.value"] = (actor.value.weight, actor.value.bias)
    if isinstance(output.log_std, Layer):
        layers["heads.0.rows.log_std_layer"] = (output.log_std.weight, output.log_std.bias)
    state = {
        f"{name}.{part}": tensor
        for name, pair in layers.items()
        for part, tensor in zip(("weight", "bias"), pair, strict=True)
    }
    if isinstance(output.log_std, Tensor):
        state["heads.0.rows.log_std"] = output.log_std
    return state
