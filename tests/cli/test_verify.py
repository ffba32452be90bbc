"""`inspect --verify`: what it prints, and how it ends."""

import pytest
import torch
from torch import nn

from tests.kit.cart_pole import saved_teacher
from tests.kit.commands import run, run_well
from tests.kit.other_libraries import QNetwork, randomised
from tests.kit.seen_env import PARTS_TASK, VECTOR_TASK, teacher_of_state

FEW = ("--verify", "--num-episodes", 5)
TWENTY = ("--expected-return", 20, "--expected-standard-error", 1)


@pytest.fixture
def teacher(tmp_path):
    saved_teacher(tmp_path)
    return tmp_path / "teacher.safetensors"


def test_a_policy_that_scores_what_it_is_said_to_score(teacher):
    record = run_well("inspect", teacher, *FEW, "--expected-return", 40, "--json").json
    verification = record["verification"]
    assert (record["kind"], verification["verdict"], verification["difference"]) == ("policy", "agrees", 0.0)
    assert [policy["role"] for policy in verification["evaluation"]["policies"]] == ["student", "random"]


@pytest.mark.parametrize("task", [(PARTS_TASK,), (VECTOR_TASK, "--names", "other=0:4,state=4:")])
def test_a_policy_of_some_parts_is_verified_where_it_is_said_which(task, tmp_path):
    teacher_of_state().save(tmp_path / "state.safetensors")
    said = ("--task", *task, "--teacher-sees", "state", "--expected-return", 8)
    record = run_well("inspect", tmp_path / "state.safetensors", *FEW, *said, "--json").json
    assert (record["kind"], record["verification"]["verdict"]) == ("policy", "agrees")


def test_a_gap_is_printed_in_full_and_ends_with_1(teacher):
    result = run("inspect", teacher, *FEW, *TWENTY, "--quiet")
    assert result.code == 1
    assert max(map(len, result.stdout.splitlines())) <= 80
    text = " ".join(result.stdout.split())
    assert "score 40.0 ± 0 (standard error), 95 % interval 40.0 to 40.0" in text
    assert "verdict differs: 20.0 apart, at most 3.1 allowed; it is better than random play" in text
    assert "environment version CartPole-v1" in text
    assert "Verification failed: hand-made scores 40.0 ± 0 on CartPole-v1, 20.0 ± 1 expected" in result.stderr


def test_a_gap_that_nothing_measures_asks_for_a_standard_error_and_ends_with_1(teacher):
    result = run("inspect", teacher, *FEW, "--expected-return", 20)
    text = " ".join(result.stdout.split())
    assert result.code == 1
    assert "scores 40.0 in all episodes of CartPole-v1, 20.0 expected" in result.stderr
    assert "verdict not compared: 20.0 apart, but its scores show no spread" in text
    assert "give --expected-standard-error; it is better than random play" in text


def test_without_a_recorded_return_it_says_what_was_not_checked(teacher):
    result = run_well("inspect", teacher, *FEW)
    text = " ".join(result.stdout.split())
    assert "not compared: no return is recorded beside it, and none was given (--expected-return R)" in text
    assert "is better than random play" in text


def test_actions_that_may_be_parts_of_the_box_are_pointed_out_also_where_nothing_is_compared(tmp_path):
    class Actor(torch.nn.Module):
        def forward(self, observations: torch.Tensor) -> torch.Tensor:
            return torch.tanh(observations[:, :1])

    exported = torch.export.export(Actor(), (torch.zeros(2, 3),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(exported, tmp_path / "actor.pt2")
    said = ("inspect", tmp_path / "actor.pt2", "--trust", "--task", "Pendulum-v1", *FEW)
    hint = "its actions stay within ±1, and the box is [-2, 2]. If ±1 stands for the box's bounds"
    assert hint in " ".join(run_well(*said, "--outputs", "actions").stdout.split())
    result = " ".join(run_well(*said, "--outputs", "actions=rescale").stdout.split())
    assert hint not in result
    assert "rescaled from [-1, 1] to [-2, 2], as declared" in result


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["net3", "--verify"], "--verify plays a policy: net3 is a network."),
        (["net3", "--expected-return", "3"], "expected_return belongs with --verify, which plays the policy."),
        (["net3", "--verify", "--num-episodes", "0"], "num_episodes must be"),
    ],
)
def test_wrong_usage(argv, message):
    result = run("inspect", *argv)
    assert result.code == 2
    assert message in result.line


def test_a_dry_run_plays_nothing(teacher):
    assert "expected_return = 40.0" in run_well("inspect", teacher, *FEW, "--expected-return", 40, "--dry-run").stdout


def test_a_negative_return_may_be_expected(teacher):
    assert run("inspect", teacher, *FEW, "--expected-return", -20, "--expected-standard-error", 1, "--quiet").code == 1


def test_a_gap_is_one_json_object_with_the_error_in_it(teacher):
    result = run("inspect", teacher, *FEW, *TWENTY, "--json")
    assert result.code == 1
    assert result.json["verification"]["verdict"] == "differs"
    assert result.json["error"].startswith("Verification failed: hand-made scores 40.0")


def test_a_warning_of_an_adapter_is_told_once(tmp_path, monkeypatch):
    """The file is read once to be described and once to be played."""
    monkeypatch.chdir(tmp_path)
    network = QNetwork()
    network.network[4] = nn.Linear(10, 2)
    torch.save(randomised(network).state_dict(), "dqn.pt")
    options = ("--task", "CartPole-v1", "--behaviour", "sample")
    warning = "Q-values, which are no chances"
    assert run("inspect", "dqn.pt", *options).stderr.count(warning) == 1
    assert run("inspect", "dqn.pt", *options, *FEW).stderr.count(warning) == 1
