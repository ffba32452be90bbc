"""From a configuration and data to what is trained, on what, and by which losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from rldistill.data.manifest import DATASET_REMEDY
from rldistill.distillation import OPTIMIZERS, Distiller, Source
from rldistill.errors import DatasetError, MismatchError, UsageError, first_line
from rldistill.losses import CustomLoss
from rldistill.networks import InputNormalization
from rldistill.networks.precision import resolve_precision
from rldistill.networks.torsos import image_shape
from rldistill.policies import TorchPolicy
from rldistill.schedules import TaskSchedule, parse_schedule
from rldistill.tasks import Task
from rldistill.types import OutputKind
from rldistill.verbs.default_student import choose_student
from rldistill.verbs.distill_config import DistillConfig
from rldistill.verbs.initial_student import StudentTask, freeze_old_parts, initial_student
from rldistill.verbs.per_task import check_tasks, parse_per_task, value_for
from rldistill.verbs.task_data import TaskData, make_source
from rldistill.verbs.task_losses import TaskLoss, resolved_losses, student_kind, task_loss


@dataclass(frozen=True)
class DistillationSetup:
    """What a configuration and its data make together.

    Attributes:
        tasks: that are taught, in the order in which the data were named.
        student: with a head for each of them, and perhaps more.
        distiller: trains it.
        source: of the batches.
        resolved: settings that followed from the data, for `config.toml`.
        warnings: for people, before anything is trained.
        notes: likewise, of what was found out.
        student_note: likewise, why this network was chosen: of use only while it can still be another.
        kept_teachers: records of heads that the student had before.
    """

    tasks: tuple[TaskData, ...]
    student: TorchPolicy
    distiller: Distiller
    source: Source
    resolved: Mapping[str, Any]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    student_note: str | None
    kept_teachers: tuple[Mapping[str, Any], ...] = ()


def prepare(
    config: DistillConfig, data: Sequence[TaskData], custom_loss: CustomLoss | None, module: nn.Module | None
) -> DistillationSetup:
    """Make everything that a run trains with.

    Raises:
        MismatchError: data, losses, student and `init_from` do not fit each other.
        DatasetError: too few episodes to hold some out.
        UsageError: a value is out of range.
    """
    names = _check_tasks(data)
    losses = [task_loss(config, item, custom_loss) for item in data]
    for option in ("loss", "temperature", "task_weights"):
        check_tasks(parse_per_task(getattr(config, option), option), names, option)
    student_tasks = [StudentTask(item.task, item.samples, _normalization(item)) for item in data]
    kind = student_kind(names, losses)
    _check_std(config, kind, module)
    chosen, why = choose_student(config, student_tasks, kind, _teacher_sizes(data))
    config = replace(config, student=chosen)
    student, kept = initial_student(config, student_tasks, module, kind)
    student = student.to(torch.device(config.device))
    heads = [list(student.spec.head_sizes).index(name) for name in names]
    trained = freeze_old_parts(student, heads) if config.add_head and not config.train_torso else student.network
    for item, head in zip(data, heads, strict=True):
        item.teach(head, config)
    if config.std == "fixed":
        _fix_std(student, data, heads)
    schedule = task_schedule(config, names)
    return DistillationSetup(
        tuple(data),
        student,
        _distiller(config, student, trained, dict(zip(heads, losses, strict=True))),
        make_source(data, config, schedule, student),
        {**resolved_losses(names, losses), "student": chosen},
        tuple(
            text
            for text in [
                _spoilt_heads(config, student, names),
                *(loss.warning for loss in losses),
                *(warning for item in data for warning in item.warnings),
            ]
            if text
        ),
        tuple(note for note in (*_notes(data), *(loss.note for loss in losses)) if note),
        why,
        kept,
    )


def _teacher_sizes(data: Sequence[TaskData]) -> list[int | None]:
    """Return the parameters of each teacher, once of one that teaches several tasks."""
    sizes: dict[str, int | None] = {}
    for item in data:
        sizes[item.teacher.hash] = sizes.get(item.teacher.hash) or item.teacher.num_parameters
    return list(sizes.values())


def _notes(data: Sequence[TaskData]) -> list[str]:
    return [note for item in data for note in item.notes]


def _spoilt_heads(config: DistillConfig, student: TorchPolicy, taught: Sequence[str]) -> str | None:
    """Return a warning where the torso is trained and heads that it had before are not."""
    left = [name for name in student.spec.head_sizes if name not in taught]
    if not (config.add_head and config.train_torso and left):
        return None
    return (
        f"--train-torso changes what the heads of {', '.join(left)} see, and nothing teaches these: they will no "
        "longer play as they did. Name their data too, or leave --train-torso out."
    )


def _check_std(config: DistillConfig, kind: OutputKind, module: nn.Module | None) -> None:
    """Check that a choice of spread is not ignored.

    Raises:
        UsageError: the student has none, or gives it itself.
    """
    if config.std == DistillConfig.std or (kind == "gaussian" and module is None):
        return
    if module is not None:
        raise UsageError(f"std: got {config.std!r} for a module of your own, whose outputs say it all. Leave std out.")
    raise UsageError(
        f"std: got {config.std!r} for a student of {kind}, which has no spread. Leave it out, or use a loss of "
        "Gaussians: diag_gaussian_kl."
    )


def _fix_std(student: TorchPolicy, data: Sequence[TaskData], heads: Sequence[int]) -> None:
    """Give every head the mean of its teacher's log std over held-out steps, which is not trained."""
    for item, head in zip(data, heads, strict=True):
        log_std = item.held_out.batch.target_rows("gaussian").chunk(2, dim=-1)[1].mean(dim=0)
        student.network.get_buffer(f"heads.{head}.rows.log_std").copy_(log_std)


