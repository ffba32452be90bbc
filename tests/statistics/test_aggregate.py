"""Aggregates: hand-worked values, SciPy as referee, and None where no number is honest."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from rldistill.errors import NumericalError
from rldistill.statistics import (
    REFERENCE_SCORES,
    iqm,
    is_weak,
    mean,
    median,
    normalised_score,
    point_estimate,
    relative_score,
    retention,
)

samples = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("values", "expected_mean", "expected_median", "expected_iqm"),
    [
        ([7.0], 7.0, 7.0, 7.0),
        ([1.0, 2.0, 6.0], 3.0, 2.0, 3.0),  # fewer than 4: nothing is cut
        ([9.0, 1.0, 3.0, 2.0], 3.75, 2.5, 2.5),  # 1 and 9 go
        ([100.0, 1.0, 2.0, 3.0, 4.0], 22.0, 3.0, 3.0),
        ([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, -99.0], -8.0, 4.5, 4.5),  # two at either end go
    ],
)
def test_aggregates_match_hand_worked_values(values, expected_mean, expected_median, expected_iqm):
    assert point_estimate(values) == expected_mean
    assert point_estimate(values, median) == expected_median
    assert point_estimate(values, iqm) == expected_iqm


@settings(deadline=None)
@given(values=samples)
def test_iqm_equals_the_trimmed_mean_of_scipy(values):
    expected = scipy.stats.trim_mean(values, proportiontocut=0.25)
    assert point_estimate(values, iqm) == pytest.approx(expected, rel=1e-12, abs=1e-9)


@settings(deadline=None)
@given(values=samples, constant=st.floats(-1e3, 1e3), factor=st.floats(0.1, 10))
@pytest.mark.parametrize("statistic", [mean, median, iqm])
def test_aggregate_follows_shift_and_scale(statistic, values, constant, factor):
    moved = point_estimate([constant + factor * value for value in values], statistic)
    assert moved == pytest.approx(constant + factor * point_estimate(values, statistic), rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("statistic", [mean, median, iqm])
def test_aggregate_reduces_the_last_axis(statistic):
    values = np.random.default_rng(0).normal(size=(3, 5, 11))
    result = statistic(values)
    assert result.shape == (3, 5)
    assert result[1, 2] == pytest.approx(point_estimate(values[1, 2], statistic))


def test_aggregates_leave_their_input_in_order():
    values = np.array([9.0, 1.0, 3.0, 2.0])
    iqm(values)
    median(values)
    assert values.tolist() == [9.0, 1.0, 3.0, 2.0]


def test_point_estimate_is_a_plain_float_and_none_for_an_empty_sample():
    assert type(point_estimate(np.array([1, 2], dtype=np.int64))) is float
    assert point_estimate([]) is None


@pytest.mark.parametrize(("value", "name"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_score_that_is_not_finite_is_an_error_and_named(value, name):
    with pytest.raises(
        NumericalError, match=f"^Statistics failed: got {name} as value 1 of 3, expected finite ones\\.$"
    ):
        point_estimate([1.0, value, 2.0])


def test_sample_with_two_axes_is_an_error():
    with pytest.raises(ValueError, match=r"^a sample must be \[n\], got shape \[2, 3\]\.$"):
        point_estimate(np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        ([90.0, 110.0], [200.0], 0.5),
        ([-10.0], [20.0], -0.5),
        ([10.0], [0.0], None),
        ([-21.0], [-20.0], None),  # Pong: a ratio of two losses would read 105 %
        ([], [1.0], None),
        ([1.0], [], None),
        ([1.0], [5e-324], None),  # overflows
    ],
)
def test_relative_score_is_the_ratio_of_means_or_none(student, teacher, expected):
    assert relative_score(student, teacher) == expected


@pytest.mark.parametrize(
    ("student", "teacher", "random", "expected"),
    [
        ([20.0, 10.0], [20.0], [-20.0, -20.0], 0.875),  # 35 of 40 points above random play
        ([20.0], [20.0], [-20.0], 1.0),
        ([-20.0], [20.0], [-20.0], 0.0),
        ([-30.0], [20.0], [-20.0], -0.25),  # worse than random play
        ([25.0], [20.0], [-20.0], 1.125),
        ([1.0], [0.0], [0.0], None),
        ([1.0], [-1.0], [0.0], None),
        ([], [1.0], [0.0], None),
        ([1.0], [], [0.0], None),
        ([1.0], [1.0], [], None),
    ],
)
def test_retention_is_measured_from_random_play_or_none(student, teacher, random, expected):
    assert retention(student, teacher, random) == expected


@pytest.mark.parametrize("game", REFERENCE_SCORES)
def test_normalised_score_is_0_for_random_and_1_for_human_play(game):
    assert normalised_score(REFERENCE_SCORES[game].random, game) == 0
    assert normalised_score(REFERENCE_SCORES[game].human, game) == 1
    assert normalised_score(REFERENCE_SCORES[game].nature_dqn, game, of="nature_dqn") == 1


def test_normalised_score_matches_hand_worked_values():
    assert normalised_score(16.1, "breakout") == pytest.approx(0.5)  # 14.4 of 28.8 points
    assert normalised_score(18.9, "pong") == pytest.approx(39.6 / 35.3)


def test_normalised_score_is_none_without_reference_or_without_a_finite_score():
    assert normalised_score(1.0, "asteroids") is None
    assert normalised_score(float("nan"), "pong") is None


def test_a_teacher_is_weak_below_half_of_nature_dqns_skill():
    half = (REFERENCE_SCORES["qbert"].nature_dqn + REFERENCE_SCORES["qbert"].random) / 2
    assert is_weak(half - 1, "qbert")
    assert not is_weak(half + 1, "qbert")
    assert not is_weak(-1e9, "asteroids")  # nobody knows


def test_reference_scores_are_those_of_the_papers_ten_games():
    table = {game: (scores.nature_dqn, scores.human, scores.random) for game, scores in REFERENCE_SCORES.items()}
    assert table == {
        "beam_rider": (6846, 16926.5, 363.9),
        "breakout": (401.2, 30.5, 1.7),
        "enduro": (301.8, 860.5, 0.0),
        "freeway": (30.3, 29.6, 0.0),
        "ms_pacman": (2311, 6951.6, 307.3),
        "pong": (18.9, 14.6, -20.7),
        "qbert": (10596, 13455, 163.9),
        "riverraid": (8316, 17118, 1338.5),
        "seaquest": (5286, 42054.7, 68.4),
        "space_invaders": (1976, 1668.7, 148),
    }


def test_reference_scores_cannot_be_changed():
    with pytest.raises(TypeError):
        REFERENCE_SCORES["pong"] = None
