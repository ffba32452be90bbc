"""From the layers of an actor to an architecture of ours and the weights in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from rldistill.adapters.sb3.actor import Actor, Layer, image_extractors
from rldistill.adapters.sb3.data import Sb3Data, is_true, printed_class
from rldistill.adapters.sb3.outputs import Output
from rldistill.networks import Architecture, InputNormalization, PolicyNetwork
from rldistill.networks.architecture import Activation
from rldistill.networks.torsos import ACTIVATIONS
from rldistill.policies.spec import PolicySpec

# By the name of PyTorch's class: a zip can only name classes that need no settings, hence their defaults.
_ACTIVATIONS: Mapping[str, Activation] = {module.__name__: name for name, module in ACTIVATIONS.items()}
# The convolutions of NatureCNN; strides leave no trace in the weights.
_KERNELS = (8, 4, 3)
_STRIDES = (4, 2, 1)
_Convolutions = tuple[tuple[Tensor, Tensor], ...]
_EXTRACTORS = frozenset({"FlattenExtractor", "NatureCNN", "CombinedExtractor"})


@dataclass(frozen=True)
class Torso:
    """The layers below the head.

    Attributes:
        architecture: all sizes and activations.
        layers: weights and biases of convolutions and fully connected layers of torso and head, in
            order, without the output.
        input_scale: factor on the observations; of several parts on the images alone.
    """

    architecture: Architecture
    layers: tuple[tuple[Tensor, Tensor], ...]
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
        return (_combined if data.observation_space.kind == "dict" else _nature_cnn)(actor, data, activation)
    sizes = tuple(len(layer.weight) for layer in actor.hidden)
    name = "mlp:" + "x".join(map(str, sizes)) if sizes else "linear"
    architecture = Architecture(name, "mlp", sizes, activation=activation, value_head=actor.value is not None)
    layers = tuple((layer.weight, layer.bias) for layer in actor.hidden)
    return Torso(architecture, layers, _input_scale(data))


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
    known = ", ".join(_ACTIVATIONS)
    raise ValueError(f"the activation {str(name or given)[:80]}, expected one of {known}, without settings of its own")


def _input_scale(data: Sb3Data) -> float:
    # Bytes that are no image are not scaled, and images only where the teacher was not told to leave them alone.
    scales = data.observation_space.is_image and is_true(data.policy_kwargs.get("normalize_images"), default=True)
    return 1 / 255 if scales else 1.0


def _nature_cnn(actor: Actor, data: Sb3Data, activation: Activation) -> Torso:
    """Return the torso of NatureCNN: its layers have ReLUs whatever the MLP above them has."""
    space = data.observation_space
    if len(space.shape) != 3:
        raise ValueError(f"convolutions for observations of {space.description}")
    convolutions, features = _convolutions(actor.extractor)
    return _with_images(actor, "conv", [convolutions], [features], activation, _input_scale(data))


def _combined(actor: Actor, data: Sb3Data, activation: Activation) -> Torso:
    """Return the torso of CombinedExtractor: a NatureCNN for each image, in the order of their sorted keys."""
    parts, images = data.observation_space.parts, image_extractors(actor)
    scales = is_true(data.policy_kwargs.get("normalize_images"), default=True)
    # Where nothing is to be scaled, the library takes numbers of any type and range for an image.
    float_images = not scales and any(key in parts and parts[key].dtype != "uint8" for key in images)
    expected = {key for key, part in parts.items() if len(part.shape) == 3 and (float_images or part.dtype == "uint8")}
    if images.keys() != expected or not images:
        which = ", ".join(map(repr, sorted(images))) or "no part"
        raise ValueError(f"convolutions for {which} of observations {data.observation_space.description}")
    extractors = [_convolutions(images[key]) for key in sorted(images)]
    convolutions, features = [each[0] for each in extractors], [each[1] for each in extractors]
    torso = _with_images(actor, "combined", convolutions, features, activation, 1 / 255 if scales else 1.0)
    return replace(torso, architecture=replace(torso.architecture, float_images=float_images))


def _convolutions(tensors: Mapping[str, Tensor]) -> tuple[_Convolutions, Layer]:
    """Return the convolutions of a NatureCNN and the layer above them."""
    expected = {f"cnn.{index}.{part}" for index in (0, 2, 4) for part in ("weight", "bias")}
    expected |= {"linear.0.weight", "linear.0.bias"}
    unknown = sorted(tensors.keys() ^ expected)
    if unknown:
        raise ValueError(f"a features extractor that is not NatureCNN: {', '.join(unknown[:6])}")
    convolutions = tuple((tensors[f"cnn.{index}.weight"], tensors[f"cnn.{index}.bias"]) for index in (0, 2, 4))
    kernels = tuple(weight.shape[-1] for weight, _ in convolutions if weight.dim() == 4)
    if kernels != _KERNELS or any(weight.shape[2] != weight.shape[3] for weight, _ in convolutions):
        raise ValueError(f"convolutions of kernels {kernels}, expected NatureCNN with {_KERNELS}")
    return convolutions, Layer(tensors["linear.0.weight"], tensors["linear.0.bias"])


def _with_images(
    actor: Actor,
    kind: Literal["conv", "combined"],
    convolutions: Sequence[_Convolutions],
    features: Sequence[Layer],
    activation: Activation,
    input_scale: float,
) -> Torso:
    channels = tuple(len(weight) for weight, _ in convolutions[0])
    num_features = len(features[0].weight)
    head_sizes = tuple(len(layer.weight) for layer in actor.hidden)
    architecture = Architecture(
        _conv_name(kind, channels, num_features, head_sizes),
        kind,
        (num_features,),
        channels,
        kernel_sizes=_KERNELS,
        strides=_STRIDES,
        head_hidden=head_sizes,
        activation="relu",
        head_activation=activation if head_sizes else None,
        value_head=actor.value is not None,
    )
    layers = [
        pair
        for image, layer in zip(convolutions, features, strict=True)
        for pair in (*image, (layer.weight, layer.bias))
    ]
    above = [(layer.weight, layer.bias) for layer in actor.hidden]
    return Torso(architecture, (*layers, *above), input_scale)


def _conv_name(kind: str, channels: tuple[int, ...], num_features: int, head_sizes: tuple[int, ...]) -> str:
    if (kind, channels, num_features, head_sizes) == ("conv", (32, 64, 64), 512, ()):
        return "dqn"
    head = ":" + "x".join(map(str, head_sizes)) if head_sizes else ""
    return f"{kind}:{'-'.join(map(str, channels))}:{num_features}{head}"


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
            parts=spec.observation_parts,
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
        if not tensor.is_floating_point():
            raise ValueError(f"{name} of whole numbers, which are no weights")
        if tensor.shape != expected[name].shape:
            raise ValueError(f"{name} of {list(tensor.shape)} where {list(expected[name].shape)} is expected")
    own = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    network.load_state_dict(own, assign=True)
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
    if len(below_output) != len(torso.layers):
        raise ValueError(f"{len(torso.layers)} layers below its output, where its images need {len(below_output)}")
    layers = {name: pair for (name, _), pair in zip(below_output, torso.layers, strict=True)}
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
