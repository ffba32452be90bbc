"""CleanRL's state dicts: networks told by the names of their tensors, rebuilt as ours.

CleanRL's scripts write one network each, of a fixed layout. Read are those of dqn, dqn_atari, c51,
c51_atari, qdagger (with IMPALA's torso), pqn, pqn_atari, ppo, ppo_atari, ppo_continuous_action,
rpo_continuous_action, sac_continuous_action, td3_continuous_action and ddpg_continuous_action.
Layout as of CleanRL's commit fe8d8a03.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from rldistill.adapters.found import FoundNetwork, Layer
from rldistill.adapters.sequential import (
    UnknownLayersError,
    describe_layers,
    flattened,
    take_layer,
    take_layers,
)
from rldistill.networks import Architecture, GaussianOptions, ValueAtoms
from rldistill.types import ActionLayout

_LIBRARY = "CleanRL"
CLEANRL_SUFFIX = ".cleanrl_model"
"""Of the files that its scripts write, and nobody else's."""
_ATARI_SHAPE = (84, 84)
_NOT_SAVED = (
    "CleanRL's ppo_continuous_action normalises observations by running statistics and clips them to ±10 in wrappers "
    "that the file does not hold. Unless this teacher was trained without them, it plays about as well as at random."
)
# Of its wrapper behind NormalizeObservation.
_CLIP = 10.0
_Finder = Callable[[dict[str, Tensor]], FoundNetwork]


def find_cleanrl(tensors: Mapping[str, Tensor]) -> FoundNetwork | None:
    """Return the network in a state dict; None where its names are not CleanRL's.

    Raises:
        UnknownLayersError: the names are CleanRL's, the layers are not.
    """
    finder = _FINDERS.get(frozenset(name.partition(".")[0] for name in tensors))
    if finder is None:
        return None
    rest = dict(tensors)
    try:
        found = finder(rest)
    except KeyError as error:
        raise UnknownLayersError(f"{error.args[0]} is missing") from error
    if rest:
        raise UnknownLayersError(f"{', '.join(rest)} beside its layers")
    return found


def _q_network(tensors: dict[str, Tensor]) -> FoundNetwork:
    if "network.0.conv.weight" in tensors:
        return _qdagger(tensors)
    layers = take_layers(tensors, "network")
    architecture = describe_layers(layers, activation="relu", has_output=True)
    algorithm = "pqn" if architecture.layer_norm else "dqn"
    *torso, output = flattened(layers)
    found = _with_inputs(architecture, algorithm, torso, output, ActionLayout.discrete(output[0].shape[0]))
    return replace(found, known_by="suffix")


def _with_inputs(
    architecture: Architecture, algorithm: str, torso: list[Layer], output: Layer, layout: ActionLayout
) -> FoundNetwork:
    """Return a network of Q-values on vectors, or on bytes of images that it divides by 255 itself."""
    is_image = architecture.kind != "mlp"
    first = torso[0][0] if torso else output[0]
    return FoundNetwork(
        _LIBRARY,
        f"{algorithm}_atari" if is_image else algorithm,
        architecture,
        (first.shape[1], *_ATARI_SHAPE) if is_image else (first.shape[1],),
        "q_values",
        torso,
        output,
        layout,
        observation_dtype="uint8" if is_image else "float32",
        input_scale=1 / 255 if is_image else 1.0,
    )


def _c51(tensors: dict[str, Tensor]) -> FoundNetwork:
    support = tensors.pop("atoms").flatten()
    layers = take_layers(tensors, "network")
    architecture = describe_layers(layers, activation="relu", has_output=True)
    *torso, output = flattened(layers)
    num_actions, beyond = divmod(output[0].shape[0], max(len(support), 1))
    if len(support) < 2 or beyond:
        raise UnknownLayersError(f"{output[0].shape[0]} outputs for {len(support)} atoms")
    if not support.is_floating_point():
        raise UnknownLayersError(f"atoms of {support.dtype}, expected floats")
    low, high = support[0].item(), support[-1].item()
    if not torch.allclose(support, torch.linspace(low, high, len(support)), atol=1e-4):
        raise UnknownLayersError("atoms at unequal distances")
    found = _with_inputs(architecture, "c51", torso, output, ActionLayout.discrete(num_actions))
    return replace(found, atoms=ValueAtoms(low, high, len(support)))


def _qdagger(tensors: dict[str, Tensor]) -> FoundNetwork:
    torso: list[Layer] = []
    channels: list[int] = []
    while f"network.{len(channels)}.conv.weight" in tensors:
        stage = f"network.{len(channels)}"
        names = ("conv", *(f"res_block{block}.conv{layer}" for block in (0, 1) for layer in (0, 1)))
        torso += [take_layer(tensors, f"{stage}.{name}") for name in names]
        channels.append(torso[-1][0].shape[0])
    # Flatten and a ReLU stand before the first fully connected layer, a ReLU after it.
    first, second = len(channels) + 2, len(channels) + 4
    dense = take_layers(tensors, "network")
    if list(dense) != [first, second]:
        raise UnknownLayersError(f"layers at {list(dense)}, expected at {[first, second]}")
    hidden = (dense[first][0].shape[0],)
    architecture = Architecture(
        f"impala:{'-'.join(map(str, channels))}:{hidden[0]}",
        "impala",
        hidden,
        tuple(channels),
        kernel_sizes=(3,) * len(channels),
        strides=(2,) * len(channels),
    )
    output = dense[second]
    layout = ActionLayout.discrete(output[0].shape[0])
    return _with_inputs(architecture, "qdagger", [*torso, dense[first]], output, layout)


