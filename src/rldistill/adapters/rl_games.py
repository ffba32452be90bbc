"""rl_games' checkpoints: the actor of its actor-critic (`a2c_continuous`, `a2c_discrete`), its statistics included.

A checkpoint does not say its activation. Layout as of rl_games 1.6.5.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from rldistill.adapters.contents import UnknownLayersError, refuse_memory, state_dicts, take_layer, take_layers
from rldistill.adapters.formats import FoundNetwork, Said, unknown_activation
from rldistill.networks import GaussianOptions, InputNormalization
from rldistill.networks.architecture import Activation
from rldistill.networks.layers import Layer, NetworkLayers
from rldistill.types import ActionLayout

_PREFIX = "a2c_network."
_DEFAULT_ACTIVATION: Activation = "elu"
# Of its running statistics: added to the variance, and where normalised observations end.
_EPSILON, _CLIP = 1e-5, 5.0
_STATISTICS = "running_mean_std"
_NOT_ACTING = ("critic_mlp.", "value.")
_NO_ACTIVATION = unknown_activation("rl_games' checkpoints", f"{_DEFAULT_ACTIVATION}, that of its examples")
_CLIPPED = (
    "taken is clip_actions, rl_games' default: its actions are clipped to ±1, which stand for the task's bounds. If "
    "the training's configuration says clip_actions: False, export it (--outputs actions)."
)


def find_rl_games(content: object, said: Said) -> FoundNetwork | None:
    """Return the actor in a checkpoint; None where it is no checkpoint of rl_games.

    Raises:
        PolicyFileError: it has a memory.
        UnknownLayersError: it is a checkpoint of rl_games, with other layers.
    """
    tensors = next((each for each in state_dicts(content) if any(name.startswith(_PREFIX) for name in each)), None)
    if tensors is None:
        return None
    refuse_memory(said.source, tensors)
    own = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items() if name.startswith(_PREFIX)}
    rest = {name: tensor for name, tensor in own.items() if not name.startswith(_NOT_ACTING)}
    torso = tuple(take_layers(rest, "actor_mlp.", has_output=False))
    is_continuous = "mu.weight" in rest
    output = take_layer(rest, "mu" if is_continuous else "logits")
    layers = NetworkLayers(
        torso,
        output,
        "gaussian" if is_continuous else "logits",
        activation=said.activation or _DEFAULT_ACTIVATION,
        # The logarithm of the std: a number for each action, or a layer where it depends on the state.
        log_std=_take_sigma(rest) if is_continuous else None,
        gaussian=GaussianOptions("state" if "sigma.weight" in own else "parameter"),
        normalization=_normalization(content, tensors, torso[0].weight.shape[1]),
    )
    if rest:
        raise UnknownLayersError(f"{', '.join(rest)} beside its layers")
    acting = _in_units_of_task(layers, said) if is_continuous else layers
    return FoundNetwork(
        "rl_games",
        "a2c_continuous" if is_continuous else "a2c_discrete",
        acting,
        layout=None if is_continuous else ActionLayout.discrete(len(output.bias)),
        holds_statistics=True,
        unused=tuple(name for name in own if name.startswith(_NOT_ACTING)),
        notes=(*(() if said.activation else (_NO_ACTIVATION,)), *((_CLIPPED,) if acting is not layers else ())),
    )


def _take_sigma(tensors: dict[str, Tensor]) -> Layer | Tensor:
    if "sigma.weight" in tensors:
        return take_layer(tensors, "sigma")
    if "sigma" not in tensors:
        raise UnknownLayersError("sigma is missing")
    return tensors.pop("sigma").flatten()


def _normalization(content: object, tensors: Mapping[str, Tensor], num_inputs: int) -> InputNormalization | None:
    """Return the statistics of observations: among the weights, of older versions in a state dict beside them."""
    beside = content.get(_STATISTICS) if isinstance(content, Mapping) else None
    found = {
        name.removeprefix(f"{_STATISTICS}."): each for name, each in tensors.items() if name.startswith(_STATISTICS)
    }
    if not found and isinstance(beside, Mapping):
        found = cast(Mapping[str, Any], beside)
    if not found:
        return None
    mean, variance = (found.get(f"running_{name}") for name in ("mean", "var"))
    if not (isinstance(mean, Tensor) and isinstance(variance, Tensor)):
        raise UnknownLayersError(f"statistics of {', '.join(found)}, expected running_mean and running_var")
    if not mean.numel() == variance.numel() == num_inputs:
        raise UnknownLayersError(f"statistics of {mean.numel()} numbers for {num_inputs} inputs")
    return InputNormalization(mean.flatten().tolist(), variance.flatten().tolist(), _EPSILON, _CLIP)


def _in_units_of_task(layers: NetworkLayers, said: Said) -> NetworkLayers:
    """Return layers whose actions are in the task's units: rl_games clips to ±1 and rescales, which is linear within.

    Where the task has no bounds, rl_games cannot rescale, and the actions are the task's already.
    """
    layout = said.action_layout
    if layout is None or not layout.is_bounded or layout.sizes != (len(layers.output.bias),):
        return layers
    low, high = torch.tensor(layout.low), torch.tensor(layout.high)
    half, middle = (high - low) / 2, (high + low) / 2
    log_half = half.clamp(min=torch.finfo(torch.float32).tiny).log()
    output = Layer(layers.output.weight * half[:, None], layers.output.bias * half + middle)
    log_std = layers.log_std
    if isinstance(log_std, Layer):
        log_std = Layer(log_std.weight, log_std.bias + log_half)
    elif log_std is not None:
        log_std = log_std + log_half
    return replace(layers, output=output, log_std=log_std)
