"""How a file was read where the usual mistakes are made, and what speaks for one."""

import numpy as np
import pytest
import torch

from rldistill.adapters.load import load_policy
from rldistill.envs import make_task
from rldistill.errors import GateError
from rldistill.inspection.expected import likely_causes
from rldistill.networks import parse_architecture
from rldistill.policies import TorchPolicy
from rldistill.verbs.verification import check_verified, verify
from tests.kit.push import PUSH_TASK, push_policy


def findings(verification):
    return {finding.mistake: finding for finding in verification.findings}


# How it was read


def test_how_a_file_was_read_is_told_where_the_usual_mistakes_are_made():
    read = findings(verify(push_policy(), num_episodes=6))
    assert {name: finding.as_played for name, finding in read.items()} == {
        "normaliser": "applied, clipped to ±10",
        "activation": "tanh",
        "action scaling": "tanh, then rescaled to [-2, 2]",
        "time feature": "none",
        "environment version": PUSH_TASK,
        "greedy or sampling": "greedy",
    }
    assert findings(verify(push_policy("actions"), num_episodes=6))["greedy or sampling"].as_played == "deterministic"


def test_a_clock_is_told_with_its_length():
    task = make_task("CartPole-v1", {"time_feature": 40, "max_episode_steps": 40})
    policy = TorchPolicy.create(parse_architecture("mlp:4"), [task.task], output_kind="logits")
    assert findings(verify(policy, task, num_episodes=6))["time feature"].as_played == "1 − t / 40"


def test_a_missing_normaliser_is_told():
    policy = push_policy(normalised=False).with_provenance({"source": {"notes": ["vecnormalize.pkl is missing."]}})
    (note,) = {finding.note for finding in findings(verify(policy, num_episodes=6)).values()} - {None}
    assert note == "missing"


def test_quantiles_are_spoken_of_where_there_are_any():
    policy = push_policy().with_provenance({"source": {"algorithm": "qrdqn"}})
    assert "quantile order" in findings(verify(policy, num_episodes=6))
    assert "quantile order" not in findings(verify(push_policy(), num_episodes=6))


def test_of_a_program_what_is_inside_is_not_told():
    def push(observations):
        return torch.cat([observations[:, :1] * 0 + 1, observations[:, :1] * 0 - 20], dim=1)

    verification = verify(load_policy(push, task=PUSH_TASK, outputs="gaussian"), num_episodes=6)
    assert verification.played.mean == 10
    assert findings(verification)["activation"].as_played == "inside the program, not to be seen"


# What its outputs say


def squashed(observations):
    return torch.tanh(observations[:, :1] / 20)


@pytest.mark.parametrize("kind", ["function", "module"])
def test_actions_in_parts_of_a_wider_box_are_named_as_the_likely_cause(kind):
    class Module(torch.nn.Module):
        def forward(self, observations):
            return squashed(observations)

    source = squashed if kind == "function" else Module()
    policy = load_policy(source, task=PUSH_TASK, outputs="actions")
    said = {"num_episodes": 5, "expected_return": 20 * float(np.tanh(0.25)), "expected_standard_error": 0.01}
    verification = verify(policy, PUSH_TASK, **said)
    likely = (
        "its actions stay within ±1, and the box is [-2, 2]. If ±1 stands for the box's bounds, as in exports of "
        "Stable-Baselines3's actors, say --outputs actions=rescale, or --outputs 'actions=rescale(NAME)'"
    )
    assert verification.likely_causes == (likely,)
    with pytest.raises(GateError) as caught:
        check_verified(verification)
    assert str(caught.value).endswith(f" Likely cause: {likely}.")
    scaled = load_policy(source, task=PUSH_TASK, outputs="actions=rescale")
    verification = verify(scaled, PUSH_TASK, **said)
    assert findings(verification)["action scaling"].as_played == "rescaled from [-1, 1] to [-2, 2], as declared"
    check_verified(verification)


@pytest.mark.parametrize("source", [lambda x: x[:, :1] * 3, lambda x: 0.5 * torch.tanh(x[:, :1])])
def test_other_actions_are_no_parts_of_the_box(source):
    largest = 2.0 if float(source(torch.ones(1, 2))) > 1 else 1.0
    playable = make_task(PUSH_TASK, {"largest": largest})
    policy = load_policy(source, task=playable.task, outputs="actions")
    assert likely_causes(policy, playable) == ()
