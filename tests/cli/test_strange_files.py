"""Files and paths of strangers on the command line: one line each, and nothing of theirs reaches the terminal raw."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rldistill.cli.output import plain_line
from rldistill.cli.progress import ProgressBar
from rldistill.errors import TeacherWarning
from rldistill.events import MessageEvent, ProgressEvent
from rldistill.policies.file_format import pack_policy
from tests.kit.commands import run
from tests.kit.small_policies import small_policy

RED = "\x1b[31m"
# `rldistill.cli.main` is the function, too.
main_module = importlib.import_module("rldistill.cli.main")


def the_line(code: int, *argv: object) -> str:
    """Check that a command is refused in one line that any terminal can show, and return it."""
    result = run(*argv)
    assert result.code == code, result.stderr
    assert len(result.line) <= 550
    assert result.line.isprintable()
    return result.line


@pytest.fixture
def policy(tmp_path) -> Path:
    small_policy().save(tmp_path / "p.safetensors")
    return tmp_path / "p.safetensors"


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("n" * 256, "out: got a name of 256 bytes, expected at most 255"),
        ("bad\udcff", "out: got bad\\udcff, expected UTF-8"),
    ],
)
def test_an_out_that_no_folder_can_be_called(files, out, reason):
    argv = ("distill", files / "data", "--student", "mlp:8", "--num-updates", "10", "--evaluate-period", "10")
    assert reason in the_line(2, *argv, "--out", out)


def test_a_policy_whose_name_no_file_can_have():
    assert the_line(1, "inspect", "n" * 256 + ".zip").startswith("rldistill inspect: ")


def test_a_policy_that_may_not_be_read(policy, monkeypatch):
    # As root one may read everything.
    def refuse(self, *_args, **_options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    line = the_line(1, "inspect", policy)
    assert line == f"rldistill inspect: Policy file {policy} cannot be read: Permission denied."


def test_a_configuration_that_is_nested_deeply(tmp_path):
    (tmp_path / "deep.toml").write_bytes(b"a=" + b"[" * 20_000)
    line = the_line(2, "distill", "--config", "deep.toml", "data", "--out", "q")
    assert line == "rldistill distill: Configuration deep.toml is not TOML: it is nested too deeply."


def test_a_pipe_as_configuration_or_normaliser_is_not_opened(tmp_path, policy):
    os.mkfifo(tmp_path / "pipe")
    assert "it is no regular file" in the_line(2, "inspect", policy, "--config", "pipe")
    np.savez(tmp_path / "n.npz", mean=np.zeros(4), var=np.ones(4))
    import torch

    from tests.kit.other_libraries import PPO

    torch.save(PPO().state_dict(), tmp_path / "p.pt")
    assert "is refused: it is no regular file" in the_line(1, "inspect", "p.pt", "--normalizer", "pipe")
    assert "is refused: it is no regular file" in the_line(1, "inspect", "p.pt", "--normalizer", "/dev/zero")


def test_what_a_policy_says_of_itself_is_shown_as_a_terminal_can(tmp_path, policy):
    made = small_policy()
    description = made.spec.to_dict() | {"provenance": {"command": f"{RED}rm -rf\n\u202e", "long": "x" * 100_000}}
    policy.write_bytes(pack_policy(description, made.stored_weights()))
    result = run("inspect", policy)
    assert result.code == 0
    assert "\\x1b[31mrm -rf \\u202e" in result.stdout
    assert all(line.isprintable() and len(line) < 5000 for line in result.stdout.splitlines())


def test_a_policy_with_a_name_that_no_table_can_show_is_refused(policy):
    made = small_policy()
    policy.write_bytes(pack_policy(made.spec.to_dict() | {"name": f"{RED}red"}, made.stored_weights()))
    assert "name must be at most 255 printable characters" in the_line(1, "inspect", policy)


def test_a_recorded_teacher_whose_path_no_file_can_have_is_no_teacher(policy):
    from rldistill.loading.recorded import recorded_teacher, why_no_teacher

    made = small_policy()
    task = made.tasks[0]
    reading = {"outputs": "q_values", "normalizer": "a" * 5000}
    for path in ("a" * 5000, "a\0b", "\udcff", "p.safetensors"):
        record = {"name": "x", "hash": "0" * 64, "path": path, "reading": reading}
        student = made.with_provenance({"teacher": record})
        assert recorded_teacher(student, task, device="cpu") is None
        assert "name it with --teacher FILE" in (why_no_teacher(student, task) or "")


def test_warnings_and_progress_are_shown_as_a_terminal_can(capsys):
    main_module._Warnings().show(TeacherWarning(f"Policy {RED}red\nblue\u202e" + "x" * 10_000))
    line = capsys.readouterr().err.removesuffix("\n")
    assert line.startswith("warning: Policy red blue\\u202ex")
    assert line.isprintable()
    assert len(line) < 1100
    with ProgressBar() as display:
        display(MessageEvent(f"played \x1b]0;title\a{RED}red"))
        display(ProgressEvent(f"{RED}phase", 1, 1, "steps", {}))
    shown = capsys.readouterr().err
    assert "\x1b" not in shown
    assert "played \\x1b]0;title\\x07\\x1b[31mred" in shown


def test_lines_of_a_result_keep_their_columns():
    assert plain_line("policy   role   score") == "policy   role   score"
    assert plain_line(f"{RED}red   1.0") == "\\x1b[31mred   1.0"


def test_an_error_of_the_system_is_told_with_its_path(monkeypatch):
    def fail(_arguments):
        raise OSError(30, "Read-only file system", "some/folder")

    monkeypatch.setattr(main_module, "_run", fail)
    line = the_line(1, "inspect", "x")
    assert line == (
        "rldistill inspect: some/folder cannot be used: Read-only file system. Check the path, and what you may do "
        "there."
    )


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_result_that_cannot_be_written_is_one_line(policy, options):
    command = [sys.executable, "-m", "rldistill", "inspect", str(policy), *options]
    with open("/dev/full", "w") as full:
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr == (
        "rldistill inspect: the result cannot be written to standard output: No space left on device.\n"
    )


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (("--require-retention", "90%"), "--require-retention: got '90%', expected a number."),
        (("--exploration-epsilon", "abc"), "--exploration-epsilon: got 'abc', expected a number."),
    ],
)
def test_a_number_that_is_none_is_one_line(policy, argv, line):
    assert the_line(2, "evaluate", policy, *argv) == f"rldistill evaluate: {line}"
