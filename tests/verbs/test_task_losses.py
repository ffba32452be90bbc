"""Losses of several tasks make one student, each head of the kind that its own loss needs."""

import pytest

from rldistill.losses import make_loss
from rldistill.types import ActionLayout
from rldistill.verbs.task_losses import TaskLoss, student_kinds

BOX = ActionLayout("box", (1,), (-1.0,), (1.0,), "clip")
CHOICE, Q_VALUES = make_loss("nll", "logits"), make_loss("q_mse", "q_values")
MEAN, GAUSSIAN = make_loss("mean_mse", "actions", BOX), make_loss("diag_gaussian_kl", "gaussian", BOX)


@pytest.mark.parametrize(
    ("losses", "kinds"),
    [
        ([Q_VALUES, Q_VALUES], ["q_values", "q_values"]),
        ([Q_VALUES, CHOICE], ["logits", "logits"]),
        ([Q_VALUES, MEAN], ["q_values", "actions"]),
        ([Q_VALUES, GAUSSIAN, CHOICE, MEAN], ["logits", "gaussian", "logits", "actions"]),
    ],
)
def test_heads_of_choices_are_of_one_kind_and_continuous_ones_of_their_own(losses, kinds):
    assert student_kinds([TaskLoss(function, {}) for function in losses]) == kinds
