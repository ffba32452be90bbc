"""Policies whose inside is not ours: programs, functions and modules, from observations to outputs.

An ONNX graph, TorchScript, an exported program, a Python function or a module can be played, compared and distilled. A
program has no weights that a policy file could keep.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from rldistill.adapters.contents import refuse_memory
from rldistill.adapters.weights import check_module_weights
from rldistill.errors import MismatchError, NumericalError, PolicyFileError, UsageError
from rldistill.networks import InputNormalization, ModuleNetwork
from rldistill.networks.foreign import call_foreign
from rldistill.networks.input_layer import join_parts
from rldistill.networks.outputs import (
    OutputDeclaration,
    check_kind,
    check_kinds_of_values,
    check_raw,
    check_repeats,
    parse_outputs,
    raw_rows,
    resolve_outputs,
)
from rldistill.observations import as_tensors
from rldistill.policies import TorchPolicy
from rldistill.policies.behaviour import Behaviour, choose_actions
from rldistill.policies.padded import ROWS_PER_BATCH, check_answers, check_observations, probe_rows, run_padded
from rldistill.policies.protocol import Observations, State
from rldistill.storage import canonical_json, sha256_bytes
from rldistill.tasks import UNNAMED_TASK, ObservationFingerprint, Task
from rldistill.types import ActionLayout, Actions, OutputKind, PolicyOutput

# Rows of a call: where a file fixes them, each decision costs as many.
_MAX_BATCH_SIZE = 4096
# Numbers that go into a call: 128 MiB of float32.
_MAX_INPUT_VALUES = 2**25


@dataclass(frozen=True)
class Program:
    """A function from observations to named outputs, whatever file or object it came from."""

    name: str  # short, for tables
    what: str  # as messages call it: `ONNX file pong.onnx`
    format: str  # `onnx`, `torchscript`, `torch_export` or `python`
    # Observations `[batch_size, *observation_shape]` to outputs by name, `[batch_size, …]` each.
    run: Callable[[Tensor], Mapping[str, Tensor]]
    content_hash: str | None = None  # SHA-256 of the file; None where there is none: then its answers identify it
    observation_shape: tuple[int, ...] | None = None  # where the program knows it
    # To which observations are cast; None: they go in as the environment gives them.
    input_dtype: torch.dtype | None = None
    batch_size: int = ROWS_PER_BATCH["cpu"]  # rows of every call
    num_parameters: int | None = None  # weights it holds, where it can tell
    num_bytes: int | None = None  # of the file, where there is one


class ProgramPolicy:
    """Plays what a program says; the `Policy` protocol around it. Its outputs are resolved."""

    def __init__(
        self, program: Program, task: Task, outputs: OutputDeclaration, *, behaviour: Behaviour, input_scale: float
    ) -> None:
        self.program = program
        self.outputs = outputs
        self.input_scale = input_scale
        self.name = program.name
        self.tasks = (task,)
        self.output_kind: OutputKind = outputs.kind
        self.behaviour: Behaviour = behaviour
        self._task = task
        self._hash: str | None = None

    def __repr__(self) -> str:
        """Return name, size and task in a line."""
        count = "" if self.program.num_parameters is None else f"{self.program.num_parameters:,} parameters, "
        what = f"{self.name} ({self.program.format})"
        return f"<ProgramPolicy {what}: {count}plays {self._task.name}, {self.behaviour}>"

    @classmethod
    def create(
        cls,
        program: Program,
        task: Task | None,
        *,
        outputs: str | None = None,
        behaviour: Behaviour = "greedy",
        input_scale: float | None = None,
    ) -> "ProgramPolicy":
        """Return a policy around a program, after running it to see that it fits, and repeats itself.

        Args:
            program: the function.
            task: None: one without a name, of discrete actions, as far as the program tells.
            outputs: as `parse_outputs` reads it; None: the program's own names must say it.
            behaviour: how it acts.
            input_scale: factor on the observations; needed where the environment gives bytes and the program
                takes floats: 1 where it scales them itself, 1/255 where it wants them scaled.

        Raises:
            MismatchError: the program does not fit the task.
            PolicyFileError: it takes larger batches than a policy could.
            UsageError: something must be said that neither program nor task tells.
            NumericalError: its outputs are no numbers.
        """
        declared = None if outputs is None else parse_outputs(outputs)
        shape = _observation_shape(program, task)
        _check_batch(program, shape)
        input_scale = _input_scale(program, task, input_scale)
        layout = None if task is None else task.fingerprint.action_layout
        is_bytes = program.input_dtype == torch.uint8 if task is None else _gives_bytes(task)
        zeros = torch.zeros(program.batch_size, *shape, dtype=torch.uint8 if is_bytes else torch.float32)
        answers = _run(program, zeros, input_scale)
        resolved = resolve_outputs(program.what, declared, answers, layout)
        check_kinds_of_values(program.what, resolved, answers, is_python=program.format == "python")
        raw = raw_rows(program.what, resolved, answers, layout)
        if task is None:
            task = _unnamed_task(program.what, resolved, raw, shape, is_bytes=is_bytes)
        policy = cls(program, task, resolved, behaviour=behaviour, input_scale=input_scale)
        policy(zeros[:1])  # are they numbers, and as many as the actions need?
        probe = probe_rows(task.fingerprint, program.batch_size)
        check_repeats(program.what, policy._raw(probe), policy._raw(probe))
        return policy

    @property
    def hash(self) -> str:
        """SHA-256 over the program and how it is read: the policy's identity.

        A Python function has no bytes; its answers to a batch of fixed observations stand for them.
        """
        if self._hash is None:
            content = {
                "program": self.program.content_hash or self._hash_of_answers(),
                "outputs": self.outputs.text,
                "input_scale": self.input_scale,
                "behaviour": self.behaviour,
                "observation_shape": list(self._task.fingerprint.observation_shape),
                "action_layout": self._task.fingerprint.action_layout.to_dict(),
            }
            self._hash = sha256_bytes(canonical_json(content).encode())
        return self._hash

    def _hash_of_answers(self) -> str:
        fingerprint = self._task.fingerprint
        shape = (self.program.batch_size, *fingerprint.observation_shape)
        rng = np.random.default_rng(0)
        is_bytes = _gives_bytes(self._task)
        rows = rng.integers(0, 256, shape, np.uint8) if is_bytes else rng.normal(size=shape).astype(np.float32)
        raw = self._raw(torch.as_tensor(rows))
        return sha256_bytes(raw.contiguous().numpy().tobytes())

    def __call__(self, observations: Observations, state: State = None) -> tuple[PolicyOutput, State]:
        """Return outputs for `[B, *observation_shape]`, without gradient; the state is passed through.

        Raises:
            MismatchError: observations of another shape, or no integers where the environment gives bytes.
            NumericalError: the program answered NaN or infinity.
        """
        # What is inside a program is not known: it takes all parts as one vector.
        rows = join_parts(as_tensors(observations, self._task.fingerprint)).cpu()
        check_observations(self.name, rows, self._task.fingerprint)
        (raw,) = run_padded(rows, self.program.batch_size, lambda part: (self._raw(part),))
        assert raw is not None, "a program always answers"
        check_answers(self.name, self.output_kind, rows, raw)
        return PolicyOutput.from_raw(self._task.fingerprint.action_layout, self.output_kind, raw), state

    def _raw(self, rows: Tensor) -> Tensor:
        """Return raw rows `[batch_size, O]` for exactly one batch."""
        layout = self._task.fingerprint.action_layout
        raw = raw_rows(self.program.what, self.outputs, _run(self.program, rows, self.input_scale), layout)
        check_raw(self.program.what, self.outputs, raw, layout, len(rows))
        return raw

    def act(
        self,
        observations: Observations,
        *,
        state: State = None,
        rng: np.random.Generator | Sequence[np.random.Generator] | None = None,
        exploration_epsilon: float = 0.0,
    ) -> tuple[Actions, State]:
        """Return one action per row, in the environment's format, and the next state."""
        output, state = self(observations, state)
        actions = choose_actions(output, self.behaviour, rng=rng, exploration_epsilon=exploration_epsilon)
        return actions, state

    def initial_state(self, num_envs: int) -> State:
        """Return None: programs with a memory are refused."""
        return None

    def for_task(self, name: str) -> "ProgramPolicy":
        """Return itself, for its own task. Raises MismatchError: another task."""
        if name != self._task.name:
            raise MismatchError(f"Policy {self.name!r} has no head for {name!r}, only for {self._task.name}.")
        return self

    def with_behaviour(self, behaviour: Behaviour) -> "ProgramPolicy":
        """Return the same program acting in another way."""
        return ProgramPolicy(self.program, self._task, self.outputs, behaviour=behaviour, input_scale=self.input_scale)

    def save(self, path: str | Path) -> None:
        """Refuse: nothing of ours could be kept. Raises UsageError: says what to do instead."""
        raise UsageError(
            f"{self.program.what} is a program, not weights: it cannot be saved to {path} as a policy file. Distil it "
            f"into a network that can: rldistill distill --teacher FILE --task {self._task.name} --out runs/student."
        )


