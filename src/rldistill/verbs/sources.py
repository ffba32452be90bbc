"""From the sources that a user names to those that teach: datasets opened, teachers loaded, tasks made."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rldistill.data import Dataset
from rldistill.distillation.hindsight import check_own_play
from rldistill.distillation.live import LiveSource, teacher_fraction
from rldistill.distillation.online import OnlineJudge, OnlineLearner, OnlineSource
from rldistill.distillation.sources import DEFAULT_WINDOW, Source, refuse_long_window
from rldistill.distillation.stored import StoredSource
from rldistill.envs import PlayableTask, make_task
from rldistill.envs.task_modules import import_task_module
from rldistill.errors import UsageError, printable
from rldistill.events import Callback
from rldistill.loading.named import (
    PolicyLike,
    as_named,
    as_teacher,
    entry_of,
    files_of,
    policy_name,
    sampling_note,
    task_name,
    while_recorded,
)
from rldistill.loading.several import choose_text
from rldistill.options.declaration import values
from rldistill.options.distill import DistillOptions, Live, Named, Online, Stored
from rldistill.policies import Policy
from rldistill.policies.entry import further_shapes
from rldistill.seeding import stream_generator
from rldistill.tasks import Task
from rldistill.training.stream import StreamStep, Training
from rldistill.types import OutputKind, resolve_device
from rldistill.verbs.final_score import DEFAULT_EPISODES
from rldistill.verbs.student_task import NamedStudent
from rldistill.verbs.teachers import initial_policy, make_training, suited_to
from rldistill.verbs.train_teacher import learner_options

CURVES_FILE = "curves.jsonl"
_DEFAULT_HELD_OUT = 0.1
_MOST_OF_A_NOTE = 400


def named_sources(options: DistillOptions, student: NamedStudent) -> list[Named]:
    """Return what a student learns from, in the order of its tasks.

    Raises:
        UsageError: nothing, a mixture of kinds, or an option that this kind of source does not take.
    """
    given: Any = options.source
    several: list[Any] = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    sources = [Stored(item) if isinstance(item, str | Path | Dataset) else item for item in several]
    kinds = {type(item) for item in sources}
    if not kinds <= {Stored, Live, Online} or not kinds:
        names = ", ".join(sorted(kind.__name__ for kind in kinds)) or "nothing"
        raise UsageError(f"source: got {names}, expected dataset folders, Stored, Live or Online.")
    if len(kinds) > 1 or (kinds == {Online} and len(sources) > 1):
        shown = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise UsageError(
            f"source: got {len(sources)} of {shown}, expected one kind: datasets, teachers that play (Live), or one "
            "teacher that learns (Online)."
        )
    if kinds == {Online}:
        if student.remembers:
            raise UsageError(
                f"student: got {options.student!r}, which remembers, with --online: a learner keeps no order of its "
                "steps for it. Collect with the learner's last policy, or let it play: --teacher FILE."
            )
        if options.evaluate_episodes == 0:
            raise UsageError("evaluate_episodes: got 0 with online, expected 1 or more: they choose the best teacher.")
        options_of_others = ("task_order", "task_weights", "held_out_fraction")
        said = [name for name in options_of_others if getattr(options, name) is not None]
        said += [*options.further.values(), *["normalize_inputs"] * bool(options.normalize_inputs)]
        if said:
            raise UsageError(f"{said[0]} belongs with a dataset and --teacher, got it with online.")
    return sources


@dataclass(frozen=True)
class Opened:
    """What a source names: a dataset, a teacher and what it plays, or what a learner plays."""

    of: Dataset | tuple[Policy, PlayableTask] | PlayableTask
    task: Task
    output_kind: OutputKind | None = None  # that is learned; None where a learner will say
    remembers: bool = (
        False  # whether a teacher has a memory; of a dataset nobody asks its teacher, which may be elsewhere
    )


def open_named(named: Sequence[Named], options: DistillOptions) -> list[Opened]:
    """Open datasets, or load teachers and make what they play.

    Raises:
        DatasetError: a dataset cannot be read.
        PolicyFileError: a teacher's file cannot be trusted.
        MismatchError: a teacher does not fit its task.
    """
    return [_opened(item, options) for item in named]


def _opened(item: Named, options: DistillOptions) -> Opened:
    if isinstance(item, Stored):
        dataset = item.data if isinstance(item.data, Dataset) else Dataset.open(item.data)
        return Opened(dataset, dataset.provenance.task, dataset.provenance.teacher.output_kind)
    if isinstance(item, Online):
        playable = make_task(item.task, item.env_kwargs)
        if item.exploration_epsilon is not None:
            playable = playable.with_exploration(item.exploration_epsilon)
        return Opened(playable, playable.task)
    teacher, playable = as_teacher(_teacher_named(item), item.task, item, device=options.device, names=options.names)
    return Opened((teacher, playable), playable.task, teacher.output_kind, teacher.initial_state(1) is not None)


def make_sources(
    options: DistillOptions, named: Sequence[Named], opened: Sequence[Opened], callbacks: Sequence[Callback]
) -> list[Source]:
    """Return what teaches each task.

    Args:
        options: of the run, nothing of them left open.
        named: its sources, likewise.
        opened: what these name.
        callbacks: receive how far a teacher's play or learning is; may stop the run.

    Raises:
        DatasetError: a dataset holds too few episodes.
        UsageError: an option of a source is out of range.
    """
    _check_stored_tasks(named, opened)
    datasets = [each.of for each in opened if isinstance(each.of, Dataset)]
    if not datasets:
        return [_source(item, each, options, callbacks) for item, each in zip(named, opened, strict=True)]
    # Several datasets of one task are one source, in the place of the first.
    by_task: dict[str, list[Dataset]] = {}
    for dataset in datasets:
        by_task.setdefault(dataset.provenance.task.name, []).append(dataset)
    return [_joined_source(own, options) for own in by_task.values()]


def _source(item: Named, opened: Opened, options: DistillOptions, callbacks: Sequence[Callback]) -> Source:
    if isinstance(item, Online):
        assert isinstance(opened.of, PlayableTask), "its task was made"
        return _online_source(item, opened.of, options, callbacks)
    assert isinstance(item, Live) and isinstance(opened.of, tuple), "datasets are sources by their tasks"
    return _live_source(item, *opened.of, options, callbacks)


def held_out_fraction(options: DistillOptions) -> float:
    """Return the share of steps that is held out."""
    return _DEFAULT_HELD_OUT if options.held_out_fraction is None else options.held_out_fraction


def _joined_source(datasets: Sequence[Dataset], options: DistillOptions) -> StoredSource:
    """Return the source of one task; says where its datasets were played with different settings."""
    if len(datasets) == 1:
        return _stored_source(datasets[0], options)
    source = _stored_source(Dataset.joined(datasets), options)
    settings = [dict(item.provenance.task.environment_kwargs) for item in datasets]
    if any(own != settings[0] for own in settings):
        listing = "; ".join(f"{item.path} {own or 'none'}" for item, own in zip(datasets, settings, strict=True))
        text = f"datasets of different settings are joined, the student is recorded with the first: {listing}"
        source.notes = (printable(text, _MOST_OF_A_NOTE),)
    return source


def _stored_source(dataset: Dataset, options: DistillOptions) -> StoredSource:
    return StoredSource(
        dataset,
        window_length=options.window or 1,
        burn_in=options.burn_in or 0,
        seed=options.seed,
        held_out_fraction=held_out_fraction(options),
        # Refused now, if it cannot be made: not after hours of training.
        playable=make_task(dataset.provenance.task) if options.evaluate_episodes else None,
    )


def files_read(named: Sequence[Named], sources: Sequence[Source] = ()) -> list[Path]:
    """Return the files and folders that a run reads: those that are named, and the teachers that datasets record."""
    files = [_data_path(item) for item in named if isinstance(item, Stored)]
    files += files_of([_teacher_named(item) for item in named if isinstance(item, Live)])
    learners: list[Mapping[str, Any]] = [item.learner or {} for item in named if isinstance(item, Online)]
    begun = [learner.get("init_from") for learner in learners]
    files += [Path(path) for path in begun if isinstance(path, str | Path)]  # anything else is refused with its name
    # The score at the end reads these.
    recorded = [item.teacher.path for item in sources if isinstance(item, StoredSource)]
    return files + [Path(path) for path in recorded if path]


def source_values(named: Sequence[Named]) -> dict[str, Any]:
    """Return what was said of the sources, as `config.toml` and the command line name it."""
    if isinstance(named[0], Online):
        return {"online": True, **values(named[0])}
    rows = [_written(item) for item in named]
    shared = {name: rows[0][name] for name in rows[0] if all(row[name] == rows[0][name] for row in rows)}
    listed = {name: [row[name] for row in rows] for name in ("data", "teacher", "task") if name in rows[0]}
    if "teacher" in listed:  # several of one task are named one by one, as on a command line
        listed["teacher"] = [name for own in listed["teacher"] for name in ([own] if isinstance(own, str) else own)]
    # What differs stands by the place of its source; only Python gives it so.
    different = {
        name: {str(place): row[name] for place, row in enumerate(rows)} for name in rows[0] if name not in shared
    }
    if len(rows) == 1 or any(row["task"] is None for row in rows):
        listed.pop("task")
    return shared | different | listed


def _written(item: Named) -> dict[str, Any]:
    """Return the options of a source with names in the place of objects."""
    said = values(item)
    if isinstance(item, Live):
        said |= {"teacher_fraction": teacher_fraction(item).to_value()}
    if isinstance(item, Stored):
        return said | {"data": str(_data_path(item))}
    assert isinstance(item, Live)
    task = None if item.task is None else task_name(item.task)
    named = _teacher_named(item)
    return said | {"teacher": policy_name(named), "task": task, "choose": choose_text(item.choose)}


def _teacher_named(item: Live) -> PolicyLike:
    """Return the teacher of a source, or the several of its task, with what is said of their files."""
    return as_named(item.teacher, item, item.choose)


def _data_path(item: Stored) -> Path:
    if not isinstance(item.data, str | os.PathLike | Dataset):
        raise UsageError(f"data: got {item.data!r}, expected a dataset folder, or an open dataset.")
    return item.data.path if isinstance(item.data, Dataset) else Path(item.data)


def _check_stored_tasks(named: Sequence[Named], opened: Sequence[Opened]) -> None:
    """Check that tasks that are named with datasets are theirs, and import the modules that these tasks are from."""
    for item, each in zip(named, opened, strict=True):
        if not isinstance(item, Stored) or item.task is None:
            continue
        if item.task != each.task.name:
            raise UsageError(
                f"task: got {item.task!r}, expected {each.task.name!r}: a dataset's task is the one it was collected "
                "on. Leave it out, or name it as it stands there."
            )
        # A dataset by itself may import nothing; what the user typed may.
        import_task_module(item.task)


def _live_source(
    item: Live,
    policy: Policy,
    playable: PlayableTask,
    options: DistillOptions,
    callbacks: Sequence[Callback],
) -> LiveSource:
    entry = entry_of(policy, _teacher_named(item))
    player = while_recorded(policy, item.behaviour)
    epsilon = playable.task.protocol.exploration_epsilon
    check_own_play(item, teacher_fraction(item), epsilon)
    wanted = options.further | ({} if item.value_gate is None else {"value": "value_gate"})
    note = sampling_note(policy, player)
    assert item.collect_steps and options.num_updates, "the recipe has filled these in"
    window = options.window or 1
    limit = None if window in (1, DEFAULT_WINDOW) else playable.longest_episode
    if limit is not None:  # of other tasks it is seen when episodes were played
        refuse_long_window(window, limit, playable.task.name)
    return LiveSource(
        policy,
        player,
        playable,
        item,
        entry=entry,
        window_length=window,
        burn_in=options.burn_in or 0,
        seed=options.seed,
        num_envs=options.num_envs,
        num_threads=options.num_threads,
        num_updates=options.num_updates,
        held_out_steps=max(1, round(held_out_fraction(options) * item.collect_steps)),
        callbacks=callbacks,
        notes=() if note is None else (note,),
        further={
            field: further_shapes(policy, playable.task, [field], option)[field] for field, option in wanted.items()
        },
    )


def _online_source(
    item: Online, playable: PlayableTask, options: DistillOptions, callbacks: Sequence[Callback]
) -> OnlineSource:
    learner = suited_to(learner_options(item, options), [playable])
    out = Path(options.out)

    def begin(policy: Any, step: int, on_step: Callable[[StreamStep], None]) -> Training:  # noqa: ANN401
        rng = stream_generator(learner.seed, "exploration", step)
        return make_training(learner, policy, [playable], steps=[step], rng=rng, on_step=on_step)

    judge = OnlineJudge(
        out / CURVES_FILE,
        playable,
        num_episodes=options.evaluate_episodes or DEFAULT_EPISODES,
        num_envs=options.num_envs,
        num_threads=options.num_threads,
        seed=options.seed,
        callbacks=callbacks,
    )
    policy = initial_policy(learner, [playable.task]).to(resolve_device(options.device))
    assert options.num_updates, "the recipe has filled this in"
    return OnlineSource(
        OnlineLearner(policy, begin, playable, item, callbacks),
        judge,
        playable,
        item,
        folder=out,
        num_updates=options.num_updates,
        seed=options.seed,
    )
