"""Whatever is wrong with a Minari dataset, its name or its place is one line, and nothing in it is executed."""

import importlib
import json

import h5py
import minari
import numpy as np
import pytest

from rldistill.adapters.minari_data import from_minari, to_minari
from rldistill.data import Dataset, DatasetWriter
from rldistill.errors import DatasetError, OutputExistsError, RldistillError, UsageError
from rldistill.events import ProgressEvent
from tests.data.made_up import Player, make_provenance, write_dataset
from tests.kit.small_policies import small_policy, vector_task

VECTORS = make_provenance(frame_stack=1, vector=4, num_actions=2)


@pytest.fixture
def written(tmp_path, minari_root):
    """A Minari dataset of ours, `ours-v0`, as a folder."""
    write_dataset(tmp_path / "ours", VECTORS, lengths=(6, 9))
    return to_minari(tmp_path / "ours", "ours-v0")


def message_of(kind, call, *args, **options):
    with pytest.raises(kind) as caught:
        call(*args, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line


def change_metadata(folder, change):
    path = folder / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


@pytest.mark.parametrize("package", ["minari", "h5py", "PIL"])
def test_a_package_that_is_not_installed_is_named_with_our_extra(tmp_path, monkeypatch, package):
    def import_module(name):
        if name == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name)

    real = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", import_module)
    expected = (
        f"Reading or writing Minari datasets needs {package}, which is not installed: "
        ".venv/bin/pip install -c constraints.txt -e '.[minari]' in the checkout of rldistill"
    )
    assert message_of(RldistillError, to_minari, tmp_path / "d", "x-v0") == expected
    assert message_of(RldistillError, from_minari, "x-v0", tmp_path / "d") == expected


# To Minari


@pytest.mark.parametrize("name", ["no-version", "a b-v0", "", "../x-v0"])
def test_a_name_that_minari_does_not_take_is_refused(tmp_path, name):
    write_dataset(tmp_path / "d", VECTORS, lengths=(6,))
    assert message_of(UsageError, to_minari, tmp_path / "d", name) == (
        f"dataset_id: got {name!r}, expected (namespace/)name-v(version), such as 'cartpole/teacher-v0'."
    )


def test_a_namespace_of_one_letter_is_refused_for_what_it_is(tmp_path):
    assert message_of(UsageError, to_minari, tmp_path / "d", "x/teacher-v0") == (
        "dataset_id: got 'x/teacher-v0', expected (namespace/)name-v(version) with a namespace of two letters or more, "
        "such as 'cartpole/teacher-v0'."
    )


def test_a_minari_dataset_is_never_overwritten(written, tmp_path):
    line = message_of(OutputExistsError, to_minari, tmp_path / "ours", "ours-v0")
    assert line == (
        f"{written} already holds a Minari dataset. Choose another version, or remove it by `minari delete ours-v0`."
    )


def test_a_conversion_that_is_stopped_leaves_nothing_behind(tmp_path, minari_root):
    write_dataset(tmp_path / "d", VECTORS, lengths=(6, 9, 5))
    seen = []

    def stop(event):
        seen.append(event)
        return isinstance(event, ProgressEvent) and event.done == 15

    with pytest.raises(KeyboardInterrupt, match=r"^stopped; nothing was written\.$"):
        to_minari(tmp_path / "d", "stopped-v0", callbacks=[stop])
    assert seen[-1] == ProgressEvent("convert", 15, 20, "steps")
    assert list(minari_root.iterdir()) == []


def test_a_dataset_without_two_steps_in_any_episode_is_refused(tmp_path):
    with DatasetWriter.create(tmp_path / "d", VECTORS, target_num_steps=9) as writer:
        Player(writer, num_slots=3, lengths={0: 5, 1: 5, 2: 5}).step()
    assert message_of(DatasetError, to_minari, tmp_path / "d", "short-v0") == (
        f"{tmp_path / 'd'} has nothing for Minari: none of its 3 episodes ended or has a second step. "
        "Collect more of it: `rldistill collect … --resume`."
    )


# From Minari


def test_a_dataset_that_is_not_there_is_named_with_where_it_was_looked_for(tmp_path, minari_root):
    assert message_of(DatasetError, from_minari, "D4RL/door/human-v2", tmp_path / "d") == (
        f"Minari dataset 'D4RL/door/human-v2' was not found: no such folder, and no such dataset in {minari_root}. "
        "See `minari list local`, or get it by `minari download`."
    )


