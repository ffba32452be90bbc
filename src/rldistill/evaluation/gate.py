"""A gate for CI: students must show, at 95 % confidence, that they keep a share of their teachers' skill."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rldistill.errors import GateError, UsageError
from rldistill.evaluation.multitask import MultiTaskEvaluation
from rldistill.evaluation.pairing import TasksLike, TeachersLike, tasks_to_play, teachers_for
from rldistill.evaluation.records import Evaluation
from rldistill.loading.named import PolicyLike, as_policy, why_no_teacher
from rldistill.statistics.bootstrap import MIN_VALUES


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
    reasons = [why_no_teacher(student, task) for task in tasks if task.name not in teachers]
    if reason := next(filter(None, reasons), None):
        raise UsageError(f"--require-retention compares with a teacher: {reason}.")
    _check_taught([task.name for task in tasks], teachers)


@dataclass(frozen=True)
class _Kept:
    """What one student was shown to keep.

    Attributes:
        name: as in the table.
        retention: point estimate; None: there is none.
        bound: lower, one-sided, 95 %; None: there is none.
        num_episodes: that were played.
    """

    name: str
    retention: float | None
    bound: float | None
    num_episodes: int

    @property
    def text(self) -> str:
        return f"{self.name} " + ("unknown" if self.bound is None else f"{self.bound:.3f}")

    def advice(self, required: float) -> tuple[str, str]:
        """Return what would help students like this one, and what is to be said of this one."""
        if self.num_episodes < MIN_VALUES:
            return f"Fewer than {MIN_VALUES} episodes show no bound: play more", ""
        if self.retention is None or self.bound is None:
            why = "There is no lower bound because the teacher is not clearly better than random play"
            return why, self.name
        if self.retention <= required:
            what = "More episodes are unlikely to help, a better student will (docs/worse-than-teacher.md)"
            return what, f"{self.name} keeps {self.retention:.3f}"
        # The bound's distance falls with the square root of the number of episodes.
        factor = ((self.retention - self.bound) / (self.retention - required)) ** 2
        needed = float(f"{self.num_episodes * factor * 1.05:.1e}")
        return (
            "More episodes would do, if retention stays",
            f"about {needed:,.0f} for {self.name} at {self.retention:.3f}",
        )


def _advice(failed: Sequence[_Kept], required: float) -> str:
    whom: dict[str, list[str]] = {}
    for student in failed:
        what, who = student.advice(required)
        whom.setdefault(what, []).append(who)
    return " ".join(f"{what}{': ' if any(who) else ''}{', '.join(filter(None, who))}." for what, who in whom.items())


def check_retention(evaluation: Evaluation | MultiTaskEvaluation, required: float) -> str:
    """Check that every student keeps at least this share of the teacher's skill, at 95 % confidence.

    Of several tasks the mean retention must reach it: a loss in one may be made good in another.

    Returns:
        A line that says so, with the lower bounds.

    Raises:
        UsageError: there is no teacher to compare with, or no student.
        GateError: names the students whose lower bound is below, and what would help.
    """
    if isinstance(evaluation, MultiTaskEvaluation):
        taught = {name for name, played in evaluation.tasks.items() if played.teacher is not None}
        _check_taught(list(evaluation.tasks), taught)
        what = f" of the mean retention over {len(evaluation.tasks)} tasks"
        count = max(_num_episodes(played) for played in evaluation.tasks.values())
        students = [
            _Kept(policy.name, policy.mean_retention, policy.mean_retention_lower_bound, count)
            for policy in evaluation.policies
        ]
    else:
        _check_taught([evaluation.task.name], () if evaluation.teacher is None else (evaluation.task.name,))
        what, count = "", _num_episodes(evaluation)
        students = [_Kept(row.name, row.retention, row.retention_lower_bound, count) for row in evaluation.students]
    if not students:
        raise UsageError("--require-retention got no student: every policy named is the teacher itself.")
    failed = [student for student in students if student.bound is None or student.bound < required]
    bound = f"lower bound (one-sided 95 %){what} of"
    passed = ", ".join(student.text for student in students if student not in failed)
    if failed:
        listing = ", ".join(student.text for student in failed)
        others = f" Passed: {passed}." if passed else ""
        advice = _advice(failed, required)
        raise GateError(f"Retention gate failed: {bound} {listing}, required {required:g}.{others} {advice}")
    return f"Retention gate passed: {bound} {passed}, required {required:g}."


def _num_episodes(evaluation: Evaluation) -> int:
    return max(len(row.played.episodes) for row in evaluation.policies)


def _check_taught(names: Sequence[str], taught: Collection[str]) -> None:
    missing = [name for name in names if name not in taught]
    if missing and len(names) == 1:
        raise UsageError("--require-retention compares with a teacher: name it with --teacher FILE.")
    if missing:
        raise UsageError(
            f"--require-retention compares with a teacher on every task: got none for {', '.join(missing)}. "
            "Name each with --teacher FILE."
        )
