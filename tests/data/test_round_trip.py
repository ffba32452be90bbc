import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rldistill.data import Dataset, DatasetWriter, FieldSpec, step_fields
from rldistill.errors import DatasetError, NumericalError
from rldistill.tasks import ObservationFingerprint
from rldistill.types import ActionLayout
from tests.data.made_up import Player, check_dataset, make_episode, make_provenance, write_dataset


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 80), min_size=1, max_size=8),
    num_slots=st.integers(1, 4),
    steps_per_shard=st.integers(1, 90),
    frame_stack=st.sampled_from([1, 3, 4]),
    stops=st.lists(st.integers(1, 60), max_size=3),
)
def test_whatever_the_slots_shards_and_restarts_every_step_comes_back_as_the_naive_stack_of_its_frames(
    tmp_path_factory, lengths, num_slots, steps_per_shard, frame_stack, stops
):
    path = tmp_path_factory.mktemp("dataset")
    provenance = make_provenance(frame_stack=frame_stack)
    wanted = dict(enumerate(lengths))
    options = {"target_num_steps": sum(lengths), "steps_per_shard": steps_per_shard}
    writer = DatasetWriter.create(path, provenance, **options)
    for stop in stops:
        with writer:
            player = Player(writer, num_slots=num_slots, lengths=wanted)
            for _ in range(stop):
                player.step()
        dataset = Dataset.open(path)
        assert {entry.episode: entry.num_steps for entry in dataset.manifest.running} == writer.running
        check_dataset(dataset, wanted)
        writer = DatasetWriter.resume(path, provenance, **options)
    with writer:
        player = Player(writer, num_slots=num_slots, lengths=wanted)
        while player.step():
            pass
        writer.finish()
    dataset = Dataset.open(path)
    check_dataset(dataset, wanted)
    assert dataset.num_steps == sum(lengths)
    assert dataset.manifest.num_episodes == len(lengths)
    assert dataset.manifest.is_complete
    assert dataset.manifest.running == ()


def test_the_first_observations_of_an_episode_are_padded_with_zeros_and_see_no_other_episode(tmp_path):
    provenance = write_dataset(tmp_path / "d", lengths=(40, 3, 30), num_slots=1, steps_per_shard=50)
    dataset = Dataset.open(tmp_path / "d")
    rows = make_episode(provenance, 1, 3).rows
    first, second, third = dataset.observations(dataset.episode_steps(1))
    np.testing.assert_array_equal(first[:3], 0)
    np.testing.assert_array_equal(first[3], rows[0])
    np.testing.assert_array_equal(second[:2], 0)
    np.testing.assert_array_equal(second[2:], rows[:2])
    np.testing.assert_array_equal(third[0], 0)
    np.testing.assert_array_equal(third[1:], rows[:3])


def test_an_episode_over_several_shards_is_stacked_across_their_borders(tmp_path):
    write_dataset(tmp_path / "d", lengths=(150,), num_slots=1, steps_per_shard=40)
    dataset = Dataset.open(tmp_path / "d")
    segments = dataset.segments()
    assert [segment.first_step for segment in segments] == [0, 40, 80, 120]
    assert len({segment.shard for segment in segments}) == 4
    check_dataset(dataset, {0: 150})


def test_indices_may_come_in_any_order_and_repeat(tmp_path):
    write_dataset(tmp_path / "d")
    dataset = Dataset.open(tmp_path / "d")
    everything = dataset.observations(np.arange(dataset.num_steps))
    indices = np.random.default_rng(0).integers(0, dataset.num_steps, 500)
    np.testing.assert_array_equal(dataset.observations(indices), everything[indices])
    assert dataset.observations([]).shape == (0, 4, 6, 5)


def test_vectors_of_numbers_come_back_bit_for_bit(tmp_path):
    provenance = make_provenance(frame_stack=1, vector=8)
    write_dataset(tmp_path / "d", provenance, lengths=(90, 7, 33))
    dataset = Dataset.open(tmp_path / "d")
    assert dataset.observations([0, 1]).dtype == np.float32
    assert dataset.provenance.task.fingerprint.observation_shape == (8,)
    check_dataset(dataset, {0: 90, 1: 7, 2: 33})


