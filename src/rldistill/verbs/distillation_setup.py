"""From options and sources to what is trained, on what, and by which losses."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from rldistill.distillation import OPTIMIZERS, Batches, Distiller
from rldistill.distillation.balance import GradientBalance
from rldistill.distillation.sources import Source, num_decoders
from rldistill.errors import MismatchError, UsageError
from rldistill.limits import MAX_NORMALISED
from rldistill.losses.further import FurtherLoss
from rldistill.networks import ModuleNetwork
from rldistill.networks.precision import resolve_precision
from rldistill.networks.torsos import image_shape
from rldistill.options.distill import DistillOptions, Named, Online
from rldistill.options.shared import recorded
from rldistill.policies import TorchPolicy
from rldistill.schedules import Schedule, TaskSchedule, as_schedule
from rldistill.sight import Sight
from rldistill.verbs.default_student import choose_student
from rldistill.verbs.initial_student import new_student
from rldistill.verbs.input_statistics import teachers_statistics, to_be_measured
from rldistill.verbs.per_task import check_tasks, value_for
from rldistill.verbs.sizes import kind_of_sight
from rldistill.verbs.sources import held_out_fraction, source_values
from rldistill.verbs.student_from_file import freeze_old_parts, student_from_file
from rldistill.verbs.student_task import StudentTask, kinds_of_observation
from rldistill.verbs.task_losses import TaskLoss, further_loss, resolved_losses, student_kinds, task_losses


@dataclass(frozen=True)
class DistillationSetup:
    """What options and data make together."""

    batches: Batches  # of the sources that teach, in the order in which the data were named
    num_updates: int  # of the whole run
    student: TorchPolicy  # with a head for each of them, and perhaps more
    distiller: Distiller  # trains it
    values: Mapping[str, Any]  # the options, with what followed from the data, for `config.toml`
    warnings: tuple[str, ...]  # for people, before anything is trained
    notes: tuple[str, ...]  # likewise, of what was decided
    student_note: str | None  # why this network was chosen: of use only while it can still be another
    kept_teachers: tuple[Mapping[str, Any], ...]  # records of heads that the student had before
    tasks: Sequence[StudentTask]  # that are taught, for further students
    losses: Mapping[int, TaskLoss]  # of the heads

    @property
    def sources(self) -> Sequence[Source]:
        """One for each task that is taught."""
        return self.batches.sources


def prepare(
    options: DistillOptions,
    named: Sequence[Named],
    sources: Sequence[Source],
    student_name: str,
    sight: Sight | None,
    note: str | None,
    *,
    weights_seed: int | None = None,
) -> DistillationSetup:
    """Make everything that a run trains with.

    Args:
        options: nothing of them left open but the student.
        named: what the sources were made from.
        sources: opened; the run closes them.
        student_name: as the options say it.
        sight: which parts of the observations the student sees; None: all.
        note: what was decided before.
        weights_seed: of the student's weights; None: that of the run.

    Raises:
        MismatchError: data, losses, student and `init_from` do not fit each other.
        UsageError: a value is out of range.
    """
    names = _check_tasks(options, sources)
    losses = task_losses(options, sources)
    tasks = _student_tasks(options, sources, sight, losses)
    _check_std(options, tasks)
    _check_normalize(options, tasks)
    chosen, why = choose_student(student_name, options, tasks, _teacher_sizes(sources))
    own = options if weights_seed is None else replace(options, seed=weights_seed)
    if own.init_from is None:
        student, kept = new_student(own, chosen, tasks), ()
    else:
        student, kept = student_from_file(own, chosen, tasks)
    student = student.to(torch.device(options.device))
    heads = [list(student.spec.head_sizes).index(name) for name in names]
    assert options.num_updates and options.batch_size and options.learning_rate is not None, "filled in by the recipe"
    schedule = task_schedule(options, names)
    _teach(options, sources, tasks, losses, student, heads, schedule.mean_rows(options.batch_size))
    learning_rate, by_head = as_schedule(options.learning_rate, "learning_rate"), dict(zip(heads, losses, strict=True))
    further = {head: further_loss(options, source, student, head) for source, head in zip(sources, heads, strict=True)}
    distiller = _distiller(options, student, by_head, learning_rate, options.num_updates, further)
    values = _values(options, named, schedule) | resolved_losses(names, losses)
    values |= {"student": chosen, "learning_rate": learning_rate.to_value()}
    decoders = num_decoders(options.num_threads, options.device)
    return DistillationSetup(
        Batches(sources, schedule, options.batch_size, decoders, window_length=options.window or 1),
        options.num_updates,
        student,
        distiller,
        values,
        _warnings(sources, losses, _spoilt_heads(options, student, names)),
        _notes(sources, losses, note, _play_note(options, sources)),
        why,
        kept,
        tasks,
        by_head,
    )


def _student_tasks(
    options: DistillOptions, sources: Sequence[Source], sight: Sight | None, losses: Sequence[TaskLoss]
) -> list[StudentTask]:
    """Return what the student is taught."""
    tasks: list[StudentTask] = []
    for source, kind in zip(sources, student_kinds(losses), strict=True):
        statistics = teachers_statistics(source.teacher, source.task, sight, source.label)
        is_measured = bool(statistics is None and options.normalize_inputs and options.init_from is None)
        if is_measured:
            statistics = to_be_measured(source.task, sight)
        # Of a dataset nobody asks its teacher, which may be elsewhere.
        remembers = source.policy is not None and source.policy.initial_state(1) is not None
        tasks.append(StudentTask(source.task, source.samples, statistics, is_measured, sight, kind, remembers))
    return tasks


def _teach(
    options: DistillOptions,
    sources: Sequence[Source],
    tasks: Sequence[StudentTask],
    losses: Sequence[TaskLoss],
    student: TorchPolicy,
    heads: Sequence[int],
    shares: Sequence[float],
) -> None:
    """Tell every source whom it teaches, and what the student takes over from it before the first update."""
    for source, task, head, loss, share in zip(sources, tasks, heads, losses, shares, strict=True):
        source.teach(head, student, loss.at, num_rows=share, measure=task.is_measured)
    if options.std == "fixed":
        fix_std(student, sources, heads)


def _warnings(sources: Sequence[Source], losses: Sequence[TaskLoss], spoilt: str | None) -> tuple[str, ...]:
    """Return what people are warned of before anything is trained."""
    found = [spoilt, *(loss.warning for loss in losses), *(text for source in sources for text in source.warnings)]
    return tuple(text for text in found if text)


def _notes(
    sources: Sequence[Source], losses: Sequence[TaskLoss], before: str | None, play: str | None
) -> tuple[str, ...]:
    """Return what was decided, for people."""
    found = [before, *(text for source in sources for text in source.notes), *(loss.note for loss in losses), play]
    return tuple(text for text in found if text)


def _play_note(options: DistillOptions, sources: Sequence[Source]) -> str | None:
    """Return what is said where the student cannot be played while it learns."""
    own = [item.playable for item in sources if item.playable is not None]
    if not options.evaluate_episodes or all(playable.fixed_num_envs is None for playable in own):
        return None
    return "evaluate_episodes plays at the end alone: your VectorEnv is what is learned from until then"


def _values(options: DistillOptions, named: Sequence[Named], schedule: TaskSchedule) -> dict[str, Any]:
    """Return the options as `config.toml` holds them: what was left open is filled in where it applies."""
    own = recorded(options)
    del own["source"]
    if not isinstance(named[0], Online):
        own |= {"task_order": schedule.order, "held_out_fraction": held_out_fraction(options)}
    return source_values(named) | own


def _teacher_sizes(data: Sequence[Source]) -> list[int | None]:
    """Return the parameters of each teacher, once of one that teaches several tasks."""
    sizes: dict[str, int | None] = {}
    for item in data:
        sizes[item.teacher.hash] = sizes.get(item.teacher.hash) or item.teacher.num_parameters
    return list(sizes.values())


def _spoilt_heads(options: DistillOptions, student: TorchPolicy, taught: Sequence[str]) -> str | None:
    """Return a warning where the torso is trained and heads that it had before are not."""
    left = [name for name in student.spec.head_sizes if name not in taught]
    if not (options.add_head and options.train_torso and left):
        return None
    return (
        f"--train-torso changes what the heads of {', '.join(left)} see, and nothing teaches these: they will no "
        "longer play as they did. Name their data too, or leave --train-torso out."
    )


def _check_std(options: DistillOptions, tasks: Sequence[StudentTask]) -> None:
    """Check that a choice of spread is not ignored.

    Raises:
        UsageError: the student has none, or gives it itself.
    """
    kinds, is_module = list(dict.fromkeys(task.output_kind for task in tasks)), isinstance(options.student, nn.Module)
    if options.std == "state" or ("gaussian" in kinds and not is_module):
        return
    if is_module:
        raise UsageError(f"std: got {options.std!r} for a module of your own, whose outputs say it all. Leave std out.")
    raise UsageError(
        f"std: got {options.std!r} for a student of {' and '.join(kinds)}, which has no spread. Leave it out, or use a "
        "loss of Gaussians: diag_gaussian_kl."
    )


def fix_std(student: TorchPolicy, data: Sequence[Source], heads: Sequence[int]) -> None:
    """Give every head the mean of its teacher's log std over held-out steps, which is not trained."""
    for item, head in zip(data, heads, strict=True):
        if list(student.spec.output_layers.values())[head].kind != "gaussian":
            continue  # a head of other outputs beside it
        log_std = item.held_out.batch.target_rows("gaussian").chunk(2, dim=-1)[1].mean(dim=0)
        student.network.get_buffer(f"heads.{head}.rows.log_std").copy_(log_std)


