"""Only what the user typed imports a module: a task that a file names plays what is there already, or is refused."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium
import pytest

from rldistill.envs import make_task
from rldistill.errors import TaskError
from rldistill.options.quickstart import QuickstartOptions
from rldistill.policies import TorchPolicy
from rldistill.storage import with_checksum
from rldistill.tasks import Task
from rldistill.verbs.collect import collect
from rldistill.verbs.evaluate import evaluate
from rldistill.verbs.verification import verify
from tests.adapters.sb3.made_up import pack
from tests.kit.cart_pole import collect_cart_pole, hand_made_teacher, short_cart_pole
from tests.kit.commands import run, run_well
from tests.kit.flat import distill
from tests.kit.small_policies import small_policy

EVIL = "evil_envs:Nice-v0"
REFUSAL = (
    "Task 'evil_envs:Nice-v0' stands in a file, and playing it would import the module 'evil_envs', which runs its "
    "code. If you trust that module, name it yourself: --task evil_envs:Nice-v0 (Python: task='evil_envs:Nice-v0')."
)
CODE = """
from pathlib import Path
import gymnasium
Path({marker!r}).touch()
gymnasium.register("Nice-v0", entry_point="gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=20)
"""
DISTILL = {"student": "mlp:8", "num_updates": 5, "evaluate_period": 5}


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """A file that is there once the module of `EVIL` has been imported; the module can be."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "code/evil_envs.py").write_text(CODE.format(marker=str(tmp_path / "executed")))
    monkeypatch.syspath_prepend(tmp_path / "code")
    yield tmp_path / "executed"
    sys.modules.pop("evil_envs", None)
    gymnasium.registry.pop("Nice-v0", None)


@pytest.fixture
def policy(marker) -> TorchPolicy:
    return hand_made_teacher(replace(make_task("CartPole-v1"), task=replace(make_task("CartPole-v1").task, name=EVIL)))


@pytest.fixture
def file(policy) -> Path:
    policy.save("policy.safetensors")
    return Path("policy.safetensors")


def zip_with_arguments() -> Path:
    Path("ppo.zip").write_bytes(pack())
    Path("args.yml").write_text(f"env: {EVIL}\nalgo: ppo\n")
    return Path("ppo.zip")


def dataset() -> Path:
    collect_cart_pole(Path("data"), hand_made_teacher(), num_steps=300)
    manifest = json.loads(Path("data/manifest.json").read_text())
    manifest["task"] |= {"name": EVIL, "environment_kwargs": {}}
    Path("data/manifest.json").write_text(json.dumps(with_checksum(manifest)))
    return Path("data")


def several_heads(policy: TorchPolicy) -> TorchPolicy:
    return small_policy(short_cart_pole().task, policy.tasks[0], name="two")


@pytest.mark.parametrize(
    "play",
    [
        lambda policy, file: make_task(Task.from_dict(policy.tasks[0].to_dict())),
        lambda policy, file: evaluate(policy, num_episodes=1),
        lambda policy, file: evaluate(file, num_episodes=1),
        lambda policy, file: evaluate(file, policy.tasks[0], num_episodes=1),
        lambda policy, file: evaluate(several_heads(policy)),
        lambda policy, file: evaluate(zip_with_arguments(), num_episodes=1),
        lambda policy, file: collect(file, num_steps=10, out="d"),
        lambda policy, file: distill(teacher=file, out="r", collect_steps=50, **DISTILL),
        lambda policy, file: distill(dataset(), out="r", evaluate_episodes=1, **DISTILL),
        lambda policy, file: verify(file, num_episodes=2),
    ],
    ids=[
        *("a record", "a policy", "a file", "a record beside it", "a head", "args.yml"),
        *("collect", "live", "held-out play", "verify"),
    ],
)
def test_a_module_that_a_file_names_is_not_imported(play, policy, file, marker):
    with pytest.raises(Exception) as caught:
        play(policy, file)
    assert REFUSAL in str(caught.value)
    assert not marker.exists()
    assert "evil_envs" not in sys.modules


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "policy.safetensors"),
        ("evaluate", "policy.safetensors", "--env-kwargs", "{}", "--num-episodes", "2"),
        ("collect", "policy.safetensors", "--out", "d"),
        ("distill", "--teacher", "policy.safetensors", "--student", "mlp:8", "--out", "r"),
        ("inspect", "policy.safetensors", "--verify"),
        ("quickstart", "--teacher", "policy.safetensors", "--out", "q"),
    ],
    ids=lambda command: command[0],
)
def test_no_command_imports_it(command, file, marker):
    result = run(*command)
    assert (result.code, result.stdout) == (1, "")
    assert REFUSAL in result.stderr
    assert not marker.exists()


