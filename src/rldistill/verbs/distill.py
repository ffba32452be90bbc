"""Distil what teachers say into a student, with everything it takes to go on after a stop."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rldistill.data.sampler import check_held_out_fraction
from rldistill.errors import UsageError
from rldistill.events import Callback
from rldistill.options.declaration import verb
from rldistill.options.distill import AUTO, DistillOptions, Named, Online, Stored
from rldistill.options.shared import check_names
from rldistill.policies import TorchPolicy
from rldistill.rollout.threads import use_threads
from rldistill.schedules import as_schedule
from rldistill.session.interrupts import stop_on_interrupt
from rldistill.session.machine import resolve_machine, with_precision
from rldistill.session.run_folder import check_configured, configured_run, keep_inputs
from rldistill.sight import Sight, choose_parts, shown_to
from rldistill.tasks import Task
from rldistill.types import OutputKind
from rldistill.verbs.default_student import network_of_file
from rldistill.verbs.distillation_run import DistillationRun, may_differ
from rldistill.verbs.distillation_setup import DistillationSetup, prepare, task_schedule
from rldistill.verbs.recipes import fill_in
from rldistill.verbs.sizes import kind_of_sight
from rldistill.verbs.sources import files_read, make_sources, named_sources, open_named
from rldistill.verbs.student_task import NamedStudent, named_student
from rldistill.verbs.task_losses import check_losses


@verb(DistillOptions)
def distill(options: DistillOptions) -> TorchPolicy:
    """Train a student on what a teacher says and return it; `out` holds its file and records.

    A dataset folder teaches from what was stored, `Live` lets a teacher play meanwhile, `Online` one that still learns.
    Several make one student with a shared torso and a head for each task, as in Rusu et al. 2015, section 3.2;
    `student.for_task("atari:pong")` then plays one.

    Returns:
        The student, a policy: `act`, `save`, `hash`, `num_parameters`.

    Raises:
        UsageError: a value is out of range or unknown.
        DatasetError: the data cannot be read, or hold too few episodes.
        MismatchError: the loss or the student does not fit what the teacher gave.
        NumericalError: the training diverged.
        KeyboardInterrupt: stopped; the state is saved.
    """
    out = Path(options.out)
    # Around all of it: a learner that teaches reports while it plays, and Ctrl-C stops it there too.
    with stop_on_interrupt(options.callbacks) as listeners:
        options, setup = set_up(options, listeners)
        with (
            configured_run(out, options, "distill", setup.values, may_differ=may_differ(setup.values)) as continues,
            use_threads(options.num_threads),
        ):
            return DistillationRun(options, setup, listeners, continues=continues).run()


def check_distillation(options: DistillOptions) -> DistillationSetup:
    """Check all of a distillation that can be checked without playing or training: what it reads, fits and writes.

    Returns:
        What the run would train with; its sources are closed.

    Raises:
        RldistillError: as `distill`.
    """
    out = Path(options.out)
    options, setup = set_up(options, ())
    setup.batches.close()
    check_configured(out, options, setup.values, may_differ=may_differ(setup.values))
    return setup


def set_up(
    options: DistillOptions, callbacks: Sequence[Callback], *, weights_seed: int | None = None
) -> tuple[DistillOptions, DistillationSetup]:
    """Return the options with nothing left open, and all that they make; nothing is played, trained or written.

    Args:
        options: of a distillation.
        callbacks: receive how far a teacher's play or learning is; may stop the run.
        weights_seed: of the first one's weights, where several students learn at once; None: there is one.

    Raises:
        RldistillError: as `distill`.
    """
    options, named, student = resolve_distillation(options)
    out = Path(options.out)
    keep_inputs(out, [*files_read(named), options.init_from], overwrite=options.overwrite)
    opened = open_named(named, options)
    if weights_seed is not None and len({each.task.fingerprint.observation_description for each in opened}) > 1:
        raise UsageError(
            "students: got tasks of different observations, which a single student alone can share, with a first layer "
            "for each kind. Name one with student."
        )
    # What the student sees of each task decides how it learns.
    sight = _choose_sight(options, [each.task for each in opened])
    seen = [shown_to(each.task, sight) for each in opened]
    taught = list[tuple[OutputKind, Task]]()
    for each, task in zip(opened, seen, strict=True):
        if each.output_kind is not None:
            taught.append((each.output_kind, task))
    remembers = student.has_cells(options, seen[0], teacher_remembers=opened[0].remembers)
    options, named, note = fill_in(options, named, taught, remembers=remembers)
    options = student.with_windows(options)
    images = any(kind_of_sight(task.fingerprint) != "vectors" for task in seen)
    options = with_precision(options, images=images, goes_on_in=out if options.resume else None)
    sources = make_sources(options, named, opened, callbacks)
    keep_inputs(out, files_read(named, sources), overwrite=options.overwrite)
    return options, prepare(options, named, sources, student.name, sight, note, weights_seed=weights_seed)


def _choose_sight(options: DistillOptions, tasks: Sequence[Task]) -> Sight | None:
    """Return what the student sees of every task.

    Raises:
        UsageError: parts are chosen of observations of several kinds, or a task has no such part.
    """
    if options.student_sees is not None and len({task.fingerprint.observation_description for task in tasks}) > 1:
        raise UsageError(
            "student_sees chooses parts of one kind of observation, got tasks of several. Leave it out, or distil each "
            "task into a student of its own."
        )
    # The same of each, but names are checked against all of them.
    sight, *_ = [choose_parts("student_sees", options.student_sees, options.names, task) for task in tasks]
    return sight


def resolve_distillation(options: DistillOptions) -> tuple[DistillOptions, list[Named], NamedStudent]:
    """Check what can be checked without data; say which device and how many threads are used here.

    Returns:
        The options, and the sources and the student that they name.

    Raises:
        UsageError: a value is unknown or out of range.
    """
    if options.init_from is not None and options.student == AUTO:
        options = replace(options, student=network_of_file(options.init_from) or AUTO)
    student = named_student(options)
    named = named_sources(options, student)
    if options.learning_rate is not None:
        lowest, highest = as_schedule(options.learning_rate, "learning_rate").bounds
        if lowest < 0 or highest == 0:
            raise UsageError(
                f"learning_rate must be > 0 and may fall to 0: got {options.learning_rate!r}, {lowest:g} to "
                f"{highest:g}."
            )
    check_losses(options, type(named[0]))
    if options.std == "fixed" and not isinstance(named[0], Stored):
        raise UsageError(
            "std: fixed is the teacher's own spread in a dataset, and a teacher that plays live has not said anything "
            "yet. Collect first, or choose state or parameter."
        )
    check_names(options.names, options, *named)
    if isinstance(named[0], Online) and options.student_sees is not None:
        raise UsageError("student_sees belongs with a dataset or --teacher: with --online the student sees everything.")
    task_schedule(options, list(options.task_weights or [""]))
    if options.held_out_fraction is not None:
        check_held_out_fraction(options.held_out_fraction)
    return resolve_machine(options), named, student
