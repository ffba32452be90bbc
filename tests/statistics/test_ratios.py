"""Ratios of means, on one task and on several: hand-worked values, coverage, and −∞ wherever there is no ratio."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rldistill.errors import NumericalError
from rldistill.statistics import (
    ROLES,
    Interval,
    Stratum,
    geometric_mean,
    geometric_mean_samples,
    lower_bound,
    mean_retention_samples,
    relative_score,
    relative_score_samples,
    retention,
    retention_samples,
    sample_interval,
    share_interval,
)

FUNCTIONS = [mean_retention_samples, geometric_mean_samples]

returns = st.lists(st.floats(-1e3, 1e3), min_size=5, max_size=12)
strata_of_any_sign = st.lists(st.builds(Stratum, returns, returns, returns), min_size=1, max_size=4)


def generator(seed=0):
    return np.random.default_rng(seed)


def stratum(seed=0, student=90.0, teacher=100.0, random=10.0, spread=5.0, size=30, **known):
    rng = generator(seed)
    return Stratum(*(rng.normal(centre, spread, size) for centre in (student, teacher, random)), **known)


def exact(student, teacher, random=0.0):
    """One task of which everything is known."""
    return Stratum([student], [teacher], [random], fixed=ROLES)


# The point values.


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5], 0.5),
        ([0.5, 2.0], 1.0),
        ([1.0, 4.0, 16.0], 4.0),
        ([1.083, 1.083, 1.083], 1.083),
        ([0.0, 2.0], None),  # the limit is 0, whatever the other does: no number to compare
        ([-0.5, -2.0], None),  # not √1
        ([], None),
    ],
)
def test_geometric_mean_matches_hand_worked_values(values, expected):
    assert geometric_mean(values) == (None if expected is None else pytest.approx(expected, rel=1e-14))


def test_geometric_mean_of_large_and_small_ratios_neither_overflows_nor_vanishes():
    assert geometric_mean([1e300, 1e300, 1e-300, 1e-300]) == pytest.approx(1.0)


@settings(deadline=None)
@given(values=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=10))
def test_geometric_mean_is_never_above_the_mean_and_turns_over_with_the_ratios(values):
    result = geometric_mean(values)
    assert min(values) * (1 - 1e-9) <= result <= np.mean(values) * (1 + 1e-9)
    assert geometric_mean([1 / value for value in values]) == pytest.approx(1 / result)


def test_ratio_that_is_not_finite_is_an_error():
    with pytest.raises(NumericalError, match="got nan as value 1 of 2"):
        geometric_mean([1.0, float("nan")])


# Retention on one task.


def test_retention_samples_centre_on_the_point_value():
    task = stratum()
    samples = retention_samples(task, rng=generator())
    assert samples.shape == (10_000,)
    assert samples.mean() == pytest.approx(retention(task.student, task.teacher, task.random), abs=0.002)


def test_retention_samples_match_hand_worked_values_when_all_is_fixed():
    known = Stratum([15.0, 25.0], [30.0], [10.0], fixed=ROLES)
    samples = retention_samples(known, rng=generator(), num_resamples=3)
    assert samples.tolist() == [0.5, 0.5, 0.5]
    assert lower_bound(samples) == 0.5
    assert sample_interval(samples) == Interval(0.5, 0.5, degenerate=True)


def test_each_arm_that_is_resampled_adds_spread_and_a_fixed_one_adds_none():
    spreads = [
        retention_samples(stratum(fixed=fixed), rng=generator()).std()
        for fixed in [ROLES, ("teacher", "random"), ("random",), ()]
    ]
    assert spreads[0] < 1e-12 < 0.005 < spreads[1] < spreads[2] < spreads[3]


def test_spread_of_each_arm_matches_the_delta_method():
    # Of the mean of 30 values with spread 5 it is 5 ÷ √30; the student's enters divided by teacher - random.
    task = stratum(fixed=("teacher", "random"))
    expected = task.student.std() / np.sqrt(30) / (task.teacher.mean() - task.random.mean())
    assert retention_samples(task, rng=generator()).std() == pytest.approx(expected, rel=0.03)


def test_same_seed_gives_the_same_retention_samples():
    first, again, other = (retention_samples(stratum(), rng=generator(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_lengths_may_differ_unless_the_episodes_are_the_same():
    task = stratum()
    unequal = (task.student[:10], task.teacher[:20], task.random)
    assert retention_samples(Stratum(*unequal), rng=generator()) is not None
    with pytest.raises(ValueError, match=r"the same episodes, got \{'student': 10, 'teacher': 20\}\.$"):
        retention_samples(Stratum(*unequal, together=("student", "teacher")), rng=generator())


@pytest.mark.parametrize("role", ROLES)
def test_arm_of_fewer_than_five_episodes_gives_no_samples_unless_it_is_fixed(role):
    short = {name: getattr(stratum(), name)[: 4 if name == role else 30] for name in ROLES}
    assert retention_samples(Stratum(**short), rng=generator()) is None
    assert retention_samples(Stratum(**short, fixed=(role,)), rng=generator()) is not None


def test_arm_without_episodes_gives_no_samples_even_when_it_is_fixed():
    task = stratum()
    assert retention_samples(Stratum(task.student, task.teacher, [], fixed=("random",)), rng=generator()) is None


@pytest.mark.parametrize("together", [(), ROLES])
def test_teacher_no_better_than_random_play_fails_every_bound_however_good_the_student(together):
    samples = retention_samples(stratum(student=90.0, teacher=10.0, random=50.0, together=together), rng=generator())
    assert np.isneginf(samples).all()
    assert lower_bound(samples) == -np.inf
    assert sample_interval(samples) is None


def test_student_worse_than_a_teacher_worse_than_random_play_is_not_flattered():
    # (5 - 50) ÷ (10 - 50) would read 112 %.
    samples = retention_samples(stratum(student=5.0, teacher=10.0, random=50.0), rng=generator())
    assert lower_bound(samples) == -np.inf


@pytest.mark.parametrize("together", [(), ROLES])
def test_teacher_barely_better_than_random_play_leaves_doubt(together):
    samples = retention_samples(stratum(student=100.0, teacher=11.0, together=together), rng=generator())
    assert 0.05 < np.isneginf(samples).mean() < 0.5
    assert lower_bound(samples) == -np.inf
    assert sample_interval(samples) is None
    assert not np.isnan(samples).any()


# The same episodes.


def same_episodes(seed, num_episodes=30, together=ROLES):
    """Episodes that are worth more or less to all: retention 80 ÷ 90, and nearly all of the spread is shared."""
    rng = generator(seed)
    worth = rng.normal(0, 20, num_episodes)
    arms = (worth + rng.normal(centre, 5, num_episodes) for centre in (90.0, 100.0, 10.0))
    return Stratum(*arms, together=together)


def test_students_that_match_their_teacher_episode_by_episode_keep_everything_without_doubt():
    teacher = generator().normal(100, 30, 40)
    samples = retention_samples(Stratum(teacher, teacher, np.zeros(40), together=ROLES), rng=generator())
    assert samples.min() == samples.max() == 1


def test_what_episodes_share_cancels_out():
    together, apart = (retention_samples(same_episodes(0, together=roles), rng=generator()) for roles in (ROLES, ()))
    assert together.mean() == pytest.approx(apart.mean(), abs=0.01)
    # Apart, each mean has a spread of √(20² + 5²); together, what differs between them has one of about 5.
    assert together.std() < 0.4 * apart.std()


def test_those_that_met_other_episodes_are_resampled_by_themselves():
    teacher = generator().normal(100, 30, 40)
    samples = retention_samples(
        Stratum(teacher, teacher, stratum().random, together=("student", "teacher")), rng=generator()
    )
    assert samples.min() == samples.max() == 1
    samples = retention_samples(Stratum(teacher, teacher, teacher[::-1] - 90, together=ROLES[1:]), rng=generator())
    assert samples.std() > 0.02


@pytest.mark.parametrize("task_of", [stratum, same_episodes])
def test_lower_bound_lies_below_the_truth_about_as_often_as_it_says(task_of):
    bounds = [
        lower_bound(retention_samples(task_of(seed), rng=generator(1000 + seed), num_resamples=300))
        for seed in range(300)
    ]
    assert 0.89 <= np.mean(np.array(bounds) <= 80 / 90) <= 0.99


# Shares of states.


def test_the_interval_of_a_share_takes_the_states_of_an_episode_for_one_draw():
    # Half of the episodes agree throughout: 20 draws of ½, however many states each has.
    for num_states in (1.0, 1000.0):
        counts = np.full(20, num_states)
        interval = share_interval(counts * (np.arange(20) < 10), counts, rng=generator())
        assert interval.to_list() == pytest.approx([0.3, 0.7], abs=0.051)


def test_the_interval_of_a_share_has_no_width_where_all_episodes_are_alike_and_needs_five():
    counts = np.array([10.0, 20.0, 30.0, 40.0, 50.0])
    assert share_interval(counts / 2, counts, rng=generator()) == Interval(0.5, 0.5, degenerate=True)
    assert share_interval(counts[:4], counts[:4], rng=generator()) is None


# Samples of the relative score.


def test_relative_score_samples_centre_on_the_point_value_and_are_repeatable():
    task = stratum()
    first, again, other = (relative_score_samples(task, rng=generator(n)) for n in (1, 1, 2))
    assert first.shape == (10_000,)
    assert first.mean() == pytest.approx(relative_score(task.student, task.teacher), abs=0.002)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_relative_score_samples_are_undefined_where_the_teachers_mean_is_not_positive():
    # A resample of 1 and −1s has a positive mean only with more than half of ones.
    samples = relative_score_samples(Stratum([4.0] * 5, [1.0, 1.0, 1.0, -1.0, -1.0], []), rng=generator())
    assert 0.2 < np.isneginf(samples).mean() < 0.45
    assert set(np.round(samples[np.isfinite(samples)], 9)) == {4.0, round(20 / 3, 9), 20.0}


def test_a_ratio_that_overflows_is_undefined_as_its_point_value_is():
    assert relative_score([1.0], [5e-324]) is None
    tiny = Stratum([1.0] * 5, [5e-324] * 5, [0.0] * 5)
    assert np.isneginf(relative_score_samples(tiny, rng=generator())).all()
    assert np.isneginf(retention_samples(tiny, rng=generator())).all()


@pytest.mark.parametrize(("student", "teacher"), [([1.0] * 4, [2.0] * 5), ([1.0] * 5, [2.0] * 4), ([], [2.0] * 5)])
def test_relative_score_of_too_few_episodes_has_no_samples(student, teacher):
    assert relative_score_samples(Stratum(student, teacher, []), rng=generator()) is None


def test_relative_score_of_what_is_known_exactly_has_no_spread():
    samples = relative_score_samples(exact(6.0, 12.0), rng=generator(), num_resamples=3)
    assert samples.tolist() == [0.5, 0.5, 0.5]


# Samples over tasks.


def test_samples_match_hand_worked_values_when_all_is_known():
    strata = [exact(30.0, 40.0, random=20.0), exact(8.0, 4.0)]
    # Retention 10 ÷ 20 and 8 ÷ 4; relative scores ¾ and 2.
    assert mean_retention_samples(strata, rng=generator(), num_resamples=2).tolist() == [1.25, 1.25]
    assert geometric_mean_samples(strata, rng=generator(), num_resamples=2) == pytest.approx([1.5**0.5] * 2)


def test_one_task_is_the_samples_of_that_task():
    task = stratum()
    alone = retention_samples(task, rng=generator(3))
    assert np.array_equal(mean_retention_samples([task], rng=generator(3)), alone)
    alone = relative_score_samples(task, rng=generator(3))
    np.testing.assert_allclose(geometric_mean_samples([task], rng=generator(3)), alone, rtol=1e-14)


@settings(deadline=None, max_examples=50)
@given(values=st.tuples(returns, returns, returns), seed=st.integers(0, 2**32))
def test_one_task_of_any_scores_is_the_samples_of_that_task(values, seed):
    task = Stratum(*values)
    samples = mean_retention_samples([task], rng=generator(seed), num_resamples=50)
    assert np.array_equal(samples, retention_samples(task, rng=generator(seed), num_resamples=50))
    samples = geometric_mean_samples([task], rng=generator(seed), num_resamples=50)
    alone = relative_score_samples(task, rng=generator(seed), num_resamples=50)
    np.testing.assert_allclose(samples, np.where(alone > 0, alone, -np.inf), rtol=1e-12)


@settings(deadline=None, max_examples=50)
@given(strata=strata_of_any_sign)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_samples_of_any_scores_are_finite_or_minus_infinity_and_their_bounds_are_in_order(function, strata):
    samples = function(strata, rng=generator(), num_resamples=100)
    assert samples.shape == (100,)
    assert (np.isfinite(samples) | np.isneginf(samples)).all()
    interval = sample_interval(samples)
    assert interval is None or interval.low <= lower_bound(samples) <= interval.high


@pytest.mark.parametrize("function", FUNCTIONS)
def test_tasks_are_resampled_independently(function):
    # The mean of K equal tasks has a spread √K times smaller than that of one; drawn together, it would not shrink.
    one, four = (function([stratum()] * count, rng=generator()) for count in (1, 4))
    assert four.mean() == pytest.approx(one.mean(), abs=0.002)
    assert four.std() == pytest.approx(one.std() / 2, rel=0.05)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_one_task_without_a_ratio_leaves_the_aggregate_undefined_however_good_the_others(function):
    hopeless = stratum(1, student=90.0, teacher=-100.0, random=-50.0)
    samples = function([stratum(), hopeless], rng=generator())
    assert np.isneginf(samples).all()
    assert lower_bound(samples) == -np.inf
    assert sample_interval(samples) is None


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_teacher_in_doubt_shows_as_doubt(function):
    samples = function([stratum(), stratum(1, student=5.0, teacher=1.0, random=0.0)], rng=generator())
    assert 0.05 < np.isneginf(samples).mean() < 0.5
    assert sample_interval(samples) is None


def test_a_student_below_zero_has_retention_and_no_geometric_mean():
    strata = [stratum(), stratum(1, student=-15.0, teacher=10.0, random=-20.0, spread=0.5)]
    assert np.isneginf(geometric_mean_samples(strata, rng=generator())).all()
    points = [retention(task.student, task.teacher, task.random) for task in strata]
    assert mean_retention_samples(strata, rng=generator()).mean() == pytest.approx(np.mean(points), abs=0.002)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_too_few_episodes_in_one_task_give_no_samples_unless_they_are_all_there_are(function):
    assert function([stratum(), stratum(size=4)], rng=generator()) is None
    assert function([stratum(), stratum(size=4, fixed=ROLES)], rng=generator()) is not None
    assert function([], rng=generator()) is None


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_task_that_is_known_exactly_adds_no_spread(function):
    both = function([stratum(), stratum(1)], rng=generator())
    half_known = function([stratum(), stratum(1, fixed=ROLES)], rng=generator())
    assert 0 < half_known.std() < both.std()
    interval = sample_interval(function([exact(6, 10)] * 3, rng=generator()))
    assert interval.degenerate
    assert interval.to_list() == pytest.approx([0.6, 0.6])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_interval_covers_the_truth_about_as_often_as_it_says(function):
    truth = {mean_retention_samples: (8 / 9 + 4 / 9) / 2, geometric_mean_samples: (0.9 * 0.5) ** 0.5}[function]
    hits = 0
    for seed in range(200):
        strata = [stratum(2 * seed), stratum(2 * seed + 1, student=50.0)]
        interval = sample_interval(function(strata, rng=generator(1000 + seed), num_resamples=300))
        hits += interval.low <= truth <= interval.high
    assert 0.89 <= hits / 200 <= 0.99


@pytest.mark.parametrize("function", FUNCTIONS)
def test_wrong_settings_are_named(function):
    with pytest.raises(ValueError, match=r"^num_resamples must be >= 1, got 0\.$"):
        function([stratum()], rng=generator(), num_resamples=0)


@pytest.mark.parametrize("name", ["fixed", "together"])
def test_an_unknown_role_is_named(name):
    with pytest.raises(ValueError, match=rf"^{name} must name student, teacher or random, got \['pupil'\]\.$"):
        stratum(**{name: ("pupil",)})


# Several training seeds: blocks.


def test_blocks_are_resampled_each_by_itself_and_averaged():
    # Two students that differ by far, each without any spread: other episodes of these two move nothing.
    two = {"student": [10.0] * 6 + [90.0] * 6, "teacher": [100.0] * 12, "random": [0.0] * 12, "together": ROLES}
    assert np.ptp(retention_samples(Stratum(**two), rng=generator())) > 0.2
    np.testing.assert_allclose(retention_samples(Stratum(**two, num_blocks=2), rng=generator()), 0.5)


def test_the_spread_of_blocks_is_that_within_them():
    rng = generator(3)
    scores = np.concatenate([rng.normal(centre, 4.0, 50) for centre in (20.0, 80.0)])
    task = Stratum(scores, [100.0], [0.0], fixed=("teacher", "random"), num_blocks=2)
    expected = np.hypot(*(block.std() / 50**0.5 for block in np.split(scores, 2))) / 2 / 100
    assert retention_samples(task, rng=generator()).std() == pytest.approx(expected, rel=0.05)


def test_blocks_need_equal_lengths_and_five_values_each():
    with pytest.raises(ValueError, match="num_blocks must divide the numbers of values, got 2"):
        Stratum([1.0] * 7, [1.0] * 8, [0.0] * 8, num_blocks=2)
    with pytest.raises(ValueError, match="num_blocks must divide the numbers of values, got 0"):
        Stratum([1.0], [1.0], [0.0], num_blocks=0)
    values = [[1.0] * 8, [2.0] * 8, [0.0] * 8]
    assert retention_samples(Stratum(*values, num_blocks=2), rng=generator()) is None
    assert retention_samples(Stratum(*values), rng=generator()) is not None