@torch.inference_mode()
def _run(program: Program, rows: Tensor, input_scale: float) -> Mapping[str, Tensor]:
    """Run a program on one batch, cast and scaled as it wants; the caller's rows stay as they are."""
    # A copy in any case: code that is not ours may write into what it is given.
    rows = rows.to(program.input_dtype or rows.dtype, copy=True)
    if input_scale != 1:
        rows = rows * input_scale
    return {name: answer.detach().cpu() for name, answer in program.run(rows).items()}


def _observation_shape(program: Program, task: Task | None) -> tuple[int, ...]:
    if task is None:
        if program.observation_shape is None:
            raise UsageError(f"{program.what} does not say what it observes. Name its task: --task ID.")
        return program.observation_shape
    shape = task.fingerprint.observation_shape
    if program.observation_shape not in (None, shape):
        raise MismatchError(
            f"{program.what} takes observations {list(program.observation_shape or ())}, task {task.name!r} gives "
            f"{list(shape)}. Was it made for another task?"
        )
    return shape


def _check_batch(program: Program, shape: tuple[int, ...]) -> None:
    if program.batch_size > _MAX_BATCH_SIZE or program.batch_size * math.prod(shape) > _MAX_INPUT_VALUES:
        raise PolicyFileError(
            f"{program.what} takes {program.batch_size:,} observations of shape {list(shape)} in one call, the most "
            f"are {_MAX_BATCH_SIZE:,}, and {_MAX_INPUT_VALUES:,} numbers. Export it with a batch of any size, or of 1."
        )


