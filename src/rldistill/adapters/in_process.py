"""Policies around what a user has in this process: a module, or a function, from observations to outputs."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from rldistill.adapters.contents import refuse_memory
from rldistill.adapters.program import Program, ProgramPolicy
from rldistill.adapters.weights import check_module_weights
from rldistill.errors import NumericalError, UsageError
from rldistill.networks import InputNormalization, ModuleNetwork
from rldistill.networks.foreign import call_foreign
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
