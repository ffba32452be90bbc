"""From the names and shapes in `policy.pth` to the layers of the part that acts, and what the last of them means.

Layers of an MLP are `<prefix>.<i>.weight` and `.bias` with even i; the numbers between are activations, which leave no
trace in the names: their class stands in `policy_kwargs`, else it is the algorithm's default. Critics, target networks
and values are left alone. What remains must be known: a name that nothing here explains means another network than the
one that would be built.

Sources: Stable-Baselines3 and sb3-contrib 2.9 (`common/distributions.py`, `sac/policies.py`, `qrdqn/policies.py`,
`ars/policies.py`); their older releases differ in names alone.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import isfinite, prod
from typing import Literal

import torch
from torch import Tensor

from rldistill.adapters.contents import KERNELS, STRIDES, take_cells
from rldistill.adapters.sb3.data import Sb3Data, Space, is_true, printed_class
from rldistill.errors import listed
from rldistill.networks import GaussianOptions
from rldistill.networks.architecture import Activation
from rldistill.networks.layers import Layer, NetworkLayers
from rldistill.networks.torsos import ACTIVATIONS
from rldistill.types import ActionLayout, BoxMapping, OutputKind

# Which networks the algorithms have; ARS searches without a gradient.
_Family = Literal["q_network", "quantile_network", "actor_critic", "stochastic_actor", "deterministic_actor", "search"]

# What SAC and TQC clip the mean to where their noise is gSDE, unless they were told otherwise.
_DEFAULT_MEAN_LIMIT = 2.0


def _read_output(
    family: _Family, layer: Layer, log_std: Layer | Tensor | None, data: Sb3Data, *, is_linear: bool
) -> tuple[NetworkLayers, ActionLayout]:
    """Return a network of a last layer alone, and the layout of its actions. Raises ValueError: the two do not fit."""
    if family in ("stochastic_actor", "deterministic_actor") or data.action_space.kind == "box":
        return _box_output(family, layer, log_std, data, is_linear=is_linear)
    layout = _choice_layout(data)
    if family == "quantile_network":
        layer = _mean_over_quantiles(layer, layout)
    kind: OutputKind = "q_values" if family in ("q_network", "quantile_network") else "logits"
    _check_size(layer, layout.num_outputs(kind), data)
    return NetworkLayers((), layer, kind), layout


def _choice_layout(data: Sb3Data) -> ActionLayout:
    space = data.action_space
    if space.kind == "discrete":
        return ActionLayout("discrete", space.sizes, start=(space.start,))
    if space.kind == "multi_discrete":
        return ActionLayout("multi_discrete", space.sizes)
    if space.kind == "multi_binary":
        return ActionLayout("multi_binary", (prod(space.shape),))
    raise ValueError(f"actions of {space.description}, which no algorithm has")


def _mean_over_quantiles(layer: Layer, layout: ActionLayout) -> Layer:
    """Average the quantiles of each action: outputs come quantile by quantile, all actions of one side by side."""
    (num_actions,) = layout.sizes
    num_outputs, num_features = layer.weight.shape
    if num_outputs % num_actions:
        raise ValueError(f"{num_outputs} quantiles of {num_actions} actions, which is no whole number for each")
    # The mean of linear functions is a linear function; in float64, to round once only.
    weight = layer.weight.double().view(-1, num_actions, num_features).mean(0)
    return Layer(weight.float(), layer.bias.double().view(-1, num_actions).mean(0).float())


def _box_output(
    family: _Family, layer: Layer, log_std: Layer | Tensor | None, data: Sb3Data, *, is_linear: bool
) -> tuple[NetworkLayers, ActionLayout]:
    if data.action_space.kind != "box":
        raise ValueError(f"an actor of a box, and actions of {data.action_space.description}")
    # First of all: bounds are written out for as many dimensions as the file declares.
    _check_size(layer, prod(data.action_space.shape), data)
    if family in ("deterministic_actor", "search"):
        squashes = family == "deterministic_actor" or _search_squashes(data, is_linear=is_linear)
        return NetworkLayers((), layer, "actions"), _box_layout(data, "tanh_rescale" if squashes else "clip")
    if log_std is None:
        raise ValueError("actions of a box without a log_std")
    is_gsde = isinstance(log_std, Tensor) and log_std.dim() == 2
    kwargs, is_off_policy = data.policy_kwargs, family == "stochastic_actor"
    squashes = is_off_policy or (is_gsde and is_true(kwargs.get("squash_output")))
    layout = _box_layout(data, "tanh_rescale" if squashes else "clip")
    if isinstance(log_std, Layer) or not is_gsde:
        gaussian = GaussianOptions("state" if isinstance(log_std, Layer) else "parameter")
        return NetworkLayers((), layer, "gaussian", log_std=log_std, gaussian=gaussian), layout
    if is_true(kwargs.get("use_expln")):
        log_std = _log_of_expln(log_std)
    limit = float(kwargs.get("clip_mean", _DEFAULT_MEAN_LIMIT)) if is_off_policy else 0.0
    gaussian = GaussianOptions("gsde", limit if limit > 0 else None)
    log_std = log_std.expand(-1, len(layer.weight)).contiguous()  # one column stands for all actions
    return NetworkLayers((), layer, "gaussian", log_std=log_std, gaussian=gaussian), layout


def _box_layout(data: Sb3Data, mapping: BoxMapping) -> ActionLayout:
    space = data.action_space
    low, high = space.bounds()
    if mapping == "tanh_rescale" and not all(isfinite(bound) for bound in (*low, *high)):
        raise ValueError("squashed actions of a box without bounds")
    return ActionLayout("box", (prod(space.shape),), low, high, mapping)


def _search_squashes(data: Sb3Data, *, is_linear: bool) -> bool:
    """Return whether ARS squashes: unless told otherwise its MLPs do, and its linear policies do not."""
    is_linear = data.policy_class == "ARSLinearPolicy" or (not data.policy_class and is_linear)
    return is_true(data.policy_kwargs.get("squash_output"), default=not is_linear)


def _log_of_expln(log_std: Tensor) -> Tensor:
    """Return the logarithm of `expln`, which grows as exp below 0 and as a logarithm above it."""
    values = log_std.double()
    # The library adds this where the argument is positive, to keep its gradient finite.
    above = torch.log(torch.log1p(values.clamp(min=0) + 1e-6) + 1)
    return torch.where(values > 0, above, values).float()


def _check_size(layer: Layer, expected: int, data: Sb3Data) -> None:
    if len(layer.weight) != expected:
        raise ValueError(f"{len(layer.weight)} outputs for actions of {data.action_space.description}")


# The prefixes of the layers of each family, in the order in which an observation passes them; the last is the output.
_LAYERS: Mapping[_Family, tuple[str, ...]] = {
    "q_network": ("q_net.q_net",),
    "quantile_network": ("quantile_net.quantile_net",),
    "actor_critic": ("mlp_extractor.shared_net", "mlp_extractor.policy_net", "action_net"),
    "stochastic_actor": ("actor.latent_pi", "actor.mu"),
    "deterministic_actor": ("actor.mu",),
    "search": ("action_net",),
}
_EXTRACTORS: Mapping[_Family, tuple[str, ...]] = {
    "q_network": ("q_net.features_extractor",),
    "quantile_network": ("quantile_net.features_extractor",),
    # The actor's own comes first; both stand there, with equal tensors, where the critic shares it.
    "actor_critic": ("pi_features_extractor", "features_extractor"),
    "stochastic_actor": ("actor.features_extractor",),
    "deterministic_actor": ("actor.features_extractor",),
    "search": ("features_extractor",),
}
_NOT_ACTING = re.compile(
    r"(q_net_target|quantile_net_target|actor_target|critic|critic_target|lstm_critic|value_net|vf_features_extractor"
    r"|mlp_extractor\.value_net)\."
)
# By the name of PyTorch's class: a zip can only name classes that need no settings, hence their defaults.
_ACTIVATIONS: Mapping[str, Activation] = {module.__name__: name for name, module in ACTIVATIONS.items()}
_RENORM_EPSILON = 0.001
_KNOWN_EXTRACTORS = frozenset({"FlattenExtractor", "NatureCNN", "CombinedExtractor"})


def read_layers(tensors: Mapping[str, Tensor], data: Sb3Data) -> tuple[NetworkLayers, ActionLayout]:
    """Return the layers that act, and the layout of their actions.

    Raises:
        ValueError: a kind of network that is not known; lists names that nothing explains.
    """
    family = _family(tensors)
    rest = {name: tensor for name, tensor in tensors.items() if not _NOT_ACTING.match(name)}
    renorm = _take_renorm(rest, data)
    memory = take_cells(rest, "lstm_actor.")
    dense = [layer for prefix in _LAYERS[family] for layer in _take_layers(rest, prefix)]
    if not dense:
        raise ValueError(f"no layer that acts among {listed(sorted(tensors), 6)}")
    extractor = _take_extractor(rest, _EXTRACTORS[family])
    log_std = _take_log_std(rest, family)
    _check_explained(rest)
    if renorm:
        dense, log_std = _folded(dense, log_std, renorm)
    _check_chain(dense, log_std)
    _check_extractor_class(data)
    *hidden, last = dense
    layers, layout = _read_output(family, last, log_std, data, is_linear=not hidden)
    space = data.observation_space
    scales = is_true(data.policy_kwargs.get("normalize_images"), default=True)
    layers = replace(
        layers,
        torso=() if memory else tuple(hidden),
        memory=memory,
        head=tuple(hidden) if memory else (),
        activation=_activation(family, data, is_used=bool(hidden)),
        # Bytes that are no image are not scaled, and images only where the teacher was not told to leave them alone.
        input_scale=1 / 255 if scales and space.is_image else 1.0,
        value=_value_on_same_features(tensors) if family == "actor_critic" else None,
    )
    return (_above_extractor(layers, extractor, space, scales=scales) if extractor else layers), layout


def _above_extractor(
    layers: NetworkLayers, extractor: Mapping[str, Tensor], space: Space, *, scales: bool
) -> NetworkLayers:
    """Return layers as the head above a features extractor, which has ReLUs whatever the head has."""
    head, activation = (*layers.torso, *layers.head), layers.activation
    above = replace(layers, torso=(), head=head, activation="relu", head_activation=activation if head else None)
    if space.kind == "dict":
        images, float_images = _images(extractor, space, scales=scales)
        return replace(above, images=images, float_images=float_images, input_scale=1 / 255 if scales else 1.0)
    if len(space.shape) != 3:
        raise ValueError(f"convolutions for observations of {space.description}")
    torso = _convolutions(extractor)
    is_dqn = not head and [len(layer.weight) for layer in torso] == [32, 64, 64, 512]
    return replace(above, torso=torso, name="dqn" if is_dqn else "")


def _family(tensors: Mapping[str, Tensor]) -> _Family:
    names = tensors.keys()
    if any(name.endswith(".running_mean") for name in names):
        raise ValueError("batch normalisation (CrossQ), which is not supported")
    if any(name.startswith("q_net.") for name in names):
        return "q_network"
    if any(name.startswith("quantile_net.") for name in names):
        return "quantile_network"
    if any(name.startswith("actor.") for name in names):
        return "stochastic_actor" if any("actor.log_std" in name for name in names) else "deterministic_actor"
    if any(name.startswith("action_net") for name in names):
        return "actor_critic" if any(name.startswith("value_net.") for name in names) else "search"
    raise ValueError(f"a network that no algorithm of Stable-Baselines3 has: {listed(sorted(tensors), 6)}")


def _take_layers(rest: dict[str, Tensor], prefix: str) -> list[Layer]:
    """Remove and return the layers `<prefix>.0`, `<prefix>.2`, …, or the one layer `<prefix>`."""
    names = [prefix] if f"{prefix}.weight" in rest else [f"{prefix}.{2 * index}" for index in range(len(rest))]
    layers: list[Layer] = []
    for name in names:
        if (weight := rest.pop(f"{name}.weight", None)) is None:
            break
        bias = rest.pop(f"{name}.bias", torch.zeros(weight.shape[:1]))
        if weight.dim() != 2 or bias.shape != weight.shape[:1] or not weight.is_floating_point():
            raise ValueError(f"layer {name} of weight {list(weight.shape)} and bias {list(bias.shape)}")
        layers.append(Layer(weight, bias))
    return layers


def _take_renorm(rest: dict[str, Tensor], data: Sb3Data) -> list[tuple[Tensor, Tensor]]:
    """Remove CrossQ's batch renormalisations, and return the factor and the shift of each, from below; mostly none.

    One stands before each layer; the layers are renumbered as if there were none, as `_take_layers` reads them.
    """
    prefix, epsilon = "actor.latent_pi", float(data.policy_kwargs.get("batch_norm_eps", _RENORM_EPSILON))
    places = sorted(int(name.split(".")[2]) for name in rest if name.startswith(prefix) and name.endswith(".ra_mean"))
    found: list[tuple[Tensor, Tensor]] = []
    for index, place in enumerate(places):
        mean, variance, scale, bias = (
            rest.pop(f"{prefix}.{place}.{name}").double() for name in ("ra_mean", "ra_var", "scale", "bias")
        )
        rest.pop(f"{prefix}.{place}.steps", None)
        factor = scale / (variance + epsilon).sqrt()
        found.append((factor, bias - mean * factor))
        for part in ("weight", "bias"):
            if (tensor := rest.pop(f"{prefix}.{place + 1}.{part}", None)) is not None:
                rest[f"{prefix}.{2 * index}.{part}"] = tensor
    return found


def _folded(
    dense: Sequence[Layer], log_std: Layer | Tensor | None, renorm: Sequence[tuple[Tensor, Tensor]]
) -> tuple[list[Layer], Layer]:
    """Return layers that stand for a renormalisation and a layer each: W (f x + s) + b is (W f) x + (W s + b)."""
    if not isinstance(log_std, Layer):
        raise ValueError("noise that depends on the state (gSDE) above batch renormalisation, which is not read")

    def folded(layer: Layer, factor: Tensor, shift: Tensor) -> Layer:
        weight = layer.weight.double()
        return Layer((weight * factor).float(), (layer.bias.double() + weight @ shift).float())

    layers = [folded(layer, *each) for layer, each in zip(dense, renorm, strict=True)]
    return layers, folded(log_std, *renorm[-1])


def _check_explained(rest: Mapping[str, Tensor]) -> None:
    """Check that no tensor is left over."""
    if any(name.startswith("sde_features_extractor.") for name in rest):
        raise ValueError("features of their own for its noise (gSDE with sde_net_arch, until 1.8), which are not read")
    if rest and all(tensor.shape == (1,) for tensor in rest.values()):
        raise ValueError(f"activations that learn (PReLU), which are not supported: {listed(sorted(rest), 6)}")
    if rest:
        raise ValueError(
            f"layers that no network of Stable-Baselines3 has: {listed(sorted(rest), 6)}. A policy or features "
            "extractor of its maker's own cannot be rebuilt from its weights"
        )


def _check_chain(layers: Sequence[Layer], log_std: Layer | Tensor | None) -> None:
    for below, above in pairwise(layers):
        if above.weight.shape[1] != len(below.weight):
            raise ValueError(f"a layer of {len(below.weight)} outputs below one of {above.weight.shape[1]} inputs")
    num_actions, num_features = layers[-1].weight.shape
    if isinstance(log_std, Layer):
        fits = log_std.weight.shape == layers[-1].weight.shape
    else:
        shapes = ((num_actions,), (num_features, num_actions), (num_features, 1))
        fits = log_std is None or tuple(log_std.shape) in shapes
    if not fits:
        raise ValueError(f"{num_actions} means of {num_features} features, and a log_std that is not of that size")


def _take_extractor(rest: dict[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Remove the tensors of all the prefixes, and return those of the first that has any."""
    found = [
        {name.removeprefix(f"{prefix}."): rest.pop(name) for name in list(rest) if name.startswith(f"{prefix}.")}
        for prefix in prefixes
    ]
    return next((tensors for tensors in found if tensors), {})


