"""One torso sees one kind of observation: tasks that are made of other parts are refused, both layouts named."""

import pytest

from rldistill.envs import make_task
from rldistill.errors import MismatchError
from rldistill.networks import Architecture
from rldistill.policies import TorchPolicy
from tests.kit.commands import run, run_well
from tests.kit.flat import distill

TINY = ("--student", "mlp:8", "--num-updates", 20, "--evaluate-period", 10, "--precision", "float32")
PAIRS = {
    "other keys": ("DictTargets-box", "OtherKeys"),
    "the same keys, shaped otherwise": ("Wide", "WideOnTheLeft"),
    "a plain vector": ("Targets-box", "DictTargets-box"),
    "another length": ("Wide", "OtherKeys"),
}
LAYOUTS = {
    "Targets-box": "float32 [2]",
    "DictTargets-box": "float32 [2] (left float32 [1], right float32 [1])",
    "OtherKeys": "float32 [2] (far float32 [1], near float32 [1])",
    "Wide": "float32 [4] (left float32 [1], right float32 [3])",
    "WideOnTheLeft": "float32 [4] (left float32 [3], right float32 [1])",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A teacher, a dataset and a student of each layout."""
    folder = tmp_path_factory.mktemp("layouts")
    for name in LAYOUTS:
        task = make_task(f"tests.kit.targets:{name}-v0").task
        teacher = folder / f"{name}.safetensors"
        TorchPolicy.create(Architecture("linear", "mlp", ()), [task], output_kind="gaussian").save(teacher)
        run_well("collect", teacher, "--num-steps", 300, "--out", folder / name)
    for name in {first for first, _ in PAIRS.values()}:
        run_well("distill", folder / name, *TINY, "--out", folder / f"student of {name}")
    return folder


@pytest.mark.parametrize(("first", "second"), PAIRS.values(), ids=PAIRS)
def test_datasets_of_different_layouts_are_refused(folder, tmp_path, first, second):
    line = (
        f"Dataset {folder / first} and Dataset {folder / second} have different observations, {LAYOUTS[first]} and "
        f"{LAYOUTS[second]}: one torso cannot see both. A student of different vectors is not possible yet: distil "
        "each task into a student of its own."
    )
    result = run("distill", folder / first, folder / second, *TINY, "--out", tmp_path / "out")
    assert (result.code, result.line) == (1, f"rldistill distill: {line}")
    with pytest.raises(MismatchError) as caught:
        distill([folder / first, folder / second], student="mlp:8", num_updates=20, out=tmp_path / "out")
    assert str(caught.value) == line
    assert not (tmp_path / "out").exists()


def test_teachers_that_play_live_are_refused_likewise(folder, tmp_path):
    files = [folder / f"{name}.safetensors" for name in PAIRS["other keys"]]
    result = run("distill", "--teacher", files[0], "--teacher", files[1], *TINY, "--out", tmp_path / "out")
    assert result.code == 1
    assert result.line.startswith(
        f"rldistill distill: Teacher {files[0]} and Teacher {files[1]} have different observations, float32 [2] (left "
    )


@pytest.mark.parametrize(("first", "second"), PAIRS.values(), ids=PAIRS)
def test_no_head_of_another_layout_is_added(folder, tmp_path, first, second):
    student = folder / f"student of {first}" / "student.safetensors"
    result = run("distill", folder / second, *TINY, "--init-from", student, "--add-head", "--out", tmp_path / "out")
    assert (result.code, result.line) == (
        1,
        f"rldistill distill: --add-head: {student} sees {LAYOUTS[first]}, tests.kit.targets:{second}-v0 gives "
        f"{LAYOUTS[second]}: one torso cannot see both. Distil the new task into a student of its own.",
    )
