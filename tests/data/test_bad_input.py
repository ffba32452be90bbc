"""Each thing that can be wrong with a dataset is one line that says what, why and what to do."""

import dataclasses
import json
import resource
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from rldistill.data import Dataset, DatasetWriter, is_dataset_folder, load_manifest
from rldistill.data.manifest import DATASET_REMEDY
from rldistill.errors import (
    DatasetError,
    DiskFullError,
    LockedError,
    MismatchError,
    NumericalError,
    OutputExistsError,
    RldistillError,
)
from rldistill.storage import sha256_bytes, with_checksum
from tests.data.made_up import Player, check_dataset, make_provenance, process_context, write_dataset

AGAIN = r"Copy the dataset again, or collect anew with --overwrite\.$"


@pytest.fixture
def folder(tmp_path):
    write_dataset(tmp_path / "d", steps_per_shard=60)
    return tmp_path / "d"


def the_line(error: type[RldistillError], path: Path, **options: bool) -> str:
    with pytest.raises(error) as caught:
        Dataset.open(path, **options)
    line = str(caught.value)
    assert "\n" not in line
    assert line.endswith(".")
    return line


def change_manifest(folder: Path, **values) -> None:
    """Change a manifest as a stranger does, who can also write the checksum that belongs to it."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(with_checksum(json.loads(path.read_text()) | values)))


def change_shard(folder: Path, index: int, **tensors) -> None:
    """Replace tensors of a shard, and list the new file as its writer would have."""
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = manifest["shards"][index]
    data = save(load_file(folder / entry["file"]) | tensors)
    (folder / entry["file"]).write_bytes(data)
    entry |= {"sha256": sha256_bytes(data), "num_bytes": len(data)}
    change_manifest(folder, shards=manifest["shards"])


def test_a_folder_that_does_not_exist(tmp_path):
    assert the_line(DatasetError, tmp_path / "no") == (
        f"{tmp_path / 'no'} is not a dataset: it does not exist. Give the folder that `rldistill collect` wrote."
    )


def test_a_folder_of_something_else(tmp_path):
    assert "has no manifest.json" in the_line(DatasetError, tmp_path)
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    assert "does not say format 'rldistill-dataset'" in the_line(DatasetError, tmp_path)
    assert not is_dataset_folder(tmp_path)


def test_a_file_instead_of_a_folder(tmp_path):
    (tmp_path / "pong.safetensors").write_bytes(b"policy")
    assert "is not a dataset" in the_line(DatasetError, tmp_path / "pong.safetensors")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"format": '])
def test_a_damaged_manifest(folder, content):
    (folder / "manifest.json").write_bytes(content)
    assert "its manifest.json is damaged" in the_line(DatasetError, folder)


def test_a_flipped_bit_anywhere_in_a_manifest_is_noticed_or_changes_nothing(folder):
    path = folder / "manifest.json"
    data, whole = path.read_bytes(), load_manifest(folder)
    num_noticed = 0
    for place in range(0, len(data), 5):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place % 7)
        path.write_bytes(damaged)
        try:
            assert load_manifest(folder) == whole
        except DatasetError as error:
            num_noticed += 1
            assert str(error).endswith(DATASET_REMEDY) or "upgrade rldistill" in str(error)
    assert num_noticed > 0.99 * len(data) / 5


def test_a_manifest_of_a_version_that_wrote_no_checksum_is_read(folder):
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    del values["sha256"]
    path.write_text(json.dumps(values))
    assert Dataset.open(folder).num_steps == 279


def test_a_checksum_whose_own_name_was_altered_is_noticed(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('\n  "sha256"', '\n  "sha257"'))
    assert "its key 'sha257' is unknown" in the_line(DatasetError, folder)


@pytest.mark.parametrize("damage", [lambda data: b"{" + data[2:], lambda data: data[:40], lambda _data: b"", None])
def test_a_dataset_whose_manifest_is_damaged_or_gone_can_be_replaced_and_is_not_without_a_word(folder, damage):
    path = folder / "manifest.json"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    assert is_dataset_folder(folder)
    with pytest.raises(OutputExistsError, match=r"already holds a dataset\. Go on with it by --resume, or replace it"):
        DatasetWriter.create(folder, make_provenance(), target_num_steps=1)
    with DatasetWriter.create(folder, make_provenance(), target_num_steps=3, overwrite=True) as writer:
        Player(writer, num_slots=3).step()
    assert Dataset.open(folder).num_steps == 3


def test_a_newer_schema(folder):
    change_manifest(folder, schema_version=3)
    assert the_line(DatasetError, folder) == (
        f"Dataset {folder} has schema version 3, this rldistill reads up to 2. "
        "It was written by a newer version: upgrade rldistill."
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_steps": 5}, "num_steps is 5, but its shards hold 279"),
        ({"num_episodes": 7}, "the manifest says num_episodes 7, its shards say 8"),
        ({"num_interrupted": 1}, "the manifest says num_interrupted 1, its shards say 0"),
        ({"next_episode": 3}, "the manifest says next_episode 3, its shards say 8"),
        ({"running": [{"episode": 2, "num_steps": 60}]}, "the manifest says"),
        ({"frame_stack": 2}, "frame_stack 2 is not the fingerprint's 4"),
        ({"schema_version": None}, "schema_version is None"),
        ({"fields": {}}, "a field must have the role 'observation'"),
        ({"shards": [{"file": "../../etc/passwd"}]}, ""),
        ({"task": 3}, ""),
    ],
)
def test_a_manifest_that_was_altered(folder, change, reason):
    change_manifest(folder, **change)
    line = the_line(DatasetError, folder)
    assert reason in line
    assert "contradicts itself" in line


def test_a_manifest_may_not_lead_out_of_its_folder(folder):
    shards = json.loads((folder / "manifest.json").read_text())["shards"]
    change_manifest(folder, shards=[shards[0] | {"file": "../shard-000000.safetensors"}, *shards[1:]])
    assert "'../shard-000000.safetensors' is not the name of a shard" in the_line(DatasetError, folder)


def test_a_dataset_without_a_step(tmp_path):
    with DatasetWriter.create(tmp_path / "d", make_provenance(), target_num_steps=10):
        pass
    assert the_line(DatasetError, tmp_path / "d").startswith(f"Dataset {tmp_path / 'd'} is empty: it lists no step.")


def test_a_missing_shard(folder):
    (folder / "shard-000001.safetensors").unlink()
    assert f"Shard {folder / 'shard-000001.safetensors'} is missing" in the_line(DatasetError, folder)


def test_a_truncated_shard(folder):
    path = folder / "shard-000001.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    line = the_line(DatasetError, folder)
    assert f"Shard {path} is damaged: it has {size - 1} bytes, the manifest lists {size}." in line


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_one_flipped_bit_anywhere(folder, share):
    path = folder / "shard-000002.safetensors"
    data = bytearray(path.read_bytes())
    data[int(len(data) * share)] ^= 4
    path.write_bytes(data)
    line = the_line(DatasetError, folder)
    assert line.startswith(f"Shard {path} is damaged: its checksum is not the one the manifest lists.")


def test_random_damage_that_the_checksum_does_not_see_never_ends_in_anything_but_one_line(folder):
    """A stranger who alters a shard can list its new checksum."""
    path = folder / "shard-000000.safetensors"
    original = path.read_bytes()
    rng = np.random.default_rng(0)
    num_refused = 0
    for _ in range(150):
        data = bytearray(original)
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            dataset = Dataset.open(folder, verify=False)
            dataset.observations(np.arange(dataset.num_steps))
        except (DatasetError, NumericalError) as error:
            num_refused += 1
            assert "\n" not in str(error)
    assert num_refused > 50


@pytest.mark.parametrize("place", [4, 12, 2, 16, 31])
def test_a_block_whose_header_lies_is_never_decompressed(folder, place):
    """blosc2 writes as many bytes as the header says, wherever the buffer ends."""
    tensors = load_file(folder / "shard-000000.safetensors")
    data, second_block = tensors["block.bytes"].copy(), int(tensors["block.offsets"][1])
    data[second_block + place] = 0xC7
    change_shard(folder, 0, **{"block.bytes": data})
    assert "damaged: block 1 does not decompress to" in the_line(DatasetError, folder)


@pytest.mark.parametrize(
    ("tensor", "value", "reason"),
    [
        ("segment.first_step", 2, "lead rows"),
        ("segment.first_step", 5, "of which"),
        ("segment.num_steps", -1, "do not add up"),
        ("segment.first_block", 1, "do not share out"),
        ("segment.num_lead_rows", 1, "lead rows"),
        ("block.num_rows", 0, "impossible number of rows"),
        ("block.num_rows", 2**40, "impossible number of rows"),
        ("block.num_rows", 1, "as many rows as its segments"),
        ("block.offsets", 7, "do not lead through"),
        ("segment.episode", 6, "of which"),
    ],
)
def test_arrays_that_contradict_each_other(folder, tensor, value, reason):
    array = load_file(folder / "shard-000001.safetensors")[tensor].copy()
    array[0] = value
    change_shard(folder, 1, **{tensor: array})
    assert reason in the_line(DatasetError, folder)


def test_a_field_of_another_kind(folder):
    change_shard(folder, 1, **{"step.action": np.zeros(60, np.float32)})
    line = the_line(DatasetError, folder)
    assert "shard-000001.safetensors is damaged: step.action is float32 [60], expected int32 [60]." in line


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_targets_that_are_not_finite_are_named_with_shard_episode_and_step(folder, value):
    q_values = load_file(folder / "shard-000001.safetensors")["step.q_values"].copy()
    q_values[7, 1] = value
    change_shard(folder, 1, **{"step.q_values": q_values})
    line = the_line(NumericalError, folder)
    assert "holds a q_values that is not finite" in line
    change_shard(folder, 1, **{"step.q_values": np.nan_to_num(q_values, posinf=0)})
    dataset = Dataset.open(folder)
    index = next(s.steps[0] for s in dataset.segments() if s.shard == "shard-000001.safetensors") + 7
    episode, step = dataset.episodes[index], dataset.steps_in_episode[index]
    assert f"in shard shard-000001.safetensors, episode {episode}, step {step}." in line


def test_resuming_with_other_settings_names_all_that_differ(folder):
    before = (folder / "manifest.json").read_bytes()
    other = make_provenance(seed=1, teacher_hash="def", frame_stack=3)
    with pytest.raises(MismatchError) as caught:
        DatasetWriter.resume(folder, other, target_num_steps=10)
    line = str(caught.value)
    assert "teacher hash: abc against def; seed: 0 against 1; observation_shape: [4, 6, 5] against [3, 6, 5]" in line
    assert line.endswith("Use the settings it was begun with, or begin anew with --overwrite.")
    assert (folder / "manifest.json").read_bytes() == before


def test_resuming_with_another_protocol_or_other_fields_is_a_mismatch(folder):
    provenance = make_provenance()
    task = dataclasses.replace(provenance.task, protocol=dataclasses.replace(provenance.task.protocol, max_frames=9))
    with pytest.raises(MismatchError, match=r"protocol max_frames: None against 9\."):
        DatasetWriter.resume(folder, dataclasses.replace(provenance, task=task), target_num_steps=10)
    fields = {name: spec for name, spec in provenance.fields.items() if name != "reward"}
    with pytest.raises(MismatchError, match=r"field reward: float64 \[\] reward against None\."):
        DatasetWriter.resume(folder, dataclasses.replace(provenance, fields=fields), target_num_steps=10)


def test_a_writer_that_resumes_verifies_what_is_listed(folder):
    (folder / "shard-000000.safetensors").unlink()
    with pytest.raises(DatasetError, match="is missing"):
        DatasetWriter.resume(folder, make_provenance(), target_num_steps=10)


def test_a_second_writer_is_refused_and_names_the_first(tmp_path):
    provenance = make_provenance()
    with DatasetWriter.create(tmp_path / "d", provenance, target_num_steps=10):
        with pytest.raises(LockedError, match=r"is being written by another process \(id \d+\)"):
            DatasetWriter.resume(tmp_path / "d", provenance, target_num_steps=10)
        with pytest.raises(LockedError):
            DatasetWriter.create(tmp_path / "d", provenance, target_num_steps=10, overwrite=True)
    with DatasetWriter.resume(tmp_path / "d", provenance, target_num_steps=10):
        pass


def test_a_folder_that_is_not_ours_is_never_written_to(tmp_path):
    (tmp_path / "thesis.tex").write_text("three years")
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError, match=r"exists and holds no dataset of ours\. Choose another --out\.$"):
            DatasetWriter.create(tmp_path, make_provenance(), target_num_steps=1, overwrite=overwrite)
    with pytest.raises(OutputExistsError, match="is not a folder"):
        DatasetWriter.create(tmp_path / "thesis.tex", make_provenance(), target_num_steps=1)
    assert (tmp_path / "thesis.tex").read_text() == "three years"


def test_a_dataset_is_overwritten_only_when_asked(folder):
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"Go on with it by --resume, or replace it by --overwrite\.$"):
        DatasetWriter.create(folder, make_provenance(), target_num_steps=1)
    check_dataset(Dataset.open(folder), dict(enumerate((40, 25, 60, 1, 30, 44, 9, 70))))
    with DatasetWriter.create(folder, make_provenance(seed=9), target_num_steps=1, overwrite=True):
        pass
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "manifest.json", "notes.txt"]


def _fill_the_disk(path: Path, limit: int, answer) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    provenance = make_provenance()
    try:
        with DatasetWriter.create(path, provenance, target_num_steps=10_000, steps_per_shard=60) as writer:
            player = Player(writer, num_slots=3)
            for update in range(10_000):
                player.step()
                if update == 100:  # later shards are larger than the limit
                    writer._steps_per_shard = 2_000
    except DiskFullError as error:
        answer.send(str(error))


def test_a_full_disk_leaves_what_was_listed_readable_and_the_collection_resumable(tmp_path):
    context = process_context()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_fill_the_disk, args=(tmp_path / "d", 60_000, sender))
    process.start()
    assert receiver.poll(60)
    line = receiver.recv()
    process.join()
    assert line.startswith(f"Writing {tmp_path / 'd'}/shard-")
    assert "What was reported written before is intact. Free some space and run the same command again, with" in line
    dataset = Dataset.open(tmp_path / "d")
    assert dataset.num_steps > 200
    check_dataset(dataset)
    assert not list((tmp_path / "d").glob(".*.tmp"))
    with DatasetWriter.resume(tmp_path / "d", make_provenance(), target_num_steps=10_000) as writer:
        Player(writer, num_slots=3).step()
    assert Dataset.open(tmp_path / "d").num_steps == dataset.num_steps + 3
