"""Gymnasium environments and vector environments as slots: spaces turned into arrays, ends, and episodes by seed."""

import gymnasium
import gymnasium.wrappers
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rldistill.envs import make_task
from rldistill.errors import EnvironmentFaultError, TaskError, UsageError
from tests.kit.tiny_envs import ContextualBandit, Remembering, ShiftedSpaces, TinyChain

MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED]


def vector_of(make, num_envs, mode):
    return make_task(SyncVectorEnv([make] * num_envs, autoreset_mode=mode)).make_envs(num_envs, 1)


def play(envs, slot, seed, actions):
    """Return observations and rewards of one slot; the others do the same as it does."""
    observations, rewards = [envs.reset([slot], [seed])[slot]], []
    for action in actions:
        step = envs.step(np.full(envs.num_envs, action))
        observations.append(step.observations[slot])
        rewards.append(step.rewards[slot])
        if step.ended[slot]:
            break
    return np.stack(observations), np.array(rewards)


def test_observations_and_rewards_are_the_environments_own():
    envs = make_task("CartPole-v1").make_envs(2, 1)
    env = gymnasium.make("CartPole-v1")
    observations = envs.reset([0, 1], [5, 6])
    np.testing.assert_array_equal(observations[1], env.reset(seed=6)[0])
    for action in [0, 1, 1, 0, 1]:
        step = envs.step(np.array([1, action]))
        expected = env.step(action)
        np.testing.assert_array_equal(step.observations[1], expected[0])
        assert (step.rewards[1], step.terminated[1], step.truncated[1]) == expected[1:4]
    assert step.observations.dtype == np.float32
    assert step.lives is None
    assert envs.start_ids() is None


def test_box2d_episodes_are_the_same_when_repeated_in_the_same_slot():
    envs = make_task("LunarLander-v3").make_envs(1, 1)
    actions = np.random.default_rng(0).integers(0, 4, 100)
    first, second = (play(envs, 0, 3, actions) for _ in range(2))
    assert len(first[0]) > 50
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    envs.close()


@pytest.mark.parametrize(("num_envs", "slot"), [(1, 0), (3, 1)])
def test_an_episode_does_not_depend_on_what_its_slot_played_before(num_envs, slot):
    # As BipedalWalker, which keeps its Box2D world: without a new environment the second episode would differ.
    fresh = play(make_task(Remembering).make_envs(1, 1), 0, 8, [0, 0, 1])
    envs = make_task(Remembering).make_envs(num_envs, 1)
    envs.reset(range(num_envs), range(num_envs))
    envs.step(np.zeros(num_envs, np.int64))
    again = play(envs, slot, 8, [0, 0, 1])
    np.testing.assert_array_equal(again[0], fresh[0])


SAME_TWICE = (
    "Task 'python:<lambda>': its callable gives the same environment twice, expected a new one at each call: "
    "lambda: gymnasium.make(…)."
)


@pytest.mark.parametrize("wrap", [lambda env: env, gymnasium.wrappers.FlattenObservation])
def test_a_callable_that_gives_one_environment_to_several_slots_is_refused(wrap):
    env = gymnasium.make("CartPole-v1")
    task = make_task(lambda: wrap(env))
    with pytest.raises(TaskError) as caught:
        task.make_envs(2, 1)
    assert str(caught.value) == SAME_TWICE
    task.make_envs(1, 1).reset([0], [1])  # one slot steps nobody else's


def test_a_callable_that_gives_one_environment_where_a_new_one_is_needed_is_refused():
    env = Remembering()
    envs = make_task(lambda: env).make_envs(1, 1)
    envs.reset([0], [1])
    with pytest.raises(TaskError) as caught:
        envs.reset([0], [2])
    assert str(caught.value) == SAME_TWICE


class FallsFaster(gymnasium.Wrapper):
    """A curriculum that keeps its place over resets: each episode pushes with another force."""

    num_resets = 0

    def reset(self, **settings):
        self.num_resets += 1
        self.unwrapped.force_mag = 10.0 / self.num_resets
        return super().reset(**settings)


@pytest.mark.parametrize("wrap", [gymnasium.wrappers.NormalizeObservation, FallsFaster])
@pytest.mark.parametrize("outer", [lambda env: env, lambda env: gymnasium.wrappers.TimeLimit(env, 20)])
def test_an_episode_does_not_depend_on_what_a_wrapper_kept_of_those_before(wrap, outer):
    task = make_task(lambda: outer(wrap(gymnasium.make("CartPole-v1"))))
    fresh, used = task.make_envs(1, 1), task.make_envs(1, 1)
    play(used, 0, 3, [0, 1, 0, 1])
    expected, again = play(fresh, 0, 8, [0, 1, 1, 0]), play(used, 0, 8, [0, 1, 1, 0])
    np.testing.assert_array_equal(again[0], expected[0])