@pytest.mark.parametrize("missing", [["observation_space"], ["observation_space", "action_space"]])
def test_a_dataset_that_would_have_its_environment_made_is_refused_and_runs_nothing(written, tmp_path, missing):
    spec = {
        "id": "Hostile-v0",
        "entry_point": "subprocess:check_call",
        "kwargs": {"args": ["touch", str(tmp_path / "executed")]},
        "additional_wrappers": [],
    }

    def change(metadata):
        metadata["env_spec"] = json.dumps(spec)
        for name in missing:
            del metadata[name]

    change_metadata(written, change)
    line = message_of(DatasetError, from_minari, "ours-v0", tmp_path / "d")
    assert line.startswith(
        f"Minari dataset {written / 'data'} is refused: its metadata.json has no {' and no '.join(missing)}, and"
    )
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "its metadata.json is damaged ("),
        ('["a"]', "its metadata.json has no observation_space and no action_space"),
        ('{"observation_space": "{}", "action_space": "{}"}', "cannot be read: "),
        ('{"observation_space": "[", "action_space": "{}", "data_format": "hdf5"}', "cannot be read: "),
        (
            f'{{"observation_space": "{"[" * 100_000}", "action_space": "{{}}", "data_format": "hdf5"}}',
            "recursion depth",
        ),
    ],
)
def test_metadata_that_are_damaged_are_one_line(written, tmp_path, content, reason):
    (written / "data" / "metadata.json").write_text(content)
    assert reason in message_of(DatasetError, from_minari, written, tmp_path / "d")


def test_a_damaged_file_is_one_line_that_names_the_episode(written, tmp_path):
    with h5py.File(written / "data" / "main_data.hdf5", "a") as file:
        del file["episode_1"]["actions"]
    line = message_of(DatasetError, from_minari, "ours-v0", tmp_path / "d")
    assert line.startswith("Minari dataset 'ours-v0' is damaged: episode 1 cannot be read (")
    (written / "data" / "main_data.hdf5").write_bytes(b"no HDF5")
    line = message_of(DatasetError, from_minari, "ours-v0", tmp_path / "d", overwrite=True)
    assert line.startswith("Minari dataset 'ours-v0' is damaged: episode 0 cannot be read (")


def test_an_episode_whose_arrays_do_not_belong_together_is_refused(written, tmp_path):
    with h5py.File(written / "data" / "main_data.hdf5", "a") as file:
        file["episode_0"]["observations"].resize(5, axis=0)
    assert message_of(DatasetError, from_minari, "ours-v0", tmp_path / "d") == (
        "Minari dataset 'ours-v0' is damaged: episode 0 cannot be read (6 rewards and 5 observations). Copy it again."
    )


