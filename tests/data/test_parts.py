"""Observations of several parts: one field for each, and the vector that players see when it is asked for."""

import json
from dataclasses import replace

import numpy as np
import pytest

from rldistill.data import Dataset, DatasetWriter, Replay, StepLayout
from rldistill.data.layout import whole_observation_field
from rldistill.errors import DatasetError
from rldistill.tasks import ObservationFingerprint
from rldistill.types import ActionLayout
from tests.data.made_up import (
    CAMERA,
    Player,
    check_dataset,
    make_episode,
    make_provenance,
    make_provenance_of_parts,
    write_dataset,
)

LENGTHS = (40, 25, 60, 1, 30)
STEPS = np.arange(sum(LENGTHS))


def version_1():
    """What an earlier version wrote of the same task: the whole vector in one field."""
    provenance = make_provenance_of_parts()
    whole = whole_observation_field(provenance.task.fingerprint)
    return replace(provenance, fields={**whole, **provenance.step_fields})


def write(path, provenance=None, **options) -> Dataset:
    write_dataset(path, provenance or make_provenance_of_parts(), lengths=LENGTHS, **options)
    return Dataset.open(path)


def schema_version(path) -> int:
    return json.loads((path / "manifest.json").read_text())["schema_version"]


def test_every_part_is_a_field_with_its_own_type_and_shape(tmp_path):
    dataset = write(tmp_path / "d")
    described = {name: (spec.dtype, spec.shape) for name, spec in dataset.provenance.observation_fields.items()}
    assert described == {
        "observation.camera": ("uint8", (6, 5, 3)),
        "observation.joints": ("float32", (2,)),
        "observation.mark": ("float32", ()),
    }
    parts = dataset.observation_parts(STEPS)
    assert {name: (str(part.dtype), part.shape[1:]) for name, part in parts.items()} == {
        name.removeprefix("observation."): kind for name, kind in described.items()
    }


@pytest.mark.parametrize("keeps_decoded", [True, False])
def test_what_players_saw_comes_back_bit_for_bit(tmp_path, monkeypatch, keeps_decoded):
    if not keeps_decoded:
        monkeypatch.setattr("rldistill.data.store._MOST_BYTES_DECODED", 0)
    dataset = write(tmp_path / "d", steps_per_shard=50)
    assert dataset.store.is_decoded == keeps_decoded
    check_dataset(dataset, dict(enumerate(LENGTHS)))


def test_only_observations_of_several_parts_need_version_2(tmp_path):
    write(tmp_path / "parts")
    write(tmp_path / "one", make_provenance())
    assert [schema_version(tmp_path / name) for name in ("parts", "one")] == [2, 1]


def test_version_1_gives_the_same_parts_and_the_same_vectors(tmp_path):
    new, old = write(tmp_path / "new"), write(tmp_path / "old", version_1())
    assert schema_version(tmp_path / "old") == 1
    np.testing.assert_array_equal(new.observations(STEPS), old.observations(STEPS))
    for name, part in new.observation_parts(STEPS).items():
        theirs = old.observation_parts(STEPS)[name]
        np.testing.assert_array_equal(part, theirs)
        assert part.dtype == theirs.dtype


def test_a_collection_of_version_1_goes_on_as_it_was_begun(tmp_path):
    old = version_1()
    with DatasetWriter.create(tmp_path / "d", old, target_num_steps=99) as writer:
        player = Player(writer, num_slots=2)
        for _ in range(9):
            player.step()
    with DatasetWriter.resume(tmp_path / "d", make_provenance_of_parts(), target_num_steps=99) as writer:
        player = Player(writer, num_slots=2)
        for _ in range(9):
            player.step()
    dataset = Dataset.open(tmp_path / "d")
    assert (dataset.num_steps, schema_version(tmp_path / "d")) == (36, 1)
    assert dataset.observation_parts(np.arange(36))["camera"].dtype == np.uint8


def test_a_version_that_does_not_fit_the_fields_is_refused(tmp_path):
    write(tmp_path / "d")
    path = tmp_path / "d" / "manifest.json"
    data = json.loads(path.read_text())
    del data["sha256"]
    path.write_text(json.dumps(data | {"schema_version": 1}))
    with pytest.raises(DatasetError, match="schema_version 1 has other fields of observations"):
        Dataset.open(tmp_path / "d")


def test_a_part_whose_blocks_are_missing_is_damage(tmp_path):
    dataset = write(tmp_path / "d")
    names = {name for shard in dataset._shards for name in shard.tensors if "camera" in name}
    assert names == {
        "segment.first_block.camera",
        "block.num_rows.camera",
        "block.offsets.camera",
        "block.bytes.camera",
    }


def test_images_among_the_parts_take_the_room_of_bytes(tmp_path):
    new, old = write(tmp_path / "new"), write(tmp_path / "old", version_1())
    sizes = [sum(rows.num_decoded_bytes for rows in dataset.store._rows.values()) for dataset in (new, old)]
    num_rows = sum(LENGTHS) + len(LENGTHS)
    assert sizes == [num_rows * (90 + 4 * 3), num_rows * 4 * 93]


def test_a_replay_keeps_parts_apart_too(tmp_path):
    provenance = make_provenance_of_parts()
    layout = StepLayout.of_task(provenance.task.fingerprint, {})
    replay, episode = Replay(layout, 100), make_episode(provenance, 0, 20)
    for step in range(20):
        rows = episode.rows[[step]], episode.rows[[step + 1]]
        replay.append(rows[0], {}, ended=np.array([step == 19]), next_observations=rows[1])
    state = replay.write(tmp_path)
    again = Replay(layout, 1)
    again.read(tmp_path, state)
    for kept in (replay, again):
        np.testing.assert_array_equal(kept.store.observations(np.arange(20)), episode.rows[:20])
        assert kept.observation_parts(np.arange(20))["camera"].shape == (20, 6, 5, 3)


def test_the_only_part_is_a_vector_as_several_are():
    fingerprint = ObservationFingerprint((CAMERA.size,), "uint8", ActionLayout.discrete(2), observation_parts=(CAMERA,))
    layout = StepLayout.of_task(fingerprint, {})
    rows = np.arange(2 * CAMERA.size, dtype=np.uint8).reshape(2, -1)
    parts = layout.split(rows)
    assert parts["observation.camera"].shape == (2, *CAMERA.shape)
    np.testing.assert_array_equal(layout.joined(parts), rows)
