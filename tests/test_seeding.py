"""Every random number comes from a named stream of one seed, and streams know nothing of each other."""

import numpy as np
import pytest
from scipy import stats

from rldistill.seeding import (
    UpdateNumbers,
    episode_generator,
    episode_seed,
    places,
    stream_generator,
    stream_seed,
)

LARGEST_SEED_OF_ALE = 2**31 - 1


def test_streams_are_what_they_were():
    # Other numbers here mean that no recorded seed repeats its run any more.
    assert [episode_seed(0, episode) for episode in range(3)] == [1569588209, 1871207303, 1341641605]
    assert episode_generator(0, 0).integers(1000, size=4).tolist() == [73, 690, 827, 804]
    assert stream_generator(7, "exploration").integers(1000, size=4).tolist() == [260, 800, 808, 114]
    assert stream_seed(7, "weights") == 1947191225
    np.testing.assert_array_equal(
        UpdateNumbers(7, "batch").of(65, 64), stream_generator(7, "batch", 1).random((2, 64))[1]
    )


def test_the_same_name_and_seed_give_the_same_stream():
    first, second = (stream_generator(3, "exploration", 5).random(10) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    "other",
    [
        lambda: stream_generator(4, "exploration", 5),
        lambda: stream_generator(3, "weights", 5),
        lambda: stream_generator(3, "exploration", 6),
        lambda: stream_generator(3, "exploration"),
        lambda: stream_generator(3, "exploration", 5, 0),
    ],
)
def test_another_seed_name_or_index_gives_another_stream(other):
    assert not np.array_equal(stream_generator(3, "exploration", 5).random(10), other().random(10))


def test_drawing_from_one_stream_leaves_the_others():
    others = [("b",), ("a", 1)]
    before = [stream_generator(0, *other).random(5) for other in others]
    stream_generator(0, "a").random(1000)
    for other, expected in zip(others, before, strict=True):
        np.testing.assert_array_equal(stream_generator(0, *other).random(5), expected)


def test_an_episode_knows_nothing_of_the_ones_before_it():
    seeds = [episode_seed(9, episode) for episode in range(100)]
    assert episode_seed(9, 99) == seeds[99]
    assert len(set(seeds)) == 100


def test_environment_seeds_fit_what_ale_takes():
    seeds = [episode_seed(seed, episode) for seed in range(20) for episode in range(100)]
    assert min(seeds) >= 0  # −1 would mean: do not seed
    assert max(seeds) < LARGEST_SEED_OF_ALE
    assert all(type(seed) is int for seed in seeds)


def test_environment_seeds_are_spread_evenly():
    seeds = np.array([episode_seed(0, episode) for episode in range(4000)])
    assert stats.kstest(seeds / LARGEST_SEED_OF_ALE, "uniform").pvalue > 0.01


def test_behaviours_of_neighbouring_episodes_are_unrelated():
    first, second = (episode_generator(0, episode).random(4000) for episode in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.06


def test_large_seeds_are_taken():
    assert stream_seed(2**100, "weights") != stream_seed(2**100 + 1, "weights")


def test_the_numbers_of_an_update_do_not_depend_on_who_asked_before():
    numbers = UpdateNumbers(3, "batch")
    first = {update: numbers.of(update, 5).copy() for update in (200, 3, 64, 63)}
    again = UpdateNumbers(3, "batch")
    for update in sorted(first):
        np.testing.assert_array_equal(again.of(update, 5), first[update])
    assert len({tuple(each) for each in first.values()}) == len(first)
    assert not np.array_equal(UpdateNumbers(4, "batch").of(3, 5), first[3])
    assert not np.array_equal(UpdateNumbers(3, "other").of(3, 5), first[3])


@pytest.mark.parametrize("counts", [(21, 22), (31, 32), (32, 33)])
def test_updates_of_counts_that_take_turns_share_no_number(counts):
    numbers = UpdateNumbers(3, "batch")
    drawn = np.concatenate([numbers.of(update, counts[update % 2]) for update in range(64)])
    assert len(np.unique(drawn)) == len(drawn) == 32 * sum(counts)


def test_numbers_choose_places_evenly_and_never_beyond_the_last():
    chosen = places(np.random.default_rng(0).random(60_000), 6)
    counts = np.bincount(chosen, minlength=6)
    assert len(counts) == 6 and abs(counts - 10_000).max() < 500  # five standard deviations
    largest = np.nextafter(1.0, 0.0)
    assert all(
        places(np.array([0.0, largest]), count).tolist() == [0, count - 1] for count in (1, 3, 7, 1 << 20, 10**9)
    )