def _normalization(data: TaskData) -> InputNormalization | None:
    recorded = data.teacher.normalization
    if recorded is None:
        return None
    settings = {name: value for name, value in recorded.items() if name not in ("mean", "variance")}
    try:
        return InputNormalization.from_settings(recorded["mean"], recorded["variance"], settings)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else first_line(error)
        what = f"{data.label}: the normalization of its teacher cannot be used"
        raise DatasetError(f"{what}: {reason}. {DATASET_REMEDY}") from error


def task_schedule(config: DistillConfig, names: Sequence[str]) -> TaskSchedule:
    """Return which task's rows make up which batch.

    Raises:
        UsageError: a weight is no positive number, or weights with `in_turn`.
    """
    texts = parse_per_task(config.task_weights, "task_weights")
    try:
        weights = tuple(float(value_for(texts, name) or 1.0) for name in names)
    except ValueError:
        raise UsageError(
            f"task_weights: got {config.task_weights!r}, expected TASK=WEIGHT pairs such as atari:pong=2."
        ) from None
    return TaskSchedule(config.task_order, weights, config.seed)  # pyright: ignore[reportArgumentType] it checks


def _check_tasks(data: Sequence[TaskData]) -> list[str]:
    """Return the tasks' names, after checking that one student can have a head for each."""
    names = [item.task.name for item in data]
    for index, name in enumerate(names):
        if name in names[:index]:
            first = data[names.index(name)]
            raise MismatchError(
                f"{first.label} and {data[index].label} are both of task {name!r}, expected one per task. "
                "Collect more into one dataset with `rldistill collect … --resume`."
            )
    first = data[0].task.fingerprint.observation_description
    for item in data[1:]:
        own = item.task.fingerprint.observation_description
        if own != first:
            raise MismatchError(
                f"{data[0].label} and {item.label} have different observations, {first} and {own}: one torso cannot "
                f"see both. {_how_to_see_both(data[0].task, item.task)}"
            )
    return names


def _how_to_see_both(first: Task, other: Task) -> str:
    """Return the way on for two tasks of different observations: frames can be made alike, vectors cannot."""
    shapes = [task.fingerprint.observation_shape for task in (first, other)]
    if all(image_shape(shape) is not None for shape in shapes):
        return "Play both with the same preprocessing."
    return "A student of different vectors is not possible yet: distil each task into a student of its own."


def _distiller(
    config: DistillConfig, student: TorchPolicy, trained: nn.Module, losses: Mapping[int, TaskLoss]
) -> Distiller:
    learning_rate = parse_schedule(config.learning_rate, "learning_rate")
    parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    return Distiller(
        student.network,
        {head: loss.function for head, loss in losses.items()},
        OPTIMIZERS[config.optimizer](parameters, learning_rate.bounds[1], config.weight_decay),
        learning_rate=learning_rate,
        temperatures={head: loss.temperature for head, loss in losses.items()},
        num_updates=config.num_updates,
        max_gradient_norm=config.max_gradient_norm,
        precision=resolve_precision(config.precision, torch.device(config.device)),
        seed=config.seed,
    )