def _gives_bytes(task: Task) -> bool:
    return task.fingerprint.observation_dtype == "uint8"


def _input_scale(program: Program, task: Task | None, given: float | None) -> float:
    takes_floats = program.input_dtype is not None and program.input_dtype.is_floating_point
    if given is not None:
        if given != 1 and not takes_floats:
            raise UsageError(f"{program.what} takes its observations as they are: --input-scale does not apply.")
        return given
    if takes_floats and task is not None and _gives_bytes(task):
        raise UsageError(
            f"{program.what} takes floats, task {task.name!r} gives bytes, 0 to 255. Say whether the program scales "
            "them itself (--input-scale 1) or wants them scaled (--input-scale 1/255)."
        )
    return 1.0


def _unnamed_task(
    what: str, outputs: OutputDeclaration, raw: Tensor, shape: tuple[int, ...], *, is_bytes: bool
) -> Task:
    if outputs.kind not in ("q_values", "logits") or raw.dim() != 2:
        raise UsageError(f"{what} does not say in which range its {outputs.kind} lie. Name its task: --task ID.")
    layout = ActionLayout.discrete(raw.shape[1])
    return Task(UNNAMED_TASK, ObservationFingerprint(shape, "uint8" if is_bytes else "float32", layout))


Function = Callable[[Tensor], Any]