def _check_normalize(options: DistillOptions, tasks: Sequence[StudentTask]) -> None:
    """Check that observations can be normalised by what is measured.

    Raises:
        UsageError: they cannot; says why.
    """
    if not options.normalize_inputs:
        return
    seen, why = [task.seen for task in tasks], ""
    if len(kinds_of_observation(tasks)) < len(tasks):
        why = f"{len(tasks)} tasks, whose observations have means of their own"
    elif any(own.observation_dtype == "uint8" or any(part.is_image for part in own.observation_parts) for own in seen):
        why = "images, which are scaled already"
    elif any(math.prod(own.observation_shape) > MAX_NORMALISED for own in seen):
        why = f"observations of more than {MAX_NORMALISED:,} numbers"
    elif isinstance(options.student, nn.Module):
        why = "a module of your own, which may do so itself"
    if why:
        raise UsageError(f"normalize_inputs is for vectors, those of each task apart, got {why}. Leave it out.")


def task_schedule(options: DistillOptions, names: Sequence[str]) -> TaskSchedule:
    """Return which task's rows make up which batch.

    Raises:
        UsageError: a weight is no positive number, or there are weights with `in_turn`.
    """
    given = [value_for(options.task_weights or {}, name) for name in names]
    weights = tuple(1.0 if weight is None else float(weight) for weight in given)
    return TaskSchedule(options.task_order or "in_turn", weights, options.seed)


