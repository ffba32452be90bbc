"""How far a mean may lie from what a policy is said to score."""

import pytest

from rldistill.inspection.expected import ExpectedReturn


@pytest.mark.parametrize(
    ("mean", "error", "agrees"),
    [
        (10.0, None, True),
        (10.4, None, False),
        (10.05, None, False),
        (9.4, 0.2, True),
        (9.3, 0.2, False),
        (8.7, 0.5, True),
    ],
)
def test_three_combined_standard_errors_and_half_a_unit_of_the_last_digit_are_allowed(mean, error, agrees):
    assert (abs(10.0 - mean) <= ExpectedReturn(mean, error, "test").allowed(0.0)) == agrees


@pytest.mark.parametrize(
    ("mean", "rounding"),
    [(500.0, 0.5), (-153.1, 0.05), (93.48, 0.005), (1200.0, 0.5), (10.0, 0.05), (1.0, 0.005), (0.6, 0.05), (0.0, 0.0)],
)
def test_a_figure_was_rounded_to_its_last_digit(mean, rounding):
    assert ExpectedReturn(mean, None, "test").rounding == pytest.approx(rounding)


def test_small_whole_numbers_are_not_rounded_by_half_a_point():
    assert ExpectedReturn(1.0, None, "test").allowed(0.0) < 0.4
    assert ExpectedReturn(0.0, None, "test").allowed(0.0) < 0.3


@pytest.mark.parametrize(
    ("own", "played", "allowed"),
    [
        # Twice P(t > x) = 0.0027, as three standard errors of the normal distribution have; tables of Student's t.
        ((1.0, 5), (0.0, 100), 6.62),
        ((1.0, 10), (0.0, 100), 4.09),
        ((0.0, None), (1.0, 5), 6.62),
        ((1.0, None), (0.0, 5), 3.0),
        ((1.0, 10**6), (1.0, 10**6), 3 * 2**0.5),
        ((None, None), (1.0, 10**6), 3 * 2**0.5),  # as uncertain as what is played
    ],
)
def test_few_episodes_are_allowed_more(own, played, allowed):
    expected = ExpectedReturn(0.0, own[0], "test", own[1])
    assert expected.allowed(*played) == pytest.approx(allowed, rel=2e-3)
