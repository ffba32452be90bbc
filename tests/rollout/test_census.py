"""Play without chance on Atari: few starts exist, and each is played once."""

import gymnasium
import numpy as np
import pytest

from rldistill.envs import make_task
from rldistill.events import MessageEvent, ProgressEvent
from rldistill.rollout.evaluate import distinct_starts, is_deterministic
from rldistill.verbs.evaluate import evaluate
from tests.kit.cart_pole import hand_made_teacher
from tests.kit.payout import constant_policy, payout_task
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


def test_fewer_episodes_than_starts_are_a_sample_of_different_starts_with_an_interval(pong, policy):
    told = []
    result = evaluate(policy, pong, num_episodes=NUM_STARTS - 1, num_threads=1, callbacks=[told.append])
    student = result.to_dict()["policies"][0]
    assert (student["census"], len(student["episodes"])) == (False, 3)
    assert student["interval"] is None, "three are too few"
    assert "plays without chance: a sample of 3 of 4 distinct starts, each once" in told_texts(told)[0]
    assert not [event for event in told if isinstance(event, MessageEvent) and event.level == "warning"]
    wide = make_task("atari:pong", {"max_frames": 80, "noop_max": 8, "exploration_epsilon": 0.0})
    student = evaluate(policy, wide, num_episodes=5, num_threads=1).to_dict()["policies"][0]
    assert (student["census"], student["interval"]) == (False, [0.0, 0.0])


def told_texts(events) -> list[str]:
    return [event.text for event in events if isinstance(event, MessageEvent)]


def test_looking_for_starts_reports_its_progress_and_can_be_stopped(pong, policy):
    told = []
    evaluate(policy, pong, num_episodes=7, num_envs=1, num_threads=1, callbacks=[told.append])
    found = [event for event in told if isinstance(event, ProgressEvent) and event.phase == "find starts"]
    assert [event.done for event in found] == sorted(event.done for event in found)
    assert (found[0].done, found[-1].done) == (1, NUM_STARTS)
    assert {(event.total, event.unit) for event in found} == {(NUM_STARTS, "starts")}
    with pytest.raises(KeyboardInterrupt):
        evaluate(policy, pong, num_episodes=7, callbacks=[lambda event: getattr(event, "phase", "") == "find starts"])


def test_copies_elsewhere_are_warned_about_in_one_line():
    task = payout_task()
    told = []
    result = evaluate(constant_policy(task, 1), task, num_episodes=6, callbacks=[told.append])
    assert result.to_dict()["policies"][0]["num_distinct"] == 1
    assert [event.text for event in told if isinstance(event, MessageEvent) and event.level == "warning"] == [
        "always 1: only 1 of 6 episodes differ, the others are copies: without exploration it repeats itself. "
        "Its interval takes copies for new episodes; --exploration-epsilon 0.05 would make them differ."
    ]
    told.clear()
    evaluate(constant_policy(task, 1), task, num_episodes=6, exploration_epsilon=0.5, callbacks=[told.append])
    evaluate(hand_made_teacher(), num_episodes=6, callbacks=[told.append])
    assert told_texts(told) == [], "these differ"


def test_episodes_of_an_environment_with_chance_of_its_own_are_not_called_copies():
    told, counts = [], []
    noisy, slippery = payout_task(noise=1.0), make_task("FrozenLake-v1")
    policies = constant_policy(noisy, 1), small_policy(slippery.task)
    for policy, task in zip(policies, (noisy, slippery), strict=True):
        result = evaluate(policy, task, num_episodes=40, callbacks=[told.append])
        counts.append(result.to_dict()["policies"][0]["num_distinct"])
    # Few ways lead over the ice: some episodes are alike.
    assert counts[0] == 40 > counts[1] > 1
    assert told_texts(told) == []


class HiddenLayout(gymnasium.Env[np.ndarray, int]):
    """One step, whose reward depends on which of three layouts was drawn; nothing shows it before."""

    observation_space, action_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32), gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._layout = int(self.np_random.integers(3))
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), float(self._layout), True, False, {}


def test_copies_are_counted_also_where_the_first_observation_does_not_show_the_state():
    task = make_task(HiddenLayout)
    result = evaluate(small_policy(task.task), task, num_episodes=30)
    assert result.to_dict()["policies"][0]["num_distinct"] == 3


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
