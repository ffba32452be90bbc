"""From the names and shapes in `policy.pth` to the layers of the part that acts.

Layers of an MLP are `<prefix>.<i>.weight` and `.bias` with even i; the numbers between are
activations, which leave no trace in the names: their class stands in `policy_kwargs`, else it is
the algorithm's default. Critics, target networks and values are left alone. What remains must be
known: a name that nothing here explains means another network than the one that would be built.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from rldistill.adapters.memory import RecurrentError

Family = Literal["q_network", "quantile_network", "actor_critic", "stochastic_actor", "deterministic_actor", "search"]

# The prefixes of the layers of each family, in the order in which an observation passes them; the last is the output.
_LAYERS: Mapping[Family, tuple[str, ...]] = {
    "q_network": ("q_net.q_net",),
    "quantile_network": ("quantile_net.quantile_net",),
    "actor_critic": ("mlp_extractor.shared_net", "mlp_extractor.policy_net", "action_net"),
    "stochastic_actor": ("actor.latent_pi", "actor.mu"),
    "deterministic_actor": ("actor.mu",),
    "search": ("action_net",),
}
_EXTRACTORS: Mapping[Family, tuple[str, ...]] = {
    "q_network": ("q_net.features_extractor",),
    "quantile_network": ("quantile_net.features_extractor",),
    # The actor's own comes first; both stand there, with equal tensors, where the critic shares it.
    "actor_critic": ("pi_features_extractor", "features_extractor"),
    "stochastic_actor": ("actor.features_extractor",),
    "deterministic_actor": ("actor.features_extractor",),
    "search": ("features_extractor",),
}
_NOT_ACTING = re.compile(
    r"(q_net_target|quantile_net_target|actor_target|critic|critic_target|value_net|vf_features_extractor"
    r"|mlp_extractor\.value_net)\."
)


@dataclass(frozen=True)
class Layer:
    """A fully connected layer: weight `[out, in]`, bias `[out]`."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Actor:
    """The layers that act.

    Attributes:
        family: which way of naming them.
        hidden: hidden layers, in order.
        output: the last layer: Q-values, logits, means or actions.
        log_std: of a Gaussian: a layer, a vector `[D]`, or the matrix `[F, D]` of gSDE.
        extractor: tensors of the features extractor, by their names in it; empty where it only flattens.
        value: the layer of the state value, where it has the actor's own features below it.
    """

    family: Family
    hidden: tuple[Layer, ...]
    output: Layer
    log_std: Layer | Tensor | None = None
    extractor: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    value: Layer | None = None

    @property
    def num_inputs(self) -> int:
        """Inputs of its lowest layer."""
        return (*self.hidden, self.output)[0].weight.shape[1]


def find_actor(tensors: Mapping[str, Tensor]) -> Actor:
    """Return the layers that act.

    Raises:
        ValueError: a kind of network that is not known; lists names that nothing explains.
        RecurrentError: it has a memory.
    """
    rest = {name: tensor for name, tensor in tensors.items() if not _NOT_ACTING.match(name)}
    family = _family(tensors)
    layers = [layer for prefix in _LAYERS[family] for layer in _take_layers(rest, prefix)]
    if not layers:
        raise ValueError(f"no layer that acts among {_listing(tensors)}")
    extractor = _take_extractor(rest, _EXTRACTORS[family])
    log_std = _take_log_std(rest, family)
    if any(name.startswith("sde_features_extractor.") for name in rest):
        raise ValueError("features of their own for its noise (gSDE with sde_net_arch, until 1.8), which are not read")
    if rest and all(tensor.shape == (1,) for tensor in rest.values()):
        raise ValueError(f"activations that learn (PReLU), which are not supported: {_listing(rest)}")
    if rest:
        raise ValueError(
            f"layers that no network of Stable-Baselines3 has: {_listing(rest)}. A policy or features extractor of "
            "its maker's own cannot be rebuilt from its weights"
        )
    *hidden, output = layers
    _check_chain(layers, log_std)
    value = _value_on_same_features(tensors) if family == "actor_critic" else None
    return Actor(family, tuple(hidden), output, log_std, extractor, value)


def image_extractors(actor: Actor) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of a CombinedExtractor's convolutions, by the key of their image; empty for any other."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in actor.extractor.items():
        prefix, _, rest = name.partition(".")
        key, _, layer = rest.partition(".")
        if prefix != "extractors":
            return {}
        found.setdefault(key, {})[layer] = tensor
    if any("linear.0.weight" not in layers or layers["linear.0.weight"].dim() != 2 for layers in found.values()):
        return {}
    return found


