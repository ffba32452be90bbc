"""Play without chance on Atari: few starts exist, and each is played once."""

import pytest

from rldistill.envs import make_task
from rldistill.rollout.evaluate import distinct_starts, is_deterministic
from rldistill.runs.evaluate import evaluate
from tests.kit.cart_pole import hand_made_teacher
from tests.kit.small_policies import small_policy

NUM_STARTS = 4


@pytest.fixture(scope="module")
def pong():
    return make_task("atari:pong", {"max_frames": 80, "noop_max": NUM_STARTS, "exploration_epsilon": 0.0})


@pytest.fixture(scope="module")
def policy(pong):
    return small_policy(pong.task, network="conv:4-4:8")


def test_all_starts_are_found_and_are_the_same_from_any_number_of_environments(pong):
    found = []
    for num_envs in (1, 3):
        envs = pong.make_envs(num_envs, 1)
        found.append(distinct_starts(envs, seed=0, expected=NUM_STARTS))
        envs.close()
    assert found[0] == found[1] == sorted(found[0])
    assert len(found[0]) == NUM_STARTS


def test_starts_that_cannot_be_told_apart_are_an_error():
    envs = make_task("CartPole-v1").make_envs(1, 1)
    with pytest.raises(ValueError, match="cannot be enumerated"):
        distinct_starts(envs, seed=0, expected=1)


def test_a_greedy_policy_without_exploration_is_reported_as_a_census_without_interval(pong, policy):
    result = evaluate(policy, pong, num_episodes=7, num_envs=3, num_threads=1).to_dict()
    student, random = result["policies"]
    assert student["census"] is True
    assert student["num_distinct"] == len(student["episodes"]) == NUM_STARTS <= 30
    assert student["interval"] is student["iqm_interval"] is None
    assert student["degenerate"] is False
    assert random["census"] is False, "random play draws: its episodes are not copies"
    assert random["num_distinct"] == len(random["episodes"]) == 7
    assert random["interval"] == [0.0, 0.0], "20 decisions are too few for a point"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, False),
        ({"exploration_epsilon": 0.0}, True),
        ({"exploration_epsilon": 0.0, "sticky_action_probability": 0.25}, False),
    ],
)
def test_play_is_deterministic_without_exploration_and_sticky_actions_only(options, expected):
    task = make_task("atari:pong", options)
    greedy = small_policy(task.task, network="conv:4-4:8")
    epsilon = task.task.protocol.exploration_epsilon
    assert is_deterministic(greedy, task, epsilon) is expected
    assert not is_deterministic(greedy.with_spec(behaviour="sample"), task, epsilon)


def test_a_gymnasium_task_is_never_a_census():
    assert not is_deterministic(hand_made_teacher(), make_task("CartPole-v1"), 0.0)
