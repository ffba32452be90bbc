"""What a learner that is still learning teaches, and on which episodes it is judged."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rldistill.distillation.online import OnlineJudge, OnlineSource
from rldistill.options.distill import Online
from rldistill.session.metrics import read_metrics
from tests.kit.cart_pole import hand_made_teacher, short_cart_pole
from tests.kit.small_policies import small_policy


@pytest.mark.parametrize(("teacher", "scale"), [("best", 1.0), ("current", 2.0)])
def test_rows_are_labelled_by_the_teacher_asked_for(teacher, scale, tmp_path):
    rows = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    replay = SimpleNamespace(
        num_drawable=5,
        draw=lambda numbers: np.arange(len(numbers)),
        observation_parts=lambda steps: {"observation": rows[steps]},
    )
    learner = SimpleNamespace(policy=hand_made_teacher(), replay=replay, num_steps=0)
    source = OnlineSource(
        learner,
        SimpleNamespace(),
        short_cart_pole(),
        Online("CartPole-v1", algorithm="dqn", online_teacher=teacher, judge_period=1),
        folder=tmp_path,
        num_updates=1,
        seed=0,
    )
    source.teach(0, learner.policy, None)
    learner.policy.network.load_state_dict(hand_made_teacher(scale=2.0).network.state_dict())
    expected = hand_made_teacher(scale=scale)(rows)[0].raw
    torch.testing.assert_close(source.draw(0, 5).targets["q_values"][0], expected)


def test_the_judge_plays_new_episodes_each_time(tmp_path):
    task = short_cart_pole(200)
    judge = OnlineJudge(tmp_path / "c.jsonl", task, num_episodes=20, num_envs=4, num_threads=1, seed=0)
    judge.student = policy = small_policy(task.task)
    for step in (0, 100):
        judge(step, policy)
    first, second = read_metrics(tmp_path / "c.jsonl")
    assert first["learner_scores"] != second["learner_scores"]
