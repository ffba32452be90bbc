"""Evaluations whose numbers are worked out by hand: on one payout task, and on three."""

import re

from rldistill.verbs.evaluate import evaluate
from tests.kit.payout import constant_policy, payout_tasks


def compare(task, *, student: int, teacher: int | None = 2, num_episodes: int = 8, **settings):
    reference = None if teacher is None else constant_policy(task, teacher, "teacher")
    policy = constant_policy(task, student, "student")
    return evaluate(policy, task, teacher=reference, num_episodes=num_episodes, **settings)


def three_tasks():
    """Return tasks on which random play scores 2, 1 and 0."""
    return payout_tasks(a={}, b={"payouts": [1, 5, 21], "otherwise": 1}, c={"payouts": [0, 3, 4, 12], "otherwise": 0})


def three_teachers(tasks):
    """Return a teacher for each of the three tasks: they score 10, 21 and 12."""
    best = zip("ABC", tasks, (2, 2, 3), strict=True)
    return [constant_policy(task, action, f"teacher {letter}") for letter, task, action in best]


def rows_of(text: str) -> list[list[str]]:
    """Return the cells of each row; two blanks stand between columns."""
    return [re.split(r" {2,}", line.strip()) for line in text.splitlines()]
