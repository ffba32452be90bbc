"""The temperature that suits a teacher's own scale."""

import math

import pytest
import torch

from rldistill.errors import NumericalError, UsageError
from rldistill.losses import auto_temperature
from rldistill.types import ActionLayout


def temperature(scores, layout=None):
    scores = torch.tensor(scores)
    return auto_temperature(scores, layout or ActionLayout.discrete(scores.shape[1]))


def test_a_teacher_with_the_gaps_of_pong_gets_the_temperature_of_the_paper():
    assert temperature([[1.00, 1.07, 0.2]]) == pytest.approx(0.01, rel=1e-6)


def test_it_is_a_seventh_of_the_median_gap():
    # Gaps 0.7, 1.4 and 70: the mean would follow the last.
    assert temperature([[0.7, 0.0, -5.0], [0.0, -1.4, -1.5], [0.0, 1.0, 71.0]]) == pytest.approx(0.2, rel=1e-6)


def test_it_grows_with_the_teachers_scale_and_ignores_what_is_added():
    scores = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
    layout = ActionLayout.discrete(6)
    expected = auto_temperature(scores, layout)
    assert auto_temperature(1000 * scores, layout) == pytest.approx(1000 * expected, rel=1e-5)
    assert auto_temperature(scores + 8, layout) == pytest.approx(expected, rel=1e-4)


def test_every_choice_of_several_has_a_gap_of_its_own():
    layout = ActionLayout("multi_discrete", (2, 1, 3))
    # 0.7 and 1.4 in the first row, 2.1 in the second; a dimension without a choice has none.
    scores = [[0.7, 0.0, 9.0, 0.0, 1.4, 0.0], [1.0, 1.0, 9.0, 5.0, 2.9, 0.0]]
    assert temperature(scores, layout) == pytest.approx(0.2, rel=1e-6)


def test_the_gap_of_a_binary_choice_is_the_size_of_its_logit():
    layout = ActionLayout("multi_binary", (3,))
    assert temperature([[0.7, -1.4, 0.0], [0.0, -2.1, 0.0]], layout) == pytest.approx(0.2, rel=1e-6)


@pytest.mark.parametrize(
    "silent",
    [
        [1.0, 1.0, 0.0],  # equal best actions
        [1e6, 1e6 + 0.0625, 0.0],  # equal as far as float32 can tell
        [2.0, -math.inf, -math.inf],  # all but one are ruled out
        [2.0, -1e9, -1e9],  # the mask of policies whose answers must be finite
    ],
)
def test_rows_whose_gap_says_nothing_are_left_out(silent):
    assert temperature([silent, [0.0, 1.4, 0.0], silent]) == pytest.approx(0.2, rel=1e-6)


@pytest.mark.parametrize(
    ("scores", "num_rows"),
    [(torch.zeros(5, 4), 5), (torch.ones(3, 1), 3), (torch.zeros(0, 4), 0)],
)
def test_a_teacher_without_preferences_is_refused(scores, num_rows):
    message = (
        rf"^temperature: got auto for a teacher that prefers no action in any of {num_rows} rows\. "
        r"Give a number, or see whether the teacher was trained\.$"
    )
    with pytest.raises(UsageError, match=message):
        auto_temperature(scores, ActionLayout.discrete(scores.shape[1]))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_refused(bad):
    message = r"^temperature: got NaN or infinity among the teacher's scores, expected numbers\.$"
    with pytest.raises(NumericalError, match=message):
        temperature([[0.0, 1.0], [bad, 0.0]])


def test_half_precision_scores_are_read_as_they_are():
    assert auto_temperature(torch.tensor([[0.0, 0.875]]).half(), ActionLayout.discrete(2)) == 0.125
