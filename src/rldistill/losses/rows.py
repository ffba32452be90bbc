"""Losses on rows: what networks give and datasets keep, split as the layout of the actions says.

A row is one flat vector per observation, `[..., O]`: the scores of one choice; the logits of
several choices side by side; one logit per binary dimension; the mean, then the log std of a
Gaussian; or the action itself. Here the functions of the other files are applied to rows.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from rldistill.losses.factored import multi_binary_loss, multi_discrete_loss
from rldistill.types import ActionLayout, OutputKind

RowLoss = Callable[..., Tensor]
"""A loss on rows: (student `[..., S]`, target `[..., O]`, and its own parameters by name) → `[...]`."""


def choice_loss(loss: RowLoss, layout: ActionLayout | None) -> RowLoss:
    """Return a loss for one choice as a loss on rows of as many choices as the layout has."""
    if layout is None or layout.kind == "discrete":
        return loss

    def summed(student: Tensor, target: Tensor, **parameters: float) -> Tensor:
        of_one = partial(loss, **parameters)
        if layout.kind == "multi_binary":
            return multi_binary_loss(of_one, student, target)
        return multi_discrete_loss(of_one, student, target, sizes=layout.sizes)

    return summed


def gaussian_loss(loss: RowLoss) -> RowLoss:
    """Return a loss of means and log stds as a loss on rows that hold both."""

    def split(student: Tensor, target: Tensor, **parameters: float) -> Tensor:
        return loss(*student.chunk(2, dim=-1), *target.chunk(2, dim=-1), **parameters)

    return split


def action_loss(loss: RowLoss, output_kind: OutputKind, layout: ActionLayout) -> RowLoss:
    """Return a loss of actions as a loss on rows of a student that gives actions.

    Both are compared in the environment's units, and a difference of half the width of its box
    counts 1. The target is what the teacher does when it acts greedily.
    """
    scale = unit_scale(layout)

    def compared(student: Tensor, target: Tensor, **parameters: float) -> Tensor:
        return loss(student, greedy_actions(target, output_kind, layout), scale=scale, **parameters)

    return compared


def greedy_actions(rows: Tensor, output_kind: OutputKind, layout: ActionLayout) -> Tensor:
    """Return what a policy for boxes does when it does not sample.

    A Gaussian's mean reaches the box as the layout says: clipped, or by tanh and rescaling. The
    action of a deterministic policy is clipped.

    Args:
        rows: `[..., O]`, a Gaussian's or a deterministic policy's outputs.
        output_kind: `gaussian` or `actions`.
        layout: of the policy that gave them.

    Returns:
        `[..., D]`, float32, in the environment's units, inside the box.
    """
    actions = (rows.chunk(2, dim=-1)[0] if output_kind == "gaussian" else rows).float()
    low, high = actions.new_tensor(layout.low), actions.new_tensor(layout.high)
    if output_kind == "gaussian" and layout.mapping == "tanh_rescale":
        return low + (high - low) * (actions.tanh() + 1) / 2
    return actions.clamp(low, high)


def unit_scale(layout: ActionLayout) -> Tensor:
    """Return half the width of a box, `[D]`; 1 where it has no bounds, or no width."""
    widths = torch.tensor(layout.widths)
    return torch.where(widths.isfinite() & (widths > 0), widths / 2, torch.ones_like(widths))
