"""Evaluations whose numbers are worked out by hand: on one payout task, and on three; the fixtures are of the three."""

import re

import pytest

from rldistill.verbs.evaluate import evaluate
from tests.kit.payout import constant_heads, constant_policy, payout_tasks


def compare(task, *, student: int, teacher: int | None = 2, num_episodes: int = 8, **settings):
    reference = None if teacher is None else constant_policy(task, teacher, "teacher")
    policy = constant_policy(task, student, "student")
    return evaluate(policy, task, teacher=reference, num_episodes=num_episodes, **settings)


@pytest.fixture(scope="session")
def three_tasks():
    """Tasks on which random play scores 2, 1 and 0."""
    return payout_tasks(a={}, b={"payouts": [1, 5, 21], "otherwise": 1}, c={"payouts": [0, 3, 4, 12], "otherwise": 0})


@pytest.fixture(scope="session")
def three_teachers(three_tasks):
    """A teacher for each of the three tasks: they score 10, 21 and 12."""
    best = zip("ABC", three_tasks, (2, 2, 3), strict=True)
    return [constant_policy(task, action, f"teacher {letter}") for letter, task, action in best]


@pytest.fixture(scope="session")
def student_of_three(three_tasks):
    """Scores 6, 5 and 3: retention ½, 1/5 and ¼; relative score 3/5, 5/21 and ¼."""
    return constant_heads(three_tasks, (1, 1, 1))


@pytest.fixture(scope="session")
def result_of_three(student_of_three, three_teachers):
    """That student beside these teachers in six episodes of each task."""
    return evaluate(student_of_three, teacher=three_teachers, num_episodes=6)


def rows_of(text: str) -> list[list[str]]:
    """Return the cells of each row; two blanks stand between columns."""
    return [re.split(r" {2,}", line.strip()) for line in text.splitlines()]
