"""How often two policies choose alike, and how little that may mean.

A student that always names the commonest action agrees with a one-sided teacher most of the
time: read `agreement` beside `majority_share`.
"""

from torch import Tensor

from rldistill.errors import NumericalError
from rldistill.types import check_shapes


def agreement(student_scores: Tensor, teacher_scores: Tensor) -> float | None:
    """Return the share of rows in which both have the same greedy action.

    Args:
        student_scores: `[B, A]`, Q-values or logits; of equal best scores the first counts.
        teacher_scores: `[B, A]`, likewise; the two scales need not match.

    Returns:
        In [0, 1]; None without rows.

    Raises:
        ValueError: shapes do not fit.
        NumericalError: a score is NaN, which an argmax would take for the best.
    """
    check_shapes("B A", student_scores=student_scores, teacher_scores=teacher_scores)
    for name, scores in (("student", student_scores), ("teacher", teacher_scores)):
        if scores.isnan().any():
            raise NumericalError(f"Agreement failed: got NaN in the {name}'s scores, expected numbers.")
    if len(student_scores) == 0:
        return None
    is_equal = student_scores.argmax(dim=-1) == teacher_scores.argmax(dim=-1)
    return is_equal.sum().item() / len(is_equal)


def majority_share(actions: Tensor, num_actions: int) -> float | None:
    """Return how often a policy that always names the commonest action is right.

    Args:
        actions: `[B]`, integers in [0, num_actions).
        num_actions: A, number of actions there are.

    Returns:
        In [1 ÷ A, 1]; None without rows.

    Raises:
        ValueError: an action is out of range.
    """
    check_shapes("B", actions=actions)
    if len(actions) == 0:
        return None
    low, high = int(actions.min()), int(actions.max())
    if low < 0 or high >= num_actions:
        raise ValueError(f"actions must be in [0, {num_actions}), got {low} to {high}.")
    return actions.bincount().max().item() / len(actions)
