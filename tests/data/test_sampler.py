import contextlib
import threading
from dataclasses import dataclass

import numpy as np
import pytest

from rldistill.data import Dataset, UniformSampler, prefetch, split_episodes
from rldistill.errors import DatasetError, UsageError
from rldistill.seeding import stream_generator
from tests.data.made_up import write_dataset


def prefetch_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("rldistill-prefetch")]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("sampler") / "d"
    write_dataset(path, lengths=(40, 25, 60, 1, 30, 44, 9, 70, 38, 51))
    return Dataset.open(path)


@pytest.fixture
def sampler(dataset):
    return UniformSampler(dataset.store, np.arange(dataset.num_steps), seed=3)


@dataclass
class Sixteen:
    """A source of batches of 16 steps."""

    sampler: UniformSampler

    def batch(self, update: int):
        return self.sampler.draw(update, 16)


def test_a_split_shares_no_episode_and_loses_no_step(dataset):
    split = split_episodes(dataset, 0.2, seed=0)
    held_out = set(dataset.episodes[split.held_out])
    assert not set(dataset.episodes[split.train]) & held_out
    assert sorted([*split.train, *split.held_out]) == list(range(dataset.num_steps))
    assert len(held_out) >= 5
    assert len(split.held_out) >= 0.2 * dataset.num_steps


def test_a_split_holds_out_no_more_episodes_than_it_must(dataset):
    split = split_episodes(dataset, 0.1, seed=0)
    assert len(set(dataset.episodes[split.held_out])) == 5


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.6])
def test_a_split_holds_out_the_fraction_of_steps(dataset, fraction):
    for seed in range(20):
        split = split_episodes(dataset, fraction, seed)
        assert len(split.held_out) >= fraction * dataset.num_steps
        assert len(split.train)


def test_a_split_follows_from_its_seed_alone(dataset):
    splits = [split_episodes(dataset, 0.2, seed).held_out.tolist() for seed in (0, 0, 1, 2, 3)]
    assert splits[0] == splits[1]
    assert len({tuple(split) for split in splits}) > 1


@pytest.mark.parametrize("fraction", [0.0, 0.05, 1.0, -1, float("nan")])
def test_a_fraction_out_of_range_is_wrong_usage(dataset, fraction):
    with pytest.raises(UsageError, match=r"^held_out_fraction must be at least 0\.1 and less than 1, got"):
        split_episodes(dataset, fraction, seed=0)


def test_a_fraction_that_leaves_nothing_to_train_on_is_named_with_what_helps(tmp_path):
    write_dataset(tmp_path / "d", lengths=(20,) * 7)
    with pytest.raises(DatasetError) as caught:
        split_episodes(Dataset.open(tmp_path / "d"), 0.999, seed=0)
    assert str(caught.value) == (
        f"Dataset {tmp_path / 'd'}: holding 0.999 of its 140 steps out, in whole episodes, leaves none of its 7 "
        "episodes to train on. Their lengths differ too much, or the fraction is too large. Collect more steps, or "
        "lower --held-out-fraction, to 0.1 at the least."
    )


def test_lengths_that_leave_nothing_to_train_on_are_named_where_the_fraction_cannot_be_lower(tmp_path):
    write_dataset(tmp_path / "d", lengths=(1000, *(1,) * 6))
    # Where the long episode is the last that is drawn, it is needed for a tenth of the steps, and nothing is left.
    seed = next(seed for seed in range(100) if stream_generator(seed, "held_out").permutation(7)[-1] == 0)
    with pytest.raises(DatasetError) as caught:
        split_episodes(Dataset.open(tmp_path / "d"), 0.1, seed=seed)
    assert str(caught.value) == (
        f"Dataset {tmp_path / 'd'}: holding 0.1 of its 1006 steps out, in whole episodes, leaves none of its 7 "
        "episodes to train on. Their lengths differ too much. Collect more steps."
    )


def test_too_few_episodes_to_hold_any_out(tmp_path):
    write_dataset(tmp_path / "d", lengths=(20, 20, 20, 20, 20))
    with pytest.raises(DatasetError) as caught:
        split_episodes(Dataset.open(tmp_path / "d"), 0.1, seed=0)
    assert str(caught.value) == (
        f"Dataset {tmp_path / 'd'} holds 5 episodes, but 5 are held out to measure the student and at least 1 must be "
        "left to train on. Collect more steps."
    )


def test_a_batch_is_a_function_of_seed_and_update(dataset, sampler):
    later = UniformSampler(dataset.store, np.arange(dataset.num_steps), seed=3)
    np.testing.assert_array_equal(sampler.draw(7, 16), later.draw(7, 16))
    assert sampler.draw(7, 16).tolist() != sampler.draw(8, 16).tolist()
    other = UniformSampler(dataset.store, np.arange(dataset.num_steps), seed=4)
    assert sampler.draw(7, 16).tolist() != other.draw(7, 16).tolist()


