"""Files of `torch.save` and bare safetensors: read as data, recognised by their tensors' names, rebuilt as ours."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from rldistill.adapters.arrays import NumpyArray
from rldistill.adapters.cleanrl import CLEANRL_SUFFIX, find_cleanrl
from rldistill.adapters.containers import (
    StatisticsBeside,
    is_statistics,
    names_of,
    no_known_state_dict,
    statistics_beside,
)
from rldistill.adapters.found import OWN_MODULE, FoundNetwork, build_policy
from rldistill.adapters.functions import check_module, module_policy
from rldistill.adapters.memory import RecurrentError, memory_among, recurrent
from rldistill.adapters.normalizer_file import normalization_for
from rldistill.adapters.notices import warn
from rldistill.adapters.rsl_rl import check_one_output_per_action, find_rsl_rl
from rldistill.adapters.sequential import UnknownLayersError, shown_tensors
from rldistill.adapters.weights import read_tensors, read_weights, unwrapped_names
from rldistill.errors import PolicyFileError, UsageError, first_line
from rldistill.networks import Architecture, InputNormalization
from rldistill.networks.architecture import Activation
from rldistill.networks.outputs import OutputDeclaration, parse_outputs
from rldistill.options.reading import WITHOUT_NORMALIZER
from rldistill.policies import TorchPolicy
from rldistill.policies.behaviour import Behaviour
from rldistill.tasks import Task

MAX_BYTES = 2**31
"""Of a file: a policy of 500 million float32 weights, or a tenth of that with an optimiser's state."""
# Under which a state dict lies in the files of several libraries.
_CONTAINERS = ("model_weights", "state_dict", "model_state_dict", "actor_state_dict", "model", "actor")
# Not part of the note that the policy keeps: what can be done is no part of its identity.
_SAVE_STATISTICS = "Save their mean and var to an .npz and name it with --normalizer (in Python normalizer=)."


def load_checkpoint(
    path: Path,
    task: Task | None,
    *,
    behaviour: Behaviour | None,
    activation: str | None,
    normalizer: str | Path | None = None,
    outputs: str | None = None,
) -> TorchPolicy:
    """Return the policy in a checkpoint of CleanRL or rsl_rl, as one of our own.

    Args:
        path: the file.
        task: that it plays; None: one without a name, where the weights say enough.
        behaviour: how it acts; None: as its library plays it.
        activation: after its hidden layers; None: rsl_rl's default, or that of CleanRL's script, with a warning.
        normalizer: file with the running statistics of its observations; None: those that it holds; `"none"`: without.
        outputs: `logits` where a network that is taken for one of Q-values is a policy.

    Raises:
        PolicyFileError: it cannot be read as data, its layers are unknown (lists them), or it has a memory.
        MismatchError: it does not fit the task, or the statistics do not fit it.
        UsageError: the task must be named, the activation is unknown or that of a network that has but one, or it holds
            statistics whose use is not known.
    """
    source = f"Policy file {path}"
    content = read_tensors(_bytes_of(path), source=source)
    chosen = _activation(activation)
    try:
        checked, converted = _checked(content, source)
        found = find_rsl_rl(checked, activation=chosen)
        if found is None:
            found = _as_said(_find_state_dict(checked, path), path, outputs=outputs, activation=chosen)
            found = _with_statistics_beside(found, checked, source, normalizer)
    except RecurrentError as error:
        raise PolicyFileError(recurrent(source, str(error))) from error
    except UnknownLayersError as error:
        raise PolicyFileError(f"{source}: its layers are not known: {str(error).rstrip('.')}. {OWN_MODULE}") from error
    except (ValueError, LookupError) as error:  # shapes that no layer has, numbers that no description holds
        raise PolicyFileError(f"{source}: its layers are not known: {first_line(error)}. {OWN_MODULE}") from error
    found = _with_normalizer(found, source, normalizer)
    check_one_output_per_action(found, task, source)
    try:
        policy = build_policy(found, path, task, behaviour, converted)
    except ValueError as error:
        raise PolicyFileError(f"{source} makes no policy: {first_line(error)}. {OWN_MODULE}") from error
    for guess in found.guesses:
        warn(f"{source}: {guess}")
    for note in found.notes:
        remedy = f" {_SAVE_STATISTICS}" if note == found.without_normalizer else ""
        warn(f"{source}: {note}{remedy}")
    return policy


