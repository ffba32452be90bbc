"""Python functions and modules as policies."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import Tensor, nn

from rldistill.adapters.outputs import parse_outputs
from rldistill.adapters.program import Program, ProgramPolicy
from rldistill.adapters.torch_programs import named_outputs
from rldistill.adapters.weights import check_module_weights
from rldistill.errors import MismatchError, NumericalError, UsageError
from rldistill.networks import InputNormalization
from rldistill.policies import TorchPolicy
from rldistill.policies.behaviour import Behaviour
from rldistill.tasks import Task
from rldistill.types import OUTPUT_KINDS_OF_ACTIONS

Function = Callable[[Tensor], Any]


def module_policy(
    module: nn.Module,
    task: Task | None,
    *,
    outputs: str | None,
    behaviour: Behaviour,
    normalization: InputNormalization | None = None,
) -> TorchPolicy:
    """Return a policy around a module: float32 observations (bytes scaled to [0, 1]) to rows `[B, O]`.

    Args:
        module: kept, not copied.
        task: that it plays.
        outputs: what its rows are.
        behaviour: how it acts.
        normalization: of its observations by running statistics, instead of the scale.

    Raises:
        UsageError: task or outputs are not said.
        MismatchError: the task's actions have no such outputs.
        NumericalError: a weight is NaN or infinite.
    """
    what = f"Module {type(module).__name__}"
    if task is None or outputs is None:
        raise UsageError(f"{what}: pass task=… and outputs=…, such as outputs='logits': a module says neither.")
    declared = parse_outputs(outputs)
    if declared.names:
        raise UsageError(f"{what}: outputs={outputs!r} names outputs; a module returns one tensor [B, O].")
    _check_kind(what, declared.kind, task)
    check_module_weights(what, module, NumericalError)
    return TorchPolicy.from_module(
        module, task, output_kind=declared.kind, behaviour=behaviour, normalization=normalization
    )


def function_policy(
    function: Function, task: Task | None, *, outputs: str | None, behaviour: Behaviour
) -> ProgramPolicy:
    """Return a policy around a Python function.

    Args:
        function: observations `[B, *observation_shape]`, a tensor as the environment gives them, to a tensor or an
            array `[B, O]`, or several in a tuple (named "0", "1", …) or by name. It must not remember anything.
        task: that it plays.
        outputs: as `parse_outputs` reads it.
        behaviour: how it acts.

    Raises:
        UsageError: task or outputs are not said.
        MismatchError: what it returns does not fit the task.
    """
    name = getattr(function, "__name__", type(function).__name__)
    what = f"Function {name}"
    if task is None or outputs is None:
        raise UsageError(f"{what}: pass task=… and outputs=…, such as outputs='logits': a function says neither.")

    def run(rows: Tensor) -> Mapping[str, Tensor]:
        return named_outputs(what, function(rows))

    return ProgramPolicy.create(
        Program(cast(str, name), what, "python", run), task, outputs=outputs, behaviour=behaviour
    )


def _check_kind(what: str, kind: str, task: Task) -> None:
    layout = task.fingerprint.action_layout
    fitting = OUTPUT_KINDS_OF_ACTIONS[layout.kind]
    if kind not in fitting:
        raise MismatchError(
            f"{what}: its outputs were declared as {kind}, but {layout.kind} actions have {' or '.join(fitting)}."
        )
