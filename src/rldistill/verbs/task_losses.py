"""By which loss each task is taught, at which temperature, and what kind of student that makes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from rldistill.errors import MismatchError, UsageError
from rldistill.losses import CustomLoss, LossFunction, auto_temperature, check_loss, make_loss, pairing_warning
from rldistill.losses.spec import not_taken
from rldistill.losses.temperature import GAP_IN_TEMPERATURES
from rldistill.schedules import Constant, Schedule, parse_schedule
from rldistill.types import OutputKind
from rldistill.verbs.distill_config import DistillConfig
from rldistill.verbs.per_task import parse_per_task, value_for
from rldistill.verbs.task_data import StoredData, TaskData

AUTO = "auto"
"""A temperature that follows from the gaps between the teacher's own actions."""


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


def check_losses(config: DistillConfig) -> None:
    """Check names and temperatures, whatever the data: the pairing is checked when the teachers' outputs are known.

    Raises:
        UsageError: a name is unknown, a temperature out of range, or `auto` without a dataset.
    """
    texts = parse_per_task(config.temperature, "temperature")
    schedules = {task: parse_schedule(text, "temperature") for task, text in texts.items() if text != AUTO}
    for task, schedule in schedules.items():
        if not schedule.bounds[0] > 0:
            lowest = schedule.bounds[0]
            raise UsageError(f"temperature must stay > 0, got {texts[task]!r}, whose lowest value is {lowest:g}.")
    for task, name in parse_per_task(config.loss, "loss").items():
        schedule = schedules.get(task, schedules.get(""))
        check_loss(name, temperature=None if schedule is None else schedule(0.0))
    if AUTO in texts.values() and not config.data:
        who = "one that still learns" if config.online else "one that plays live"
        raise UsageError(
            f"temperature: auto is taken from the teacher's answers in a dataset, and {who} has not said anything yet. "
            "Collect first, or give a number."
        )


def task_loss(config: DistillConfig, data: TaskData, custom_loss: CustomLoss | None) -> TaskLoss:
    """Return the loss of one task.

    Raises:
        MismatchError: the loss does not fit what the teacher gives.
        UsageError: a temperature for a loss that takes none, or `auto` for a teacher that prefers no action.
    """
    name, kind, layout = data.task.name, data.teacher.output_kind, data.task.fingerprint.action_layout
    text = value_for(parse_per_task(config.temperature, "temperature"), name)
    named = value_for(parse_per_task(config.loss, "loss"), name)
    note: str | None = None
    if text == AUTO:
        # Whether the loss takes a temperature at all is told first.
        spec = make_loss(custom_loss or named, kind, layout).spec
        if spec.temperature is None:
            raise UsageError(not_taken("temperature", AUTO, spec.name))
        value = _auto(data)
        note = (
            f"temperature of {name}: {value:.4g}, 1/{GAP_IN_TEMPERATURES:g} of the median gap between the teacher's "
            "best two actions"
        )
        text = repr(value)
    schedule = None if text is None else parse_schedule(text, "temperature")
    loss = make_loss(custom_loss or named, kind, layout, temperature=None if schedule is None else schedule(0.0))
    if schedule is None and loss.spec.temperature is not None:
        schedule = Constant(loss.spec.temperature)
    lowest = None if schedule is None else schedule.bounds[0]
    warning = None if custom_loss or note else pairing_warning(loss.spec.name, kind, lowest)
    return TaskLoss(loss, schedule, warning, note)


def _auto(data: TaskData) -> float:
    assert isinstance(data, StoredData), "check_losses refuses the others"
    layout = data.task.fingerprint.action_layout
    return auto_temperature(torch.from_numpy(data.sample_of_targets()), layout)


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


def resolved_losses(names: Sequence[str], losses: Sequence[TaskLoss]) -> dict[str, str]:
    """Return the losses and temperatures that were used, as `config.toml` keeps them."""
    by_task = {
        "loss": {name: loss.function.spec.name for name, loss in zip(names, losses, strict=True)},
        "temperature": {
            name: loss.temperature.to_text()
            for name, loss in zip(names, losses, strict=True)
            if loss.temperature is not None
        },
    }
    return {key: _shortest(values, len(names)) for key, values in by_task.items() if values}


def _shortest(values: Mapping[str, str], num_tasks: int) -> str:
    if len(values) == num_tasks and len(set(values.values())) == 1:
        return next(iter(values.values()))
    return ",".join(f"{task}={value}" for task, value in values.items())
