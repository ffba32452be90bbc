"""Policies around what a user has in this process: a module, or a function, from observations to outputs."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from rldistill.adapters.contents import refuse_memory
from rldistill.adapters.program import Program, ProgramPolicy, ProgramState
from rldistill.adapters.weights import check_module_weights
from rldistill.errors import NumericalError, UsageError
from rldistill.limits import MAX_REMEMBERED
from rldistill.networks import InputNormalization, ModuleNetwork
from rldistill.networks.foreign import call_foreign, call_remembering
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
from rldistill.policies import TorchPolicy
from rldistill.policies.behaviour import Behaviour
from rldistill.policies.padded import ROWS_PER_BATCH, probe_rows
from rldistill.tasks import Task

Function = Callable[..., Any]
"""`observations -> outputs`, or with a memory `(observations, state) -> (outputs, state)`."""


def initial_parts(initial_state: object) -> tuple[Tensor, ...]:
    """Return what is remembered of one environment when an episode begins, a tensor for each part.

    Raises:
        UsageError: neither a tensor or an array of floats nor a tuple of some, or too large.
    """
    parts = cast(Sequence[object], initial_state if isinstance(initial_state, tuple | list) else (initial_state,))
    try:
        tensors = tuple(torch.as_tensor(part).detach().cpu() for part in parts)
    except (TypeError, ValueError, RuntimeError):
        tensors = ()
    if not tensors or not all(part.is_floating_point() and part.numel() and part.isfinite().all() for part in tensors):
        raise UsageError(
            f"load_policy: got initial_state={str(initial_state)[:80]!r}, expected what is remembered of one "
            "environment when an episode begins: a tensor of floats, such as torch.zeros(64), or a tuple of some."
        )
    if (size := sum(part.numel() for part in tensors)) > MAX_REMEMBERED:
        raise UsageError(f"load_policy: initial_state has {size:,} numbers, the most are {MAX_REMEMBERED:,}.")
    return tuple(part.float() for part in tensors)


def module_policy(
    module: nn.Module,
    task: Task | None,
    *,
    outputs: str | None,
    behaviour: Behaviour,
    normalization: InputNormalization | None = None,
    initial: Sequence[Tensor] = (),
) -> TorchPolicy:
    """Return a policy around a module: observations (bytes scaled to [0, 1]) to rows `[B, O]`, or to several outputs.

    The module is kept, not copied; observations are cast to the type of its weights, to float32 where they have
    several. `outputs` is read by `parse_outputs`; `normalization` takes the place of the scale. With `initial`, what it
    remembers of one environment when an episode begins, it takes a state beside the observations and returns
    `(outputs, state)`.

    Raises:
        UsageError: task or outputs are not said, or not which of several outputs; or the module is recurrent without
            `initial`.
        MismatchError: it does not take the task's observations, or its outputs are not those of the task's actions.
        NumericalError: a weight or an answer is NaN or infinite.
    """
    what = f"Module {type(module).__name__}"
    task, declared = check_module(module, task, outputs, may_remember=bool(initial))
    check_module_weights(what, module, NumericalError)
    make = partial(
        TorchPolicy.from_module,
        module,
        task,
        output_kind=declared.kind,
        behaviour=behaviour,
        normalization=normalization,
        initial=initial,
    )
    policy = make()
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
    return make(outputs=resolved)


_TAKES_A_STATE = (
    "Let a teacher take and return its state, and say what it is when an episode begins: load_policy(…, "
    "initial_state=torch.zeros(64)). A student with a memory is named: student='gru:64'."
)


def check_module(
    module: nn.Module, task: Task | None, outputs: str | None, *, may_remember: bool = False
) -> tuple[Task, OutputDeclaration]:
    """Check what can be told of a module without calling it; return its task and what its outputs were declared as.

    Raises:
        UsageError: task or outputs are not said, or the module is recurrent and may not be, or keeps more than tensors.
        MismatchError: the task's actions have no such outputs.
    """
    what = f"Module {type(module).__name__}"
    if task is None or outputs is None:
        raise UsageError(f"{what}: pass task=… and outputs=…, such as outputs='logits': a module says neither.")
    declared = parse_outputs(outputs)
    check_kind(what, declared, task.fingerprint.action_layout)
    check_module_state(module, may_remember=may_remember)
    return task, declared


def check_module_state(module: nn.Module, *, may_remember: bool = False) -> None:
    """Check that a module keeps nothing that a policy file could not, and has no memory; raises UsageError."""
    what = f"Module {type(module).__name__}"
    weights = cast(dict[str, object], module.state_dict())
    if not may_remember:
        refuse_memory(what, weights, _TAKES_A_STATE, UsageError)
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
        return network.eval().answers(rows.to(policy.device))[0]
    finally:
        network.train(was_training)


def function_policy(
    function: Function,
    task: Task | None,
    *,
    outputs: str | None,
    behaviour: Behaviour,
    initial: Sequence[Tensor] = (),
) -> ProgramPolicy:
    """Return a policy around a Python function.

    It maps observations `[B, *observation_shape]`, a tensor as the environment gives them, to a tensor or an array
    `[B, O]`, or several in a tuple (named "0", "1", …) or by name. With `initial`, what it remembers of one environment
    when an episode begins, it takes a state beside the observations and returns `(outputs, state)`; without, it must
    not remember anything.

    Raises:
        UsageError: task or outputs are not said.
        MismatchError: what it returns does not fit the task.
    """
    name = getattr(function, "__name__", type(function).__name__)
    what = f"Function {name}"
    if task is None or outputs is None:
        raise UsageError(f"{what}: pass task=… and outputs=…, such as outputs='logits': a function says neither.")

    states = tuple(ProgramState(f"state[{index}]", part) for index, part in enumerate(initial))

    def run(rows: Tensor, *state: Tensor) -> Mapping[str, Tensor]:
        if not states:
            return call_foreign(what, function, rows)
        answers, following = call_remembering(what, function, rows, state)
        return answers | {own.output: part for own, part in zip(states, following, strict=True)}

    program = Program(cast(str, name), what, "python", run, states=states)
    return ProgramPolicy.create(program, task, outputs=outputs, behaviour=behaviour)
