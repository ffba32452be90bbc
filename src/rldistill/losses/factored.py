"""Losses for several choices at once: the losses for one choice, summed over dimensions.

A policy over MultiDiscrete actions is a product of independent categoricals, one over
MultiBinary actions a product of Bernoullis. Divergences and log-likelihoods of a product are
sums over its factors, so every function of `losses.discrete` extends to them.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rldistill.types import check_shapes

ChoiceLoss = Callable[[Tensor, Tensor], Tensor]
"""A loss for one choice: (student `[..., A]`, teacher `[..., A]`) → `[...]`."""


def multi_discrete_loss(
    loss: ChoiceLoss, student_scores: Tensor, teacher_scores: Tensor, *, sizes: Sequence[int]
) -> Tensor:
    """Return the sum of a loss over the dimensions of a MultiDiscrete action.

    Args:
        loss: for one choice, such as `functools.partial(sharpened_kl, temperature=1.0)`.
        student_scores: `[..., S]`, the categoricals side by side, S = sum(sizes).
        teacher_scores: `[..., S]`, likewise.
        sizes: choices in each dimension, in order.

    Returns:
        `[...]`, in the unit of the loss.

    Raises:
        ValueError: shapes do not fit each other, the sizes or the loss.
    """
    check_shapes("... S", student_scores=student_scores, teacher_scores=teacher_scores)
    if student_scores.shape[-1] != sum(sizes):
        raise ValueError(
            f"scores must be [..., {sum(sizes)}] for sizes {tuple(sizes)}, got {list(student_scores.shape)}."
        )
    blocks = zip(student_scores.split(list(sizes), dim=-1), teacher_scores.split(list(sizes), dim=-1), strict=True)
    return torch.stack([loss(student, teacher) for student, teacher in blocks]).sum(dim=0)


def multi_binary_loss(loss: ChoiceLoss, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return the sum of a loss over the dimensions of a MultiBinary action.

    A logit l is the choice between off and on whose scores are 0 and l; a temperature divides
    it. Of a teacher's logit of 0, off counts as the greedy action.

    Args:
        loss: for one choice, such as `functools.partial(sharpened_kl, temperature=1.0)`.
        student_logits: `[..., D]`, one per dimension.
        teacher_logits: `[..., D]`, likewise.

    Returns:
        `[...]`, in the unit of the loss.

    Raises:
        ValueError: shapes do not fit each other, or the loss refuses them.
    """
    check_shapes("... D", student_logits=student_logits, teacher_logits=teacher_logits)
    losses = loss(_off_and_on(student_logits), _off_and_on(teacher_logits))
    return losses.view(student_logits.shape).sum(dim=-1)


def _off_and_on(logits: Tensor) -> Tensor:
    """Return the scores of both choices, `[B · D, 2]`."""
    flat = logits.reshape(-1)
    return torch.stack([torch.zeros_like(flat), flat], dim=-1)
