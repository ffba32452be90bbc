"""Policies whose inside is not ours: programs, from observations to outputs, with or without a state.

An ONNX graph, TorchScript, an exported program or a Python function can be played, compared and distilled. A program
has no weights that a policy file could keep. What it remembers is a state that it takes and gives: who plays keeps one
for each environment.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rldistill.errors import MismatchError, PolicyFileError, UsageError
from rldistill.networks.input_layer import join_parts
from rldistill.networks.outputs import (
    OutputDeclaration,
    check_kinds_of_values,
    check_raw,
    check_repeats,
    parse_outputs,
    raw_rows,
    resolve_outputs,
)
from rldistill.observations import as_tensors
from rldistill.policies.behaviour import Behaviour
from rldistill.policies.padded import (
    ROWS_PER_BATCH,
    check_answers,
    check_observations,
    check_state,
    probe_rows,
    run_padded,
)
from rldistill.policies.protocol import ActsByOutputs, Observations, State
from rldistill.storage import canonical_json, sha256_bytes
from rldistill.tasks import UNNAMED_TASK, ObservationFingerprint, Task
from rldistill.types import ActionLayout, OutputKind, PolicyOutput

# Rows of a call: where a file fixes them, each decision costs as many.
_MAX_BATCH_SIZE = 4096
# Numbers that go into a call: 128 MiB of float32.
_MAX_INPUT_VALUES = 2**25


@dataclass(frozen=True)
class ProgramState:
    """One part of what a program remembers of an episode."""

    output: str  # name of the output that is to be given with the next observations, `[batch_size, …]`
    initial: Tensor  # of one environment, `[…]`, when an episode begins


@dataclass(frozen=True)
class Program:
    """A function from observations to named outputs, whatever file or object it came from."""

    name: str  # short, for tables
    what: str  # as messages call it: `ONNX file pong.onnx`
    format: str  # `onnx`, `torchscript`, `torch_export` or `python`
    # Observations `[batch_size, *observation_shape]`, and each part of the state `[batch_size, …]` where it has one, to
    # outputs by name, `[batch_size, …]` each.
    run: Callable[..., Mapping[str, Tensor]]
    content_hash: str | None = None  # SHA-256 of the file; None where there is none: then its answers identify it
    observation_shape: tuple[int, ...] | None = None  # where the program knows it
    # To which observations are cast; None: they go in as the environment gives them.
    input_dtype: torch.dtype | None = None
    batch_size: int = ROWS_PER_BATCH["cpu"]  # rows of every call
    num_parameters: int | None = None  # weights it holds, where it can tell
    num_bytes: int | None = None  # of the file, where there is one
    states: tuple[ProgramState, ...] = ()  # what it remembers, in the order in which `run` takes it
    # Outputs that depend on an input which is fed zeros, by name, and that input.
    blind: Mapping[str, str] = field(default_factory=dict[str, str])

    def initial_state(self, num_envs: int) -> tuple[Tensor, ...]:
        """Return each part of the state when an episode begins, `[num_envs, …]`."""
        return tuple(own.initial.expand(num_envs, *own.initial.shape).clone() for own in self.states)

    def split(self, answers: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        """Return what `run` answered without the next state, and that.

        Raises:
            MismatchError: a part of the state is missing, or of another shape than the one before.
        """
        outputs = dict(answers)
        following: list[Tensor] = []
        for own in self.states:
            part = outputs.pop(own.output, None)
            if part is None or part.shape[1:] != own.initial.shape:
                got = "nothing" if part is None else list(part.shape[1:])
                raise MismatchError(
                    f"{self.what} is to give its next state {own.output} as {list(own.initial.shape)} for each "
                    f"environment, as it takes it, and gave {got}. A state keeps its shape through an episode."
                )
            following.append(part)
        return outputs, tuple(following)


class ProgramPolicy(ActsByOutputs):
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
        answers, _ = _run(program, zeros, input_scale, *program.initial_state(program.batch_size))
        resolved = resolve_outputs(program.what, declared, answers, layout)
        if name := next((name for name in resolved.names if name in program.blind), None):
            raise PolicyFileError(
                f"{program.what}: its output {name} depends on its input {program.blind[name]}, and what goes in there "
                "is not known. Export it with that among its observations."
            )
        check_kinds_of_values(program.what, resolved, answers, is_python=program.format == "python")
        raw = raw_rows(program.what, resolved, answers, layout)
        if task is None:
            task = _unnamed_task(program.what, resolved, raw, shape, is_bytes=is_bytes)
        policy = cls(program, task, resolved, behaviour=behaviour, input_scale=input_scale)
        policy(zeros[:1])  # are they numbers, and as many as the actions need?
        probe = probe_rows(task.fingerprint, program.batch_size)
        check_repeats(program.what, policy._answer(probe)[0], policy._answer(probe)[0])
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
                "action_layout": replace(self._task.fingerprint.action_layout, start=()).to_dict(),
            }
            self._hash = sha256_bytes(canonical_json(content).encode())
        return self._hash

    def _hash_of_answers(self) -> str:
        fingerprint = self._task.fingerprint
        shape = (self.program.batch_size, *fingerprint.observation_shape)
        rng = np.random.default_rng(0)
        is_bytes = _gives_bytes(self._task)
        rows = rng.integers(0, 256, shape, np.uint8) if is_bytes else rng.normal(size=shape).astype(np.float32)
        answers, state = b"", ()
        for _ in range(2 if self.program.states else 1):  # what is remembered shows in the second step
            raw, *state = self._answer(torch.as_tensor(rows), *state)
            answers += raw.contiguous().numpy().tobytes()
        return sha256_bytes(answers)

    def __call__(self, observations: Observations, state: State = None) -> tuple[PolicyOutput, State]:
        """Return outputs for `[B, *observation_shape]`, without gradient, and the next state; None begins an episode.

        Raises:
            MismatchError: observations of another shape, or no integers where the environment gives bytes; or a state
                of another number of environments.
            NumericalError: the program answered NaN or infinity.
        """
        # What is inside a program is not known: it takes all parts as one vector, also the only one.
        seen = as_tensors(observations, self._task.fingerprint)
        rows = join_parts(seen).cpu() if isinstance(seen, Tensor) else join_parts(seen).flatten(1).cpu()
        check_observations(self.name, rows, self._task.fingerprint)
        remembered = self.program.initial_state(len(rows))
        if remembered and state is not None:
            check_state(self.name, state, remembered)
            remembered = state
        raw, *following = run_padded(rows, self.program.batch_size, self._answer, *remembered)
        assert raw is not None, "a program always answers"
        check_answers(self.name, self.output_kind, rows, raw)
        output = PolicyOutput.from_raw(self._task.fingerprint.action_layout, self.output_kind, raw)
        return output, tuple(part for part in following if part is not None) or state

    def _answer(self, rows: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Return raw rows `[batch_size, O]` for exactly one batch, and the next state; without one episodes begin."""
        program, layout = self.program, self._task.fingerprint.action_layout
        answers, following = _run(program, rows, self.input_scale, *(state or program.initial_state(len(rows))))
        raw = raw_rows(program.what, self.outputs, answers, layout)
        check_raw(program.what, self.outputs, raw, layout, len(rows))
        return raw, *following

    def initial_state(self, num_envs: int) -> State:
        """Return what the program remembers when an episode begins; None: nothing."""
        return self.program.initial_state(num_envs) or None

    def for_task(self, name: str) -> "ProgramPolicy":
        """Return itself, for its own task. Raises MismatchError: another task."""
        if name != self._task.name:
            raise MismatchError(f"Policy {self.name!r} has no head for {name!r}, only for {self._task.name}.")
        return self

    def acting(self, behaviour: Behaviour) -> "ProgramPolicy":
        """Return the same program acting in another way."""
        return ProgramPolicy(self.program, self._task, self.outputs, behaviour=behaviour, input_scale=self.input_scale)

    def save(self, path: str | Path) -> None:
        """Refuse: nothing of ours could be kept. Raises UsageError: says what to do instead."""
        raise UsageError(
            f"{self.program.what} is a program, not weights: it cannot be saved to {path} as a policy file. Distil it "
            f"into a network that can: rldistill distill --teacher FILE --task {self._task.name} --out runs/student."
        )


@torch.inference_mode()
def _run(
    program: Program, rows: Tensor, input_scale: float, *state: Tensor
) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    """Run a program on one batch, cast and scaled as it wants; the caller's rows and state stay as they are."""
    # A copy in any case: code that is not ours may write into what it is given.
    rows = rows.to(program.input_dtype or rows.dtype, copy=True)
    if input_scale != 1:
        rows = rows * input_scale
    answers = program.run(rows, *(part.clone() for part in state))
    return program.split({name: answer.detach().cpu() for name, answer in answers.items()})


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
    if program.input_dtype == torch.uint8 and not _gives_bytes(task):
        raise MismatchError(
            f"{program.what} takes bytes, 0 to 255, task {task.name!r} gives {task.fingerprint.observation_dtype}. Was "
            "it made for another task?"
        )
    return shape


def _check_batch(program: Program, shape: tuple[int, ...]) -> None:
    num_values = math.prod(shape) + sum(own.initial.numel() for own in program.states)
    if program.batch_size > _MAX_BATCH_SIZE or program.batch_size * num_values > _MAX_INPUT_VALUES:
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
