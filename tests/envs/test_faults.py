"""What an environment does wrong is told in one line that names its task, what it gave and what it declared."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from rldistill.envs import make_task
from rldistill.errors import EnvironmentFaultError, TaskError

FOUR = spaces.Box(-1.0, 1.0, (4,), np.float32)
BYTES = spaces.Box(0, 255, (4,), np.uint8)
SHOWN = "Box(-1.0, 1.0, (4,), float32)"
SHOWN_BYTES = "Box(0, 255, (4,), uint8)"
NAN, INF = float("nan"), float("inf")


class Liar(gymnasium.Env[Any, Any]):
    """Declares one thing and gives another, from its first step on."""

    def __init__(self, space=FOUR, given: Any = None, *, first: Any = None, reward: Any = 1.0, flags=(False, False)):
        self.observation_space, self.action_space = space, spaces.Discrete(2)
        self._first = np.zeros(4, np.float32) if first is None else first
        self._given, self._reward, self._flags = self._first if given is None else given, reward, flags

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        return self._first, {}

    def step(self, action: int):
        return self._given, self._reward, *self._flags, {}


def step_of(*args, **kwargs):
    def liar():
        return Liar(*args, **kwargs)

    envs = make_task(liar).make_envs(2, 1)
    envs.reset([0, 1], [0, 1])
    return envs.step(np.array([0, 1]))


def message_of(*args, **kwargs) -> str:
    with pytest.raises(EnvironmentFaultError) as caught:
        step_of(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


PARTS = spaces.Dict(goal=spaces.Discrete(3), where=FOUR)


@pytest.mark.parametrize(
    ("space", "first", "given", "got", "expected"),
    [
        (FOUR, np.zeros(4), np.full(1, 0.5, np.float32), "shape [1]", f"shape [4], as {SHOWN}"),
        (FOUR, np.zeros(4), 0.25, "shape []", f"shape [4], as {SHOWN}"),
        (FOUR, np.zeros(4), np.zeros((4, 1)), "shape [4, 1]", f"shape [4], as {SHOWN}"),
        (FOUR, np.zeros(4), "north", "values of type <U5", f"numbers, as {SHOWN}"),
        (FOUR, np.zeros(4), {"a": 1}, "values of type object", f"numbers, as {SHOWN}"),
        (FOUR, np.zeros(4), [[1.0, 2.0], [3.0]], "a list", f"a value of it, as {SHOWN}"),
        (FOUR, np.zeros(4), np.zeros(4, complex), "values of type complex128", f"numbers, as {SHOWN}"),
        (BYTES, np.zeros(4, np.uint8), np.full(4, 0.7), "0.7 (float64)", "whole numbers from 0 to 255, as "),
        (
            BYTES,
            np.zeros(4, np.uint8),
            np.full(4, 300),
            "300 (int64)",
            f"whole numbers from 0 to 255, as {SHOWN_BYTES}",
        ),
        (BYTES, np.zeros(4, np.uint8), np.full(4, -1), "-1 (int64)", "whole numbers from 0 to 255, as "),
        (BYTES, np.zeros(4, np.uint8), np.full(4, NAN), "nan (float64)", "whole numbers from 0 to 255, as "),
        (spaces.Discrete(5), 0, -1, "-1", "0 to 4, as Discrete(5) declares"),
        (spaces.Discrete(5), 0, 7, "7", "0 to 4, as Discrete(5) declares"),
        (spaces.Discrete(5, start=3), 3, 1, "1", "3 to 7, as Discrete(5, start=3) declares"),
        (spaces.Discrete(5), 0, 0.5, "0.5 (float64)", "whole numbers from "),
        (spaces.Discrete(5), 0, np.zeros(2, int), "shape [2]", "shape [], as Discrete(5)"),
        (spaces.MultiDiscrete([2, 3]), np.zeros(2, int), np.array([0, 3]), "3", "0 to 2, as MultiDiscrete"),
        (
            spaces.MultiDiscrete([2, 3], start=[1, 1]),
            np.ones(2, int),
            np.array([0, 1]),
            "0",
            "1 to 2, as MultiDiscrete",
        ),
        (spaces.MultiBinary(3), np.zeros(3), np.zeros(2), "shape [2]", "shape [3], as MultiBinary(3)"),
        (
            PARTS,
            {"goal": 0, "where": np.zeros(4)},
            {"goal": 3, "where": np.zeros(4)},
            "3 of part 'goal'",
            "0 to 2, as D",
        ),
        (PARTS, {"goal": 0, "where": np.zeros(4)}, {"goal": 1}, "a dict of part 'where'", f"a value of it, as {SHOWN}"),
        (PARTS, {"goal": 0, "where": np.zeros(4)}, np.zeros(7), "a ndarray of part 'goal'", "a value of it, as Discr"),
    ],
)
def test_an_observation_that_its_space_does_not_hold_is_refused(space, first, given, got, expected):
    message = message_of(space, given, first=first)
    assert message.startswith(
        f"Task 'python:liar' gave an observation that its space does not hold: got {got}, expected {expected}"
    )
    assert message.endswith(" declares. Fix the environment, or its declared space.")


@pytest.mark.parametrize(
    ("space", "first", "given", "expected"),
    [
        (FOUR, np.zeros(4), [1, 2, 3, 4], [1, 2, 3, 4]),
        (FOUR, np.zeros(4), np.array([5.0, -7.0, 0.0, 1e30]), [5, -7, 0, 1e30]),  # beyond the bounds: kept
        (BYTES, np.zeros(4, np.uint8), np.array([0.0, 255.0, 3.0, 1.0]), [0, 255, 3, 1]),
        (BYTES, np.zeros(4, np.uint8), np.array([0, 255, 3, 1]), [0, 255, 3, 1]),
        (spaces.Discrete(3), 0, np.array([2]), [0, 0, 1]),
        (spaces.Discrete(3, start=-1), 0, np.float64(1.0), [0, 0, 1]),
        (spaces.Box(-1.0, 1.0, (), np.float32), 0.0, 0.5, [0.5]),
        (spaces.Box(-1.0, 1.0, (), np.float32), 0.0, np.array([0.5]), [0.5]),
        (spaces.MultiBinary(2), np.zeros(2), np.array([True, False]), [1, 0]),
    ],
)
def test_what_can_be_kept_as_it_is_is_kept(space, first, given, expected):
    observations = step_of(space, given, first=first).observations
    np.testing.assert_array_equal(observations, np.array([expected, expected], observations.dtype))


@pytest.mark.parametrize("given", [np.array([0.0, NAN, 1.0, 2.0]), np.array([0.0, NAN, 1.0, 2.0], np.float32)])
def test_observations_that_are_no_numbers_are_named(given):
    message = "Task 'python:liar' gave the observation [0, nan, 1, 2], expected finite numbers: nothing can be learned "
    assert message_of(given=given).startswith(message)


def test_numbers_beyond_float32_are_named_as_infinite():
    assert "gave the observation [0, 0, 0, inf], expected finite numbers" in message_of(
        given=np.array([0.0, 0.0, 0.0, 1e300])
    )


def test_the_first_observation_is_looked_at_too():
    with pytest.raises(EnvironmentFaultError, match=r"gave the observation \[inf, 0, 0, 0\], expected finite"):
        step_of(first=np.array([INF, 0.0, 0.0, 0.0]))


@pytest.mark.parametrize("reward", [np.ones(1), np.ones((1, 1)), np.float32(1), 1, True, np.array(1.0), [1.0]])
def test_a_reward_may_be_an_array_of_one_number(reward):
    assert step_of(reward=reward).rewards.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("reward", "got"),
    [
        (np.ones(2), "gave a reward of shape [2], expected one number."),
        ([], "gave a reward of shape [0], expected one number."),
        (None, "gave a reward of None, expected one number."),
        ("1", "gave a reward of '1', expected one number."),
        (NAN, "gave the reward nan, expected finite numbers: nothing can be learned from NaN or infinity."),
        (-INF, "gave the reward -inf, expected finite numbers"),
    ],
)
def test_a_reward_that_is_no_number_is_refused(reward, got):
    assert message_of(reward=reward).startswith(f"Task 'python:liar' {got}")


@pytest.mark.parametrize(
    "flags", [(np.array([True]), np.array([False])), (1, 0), (np.float32(1), np.bool_(False)), ([True], 0.0)]
)
def test_flags_may_be_numbers_and_arrays_of_one(flags):
    step = step_of(flags=flags)
    assert (step.terminated.tolist(), step.truncated.tolist()) == ([True, True], [False, False])


@pytest.mark.parametrize(
    ("flags", "got"),
    [
        (("no", False), "'no' as terminated"),
        ((None, False), "None as terminated"),
        ((False, {}), "a dict as truncated"),
        ((2, False), "2 as terminated"),
        ((NAN, False), "nan as terminated"),
        ((False, np.ones(3, bool)), "an array of type bool and shape [3] as truncated"),
        ((False, []), "an array of type float64 and shape [0] as truncated"),
    ],
)
def test_a_flag_that_is_no_truth_value_is_refused(flags, got):
    assert message_of(flags=flags) == (
        f"Task 'python:liar' gave {got}, expected True or False: whether the episode ended. Fix the environment."
    )


def test_vector_environments_are_looked_at_likewise():
    envs = make_task(SyncVectorEnv([lambda: Liar(given=np.full(4, NAN)), Liar])).make_envs(2, 1)
    envs.reset([0, 1], [0, 1])
    with pytest.raises(EnvironmentFaultError, match=r"^VectorEnv SyncVectorEnv gave the observation \[nan, nan"):
        envs.step(np.array([0, 0]))
    envs = make_task(SyncVectorEnv([lambda: Liar(reward=NAN), Liar])).make_envs(2, 1)
    envs.reset([0, 1], [0, 1])
    with pytest.raises(EnvironmentFaultError, match=r"^VectorEnv SyncVectorEnv gave the reward nan"):
        envs.step(np.array([0, 0]))


@pytest.mark.parametrize(("rewards", "got"), [(None, "None"), (np.ones(3), "type float64 and shape [3]"), (1.0, "1.0")])
def test_rewards_of_a_vector_environment_are_a_number_each(rewards, got):
    own = SyncVectorEnv([Liar, Liar])
    step = own.step
    own.step = lambda actions: (step(actions)[0], rewards, *step(actions)[2:])
    envs = make_task(own).make_envs(2, 1)
    envs.reset([0, 1], [0, 1])
    with pytest.raises(EnvironmentFaultError) as caught:
        envs.step(np.zeros(2, np.int64))
    assert got in str(caught.value) and "expected 2 numbers. Fix the environment." in str(caught.value)


def test_flags_of_a_vector_environment_are_truth_values():
    own = SyncVectorEnv([Liar, Liar])
    envs = make_task(own).make_envs(2, 1)
    envs.reset([0, 1], [0, 1])
    own.step = lambda actions: (np.zeros((2, 4), np.float32), np.zeros(2), ["no", "no"], [False, False], {})
    line = r"^VectorEnv SyncVectorEnv gave an array of type <U2 and shape \[2\] as terminated, expected 2 of True"
    with pytest.raises(EnvironmentFaultError, match=line):
        envs.step(np.array([0, 0]))


class Breaking(Liar):
    """Raises where it is told to."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        if self._where == "reset":
            raise KeyError("no such level")
        return super().reset(seed=seed, options=options)

    def step(self, action: int):
        if self._where == "step":
            raise RuntimeError
        return super().step(action)[:4] if self._where == "old step" else super().step(action)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("reset", "raised KeyError in reset: 'no such level'. Mend it, or what it needs"),
        ("step", "raised RuntimeError in step. Mend it, or what it needs"),
        ("old step", "raised ValueError in step: not enough values to unpack (expected 5, got 4). Mend it"),
    ],
)
def test_what_an_environment_raises_is_told_as_its_own(where, told):
    def breaking():
        return Breaking(where)

    envs = make_task(breaking).make_envs(1, 1)
    with pytest.raises(EnvironmentFaultError) as caught:
        envs.reset([0], [0])
        envs.step(np.array([0]))
    assert str(caught.value).startswith(f"Task 'python:breaking' failed: its environment {told}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("slots", [[0, 1], [0]])
@pytest.mark.parametrize("kind", [ValueError, RuntimeError])
def test_what_environments_of_a_vector_raise_in_reset_is_told_as_theirs(slots, kind):
    class Unlicensed(Liar):
        def reset(self, **_):
            raise kind("no licence")

    envs = make_task(SyncVectorEnv([Unlicensed, Unlicensed])).make_envs(2, 1)
    line = f"^VectorEnv SyncVectorEnv failed: its environment raised {kind.__name__} in reset: no licence. Mend it"
    with pytest.raises(EnvironmentFaultError, match=line):
        envs.reset(slots, slots)


def test_an_environment_that_cannot_be_made_again_is_told():
    made = []

    def once():
        made.append(1)
        assert len(made) == 1, "one licence"
        return Liar()

    with pytest.raises(EnvironmentFaultError, match=r"^Task 'python:once' failed: its environment raised Assertion"):
        make_task(once).make_envs(2, 1)


@pytest.mark.parametrize(
    ("observations", "actions", "shown"),
    [
        (spaces.Box(-1.0, 1.0, (0,), np.float32), spaces.Discrete(2), "Box([], [], (0,), float32)"),
        (spaces.Dict(a=spaces.Box(-1.0, 1.0, (3, 0))), spaces.Discrete(2), "Box([], [], (3, 0), float32)"),
        (FOUR, spaces.Box(-1.0, 1.0, (0,)), "Box([], [], (0,), float32)"),
    ],
)
def test_spaces_without_a_number_are_refused(observations, actions, shown):
    def empty():
        env = Liar(observations)
        env.action_space = actions
        return env

    with pytest.raises(TaskError) as caught:
        make_task(empty)
    assert str(caught.value) == (f"Task 'python:empty': got the space {shown}, expected one of at least one number.")