def test_only_the_given_steps_are_drawn_and_all_of_them(dataset):
    indices = np.arange(10, 200, 3)
    sampler = UniformSampler(dataset.store, indices, seed=0)
    drawn = np.concatenate([sampler.draw(update, 64) for update in range(60)])
    assert set(drawn.tolist()) == set(indices.tolist())


def test_no_episode_makes_up_more_of_a_batch_than_its_share_of_the_steps_allows(tmp_path):
    """Batches of neighbouring frames would fail: 64 draws from 40 equal episodes, at most 10 of one."""
    write_dataset(tmp_path / "d", lengths=(50,) * 40, steps_per_shard=500)
    dataset = Dataset.open(tmp_path / "d")
    sampler = UniformSampler(dataset.store, np.arange(dataset.num_steps), seed=0)
    for update in range(200):
        assert np.bincount(dataset.episodes[sampler.draw(update, 64)]).max() <= 10


@pytest.mark.parametrize("length", [2, 8, 100])
def test_windows_hold_every_step_once_in_order_and_none_of_another_episode(dataset, length):
    indices = np.flatnonzero(dataset.episodes != 2)
    sampler = UniformSampler(dataset.store, indices, seed=0, window_length=length)
    windows = np.unique(np.concatenate([sampler.windows(update, 64) for update in range(60)], axis=1), axis=1).T
    assert sorted(step for window in windows for step in window if step >= 0) == indices.tolist()
    for window in windows:
        real = window[window >= 0]
        assert (window[len(real) :] == -1).all(), "padding comes last"
        assert len(set(dataset.episodes[real])) == 1
        assert dataset.steps_in_episode[real[0]] % length == 0
        assert (np.diff(dataset.steps_in_episode[real]) == 1).all()
        is_last = dataset.episode_steps(dataset.episodes[real[0]])[-1] == real[-1]
        assert len(real) == length or is_last, "only an episode's end makes a window short"


def test_windows_of_steps_that_may_not_all_be_drawn_begin_anew_after_each_gap(dataset):
    indices = np.array([0, 1, 2, 5, 6, 7, 8, 9])
    sampler = UniformSampler(dataset.store, indices, seed=0, window_length=4)
    windows = np.unique(sampler.windows(0, 200), axis=1).T.tolist()
    assert windows == [[0, 1, 2, -1], [5, 6, 7, -1], [8, 9, -1, -1]]


def test_windows_of_one_step_are_the_steps_that_are_drawn(sampler):
    np.testing.assert_array_equal(sampler.windows(7, 16), sampler.draw(7, 16)[None])


@pytest.mark.parametrize("num_threads", [1, 3])
def test_prefetched_batches_equal_direct_ones_in_order(sampler, num_threads):
    batches = list(prefetch(Sixteen(sampler).batch, 100, 25, depth=3, num_threads=num_threads))
    assert len(batches) == 25
    for update, batch in enumerate(batches, start=100):
        np.testing.assert_array_equal(batch, sampler.draw(update, 16))
    assert not prefetch_threads()


def test_prefetching_fewer_batches_than_its_depth(sampler):
    assert len(list(prefetch(Sixteen(sampler).batch, 0, 2, depth=8))) == 2
    assert not list(prefetch(Sixteen(sampler).batch, 0, 0))


def test_an_error_while_prefetching_reaches_the_consumer_when_its_batch_is_due():
    class Failing:
        def batch(self, update: int) -> int:
            if update == 3:
                raise DatasetError("Shard x is damaged.")
            return update

    batches = prefetch(Failing().batch, 0, 10)
    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DatasetError, match="Shard x is damaged"):
        next(batches)
    assert not prefetch_threads()


def test_leaving_early_ends_the_threads(sampler):
    with pytest.raises(KeyboardInterrupt), contextlib.closing(prefetch(Sixteen(sampler).batch, 0, 10_000)) as batches:
        next(batches)
        assert prefetch_threads()
        raise KeyboardInterrupt
    assert not prefetch_threads()


def test_prefetching_runs_no_further_ahead_than_its_depth():
    started = []

    class Recording:
        def batch(self, update: int) -> int:
            started.append(update)
            return update

    with contextlib.closing(prefetch(Recording().batch, 0, 100, depth=4)) as batches:
        next(batches)
        next(batches)
    assert max(started) <= 1 + 4


def test_burn_in_is_what_came_before_in_the_same_episode(tmp_path):
    write_dataset(tmp_path / "d", lengths=(9, 7, 8), steps_per_shard=5)
    dataset = Dataset.open(tmp_path / "d")
    sampler = UniformSampler(dataset.store, np.arange(dataset.num_steps), seed=0, window_length=2, burn_in=3)
    for window in sampler.from_starts(sampler.starts).T:
        own, place = dataset.episode_steps(dataset.episodes[window[3]]).tolist(), dataset.steps_in_episode[window[3]]
        assert window[:3].tolist() == ([-1] * 3 + own[:place])[-3:]