def test_vectors_that_are_kept_decoded_are_those_that_are_decoded_for_each_batch(tmp_path, monkeypatch):
    provenance = make_provenance(frame_stack=1, vector=5)
    write_dataset(tmp_path / "data", provenance, lengths=(40, 3, 77))
    steps = np.random.default_rng(0).integers(0, 120, 200)
    kept = Dataset.open(tmp_path / "data")
    assert kept.store.is_decoded
    monkeypatch.setattr("rldistill.data.store._MOST_BYTES_DECODED", 0)
    anew = Dataset.open(tmp_path / "data")
    assert not anew.store.is_decoded
    np.testing.assert_array_equal(kept.observations(steps), anew.observations(steps))


def test_the_segments_list_every_step_once_in_order(tmp_path):
    write_dataset(tmp_path / "d")
    dataset = Dataset.open(tmp_path / "d")
    assert [index for segment in dataset.segments() for index in segment.steps] == list(range(dataset.num_steps))
    for segment in dataset.segments():
        assert set(dataset.episodes[segment.steps].tolist()) <= {segment.episode}


def test_an_interrupted_episode_keeps_its_steps_and_has_no_last_observation(tmp_path):
    provenance = make_provenance()
    lengths = {0: 30, 1: 50}
    with DatasetWriter.create(tmp_path / "d", provenance, target_num_steps=100) as writer:
        player = Player(writer, num_slots=2, lengths=lengths)
        for _ in range(40):
            player.step()
        writer.finish()
    dataset = Dataset.open(tmp_path / "d")
    check_dataset(dataset, lengths)
    assert (dataset.manifest.num_episodes, dataset.manifest.num_interrupted) == (1, 1)
    assert len(dataset.episode_steps(1)) == 40
    assert dataset.last_observation(1) is None
    assert dataset.last_observation(0) is not None


def test_an_episode_may_end_after_its_last_step_was_written(tmp_path):
    provenance = make_provenance()
    episode = make_episode(provenance, 0, 2)
    with DatasetWriter.create(tmp_path / "d", provenance, target_num_steps=2) as writer:
        for step in range(2):
            writer.append(
                [0], episode.rows[step : step + 1], {n: v[step : step + 1] for n, v in episode.fields.items()}
            )
    with DatasetWriter.resume(tmp_path / "d", provenance, target_num_steps=2) as writer:
        assert writer.running == {0: 2}
        writer.end_episode(0, episode.rows[2])
        writer.finish()
    dataset = Dataset.open(tmp_path / "d")
    check_dataset(dataset, {0: 2})
    assert dataset.manifest.num_episodes == 1


def test_a_dataset_may_be_read_while_it_is_written(tmp_path):
    provenance = make_provenance()
    lengths = {0: 500, 1: 500}
    with DatasetWriter.create(tmp_path / "d", provenance, target_num_steps=1000, steps_per_shard=100) as writer:
        player = Player(writer, num_slots=2, lengths=lengths)
        for _ in range(120):
            player.step()
        dataset = Dataset.open(tmp_path / "d")
        assert dataset.num_steps == writer.num_listed_steps == 200
        assert writer.num_steps == 240
        for _ in range(120):
            player.step()
        check_dataset(dataset, lengths)


def test_an_exception_leaves_what_was_listed_and_drops_the_rest(tmp_path):
    provenance = make_provenance()
    with (
        pytest.raises(KeyboardInterrupt),
        DatasetWriter.create(tmp_path / "d", provenance, target_num_steps=1000, steps_per_shard=100) as writer,
    ):
        player = Player(writer, num_slots=2, lengths={0: 500, 1: 500})
        for _ in range(70):
            player.step()
        raise KeyboardInterrupt
    assert Dataset.open(tmp_path / "d").num_steps == 100


def _append(writer: DatasetWriter, episodes: list[int], **changes: np.ndarray) -> None:
    values = {
        "action": np.zeros(len(episodes), np.int32),
        "reward": np.zeros(len(episodes)),
        "terminated": np.zeros(len(episodes), bool),
        "truncated": np.zeros(len(episodes), bool),
        "q_values": np.zeros((len(episodes), 3), np.float32),
    }
    writer.append(episodes, np.zeros((len(episodes), 6, 5), np.uint8), values | changes)


def test_a_writer_refuses_what_would_not_come_back_as_it_was(tmp_path):
    with DatasetWriter.create(tmp_path / "d", make_provenance(), target_num_steps=1) as writer:
        with pytest.raises(ValueError, match=r"^reward must be float64 \[1\], got float32 \[1\]\.$"):
            _append(writer, [0], reward=np.zeros(1, np.float32))
        with pytest.raises(ValueError, match=r"^q_values must be float32 \[1, 3\], got float32 \[1, 4\]\.$"):
            _append(writer, [0], q_values=np.zeros((1, 4), np.float32))
        with pytest.raises(ValueError, match=r"^episodes must be different numbers from 0, got \[0, 0\]\.$"):
            _append(writer, [0, 0])
        with pytest.raises(ValueError, match=r"^values must be action, reward, .*, got action, .*, more\.$"):
            _append(writer, [0], more=np.zeros(1))
        _append(writer, [0])
        writer.end_episode(0, np.zeros((6, 5), np.uint8))
        with pytest.raises(ValueError, match=r"^episode 0 has ended; a new one needs a new number\.$"):
            _append(writer, [0])


