"""How alike a student and its teacher act, and what a policy that ignores its observations would reach.

Choices are compared by how often they are the same, actions of a box by how far they are apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from rldistill.losses.rows import greedy_actions
from rldistill.statistics import action_gap, agreement, greedy_choices, majority_share
from rldistill.types import ActionLayout, OutputKind

LikenessName = Literal["agreement", "action_gap"]


@dataclass(frozen=True)
class Likeness:
    """How alike a student and its teacher act, in the measure of their kind of actions."""

    name: LikenessName  # as records call it
    # agreement, of choices: share of steps with the same greedy action, in [0, 1];
    # action_gap, of a box: mean distance of the greedy actions, in widths of the box, 0 or more.
    value: float

    def is_better_than(self, other: "Likeness") -> bool:
        """Return whether this is more alike."""
        return self.value > other.value if self.name == "agreement" else self.value < other.value


def likeness(
    student: Tensor, student_kind: OutputKind, teacher: Tensor, teacher_kind: OutputKind, layout: ActionLayout
) -> Likeness:
    """Compare rows `[B, O]` of a student with those of its teacher, B ≥ 1."""
    if layout.is_continuous:
        mine, theirs = greedy_actions(student, student_kind, layout), greedy_actions(teacher, teacher_kind, layout)
        return _known("action_gap", action_gap(mine, theirs, layout))
    return _known("agreement", agreement(student, teacher, layout))


def likeness_of_a_constant(teacher: Tensor, teacher_kind: OutputKind, layout: ActionLayout) -> Likeness:
    """Return what one action would reach whatever is observed: the commonest choice, the median action of a box."""
    if layout.is_continuous:
        actions = greedy_actions(teacher, teacher_kind, layout)
        # Of all constants the median is the nearest, on average and in each dimension.
        return _known("action_gap", action_gap(actions.median(dim=0).values.expand_as(actions), actions, layout))
    return _known("agreement", majority_share(greedy_choices(teacher, layout)))


def mean_likeness(found: Sequence[Likeness]) -> Likeness | None:
    """Return the mean over tasks; None where their actions are not of one kind."""
    if len({each.name for each in found}) != 1:
        return None
    return Likeness(found[0].name, sum(each.value for each in found) / len(found))


def _known(name: LikenessName, value: float | None) -> Likeness:
    assert value is not None, "there are rows"
    return Likeness(name, value)
