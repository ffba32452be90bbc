"""Losses of several tasks make one student, or one line says why they cannot."""

import pytest

from rldistill.errors import MismatchError
from rldistill.losses import make_loss
from rldistill.types import ActionLayout
from rldistill.verbs.task_losses import TaskLoss, student_kind

BOX = ActionLayout("box", (1,), (-1.0,), (1.0,), "clip")


@pytest.mark.parametrize(
    ("first", "way"),
    [
        (
            make_loss("nll", "logits"),
            "Choices and continuous actions in one student are not possible yet: distil one student of each.",
        ),
        (make_loss("mean_mse", "actions", BOX), "Name one --loss."),
    ],
)
def test_a_way_on_is_named_only_where_there_is_one(first, way):
    losses = [TaskLoss(function, {}) for function in (first, make_loss("diag_gaussian_kl", "gaussian", BOX))]
    with pytest.raises(MismatchError) as caught:
        student_kind(["a", "b"], losses)
    assert str(caught.value) == (
        f"These losses make a student of {first.student_kind} of a, gaussian of b: one policy cannot give both. {way}"
    )
