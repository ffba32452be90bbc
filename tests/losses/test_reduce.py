"""The mean over a batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rldistill.losses import mean_over_batch


@pytest.mark.parametrize(
    ("losses", "weights", "expected"),
    [
        ([1.0, 2.0, 6.0], None, 3.0),
        ([1.0, 2.0, 6.0], [1.0, 1.0, 1.0], 3.0),
        ([1.0, 2.0, 6.0], [1.0, 1.0, 0.0], 1.5),  # a mask
        ([1.0, 5.0], [3.0, 1.0], 2.0),
    ],
)
def test_mean_matches_hand_worked_values(losses, weights, expected):
    weights = None if weights is None else torch.tensor(weights)
    assert mean_over_batch(torch.tensor(losses), weights).item() == expected


@settings(deadline=None, max_examples=50)
@given(rows=st.lists(st.tuples(st.floats(0, 100), st.floats(0.01, 100)), min_size=1, max_size=20))
def test_weighted_mean_ignores_the_scale_of_weights_and_lies_between_the_extremes(rows):
    losses, weights = torch.tensor(rows, dtype=torch.float64).unbind(dim=1)
    mean = mean_over_batch(losses, weights)
    torch.testing.assert_close(mean_over_batch(losses, 7 * weights), mean)
    assert losses.min() - 1e-9 <= mean <= losses.max() + 1e-9


def test_weights_carry_no_gradient():
    losses, weights = torch.rand(4).requires_grad_(), torch.ones(4).requires_grad_()
    mean_over_batch(losses, weights).backward()
    assert losses.grad.tolist() == [0.25] * 4
    assert weights.grad is None


def test_integer_and_boolean_weights_are_taken():
    losses = torch.tensor([1.0, 2.0, 6.0])
    assert mean_over_batch(losses, torch.tensor([False, True, False])).item() == 2
    assert mean_over_batch(losses, torch.tensor([1, 0, 1])).item() == 3.5


@pytest.mark.parametrize(
    ("losses", "weights", "message"),
    [
        (torch.zeros(0), None, r"^losses must hold at least one row, got none\.$"),
        (torch.zeros(2, 3), torch.ones(3, 2), r"^weights must be \[\.\.\.\], got losses \[2, 3\], weights \[3, 2\]\.$"),
        (torch.zeros(2), torch.ones(3), r"^weights must be \[\.\.\.\], got losses \[2\], weights \[3\]\.$"),
        (torch.zeros(0), torch.zeros(0), r"^losses must hold at least one row, got none\.$"),
        (torch.zeros(2), torch.zeros(2), r"^weights must be >= 0 with a sum > 0, got lowest 0\.0, sum 0\.0\.$"),
        (
            torch.zeros(2),
            torch.tensor([-1.0, 3.0]),
            r"^weights must be >= 0 with a sum > 0, got lowest -1\.0, sum 2\.0\.$",
        ),
        (
            torch.zeros(2),
            torch.tensor([float("nan"), 3.0]),
            r"^weights must be >= 0 with a sum > 0, got lowest nan, sum nan\.$",
        ),
    ],
)
def test_batch_without_a_mean_is_refused(losses, weights, message):
    with pytest.raises(ValueError, match=message):
        mean_over_batch(losses, weights)
