"""TorchScript and torch.export files: the policy as one module, for programs that run PyTorch without this library."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rldistill.adapters.contract import CONTRACT_FILE
from rldistill.errors import RldistillError, first_line
from rldistill.exports.formats import ACTION, Export, ExportFormat, Opened, read_back, write_from_memory
from rldistill.exports.states import state_parts
from rldistill.networks import ModuleNetwork
from rldistill.networks.foreign import named_outputs
from rldistill.networks.output_layer import OutputRows
from rldistill.networks.outputs import raw_rows, rescaled
from rldistill.options.reading import Reading
from rldistill.policies import TorchPolicy
from rldistill.types import OUTPUT_FIELDS, OutputKind, State

STATE = "hidden_state"


class ActingModule(nn.Module):
    """A policy's network with its action mapping: observations `[B, …]` to outputs by name, `action` among them.

    Args:
        policy: plays the head that is exported; its network is changed for the trace.
        gives_probabilities: whether choices come with their probabilities.
    """

    low: Tensor
    high: Tensor

    def __init__(self, policy: TorchPolicy, *, gives_probabilities: bool) -> None:
        super().__init__()
        # Who only runs the program pays for no gradients, and a memory does not keep those of its whole episode.
        self.network = policy.network.eval().requires_grad_(False)
        self._head = policy.head
        self._kind: OutputKind = policy.output_kind
        self._layout = policy.tasks[0].fingerprint.action_layout
        self._outputs = policy.spec.declared_outputs
        self._gives_probabilities = gives_probabilities
        self._sizes = [part.size for part in state_parts(policy)]
        # Buffers, as those that rows keep: constants of a traced program would stay on the device of the trace.
        if self._layout.is_continuous:
            self.register_buffer("low", torch.tensor(self._layout.low), persistent=False)
            self.register_buffer("high", torch.tensor(self._layout.high), persistent=False)
        for module in self.network.modules():
            if isinstance(module, OutputRows):
                module.keep_constants()

    def forward(self, observation: Tensor, state: Tensor | None = None) -> dict[str, Tensor]:
        """Return the fields of the output, the greedy action, and the probabilities where they were asked for.

        Args:
            observation: `[B, …]`.
            state: of a policy that remembers, its parts side by side, `[B, S]`; the next is among the answers.
        """
        raw, following = self._rows(observation, None if state is None else state.split(self._sizes, dim=1))
        names = OUTPUT_FIELDS[self._kind]
        fields = dict(zip(names, raw.chunk(len(names), dim=1), strict=True))
        fields[ACTION] = self._greedy_action(fields[names[0]])
        if self._gives_probabilities:
            parts = raw.split(self._layout.sizes, dim=1) if self._layout.kind == "multi_discrete" else (raw,)
            is_binary = self._layout.kind == "multi_binary"
            fields["probabilities"] = raw.sigmoid() if is_binary else torch.cat([p.softmax(1) for p in parts], dim=1)
        return fields if following is None else fields | {STATE: torch.cat(following, dim=1)}

    def _rows(self, observation: Tensor, state: tuple[Tensor, ...] | None) -> tuple[Tensor, State]:
        network = self.network
        if not isinstance(network, ModuleNetwork):
            output = network(observation, self._head, state)
            return output.outputs, output.state
        # A module of its maker's own, without the checks around it, which a tracer cannot follow.
        what = type(network.module).__name__
        answers = named_outputs(what, network.module(network.scale(observation).to(network.weights_dtype)))
        if self._outputs is None:
            return next(iter(answers.values())).float(), None
        rows = raw_rows(what, self._outputs, answers, None)
        return (rescaled(rows, self.low, self.high) if self._outputs.is_scaled else rows), None

    def _greedy_action(self, raw: Tensor) -> Tensor:
        """Do what `choose_actions` does, in torch, with scores `[B, A]`, or with means or actions `[B, D]`."""
        layout = self._layout
        if layout.kind == "box":
            low, high = self.low, self.high
            if self._kind == "gaussian" and layout.mapping == "tanh_rescale":
                raw = low + 0.5 * (torch.tanh(raw) + 1) * (high - low)
            return torch.minimum(torch.maximum(raw, low), high)
        if layout.kind == "multi_binary":
            return (raw > 0).long()
        if layout.kind == "discrete":
            return raw.argmax(dim=1)
        return torch.stack([part.argmax(dim=1) for part in raw.split(layout.sizes, dim=1)], dim=1)


class RememberingModule(nn.Module):
    """A policy that remembers one episode of one robot, as those that run TorchScript on robots expect it.

    What it remembers is a buffer, which every call changes and `reset` empties.

    Args:
        step: observations `[1, …]` and a state `[1, S]` to outputs by name, the next state among them.
        num_values: S.
    """

    hidden_state: Tensor

    def __init__(self, step: nn.Module, num_values: int) -> None:
        super().__init__()
        self.step = step
        self.register_buffer(STATE, torch.zeros(1, num_values))

    def forward(self, observation: Tensor) -> dict[str, Tensor]:
        """Return the outputs by name for the next observation of an episode, `[1, …]`."""
        if observation.shape[0] != 1:
            raise ValueError("this policy remembers one episode: give it one observation, [1, ...]")
        answers: dict[str, Tensor] = self.step(observation, self.hidden_state)
        self.hidden_state = answers.pop("hidden_state").detach()
        return answers

    @torch.jit.export
    def reset(self) -> None:
        """Begin an episode."""
        self.hidden_state = torch.zeros_like(self.hidden_state)


def _module(export: Export, name: str) -> tuple[nn.Module, Tensor]:
    """Return the module of an export, and observations to trace it with.

    Raises:
        RldistillError: a module of its maker's own cannot be copied.
    """
    try:
        # What is made of it for the trace, its mode too, is not to be seen in the policy.
        policy = export.policy.copy()
    except Exception as error:  # whatever it keeps besides tensors
        raise RldistillError(
            f"--to {name}: the network of policy {export.policy.name!r} cannot be copied: {first_line(error)[:200]}. "
            "Let it keep nothing but tensors and plain values: no locks, files or connections."
        ) from error
    fingerprint = policy.tasks[0].fingerprint
    dtype = torch.uint8 if fingerprint.observation_dtype == "uint8" else torch.float32
    module = ActingModule(policy, gives_probabilities=export.gives_probabilities)
    return module.eval(), torch.zeros(2, *fingerprint.observation_shape, dtype=dtype)


def _write_torchscript(export: Export, path: Path) -> None:
    num_remembered = sum(part.size for part in state_parts(export.policy))
    module, rows = _module(export, "torchscript")
    with warnings.catch_warnings(), torch.enable_grad():
        # Of what is fixed while it is traced (shapes but for the batch, the head), and that torch prefers torch.export.
        warnings.simplefilter("ignore")
        try:
            inputs = (rows, torch.zeros(len(rows), num_remembered)) if num_remembered else (rows,)
            # Not in inference mode, in which our layers look at where rows lie: that is no part of the program.
            traced: Any = torch.jit.trace(module, inputs, strict=False, check_trace=False)
            if num_remembered:
                traced = torch.jit.script(RememberingModule(traced, num_remembered))
        except Exception as error:  # whatever a module of its maker's own does to a tracer
            raise _untraceable(export, "torchscript", error) from error
        contract = {CONTRACT_FILE: json.dumps(export.contract)}
        write_from_memory(path, lambda file: torch.jit.save(traced, file, _extra_files=contract))


def _write_exported(export: Export, path: Path) -> None:
    module, rows = _module(export, "torch-export")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            shapes = {"observation": {0: torch.export.Dim("batch")}}
            program = torch.export.export(module, (rows,), dynamic_shapes=shapes)
            _allow_other_devices(program)
        except Exception as error:  # whatever a module of its maker's own does to a tracer
            raise _untraceable(export, "torch-export", error) from error
        contract = {CONTRACT_FILE: json.dumps(export.contract)}
        write_from_memory(path, lambda file: torch.export.save(program, file, extra_files=contract))


def _allow_other_devices(program: Any) -> None:  # noqa: ANN401 (a graph has no public types)
    """Let a program check the type of what it computes with, and not that it lies on the CPU, where it was traced."""
    for node in program.graph.nodes:
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            node.kwargs = {name: value for name, value in node.kwargs.items() if name != "device"}
    program.graph_module.recompile()


def _untraceable(export: Export, name: str, error: Exception) -> RldistillError:
    return RldistillError(
        f"--to {name}: the network of policy {export.policy.name!r} cannot be traced: {first_line(error)[:200]}. Its "
        "code does more than compute with tensors of a fixed shape."
    )


def _opened(export: Export, path: Path, module: Any) -> Opened:  # noqa: ANN401 (a module, of either kind)
    @torch.inference_mode()
    def decide(observation: NDArray[np.generic]) -> object:
        return module(torch.from_numpy(observation))[ACTION]

    # Written a moment ago, by us.
    return read_back(export, path, Reading(trust=True)), decide


def _open_torchscript(export: Export, path: Path) -> Opened:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is", DeprecationWarning)
        return _opened(export, path, torch.jit.load(path))


def _open_exported(export: Export, path: Path) -> Opened:
    return _opened(export, path, torch.export.load(path).module())


TORCHSCRIPT = ExportFormat(
    "torchscript", ".pt", ("float32",), _write_torchscript, _open_torchscript, needs_layers=False
)
TORCH_EXPORT = ExportFormat(
    "torch-export",
    ".pt2",
    ("float32",),
    _write_exported,
    _open_exported,
    keeps_state=False,
    needs_layers=False,
)
