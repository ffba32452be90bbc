"""How often two policies choose alike, or how far apart their actions are, and how little that may mean.

A student that always names the commonest action agrees with a one-sided teacher most of the
time: read `agreement` beside `majority_share`.
"""

import torch
from torch import Tensor

from rldistill.errors import NumericalError
from rldistill.types import ActionLayout, check_shapes


def agreement(student_scores: Tensor, teacher_scores: Tensor, layout: ActionLayout | None = None) -> float | None:
    """Return the share of rows in which both have the same greedy action.

    Args:
        student_scores: `[B, O]`, Q-values or logits; of equal best scores the first counts.
        teacher_scores: `[B, O]`, likewise; the two scales need not match.
        layout: of the actions; where several things are chosen at once, all of them must be equal. None: one choice.

    Returns:
        In [0, 1]; None without rows.

    Raises:
        ValueError: shapes do not fit.
        NumericalError: a score is NaN, which an argmax would take for the best.
    """
    check_shapes("B O", student_scores=student_scores, teacher_scores=teacher_scores)
    _check_numbers("Agreement", "scores", student_scores, teacher_scores)
    if len(student_scores) == 0:
        return None
    is_equal = greedy_choices(student_scores, layout) == greedy_choices(teacher_scores, layout)
    return is_equal.all(dim=-1).sum().item() / len(is_equal)


def action_gap(student_actions: Tensor, teacher_actions: Tensor, layout: ActionLayout) -> float | None:
    """Return the mean distance of continuous actions, in widths of their box.

    |student − teacher| ÷ width, averaged over rows and dimensions. In a dimension without bounds the unit is
    four standard deviations of the teacher's actions in these rows, about what it uses; one in which
    the teacher never moves and that has no bounds counts in the environment's units.

    Args:
        student_actions: `[B, D]`, in the environment's units.
        teacher_actions: `[B, D]`, likewise.
        layout: of the box.

    Returns:
        0 or more, 0 for equal actions; None without rows.

    Raises:
        ValueError: shapes do not fit.
        NumericalError: an action is NaN.
    """
    if len(teacher_actions) == 0:
        return None
    return action_gaps(student_actions, teacher_actions, layout).mean().item()


def action_gaps(student_actions: Tensor, teacher_actions: Tensor, layout: ActionLayout) -> Tensor:
    """Return the distances that `action_gap` is the mean of, `[B, D]`, B ≥ 1; its arguments and errors."""
    check_shapes("B D", student_actions=student_actions, teacher_actions=teacher_actions)
    _check_numbers("Action gap", "actions", student_actions, teacher_actions)
    gaps = (student_actions.double() - teacher_actions.double()).abs()
    return gaps / _units(teacher_actions.double(), layout)


def _check_numbers(what: str, noun: str, student: Tensor, teacher: Tensor) -> None:
    for name, values in (("student", student), ("teacher", teacher)):
        if values.isnan().any():
            raise NumericalError(f"{what} failed: got NaN in the {name}'s {noun}, expected numbers.")


def _units(teacher_actions: Tensor, layout: ActionLayout) -> Tensor:
    widths = teacher_actions.new_tensor(layout.widths)
    used = 4 * teacher_actions.std(dim=0, unbiased=False)
    units = torch.where(widths.isfinite(), widths, used)
    return torch.where(units > 0, units, torch.ones_like(units))


def greedy_choices(scores: Tensor, layout: ActionLayout | None = None) -> Tensor:
    """Return the greedy choices `[B, K or D]` of scores `[B, O]`: the best of each, or the switches that are on."""
    if layout is not None and layout.kind == "multi_binary":
        return (scores > 0).long()
    sizes = [scores.shape[1]] if layout is None else list(layout.sizes)
    return torch.stack([part.argmax(dim=-1) for part in scores.split(sizes, dim=-1)], dim=-1)


def majority_share(choices: Tensor) -> float | None:
    """Return how often a policy that always makes the commonest choice is right.

    Args:
        choices: `[B, K]`, integers; a row counts as the commonest only in all of its choices.

    Returns:
        In (0, 1]; None without rows.

    Raises:
        ValueError: the shape does not fit.
    """
    check_shapes("B K", choices=choices)
    if len(choices) == 0:
        return None
    _, counts = torch.unique(choices, dim=0, return_counts=True)
    return counts.max().item() / len(choices)