def test_an_output_that_is_not_finite_is_refused_and_named(tmp_path):
    with DatasetWriter.create(tmp_path / "d", make_provenance(), target_num_steps=1) as writer:
        _append(writer, [4, 5])
        q_values = np.array([[0, 1, 2], [0, np.nan, 2]], np.float32)
        with pytest.raises(
            NumericalError,
            match=r"^q_values of episode 5, step 1, is not finite: \[0\.0, nan, 2\.0\]\. Nothing of this",
        ):
            _append(writer, [4, 5], q_values=q_values)
        assert writer.running == {4: 1, 5: 1}


def test_an_open_dataset_keeps_no_file_open(tmp_path):
    write_dataset(tmp_path / "d", steps_per_shard=10)
    before = len(os.listdir("/proc/self/fd"))
    dataset = Dataset.open(tmp_path / "d")
    check_dataset(dataset, dict(enumerate((40, 25, 60, 1, 30, 44, 9, 70))))
    assert len(dataset.manifest.shards) > 20
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_gaussian_teacher_of_a_box_gives_two_targets_and_its_actions_are_numbers():
    layout = ActionLayout("box", (2,), low=(-1.0, -1.0), high=(1.0, 1.0), mapping="clip")
    fields = step_fields(ObservationFingerprint((3,), "float32", layout), "gaussian")
    numbers = {name: (spec.dtype, spec.shape, spec.role) for name, spec in fields.items()}
    assert numbers["action"] == ("float32", (2,), "action")
    assert numbers["mean"] == numbers["log_std"] == ("float32", (2,), "target")


def test_a_slot_that_is_given_away_is_copied(tmp_path):
    """An environment may reuse the arrays it returns."""
    frames, reward = np.ones((1, 6, 5), np.uint8), np.ones(1)
    with DatasetWriter.create(tmp_path / "d", make_provenance(), target_num_steps=1) as writer:
        values = {"action": np.zeros(1, np.int32), "terminated": np.zeros(1, bool), "truncated": np.zeros(1, bool)}
        writer.append([0], frames, values | {"reward": reward, "q_values": np.zeros((1, 3), np.float32)})
        frames[:], reward[:] = 9, 9
    dataset = Dataset.open(tmp_path / "d")
    assert dataset.observations([0])[0, -1].max() == 1
    assert dataset.field("reward").tolist() == [1.0]


def test_the_folder_holds_nothing_but_the_manifest_the_shards_and_the_lock(tmp_path):
    write_dataset(tmp_path / "d", steps_per_shard=100)
    names = sorted(path.name for path in Path(tmp_path / "d").iterdir())
    assert names == [".lock", "manifest.json", *(f"shard-{index:06d}.safetensors" for index in range(3))]


def with_further_field(provenance, name):
    return replace(provenance, fields={**provenance.fields, name: FieldSpec("float32", (), "target")})


def write_with_value(path, name="value"):
    provenance = with_further_field(make_provenance(vector=2, frame_stack=1), name)
    with DatasetWriter.create(path, provenance, target_num_steps=3) as writer:
        for step in range(3):
            fields = {key: values[:1] for key, values in make_episode(make_provenance(), 0, 3).fields.items()}
            writer.append([0], np.zeros((1, 2), np.float32), {**fields, name: np.array([step], np.float32)})
        writer.finish()


def test_all_that_a_teacher_gave_is_read_by_name(tmp_path):
    write_with_value(tmp_path / "d")
    targets = Dataset.open(tmp_path / "d").targets(np.array([2, 0]))
    assert {name: values.shape for name, values in targets.items()} == {"q_values": (2, 3), "value": (2,)}
    assert targets["value"].tolist() == [2, 0]


def test_a_target_that_no_teacher_gives_is_refused(tmp_path):
    write_with_value(tmp_path / "d", "surprise")
    with pytest.raises(DatasetError, match="its fields are not those of its task's actions and its teacher's outputs"):
        Dataset.open(tmp_path / "d")
