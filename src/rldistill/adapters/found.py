"""A network that was recognised in somebody's state dict, and the policy of ours that it becomes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rldistill.errors import MismatchError, PolicyFileError, UsageError
from rldistill.networks import Architecture, GaussianOptions, InputNormalization, PolicyNetwork, ValueAtoms
from rldistill.networks.output_layer import DEFAULT_GAUSSIAN
from rldistill.policies import HeadSpec, PolicySpec, TorchPolicy
from rldistill.policies.behaviour import Behaviour
from rldistill.storage import sha256_file
from rldistill.tasks import UNNAMED_TASK, ObservationFingerprint, Task
from rldistill.types import ActionLayout, OutputKind

OWN_MODULE = "Load them into a module of your own, in Python: rd.load_policy(path, module=…, task=…, outputs=…)."

Layer = tuple[Tensor, Tensor]
"""Weight and bias."""


@dataclass(frozen=True)
class FoundNetwork:
    """The actor in a state dict, in our terms.

    Attributes:
        library: that wrote it.
        algorithm: as the library calls it; None: nobody says it.
        architecture: of torso and head.
        observation_shape: as far as the weights say; the task says it better.
        observation_dtype: likewise.
        output_kind: which action field its outputs are.
        torso: layers and norms below the output, in order.
        output: the last layer.
        layout: of the actions; None: a box whose bounds the task says, to which outputs are clipped.
        value: the layer of a state value on the same features.
        spread: of a Gaussian: a layer, or log standard deviations `[D]`.
        gaussian: how the spread is to be read.
        atoms: of a value distribution.
        normalization: of the observations.
        input_scale: factor on the observations.
        behaviour: how the library plays such a policy.
        clip: to which the library clips normalised observations, where it normalises them by statistics.
        known_by: what tells that the library wrote it: names that nobody else gives, or, where others give them too,
            the suffix of its files; `nothing`: no script of the library has such a network.
        guesses: what was guessed because neither file nor user says it.
        without_normalizer: what may make it play badly unless somebody names its running statistics.
        normalizer: what is recorded of the file in which they were named.
        unused: tensors that belong to no actor.
        notes: what may make it play badly.
    """

    library: str
    algorithm: str | None
    architecture: Architecture
    observation_shape: tuple[int, ...]
    output_kind: OutputKind
    torso: Sequence[Layer]
    output: Layer
    layout: ActionLayout | None
    observation_dtype: str = "float32"
    value: Layer | None = None
    spread: Layer | Tensor | None = None
    gaussian: GaussianOptions = DEFAULT_GAUSSIAN
    atoms: ValueAtoms | None = None
    normalization: InputNormalization | None = None
    input_scale: float = 1.0
    behaviour: Behaviour = "greedy"
    clip: float | None = None
    known_by: Literal["names", "suffix", "nothing"] = "names"
    guesses: tuple[str, ...] = ()
    without_normalizer: str | None = None
    normalizer: Mapping[str, Any] | None = None
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def label(self) -> str:
        """Library and algorithm, as messages call them."""
        return self.library if self.algorithm is None else f"{self.library} {self.algorithm}"


def build_policy(
    found: FoundNetwork, path: Path, task: Task | None, behaviour: Behaviour | None, converted_from: tuple[str, ...]
) -> TorchPolicy:
    """Return a policy of our own with the weights that were found.

    Args:
        found: the network.
        path: of its file.
        task: that it plays; None: one without a name.
        behaviour: how it acts; None: as its library plays it.
        converted_from: floating types of the file other than float32.

    Raises:
        MismatchError: it does not fit the task.
        PolicyFileError: its layers do not fit each other.
        UsageError: the task must be named.
    """
    own_task = _task_of(found, path, task)
    normalization = found.normalization
    spec = PolicySpec(
        name=path.stem,
        architecture=found.architecture,
        heads=(HeadSpec(own_task),),
        output_kind=found.output_kind,
        behaviour=behaviour or found.behaviour,
        input_scale=found.input_scale,
        normalization=None if normalization is None else normalization.settings,
        gaussian=found.gaussian,
        atoms=found.atoms,
        provenance={"source": _provenance(found, path, converted_from)},
    )
    with torch.device("meta"):
        network = PolicyNetwork(
            found.architecture,
            spec.observation_shape,
            spec.output_layers,
            input_scale=found.input_scale,
            normalization=normalization,
        )
    _fill(network, found, path)
    return TorchPolicy(network, spec)


def _task_of(found: FoundNetwork, path: Path, task: Task | None) -> Task:
    """Return the task with the observations that the network takes and its own reading of the actions."""
    what = f"Policy file {path} ({found.label})"
    if task is None:
        if found.layout is None:
            raise UsageError(f"{what} does not say in which range its actions lie. Name its task: --task ID.")
        fingerprint = ObservationFingerprint(found.observation_shape, found.observation_dtype, found.layout)
        return Task(UNNAMED_TASK, fingerprint)
    own = task.fingerprint
    num_inputs = math.prod(found.observation_shape)
    if found.architecture.kind == "mlp" and math.prod(own.observation_shape) != num_inputs:
        raise MismatchError(
            f"{what} takes {num_inputs} numbers, task {task.name!r} gives observations {list(own.observation_shape)}. "
            "Was it trained on another task?"
        )
    return replace(task, fingerprint=replace(own, action_layout=_layout_of(found, what, task)))


def _layout_of(found: FoundNetwork, what: str, task: Task) -> ActionLayout:
    """Return the actions as the network's maker read them, with the task's bounds where it did not say them."""
    of_task = task.fingerprint.action_layout
    kind, sizes = (
        ("box", (found.output[1].numel(),)) if found.layout is None else (found.layout.kind, found.layout.sizes)
    )
    if (kind, sizes) != (of_task.kind, of_task.sizes):
        raise MismatchError(
            f"{what} has actions {kind} {list(sizes)}, task {task.name!r} has {of_task.kind} {list(of_task.sizes)}. "
            "Was it trained on another task?"
        )
    return replace(of_task, mapping="clip") if found.layout is None else found.layout


def _fill(network: PolicyNetwork, found: FoundNetwork, path: Path) -> None:
    """Give a network on the meta device its weights."""
    expected = {name: _kind(tensor) for name, tensor in network.state_dict().items()}
    state = _state(found, [name for name in expected if name.startswith("torso.")])
    got = {name: _kind(tensor) for name, tensor in state.items()}
    if wrong := [name for name in expected | got if expected.get(name) != got.get(name)]:
        listing = ", ".join(
            f"{name} {got.get(name, 'missing')} instead of {expected.get(name, 'nothing')}" for name in wrong[:4]
        )
        raise PolicyFileError(
            f"Policy file {path} ({found.label}): its layers do not fit observations "
            f"{list(network.observation_shape)}: {listing}. {OWN_MODULE}"
        )
    own = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    network.load_state_dict(own, assign=True)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    network.use_channels_last()


def _kind(tensor: Tensor) -> str:
    """Return the shape of a tensor, and its type where that is none of a weight."""
    return f"{list(tensor.shape)}{'' if tensor.is_floating_point() else ' of whole numbers'}"


def _state(found: FoundNetwork, torso_names: Sequence[str]) -> dict[str, Tensor]:
    """Return the tensors under our names: those of the torso go by their order."""
    given = [tensor for layer in found.torso for tensor in layer]
    names = [*torso_names, *(f"torso.beyond.{index}" for index in range(len(given) - len(torso_names)))]
    state = dict(zip(names, given, strict=False)) | _pair("heads.0.output", found.output)
    if found.value is not None:
        state |= _pair("heads.0.value", found.value)
    if isinstance(found.spread, Tensor):
        state["heads.0.rows.log_std"] = found.spread
    elif found.spread is not None:
        state |= _pair("heads.0.rows.log_std_layer", found.spread)
    if found.normalization is not None:
        state["scale.mean"] = torch.tensor(found.normalization.mean, dtype=torch.float64)
        state["scale.variance"] = torch.tensor(found.normalization.variance, dtype=torch.float64)
    return state


def _pair(name: str, layer: Layer) -> dict[str, Tensor]:
    return {f"{name}.weight": layer[0], f"{name}.bias": layer[1]}


def _provenance(found: FoundNetwork, path: Path, converted_from: tuple[str, ...]) -> Mapping[str, Any]:
    named = {} if found.normalizer is None else {"normalizer": dict(found.normalizer)}
    return named | {
        "format": found.library,
        "file": path.name,
        "sha256": sha256_file(path),
        "algorithm": found.algorithm,
        "unused": list(found.unused),
        "weights_converted_from": list(converted_from),
        "notes": list(found.notes),
    }
