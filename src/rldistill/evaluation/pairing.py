"""Which tasks an evaluation plays, and which teacher belongs to which of them.

One task keeps it simple: whoever is named plays it, if observations and actions fit. Of several
tasks nothing is guessed: every policy needs a head by the task's name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rldistill.envs import PlayableTask, TaskLike, make_task
from rldistill.envs.make import PYTHON_PREFIX, import_task_module
from rldistill.errors import MismatchError, RldistillError, UsageError
from rldistill.evaluation.names import NamedPolicy, names_of
from rldistill.loading.named import PolicyLike, as_policy, played_by, recorded_teacher, teacher_record
from rldistill.policies import Policy, fit_policy
from rldistill.tasks import Task

TeachersLike = PolicyLike | Sequence[PolicyLike]
TasksLike = TaskLike | Sequence[TaskLike]


def is_several(value: object) -> bool:
    """Return whether a user gave a sequence of things, and not one (a name is one)."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def policies_of(
    given: TeachersLike, *, device: str, task: TasksLike | None = None, env_kwargs: Mapping[str, Any] | None = None
) -> list[NamedPolicy]:
    """Return the policies that a user gave, one or several, as files or as they are.

    Args:
        given: one or several.
        device: auto, cpu or cuda.
        task: that they are to play, for files that do not say it.
        env_kwargs: settings of the task.

    Raises:
        PolicyFileError: there is no such file, or it cannot be trusted.
        UsageError: a file does not say something that nobody said.
    """
    items = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    loaded = [as_policy(item, device=device, task=task, env_kwargs=env_kwargs) for item in items]
    return [NamedPolicy(name, policy) for name, policy in zip(names_of(items, loaded), loaded, strict=True)]


def tasks_to_play(
    policy: Policy, task: TasksLike | None, env_kwargs: Mapping[str, Any] | None = None
) -> list[PlayableTask]:
    """Return the tasks that were named, or else all that the policy has heads for.

    Args:
        policy: the first of those to be evaluated.
        task: one or several; the name of one of several heads means that head's task as it was recorded.
        env_kwargs: settings of the tasks that are named; they are then made anew.

    Raises:
        UsageError: no task, or one twice; settings without a name; there is no such task.
        RldistillError: a head's task cannot be made here.
    """
    first, *others = policy.tasks
    if task is None and others:
        return [_task_of_head(policy, own, env_kwargs) for own in policy.tasks]
    wanted = first if task is None else task
    named = wanted if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]
    if not named:
        raise UsageError("task: got an empty sequence, expected at least one task.")
    heads = {own.name: own for own in policy.tasks} if others and not env_kwargs else {}
    for each in named:
        if isinstance(each, str) and each in heads:
            import_task_module(each)  # named by the user, played as recorded
    made = (make_task(heads.get(each, each) if isinstance(each, str) else each, env_kwargs) for each in named)
    playables = [played_by(policy, playable) for playable in made]
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
        raise RldistillError(
            f"Policy {policy.name!r} has a head for {task.name!r}, which cannot be played here: {error} "
            "Name the tasks to play instead, such as --task "
            f"{','.join(own.name for own in policy.tasks if own.name != task.name)}."
        ) from error
    return playable


def check_pairing(
    policies: TeachersLike,
    task: TasksLike | None,
    teacher: TeachersLike | None,
    *,
    device: str,
    env_kwargs: Mapping[str, Any] | None = None,
) -> None:
    """Check all of an evaluation that can be checked without playing: that all load, and fit their tasks.

    Raises:
        RldistillError: as `evaluate`.
    """
    loaded = [named.policy for named in policies_of(policies, device=device, task=task, env_kwargs=env_kwargs)]
    tasks = [playable.task for playable in tasks_to_play(loaded[0], task, env_kwargs)]
    teachers = teachers_for(tasks, loaded[0], teacher, device=device)
    if is_several(task) or len(tasks) > 1:
        check_heads(loaded, tasks)
        return
    for policy in [*loaded, *(named.policy for named in teachers.values())]:
        fit_policy(policy, tasks[0])


def check_heads(policies: Sequence[Policy], tasks: Sequence[Task]) -> None:
    """Check that every policy has a head for every task, before anything is played.

    Raises:
        MismatchError: names the policy and its heads, or what differs between head and task.
    """
    for policy in policies:
        for task in tasks:
            fit_policy(policy.for_task(task.name), task)


def teachers_for(
    tasks: Sequence[Task], student: Policy, given: TeachersLike | None, *, device: str
) -> dict[str, NamedPolicy]:
    """Return the teacher of each task, by the task's name; tasks without one are missing.

    Args:
        tasks: to be played.
        student: whose file may name its teachers.
        given: one or several; None, and tasks that none of several is for, take those the student's
            file names, if they are still there.
        device: auto, cpu or cuda.

    Raises:
        PolicyFileError: a file that was named is not there, or cannot be trusted.
        MismatchError: a teacher fits none of the tasks, or two fit one.
    """
    teachers = [] if given is None else policies_of(given, device=device, task=tasks)
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
            fit_policy(teacher.policy, task)
            found[task.name] = teacher
    for task in tasks:
        recorded = None if task.name in found else recorded_teacher(student, task, device=device)
        if recorded is not None:
            path = str(teacher_record(student, task)["path"])
            found[task.name] = NamedPolicy(names_of([path], [recorded])[0], recorded)
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
        fitting = [task for task in unnamed if not own.fingerprint.differences(task.fingerprint)]
        if len(fitting) > 1:
            fitting = []
    if not fitting:
        raise MismatchError(
            f"Teacher {teacher.name!r} (made for {', '.join(names)}) cannot be told to be for one of the tasks: "
            f"{', '.join(task.name for task in tasks)}. See `rldistill inspect FILE`, or evaluate one task at a time."
        )
    return fitting
