"""Observations that do not fit into memory decoded are drawn from pools of blocks, each decoded once."""

import numpy as np
import pytest

from rldistill.data import Dataset, UniformSampler
from rldistill.data.pools import Pools
from tests.data.made_up import make_provenance, write_dataset

NUM_STEPS, BATCH = 2_000, 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pools") / "d"
    provenance = make_provenance(frame_stack=1, vector=5)
    write_dataset(path, provenance, lengths=(100,) * (NUM_STEPS // 100), steps_per_shard=NUM_STEPS)
    return path


@pytest.fixture
def store(folder, monkeypatch):
    """A store of which a quarter may be decoded: pools hold an eighth each."""
    dataset = Dataset.open(folder)
    num_bytes = sum(rows.num_decoded_bytes for rows in dataset.store._rows.values())
    monkeypatch.setattr("rldistill.data.store._MOST_BYTES_DECODED", num_bytes // 4)
    return Dataset.open(folder).store


def sampler_of(store, seed=0):
    return UniformSampler(store, np.arange(store.num_steps), seed=seed)


def test_the_pools_of_a_shuffling_hold_each_step_once_and_are_equally_large(store):
    pools = Pools(store, np.arange(NUM_STEPS), seed=0)
    parts = [pools.steps_of(number) for number in range(8)]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(NUM_STEPS))
    assert max(map(len, parts)) - min(map(len, parts)) <= 2 * 32
    assert not np.array_equal(parts[0], pools.steps_of(8))


def test_draws_from_pools_are_as_far_from_uniform_as_chance_makes_them(store):
    num_updates = 40 * NUM_STEPS // BATCH  # forty shufflings: 40 draws of each step are to be expected
    sampler = sampler_of(store)
    drawn = np.concatenate([sampler.draw(update, BATCH) for update in range(num_updates)])
    counts = np.bincount(drawn, minlength=NUM_STEPS)
    # Of 2,000 Poisson counts about 40: a variance of 1.0 of the mean, and none beyond 6 deviations.
    assert 0.85 < counts.var() / counts.mean() < 1.25
    assert np.abs(counts - 40).max() < 6 * np.sqrt(40)


def test_a_batch_is_a_function_of_its_seed_and_update_whatever_was_drawn_before(store):
    one, other = sampler_of(store), sampler_of(store)
    in_order = [one.draw(update, BATCH) for update in range(100)]
    for update in (99, 3, 50):
        np.testing.assert_array_equal(other.draw(update, BATCH), in_order[update])
    assert not np.array_equal(sampler_of(store, seed=1).draw(3, BATCH), in_order[3])


def test_a_pool_is_decoded_once_and_gives_the_observations_of_the_dataset(store, folder, monkeypatch):
    sampler, whole, num_decoded = sampler_of(store), Dataset.open(folder).store, []
    assert not store.is_decoded
    monkeypatch.setattr("rldistill.data.store._MOST_BYTES_DECODED", 10**9)
    assert whole.is_decoded
    for rows in store._rows.values():
        decode = rows._decode
        monkeypatch.setattr(
            rows, "_decode", lambda block, into, decode=decode: num_decoded.append(block) or decode(block, into)
        )
    for update in range(NUM_STEPS // BATCH):
        steps = sampler.draw(update, BATCH)
        np.testing.assert_array_equal(store.observations(steps), whole.observations(steps))
    # Each pool's 32 steps in a row lie in two or three blocks of some episode; one block for each row would be 2,000.
    assert len(num_decoded) < 300


def num_rows_decoded(store, sampler, updates, monkeypatch):
    decoded, keep = [], store.keep_decoded
    monkeypatch.setattr(store, "keep_decoded", lambda steps: decoded.append(len(steps)) or keep(steps))
    for update in updates:
        sampler.draw(update, BATCH)
    return sum(decoded)


@pytest.mark.parametrize("num_tasks", [1, 3])
def test_a_pool_gives_as_many_rows_as_it_has_however_many_tasks_take_turns(store, monkeypatch, num_tasks):
    indices = np.arange(store.num_steps)
    sampler = UniformSampler(store, indices, seed=0, rows_per_update=BATCH / num_tasks)
    num_updates = 2 * NUM_STEPS // BATCH
    turns = range(num_tasks - 1, num_tasks * num_updates, num_tasks)
    decoded = num_rows_decoded(store, sampler, turns, monkeypatch)
    assert 2 * NUM_STEPS - NUM_STEPS / 8 <= decoded <= 2 * NUM_STEPS + NUM_STEPS / 8 + 32


def test_the_rows_of_one_task_are_what_they_were(store):
    alone = UniformSampler(store, np.arange(store.num_steps), seed=0, rows_per_update=float(BATCH))
    for update in (0, 3, 77, 10_001):
        np.testing.assert_array_equal(alone.draw(update, BATCH), sampler_of(store).draw(update, BATCH))


def test_what_is_drawn_from_memory_does_not_change(folder):
    store = Dataset.open(folder).store
    assert store.is_decoded
    assert sampler_of(store)._pools is None
