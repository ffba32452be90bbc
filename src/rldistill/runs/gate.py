"""A gate for CI: students must show, at 95 % confidence, that they keep a share of their teachers' skill."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rldistill.errors import GateError, UsageError
from rldistill.runs.evaluation import Evaluation
from rldistill.runs.loading import PolicyLike, as_policy
from rldistill.runs.multitask_evaluation import MultiTaskEvaluation
from rldistill.runs.pairing import TasksLike, TeachersLike, tasks_to_play, teachers_for


def require_teachers(
    policies: Sequence[PolicyLike],
    task: TasksLike | None = None,
    teacher: TeachersLike | None = None,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
) -> None:
    """Check that there is a teacher for every task, before an hour's play ends in wrong usage.

    Raises:
        UsageError: none was named for a task, and the first policy's file names none that is still there.
    """
    student = as_policy(policies[0], device="cpu", task=task, env_kwargs=env_kwargs)
    tasks = [playable.task for playable in tasks_to_play(student, task, env_kwargs)]
    teachers = teachers_for(tasks, student, teacher, device="cpu")
    _check_taught([task.name for task in tasks], teachers)


def check_retention(evaluation: Evaluation | MultiTaskEvaluation, required: float) -> None:
    """Check that every student keeps at least this share of the teacher's skill, at 95 % confidence.

    Of several tasks the mean retention must reach it: a loss in one may be made good in another.

    Raises:
        UsageError: there is no teacher to compare with, or no student.
        GateError: names the students whose lower bound is below.
    """
    if isinstance(evaluation, MultiTaskEvaluation):
        taught = {name for name, played in evaluation.tasks.items() if played.teacher is not None}
        _check_taught(list(evaluation.tasks), taught)
        what = f" of the mean retention over {len(evaluation.tasks)} tasks"
        bounds = [(policy.name, policy.mean_retention_lower_bound) for policy in evaluation.policies]
    else:
        _check_taught([evaluation.task.name], () if evaluation.teacher is None else (evaluation.task.name,))
        what = ""
        bounds = [(student.name, student.retention_lower_bound) for student in evaluation.students]
    if not bounds:
        raise UsageError("--require-retention got no student: every policy named is the teacher itself.")
    failed = [(name, bound) for name, bound in bounds if bound is None or bound < required]
    if failed:
        listing = ", ".join(f"{name} " + ("unknown" if bound is None else f"{bound:.3f}") for name, bound in failed)
        raise GateError(
            f"Retention gate failed: lower bound (one-sided 95 %){what} of {listing}, required {required:g}. "
            "More episodes narrow the interval; a better student raises it: docs/worse-than-teacher.md."
        )


def _check_taught(names: Sequence[str], taught: Collection[str]) -> None:
    missing = [name for name in names if name not in taught]
    if missing and len(names) == 1:
        raise UsageError("--require-retention compares with a teacher: name it with --teacher FILE.")
    if missing:
        raise UsageError(
            f"--require-retention compares with a teacher on every task: got none for {', '.join(missing)}. "
            "Name each with --teacher FILE."
        )
