"""By which loss each task is taught, at which temperature, and what kind of student that makes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from rldistill.distillation.sources import Source
from rldistill.distillation.stored import StoredSource
from rldistill.errors import MismatchError, UsageError
from rldistill.losses import LossFunction, auto_temperature, check_loss, make_loss, pairing_warning
from rldistill.losses.further import FeatureRegression, FurtherLoss
from rldistill.losses.spec import check_parameter, losses_with, not_taken
from rldistill.losses.temperature import GAP_IN_TEMPERATURES
from rldistill.options.distill import AUTO, DistillOptions, Named, Online, Stored
from rldistill.policies import TorchPolicy
from rldistill.schedules import Schedule, as_schedule, constant
from rldistill.seeding import stream_seed
from rldistill.types import OUTPUT_KINDS_OF_ACTIONS, OutputKind
from rldistill.verbs.per_task import shortest, value_for


@dataclass(frozen=True)
class TaskLoss:
    """A task's loss."""

    function: LossFunction  # on rows of student and teacher
    parameters: Mapping[str, Schedule]  # of the loss, each as a function of progress
    warning: str | None = None  # what to warn of
    note: str | None = None  # how a temperature was found

    def at(self, student: Tensor, target: Tensor, progress: float) -> Tensor:
        """Return one loss per row, at the parameters of a moment of the run."""
        return self.function(student, target, **{name: value(progress) for name, value in self.parameters.items()})


def check_losses(options: DistillOptions, kind: type[Named]) -> None:
    """Check names and parameters, whatever the data: the pairing is checked when the teachers' outputs are known.

    Raises:
        UsageError: a name is unknown, a parameter out of range, or a temperature `auto` without a dataset.
    """
    for name in ("loss", "temperature"):
        if not all(isinstance(task, str) for task in _tasks_of(getattr(options, name))):
            raise UsageError(f"{name}: got {getattr(options, name)!r}, expected values by task name.")
    for task in {"", *_tasks_of(options.loss), *_tasks_of(options.temperature)}:
        loss = value_for(options.loss, task)
        if value_for(options.temperature, task) == AUTO and kind is not Stored:
            who = "one that still learns" if kind is Online else "one that plays live"
            raise UsageError(
                f"temperature: auto is taken from the teacher's answers in a dataset, and {who} has not said anything "
                "yet. Collect first, or give a number."
            )
        schedules = _given(options, task)
        if loss is not None and not callable(loss):
            check_loss(loss, **_first_values(schedules))


def task_losses(options: DistillOptions, sources: Sequence[Source]) -> list[TaskLoss]:
    """Return the loss of each task.

    Raises:
        MismatchError: a loss does not fit what its teacher gives; of tasks with other kinds of action, says how each
            gets its own.
        UsageError: as `task_loss`.
    """
    losses: list[TaskLoss] = []
    for source in sources:
        try:
            losses.append(task_loss(options, source))
        except MismatchError as error:
            kinds = {each.task.fingerprint.action_layout.is_continuous for each in sources}
            if len(kinds) == 1 or isinstance(options.loss, Mapping):
                raise
            raise MismatchError(f"{source.task.name}: {error} By task: --loss TASK=LOSS,TASK=LOSS.") from error
    return losses


def task_loss(options: DistillOptions, source: Source) -> TaskLoss:
    """Return the loss of one task.

    Raises:
        MismatchError: the loss does not fit what the teacher gives.
        UsageError: a parameter that the loss does not take, or `auto` for a teacher that prefers no action.
    """
    task, kind, layout = source.task.name, source.teacher.output_kind, source.task.fingerprint.action_layout
    given, named = _given(options, task), value_for(options.loss, task)
    note: str | None = None
    if value_for(options.temperature, task) == AUTO:
        # Whether the loss takes a temperature at all is told first.
        spec = make_loss(named, kind, layout).spec
        if spec.temperature is None:
            raise UsageError(not_taken("temperature", AUTO, spec.name))
        assert isinstance(source, StoredSource), "check_losses refuses the others"
        temperature = auto_temperature(torch.from_numpy(source.sample_of_targets()), layout)
        given["temperature"] = constant(temperature)
        note = (
            f"temperature of {task}: {temperature:.4g}, 1/{GAP_IN_TEMPERATURES:g} of the median gap between the "
            "teacher's best two actions"
        )
    loss = make_loss(named, kind, layout, **_first_values(given))
    # What was left open, the loss's own defaults say.
    parameters = {name: constant(value) for name, value in loss.spec.parameters.items()} | given
    lowest = parameters["temperature"].bounds[0] if "temperature" in parameters else None
    warning = None if callable(named) or note else pairing_warning(loss.spec.name, kind, lowest)
    return TaskLoss(loss, parameters, warning, note)


