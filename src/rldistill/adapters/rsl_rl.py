"""rsl_rl's checkpoints: the actor among the state dicts of a runner.

Read are checkpoints of rsl_rl 1 to 3 (`model_state_dict`) and of 4 and later (`actor_state_dict`), with
or without normalisation of observations, and with or without a memory below the layers; of those of its
distillation, the student. What a checkpoint does not say: the activation, and the bounds of actions. Layout as
of rsl_rl's commit c281c32 and its tags v1.0 to v3.3; of distillation and memories also v5.5.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rldistill.adapters.contents import UnknownLayersError, normalization_by_std, take_cells, take_layers
from rldistill.adapters.formats import FoundNetwork, Said, unknown_activation
from rldistill.errors import PolicyFileError, listed
from rldistill.networks import GaussianOptions, InputNormalization
from rldistill.networks.architecture import Activation
from rldistill.networks.layers import Layer, NetworkLayers
from rldistill.networks.outputs import BETA_MEANS, OutputDeclaration

_DEFAULT_ACTIVATION: Activation = "elu"
_SMALLEST_STD = 1e-6
_SPREADS = ("std", "log_std", "distribution.")
# rsl_rl adds this to the standard deviation, not to the variance.
_NORMALIZER_EPSILON = 1e-2
_NOT_ITS_TEACHER = "it is a checkpoint of rsl_rl's distillation: loaded is its student, not its teacher."
_NO_ACTIVATION = unknown_activation("rsl_rl's checkpoints", f"{_DEFAULT_ACTIVATION}, its default")
_TWO_DISTRIBUTIONS = (
    "With two outputs for each action it is a Gaussian whose std depends on the state, or a Beta distribution: rsl_rl "
    "writes both alike. Of the Gaussian say --outputs actions (its mean) or, with std_type log, --outputs gaussian; of "
    "the Beta --outputs actions=beta (its mean)."
)


@dataclass(frozen=True)
class _Actor:
    """What acts among the tensors of a checkpoint."""

    tensors: dict[str, Tensor]  # its own, and those that belong to no layer
    prefix: str  # of its layers
    memory: str  # prefix of the recurrent layers below them
    normalizer: str  # prefix of its running statistics
    unused: tuple[str, ...]  # what stands beside it
    is_student: bool = False  # of a distillation, not trained by PPO


def find_rsl_rl(content: object, said: Said) -> FoundNetwork | None:
    """Return the actor in a checkpoint; None where it is no checkpoint of rsl_rl.

    Raises:
        PolicyFileError: it has two outputs for each action of the task.
        UnknownLayersError: it is a checkpoint of rsl_rl, with other layers.
    """
    actor = _find_actor(content) if isinstance(content, Mapping) else None
    if actor is None:
        return None
    tensors = dict(actor.tensors)
    memory = take_cells(tensors, actor.memory)
    *hidden, output = take_layers(tensors, actor.prefix)
    normalization = _take_normalization(tensors, actor.normalizer)
    log_std, odd_std = _take_log_std(tensors)
    is_beta = said.outputs == BETA_MEANS
    if is_beta and (log_std is not None or len(output.bias) % 2):
        has_std = "no std" if log_std is None else "a std"
        raise PolicyFileError(
            f"{said.source} (rsl_rl): got {len(output.bias)} outputs and {has_std}, --outputs actions=beta expects two "
            "outputs for each action and no std. Leave it out, or say --outputs actions or gaussian."
        )
    if log_std is None and said.outputs in (OutputDeclaration("gaussian"), OutputDeclaration("actions")):
        output, log_std = _halves(output, said)
    if tensors:
        raise UnknownLayersError(f"{', '.join(tensors)} beside its layers")
    # Of a student that is said to give actions, and as many as the task has, there is nothing to check.
    if not isinstance(log_std, Layer) and said.outputs != OutputDeclaration("actions") and not is_beta:
        _check_std(log_std, len(output.bias), actor, said)
    layers = NetworkLayers(
        () if memory else tuple(hidden),
        output,
        "actions" if log_std is None else "gaussian",
        memory=memory,
        head=tuple(hidden) if memory else (),
        activation=said.activation or _DEFAULT_ACTIVATION,
        log_std=log_std,
        gaussian=GaussianOptions("state" if isinstance(log_std, Layer) else "parameter"),
        normalization=normalization,
        is_beta=is_beta,
    )
    algorithm = "distillation" if actor.is_student else "ppo"
    notes = (
        *((_NOT_ITS_TEACHER,) if actor.is_student else ()),
        *(() if said.activation else (_NO_ACTIVATION,)),
        *odd_std,
    )
    return FoundNetwork(
        "rsl_rl", algorithm, layers, layout=None, holds_statistics=True, unused=actor.unused, notes=notes
    )


def _halves(output: Layer, said: Said) -> tuple[Layer, Layer | None]:
    """Return the layers of means and of log stds of a std that depends on the state, as its user says that it does.

    The means of all actions come first. A layer of as many outputs as the task has actions has no second half.
    """
    num_actions, odd = divmod(len(output.bias), 2)
    if odd or (said.action_layout is not None and said.action_layout.sizes[0] == len(output.bias)):
        return output, None
    mean, log_std = (
        Layer(output.weight[part], output.bias[part]) for part in (slice(num_actions), slice(num_actions, None))
    )
    return mean, log_std if said.outputs == OutputDeclaration("gaussian") else None


def _find_actor(content: Mapping[str, Any]) -> _Actor | None:
    """Return what may be an actor of rsl_rl, if its tensors are: many programs name their state dicts alike."""
    actor = _named_actor(content)
    if actor is None or not any(name.startswith(actor.prefix) for name in actor.tensors):
        return None
    # Its runner always counts its iterations; what it learns beside layers bears its own names.
    marks = (*_SPREADS, actor.memory, actor.normalizer)
    is_own = "iter" in content or any(name.startswith(marks) for name in actor.tensors)
    return actor if is_own else None


def _named_actor(content: Mapping[str, Any]) -> _Actor | None:
    if isinstance(actor := content.get("actor_state_dict"), Mapping):
        return _Actor(dict(actor), "mlp.", "rnn.rnn.", "obs_normalizer.", ("critic_state_dict",))
    if isinstance(student := content.get("student_state_dict"), Mapping):
        return _Actor(dict(student), "mlp.", "rnn.rnn.", "obs_normalizer.", ("teacher_state_dict",), is_student=True)
    if not isinstance(model := content.get("model_state_dict"), Mapping):
        return None
    is_student = any(name.startswith("student.") for name in model)
    own, other = ("student", "teacher") if is_student else ("actor", "critic")
    beside = (f"{other}.", f"{other}_obs_normalizer.", f"memory_{other[0]}.")
    unused = tuple(name for name in model if name.startswith(beside))
    tensors = {name: tensor for name, tensor in model.items() if name not in unused}
    normalizer = f"{own}_obs_normalizer."
    if isinstance(statistics := content.get("obs_norm_state_dict"), Mapping):
        tensors |= {f"{normalizer}{name}": tensor for name, tensor in statistics.items()}
    return _Actor(tensors, f"{own}.", f"memory_{own[0]}.rnn.", normalizer, unused, is_student)


def _check_std(log_std: Tensor | None, num_outputs: int, actor: _Actor, said: Said) -> None:
    """Check that there is one output, and where the library writes it one std, for each action."""
    if log_std is not None:
        if log_std.shape != (num_outputs,):
            raise UnknownLayersError(f"{num_outputs} outputs and standard deviations of {log_std.numel()}")
        return
    if not actor.is_student:
        raise PolicyFileError(f"{said.source} (rsl_rl ppo) has {num_outputs} outputs and no std. {_TWO_DISTRIBUTIONS}")
    layout = said.action_layout
    if said.task is not None and layout is not None and layout.is_continuous and num_outputs == 2 * layout.sizes[0]:
        raise PolicyFileError(
            f"{said.source} (rsl_rl distillation) has {num_outputs} outputs and no std, task {said.task.name!r} has "
            f"{layout.sizes[0]} actions. {_TWO_DISTRIBUTIONS}"
        )


def _take_log_std(tensors: dict[str, Tensor]) -> tuple[Tensor | None, tuple[str, ...]]:
    """Remove the spread from tensors; returns its logarithm, and what is odd about it."""
    for name in ("std", "distribution.std_param"):
        if name in tensors:
            std = tensors.pop(name).flatten()
            # Mean + std · noise is spread by the size of std, whatever its sign.
            return std.abs().clamp(min=_SMALLEST_STD).log(), _odd_std(std)
    for name in ("log_std", "distribution.log_std_param"):
        if name in tensors:
            return tensors.pop(name).flatten(), ()
    return None, ()


def _odd_std(std: Tensor) -> tuple[str, ...]:
    """Say which standard deviations cannot be; rsl_rl learns them without a limit, until sampling fails."""
    wrong = [(index, value) for index, value in enumerate(std.tolist()) if value < _SMALLEST_STD]
    if not wrong:
        return ()
    listing = listed((f"{value:.3g} for action {index}" for index, value in wrong), 4)
    return (
        f"its std fell to 0 or below in training: got {listing}, read by size, {_SMALLEST_STD:g} at least. Its "
        "mean acts as it did; distil it by its mean alone, as the default loss does (--loss mean_mse), or take an "
        "earlier checkpoint.",
    )


def _take_normalization(tensors: dict[str, Tensor], prefix: str) -> InputNormalization | None:
    """Remove the running statistics of observations."""
    taken = {name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}
    if not taken:
        return None
    if not {"_mean", "_std"} <= taken.keys():
        raise UnknownLayersError(f"a normaliser of {', '.join(taken)}, expected _mean and _std")
    mean, std = (taken[name].double().flatten() for name in ("_mean", "_std"))
    return normalization_by_std(mean, std + _NORMALIZER_EPSILON, clip=math.inf)  # it clips nothing
