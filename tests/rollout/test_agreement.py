"""How often another policy would have done the same, asked on the states of the one that plays."""

import pytest

from rldistill.rollout.evaluate import play_episodes
from rldistill.rollout.player import EpisodePlayer
from tests.kit.cart_pole import hand_made_teacher, short_cart_pole


@pytest.fixture
def task():
    return short_cart_pole(max_episode_steps=41)


def likeness(task, others, *, num_envs: int = 3, num_episodes: int = 6):
    envs = task.make_envs(num_envs, 1)
    return play_episodes(
        hand_made_teacher(task), envs, range(num_episodes), seed=0, exploration_epsilon=0.1, compared=others
    ).likeness


def agreement(task, others, **settings):
    return {name: alike.value for name, alike in likeness(task, others, **settings).items()}


def test_a_policy_agrees_with_itself_always_and_with_its_negation_never(task):
    others = {
        "itself": hand_made_teacher(task),
        "tempered": hand_made_teacher(task, scale=0.01),
        "negation": hand_made_teacher(task, scale=-1.0),
    }
    assert agreement(task, others) == {"itself": 1.0, "tempered": 1.0, "negation": 0.0}


def test_a_constant_policy_agrees_as_often_as_its_action_is_right(task):
    always_left = hand_made_teacher(task, scale=0.0)
    envs = task.make_envs(2, 1)
    teacher = hand_made_teacher(task)
    player = EpisodePlayer(teacher, envs, range(6), seed=0, exploration_epsilon=0.1, labellers={"policy": teacher})
    asked = [
        int(action)
        for step in player.play()
        for action, number in zip(step.labels["policy"].raw.argmax(dim=1), step.steps, strict=True)
        if number % 4 == 0
    ]
    share = agreement(task, {"left": always_left})["left"]
    assert share == asked.count(0) / len(asked)
    assert 0 < share < 1


def test_agreement_is_known_by_episode_whatever_the_number_of_environments(task):
    others = {"left": hand_made_teacher(task, scale=0.0)}
    one, four = (likeness(task, others, num_envs=number)["left"] for number in (1, 4))
    assert one.totals.tolist() == four.totals.tolist()
    # Every fourth state of at most 41, from the first on.
    assert one.counts.tolist() == four.counts.tolist() == [11.0] * 6
    assert len(set(one.totals.tolist())) > 1


def test_nobody_compared_nothing_said(task):
    assert agreement(task, {}) == {}
