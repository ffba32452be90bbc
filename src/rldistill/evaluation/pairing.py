"""Which policies an evaluation plays on which tasks, and which teacher belongs to which task.

One task keeps it simple: whatever is named plays it, if observations and actions fit. Of several tasks nothing is
guessed: every policy needs a head by the task's name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rldistill.envs import PlayableTask, TaskLike, make_task
from rldistill.envs.task_modules import PYTHON_PREFIX, import_task_module
from rldistill.errors import MismatchError, RldistillError, UsageError
from rldistill.evaluation.names import NamedPolicy, named_policies, told_apart
from rldistill.loading.named import PolicyLike, as_policy, played_by
from rldistill.loading.recorded import recorded_teacher, teacher_record, why_no_teacher
from rldistill.policies import Policy, fit_policy
from rldistill.tasks import Task

OneOrMorePolicies = PolicyLike | Sequence[PolicyLike]
OneOrMoreTasks = TaskLike | Sequence[TaskLike]


@dataclass(frozen=True)
class Pairing:
    """Policies, tasks and teachers: loaded once, and checked to fit before anything is played."""

    policies: Sequence[NamedPolicy]
    playables: Sequence[PlayableTask]
    teachers: Mapping[str, NamedPolicy] = field(default_factory=dict[str, NamedPolicy])  # by the task's name
    # What became of the one that the first policy's file names, by the name of a task without a teacher; None: it names
    # none.
    missing_teachers: Mapping[str, str | None] = field(default_factory=dict[str, str | None])


def pair(
    policies: OneOrMorePolicies,
    task: OneOrMoreTasks | None = None,
    teacher: OneOrMorePolicies | None = None,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    exploration_epsilon: float | None = None,
    device: str = "auto",
    teacher_sees: str | Sequence[str] | None = None,
    names: Mapping[str, Sequence[int]] | None = None,
) -> Pairing:
    """Load policies and teachers, make the tasks, and check all that can be checked without playing.

    Arguments and errors are those of `evaluate`. What the teacher sees is said of the policies where no teacher is
    named: one of another library is evaluated by itself so.
    """
    load_teacher = partial(as_policy, device=device, sees=teacher_sees, names=names)
    load = partial(as_policy, device=device) if teacher else load_teacher
    loaded = _loaded(policies, partial(load, task=task, env_kwargs=env_kwargs))
    if not loaded:
        raise UsageError("evaluate needs at least one policy.")
    first = loaded[0].policy  # says what nothing else says: the tasks and their teachers
    playables = tasks_to_play(first, task, env_kwargs)
    if exploration_epsilon is not None:
        playables = [playable.with_exploration(exploration_epsilon) for playable in playables]
    tasks = [playable.task for playable in playables]
    teachers = _teachers_for(tasks, first, _loaded(teacher, partial(load_teacher, task=tasks)), device=device)
    # All of it before the first episode: an hour's play must not end at the last task.
    for own in tasks:
        for named in loaded:
            # One task of another name may be played if it looks alike; of several none is guessed.
            fit_policy(named.policy if len(tasks) == 1 else named.policy.for_task(own.name), own)
        if own.name in teachers:
            fit_policy(teachers[own.name].policy, own)
    missing = {own.name: why_no_teacher(first, own) for own in tasks if own.name not in teachers}
    # A student may have the name of its teacher: `shrink` calls its folder so.
    named = told_apart([*loaded, *teachers.values()])
    return Pairing(named[: len(loaded)], playables, dict(zip(teachers, named[len(loaded) :], strict=True)), missing)


def listed(value: Any) -> list[Any]:  # noqa: ANN401 one of anything, several or none
    """Return one or more of something as a list; of None an empty one."""
    if value is None:
        return []
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def _loaded(given: OneOrMorePolicies | None, load: Callable[[PolicyLike], Policy]) -> list[NamedPolicy]:
    items = listed(given)
    return named_policies(items, [load(item) for item in items])


def tasks_to_play(
    policy: Policy, task: OneOrMoreTasks | None, env_kwargs: Mapping[str, Any] | None = None
) -> list[PlayableTask]:
    """Return the tasks that were named, or else all that the first policy to be evaluated has heads for.

    The name of one of several heads means that head's task as it was recorded, unless `env_kwargs` are given: settings
    of the tasks that are named, which are then made anew.

    Raises:
        UsageError: no task, or one twice; settings without a name; there is no such task.
        RldistillError: a head's task cannot be made here.
    """
    first, *others = policy.tasks
    if task is None and others:
        return [_task_of_head(policy, own, env_kwargs) for own in policy.tasks]
    named = listed(first if task is None else task)
    if not named:
        raise UsageError("task: got an empty sequence, expected at least one task.")
    heads = {own.name: own for own in policy.tasks} if others and not env_kwargs else {}
    playables: list[PlayableTask] = []
    for each in named:
        if isinstance(each, str) and each in heads:
            import_task_module(each)  # named by the user, played as recorded
            each = heads[each]
        playables.append(played_by(policy, make_task(each, env_kwargs)))
    names = [playable.task.name for playable in playables]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"task: got {', '.join(twice)} more than once. An evaluation plays each task once.")
    return playables


def _task_of_head(policy: Policy, task: Task, env_kwargs: Mapping[str, Any] | None) -> PlayableTask:
    """Make a head's task and one environment of it: an hour's play must not end at the last head."""
    try:
        playable = make_task(task, env_kwargs)
        playable.make_envs(1, 1).close()
    except RldistillError as error:
        if env_kwargs:
            raise
        others = ",".join(own.name for own in policy.tasks if own.name != task.name)
        raise RldistillError(
            f"Policy {policy.name!r} has a head for {task.name!r}, which cannot be played here: {error} Name the tasks "
            f"to play instead, such as --task {others}."
        ) from error
    return playable


def _teachers_for(
    tasks: Sequence[Task], student: Policy, teachers: Sequence[NamedPolicy], *, device: str
) -> dict[str, NamedPolicy]:
    """Return the teacher of each task, by the task's name: one that was named, or else the one that was recorded."""
    if len(tasks) == len(teachers) == 1:
        return {tasks[0].name: teachers[0]}
    found: dict[str, NamedPolicy] = {}
    for teacher in teachers:
        for task in _tasks_of(teacher.policy, tasks):
            if task.name in found and found[task.name].policy.hash != teacher.policy.hash:
                raise MismatchError(
                    f"Two teachers for task {task.name!r}: {found[task.name].name!r} and {teacher.name!r}. "
                    "A task is compared with one: leave the other out."
                )
            found[task.name] = teacher
    for task in tasks:
        recorded = None if task.name in found else recorded_teacher(student, task, device=device)
        if recorded is not None:
            path = teacher_record(student, task).get("path")
            (found[task.name],) = named_policies([recorded if path is None else str(path)], [recorded])
    return found


def _tasks_of(teacher: Policy, tasks: Sequence[Task]) -> list[Task]:
    """Return those of the tasks that a teacher is for.

    Its name says so, since many tasks share a fingerprint. Only where one of the two was given in Python, and
    has no name that means the same elsewhere, does the fingerprint decide, if it fits one task alone.
    """
    names = [own.name for own in teacher.tasks]
    fitting = [task for task in tasks if task.name in names]
    if not fitting and len(names) == 1:
        own = teacher.tasks[0]
        unnamed = [task for task in tasks if any(name.startswith(PYTHON_PREFIX) for name in (own.name, task.name))]
        alike = [task for task in unnamed if not own.fingerprint.differences(task.fingerprint)]
        fitting = alike if len(alike) == 1 else []
    if not fitting:
        raise MismatchError(
            f"Teacher {teacher.name!r} (made for {', '.join(names)}) cannot be told to be for one of the tasks: "
            f"{', '.join(task.name for task in tasks)}. See `rldistill inspect FILE`, or evaluate one task at a time."
        )
    return fitting