def _check_tasks(options: DistillOptions, data: Sequence[Source]) -> list[str]:
    """Return the tasks' names, after checking that one student can have a head for each, and what is said of them."""
    names = [item.task.name for item in data]
    for index, name in enumerate(names):
        if name in names[:index]:
            first = data[names.index(name)]
            raise MismatchError(
                f"{first.label} and {data[index].label} are both of task {name!r}, expected one per task. Name one."
            )
    first = data[0].task.fingerprint
    for item in data[1:]:
        own = item.task.fingerprint
        alike = own.observation_description == first.observation_description
        # Vectors get a stem each.
        have_stems = all(kind_of_sight(one) == "vectors" and one.observation_dtype != "uint8" for one in (first, own))
        if not (alike or have_stems):
            both_images = all(image_shape(one.observation_shape) is not None for one in (first, own))
            way = "Play both with the same preprocessing." if both_images else "Distil each into a student of its own."
            raise MismatchError(
                f"{data[0].label} and {item.label} have different observations, {first.observation_description} and "
                f"{own.observation_description}: one torso cannot see both. {way}"
            )
    for option in ("loss", "temperature", "task_weights"):
        check_tasks(getattr(options, option), names, option)
    if len(names) == 1 and (options.task_order not in (None, "in_turn") or options.task_weights):
        option = "task_weights" if options.task_weights else "task_order"
        raise UsageError(f"{option} is for several tasks, got {names[0]} alone. Leave it out.")
    return names


def _distiller(
    options: DistillOptions,
    student: TorchPolicy,
    losses: Mapping[int, TaskLoss],
    learning_rate: Schedule,
    num_updates: int,
    further: Mapping[int, FurtherLoss | None],
) -> Distiller:
    learned = {head: own for head, own in further.items() if own is not None}
    # With --add-head alone the rest of the student stays as it is.
    only_heads = options.add_head and not options.train_torso
    trained = freeze_old_parts(student, list(losses)) if only_heads else student.network
    parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    parameters += [parameter for own in learned.values() for parameter in own.parameters()]
    return Distiller(
        student.network,
        {head: loss.function for head, loss in losses.items()},
        OPTIMIZERS[options.optimizer](parameters, learning_rate.bounds[1], options.weight_decay),
        learning_rate=learning_rate,
        parameters={head: loss.parameters for head, loss in losses.items()},
        num_updates=num_updates,
        max_gradient_norm=options.max_gradient_norm,
        precision=resolve_precision(options.precision, torch.device(options.device)),
        seed=options.seed,
        further=learned,
        sight=student.spec.sight,
        balance=_balance(options, student, list(losses)),
    )


def _balance(options: DistillOptions, student: TorchPolicy, heads: Sequence[int]) -> GradientBalance | None:
    """Return what balances tasks by their gradients.

    Raises:
        UsageError: there is one task, or nothing that tasks share is trained.
    """
    if options.task_balance == "weights":
        return None
    network = student.network
    below = [] if isinstance(network, ModuleNetwork) else [network.torso, network.memory, network.memory_above]
    shared = [own for part in below if part is not None for own in part.parameters() if own.requires_grad]
    if len(heads) == 1 or not shared:
        why = "one task" if len(heads) == 1 else "a torso that is not trained"
        raise UsageError(f"task_balance: gradient_norms is for several tasks that train what they share, got {why}.")
    return GradientBalance(shared, heads)
