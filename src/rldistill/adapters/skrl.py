"""skrl's agents, of its versions 1 and 2: the policy of those whose networks its model instantiators made.

Such a policy is one `nn.Sequential`, `NAME_container`, alone or, where policy and value share it, below `policy_layer`
and `value_layer`. A policy that is a module of its user's own is refused with the way on. An agent does not say its
activation. Layout as of skrl 1.4.3 and 2.1.1.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeGuard

from torch import Tensor

from rldistill.adapters.contents import (
    UnknownLayersError,
    named_state_dicts,
    normalization_by_std,
    refuse_memory,
    take_layer,
    take_layers,
)
from rldistill.adapters.formats import FoundNetwork, Said, unknown_activation
from rldistill.errors import PolicyFileError, docs_page, listed
from rldistill.networks import GaussianOptions, InputNormalization
from rldistill.networks.architecture import Activation
from rldistill.networks.layers import NetworkLayers
from rldistill.networks.outputs import OutputDeclaration
from rldistill.types import ActionLayout

_OF_SKRL = re.compile(r"value|.*_preprocessor|critic_.*")
_CONTAINER = re.compile(r"(\w+_container\.)\d+\.(weight|bias)")
_NOT_ACTING = ("value_layer.weight", "value_layer.bias")
_DEFAULT_ACTIVATION: Activation = "elu"
# Of its running statistics: added to the std, and where normalised observations end.
_EPSILON, _CLIP = 1e-8, 5.0
# To which its Gaussian policies clip their log_std unless told otherwise.
_LOG_STD_BOUNDS = (-20.0, 2.0)
_OWN_MODULE = (
    "whose policy is a module of your own. Save the state dict in its 'policy' and the statistics in its preprocessor, "
    "and load both with module= and normalizer=: the lines of Python stand in "
    f"{docs_page('other-libraries.md')}."
)
_NO_ACTIVATION = unknown_activation("skrl's agents", f"{_DEFAULT_ACTIVATION}, that of its examples")
_NO_OUTPUT = "skrl's agents do not say what is done to their outputs, such as tanh(ACTIONS): taken is nothing."


def refuse_own_module(content: object, source: str) -> None:
    """Refuse an agent whose policy no instantiator made, whatever its tensors hold. Raises PolicyFileError."""
    if _is_agent(content) and _container_of(content["policy"]) is None:
        raise PolicyFileError(f"{source} is an agent of skrl ({listed(named_state_dicts(content))}), {_OWN_MODULE}")


def find_skrl(content: object, said: Said) -> FoundNetwork | None:
    """Return the policy of an agent; None where it is none of skrl.

    Raises:
        PolicyFileError: it has a memory.
        UnknownLayersError: other layers, or nothing says what they mean.
    """
    if not _is_agent(content) or (container := _container_of(content["policy"])) is None:
        return None
    tensors: dict[str, Tensor] = {name: each for name, each in content["policy"].items() if name not in _NOT_ACTING}
    refuse_memory(said.source, tensors)
    log_std = tensors.pop("log_std_parameter", None)
    if "policy_layer.weight" in tensors:
        torso, output = take_layers(tensors, container, has_output=False), take_layer(tensors, "policy_layer")
    else:
        *torso, output = take_layers(tensors, container)
    if tensors:
        raise UnknownLayersError(f"{', '.join(tensors)} beside its layers")
    layers = NetworkLayers(
        tuple(torso),
        output,
        "gaussian",
        activation=said.activation or _DEFAULT_ACTIVATION,
        log_std=None if log_std is None else log_std.flatten().clamp(*_LOG_STD_BOUNDS),
        gaussian=GaussianOptions("parameter"),
        normalization=_normalization(content, (*torso, output)[0].weight.shape[1]),
    )
    has_choices = said.action_layout is not None and said.action_layout.kind == "discrete"
    is_choice = log_std is None and (has_choices or said.outputs == OutputDeclaration("logits"))
    if log_std is None and not is_choice:
        raise UnknownLayersError(
            f"{len(output.bias)} outputs and no log_std_parameter. If they are logits, say so: --outputs logits"
        )
    unused = tuple(name for name in content["policy"] if name in _NOT_ACTING)
    return FoundNetwork(
        "skrl",
        None,
        replace(layers, kind="logits") if is_choice else layers,
        layout=ActionLayout.discrete(len(output.bias)) if is_choice else None,
        behaviour="sample" if is_choice else "greedy",
        holds_statistics=True,
        unused=unused,
        notes=(*(() if said.activation else (_NO_ACTIVATION,)), *(() if is_choice else (_NO_OUTPUT,))),
    )


def _is_agent(content: object) -> TypeGuard[Mapping[str, Mapping[str, Tensor]]]:
    names = named_state_dicts(content)
    return "policy" in names and any(map(_OF_SKRL.fullmatch, names))


def _container_of(policy: Mapping[str, Tensor]) -> str | None:
    """Return the prefix of the layers that an instantiator made; None where the module is somebody's own."""
    found = {match[1] for name in policy if (match := _CONTAINER.fullmatch(name))}
    return found.pop() if len(found) == 1 else None


def _normalization(content: Mapping[str, Mapping[str, Tensor]], num_inputs: int) -> InputNormalization | None:
    """Return the statistics of observations: since version 2 those of states are the critic's."""
    place = "observation_preprocessor" if "observation_preprocessor" in content else "state_preprocessor"
    statistics = content.get(place, {})
    if not {"running_mean", "running_variance"} <= statistics.keys():
        return None
    mean, variance = (statistics[f"running_{name}"].double().flatten() for name in ("mean", "variance"))
    if not len(mean) == len(variance) == num_inputs or (variance < 0).any():
        raise UnknownLayersError(f"statistics of {len(mean)} numbers for {num_inputs} inputs")
    return normalization_by_std(mean, variance.sqrt() + _EPSILON, clip=_CLIP)
