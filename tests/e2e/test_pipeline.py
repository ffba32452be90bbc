"""From a teacher's file to a proven student with the commands that the README shows, each a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rldistill.envs import make_task
from rldistill.policies import load_policy
from tests.kit.cart_pole import saved_teacher, short_cart_pole
from tests.kit.commands import Result, run_alone, start
from tests.kit.episodes import assert_same_episodes, read_episodes
from tests.kit.small_policies import small_policy

SMALL_SHARDS = "tests.kit.commands:write_small_shards"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def run_for_real(*argv: str, **options) -> subprocess.CompletedProcess[str]:
    """Run the program as a shell does."""
    command = [sys.executable, "-W", "error", "-m", "rldistill", *argv]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, timeout=120, **options)


def well(result: Result) -> Result:
    assert result.code == 0, result.stderr
    return result


@pytest.mark.learning
def test_a_teacher_becomes_a_smaller_student_that_passes_the_gate_and_an_untrained_one_does_not(tmp_path):
    saved_teacher(tmp_path, task=short_cart_pole(200))
    collected = well(
        run_alone(
            "collect", "teacher.safetensors", "--num-steps", 4000, "--exploration-epsilon", 0.3, "--out", "data/c"
        )
    )
    assert "next: rldistill distill data/c --out runs/c" in collected.stderr

    distil = ["distill", "data/c", "--student", "mlp:16", "--batch-size", 64, "--precision", "float32"]
    distilled = well(run_alone(*distil, "--num-updates", 600, "--learning-rate", "one_cycle:5e-3", "--out", "runs/c"))
    # What it says is next is a command that works, for the teacher's path is known.
    following = distilled.stderr.splitlines()[-1]
    assert following == "next: rldistill evaluate runs/c --teacher teacher.safetensors"

    evaluate = [*following.split()[2:], "--num-episodes", 20, "--exploration-epsilon", 0.1]
    judged = well(run_alone(*evaluate, "--require-retention", 0.9, "--out", "e.json", "--json", "--quiet"))
    teacher, student, random = judged.json["policies"]
    assert judged.json == json.loads(Path("e.json").read_text())
    assert teacher["policy_hash"] == load_policy("teacher.safetensors").hash
    assert student["policy_hash"] == load_policy("runs/c/student.safetensors").hash
    assert student["mean"] > 5 * random["mean"]
    assert student["retention_lower_bound"] >= 0.9

    well(run_alone(*distil, "--num-updates", 1, "--learning-rate", "1e-46", "--out", "runs/untrained", "--quiet"))
    failed = run_alone("evaluate", "runs/untrained", *evaluate[2:], "--require-retention", 0.9, "--quiet")
    assert failed.code == 1
    assert failed.line.startswith("rldistill evaluate: Retention gate failed: lower bound")


def _small_commands(folder: str) -> dict[str, list[object]]:
    explore = ["--exploration-epsilon", 0.3]
    # Both students are distilled from the data that were collected without a stop.
    distil = ["distill", "whole/d", "--student", "mlp:8", "--num-updates", 300, "--evaluate-period", 30]
    return {
        "collect": ["collect", "teacher.safetensors", "--num-steps", 8000, *explore, "--out", f"{folder}/d"],
        "distill": [*distil, "--precision", "float32", "--out", f"{folder}/r"],
        "evaluate": ["evaluate", f"{folder}/r", "--num-episodes", 60, *explore, "--json"],
    }


def _is_written(path: str) -> Callable[[], bool]:
    return lambda: Path(path).exists() and Path(path).stat().st_size > 0


def test_ctrl_c_in_the_middle_of_every_phase_and_the_same_student_in_the_end(tmp_path):
    saved_teacher(tmp_path)
    for command in _small_commands("whole").values():
        whole = well(run_alone(*command, prepare=SMALL_SHARDS))
    slow = {"collect": "collect_a_little", "distill": "distill_almost_to_the_end", "evaluate": "evaluate_one_episode"}
    for verb, command in _small_commands("parts").items():
        at_work = start(*command, prepare=f"tests.kit.commands:{slow[verb]}")
        signs = {
            "collect": _is_written("parts/d/shard-000000.safetensors"),
            "distill": _is_written("parts/r/metrics.jsonl"),
            "evaluate": lambda command=at_work: "evaluate random" in command.stderr,
        }
        at_work.wait_until(signs[verb])
        stopped = at_work.interrupt()
        assert stopped.code == 130, stopped.stderr
        assert "Traceback" not in stopped.stderr
        assert stopped.stderr.splitlines()[-1].startswith(f"rldistill {verb}: stopped")
        resume = [] if verb == "evaluate" else ["--resume"]
        parts = well(run_alone(*command, *resume, prepare=SMALL_SHARDS))
    assert_same_episodes(read_episodes(Path("parts/d")), read_episodes(Path("whole/d")))
    assert Path("parts/r/student.safetensors").read_bytes() == Path("whole/r/student.safetensors").read_bytes()
    assert _without_times(parts.json) == _without_times(whole.json)


def _without_times(evaluation: dict) -> dict:
    for policy in evaluation["policies"]:
        del policy["latency_seconds"], policy["decisions_per_second"]
    return evaluation


def test_an_atari_game_goes_through_the_whole_pipeline(tmp_path):
    task = make_task("atari:pong", {"max_frames": 80, "noop_max": 2}).task
    small_policy(task, network="conv:4-4:8", name="tiny").save("teacher.safetensors")
    settings = ["--num-envs", 4, "--num-threads", 1]
    well(run_alone("collect", "teacher.safetensors", "--num-steps", 240, *settings, "--out", "d", "--quiet"))
    well(
        run_alone(
            *["distill", "d", "--student", "conv:4-4:8", "--num-updates", 5, "--batch-size", 8, "--out", "r", "--quiet"]
        )
    )
    result = well(run_alone("evaluate", "r", "--num-episodes", 2, *settings, "--json", "--quiet")).json
    assert result["task"] == "atari:pong"
    assert result["protocol"]["max_frames"] == 80
    assert [policy["role"] for policy in result["policies"]] == ["teacher", "student", "random"]
    assert all(episode["length"] == 20 for policy in result["policies"] for episode in policy["episodes"])


# The program itself, as a shell sees it.


def test_wrong_usage_ends_with_2_and_one_line():
    result = run_for_real("distil", stdout=subprocess.PIPE)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.endswith("Did you mean 'distill'?\n")
    assert result.stderr.count("\n") == 1


def test_a_missing_file_ends_with_1_and_one_line():
    result = run_for_real("inspect", "no.safetensors", "--json", stdout=subprocess.PIPE)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert json.loads(result.stdout)["error"] == result.stderr.removeprefix("rldistill inspect: ").rstrip("\n")


@pytest.mark.parametrize("argv", [["--help"], ["inspect", "net3", "--json"]])
def test_a_reader_that_leaves_early_is_no_error_of_ours(argv):
    reading, writing = os.pipe()
    os.close(reading)
    result = run_for_real(*argv, stdout=writing)
    os.close(writing)
    assert (result.returncode, result.stderr) == (1, "")