def module_policy(
    module: nn.Module,
    task: Task | None,
    *,
    outputs: str | None,
    behaviour: Behaviour,
    normalization: InputNormalization | None = None,
) -> TorchPolicy:
    """Return a policy around a module: observations (bytes scaled to [0, 1]) to rows `[B, O]`, or to several outputs.

    The module is kept, not copied; observations are cast to the type of its weights, to float32 where they have
    several. `outputs` is read by `parse_outputs`; `normalization` takes the place of the scale.

    Raises:
        UsageError: task or outputs are not said, or not which of several outputs; or the module is recurrent.
        MismatchError: it does not take the task's observations, or its outputs are not those of the task's actions.
        NumericalError: a weight or an answer is NaN or infinite.
    """
    what = f"Module {type(module).__name__}"
    task, declared = check_module(module, task, outputs)
    check_module_weights(what, module, NumericalError)
    policy = TorchPolicy.from_module(
        module, task, output_kind=declared.kind, behaviour=behaviour, normalization=normalization
    )
    layout = task.fingerprint.action_layout
    probe = probe_rows(task.fingerprint, ROWS_PER_BATCH["cpu"])
    answers = _answers(policy, torch.zeros_like(probe))
    resolved = resolve_outputs(what, declared, answers, layout)
    check_kinds_of_values(what, resolved, answers, is_python=True)
    raw = raw_rows(what, resolved, answers, layout)
    check_raw(what, resolved, raw, layout, ROWS_PER_BATCH["cpu"])
    first, again = (raw_rows(what, resolved, _answers(policy, probe), layout) for _ in range(2))
    check_repeats(what, first, again)
    if list(answers) == ["output"] and not resolved.is_scaled:
        return policy
    return TorchPolicy.from_module(
        module, task, output_kind=declared.kind, behaviour=behaviour, normalization=normalization, outputs=resolved
    )


def check_module(module: nn.Module, task: Task | None, outputs: str | None) -> tuple[Task, OutputDeclaration]:
    """Check what can be told of a module without calling it; return its task and what its outputs were declared as.

    Raises:
        UsageError: task or outputs are not said, or the module is recurrent, or keeps more than tensors.
        MismatchError: the task's actions have no such outputs.
    """
    what = f"Module {type(module).__name__}"
    if task is None or outputs is None:
        raise UsageError(f"{what}: pass task=… and outputs=…, such as outputs='logits': a module says neither.")
    declared = parse_outputs(outputs)
    check_kind(what, declared, task.fingerprint.action_layout)
    check_module_state(module)
    return task, declared


def check_module_state(module: nn.Module) -> None:
    """Check that a module has no memory, and keeps nothing that a policy file could not; raises UsageError."""
    what = f"Module {type(module).__name__}"
    weights = cast(dict[str, object], module.state_dict())
    refuse_memory(what, weights, UsageError)
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise UsageError(
                f"{what} keeps a {type(value).__name__} under {name!r} beside its weights, which no policy file can. "
                "Leave out its get_extra_state, or, of a teacher, pass its forward, a function."
            )


@torch.inference_mode()
def _answers(policy: TorchPolicy, rows: Tensor) -> Mapping[str, Tensor]:
    """Return what a module answers to a batch of observations, by name: does it take them, and what is there?"""
    network = policy.network
    assert isinstance(network, ModuleNetwork), "the network of a module"
    was_training = network.training
    try:
        return network.eval().answers(rows.to(policy.device))
    finally:
        network.train(was_training)


def function_policy(
    function: Function, task: Task | None, *, outputs: str | None, behaviour: Behaviour
) -> ProgramPolicy:
    """Return a policy around a Python function.

    It maps observations `[B, *observation_shape]`, a tensor as the environment gives them, to a tensor or an array
    `[B, O]`, or several in a tuple (named "0", "1", …) or by name. It must not remember anything.

    Raises:
        UsageError: task or outputs are not said.
        MismatchError: what it returns does not fit the task.
    """
    name = getattr(function, "__name__", type(function).__name__)
    what = f"Function {name}"
    if task is None or outputs is None:
        raise UsageError(f"{what}: pass task=… and outputs=…, such as outputs='logits': a function says neither.")

    def run(rows: Tensor) -> Mapping[str, Tensor]:
        return call_foreign(what, function, rows)

    return ProgramPolicy.create(
        Program(cast(str, name), what, "python", run), task, outputs=outputs, behaviour=behaviour
    )
