"""What a stored dataset gives to the loop, and on what a student is measured."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rldistill.data import Dataset, split_episodes
from rldistill.data.sampler import UniformSampler
from rldistill.distillation import Batches, StoredSource
from rldistill.distillation.sources import held_out_windows, windows_of
from rldistill.schedules import TaskSchedule
from rldistill.seeding import stream_generator
from tests.data.made_up import write_dataset
from tests.kit.cart_pole import hand_made_teacher


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    path = tmp_path_factory.mktemp("data") / "d"
    write_dataset(path)
    return Dataset.open(path)


def no_loss(student, target, progress):
    """Sources that only draw rows have no use for it."""
    raise AssertionError


def source_of(dataset, *, seed=2, head=0, held_out_fraction=0.3) -> StoredSource:
    source = StoredSource(dataset, seed=seed, held_out_fraction=held_out_fraction)
    source.teach(head, hand_made_teacher(), no_loss)
    return source


def test_measuring_the_inputs_leaves_the_share_of_rows_that_a_source_gives(dataset, monkeypatch):
    shares = []

    def sampler(*arguments, rows_per_update, **others):
        shares.append(rows_per_update)
        return UniformSampler(*arguments, rows_per_update=rows_per_update, **others)

    monkeypatch.setattr("rldistill.distillation.stored.UniformSampler", sampler)
    monkeypatch.setattr("rldistill.distillation.stored.measure_inputs", lambda student, window: None)
    source = StoredSource(dataset, seed=2, held_out_fraction=0.3)
    for measure in (False, True):
        source.teach(0, hand_made_teacher(), no_loss, num_rows=32.0, measure=measure)
    assert shares == [32.0, 32.0]


def one_task(dataset) -> Batches:
    return Batches([source_of(dataset)], TaskSchedule("in_turn", (1.0,)), batch_size=8)


def test_batches_hold_what_is_stored_and_say_where_it_comes_from(dataset):
    source = source_of(dataset, seed=1, head=3)
    train = split_episodes(dataset, 0.3, seed=1).train
    for (batch,) in Batches([source], TaskSchedule("in_turn", (1.0,)), batch_size=6).of_updates(0, 3):
        assert batch.head == 3
        observations, targets = batch.observations["observation"], batch.targets["q_values"]
        assert (observations.shape, observations.dtype) == ((1, 6, 4, 6, 5), torch.uint8)
        assert (targets.shape, targets.dtype) == ((1, 6, 3), torch.float32)
        shown = [int(text) for text in batch.origin.removeprefix("steps ").split(", …")[0].split(", ")]
        assert batch.origin == f"steps {', '.join(map(str, shown))}, … of {dataset.path}"
        assert set(shown) <= set(train.tolist())
        np.testing.assert_array_equal(observations[0, :5].numpy(), dataset.observations(shown))
        np.testing.assert_array_equal(targets[0, :5].numpy(), dataset.field("q_values")[shown])
        assert batch.is_real is None


def test_the_batch_of_an_update_does_not_depend_on_where_one_begins(dataset):
    def batches(first_update, num_updates):
        return [batch.origin for (batch,) in one_task(dataset).of_updates(first_update, num_updates)]

    assert batches(0, 9)[5:] == batches(5, 9)
    assert len(set(batches(0, 9))) == 9


def test_leaving_early_leaves_no_thread_behind(dataset):
    before = threading.active_count()
    batches = one_task(dataset).of_updates(0, 1000)
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_the_held_out_sample_is_drawn_from_held_out_episodes_alone(dataset):
    split = split_episodes(dataset, 0.3, seed=0)
    held_out = source_of(dataset, seed=0).held_out
    assert held_out.num_steps == held_out.batch.num_steps == len(split.held_out)
    actions = dataset.field("q_values")[split.held_out].argmax(axis=1)
    assert held_out.constant.value == np.bincount(actions).max() / len(actions)
    targets = held_out.batch.target_rows("q_values").numpy()
    np.testing.assert_array_equal(targets, dataset.field("q_values")[split.held_out])


def test_a_large_held_out_split_is_sampled_without_repeats_and_the_same_every_time(dataset, monkeypatch):
    monkeypatch.setattr("rldistill.distillation.sources._MAX_HELD_OUT_STEPS", 30)
    split = split_episodes(dataset, 0.3, seed=0)
    samples = [source_of(dataset, seed=0, head=head).held_out for head in (0, 0, 1)]
    assert [sample.batch.num_steps for sample in samples] == [30, 30, 30]
    assert samples[0].num_steps == len(split.held_out) > 30
    assert torch.equal(samples[0].batch.target_rows("q_values"), samples[1].batch.target_rows("q_values"))
    assert not torch.equal(samples[0].batch.target_rows("q_values"), samples[2].batch.target_rows("q_values"))
    assert len(np.unique(samples[0].batch.target_rows("q_values").numpy(), axis=0)) == 30


# Several tasks.


def two_tasks(dataset, order="in_turn", weights=(1.0, 1.0)) -> Batches:
    sources = [source_of(dataset, head=head) for head in (0, 1)]
    return Batches(sources, TaskSchedule(order, weights, seed=4), batch_size=9)


def shapes(source, num_updates=6):
    return [[(part.head, part.num_steps) for part in batch] for batch in source.of_updates(0, num_updates)]


def test_in_turn_each_batch_is_one_tasks(dataset):
    assert shapes(two_tasks(dataset)) == [[(0, 9)], [(1, 9)]] * 3


def test_a_mixed_batch_has_rows_of_every_task(dataset):
    assert [[head for head, _ in parts] for parts in shapes(two_tasks(dataset, "mixed"))] == [[0, 1]] * 6
    assert all(sum(rows for _, rows in parts) == 9 for parts in shapes(two_tasks(dataset, "mixed")))


@pytest.mark.parametrize("weights", [(3.0, 1.0), (5.0, 3.0)])
def test_tasks_share_windows_by_weight_though_a_batch_has_few(weights):
    drawn = {0: 0, 1: 0}

    def source(head):
        def draw(update, num_rows):
            drawn[head] += windows_of(num_rows, 16)

        return SimpleNamespace(draw=draw)

    # 24 rows of the first task are 1.5 windows, which rounding would make 2 each time.
    batches = Batches([source(0), source(1)], TaskSchedule("mixed", weights), batch_size=32, window_length=16)
    for update in range(1000):
        batches.batch(update)
    assert sum(drawn.values()) == 2 * 1000
    assert drawn[0] / 2000 == pytest.approx(weights[0] / sum(weights), abs=0.005)


def test_a_random_batch_is_one_tasks_and_follows_from_the_update(dataset):
    parts = shapes(two_tasks(dataset, "random", (3.0, 1.0)), 40)
    assert parts == shapes(two_tasks(dataset, "random", (3.0, 1.0)), 40)
    heads = [head for ((head, rows),) in parts if rows == 9]
    assert len(heads) == 40
    assert 20 < heads.count(0) < 40


def test_tasks_with_equal_data_draw_different_rows(dataset):
    (first,), (second,) = list(two_tasks(dataset).of_updates(0, 2))
    assert first.origin != second.origin
    first, second = two_tasks(dataset, "mixed").batch(0)
    assert first.origin != second.origin


def test_a_student_with_a_memory_is_measured_on_held_out_episodes(tmp_path):
    write_dataset(tmp_path / "d")
    dataset = Dataset.open(tmp_path / "d")
    source = StoredSource(dataset, seed=0, held_out_fraction=0.3, window_length=4, burn_in=2)
    source.teach(0, SimpleNamespace(initial_state=lambda num_envs: ()), None)
    held_out = split_episodes(dataset, 0.3, seed=0).held_out
    measured = source.held_out.batch.target_rows("q_values").numpy()
    assert len(measured) == len(held_out)
    assert {row.tobytes() for row in measured} == {row.tobytes() for row in dataset.field("q_values")[held_out]}


def test_held_out_windows_hold_no_more_steps_than_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("rldistill.distillation.sources._MAX_HELD_OUT_STEPS", 30)
    write_dataset(tmp_path / "d")
    store = Dataset.open(tmp_path / "d").store
    steps = held_out_windows(store, np.arange(store.num_steps), seed=0, window_length=4, burn_in=2)
    assert steps.shape == (6, 7) and len(set(steps[2])) == 7


@pytest.mark.parametrize("limit", [5, 4096])
def test_held_out_single_steps_are_a_sorted_sample_of_their_own_stream(dataset, monkeypatch, limit):
    monkeypatch.setattr("rldistill.distillation.sources._MAX_HELD_OUT_STEPS", limit)
    indices = np.arange(dataset.store.num_steps)[1::2]
    steps = held_out_windows(dataset.store, indices, seed=7, window_length=1, burn_in=0)
    rng = stream_generator(7, "held-out sample")
    expected = np.sort(rng.choice(indices, size=min(limit, len(indices)), replace=False))
    np.testing.assert_array_equal(steps, expected[None])
    assert steps.dtype == np.int64
