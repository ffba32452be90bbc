"""`rldistill evaluate` on several tasks: options, files, JSON, exit codes."""

import errno
import json
import os
import tomllib
from pathlib import Path

import pytest

from rldistill.policies import load_policy
from tests.kit.commands import run, run_well
from tests.kit.payout import constant_heads, constant_policy, payout_tasks
from tests.kit.small_policies import small_policy, vector_task

A, B = (f"tests.kit.payout:Payout{letter}-v0" for letter in "AB")
COMMAND = ["evaluate", "student.safetensors", "--num-episodes", "5"]
TEACHERS = ["--teacher", "b.safetensors", "--teacher", "a.safetensors"]


@pytest.fixture(autouse=True)
def _policies(tmp_path):
    """A student of two tasks (retention ½ and 1/5) and a teacher for each."""
    tasks = payout_tasks(a={}, b={"payouts": [1, 5, 21], "otherwise": 1})
    constant_heads(tasks, (1, 1)).save(tmp_path / "student.safetensors")
    for task, name in zip(tasks, "ab", strict=True):
        constant_policy(task, 2, f"teacher {name}").save(tmp_path / f"{name}.safetensors")


def teachers_of(result):
    return [[row["name"] for row in task["policies"] if row["role"] == "teacher"] for task in result["tasks"].values()]


@pytest.mark.parametrize(
    "argv",
    [
        [*COMMAND, *TEACHERS],
        [*COMMAND, "--teacher", "b.safetensors", "a.safetensors", "--seed", "0"],
        ["evaluate", "--num-episodes=5", *TEACHERS, "student.safetensors"],
        ["evaluate", "student.safetensors", "--teacher=a.safetensors", "--teacher=b.safetensors", "--num-episodes=5"],
    ],
    ids=["repeated", "listed", "before the student", "with ="],
)
def test_teachers_are_named_one_by_one_or_in_a_row(argv):
    result = run_well(*argv, "--json").json
    json.dumps(result, allow_nan=False)
    assert teachers_of(result) == [["a"], ["b"]]
    assert result["policies"][0]["mean_retention"] == pytest.approx(0.35)


def test_the_table_for_people_goes_to_stdout_and_the_json_to_its_file():
    words = run_well(*COMMAND, *TEACHERS, "--out", "e.json")
    assert [line.split(":")[0] for line in words.stdout.splitlines() if ": 5 episodes each" in line] == [
        "tests.kit.payout"
    ] * 2
    assert "all 2 tasks: geometric mean" in words.stdout
    assert json.loads(Path("e.json").read_text())["tasks"].keys() == {A, B}
    assert_copies_alone_are_told(run_well(*COMMAND, *TEACHERS, "--quiet").stderr.splitlines())


def assert_copies_alone_are_told(lines):
    """These policies play the same episode five times, of which --quiet warns too."""
    assert all(line.startswith("warning: ") and "are copies" in line for line in lines), lines


def test_a_run_folder_named_alone_gets_the_evaluation_on_all_tasks():
    Path("run").mkdir()
    Path("run/config.toml").write_text("# rldistill distill --config config.toml\n")
    Path("student.safetensors").rename("run/student.safetensors")
    run_well("evaluate", "run", "--num-episodes", "1", "--quiet")
    assert json.loads(Path("run/evaluation.json").read_text())["tasks"].keys() == {A, B}


def test_an_evaluation_of_a_run_folder_is_replaced_only_by_one_that_says_as_much(monkeypatch):
    Path("run").mkdir()
    Path("run/config.toml").write_text("# rldistill distill --config config.toml\n")
    Path("student.safetensors").rename("run/student.safetensors")
    path = Path("run/evaluation.json")
    command = ("evaluate", "run", "--quiet")
    run_well(*command, "--num-episodes", "4")
    kept = path.read_bytes()
    line = f"warning: {path} is kept: it is of another play, or of more episodes. --out FILE writes this one."
    for further in ([], ["--seed", "1"], ["--exploration-epsilon", "0.5"], ["--task", A]):
        said = run_well(*command, "--num-episodes", "6" if further else "3", *further).stderr.splitlines()
        assert said[-1] == line
        assert path.read_bytes() == kept
    assert str(path) not in run_well(*command, *TEACHERS, "--num-episodes", "5").stderr
    played = json.loads(path.read_text())["tasks"][A]["policies"]
    assert [(row["role"], len(row["episodes"])) for row in played] == [("teacher", 5), ("student", 5), ("random", 5)]
    assert "is kept" in run_well(*command, "--num-episodes", "9").stderr, "it would lose what was kept of the teacher"

    # One of other weights, as those before the run was resumed, says nothing of these.
    path.write_text(path.read_text().replace(load_policy(Path("run/student.safetensors")).hash, "0" * 64))
    assert str(path) not in run_well(*command, "--num-episodes", "2").stderr
    assert "0" * 64 not in path.read_text()

    def shut(path, _data):  # root may write everywhere
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("rldistill.evaluation.file.write_json", shut)
    result = run_well(*command, *TEACHERS, "--num-episodes", "5")
    assert "student" in result.stdout
    assert "is not written: [Errno 13] Permission denied" in result.stderr.splitlines()[-1]


