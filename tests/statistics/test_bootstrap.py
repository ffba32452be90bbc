"""Bootstrap intervals: do they cover, are they repeatable, and do they own up?"""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from rldistill.errors import NumericalError
from rldistill.statistics import (
    Interval,
    bootstrap,
    bootstrap_interval,
    iqm,
    lower_bound,
    mean,
    median,
    sample_interval,
)


def generator(seed=0):
    return np.random.default_rng(seed)


# One sample


@pytest.mark.parametrize("statistic", [mean, iqm])
def test_interval_covers_the_truth_about_as_often_as_it_says(statistic):
    rng = generator()
    hits = 0
    for _ in range(300):
        interval = bootstrap_interval(rng.normal(3.0, 2.0, size=30), statistic, rng=rng, num_resamples=500)
        hits += interval.low <= 3.0 <= interval.high
    # Percentile intervals of 30 values cover a little less than 95 %; ±4 standard errors of 300 trials.
    assert 0.89 <= hits / 300 <= 0.98


def test_interval_of_the_mean_agrees_with_scipys():
    values = generator(1).exponential(size=40)
    interval = bootstrap_interval(values, mean, rng=generator(2))
    reference = scipy.stats.bootstrap((values,), np.mean, method="percentile", rng=generator(3)).confidence_interval
    assert interval.low == pytest.approx(reference.low, abs=0.03)
    assert interval.high == pytest.approx(reference.high, abs=0.03)


@pytest.mark.parametrize("statistic", [mean, iqm])
def test_same_seed_gives_the_same_interval_and_another_seed_another(statistic):
    values = generator().normal(size=30)
    first, again, other = (bootstrap_interval(values, statistic, rng=generator(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_numpys_global_generator_plays_no_part():
    values = generator().normal(size=30)
    np.random.seed(0)
    state = np.random.get_state()[1].tolist()
    bootstrap_interval(values, mean, rng=generator())
    assert np.random.get_state()[1].tolist() == state


def test_interval_moves_with_the_values():
    values = generator().normal(size=20)
    interval = bootstrap_interval(values, mean, rng=generator(1))
    moved = bootstrap_interval(10 + 2 * values, mean, rng=generator(1))
    assert (moved.low, moved.high) == pytest.approx((10 + 2 * interval.low, 10 + 2 * interval.high))


@pytest.mark.parametrize("statistic", [mean, median, iqm])
def test_constant_values_give_a_degenerate_interval(statistic):
    assert bootstrap_interval([21.0] * 30, statistic, rng=generator()) == Interval(21.0, 21.0, degenerate=True)


def test_single_outlier_that_the_iqm_always_cuts_is_called_degenerate_too():
    interval = bootstrap_interval([21.0] * 29 + [0.0], iqm, rng=generator())
    assert interval == Interval(21.0, 21.0, degenerate=True)


def test_interval_of_values_that_vary_is_not_degenerate():
    assert not bootstrap_interval([20.0, 21.0] * 15, mean, rng=generator()).degenerate


@pytest.mark.parametrize("size", [0, 1, 4])
def test_fewer_than_five_values_have_no_interval_not_even_constant_ones(size):
    assert bootstrap_interval([1.0] * size, mean, rng=generator()) is None
    assert bootstrap_interval(np.arange(size), mean, rng=generator()) is None


def test_five_values_have_an_interval():
    assert bootstrap_interval([1.0, 2.0, 3.0, 4.0, 5.0], mean, rng=generator()) is not None


def test_memory_stays_bounded_however_many_values_there_are(monkeypatch):
    largest = 0

    def spy(values):
        nonlocal largest
        largest = max(largest, values.size)
        return mean(values)

    monkeypatch.setattr(bootstrap, "_BLOCK_VALUES", 1000)
    bootstrap_interval(generator().normal(size=30), spy, rng=generator(), num_resamples=101)
    assert largest <= 1000


def test_blocks_do_not_change_which_resamples_are_drawn(monkeypatch):
    values = generator().normal(size=30)
    whole = bootstrap_interval(values, mean, rng=generator(1), num_resamples=500)
    monkeypatch.setattr(bootstrap, "_BLOCK_VALUES", 70)
    assert bootstrap_interval(values, mean, rng=generator(1), num_resamples=500) == whole


def test_interval_goes_into_json_as_plain_numbers():
    interval = bootstrap_interval(np.arange(30), mean, rng=generator())
    assert json.loads(json.dumps(interval.to_list(), allow_nan=False)) == [interval.low, interval.high]


@pytest.mark.parametrize(("low", "high"), [(2.0, 1.0), (float("nan"), 1.0), (-np.inf, 1.0), (0.0, np.inf)])
def test_interval_refuses_ends_that_are_not_finite_and_in_order(low, high):
    with pytest.raises(ValueError, match=rf"^an interval needs finite low <= high, got low {low}, high {high}\.$"):
        Interval(low, high)


def test_settings_out_of_range_are_named():
    with pytest.raises(ValueError, match=r"^num_resamples must be >= 1, got 0\.$"):
        bootstrap_interval(np.arange(30), mean, rng=generator(), num_resamples=0)


def test_score_that_is_not_finite_is_an_error():
    with pytest.raises(NumericalError, match=r"^Statistics failed: got nan as value 2 of 6, expected finite ones\.$"):
        bootstrap_interval([1.0, 2.0, np.nan, 3.0, 4.0, 5.0], mean, rng=generator())


# Samples


def test_undefined_samples_count_against_both_ends_of_an_interval():
    # 101 samples 0.00 … 1.00, of which the tails hold 2.5. Two are undefined: below all others they leave the lower
    # end at the third lowest, 0.02; above all others they push the upper end from 0.98 to the highest, 1.00.
    samples = np.linspace(0.0, 1.0, 101)
    assert sample_interval(samples).to_list() == pytest.approx([0.02, 0.98])
    samples[:2] = -np.inf
    assert sample_interval(samples).to_list() == pytest.approx([0.02, 1.0])
    samples[:3] = -np.inf
    assert sample_interval(samples) is None


@pytest.mark.parametrize(("failures", "expected"), [(0, 0.05), (4, 0.05), (5, 0.05), (6, -np.inf), (50, -np.inf)])
def test_lower_bound_is_minus_infinity_once_failures_exceed_the_allowed_share(failures, expected):
    # 101 samples 0.00 … 1.00, so that the 5 % quantile is the sixth lowest: 0.05 unless it is a failure.
    samples = np.linspace(0.0, 1.0, 101)
    samples[:failures] = -np.inf
    assert lower_bound(generator().permutation(samples)) == pytest.approx(expected)


def test_without_samples_there_is_no_interval():
    assert sample_interval(None) is None


def test_lower_bound_and_interval_match_hand_worked_values():
    samples = np.linspace(0.0, 1.0, 1001)
    assert lower_bound(samples) == pytest.approx(0.05, abs=1e-3)
    assert lower_bound(samples, confidence=0.75) == 0.25
    assert sample_interval(samples).to_list() == pytest.approx([0.025, 0.975])


@pytest.mark.parametrize("confidence", [0, 1.0, 95, float("nan")])
def test_confidence_out_of_range_is_named(confidence):
    with pytest.raises(ValueError, match=rf"^confidence must be in \(0, 1\), got {confidence}\.$"):
        lower_bound(np.zeros(10), confidence=confidence)


def test_statistics_do_not_import_scipy_which_takes_most_of_a_second():
    for path in Path(bootstrap.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "scipy" for name in names), path