def watched(env):
    return gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.wrappers.FlattenObservation(env))


@pytest.mark.parametrize("wrap", [lambda env: env, watched])
@pytest.mark.parametrize("name", ["CartPole-v1", "FrozenLake-v1"])
def test_what_is_known_to_start_afresh_is_made_once(name, wrap):
    made = []

    def make():
        made.append(wrap(gymnasium.make(name)))
        return made[-1]

    envs = make_task(make).make_envs(1, 1)
    for seed in range(3):
        envs.reset([0], [seed])
    assert len(made) == 2  # the first one showed its spaces


def test_environments_that_remember_are_kept_where_no_seed_asks_for_a_fresh_start():
    envs = make_task(Remembering).make_envs(1, 1)
    envs.reset([0], [1])
    assert envs.reset([0], None)[0, 0] == 2  # its second reset
    assert envs.reset([0], [1])[0, 0] == 1  # a new environment


def test_replaced_environments_are_closed():
    made = []

    def make():
        made.append(Remembering())
        return made[-1]

    envs = make_task(make).make_envs(1, 1)
    envs.reset([0], [1])
    envs.reset([0], [2])
    assert [env.is_closed for env in made] == [True, True, False]  # the first one showed its spaces
    envs.close()
    assert made[-1].is_closed


def test_environments_that_fail_in_close_are_told_of_once_and_what_they_played_is_kept():
    class Unclosable(TinyChain):
        def close(self):
            closed.append(self)
            raise RuntimeError("Not connected to the simulator.")

    closed = []
    line = (
        "Task 'python:Unclosable': its environment raised RuntimeError in close: Not connected to the simulator. What "
        "was played before is kept."
    )
    with pytest.warns(UserWarning) as told:
        task = make_task(Unclosable)  # which looks at one
        task.make_envs(3, 1).close()
        assert task.longest_episode is None
    assert [str(warning.message) for warning in told] == [line] * 3
    assert len(closed) == 1 + 3 + 1


@pytest.mark.parametrize(("name", "num_states", "num_actions"), [("FrozenLake-v1", 16, 4), ("CliffWalking-v1", 48, 4)])
def test_discrete_observations_become_one_hot_vectors(name, num_states, num_actions):
    task = make_task(name)
    assert task.task.fingerprint.observation_shape == (num_states,)
    assert task.task.fingerprint.observation_dtype == "float32"
    assert task.task.fingerprint.action_layout.sizes == (num_actions,)
    env = gymnasium.make(name)
    envs = task.make_envs(1, 1)
    state, _ = env.reset(seed=4)
    np.testing.assert_array_equal(envs.reset([0], [4])[0], np.eye(num_states, dtype=np.float32)[state])
    for action in [1, 2, 1, 2]:
        state = env.step(action)[0]
        np.testing.assert_array_equal(envs.step(np.array([action])).observations[0], np.eye(num_states)[state])


@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")
def test_taxi_has_500_states():
    assert make_task("Taxi-v4").task.fingerprint.observation_shape == (500,)


@pytest.mark.parametrize("mode", [None, *MODES])
def test_discrete_spaces_that_do_not_begin_at_0_are_counted_from_0(mode):
    envs = make_task(ShiftedSpaces).make_envs(2, 1) if mode is None else vector_of(ShiftedSpaces, 2, mode)
    np.testing.assert_array_equal(envs.reset([0, 1], [1, 2]), [[1, 0, 0]] * 2)
    for action in [0, 1, 2]:
        step = envs.step(np.array([action, action]))
        np.testing.assert_array_equal(step.observations, np.eye(3)[[action, action]])
        np.testing.assert_array_equal(step.rewards, [action - 1.0] * 2)


def test_the_last_observation_of_an_episode_is_returned_and_kept_until_its_reset():
    envs = make_task(lambda: gymnasium.wrappers.TimeLimit(ContextualBandit(), 3)).make_envs(2, 1)
    envs.reset([0, 1], [1, 2])
    steps = [envs.step(np.array([0, 0])) for _ in range(3)]
    assert [step.ended.tolist() for step in steps] == [[False, False], [False, False], [True, True]]
    idle = envs.step(np.array([0, 0]))
    np.testing.assert_array_equal(idle.observations, steps[-1].observations)
    assert (idle.rewards.tolist(), idle.ended.tolist()) == ([0.0, 0.0], [False, False])


def test_a_slot_that_was_never_reset_stays_idle():
    envs = make_task(TinyChain).make_envs(2, 1)
    envs.reset([1], [0])
    step = envs.step(np.array([0, 0]))
    assert step.terminated.tolist() == [False, True]
    assert step.rewards.tolist() == [0.0, 0.3]