def reorder_inputs(actor: Actor, order: Sequence[int]) -> Actor:
    """Return the actor of a vector whose elements stand in another order.

    Args:
        actor: whose layers see the vector itself, not what an extractor made of it.
        order: for each element of the new vector, its place in the old one.
    """
    index = torch.tensor(list(order))

    def turned(layer: Layer) -> Layer:
        return Layer(layer.weight[:, index], layer.bias)

    if actor.hidden:
        return replace(actor, hidden=(turned(actor.hidden[0]), *actor.hidden[1:]))
    log_std = actor.log_std
    if isinstance(log_std, Layer):
        log_std = turned(log_std)
    elif log_std is not None and log_std.dim() == 2:
        log_std = log_std[index]
    return replace(
        actor, output=turned(actor.output), log_std=log_std, value=None if actor.value is None else turned(actor.value)
    )


def _family(tensors: Mapping[str, Tensor]) -> Family:
    names = tensors.keys()
    if any("lstm" in name for name in names):
        raise RecurrentError(
            "a recurrent network (RecurrentPPO), which remembers what it saw; networks with memory are not supported"
        )
    if any(name.endswith((".ra_mean", ".running_mean")) for name in names):
        raise ValueError("batch normalisation (CrossQ), which is not supported")
    if any(name.startswith("q_net.") for name in names):
        return "q_network"
    if any(name.startswith("quantile_net.") for name in names):
        return "quantile_network"
    if any(name.startswith("actor.") for name in names):
        return "stochastic_actor" if any("actor.log_std" in name for name in names) else "deterministic_actor"
    if any(name.startswith("action_net") for name in names):
        return "actor_critic" if any(name.startswith("value_net.") for name in names) else "search"
    raise ValueError(f"a network that no algorithm of Stable-Baselines3 has: {_listing(tensors)}")


def _take_layers(rest: dict[str, Tensor], prefix: str) -> list[Layer]:
    """Remove and return the layers `<prefix>.0`, `<prefix>.2`, …, or the one layer `<prefix>`."""
    single = rest.pop(f"{prefix}.weight", None)
    if single is not None:
        return [_layer(single, rest.pop(f"{prefix}.bias", None), prefix)]
    layers: list[Layer] = []
    while (weight := rest.pop(f"{prefix}.{2 * len(layers)}.weight", None)) is not None:
        name = f"{prefix}.{2 * len(layers)}"
        layers.append(_layer(weight, rest.pop(f"{name}.bias", None), name))
    return layers


def _layer(weight: Tensor, bias: Tensor | None, name: str) -> Layer:
    if bias is None:
        bias = torch.zeros(len(weight)) if weight.dim() else torch.zeros(0)
    if weight.dim() != 2 or bias.shape != weight.shape[:1] or not weight.is_floating_point():
        raise ValueError(f"layer {name} of weight {list(weight.shape)} and bias {list(bias.shape)}")
    return Layer(weight, bias)


def _check_chain(layers: list[Layer], log_std: Layer | Tensor | None) -> None:
    for below, above in pairwise(layers):
        if above.weight.shape[1] != below.weight.shape[0]:
            raise ValueError(f"a layer of {below.weight.shape[0]} outputs below one of {above.weight.shape[1]} inputs")
    num_features, num_actions = layers[-1].weight.shape[1], layers[-1].weight.shape[0]
    if isinstance(log_std, Layer):
        fits = log_std.weight.shape == layers[-1].weight.shape
    else:
        fits = log_std is None or tuple(log_std.shape) in (
            (num_actions,),
            (num_features, num_actions),
            (num_features, 1),
        )
    if not fits:
        raise ValueError(f"{num_actions} means of {num_features} features, and a log_std that is not of that size")


def _take_extractor(rest: dict[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Remove the tensors of all the prefixes, and return those of the first that has any."""
    found = [
        {name.removeprefix(f"{prefix}."): rest.pop(name) for name in list(rest) if name.startswith(f"{prefix}.")}
        for prefix in prefixes
    ]
    return next((tensors for tensors in found if tensors), {})


def _take_log_std(rest: dict[str, Tensor], family: Family) -> Layer | Tensor | None:
    if family == "stochastic_actor":
        layers = _take_layers(rest, "actor.log_std")
        return layers[0] if layers else rest.pop("actor.log_std", None)
    return rest.pop("log_std", None) if family == "actor_critic" else None


def _value_on_same_features(tensors: Mapping[str, Tensor]) -> Layer | None:
    """Return the value's layer where nothing but it lies above the actor's features."""
    if any(name.startswith(("mlp_extractor.policy_net.", "mlp_extractor.value_net.")) for name in tensors):
        return None
    for name, tensor in tensors.items():
        other = tensors.get(name.replace("vf_", "pi_", 1)) if name.startswith("vf_features_extractor.") else tensor
        if other is None or not torch.equal(tensor, other):
            return None
    return next(iter(_take_layers(dict(tensors), "value_net")), None)


def _listing(tensors: Mapping[str, Tensor]) -> str:
    names = sorted(tensors)
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
