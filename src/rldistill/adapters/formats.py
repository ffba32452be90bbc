"""What adapters share: how a format's files are recognised and loaded, and what a network in them becomes.

Each adapter of a file format declares one `Format`; `load.FORMATS` is the table of all. An adapter of a library's
checkpoints returns a `FoundNetwork`, the actor in our terms, which becomes a policy of ours here.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from rldistill.adapters.program import ProgramPolicy
from rldistill.errors import MismatchError, PolicyFileError, TeacherWarning, UsageError, first_line
from rldistill.networks import PolicyNetwork
from rldistill.networks.architecture import Activation
from rldistill.networks.layers import MisfitError, NetworkLayers, fill_network
from rldistill.networks.outputs import OutputDeclaration
from rldistill.options.reading import Reading
from rldistill.policies import HeadSpec, PolicySpec, TorchPolicy
from rldistill.policies.behaviour import Behaviour
from rldistill.storage import sha256_file
from rldistill.tasks import UNNAMED_TASK, ObservationFingerprint, Task
from rldistill.types import ActionLayout, BoxMapping


def warn(message: str) -> None:
    """Warn in one line, where the adapter was called."""
    warnings.warn(message, TeacherWarning, stacklevel=3)


FileKind = str
"""What the code calls a format: `policy`, `sb3`, `onnx`, `torchscript`, `torch_export` or `weights`."""
LoadedPolicy = TorchPolicy | ProgramPolicy


@dataclass(frozen=True)
class FileStart:
    """The beginning of a file, by which its format is recognised without running anything of it."""

    path: Path
    head: bytes  # its first 64 bytes
    members: frozenset[str] = frozenset()  # names in a zip archive; empty for any other file

    @property
    def is_zip(self) -> bool:
        """Whether it is a zip archive."""
        return self.head.startswith(b"PK")

    @property
    def below_root(self) -> set[str]:
        """Names of the members without the folder of any name in which torch puts them all."""
        return {name.partition("/")[2] for name in self.members}


@dataclass(frozen=True)
class Format:
    """One format of policy files."""

    kind: FileKind  # its name in the code
    name: str  # as messages call it
    # Whether a file is of this format; formats are asked in the order of the table.
    recognises: Callable[[FileStart], bool]
    # Path, what the user says, the task, and a module to load weights into, to a policy on the CPU.
    load: Callable[[Path, Reading, Task | None, nn.Module | None], LoadedPolicy]
    # What may be said of its files beside task, outputs and behaviour; `outputs` stands among them where the files do
    # not say their outputs themselves. Other words are refused rather than ignored.
    words: frozenset[str] = frozenset()
    # Whether the files say what they were trained on: another task is then no error until they play it.
    says_task: bool = False


OWN_MODULE = "Load them into a module of your own, in Python: rd.load_policy(path, module=…, task=…, outputs=…)."
_ATARI_SHAPE = (84, 84)


@dataclass(frozen=True)
class Said:
    """What a user says of a checkpoint, which does not say it itself."""

    path: Path
    task: Task | None = None  # that it plays
    activation: Activation | None = None  # after its hidden layers
    outputs: OutputDeclaration | None = None  # what its outputs are
    normalizer: str | Path | None = None  # file with the running statistics of its observations, or `none`
    input_scale: float | None = None  # factor on the bytes of images

    @property
    def source(self) -> str:
        """What messages call the file."""
        return f"Policy file {self.path}"

    @property
    def action_layout(self) -> ActionLayout | None:
        """Of the task; None where none is named."""
        return None if self.task is None else self.task.fingerprint.action_layout


@dataclass(frozen=True)
class FoundNetwork:
    """The actor in a checkpoint, in our terms."""

    library: str  # that wrote it
    algorithm: str | None  # as the library calls it; None: unknown
    layers: NetworkLayers
    layout: ActionLayout | None  # of the actions; None: a box whose bounds the task says
    mapping: BoxMapping = "clip"  # how outputs reach that box
    behaviour: Behaviour = "greedy"  # how the library plays such a policy
    # To which the library clips normalised observations, where it normalises them by statistics.
    clip: float | None = None
    # What tells that the library wrote it: `names` of tensors that no other program gives, or the `suffix` of its files
    # where others give them too; `nothing`: no script of the library has such a network.
    known_by: Literal["names", "suffix", "nothing"] = "names"
    # Whether the library keeps the statistics of observations among the weights, if anywhere.
    holds_statistics: bool = False
    without_normalizer: str | None = None  # what may make it play badly unless the user names its running statistics
    normalizer: Mapping[str, Any] | None = None  # what is recorded of the file of these statistics
    unused: tuple[str, ...] = ()  # tensors that belong to no actor
    guesses: tuple[str, ...] = ()  # what was guessed because neither file nor user says it
    notes: tuple[str, ...] = ()  # what may make it play badly

    @property
    def label(self) -> str:
        """Library and algorithm, as messages call them."""
        return self.library if self.algorithm is None else f"{self.library} {self.algorithm}"

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """As far as the weights say it; the task says it better."""
        num_inputs = self.layers.first.weight.shape[1]
        return (num_inputs, *_ATARI_SHAPE) if self.layers.first.is_convolution else (num_inputs,)

    @property
    def num_inputs(self) -> int:
        """Numbers in an observation."""
        return math.prod(self.observation_shape)


def unknown_activation(files: str, taken: str) -> str:
    """Return the note on files that do not say their activation, and on which one is taken."""
    return (
        f"{files} do not say their activation: taken is {taken}. If the training's configuration says another, name "
        "it: --activation relu (in Python activation='relu')."
    )


def make_policy(
    layers: NetworkLayers, task: Task, *, name: str, behaviour: Behaviour, provenance: Mapping[str, Any]
) -> TorchPolicy:
    """Return a policy of our own with the weights of these layers.

    Raises MisfitError where they do not fit the task, ValueError where they make no network.
    """
    spec = PolicySpec(
        name=name,
        architecture=layers.architecture,
        heads=(HeadSpec(task),),
        output_kind=layers.kind,
        behaviour=behaviour,
        input_scale=layers.input_scale,
        gaussian=layers.gaussian,
        atoms=layers.atoms,
        is_beta=layers.is_beta,
        normalization=None if layers.normalization is None else layers.normalization.settings,
        provenance=provenance,
    )
    # On the meta device a network of any declared size costs nothing until its shapes are checked.
    with torch.device("meta"):
        policy = TorchPolicy.from_spec(spec, [layers.normalization])
    assert isinstance(policy.network, PolicyNetwork), "made of layers"
    fill_network(policy.network, layers)
    return policy


def build_policy(
    found: FoundNetwork, said: Said, behaviour: Behaviour | None, converted_from: tuple[str, ...]
) -> TorchPolicy:
    """Return a policy of our own with the weights that were found.

    Raises:
        MismatchError: it does not fit the task.
        PolicyFileError: its layers do not fit each other, or make no network.
        UsageError: the task must be named.
    """
    own_task = _task_of(found, said)
    provenance = {"source": _provenance(found, said.path, converted_from)}
    acts = behaviour or found.behaviour
    try:
        return make_policy(found.layers, own_task, name=said.path.stem, behaviour=acts, provenance=provenance)
    except MisfitError as error:
        shape = list(own_task.fingerprint.observation_shape)
        raise PolicyFileError(
            f"{said.source} ({found.label}): its layers do not fit observations {shape}: {error}. {OWN_MODULE}"
        ) from error
    except ValueError as error:
        raise PolicyFileError(f"{said.source} makes no policy: {first_line(error)}. {OWN_MODULE}") from error


def _task_of(found: FoundNetwork, said: Said) -> Task:
    """Return the task with the observations that the network takes and its own reading of the actions."""
    what, task = f"{said.source} ({found.label})", said.task
    if task is None:
        if found.layout is None:
            raise UsageError(f"{what} does not say in which range its actions lie. Name its task: --task ID.")
        dtype = "uint8" if found.layers.first.is_convolution else "float32"
        return Task(UNNAMED_TASK, ObservationFingerprint(found.observation_shape, dtype, found.layout))
    own = task.fingerprint
    if not found.layers.first.is_convolution and math.prod(own.observation_shape) != found.num_inputs:
        raise MismatchError(
            f"{what} takes {found.num_inputs} numbers, task {task.name!r} gives observations "
            f"{list(own.observation_shape)}. Was it trained on another task?"
        )
    return replace(task, fingerprint=replace(own, action_layout=_layout_of(found, what, task)))


def _layout_of(found: FoundNetwork, what: str, task: Task) -> ActionLayout:
    """Return the actions as the network's maker read them, with the task's bounds where it did not say them."""
    of_task = task.fingerprint.action_layout
    kind, sizes = (
        ("box", (len(found.layers.output.bias) // (2 if found.layers.is_beta else 1),))
        if found.layout is None
        else (found.layout.kind, found.layout.sizes)
    )
    if (kind, sizes) != (of_task.kind, of_task.sizes):
        raise MismatchError(
            f"{what} has actions {kind} {list(sizes)}, task {task.name!r} has {of_task.kind} {list(of_task.sizes)}. "
            "Was it trained on another task?"
        )
    if found.mapping == "tanh_rescale" and not of_task.is_bounded:
        raise MismatchError(f"{what}: its tanh reaches the bounds of a box, and that of task {task.name!r} has none.")
    if found.layout is None:
        return replace(of_task, mapping=found.mapping)
    return replace(found.layout, start=of_task.start)


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