def _take_log_std(rest: dict[str, Tensor], family: _Family) -> Layer | Tensor | None:
    if family == "stochastic_actor":
        layers = _take_layers(rest, "actor.log_std")
        return layers[0] if layers else rest.pop("actor.log_std", None)
    return rest.pop("log_std", None) if family == "actor_critic" else None


def _value_on_same_features(tensors: Mapping[str, Tensor]) -> Layer | None:
    """Return the value's layer where nothing but it lies above the actor's features."""
    own = ("mlp_extractor.policy_net.", "mlp_extractor.value_net.", "lstm_critic.", "critic.")
    if any(name.startswith(own) for name in tensors):
        return None
    for name, tensor in tensors.items():
        other = tensors.get(name.replace("vf_", "pi_", 1)) if name.startswith("vf_features_extractor.") else tensor
        if other is None or not torch.equal(tensor, other):
            return None
    return next(iter(_take_layers(dict(tensors), "value_net")), None)


def _check_extractor_class(data: Sb3Data) -> None:
    given = data.policy_kwargs.get("features_extractor_class")
    name = printed_class(given)
    module, _, short = (name or "").rpartition(".")
    if given is not None and not (module == "stable_baselines3.common.torch_layers" and short in _KNOWN_EXTRACTORS):
        raise ValueError(f"a features extractor of its maker's own, {name or given}")


