"""What tables and JSON call policies."""

import pytest

from rldistill.policies import load_policy
from rldistill.verbs.evaluate import evaluate
from tests.kit.payout import constant_policy, payout_task


@pytest.fixture(scope="module")
def task():
    """Payouts 2, 6 and 10; random play scores 2."""
    return payout_task()


def test_runs_are_called_by_their_folder_and_files_by_their_name(tmp_path, task, monkeypatch):
    for folder in ("a/run", "b/run", "pend-mse"):
        (tmp_path / folder).mkdir(parents=True)
        constant_policy(task, 1, "mlp:1").save(tmp_path / folder / "student.safetensors")
        (tmp_path / folder / "config.toml").touch()
    constant_policy(task, 1, "mlp:1").save(tmp_path / "pend-mse/best_policy.safetensors")
    constant_policy(task, 1, "mlp:1").save(tmp_path / "a file.safetensors")
    monkeypatch.chdir(tmp_path / "pend-mse")
    policies = [
        tmp_path / "a/run",
        "../b/run/student.safetensors",
        ".",
        "best_policy.safetensors",
        tmp_path / "a file.safetensors",
        constant_policy(task, 0, "an object"),
    ]
    result = evaluate(policies, num_episodes=1)
    names = ["a/run", "b/run", "pend-mse", "pend-mse/best_policy", "a file", "an object"]
    assert [row.name for row in result.students] == names
    assert [row["name"] for row in result.to_dict()["policies"]] == [*names, "random"]
    assert [row["network"] for row in result.to_dict()["policies"]] == ["mlp:1"] * 6 + [None]


def test_one_file_named_twice_is_numbered(tmp_path, task):
    student = tmp_path / "student.safetensors"
    constant_policy(task, 1).save(student)
    assert [row.name for row in evaluate([student, student], num_episodes=1).students] == ["student", "student (2)"]


@pytest.mark.parametrize("is_named", [True, False])
def test_a_student_that_is_called_as_its_teacher_is_told_apart(is_named, tmp_path, task):
    teacher, run = tmp_path / "lander.safetensors", tmp_path / "runs" / "lander"
    constant_policy(task, 2).save(teacher)
    run.mkdir(parents=True)
    (run / "config.toml").touch()
    record = {"name": "lander", "hash": load_policy(teacher).hash, "path": str(teacher)}
    constant_policy(task, 1).with_provenance({"teacher": record}).save(run / "student.safetensors")
    result = evaluate(run, teacher=teacher if is_named else None, num_episodes=1)
    assert [row.name for row in result.policies] == [f"{tmp_path.name}/lander", "runs/lander", "random"]
