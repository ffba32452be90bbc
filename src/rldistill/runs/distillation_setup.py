"""From a configuration and datasets to what is trained, on what, and by which losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rldistill.data import Dataset, TeacherEntry, split_episodes
from rldistill.distillation import OPTIMIZERS, Distiller, HeldOut, Source, StoredSource, StoredTask
from rldistill.distillation.sources import held_out_sample
from rldistill.errors import MismatchError, UsageError
from rldistill.losses import CustomLoss, LossFunction, make_loss, pairing_warning
from rldistill.networks.precision import resolve_precision
from rldistill.policies import TorchPolicy
from rldistill.runs.config import DistillConfig
from rldistill.runs.initial_student import StudentTask, freeze_old_parts, initial_student
from rldistill.runs.per_task import check_tasks, parse_per_task, value_for
from rldistill.schedules import Constant, Schedule, TaskSchedule, parse_schedule
from rldistill.tasks import Task


@dataclass(frozen=True)
class TaughtTask:
    """One task of a run: who teaches it, and on what its student is measured.

    Attributes:
        task: with the head of its name.
        teacher: who labels.
        held_out: steps never trained on.
        description: of the data, for people.
        identity: of the data: a resumed run must have the same.
        record: of the data, for the student's file.
    """

    task: Task
    teacher: TeacherEntry
    held_out: HeldOut
    description: str
    identity: str
    record: Mapping[str, Any]


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
        kept_teachers: records of heads that the student had before.
    """

    tasks: tuple[TaughtTask, ...]
    student: TorchPolicy
    distiller: Distiller
    source: Source
    resolved: Mapping[str, Any]
    warnings: tuple[str, ...]
    kept_teachers: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class _TaskLoss:
    """A task's loss, its temperature, and what to warn of."""

    function: LossFunction
    temperature: Schedule | None
    warning: str | None


def prepare(
    config: DistillConfig, datasets: Sequence[Dataset], custom_loss: CustomLoss | None, module: nn.Module | None
) -> DistillationSetup:
    """Make everything that a run trains with.

    Raises:
        MismatchError: datasets, losses, student and `init_from` do not fit each other.
        DatasetError: too few episodes to hold some out.
        UsageError: a value is out of range.
    """
    names = _check_datasets(datasets)
    losses = [_task_loss(config, dataset, custom_loss) for dataset in datasets]
    for option in ("loss", "temperature", "task_weights"):
        check_tasks(parse_per_task(getattr(config, option), option), names, option)
    origins = [dataset.provenance for dataset in datasets]
    student_tasks = [
        StudentTask(origin.task, origin.teacher.output_kind != "q_values" and origin.behaviour == "sample")
        for origin in origins
    ]
    # A student of Q-values by a divergence gives logits; argmax and greedy play are the same.
    is_regression = all(loss.function.spec.name == "q_mse" for loss in losses)
    student, kept = initial_student(config, student_tasks, module, "q_values" if is_regression else "logits")
    student = student.to(torch.device(config.device))
    heads = [list(student.spec.head_sizes).index(name) for name in names]
    trained = freeze_old_parts(student, heads) if config.add_head and not config.train_torso else student.network
    splits = [split_episodes(dataset, config.held_out_fraction, config.seed) for dataset in datasets]
    tasks = [
        StoredTask(dataset, split.train, seed=config.seed, head=head)
        for dataset, split, head in zip(datasets, splits, heads, strict=True)
    ]
    taught = [
        _taught(dataset, held_out_sample(dataset, split.held_out, seed=config.seed, head=head))
        for dataset, split, head in zip(datasets, splits, heads, strict=True)
    ]
    warnings = [loss.warning for loss in losses] + [text for dataset in datasets for text in _data_warnings(dataset)]
    return DistillationSetup(
        tuple(taught),
        student,
        _distiller(config, student, trained, dict(zip(heads, losses, strict=True))),
        StoredSource(tasks, batch_size=config.batch_size, schedule=task_schedule(config, names)),
        _resolved(names, losses),
        tuple(warning for warning in warnings if warning),
        kept,
    )


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


def _check_datasets(datasets: Sequence[Dataset]) -> list[str]:
    """Return the tasks' names, after checking that one student can have a head for each."""
    names = [dataset.provenance.task.name for dataset in datasets]
    for index, name in enumerate(names):
        if name in names[:index]:
            first = datasets[names.index(name)].path
            raise MismatchError(
                f"Datasets {first} and {datasets[index].path} are both of task {name!r}, expected one per task. "
                "Collect more into one with `rldistill collect … --resume`."
            )
    first = datasets[0].provenance.task.fingerprint
    for dataset in datasets[1:]:
        own = dataset.provenance.task.fingerprint
        if (own.observation_shape, own.observation_dtype) != (first.observation_shape, first.observation_dtype):
            raise MismatchError(
                f"Datasets {datasets[0].path} and {dataset.path} have different observations, "
                f"{first.observation_dtype} {list(first.observation_shape)} and {own.observation_dtype} "
                f"{list(own.observation_shape)}: one torso cannot see both. Collect both with the same preprocessing."
            )
    return names


def _task_loss(config: DistillConfig, dataset: Dataset, custom_loss: CustomLoss | None) -> _TaskLoss:
    name, kind = dataset.provenance.task.name, dataset.provenance.teacher.output_kind
    text = value_for(parse_per_task(config.temperature, "temperature"), name)
    schedule = None if text is None else parse_schedule(text, "temperature")
    named = value_for(parse_per_task(config.loss, "loss"), name)
    loss = make_loss(custom_loss or named, kind, temperature=None if schedule is None else schedule(0.0))
    if schedule is None and loss.spec.temperature is not None:
        schedule = Constant(loss.spec.temperature)
    lowest = None if schedule is None else schedule.bounds[0]
    warning = None if custom_loss else pairing_warning(loss.spec.name, kind, lowest)
    return _TaskLoss(loss, schedule, warning)


def _resolved(names: Sequence[str], losses: Sequence[_TaskLoss]) -> dict[str, str]:
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


def _distiller(
    config: DistillConfig, student: TorchPolicy, trained: nn.Module, losses: Mapping[int, _TaskLoss]
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
    )


def _taught(dataset: Dataset, held_out: HeldOut) -> TaughtTask:
    origin = dataset.provenance
    size = f"{len(dataset.episode_numbers)} episodes, {dataset.num_steps:,} steps"
    return TaughtTask(
        origin.task,
        origin.teacher,
        held_out,
        f"{dataset.path} ({size})",
        dataset.manifest.identity,
        {"num_steps": dataset.num_steps, "seed": origin.seed},
    )


def _data_warnings(dataset: Dataset) -> list[str]:
    """Return what a user should know of the data before trusting a student of theirs."""
    manifest, origin = dataset.manifest, dataset.provenance
    warnings: list[str] = []
    if not manifest.is_complete:
        of = f"{manifest.num_steps:,} of {manifest.target_num_steps:,} steps"
        warnings.append(f"{dataset.path} is not finished: {of} are used. `rldistill collect … --resume` goes on.")
    has_chance = origin.exploration_epsilon > 0 or origin.task.protocol.sticky_action_probability > 0
    if origin.task.is_atari and origin.behaviour == "greedy" and not has_chance:
        warnings.append(
            f"{dataset.path} was played without chance: episodes repeat, and held-out ones may equal those trained on. "
            "Collect with --exploration-epsilon 0.05."
        )
    return warnings
