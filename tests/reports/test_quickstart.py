"""`quickstart` with any teacher and task: from its file to a figure in one call, and what later calls say."""

import json
import tomllib

import pytest

from rldistill.envs import make_task
from rldistill.networks import Architecture
from rldistill.policies import TorchPolicy
from tests.kit.commands import run, run_well

pytest.importorskip("matplotlib")

TASK = "tests.kit.targets:Targets-box-v0"
SMALL = ("--num-steps", 300, "--num-updates", 20, "--num-episodes", 5, "--num-envs", 4)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A teacher of 1,250 parameters that gives Gaussians."""
    path = tmp_path_factory.mktemp("teacher") / "gaussian teacher.safetensors"
    TorchPolicy.create(Architecture("own", "mlp", (32, 32)), [make_task(TASK).task], output_kind="gaussian").save(path)
    return path


@pytest.fixture(scope="module")
def made(teacher, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "q"
    return out, run_well("quickstart", "--teacher", teacher, "--task", TASK, *SMALL, "--out", out)


def test_a_teacher_of_vectors_becomes_a_student_a_table_and_a_figure(made, teacher):
    out, result = made
    assert tomllib.loads((out / "run" / "config.toml").read_text())["student"] == "mlp:16x16"
    assert (out / "learning_curve.png").is_file()
    played = json.loads((out / "run" / "evaluation.json").read_text())["policies"]
    assert [(row["role"], len(row["episodes"])) for row in played] == [("teacher", 5), ("student", 5), ("random", 5)]
    assert "3.3 times fewer parameters; retention " in result.stderr
    assert f"rldistill quickstart --teacher '{teacher}' --task {TASK} --num-steps" in result.stderr


def test_what_cannot_be_filmed_is_left_out_in_one_line(made):
    out, result = made
    assert f"no film: Task '{TASK}' cannot be filmed: it renders as nothing, expected 'rgb_array'\n" in result.stderr
    assert not (out / "teacher_and_student.mp4").exists() and "video" not in result.stderr


def test_a_second_call_shows_the_same_table(made, teacher):
    out, first = made
    again = run_well("quickstart", "--teacher", teacher, "--task", TASK, *SMALL, "--out", out)
    table = (out / "evaluation.txt").read_text()
    assert table.strip() and table in first.stderr and table in again.stderr
    assert "already holds this student's evaluation" in again.stderr


def test_a_call_with_other_settings_is_refused_without_a_word_of_options_that_it_has_not(made, teacher):
    out, _ = made
    result = run("quickstart", "--teacher", teacher, "--task", TASK, *SMALL, "--num-steps", 400, "--out", out)
    assert (result.code, result.line) == (
        1,
        f"rldistill quickstart: quickstart goes on with what {out} holds, which began with other settings: num_steps "
        "was 300, is 400. Use the same, name another --out, or delete the earlier run with --overwrite.",
    )