def test_settings_alone_name_no_task(file, marker):
    assert run("evaluate", "policy.safetensors", "--env-kwargs", '{"sutton_barto_reward": true}').code == 2
    assert not marker.exists()


def test_a_teacher_that_a_student_records_brings_no_module_with_it(policy, marker):
    student = small_policy(short_cart_pole().task)
    policy.save("teacher.safetensors")
    record = {"teacher": {"path": "teacher.safetensors", "hash": policy.hash, "name": "hand-made"}}
    result = evaluate(student.with_provenance(record), num_episodes=5)
    assert result.teacher is not None  # its weights are read, and play the student's task
    assert not marker.exists()


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "policy.safetensors", "--num-episodes", "5"),
        ("collect", "policy.safetensors", "--num-steps", "50", "--out", "d"),
        ("distill", "--teacher", "policy.safetensors", "--student", "mlp:8", "--num-updates", "2", "--out", "r",
         "--collect-steps", "200"),
        ("inspect", "policy.safetensors", "--verify", "--num-episodes", "30", "--expected-return", "20"),
    ],
    ids=lambda command: command[0],
)  # fmt: skip
def test_the_same_task_named_by_the_user_is_played(command, file, marker):
    run_well(*command, "--task", EVIL)
    assert marker.exists()


def test_named_in_a_configuration_file_it_was_typed_too(file, marker):
    Path("c.toml").write_text(f'task = "{EVIL}"\nnum_episodes = 5\n')
    run_well("evaluate", file, "--config", "c.toml")
    assert marker.exists()


def test_a_head_that_is_named_is_played_as_it_was_recorded(policy, marker):
    result = evaluate(several_heads(policy), EVIL, num_episodes=1)
    assert result.task.name == EVIL
    assert marker.exists()


def test_held_out_play_of_a_dataset_is_allowed_by_naming_its_task(marker):
    data = dataset()
    with pytest.raises(TaskError):
        distill(data, out="r", evaluate_episodes=1, **DISTILL)
    distill(data, task=EVIL, out="r2", evaluate_episodes=1, **DISTILL)
    assert marker.exists()


def test_a_dataset_is_named_by_its_own_task_alone(marker):
    words = run("distill", dataset(), "--task", "CartPole-v1", "--student", "mlp:8", "--out", "r")
    assert (words.code, words.line) == (
        2,
        "rldistill distill: task: got 'CartPole-v1', expected 'evil_envs:Nice-v0': a dataset's task is the one it was "
        "collected on. Leave it out, or name it as it stands there.",
    )
    assert not marker.exists()


def test_a_module_that_you_have_imported_is_nothing_to_fear(policy, marker):
    import evil_envs  # noqa: F401  # pyright: ignore[reportMissingImports]

    assert evaluate(policy, num_episodes=1).task.name == EVIL


def test_quickstart_in_python_refuses_it_too(file, marker):
    from rldistill.reports.quickstart import quickstart

    with pytest.raises(TaskError):
        quickstart(QuickstartOptions(teacher=file, out=Path("q")))
    assert not marker.exists()
