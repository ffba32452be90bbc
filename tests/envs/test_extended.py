"""Zeros and a clock beside an environment's own observation, and tasks observed as a policy needs them."""

from dataclasses import replace

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from rldistill.envs import make_task
from rldistill.errors import UsageError
from rldistill.tasks import Task
from tests.kit.tiny_envs import ContextualBandit, OddSpaces, TinyChain

BOTH = {"zero_padding": 3, "time_feature": 100}


def clocks(envs, num_steps):
    return [envs.step(np.zeros(envs.num_envs, np.int64)).observations[:, -1].tolist() for _ in range(num_steps)]


def test_zeros_and_then_a_clock_are_appended_to_the_environments_own_observation():
    envs, plain = make_task("CartPole-v1", BOTH).make_envs(2, 1), make_task("CartPole-v1").make_envs(2, 1)
    for step in range(3):
        got = envs.reset([0, 1], [5, 6]) if step == 0 else envs.step(np.array([0, 1])).observations
        own = plain.reset([0, 1], [5, 6]) if step == 0 else plain.step(np.array([0, 1])).observations
        appended = np.array([[0, 0, 0, 1 - step / 100]] * 2, np.float32)
        np.testing.assert_array_equal(got, np.concatenate([own, appended], axis=1))
        assert got.dtype == np.float32


def test_a_clock_begins_at_1_with_every_episode_of_its_slot_alone():
    envs = make_task(ContextualBandit, {"time_feature": 10}).make_envs(2, 1)
    assert envs.reset([0, 1], [0, 1])[:, -1].tolist() == [1.0, 1.0]
    np.testing.assert_allclose(clocks(envs, 2), [[0.9, 0.9], [0.8, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(envs.reset([1], [3])[:, -1], [0.8, 1.0], rtol=1e-6)
    np.testing.assert_allclose(clocks(envs, 1), [[0.7, 0.9]], rtol=1e-6)


def test_the_last_observation_of_an_episode_has_its_own_time_and_keeps_it():
    envs = make_task(ContextualBandit, {"time_feature": 10}).make_envs(1, 1)
    envs.reset([0], [0])
    np.testing.assert_allclose(clocks(envs, 12)[-4:], [[0.1], [0.0], [0.0], [0.0]], atol=1e-6)


def test_extended_observations_stand_in_the_fingerprint_and_not_among_the_environments_arguments():
    task = make_task("CartPole-v1", {**BOTH, "max_episode_steps": 9}).task
    assert task.fingerprint.observation_shape == (8,)
    assert (task.fingerprint.zero_padding, task.fingerprint.time_feature) == (3, 100)
    assert task.environment_kwargs == {"max_episode_steps": 9}


def test_an_extended_task_is_made_again_from_its_record():
    played = make_task("CartPole-v1", BOTH)
    again = make_task(Task.from_dict(played.with_exploration(0.2).task.to_dict()))
    assert again.task == played.task, "the exploration of a record is that of its own episodes"
    assert again.make_envs(1, 1).reset([0], [0]).shape == (1, 8)


def test_vector_environments_are_extended_too():
    playable = make_task(SyncVectorEnv([ContextualBandit] * 2), {"time_feature": 10})
    assert playable.fixed_num_envs == 2
    envs = playable.make_envs(2, 1)
    assert envs.reset([0, 1], [0, 1]).shape == (2, 4)
    np.testing.assert_allclose(clocks(envs, 1), [[0.9, 0.9]], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zero_padding": -1}, "zero_padding: got -1, expected a whole number, 0 or more."),
        ({"zero_padding": 1.5}, "zero_padding: got 1.5, expected a whole number, 0 or more."),
        ({"zero_padding": True}, "zero_padding: got True, expected a whole number, 0 or more."),
        ({"time_feature": 0}, "time_feature: got 0, expected a whole number, 1 or more."),
        ({"time_feature": "1000"}, "time_feature: got '1000', expected a whole number, 1 or more."),
    ],
)
def test_what_cannot_be_appended_is_refused(options, message):
    with pytest.raises(UsageError) as caught:
        make_task("CartPole-v1", options)
    assert str(caught.value) == message


def test_no_clock_may_be_said_too():
    assert make_task("CartPole-v1", {"zero_padding": 0, "time_feature": None}).task == make_task("CartPole-v1").task


def test_images_cannot_be_extended():
    images = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    with pytest.raises(UsageError) as caught:
        make_task(lambda: OddSpaces(images, spaces.Discrete(2)), {"time_feature": 10})
    assert str(caught.value) == (
        "Task 'python:<lambda>': zero_padding and time_feature extend float32 vectors, got observations "
        "uint8 [8, 8, 3]. Leave them out."
    )


def test_a_record_with_what_is_to_be_appended_beside_it_is_refused():
    with pytest.raises(UsageError, match=r"^Environment options \(time_feature\) belong with a task's name"):
        make_task(make_task("CartPole-v1").task, {"time_feature": 10})


# Observed as a policy needs it


def test_a_task_is_extended_as_a_policy_needs_it():
    needed = make_task("CartPole-v1", BOTH).task.fingerprint
    playable = make_task("CartPole-v1").with_exploration(0.3)
    observed = playable.observed_as(needed)
    assert needed.differences(observed.task.fingerprint) == []
    assert observed.task.protocol.exploration_epsilon == 0.3
    assert observed.make_envs(1, 1).reset([0], [0]).shape == (1, 8)


def test_an_extended_task_is_given_back_plain_or_extended_otherwise():
    plain, extended = make_task("CartPole-v1"), make_task("CartPole-v1", BOTH)
    assert extended.observed_as(plain.task.fingerprint).task == plain.task
    other = make_task("CartPole-v1", {"zero_padding": 1})
    assert extended.observed_as(other.task.fingerprint).task == other.task


def test_a_task_given_in_python_is_extended_too():
    needed = make_task(ContextualBandit, {"time_feature": 10}).task.fingerprint
    assert make_task(ContextualBandit).observed_as(needed).make_envs(1, 1).reset([0], [0]).shape == (1, 4)


@pytest.mark.parametrize(
    "change",
    [
        {},  # nothing else is needed
        {"observation_shape": (7,), "time_feature": 10},  # another environment altogether
        {"zero_padding": 2},  # the shape does not allow for it
    ],
)
def test_a_task_that_would_not_fit_either_stays_as_it_is(change):
    playable = make_task("CartPole-v1")
    assert playable.observed_as(replace(playable.task.fingerprint, **change)) is playable


def test_an_atari_task_stays_as_it_is():
    playable = make_task("atari:pong")
    assert playable.observed_as(replace(playable.task.fingerprint, time_feature=10)) is playable


@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")
def test_the_clock_of_the_zoos_ant_is_its_112th_input():
    for package in ("mujoco", "imageio"):  # what gymnasium[mujoco] brings
        pytest.importorskip(package)
    envs = make_task("Ant-v4", {"zero_padding": 84, "time_feature": 1000}).make_envs(1, 1)
    envs.reset([0], [0])
    observation = envs.step(np.zeros((1, 8), np.float32)).observations[0]
    assert observation.shape == (112,)
    assert not observation[27:111].any()
    assert observation[111] == np.float32(0.999)


def test_discrete_observations_are_vectors_and_may_have_a_clock():
    assert make_task(TinyChain, {"time_feature": 5}).make_envs(1, 1).reset([0], [0]).tolist() == [[1, 0, 0, 0, 0, 1]]
