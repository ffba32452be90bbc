"""Agreement of greedy actions, and what a policy of one action would reach."""

import pytest
import torch

from rldistill.errors import NumericalError
from rldistill.statistics import agreement, majority_share


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


def test_agreement_of_a_large_batch_is_counted_in_integers():
    # A float32 sum would lose the ones beyond 2²⁴ rows; a share of counts cannot.
    assert agreement(torch.zeros(100_003, 1), torch.zeros(100_003, 1)) == 1.0


@pytest.mark.parametrize("culprit", ["student", "teacher"])
def test_nan_scores_are_an_error_and_not_a_choice(culprit):
    scores = {"student": torch.zeros(2, 3), "teacher": torch.zeros(2, 3)}
    scores[culprit][1, 2] = float("nan")
    message = rf"^Agreement failed: got NaN in the {culprit}'s scores, expected numbers\.$"
    with pytest.raises(NumericalError, match=message):
        agreement(scores["student"], scores["teacher"])


def test_agreement_of_different_action_counts_is_an_error():
    message = r"^teacher_scores must be \[B, A\], got student_scores \[2, 3\], teacher_scores \[2, 4\]\.$"
    with pytest.raises(ValueError, match=message):
        agreement(torch.zeros(2, 3), torch.zeros(2, 4))


@pytest.mark.parametrize(
    ("actions", "num_actions", "expected"),
    [
        ([0, 0, 0, 1], 2, 0.75),
        ([3, 1, 3, 2], 4, 0.5),
        ([0, 1, 2], 3, 1 / 3),
        ([5], 18, 1.0),
        ([], 18, None),
    ],
)
def test_majority_share_matches_hand_worked_values(actions, num_actions, expected):
    assert majority_share(torch.tensor(actions, dtype=torch.int64), num_actions) == expected


def test_majority_share_is_the_agreement_of_a_policy_that_always_names_the_commonest_action():
    teacher_scores = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    actions = teacher_scores.argmax(dim=-1)
    stubborn = torch.nn.functional.one_hot(actions.mode().values, 4).expand(200, 4)
    assert majority_share(actions, 4) == agreement(stubborn.float(), teacher_scores)


@pytest.mark.parametrize(("actions", "span"), [([0, 4], "0 to 4"), ([-1, 3], "-1 to 3")])
def test_action_out_of_range_is_an_error(actions, span):
    with pytest.raises(ValueError, match=rf"^actions must be in \[0, 4\), got {span}\.$"):
        majority_share(torch.tensor(actions), 4)
