"""The gate opens at the lower bound of what students keep, and says what would help where it stays shut."""

import pytest

from rldistill.errors import GateError, UsageError
from rldistill.evaluation.gate import check_gated, check_retention
from rldistill.evaluation.pairing import pair
from rldistill.verbs.evaluate import evaluate
from tests.kit.evaluations import compare
from tests.kit.payout import constant_heads, constant_policy, payout_task, payout_tasks

A, B, C = (f"tests.kit.payout:Payout{letter}-v0" for letter in "ABC")


@pytest.fixture(scope="module")
def task():
    """Payouts 2, 6 and 10; random play scores 2."""
    return payout_task()


# One task.


def test_the_gate_opens_at_the_lower_bound_and_not_above(task):
    result = compare(task, student=1)
    assert check_retention(result, 0.5) == (
        "Retention gate passed: lower bound (one-sided 95 %) of student 0.500, required 0.5. "
        "Of 8 episodes a bound claims a little too much: gate on 30 or more."
    )
    assert check_retention(compare(task, student=1, num_episodes=30), 0.5).endswith("required 0.5.")
    with pytest.raises(GateError) as caught:
        check_retention(result, 0.51)
    assert str(caught.value) == (
        "Retention gate failed: lower bound (one-sided 95 %) of student 0.500, required 0.51. "
        "More episodes are unlikely to help, a better student will (docs/worse-than-teacher.md in "
        "the checkout of rldistill): student keeps 0.500."
    )


def test_the_gate_asks_for_the_bound_not_for_the_estimate():
    result = compare(payout_task(noise=2.0), student=1, num_episodes=10)
    row = result.students[0]
    between = (row.retention_lower_bound + row.retention) / 2
    with pytest.raises(GateError):
        check_retention(result, between)
    check_retention(result, row.retention_lower_bound)


def test_the_gate_stays_shut_where_retention_is_undefined():
    for settings, num_episodes in (({"payouts": [3, 3, 3], "otherwise": 3}, 6), ({}, 4)):
        result = compare(payout_task(**settings), student=2, num_episodes=num_episodes)
        with pytest.raises(GateError, match="of student unknown, required 0"):
            check_retention(result, 0)


def test_every_student_must_pass_the_gate(task):
    students = [constant_policy(task, action) for action in (2, 1, 0)]
    reference = constant_policy(task, 2, "teacher")
    result = evaluate(students, task, teacher=reference, num_episodes=5)
    with pytest.raises(GateError, match=r"of always 1 0\.500, always 0 0\.000, required 0\.9"):
        check_retention(result, 0.9)


def test_a_failed_gate_says_how_many_episodes_would_do():
    """The bound lies as far below the estimate as the root of the number of episodes allows."""
    task = payout_task(noise=1.0)
    result = compare(task, student=1, num_episodes=20)
    row = result.students[0]
    required = row.retention - 0.5 * (row.retention - row.retention_lower_bound)
    with pytest.raises(GateError) as caught:
        check_retention(result, required)
    assert str(caught.value).endswith(
        f"More episodes would do, if retention stays: about 84 for student at {row.retention:.3f}."
    )
    check_retention(compare(task, student=1, num_episodes=84), required)


def test_a_gate_that_fails_in_doubt_says_how_many_episodes_would_show_that_too_little_is_kept():
    result = compare(payout_task(noise=1.0), student=1, num_episodes=20)
    (student,) = result.overall
    required = student.mean_retention + 0.5 * (student.mean_retention_interval.high - student.mean_retention)
    with pytest.raises(GateError) as caught:
        check_retention(result, required)
    assert str(caught.value).endswith(
        "More episodes may only settle that too little is kept, a better student will help (docs/worse-than-teacher.md "
        f"in the checkout of rldistill): about 84 for student at {student.mean_retention:.3f}."
    )


def test_a_failed_gate_names_those_that_passed_with_their_bounds(task):
    students = [constant_policy(task, action) for action in (1, 0)]
    result = evaluate(students, task, teacher=constant_policy(task, 2, "teacher"), num_episodes=5)
    with pytest.raises(GateError) as caught:
        check_retention(result, 0.5)
    assert str(caught.value) == (
        "Retention gate failed: lower bound (one-sided 95 %) of always 0 0.000, required 0.5. Passed: always 1 0.500. "
        "More episodes are unlikely to help, a better student will (docs/worse-than-teacher.md in "
        "the checkout of rldistill): always 0 keeps 0.000."
    )


@pytest.mark.parametrize(
    ("settings", "num_episodes", "advice"),
    [
        ({}, 4, "Fewer than 5 episodes show no bound: play more."),
        ({"payouts": [3, 3, 3], "otherwise": 3}, 6,
         "There is no lower bound because the teacher is not clearly better than random play: student."),
    ],
)  # fmt: skip
def test_a_gate_without_a_bound_says_why(settings, num_episodes, advice):
    with pytest.raises(GateError) as caught:
        check_retention(compare(payout_task(**settings), student=1, num_episodes=num_episodes), 0.4)
    assert str(caught.value).endswith(f"of student unknown, required 0.4. {advice}")


def test_a_gate_without_a_teacher_is_wrong_usage(task):
    with pytest.raises(UsageError, match="--require-retention compares with a teacher: name it with --teacher FILE"):
        check_gated(pair(constant_policy(task, 1), task))


# Several tasks.


def test_the_gate_asks_for_the_mean_over_the_tasks(result_of_three):
    bound = result_of_three.overall[0].mean_retention_lower_bound
    check_retention(result_of_three, bound)
    with pytest.raises(GateError) as caught:
        check_retention(result_of_three, 0.32)
    assert str(caught.value) == (
        "Retention gate failed: lower bound (one-sided 95 %) of the mean retention over 3 tasks of student 0.317, "
        "required 0.32. More episodes are unlikely to help, a better student will (docs/worse-than-teacher.md in "
        "the checkout of rldistill): "
        "student keeps 0.317."
    )


def test_the_gate_stays_shut_where_one_task_has_no_retention():
    tasks = payout_tasks(a={}, b={"payouts": [3, 3, 3], "otherwise": 3})
    result = evaluate(constant_heads(tasks, (2, 2)), teacher=constant_heads(tasks, (2, 1), "t"), num_episodes=5)
    with pytest.raises(GateError, match="over 2 tasks of student unknown, required 0"):
        check_retention(result, 0)


def test_a_gate_needs_a_teacher_on_every_task_and_a_student(student_of_three, three_teachers, three_tasks):
    message = rf"^--require-retention compares with a teacher on every task: got none for {A}, {C}\. Name each with"
    with pytest.raises(UsageError, match=message):
        check_gated(pair(student_of_three, None, three_teachers[1]))
    with pytest.raises(UsageError, match=message):
        check_gated(pair(student_of_three, teacher=three_teachers[1]))
    check_gated(pair(student_of_three, None, three_teachers))
    check_gated(pair(student_of_three, [B], three_teachers[1]))
    with pytest.raises(GateError, match="every policy named is the teacher itself"):
        check_gated(pair(student_of_three, teacher=student_of_three))