def _ppo_atari(tensors: dict[str, Tensor]) -> FoundNetwork:
    layers = take_layers(tensors, "network")
    architecture = describe_layers(layers, activation="relu", has_output=False, value_head=True)
    output = take_layer(tensors, "actor")
    layout = ActionLayout.discrete(output[0].shape[0])
    found = _with_inputs(architecture, "ppo", list(flattened(layers)), output, layout)
    # CleanRL evaluates PPO by sampling; forced to its best action, such a policy may get stuck.
    value = take_layer(tensors, "critic")
    found = replace(found, output_kind="logits", behaviour="sample", value=value)
    # Of CleanRL's networks with a shared torso, all have convolutions.
    return replace(found, known_by="nothing" if architecture.kind == "mlp" else "suffix")


def _ppo(tensors: dict[str, Tensor]) -> FoundNetwork:
    layers = take_layers(tensors, "actor")
    architecture = describe_layers(layers, activation="tanh", has_output=True)
    *torso, output = flattened(layers)
    found = _with_inputs(architecture, "ppo", torso, output, ActionLayout.discrete(output[0].shape[0]))
    unused = _take_critic(tensors)
    return replace(found, output_kind="logits", behaviour="sample", unused=unused, known_by="suffix")


def _ppo_continuous(tensors: dict[str, Tensor]) -> FoundNetwork:
    layers = take_layers(tensors, "actor_mean")
    architecture = describe_layers(layers, activation="tanh", has_output=True)
    *torso, output = flattened(layers)
    return FoundNetwork(
        _LIBRARY,
        "ppo_continuous_action",
        architecture,
        (flattened(layers)[0][0].shape[1],),
        "gaussian",
        torso,
        output,
        layout=None,  # the environment's bounds, to which a wrapper clips
        spread=tensors.pop("actor_logstd").flatten(),
        gaussian=GaussianOptions("parameter"),
        behaviour="sample",
        clip=_CLIP,
        unused=_take_critic(tensors),
        without_normalizer=_NOT_SAVED,
    )


def _take_critic(tensors: dict[str, Tensor]) -> tuple[str, ...]:
    names = tuple(name for name in tensors if name.startswith("critic."))
    for name in names:
        del tensors[name]
    return names


def _sac(tensors: dict[str, Tensor]) -> FoundNetwork:
    torso = [take_layer(tensors, "fc1"), take_layer(tensors, "fc2")]
    return FoundNetwork(
        _LIBRARY,
        "sac_continuous_action",
        _two_layers(torso),
        (torso[0][0].shape[1],),
        "gaussian",
        torso,
        take_layer(tensors, "fc_mean"),
        _take_box(tensors),
        spread=take_layer(tensors, "fc_logstd"),
        gaussian=GaussianOptions("state_tanh"),
    )


def _td3(tensors: dict[str, Tensor]) -> FoundNetwork:
    torso = [take_layer(tensors, "fc1"), take_layer(tensors, "fc2")]
    return FoundNetwork(
        _LIBRARY,
        "td3_continuous_action",
        _two_layers(torso),
        (torso[0][0].shape[1],),
        "actions",
        torso,
        take_layer(tensors, "fc_mu"),
        _take_box(tensors),
    )


def _two_layers(torso: list[Layer]) -> Architecture:
    hidden = tuple(weight.shape[0] for weight, _ in torso)
    return Architecture(f"mlp:{'x'.join(map(str, hidden))}", "mlp", hidden)


def _take_box(tensors: dict[str, Tensor]) -> ActionLayout:
    """Return the box that an actor's own scale and bias say."""
    scale, bias = tensors.pop("action_scale").double().flatten(), tensors.pop("action_bias").double().flatten()
    if scale.shape != bias.shape:
        raise UnknownLayersError(f"action_scale of {len(scale)} and action_bias of {len(bias)}")
    return ActionLayout(
        "box", (len(scale),), tuple((bias - scale).tolist()), tuple((bias + scale).tolist()), "tanh_rescale"
    )


# By the first words of the tensors' names.
_FINDERS: Mapping[frozenset[str], _Finder] = {
    frozenset({"network"}): _q_network,
    frozenset({"network", "atoms"}): _c51,
    frozenset({"network", "actor", "critic"}): _ppo_atari,
    frozenset({"actor", "critic"}): _ppo,
    frozenset({"actor_mean", "actor_logstd", "critic"}): _ppo_continuous,
    frozenset({"fc1", "fc2", "fc_mean", "fc_logstd", "action_scale", "action_bias"}): _sac,
    frozenset({"fc1", "fc2", "fc_mu", "action_scale", "action_bias"}): _td3,
}