def test_one_of_the_tasks_is_an_evaluation_of_one_and_some_are_one_of_some():
    one = run_well(*COMMAND, "--task", B, "--teacher", "b.safetensors", "--json").json
    assert (one["task"], [row["mean"] for row in one["policies"]]) == (B, [21, 5, 1])
    both = run_well(*COMMAND, "--task", f"{B}, {A}", "--json").json
    assert list(both["tasks"]) == [B, A]


def test_a_configuration_file_may_name_one_teacher_or_several_and_the_command_line_replaces_them():
    dry = run_well(*COMMAND, *TEACHERS, "--dry-run").stdout
    assert tomllib.loads(dry)["teacher"] == ["b.safetensors", "a.safetensors"]
    Path("c.toml").write_text(dry)
    assert run_well("evaluate", "--config", "c.toml", "--dry-run").stdout == dry
    for options in (["--teacher", "a.safetensors"], ["--teacher=a.safetensors"]):
        assert tomllib.loads(run_well("evaluate", "--config", "c.toml", *options, "--dry-run").stdout)["teacher"] == [
            "a.safetensors"
        ]
    Path("one.toml").write_text('policies = "student.safetensors"\nteacher = "b.safetensors"\n')
    assert tomllib.loads(run_well("evaluate", "--config", "one.toml", "--dry-run").stdout)["teacher"] == [
        "b.safetensors"
    ]


def test_the_gate_is_on_the_mean_over_the_tasks():
    opened = run_well(*COMMAND, *TEACHERS, "--require-retention", "0.35", "--quiet")
    assert opened.stdout.splitlines()[-1] == (
        "Retention gate passed: lower bound (one-sided 95 %) of the mean retention over 2 tasks of student 0.350, "
        "required 0.35. Of 5 episodes a bound claims a little too much: gate on 30 or more."
    )
    assert_copies_alone_are_told(opened.stderr.splitlines())
    shut = run(*COMMAND, *TEACHERS, "--require-retention", "0.36", "--quiet")
    assert shut.code == 1
    assert "all 2 tasks: geometric mean" in shut.stdout
    *warnings, last = shut.stderr.splitlines()
    assert_copies_alone_are_told(warnings)
    assert "of the mean retention over 2 tasks of student 0.350, required 0.36" in last


@pytest.mark.parametrize(
    ("code", "options", "message"),
    [
        (2, ["--task", f"{A},,{B}"], f"task: got '{A},,{B}', expected names with commas between, such as atari:pong."),
        (2, ["--task", f"{A},{A}"], f"task: got {A} more than once."),
        (2, ["--task", f"{A},atari:pung"], "Did you mean atari:pong?"),
        (1, ["--task", f"{A},CartPole-v1"], f"Policy 'student' has no head for 'CartPole-v1', only for {A}, {B}."),
        (1, ["--task", "CartPole-v1"], f"Policy 'student' has no head for 'CartPole-v1', only for {A}, {B}."),
        (1, ["--teacher", "c.safetensors"], "Policy file c.safetensors: found nothing there"),
        (1, [*TEACHERS, "--teacher", "another.safetensors"], f"for task '{A}': 'a' and 'another'."),
        (1, ["--teacher", "other.safetensors"], "Teacher 'other' (made for made-up) cannot be told to be for one of"),
        (2, ["--require-retention", "0.9", *TEACHERS[:2]], f"on every task: got none for {A}. Name each with"),
        (2, ["--env-kwargs", '{"noise": 1}'], "belong with a task's name"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line(code, options, message):
    small_policy(vector_task(), name="other").save("other.safetensors")
    constant_policy(*payout_tasks(a={}), 0, "another").save("another.safetensors")
    words = run(*COMMAND, *options)
    assert (words.code, words.stdout) == (code, "")
    assert message in words.line
    assert run(*COMMAND, *options, "--json").json == {"error": words.line.removeprefix("rldistill evaluate: ")}


def test_a_head_whose_task_cannot_be_made_here_is_a_matter_of_the_file():
    small_policy(vector_task(name="python:mine"), vector_task(name="NoSuchEnv-v0"), name="two").save("two.safetensors")
    result = run("evaluate", "two.safetensors")
    assert result.code == 1
    assert result.line.startswith(
        "rldistill evaluate: Policy 'two' has a head for 'python:mine', which cannot be played here: "
    )
