"""Agreement of greedy actions, and what a policy of one action would reach."""

import pytest
import torch

from rldistill.errors import NumericalError
from rldistill.statistics import action_gap, agreement, greedy_choices, majority_share
from rldistill.types import ActionLayout


@pytest.mark.parametrize(
    ("student_scores", "teacher_scores", "expected"),
    [
        ([[0.0, 1.0], [1.0, 0.0]], [[5.0, 6.0], [-1.0, -2.0]], 1.0),  # only the order counts
        ([[0.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], 0.0),
        ([[0.0, 1.0], [1.0, 0.0], [3.0, 4.0], [4.0, 3.0]], [[0.0, 1.0], [1.0, 0.0], [3.0, 4.0], [3.0, 4.0]], 0.75),
        ([[1.0, 1.0, 0.0]], [[2.0, 1.0, 0.0]], 1.0),  # of equal best scores the first counts
        ([[float("-inf"), 0.0]], [[0.0, 1.0]], 1.0),  # an action that is ruled out
    ],
)
def test_agreement_matches_hand_worked_values(student_scores, teacher_scores, expected):
    assert agreement(torch.tensor(student_scores), torch.tensor(teacher_scores)) == expected


def test_agreement_of_no_rows_is_none():
    assert agreement(torch.zeros(0, 4), torch.zeros(0, 4)) is None


def test_agreement_is_a_share_of_counts_not_a_mean_in_float32():
    student, teacher = torch.tensor([[1.0, 0.0]] * 3), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert agreement(student, teacher) == 1 / 3


@pytest.mark.parametrize("culprit", ["student", "teacher"])
def test_nan_scores_are_an_error_and_not_a_choice(culprit):
    scores = {"student": torch.zeros(2, 3), "teacher": torch.zeros(2, 3)}
    scores[culprit][1, 2] = float("nan")
    message = rf"^Agreement failed: got NaN in the {culprit}'s scores, expected numbers\.$"
    with pytest.raises(NumericalError, match=message):
        agreement(scores["student"], scores["teacher"])


def test_agreement_of_different_action_counts_is_an_error():
    message = r"^teacher_scores must be \[B, O\], got student_scores \[2, 3\], teacher_scores \[2, 4\]\.$"
    with pytest.raises(ValueError, match=message):
        agreement(torch.zeros(2, 3), torch.zeros(2, 4))


@pytest.mark.parametrize(
    ("layout", "student", "teacher", "expected"),
    [
        (ActionLayout("multi_discrete", (2, 3)), [0, 1, 2, 1, 0], [3, 4, 9, 0, 0], 1.0),
        (ActionLayout("multi_discrete", (2, 3)), [0, 1, 2, 1, 0], [3, 4, 0, 9, 0], 0.0),  # one of two choices differs
        (ActionLayout("multi_binary", (2,)), [0.1, -0.1], [5.0, -5.0], 1.0),
        (ActionLayout("multi_binary", (2,)), [0.1, -0.1], [5.0, 5.0], 0.0),
    ],
)
def test_several_choices_agree_when_all_of_them_do(layout, student, teacher, expected):
    assert agreement(torch.tensor([student]).float(), torch.tensor([teacher]).float(), layout) == expected


BOX = ActionLayout("box", (2,), (-1.0, 0.0), (1.0, 10.0), "clip")


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        ([[0.0, 5.0]], [[0.0, 5.0]], 0.0),
        ([[0.0, 5.0]], [[1.0, 5.0]], 0.25),  # half a width in one of two dimensions
        ([[0.0, 5.0], [0.0, 0.0]], [[1.0, 5.0], [0.0, 10.0]], (0.5 + 0 + 0 + 1) / 4),
    ],
)
def test_action_gap_matches_hand_worked_values(student, teacher, expected):
    assert action_gap(torch.tensor(student), torch.tensor(teacher), BOX) == pytest.approx(expected)


def test_without_bounds_the_unit_of_a_gap_is_what_the_teacher_uses():
    unbounded = ActionLayout("box", (2,), (-torch.inf, -3.4e38), (torch.inf, 3.4e38), "clip")
    teacher = torch.tensor([[0.0, 7.0], [20.0, 7.0]])  # standard deviations 10 and 0
    assert action_gap(teacher + torch.tensor([10.0, 0.5]), teacher, unbounded) == pytest.approx((10 / 40 + 0.5) / 2)


def test_action_gap_of_no_rows_and_of_nan():
    assert action_gap(torch.zeros(0, 2), torch.zeros(0, 2), BOX) is None
    with pytest.raises(NumericalError, match=r"^Action gap failed: got NaN in the teacher's actions"):
        action_gap(torch.zeros(1, 2), torch.full((1, 2), torch.nan), BOX)


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ([[0], [0], [0], [1]], 0.75),
        ([[3], [1], [3], [2]], 0.5),
        ([[5]], 1.0),
        ([[0, 1], [0, 1], [0, 2], [1, 1]], 0.5),
        ([], None),
    ],
)
def test_majority_share_matches_hand_worked_values(choices, expected):
    rows = torch.tensor(choices, dtype=torch.int64).reshape(len(choices), -1 if choices else 1)
    assert majority_share(rows) == expected


def test_majority_share_is_the_agreement_of_a_policy_that_always_names_the_commonest_action():
    teacher_scores = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    stubborn = torch.nn.functional.one_hot(teacher_scores.argmax(dim=-1).mode().values, 4).expand(200, 4)
    assert majority_share(greedy_choices(teacher_scores)) == agreement(stubborn.float(), teacher_scores)