def further_loss(options: DistillOptions, source: Source, student: TorchPolicy, head: int) -> FurtherLoss | None:
    """Return what a head learns of its teacher besides outputs; None: nothing.

    Raises:
        MismatchError: the data do not hold it.
    """
    for field, option in options.further.items():
        if field not in source.further:
            raise MismatchError(
                f"{option}: {source.label} holds no {field} of its teacher. Collect with --store {field}, or leave "
                f"{option} out."
            )
    if not options.further:
        return None
    regression: FeatureRegression | None = None
    if "features" in options.further:
        (num_teacher,) = source.further["features"]
        num_student = student.network.get_submodule(f"heads.{head}.output").get_parameter("weight").shape[1]
        # A stream of its own: the student's first weights are those that it has without.
        generator = torch.Generator().manual_seed(stream_seed(options.seed, "feature regression", head))
        regression = FeatureRegression(num_student, num_teacher, generator=generator)
    weights = {"value_weight": options.value_weight, "feature_weight": options.feature_weight}
    return FurtherLoss(**weights, regression=regression).to(student.device)


def _given(options: DistillOptions, task: str) -> dict[str, Schedule]:
    """Return the parameters that are named for a task's loss, but for a temperature that the data are to give.

    Raises:
        UsageError: one does not stay in its range, or a temperature stands among the others.
    """
    others: object = {} if options.loss_params is None else options.loss_params
    if not isinstance(others, Mapping) or not all(isinstance(name, str) for name in _tasks_of(others)):
        raise UsageError(f"loss_params: got {others!r}, expected values by the parameter's name, such as delta=0.5.")
    if "temperature" in others:
        raise UsageError("loss_params: got a temperature, which has an option of its own: temperature.")
    values = dict(cast(Mapping[str, Any], others))
    if isinstance(options.loss, Mapping):
        # Of several losses those that take a parameter get it; one that none takes is refused with each.
        own, named = value_for(options.loss, task), set(options.loss.values())
        values = {
            name: value
            for name, value in values.items()
            if own in losses_with(name) or named.isdisjoint(losses_with(name))
        }
    temperature = value_for(options.temperature, task)
    if temperature not in (None, AUTO):
        values["temperature"] = temperature
    schedules = {name: as_schedule(value, name) for name, value in values.items()}
    for name, schedule in schedules.items():
        if not schedule.bounds[0] > 0:
            raise UsageError(
                f"{name} must stay > 0, got {values[name]!r}, whose lowest value is {schedule.bounds[0]:g}."
            )
        for value in schedule.bounds:  # at the end of a run it would be too late
            check_parameter(name, value)
    return schedules


def _first_values(schedules: Mapping[str, Schedule]) -> dict[str, float]:
    return {name: schedule(0.0) for name, schedule in schedules.items()}


def _tasks_of(values: object) -> list[str]:
    return list(cast(Mapping[str, object], values)) if isinstance(values, Mapping) else []


def student_kinds(losses: Sequence[TaskLoss]) -> list[OutputKind]:
    """Return the kind of output of each of a student's heads.

    Heads of choices have one: a student of Q-values by a divergence gives logits, and argmax and greedy play are the
    same. Continuous heads stand beside them, each as its own loss has it.
    """
    kinds: list[OutputKind] = [loss.function.student_kind for loss in losses]
    of_choices: OutputKind = "logits" if "logits" in kinds else "q_values"
    for place, kind in enumerate(kinds):
        if kind in OUTPUT_KINDS_OF_ACTIONS["discrete"]:
            kinds[place] = of_choices
    return kinds


def resolved_losses(names: Sequence[str], losses: Sequence[TaskLoss]) -> dict[str, Any]:
    """Return the losses and temperatures that were used, as `config.toml` keeps them."""
    by_task: dict[str, dict[str, Any]] = {
        "loss": {name: loss.function.spec.name for name, loss in zip(names, losses, strict=True)},
        "temperature": {
            name: loss.parameters["temperature"].to_value()
            for name, loss in zip(names, losses, strict=True)
            if "temperature" in loss.parameters
        },
    }
    others = {
        parameter: schedule.to_value()
        for loss in losses
        for parameter, schedule in loss.parameters.items()
        if parameter != "temperature"
    }
    return {key: shortest(values, len(names)) for key, values in by_task.items() if values} | (
        {"loss_params": others} if others else {}
    )
