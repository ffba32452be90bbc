"""By which loss each task is taught, at which temperature, and what kind of student that makes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from rldistill.distillation.sources import Source
from rldistill.distillation.stored import StoredSource
from rldistill.errors import MismatchError, UsageError
from rldistill.losses import LossFunction, auto_temperature, check_loss, make_loss, pairing_warning
from rldistill.losses.spec import not_taken
from rldistill.losses.temperature import GAP_IN_TEMPERATURES
from rldistill.options.distill import AUTO, DistillOptions, Named, Online, Stored
from rldistill.schedules import Schedule, as_schedule, constant
from rldistill.types import OutputKind
from rldistill.verbs.per_task import shortest, value_for


@dataclass(frozen=True)
class TaskLoss:
    """A task's loss.

    Attributes:
        function: on rows of student and teacher.
        temperature: None where the loss takes none.
        warning: what to warn of.
        note: how a temperature was found.
    """

    function: LossFunction
    temperature: Schedule | None
    warning: str | None
    note: str | None = None


def check_losses(options: DistillOptions, kind: type[Named]) -> None:
    """Check names and temperatures, whatever the data: the pairing is checked when the teachers' outputs are known.

    Raises:
        UsageError: a name is unknown, a temperature out of range, or `auto` without a dataset.
    """
    for name in ("loss", "temperature"):
        if not all(isinstance(task, str) for task in _tasks_of(getattr(options, name))):
            raise UsageError(f"{name}: got {getattr(options, name)!r}, expected values by task name.")
    for task in {"", *_tasks_of(options.loss), *_tasks_of(options.temperature)}:
        temperature, loss = value_for(options.temperature, task), value_for(options.loss, task)
        if temperature == AUTO and kind is not Stored:
            who = "one that still learns" if kind is Online else "one that plays live"
            raise UsageError(
                f"temperature: auto is taken from the teacher's answers in a dataset, and {who} has not said anything "
                "yet. Collect first, or give a number."
            )
        schedule = None if temperature in (None, AUTO) else _temperature(temperature)
        if loss is not None and not callable(loss):
            check_loss(loss, temperature=None if schedule is None else schedule(0.0))


def task_loss(options: DistillOptions, source: Source) -> TaskLoss:
    """Return the loss of one task.

    Raises:
        MismatchError: the loss does not fit what the teacher gives.
        UsageError: a temperature for a loss that takes none, or `auto` for a teacher that prefers no action.
    """
    name, kind, layout = source.task.name, source.teacher.output_kind, source.task.fingerprint.action_layout
    temperature, named = value_for(options.temperature, name), value_for(options.loss, name)
    note: str | None = None
    if temperature == AUTO:
        # Whether the loss takes a temperature at all is told first.
        spec = make_loss(named, kind, layout).spec
        if spec.temperature is None:
            raise UsageError(not_taken("temperature", AUTO, spec.name))
        assert isinstance(source, StoredSource), "check_losses refuses the others"
        temperature = auto_temperature(torch.from_numpy(source.sample_of_targets()), layout)
        note = (
            f"temperature of {name}: {temperature:.4g}, 1/{GAP_IN_TEMPERATURES:g} of the median gap between the "
            "teacher's best two actions"
        )
    schedule = None if temperature is None else _temperature(temperature)
    loss = make_loss(named, kind, layout, temperature=None if schedule is None else schedule(0.0))
    if schedule is None and loss.spec.temperature is not None:
        schedule = constant(loss.spec.temperature)
    lowest = None if schedule is None else schedule.bounds[0]
    warning = None if callable(named) or note else pairing_warning(loss.spec.name, kind, lowest)
    return TaskLoss(loss, schedule, warning, note)


def _temperature(given: float | str | Schedule) -> Schedule:
    schedule = as_schedule(given, "temperature")
    if not schedule.bounds[0] > 0:
        raise UsageError(f"temperature must stay > 0, got {given!r}, whose lowest value is {schedule.bounds[0]:g}.")
    return schedule


def _tasks_of(values: object) -> list[str]:
    return list(cast(Mapping[str, object], values)) if isinstance(values, Mapping) else []


def student_kind(names: Sequence[str], losses: Sequence[TaskLoss]) -> OutputKind:
    """Return the kind of output that all of a student's heads have.

    Raises:
        MismatchError: losses make different students.
    """
    kinds: dict[str, OutputKind] = {name: loss.function.student_kind for name, loss in zip(names, losses, strict=True)}
    if set(kinds.values()) <= {"q_values", "logits"}:
        # A student of Q-values by a divergence gives logits; argmax and greedy play are the same.
        return "q_values" if set(kinds.values()) == {"q_values"} else "logits"
    if len(set(kinds.values())) > 1:
        shown = ", ".join(f"{kind} of {name}" for name, kind in kinds.items())
        is_mixed = bool(set(kinds.values()) & {"q_values", "logits"})
        way = (
            "Name one --loss."
            if not is_mixed
            else ("Choices and continuous actions in one student are not possible yet: distil one student of each.")
        )
        raise MismatchError(f"These losses make a student of {shown}: one policy cannot give both. {way}")
    return next(iter(kinds.values()))


def resolved_losses(names: Sequence[str], losses: Sequence[TaskLoss]) -> dict[str, Any]:
    """Return the losses and temperatures that were used, as `config.toml` keeps them."""
    by_task = {
        "loss": {name: loss.function.spec.name for name, loss in zip(names, losses, strict=True)},
        "temperature": {
            name: loss.temperature.to_value()
            for name, loss in zip(names, losses, strict=True)
            if loss.temperature is not None
        },
    }
    return {key: shortest(values, len(names)) for key, values in by_task.items() if values}
