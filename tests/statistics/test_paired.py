"""Retention on shared episodes."""

import numpy as np
import pytest

from rldistill.statistics import retention_samples
from rldistill.statistics.paired import paired_retention_samples


def rng():
    return np.random.default_rng(0)


def test_students_that_match_their_teacher_episode_by_episode_keep_everything_without_doubt():
    teacher = rng().normal(100, 30, 40)
    samples = paired_retention_samples(teacher, teacher, np.zeros(40), rng=rng())
    assert samples.min() == samples.max() == 1


def test_what_episodes_share_makes_the_interval_narrower():
    draws = rng()
    worth, random = draws.normal(100, 30, 50), draws.normal(0, 5, 50)
    student, teacher = worth + draws.normal(0, 5, 50), worth + draws.normal(0, 5, 50)
    paired = paired_retention_samples(student, teacher, random, rng=rng())
    apart = retention_samples(student, teacher, random, rng=rng())
    assert np.std(paired) < 0.5 * np.std(apart)


def test_a_teacher_that_may_be_no_better_than_random_play_counts_against_every_bound():
    values = np.array([1.0, -1.0] * 10)
    samples = paired_retention_samples(values, values, np.zeros(20), rng=rng())
    assert np.isneginf(samples).any()


def test_too_few_episodes_give_none_and_unequal_ones_are_refused():
    assert paired_retention_samples([1.0] * 4, [1.0] * 4, [0.0] * 4, rng=rng()) is None
    with pytest.raises(ValueError, match="same shape"):
        paired_retention_samples([1.0] * 5, [1.0] * 6, [0.0] * 5, rng=rng())
