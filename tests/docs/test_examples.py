"""Each of `examples/` runs at a small size; what it prints at its full size stands in its header."""

import runpy
import shlex
import sys

import gymnasium
import pytest
import yaml

from rldistill.envs import make_task
from tests.kit.cart_pole import hand_made_teacher
from tests.kit.commands import REPOSITORY, run

EXAMPLES = REPOSITORY / "examples"
TASK = "ShortCartPole-v0"
gymnasium.register(TASK, "gymnasium.envs.classic_control.cartpole:CartPoleEnv", max_episode_steps=60)


@pytest.fixture
def teacher(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hand_made_teacher(make_task(TASK)).save(tmp_path / "teacher.safetensors")
    return "teacher.safetensors"


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_an_example_is_at_most_60_lines(path):
    assert len(path.read_text().splitlines()) <= 60


def test_a_teachers_file_is_shrunk_in_python(teacher, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["shrink_a_zip.py", teacher, TASK, "120", "5"])
    runpy.run_path(str(EXAMPLES / "shrink_a_zip.py"), run_name="__main__")
    assert "parameters keep 1.000 [1.000, 1.000]" in capsys.readouterr().out
    assert (tmp_path / "student.safetensors").is_file()


def test_dagger_by_hand_shows_three_ways_of_acting(teacher, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dagger_by_hand.py", teacher, TASK, "mlp:2", "20", "5"])
    runpy.run_path(str(EXAMPLES / "dagger_by_hand.py"), run_name="__main__")
    lines = [line for line in capsys.readouterr().out.splitlines() if " steps: keeps " in line]
    assert [line.split()[0] for line in lines] == ["offline", "DAgger", "mixed"]


def test_a_teacher_of_state_teaches_a_student_of_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pixels_from_state.py", "10", "5", "200"])
    runpy.run_path(str(EXAMPLES / "pixels_from_state.py"), run_name="__main__")
    assert "camera" in capsys.readouterr().out


def test_the_gate_of_the_ci_file_passes_a_good_student_and_fails_a_bad_one(teacher):
    steps = yaml.safe_load((EXAMPLES / "gate.yml").read_text())["jobs"]["gate"]["steps"]
    ours = [shlex.split(step["run"].partition(" > ")[0]) for step in steps if "rldistill" in step.get("run", "")]
    distill, gate = (words[1:] for words in ours)

    def small(command):
        words = {"teacher.zip": teacher, "LunarLander-v3": TASK, "100": "10"}
        return [words.get(word, word) for word in command]

    assert run(*small(distill), "--num-updates", "900").code == 0
    assert run(*small(gate)).code == 0
    assert run(*small(distill), "--num-updates", "1", "--overwrite").code == 0
    assert run(*small(gate)).code == 1
