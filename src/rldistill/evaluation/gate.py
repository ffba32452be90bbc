"""A gate for CI: students must show, at 95 % confidence, that they keep a share of their teachers' skill."""

from collections.abc import Sequence

from rldistill.errors import GateError, UsageError, docs_page
from rldistill.evaluation.pairing import Pairing
from rldistill.evaluation.records import Evaluation, StudentOverTasks
from rldistill.statistics.bootstrap import FEW_VALUES, MIN_VALUES

NO_STUDENT = "--require-retention got no student: every policy named is the teacher itself."


def check_gated(pairing: Pairing) -> None:
    """Check that there is something to compare: an hour's play must not end in wrong usage.

    Raises:
        UsageError: a task has no teacher.
        GateError: every policy is the teacher of a task.
    """
    missing = pairing.missing_teachers
    if reason := next(filter(None, missing.values()), None):
        raise UsageError(f"--require-retention compares with a teacher: {reason}.")
    if missing and len(pairing.playables) == 1:
        raise UsageError("--require-retention compares with a teacher: name it with --teacher FILE.")
    if missing:
        raise UsageError(
            f"--require-retention compares with a teacher on every task: got none for {', '.join(missing)}. "
            "Name each with --teacher FILE."
        )
    teachers = {teacher.policy.hash for teacher in pairing.teachers.values()}
    if all(named.policy.hash in teachers for named in pairing.policies):
        raise GateError(NO_STUDENT)


def check_retention(evaluation: Evaluation, required: float) -> str:
    """Check that every student keeps at least this share of its teacher's skill, at 95 % confidence; says so in a line.

    Of several tasks the mean retention must reach it: a loss in one may be made good in another. There are a teacher on
    every task and a student, as `check_gated` checks before the play.

    Raises:
        GateError: names the students whose lower bound is below, and what would help.
    """
    num_tasks = len(evaluation.tasks)
    what = f" of the mean retention over {num_tasks} tasks" if num_tasks > 1 else ""
    bound = f"lower bound (one-sided 95 %){what} of"
    bounds = [(student, student.mean_retention_lower_bound) for student in evaluation.overall]
    failed = [student for student, own in bounds if own is None or own < required]
    passed = ", ".join(_bound_text(student) for student in evaluation.overall if student not in failed)
    if failed:
        listing = ", ".join(map(_bound_text, failed))
        others = f" Passed: {passed}." if passed else ""
        advice = _advice(failed, required, max(len(row.played.episodes) for row in evaluation.policies))
        raise GateError(f"Retention gate failed: {bound} {listing}, required {required:g}.{others} {advice}")
    text = f"Retention gate passed: {bound} {passed}, required {required:g}."
    fewest = min(len(row.played.episodes) for row in evaluation.policies if not row.played.is_census)
    if fewest < FEW_VALUES:
        text += f" Of {fewest} episodes a bound claims a little too much: gate on {FEW_VALUES} or more."
    return text


def _bound_text(student: StudentOverTasks) -> str:
    bound = student.mean_retention_lower_bound
    return f"{student.name} " + ("unknown" if bound is None else f"{bound:.3f}")


def _advice(failed: Sequence[StudentOverTasks], required: float, num_episodes: int) -> str:
    """Return what would settle it or help, once for all students of whom the same is true."""
    helped: dict[str, list[str]] = {}
    for student in failed:
        what, who = _advice_for(student, required, num_episodes)
        helped.setdefault(what, []).append(who)
    return " ".join(f"{what}{': ' if any(who) else ''}{', '.join(filter(None, who))}." for what, who in helped.items())


def _advice_for(student: StudentOverTasks, required: float, num_episodes: int) -> tuple[str, str]:
    """Return what would settle it for students like this one, and what is to be said of this one."""
    retention, bound = student.mean_retention, student.mean_retention_lower_bound
    interval = student.mean_retention_interval
    if num_episodes < MIN_VALUES:
        return f"Fewer than {MIN_VALUES} episodes show no bound: play more", ""
    if retention is None or bound is None:
        return "There is no lower bound because the teacher is not clearly better than random play", student.name
    if retention > required:
        needed = _needed(num_episodes, retention - bound, retention - required)
        return "More episodes would do, if retention stays", f"{needed} for {student.name} at {retention:.3f}"
    better, page = "a better student will", docs_page("worse-than-teacher.md")
    high = retention if interval is None else interval.high
    if retention < required <= high:
        needed = _needed(num_episodes, high - retention, required - retention)
        what = f"More episodes may only settle that too little is kept, {better} help ({page})"
        return what, f"{needed} for {student.name} at {retention:.3f}"
    return f"More episodes are unlikely to help, {better} ({page})", f"{student.name} keeps {retention:.3f}"


def _needed(num_episodes: int, distance: float, wanted: float) -> str:
    """Return about how many episodes bring a bound as near as is wanted; it nears with the root of their number."""
    return f"about {float(f'{num_episodes * (distance / wanted) ** 2 * 1.05:.1e}'):,.0f}"
