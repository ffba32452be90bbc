"""A stranger's dataset whose checksums are right asks no more of its reader than a dataset needs, or is refused."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from rldistill.data import Dataset
from rldistill.data import shard as shard_module
from rldistill.data.codec import encode_block, rows_per_block
from rldistill.data.manifest import is_dataset_folder
from rldistill.errors import DatasetError
from rldistill.storage import sha256_bytes, with_checksum
from tests.data.made_up import FRAME, write_dataset


@pytest.fixture
def folder(tmp_path):
    write_dataset(tmp_path / "d", steps_per_shard=60)
    return tmp_path / "d"


def the_line(path: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        Dataset.open(path)
    line = str(caught.value)
    assert line.isprintable()
    assert line.endswith(".")
    return line


def change_manifest(folder: Path, **values) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(with_checksum(json.loads(path.read_text()) | values)))


def one_block(num_rows: int) -> dict[str, np.ndarray]:
    """Return the tensors of a shard whose one block unpacks to rows of 30 zeros."""
    chunk = np.frombuffer(encode_block(np.zeros((num_rows, *FRAME), np.uint8)), np.uint8)
    segment = {"episode": 0, "first_step": 0, "num_steps": num_rows, "num_lead_rows": 0, "first_block": 0}
    return {
        **{f"segment.{name}": np.array([value], np.int64) for name, value in segment.items()},
        "segment.has_last_observation": np.array([False]),
        "block.num_rows": np.array([num_rows], np.int64),
        "block.offsets": np.array([0, len(chunk)], np.int64),
        "block.bytes": chunk,
        "step.action": np.zeros(num_rows, np.int32),
        "step.reward": np.zeros(num_rows),
        "step.terminated": np.zeros(num_rows, bool),
        "step.truncated": np.zeros(num_rows, bool),
        "step.q_values": np.zeros((num_rows, 3), np.float32),
    }


def write_one_block(folder: Path, num_rows: int) -> None:
    data = save(one_block(num_rows))
    (folder / "shard-000000.safetensors").write_bytes(data)
    entry = {"file": "shard-000000.safetensors", "sha256": sha256_bytes(data), "num_bytes": len(data)}
    entry |= {"num_steps": num_rows, "num_segments": 1}
    counts = {"num_steps": num_rows, "num_episodes": 0, "num_interrupted": 1, "next_episode": 1, "running": []}
    change_manifest(folder, shards=[entry], **counts)


def test_a_small_file_whose_block_fills_the_memory(folder, monkeypatch):
    write_one_block(folder, 1000)
    assert Dataset.open(folder).observations([5]).shape == (1, 4, *FRAME)
    monkeypatch.setattr(shard_module, "MAX_BLOCK_BYTES", 999 * 30)
    assert the_line(folder).startswith(
        f"Shard {folder / 'shard-000000.safetensors'} is damaged: a block has an impossible number of rows, of 30 "
        "bytes each at most 999. "
    )


def test_blocks_of_large_rows_hold_as_few_as_a_reader_takes():
    assert [rows_per_block(size) for size in (0, 30, 8 << 20, 16 << 20, 1 << 40)] == [32, 32, 32, 16, 1]


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("teacher", "output_kind"), "nonsense", "output_kind must be q_values or logits or gaussian or actions"),
        (("teacher", "output_kind"), "logits", "its fields are not those of its task's actions"),
        (("teacher", "name"), "\x1b[31m", "name must be at most 255 printable characters"),
        (("teacher", "normalization"), [], "normalization must be a Mapping, got a list"),
        (("task", "fingerprint", "observation_shape"), [5], "observations of shape [5] are no stacks of 4 frames"),
        (("task", "fingerprint", "observation_dtype"), "int8", "dtype and shape of its observation field"),
        (("task", "fingerprint", "frame_stack"), 3, "are no stacks of 3 frames"),
        (("fields", "q_values", "shape"), [4], "its fields are not those of its task's actions"),
        (("fields", "reward", "dtype"), None, "dtype must be a text, got None"),
        (("seed",), "0", "seed must be a whole number"),
        (("exploration_epsilon",), None, "not supported between"),
        (("num_steps",), 1e300, "num_steps must be a whole number"),
        (("running",), [{"episode": 1.5, "num_steps": 1}], "episode must be a whole number"),
    ],
)
def test_a_manifest_that_contradicts_itself(folder, path, value, reason):
    manifest = json.loads((folder / "manifest.json").read_text())
    place = manifest
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    change_manifest(folder, **manifest)
    line = the_line(folder)
    assert line.startswith(f"Manifest of dataset {folder} contradicts itself: ")
    assert reason in line


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"format": NaN}', "holds NaN"),
        (b" " * (17 << 20), "at most 16,777,216 are read"),
    ],
    ids=["deep", "NaN", "large"],
)
def test_a_manifest_that_keeps_its_reader_busy(folder, content, reason):
    (folder / "manifest.json").write_bytes(content)
    line = the_line(folder)
    assert "its manifest.json is damaged" in line
    assert reason in line


@pytest.mark.parametrize(
    ("name", "reason"), [("manifest.json", "is no regular file"), ("shard-000000.safetensors", "it is no file")]
)
def test_a_pipe_in_a_dataset_is_not_opened(folder, name, reason):
    shards = json.loads((folder / "manifest.json").read_text())["shards"]
    change_manifest(folder, shards=[shards[0] | {"num_bytes": 0}, *shards[1:]])
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert reason in the_line(folder)


@pytest.mark.parametrize("name", ["manifest.json", "shard-000000.safetensors"])
def test_a_folder_with_nothing_but_a_pipe_is_told_without_opening_it(tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert not is_dataset_folder(tmp_path)


def test_a_dataset_whose_name_no_folder_can_have():
    for name in ("a" * 300, "a\0b"):
        line = the_line(Path(name))
        assert line.startswith("Dataset a")
        assert len(line) <= 500
