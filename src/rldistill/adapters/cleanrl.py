"""CleanRL's state dicts, and those of plain networks: told by the names of their tensors.

CleanRL's scripts write one network each, of a fixed layout. Read are those of dqn, dqn_atari, c51,
c51_atari, qdagger (with IMPALA's torso), pqn, pqn_atari, ppo, ppo_atari, ppo_continuous_action,
rpo_continuous_action, sac_continuous_action, td3_continuous_action and ddpg_continuous_action.
Layout as of CleanRL's commit fe8d8a03. Networks of the same layout that another program wrote are read too, and so is
any single `nn.Sequential`: what the file does not say is then a guess, and said to be one.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rldistill.adapters.contents import UnknownLayersError, refuse_memory, state_dicts, take_layer, take_layers
from rldistill.adapters.formats import FoundNetwork, Said
from rldistill.errors import UsageError
from rldistill.networks import GaussianOptions, ValueAtoms
from rldistill.networks.layers import Layer, NetworkLayers
from rldistill.networks.outputs import TANH_ACTIONS, OutputDeclaration
from rldistill.types import ActionLayout

_LIBRARY = "CleanRL"
# Of the files that its scripts write; no other program uses it.
_CLEANRL_SUFFIX = ".cleanrl_model"
_NOT_SAVED = (
    "CleanRL's ppo_continuous_action normalises observations by running statistics and clips them to ±10 in wrappers "
    "that the file does not hold. Unless this teacher was trained without them, it plays about as well as at random."
)
_NORMS = (
    "the file does not say of which kind its norms are: taken are LayerNorms, as in CleanRL's pqn. If they are others, "
    "such as GroupNorm of several groups, load it into a module of your own, in Python: rd.load_policy(path, module=…)."
)
# Of its wrapper behind NormalizeObservation.
_CLIP = 10.0
_NUMBERED = re.compile(r"\d+\.(weight|bias)$")


def find_cleanrl(content: object, said: Said) -> FoundNetwork | None:
    """Return the network in the first state dict that has CleanRL's names, as its user says that it was made.

    Raises:
        PolicyFileError: it has a memory.
        UnknownLayersError: the names are CleanRL's, the layers are not.
        UsageError: the user says another activation of layers that have but one.
    """
    for tensors in state_dicts(content):
        refuse_memory(said.source, tensors)
        finder = _FINDERS.get(frozenset(name.partition(".")[0] for name in tensors))
        if finder is None and len({_NUMBERED.sub("", name) for name in tensors}) == 1:
            finder = _sequential
        if finder is None:
            continue
        rest = dict(tensors)
        try:
            found = finder(rest)
        except KeyError as error:
            raise UnknownLayersError(f"{error.args[0]} is missing") from error
        if rest:
            raise UnknownLayersError(f"{', '.join(rest)} beside its layers")
        return _as_said(found, said)
    return None


def _as_said(found: FoundNetwork, said: Said) -> FoundNetwork:
    """Return a network as its user says that it was made; what is neither said nor in the file is a guess."""
    script, layers = found.algorithm, found.layers
    has_suffix = said.path.suffix == _CLEANRL_SUFFIX and found.known_by != "nothing"
    guesses: dict[str, tuple[str, object]] = {}  # by what is not said, the word that says it, such as it may be
    unsaid: list[str] = []
    if said.activation is not None:
        if layers.first.blocks and said.activation != layers.activation:
            raise UsageError(
                f"{said.source} ({found.label}): got activation {said.activation}, and its residual blocks know "
                f"{layers.activation} alone. Leave activation out."
            )
        layers = replace(layers, activation=said.activation)
    elif not has_suffix and layers.torso and not layers.first.blocks:
        other = "relu" if layers.activation == "tanh" else "tanh"
        guesses[f"its activation (taken is {layers.activation})"] = ("activation", other)
    found = replace(found, layers=layers)
    if found.known_by != "names" and not has_suffix:
        if layers.first.is_convolution and said.input_scale is None:
            guesses["the factor on its images (taken is 1/255)"] = ("input_scale", 1)
        if any(layer.norm is not None for layer in layers.torso):
            unsaid.append(_NORMS)
        found = replace(found, library="state dict", algorithm=None)
        if layers.kind in ("q_values", "logits"):
            found, guess = _with_outputs(found, said)
            guesses |= guess
    if guesses:
        options = " ".join(f"--{word.replace('_', '-')} {value}" for word, value in guesses.values())
        in_python = ", ".join(f"{word}={value!r}" for word, value in guesses.values())
        unsaid.append(
            f"the file does not say {' or '.join(guesses)}, as in CleanRL's {script}. If it was trained otherwise, say "
            f"so: {options} (in Python {in_python})."
        )
    return replace(found, guesses=tuple(unsaid))


def _with_outputs(found: FoundNetwork, said: Said) -> tuple[FoundNetwork, dict[str, tuple[str, object]]]:
    """Return a single stack of layers with what its outputs are, and a guess where that is not said."""
    if said.outputs in (OutputDeclaration("actions"), TANH_ACTIONS):
        # These have no chances to draw from.
        found = replace(found, layers=replace(found.layers, kind="actions"), layout=None, behaviour="greedy")
        if said.outputs == TANH_ACTIONS:
            return replace(found, mapping="tanh_rescale"), {}
        if said.action_layout is not None and not said.action_layout.is_bounded:
            return found, {}  # a tanh would have no bounds to stand for
        return found, {"whether a tanh follows its last layer (taken is none)": ("outputs", "actions=tanh")}
    if said.outputs == OutputDeclaration("logits"):
        return replace(found, layers=replace(found.layers, kind="logits")), {}
    if said.outputs is not None and said.outputs.kind == "gaussian":
        raise UsageError(
            f"{said.source} is a plain network, whose outputs are read as q_values, logits or actions: got outputs "
            "gaussian. Load it into a module that returns means and log stds, in Python: rd.load_policy(path, "
            "module=…, task=…, outputs='gaussian')."
        )
    if said.outputs is not None:
        return found, {}
    if said.task is not None and said.task.fingerprint.action_layout.is_continuous:
        raise UsageError(
            f"{said.source} does not say what its outputs are, and task {said.task.name!r} has box actions. If they "
            "are these actions, in the environment's units, say so: --outputs actions (in Python outputs='actions')."
        )
    if found.layers.kind == "logits":
        return found, {}
    return found, {"what its outputs are (taken are Q-values)": ("outputs", "logits")}


def found_of_choices(algorithm: str, torso: Sequence[Layer], output: Layer, *, ending: str = "") -> FoundNetwork:
    """Return a network of Q-values on vectors, or on bytes of images that it divides by 255 itself.

    Its script is called after `algorithm`, with this `ending`.
    """
    is_image = bool(torso) and torso[0].is_convolution
    layers = NetworkLayers(tuple(torso), output, "q_values", input_scale=1 / 255 if is_image else 1.0)
    layout = ActionLayout.discrete(len(output.weight))
    return FoundNetwork(_LIBRARY, f"{algorithm}{'_atari' if is_image else ''}{ending}", layers, layout)


def _q_network(tensors: dict[str, Tensor]) -> FoundNetwork:
    if "network.0.conv.weight" in tensors:
        return _qdagger(tensors)
    *torso, output = take_layers(tensors, "network.")
    has_norms = any(layer.norm is not None for layer in torso)
    return replace(found_of_choices("pqn" if has_norms else "dqn", torso, output), known_by="suffix")


def _sequential(tensors: dict[str, Tensor]) -> FoundNetwork:
    """Read an `nn.Sequential` as it is, or under any one name; no script has such a network."""
    prefix = next(iter(tensors)).rpartition(".")[0].rstrip("0123456789")
    *torso, output = take_layers(tensors, prefix)
    return replace(found_of_choices("dqn", torso, output), known_by="nothing")


def _c51(tensors: dict[str, Tensor]) -> FoundNetwork:
    support = tensors.pop("atoms").flatten()
    *torso, output = take_layers(tensors, "network.")
    num_actions, beyond = divmod(len(output.weight), max(len(support), 1))
    if len(support) < 2 or beyond:
        raise UnknownLayersError(f"{len(output.weight)} outputs for {len(support)} atoms")
    if not support.is_floating_point():
        raise UnknownLayersError(f"atoms of {support.dtype}, expected floats")
    low, high = support[0].item(), support[-1].item()
    if not torch.allclose(support, torch.linspace(low, high, len(support)), atol=1e-4):
        raise UnknownLayersError("atoms at unequal distances")
    found = found_of_choices("c51", torso, output)
    layers = replace(found.layers, atoms=ValueAtoms(low, high, len(support)))
    return replace(found, layers=layers, layout=ActionLayout.discrete(num_actions))


def _qdagger(tensors: dict[str, Tensor]) -> FoundNetwork:
    stages: list[Layer] = []
    while f"network.{len(stages)}.conv.weight" in tensors:
        stage = f"network.{len(stages)}"
        convolution = take_layer(tensors, f"{stage}.conv")
        names = [f"{stage}.res_block{block}.conv{layer}" for block in (0, 1) for layer in (0, 1)]
        blocks = tuple(take_layer(tensors, name) for name in names)
        stages.append(replace(convolution, stride=2, blocks=blocks))
    # Flatten and a ReLU stand before the first fully connected layer, a ReLU after it.
    hidden, output = (take_layer(tensors, f"network.{len(stages) + place}") for place in (2, 4))
    return found_of_choices("qdagger", [*stages, hidden], output)


def _ppo_atari(tensors: dict[str, Tensor]) -> FoundNetwork:
    torso = take_layers(tensors, "network.", has_output=False)
    found = found_of_choices("ppo", torso, take_layer(tensors, "actor"))
    layers = replace(found.layers, kind="logits", value=take_layer(tensors, "critic"))
    # Of CleanRL's networks with a shared torso, all have convolutions.
    known_by = "suffix" if layers.first.is_convolution else "nothing"
    # CleanRL evaluates PPO by sampling; forced to its best action, such a policy may get stuck.
    return replace(found, layers=layers, behaviour="sample", known_by=known_by)


def _ppo(tensors: dict[str, Tensor]) -> FoundNetwork:
    *torso, output = take_layers(tensors, "actor.")
    found = found_of_choices("ppo", torso, output)
    layers = replace(found.layers, kind="logits", activation="tanh")
    return replace(found, layers=layers, behaviour="sample", unused=_take_critic(tensors), known_by="suffix")


def _ppo_continuous(tensors: dict[str, Tensor]) -> FoundNetwork:
    *torso, output = take_layers(tensors, "actor_mean.")
    log_std, gaussian = tensors.pop("actor_logstd").flatten(), GaussianOptions("parameter")
    return FoundNetwork(
        _LIBRARY,
        "ppo_continuous_action",
        NetworkLayers(tuple(torso), output, "gaussian", activation="tanh", log_std=log_std, gaussian=gaussian),
        layout=None,  # the environment's bounds, to which a wrapper clips
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
    torso, mean, log_std = _take_torso(tensors), take_layer(tensors, "fc_mean"), take_layer(tensors, "fc_logstd")
    layers = NetworkLayers(torso, mean, "gaussian", log_std=log_std, gaussian=GaussianOptions("state_tanh"))
    return FoundNetwork(_LIBRARY, "sac_continuous_action", layers, _take_box(tensors))


def _td3(tensors: dict[str, Tensor]) -> FoundNetwork:
    layers = NetworkLayers(_take_torso(tensors), take_layer(tensors, "fc_mu"), "actions")
    return FoundNetwork(_LIBRARY, "td3_continuous_action", layers, _take_box(tensors))


def _take_torso(tensors: dict[str, Tensor]) -> tuple[Layer, ...]:
    return take_layer(tensors, "fc1"), take_layer(tensors, "fc2")


def _take_box(tensors: dict[str, Tensor]) -> ActionLayout:
    """Return the box that an actor's own scale and bias say."""
    scale, bias = tensors.pop("action_scale").double().flatten(), tensors.pop("action_bias").double().flatten()
    if scale.shape != bias.shape:
        raise UnknownLayersError(f"action_scale of {len(scale)} and action_bias of {len(bias)}")
    return ActionLayout(
        "box", (len(scale),), tuple((bias - scale).tolist()), tuple((bias + scale).tolist()), "tanh_rescale"
    )


# By the first words of the tensors' names.
_FINDERS: Mapping[frozenset[str], Callable[[dict[str, Tensor]], FoundNetwork]] = {
    frozenset({"network"}): _q_network,
    frozenset({"network", "atoms"}): _c51,
    frozenset({"network", "actor", "critic"}): _ppo_atari,
    frozenset({"actor", "critic"}): _ppo,
    frozenset({"actor_mean", "actor_logstd", "critic"}): _ppo_continuous,
    frozenset({"fc1", "fc2", "fc_mean", "fc_logstd", "action_scale", "action_bias"}): _sac,
    frozenset({"fc1", "fc2", "fc_mu", "action_scale", "action_bias"}): _td3,
}
