"""What an environment does wrong is told by every verb that plays, in one line."""

import pytest

import rldistill as rd
from rldistill.data import Dataset
from rldistill.envs import make_task
from rldistill.errors import EnvironmentFaultError, MismatchError
from rldistill.events import MessageEvent, ProgressEvent
from rldistill.verbs.collect import collect
from tests.kit.commands import run
from tests.kit.small_policies import small_policy
from tests.kit.unruly_envs import DIVERGING_TASK

TASK = ("--task", DIVERGING_TASK)


@pytest.mark.parametrize(
    "argv",
    [
        ("collect", "TEACHER", *TASK, "--num-steps", "50", "--out", "OUT"),
        ("evaluate", "TEACHER", *TASK, "--num-episodes", "2"),
        ("distill", "--teacher", "TEACHER", *TASK, "--student", "mlp:4", "--num-updates", "5", "--out", "OUT"),
        ("train-teacher", *TASK, "--network", "mlp:4", "--num-steps", "2000", "--num-envs", "2", "--out", "OUT"),
        ("train-teacher", *TASK, "--algorithm", "dqn", "--network", "mlp:4", "--num-steps", "100", "--out", "OUT"),
    ],
    ids=lambda argv: " ".join(argv[:4:3]),
)
def test_every_verb_that_plays_names_the_environment_and_what_it_gave(tmp_path, argv):
    teacher = tmp_path / "teacher.safetensors"
    small_policy(make_task(DIVERGING_TASK).task).save(teacher)
    places = {"TEACHER": teacher, "OUT": tmp_path / "out"}
    result = run(*(places.get(word, word) for word in argv))
    assert result.code == 1
    assert result.stderr.splitlines()[-1] == (
        f"rldistill {argv[0]}: Task {DIVERGING_TASK!r} gave the observation [1, nan], expected finite numbers: nothing "
        "can be learned from NaN or infinity. Mend the environment; a simulation that diverges should end its episode "
        "before."
    )


def test_the_environments_own_lines_are_shown_on_request(tmp_path, monkeypatch):
    teacher = tmp_path / "teacher.safetensors"
    small_policy(make_task(DIVERGING_TASK).task).save(teacher)
    monkeypatch.setattr("tests.kit.unruly_envs.Diverging.step", lambda self, action: 1 / 0)
    argv = ("evaluate", teacher, *TASK, "--num-episodes", "2")
    assert "failed: its environment raised ZeroDivisionError in step: division by zero. Mend it" in run(*argv).stderr
    monkeypatch.setenv("RLDISTILL_TRACEBACK", "1")
    shown = run(*argv).stderr
    assert "Traceback (most recent call last):" in shown
    assert "\nZeroDivisionError: division by zero\n" in shown


def test_what_was_collected_before_an_environment_failed_is_written_and_told(tmp_path):
    told = []
    teacher = small_policy(make_task(DIVERGING_TASK).task)
    with pytest.raises(EnvironmentFaultError, match="expected finite numbers"):
        collect(teacher, DIVERGING_TASK, num_steps=50, num_envs=3, out=tmp_path / "d", callbacks=[told.append])
    assert [event.text for event in told if isinstance(event, MessageEvent)] == [
        "6 steps are written. Once the cause is mended, go on with --resume."
    ]
    assert Dataset.open(tmp_path / "d").num_steps == 6


def test_what_was_collected_before_a_teacher_failed_is_written_and_told(tmp_path):
    told = []

    def logits(rows):
        is_late = any(isinstance(event, ProgressEvent) and event.phase == "collect" for event in told)
        return rows[:, :1] if is_late else rows[:, :2]

    teacher = rd.load_policy(logits, task="CartPole-v1", outputs="logits")
    with pytest.raises(MismatchError, match="expected"):
        collect(teacher, "CartPole-v1", num_steps=50, num_envs=3, out=tmp_path / "d", callbacks=[told.append])
    assert [event.text for event in told if isinstance(event, MessageEvent)][-1] == (
        "3 steps are written. Once the cause is mended, go on with --resume."
    )
    assert Dataset.open(tmp_path / "d").num_steps == 3