def _as_said(found: FoundNetwork, path: Path, *, outputs: str | None, activation: Activation | None) -> FoundNetwork:
    """Return a network as its user says that it was made; what nobody says is a guess."""
    found = _with_activation(found, activation, f"Policy file {path}")
    has_suffix = path.suffix == CLEANRL_SUFFIX and found.known_by != "nothing"
    script, architecture = found.algorithm, found.architecture
    guesses: dict[str, str] = {}
    if activation is None and not has_suffix and _can_have_another(architecture):
        other = "relu" if architecture.activation == "tanh" else "tanh"
        guesses[f"its activation (taken is {architecture.activation})"] = f"--activation {other}"
    if found.known_by != "names" and not has_suffix:
        found = replace(found, library="state dict", algorithm=None)
        if found.output_kind == "q_values" and outputs is None:
            guesses["what its outputs are (taken are Q-values)"] = "--outputs logits"
        elif found.output_kind == "q_values" and parse_outputs(outputs or "") == OutputDeclaration("logits"):
            found = replace(found, output_kind="logits")
    if not guesses:
        return found
    in_python = ", ".join(_in_python(option) for option in guesses.values())
    guess = (
        f"the file does not say {' or '.join(guesses)}, as in CleanRL's {script}. If it was trained otherwise, say so: "
        f"{' '.join(guesses.values())} (in Python {in_python})."
    )
    return replace(found, guesses=(guess,))


def _can_have_another(architecture: Architecture) -> bool:
    return architecture.kind != "impala" and bool(architecture.hidden or architecture.channels)


def _in_python(option: str) -> str:
    name, _, value = option.removeprefix("--").partition(" ")
    return f"{name}={value!r}"


def _with_activation(found: FoundNetwork, activation: Activation | None, source: str) -> FoundNetwork:
    """Return a network with the activation that its user trained it with, in a script that was changed."""
    architecture = found.architecture
    if activation in (None, architecture.activation):
        return found
    if architecture.kind == "impala":
        raise UsageError(
            f"{source} ({found.label}): got activation {activation}, and its residual blocks know "
            f"{architecture.activation} alone. Leave activation out."
        )
    return replace(found, architecture=replace(architecture, activation=activation))


def _with_statistics_beside(
    found: FoundNetwork, content: object, source: str, normalizer: str | Path | None
) -> FoundNetwork:
    """Return a network with the statistics that its file holds beside its weights, where their use is known."""
    beside = statistics_beside(content)
    if normalizer is not None or not beside:
        return found
    numbers = beside[0].numbers(source) if len(beside) == 1 else None
    if found.clip is None or numbers is None or len(numbers[0]) != math.prod(found.observation_shape):
        raise _unused_statistics(source, beside)
    mean, variance = numbers
    return replace(
        found,
        normalization=InputNormalization(mean, variance, epsilon=1e-8, clip=found.clip),
        normalizer={"inside": names_of(beside)},
        without_normalizer=None,
    )


def _unused_statistics(source: str, beside: Sequence[StatisticsBeside]) -> UsageError:
    return UsageError(
        f"{source} holds running statistics beside its weights ({names_of(beside)}), and does not say how they are "
        "used. If they are those of its observations, save them as mean and var (and clip) to an .npz and name it with "
        "--normalizer (in Python normalizer=); else say --normalizer none."
    )


def _with_normalizer(found: FoundNetwork, source: str, normalizer: str | Path | None) -> FoundNetwork:
    """Return a network with the running statistics that its user names, or without any."""
    if normalizer is None:
        unsaid = found.without_normalizer
        return found if unsaid is None else replace(found, notes=(*found.notes, unsaid))
    if normalizer == WITHOUT_NORMALIZER:
        return replace(found, normalization=None)
    if found.normalization is not None:
        raise UsageError(f"{source} holds the statistics of its observations itself: leave normalizer out.")
    what = f"{source} ({found.label})"
    if found.architecture.kind != "mlp":
        raise UsageError(f"{what} takes images, which are not normalised by running statistics: leave normalizer out.")
    num_inputs = math.prod(found.observation_shape)
    normalization, entry = normalization_for(Path(normalizer), num_inputs, policy=what)
    return replace(found, normalization=normalization, normalizer=entry)