def test_terminated_and_truncated_at_once_counts_as_terminated():
    envs = make_task(Remembering).make_envs(1, 1)
    envs.reset([0], [0])
    step = envs.step(np.array([1]))
    assert (step.terminated[0], step.truncated[0]) == (True, False)


def test_what_was_returned_is_not_changed_by_later_steps():
    for envs in (
        make_task("CartPole-v1").make_envs(2, 1),
        vector_of(lambda: gymnasium.make("CartPole-v1"), 2, MODES[0]),
    ):
        first = envs.reset([0, 1], [1, 2])
        step = envs.step(np.array([0, 1]))
        kept = [first, step.observations, step.rewards, step.terminated]
        copies = [array.copy() for array in kept]
        envs.step(np.array([0, 1]))
        envs.reset([0], [9])
        for array, copy in zip(kept, copies, strict=True):
            np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_idle_steps", [0, 1, 3])
def test_a_vector_environment_plays_the_same_episodes(mode, num_idle_steps):
    actions = np.random.default_rng(0).integers(0, 2, 200)
    expected = play(make_task("CartPole-v1").make_envs(1, 1), 0, 11, actions)
    envs = vector_of(lambda: gymnasium.make("CartPole-v1"), 3, mode)
    envs.reset([0, 1, 2], [1, 2, 3])
    play(envs, 1, 4, [1] * 100)  # to its end: CartPole falls over
    for _ in range(num_idle_steps):
        envs.step(np.array([1, 1, 1]))
    got = play(envs, 1, 11, actions)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])


@pytest.mark.parametrize("mode", MODES)
def test_resetting_one_slot_of_a_fresh_vector_environment_works(mode):
    envs = vector_of(lambda: gymnasium.make("CartPole-v1"), 3, mode)
    expected = gymnasium.make("CartPole-v1").reset(seed=7)[0]
    np.testing.assert_array_equal(envs.reset([2], [7])[2], expected)


def test_a_vector_environment_is_named_after_its_environment_and_has_its_own_number_of_slots():
    envs = gymnasium.make_vec("CartPole-v1", 3, vectorization_mode="sync")
    task = make_task(envs)
    assert (task.task.name, task.fixed_num_envs) == ("CartPole-v1", 3)
    assert task.make_envs(16, 1).num_envs == 3


def test_a_vector_environment_stays_open_for_its_owner():
    vector = SyncVectorEnv([TinyChain])
    make_task(vector).make_envs(1, 1).close()
    assert not vector.closed
    vector.close()


def test_a_vector_environment_that_resets_in_the_same_step_is_refused():
    vector = SyncVectorEnv([TinyChain], autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(UsageError) as caught:
        make_task(vector)
    assert str(caught.value) == (
        "VectorEnv: got autoreset mode SAME_STEP, expected NEXT_STEP or DISABLED. Make it with "
        "autoreset_mode=gymnasium.vector.AutoresetMode.DISABLED."
    )


def test_a_vector_environment_that_takes_no_seed_per_slot_is_refused():
    vector = gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point")
    line = (
        r"^VectorEnv CartPoleVectorEnv failed: its environment raised \w+ in reset: .* Mend it, .* Where it cannot "
        r"begin single episodes by seed, make it with gymnasium\.make_vec\(…, vectorization_mode='sync'\), or name the "
        r"task, such as CartPole-v1\.$"
    )
    with pytest.raises(EnvironmentFaultError, match=line):
        make_task(vector).make_envs(2, 1).reset([0, 1], [1, 2])


class RestartsAll(SyncVectorEnv):
    """A vector environment that does not know `reset_mask`."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)


@pytest.mark.parametrize("is_fresh", [True, False])
def test_a_vector_environment_that_restarts_all_where_some_are_to_be_reset_is_refused(is_fresh):
    envs = make_task(RestartsAll([lambda: gymnasium.make("CartPole-v1")] * 3)).make_envs(3, 1)
    if not is_fresh:
        envs.reset([0, 1, 2], [1, 2, 3])
        envs.step(np.zeros(3, np.int64))
    with pytest.raises(TaskError, match=r"^VectorEnv RestartsAll: a reset of some of its environments changed what"):
        envs.reset([1], [7])


class AsksNumPy(gymnasium.ActionWrapper):
    """A wrapper that takes actions for NumPy's numbers, as spaces sample them."""

    def action(self, action):
        return action.item()


def test_an_action_is_one_of_numpys_numbers_as_spaces_sample_them():
    envs = make_task(lambda: AsksNumPy(gymnasium.make("CartPole-v1"))).make_envs(2, 1)
    envs.reset(range(2), [0, 1])
    assert np.isfinite(envs.step(np.array([0, 1])).observations).all()