def _activation(family: _Family, data: Sb3Data, *, is_used: bool) -> Activation:
    given = data.policy_kwargs.get("activation_fn")
    if given is None:
        return "tanh" if family == "actor_critic" else "relu"
    name = printed_class(given)
    module, _, short = (name or "").rpartition(".")
    if module.startswith("torch.nn.") and short in _ACTIVATIONS:
        return _ACTIVATIONS[short]
    if not is_used:
        return "relu"  # after no layer
    known = ", ".join(_ACTIVATIONS)
    raise ValueError(f"the activation {str(name or given)[:80]}, expected one of {known}, without settings of its own")


def _images(
    extractor: Mapping[str, Tensor], space: Space, *, scales: bool
) -> tuple[tuple[tuple[Layer, ...], ...], bool]:
    """Return the torsos of CombinedExtractor, a NatureCNN for each image, and whether images may be of floats."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in extractor.items():
        prefix, _, rest = name.partition(".")
        key, _, layer = rest.partition(".")
        found.setdefault(key if prefix == "extractors" else name, {})[layer] = tensor
    # Where nothing is to be scaled, the library takes numbers of any type and range for an image.
    float_images = not scales and any(key in space.parts and space.parts[key].dtype != "uint8" for key in found)
    if not found or sorted(found) != space.image_keys(float_images=float_images):
        which = ", ".join(map(repr, sorted(found))) or "no part"
        raise ValueError(f"convolutions for {which} of observations {space.description}")
    return tuple(_convolutions(found[key]) for key in sorted(found)), float_images


def _convolutions(tensors: Mapping[str, Tensor]) -> tuple[Layer, ...]:
    """Return the convolutions of a NatureCNN and the layer above them."""
    names = ("cnn.0", "cnn.2", "cnn.4", "linear.0")
    unknown = sorted(tensors.keys() ^ {f"{name}.{part}" for name in names for part in ("weight", "bias")})
    if unknown:
        raise ValueError(f"a features extractor that is not NatureCNN: {', '.join(unknown[:6])}")
    *convolutions, features = (Layer(tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name in names)
    kernels = tuple(layer.weight.shape[-1] for layer in convolutions if layer.is_convolution)
    if kernels != KERNELS or any(layer.weight.shape[2] != layer.weight.shape[3] for layer in convolutions):
        raise ValueError(f"convolutions of kernels {kernels}, expected NatureCNN with {KERNELS}")
    if features.weight.dim() != 2:
        raise ValueError(f"layer linear.0 of weight {list(features.weight.shape)}")
    strided = [replace(layer, stride=stride) for layer, stride in zip(convolutions, STRIDES, strict=True)]
    return (*strided, features)