def load_into_module(
    path: Path,
    module: nn.Module,
    task: Task | None,
    *,
    outputs: str | None,
    behaviour: Behaviour | None,
    normalizer: str | Path | None = None,
) -> TorchPolicy:
    """Return a policy around a module of one's own, after replacing its weights by those of a file.

    Raises:
        PolicyFileError: the file holds no state dict, or not this module's.
        MismatchError: the normaliser's statistics are of other observations, or the task's actions have no such
            outputs.
        UsageError: as `check_module`, or a weight of the module has no shape; nothing of it was replaced then.
    """
    source = f"Policy file {path}"
    task, _ = check_module(module, task, outputs)
    normalization = _of_task(task, source, normalizer)
    buffers = unwrapped_names([name for name, _ in module.named_buffers()])
    checked, _ = _checked(read_tensors(_bytes_of(path), source=source), source, may_be_infinite=buffers)
    dicts = _state_dicts(checked)
    if not dicts:
        raise no_known_state_dict(path, checked, _names_of_state_dicts(checked))
    if normalizer is None and (beside := statistics_beside(checked)):
        raise _unused_statistics(source, beside)
    if lazy := [name for name, tensor in module.state_dict().items() if is_lazy(tensor)]:
        raise UsageError(
            f"Module {type(module).__name__}: weight {lazy[0]} has no shape yet. Call the module on a batch of "
            "observations before you pass it."
        )
    own = dict(zip(unwrapped_names(module.state_dict()), module.state_dict(), strict=True))
    expected = {name: module.state_dict()[own[name]].shape for name in own}
    for tensors in dicts:
        if {name: tensor.shape for name, tensor in tensors.items()} == expected:
            module.load_state_dict({own[name]: tensor for name, tensor in tensors.items()})
            acts = behaviour or "greedy"
            return module_policy(module, task, outputs=outputs, behaviour=acts, normalization=normalization)
    raise PolicyFileError(
        f"{source}: its tensors are not those of {type(module).__name__}: got {shown_tensors(dicts[0])}, expected "
        f"{shown_tensors(module.state_dict())}. Pass the module that it was saved from."
    )


def _of_task(task: Task, source: str, normalizer: str | Path | None) -> InputNormalization | None:
    if normalizer is None or normalizer == WITHOUT_NORMALIZER:
        return None
    return normalization_for(Path(normalizer), math.prod(task.fingerprint.observation_shape), policy=source)[0]


def _bytes_of(path: Path) -> bytes:
    num_bytes = path.stat().st_size
    if num_bytes > MAX_BYTES:
        raise PolicyFileError(
            f"Policy file {path} takes {num_bytes / 2**20:,.0f} MiB, the most that is read is {MAX_BYTES // 2**20} "
            "MiB. Save the state dict of the actor alone."
        )
    return path.read_bytes()


def _activation(name: str | None) -> Activation | None:
    if name is not None and name not in get_args(Activation):
        raise UsageError(f"activation: got {name!r}, expected one of {', '.join(get_args(Activation))}.")
    return cast(Activation | None, name)


def _checked(content: object, source: str, *, may_be_infinite: Collection[str] = ()) -> tuple[object, tuple[str, ...]]:
    """Return the content with every state dict in it checked and in float32, and what it was converted from."""
    converted: set[str] = set()

    def check(value: object, name: str) -> object:
        if _is_state_dict(value):
            tensors = _as_tensors(cast(Mapping[Any, Any], value))
            weights = read_weights(tensors, source=f"{source}{name}", may_be_infinite=may_be_infinite)
            converted.update(weights.converted_from)
            return dict(zip(unwrapped_names(weights.tensors), weights.tensors.values(), strict=True))
        if isinstance(value, Mapping):
            return {key: check(item, f", {key}") for key, item in value.items() if "optimizer" not in str(key)}
        if isinstance(value, list | tuple):
            return [check(item, f", {index}") for index, item in enumerate(value)]
        return value.tensor if isinstance(value, NumpyArray) else value

    return check(content, ""), tuple(sorted(converted))


def _as_tensors(state_dict: Mapping[Any, Any]) -> dict[Any, Any]:
    return {name: item.tensor if isinstance(item, NumpyArray) else item for name, item in state_dict.items()}


def _is_state_dict(value: object) -> bool:
    """Are these tensors by name? Tensors beside a state dict, such as a count of steps, make none."""
    return (
        _has_tensors(value)
        and not any(_has_tensors(item) for item in cast(Mapping[Any, Any], value).values())
        and not is_statistics(value)
    )


def _has_tensors(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(item, Tensor | NumpyArray) for item in value.values())


def _state_dicts(content: object) -> Sequence[Mapping[str, Tensor]]:
    """Return the state dicts of a file, in the order in which one of them may be the actor's."""
    if _is_state_dict(content):
        return [cast(Mapping[str, Tensor], content)]
    if isinstance(content, list):
        return [item for item in content if _is_state_dict(item)]
    if isinstance(content, Mapping):
        return [content[name] for name in _CONTAINERS if _is_state_dict(content.get(name))]
    return []


def _find_state_dict(content: object, path: Path) -> FoundNetwork:
    dicts = _state_dicts(content)
    for tensors in dicts:
        if memory := memory_among(tensors):
            raise RecurrentError(memory)
        found = find_cleanrl(tensors)
        if found is not None:
            return found
    if not dicts:
        raise no_known_state_dict(path, content, _names_of_state_dicts(content))
    raise UnknownLayersError(f"got {shown_tensors(dicts[0])}, expected those of CleanRL or rsl_rl")


def _names_of_state_dicts(content: object) -> list[str]:
    return [str(name) for name, part in content.items() if _is_state_dict(part)] if isinstance(content, Mapping) else []
