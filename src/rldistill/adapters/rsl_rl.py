"""rsl_rl's checkpoints: the actor among the state dicts of a runner, rebuilt as ours.

Read are checkpoints of rsl_rl 1 to 3 (`model_state_dict`) and of 4 and later (`actor_state_dict`), with
or without normalisation of observations. What a checkpoint does not say: the activation, and the
bounds of actions. Layout as of rsl_rl's commit c281c32 and its tags v1.0 to v3.3.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rldistill.adapters.found import FoundNetwork
from rldistill.adapters.sequential import UnknownLayersError, describe_layers, flattened, take_layers
from rldistill.networks import GaussianOptions, InputNormalization
from rldistill.networks.architecture import Activation

DEFAULT_ACTIVATION: Activation = "elu"
_LIBRARY = "rsl_rl"
# What a recurrent actor's memory is called, from version 1 to 5.
_MEMORIES = ("memory_", "rnn.", "memory.")
_SMALLEST_STD = 1e-6
# rsl_rl adds this to the standard deviation, not to the variance.
_NORMALIZER_EPSILON = 1e-2
_TINY = 1e-12


class RecurrentError(Exception):
    """The policy has a memory; the text names it."""


def find_rsl_rl(content: object, *, activation: Activation | None) -> FoundNetwork | None:
    """Return the actor in a checkpoint; None where it is no checkpoint of rsl_rl.

    Args:
        content: what the file holds, its tensors already checked.
        activation: after the hidden layers; None: rsl_rl's own default.

    Raises:
        RecurrentError: it has a memory.
        UnknownLayersError: it is a checkpoint of rsl_rl, with other layers.
    """
    if not isinstance(content, Mapping):
        return None
    if isinstance(actor := content.get("actor_state_dict"), Mapping):
        tensors, prefix, normalizer = dict(actor), "mlp", "obs_normalizer"
        unused: tuple[str, ...] = ("critic_state_dict",)
    elif isinstance(model := content.get("model_state_dict"), Mapping):
        tensors, prefix, normalizer = dict(model), "actor", "actor_obs_normalizer"
        unused = tuple(name for name in tensors if name.startswith(("critic.", "critic_obs_normalizer.")))
        statistics = content.get("obs_norm_state_dict")
        if isinstance(statistics, Mapping):
            tensors |= {f"{normalizer}.{name}": tensor for name, tensor in statistics.items()}
    else:
        return None
    memory = next((name for name in tensors if any(word in name for word in _MEMORIES)), None)
    if memory is not None:
        raise RecurrentError(memory)
    for name in unused:
        tensors.pop(name, None)
    return _actor(tensors, prefix, normalizer, unused, activation)


def _actor(
    tensors: dict[str, Tensor], prefix: str, normalizer: str, unused: tuple[str, ...], activation: Activation | None
) -> FoundNetwork:
    layers = take_layers(tensors, prefix)
    architecture = describe_layers(layers, activation=activation or DEFAULT_ACTIVATION, has_output=True)
    normalization = _take_normalization(tensors, normalizer)
    log_std = _take_log_std(tensors)
    if tensors:
        raise UnknownLayersError(f"{', '.join(tensors)} beside its layers")
    *torso, output = flattened(layers)
    if log_std.shape != output[1].shape:
        raise UnknownLayersError(f"{output[1].numel()} outputs and standard deviations of {log_std.numel()}")
    notes: tuple[str, ...] = ()
    if activation is None:
        notes = (
            f"rsl_rl's checkpoints do not say their activation: taken is {DEFAULT_ACTIVATION}, its default. If the "
            "training's configuration says another, load it with activation=….",
        )
    return FoundNetwork(
        _LIBRARY,
        "ppo",
        architecture,
        (flattened(layers)[0][0].shape[1],),
        "gaussian",
        torso,
        output,
        layout=None,
        spread=log_std,
        gaussian=GaussianOptions("parameter"),
        normalization=normalization,
        unused=unused,
        notes=notes,
    )


def _take_log_std(tensors: dict[str, Tensor]) -> Tensor:
    for name in ("std", "distribution.std_param"):
        if name in tensors:
            return tensors.pop(name).flatten().clamp(min=_SMALLEST_STD).log()
    for name in ("log_std", "distribution.log_std_param"):
        if name in tensors:
            return tensors.pop(name).flatten()
    raise UnknownLayersError("no std or log_std: its spread depends on the state, or it is no Gaussian")


def _take_normalization(tensors: dict[str, Tensor], prefix: str) -> InputNormalization | None:
    """Return running statistics by which (o - mean) / (std + 0.01) is (o - mean) / sqrt(variance + epsilon)."""
    taken: dict[str, Any] = {
        name.removeprefix(f"{prefix}."): tensors.pop(name) for name in list(tensors) if name.startswith(f"{prefix}.")
    }
    if not taken:
        return None
    if not {"_mean", "_std"} <= taken.keys():
        raise UnknownLayersError(f"a normaliser of {', '.join(taken)}, expected _mean and _std")
    divisor = taken["_std"].double().flatten() + _NORMALIZER_EPSILON
    return InputNormalization(
        tuple(taken["_mean"].double().flatten().tolist()),
        tuple((divisor.square() - _TINY).clamp(min=0).tolist()),
        epsilon=_TINY,
        clip=torch.finfo(torch.float32).max,  # it clips nothing
    )