@pytest.mark.parametrize("with_teacher", [False, True])
@pytest.mark.parametrize(
    ("name", "rows", "reason"),
    [
        (
            "observations",
            np.zeros((7, 5), np.float32),
            "it gave an observation that its space does not hold: got shape [5], expected shape [4], as Box(-inf, inf, "
            "(4,), float32) declares. Fix the environment, or its declared space",
        ),
        ("rewards", np.zeros((6, 2)), "reward [6, 2], expected [6]"),
        ("terminations", np.zeros((6, 2), bool), "terminated [6, 2], expected [6]"),
    ],
)
def test_an_episode_whose_arrays_are_not_of_the_datasets_spaces_is_refused(
    written, tmp_path, name, rows, reason, with_teacher
):
    with h5py.File(written / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0"][name]
        file["episode_0"][name] = rows
    teacher = small_policy(vector_task(2)) if with_teacher else None
    assert message_of(DatasetError, from_minari, "ours-v0", tmp_path / "d", teacher=teacher) == (
        f"Minari dataset 'ours-v0' is damaged: episode 0 cannot be read ({reason}). Copy it again."
    )


def test_outputs_of_another_shape_or_none_are_refused(written, tmp_path):
    with h5py.File(written / "data" / "main_data.hdf5", "a") as file:
        del file["episode_1"]["infos"]["rldistill"]["q_values"]
    assert message_of(DatasetError, from_minari, "ours-v0", tmp_path / "d") == (
        "Minari dataset 'ours-v0': episode 1 should have q_values float32 [10, 2] among its infos, got none. "
        "Pass teacher=… to label its observations anew."
    )
    with h5py.File(written / "data" / "main_data.hdf5", "a") as file:
        file["episode_1"]["infos"]["rldistill"]["q_values"] = np.zeros((10, 3))
    assert "got float64 [10, 3]" in message_of(DatasetError, from_minari, "ours-v0", tmp_path / "d", overwrite=True)
    teacher = small_policy(vector_task(2))
    assert from_minari("ours-v0", tmp_path / "d", teacher=teacher, overwrite=True).num_steps == 15


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda record: record.pop("provenance"), "'provenance' is missing"),
        (lambda record: record["provenance"].update(frame_stack=2), "frame_stack 2 is not the fingerprint's 1"),
        (lambda record: record["provenance"]["task"].update(name=3), "name must be a text"),
        (
            lambda record: record["provenance"]["task"]["fingerprint"].update(observation_shape=[5]),
            "dtype and shape of its observation field are not the fingerprint's",
        ),
        (
            lambda record: record["provenance"]["teacher"].update(output_kind="logits"),
            "its fields are not those of its task's actions and its teacher's outputs",
        ),
    ],
)
def test_a_record_of_ours_that_was_altered_is_refused(written, tmp_path, change, reason):
    change_metadata(written, lambda metadata: change(metadata["rldistill"]))
    line = message_of(DatasetError, from_minari, "ours-v0", tmp_path / "d")
    assert reason in line
    assert line.endswith("or pass teacher=… to label its observations anew.")
    warnings = []
    teacher = small_policy(vector_task(2, name="made-up"))
    from_minari("ours-v0", tmp_path / "d", teacher=teacher, callbacks=[warnings.append])
    assert reason in warnings[0].text
    assert warnings[0].text.endswith("The teacher labels its observations anew.")


def test_a_record_of_a_newer_version_is_refused(written, tmp_path):
    change_metadata(written, lambda metadata: metadata["rldistill"].update(schema_version=2))
    assert message_of(DatasetError, from_minari, "ours-v0", tmp_path / "d") == (
        "Minari dataset 'ours-v0' has a record of ours of version 2, this rldistill reads up to 1. "
        "It was written by a newer version: upgrade rldistill."
    )


def test_episodes_that_somebody_added_have_no_outputs(written, tmp_path):
    to_minari(tmp_path / "ours", "again-v0")
    minari.load_dataset("ours-v0").storage.update_from_storage(minari.load_dataset("again-v0").storage)
    assert message_of(DatasetError, from_minari, "ours-v0", tmp_path / "d") == (
        "Minari dataset 'ours-v0': episode 2 was added by another program and has no outputs of the teacher. "
        "Pass teacher=… to label all of them."
    )


def test_an_episode_that_was_chosen_twice_is_refused(written, tmp_path):
    twice = minari.MinariDataset(written / "data", episode_indices=np.array([1, 0, 1]))
    assert message_of(DatasetError, from_minari, twice, tmp_path / "d") == (
        "Minari dataset 'ours-v0' gives our episode 1 twice. Choose each episode once."
    )


def test_a_recorded_task_is_not_renamed(written, tmp_path):
    assert message_of(UsageError, from_minari, "ours-v0", tmp_path / "d", task="CartPole-v1").startswith(
        "task: got 'CartPole-v1', but Minari dataset 'ours-v0' was recorded on 'made-up'"
    )


def test_a_dataset_folder_is_overwritten_only_when_asked(written, tmp_path):
    from_minari("ours-v0", tmp_path / "d")
    assert "already holds a dataset" in message_of(OutputExistsError, from_minari, "ours-v0", tmp_path / "d")
    assert from_minari("ours-v0", tmp_path / "d", overwrite=True).num_steps == 15


def test_reading_that_is_stopped_says_what_is_written(written, tmp_path):
    with pytest.raises(KeyboardInterrupt, match=r"^stopped; 0 steps are written\.$"):
        from_minari("ours-v0", tmp_path / "d", callbacks=[lambda event: isinstance(event, ProgressEvent)])
    assert not Dataset.open(tmp_path / "d", allow_empty=True).manifest.is_complete
