"""Spaces of every kind as arrays and action layouts, and back into what an environment takes."""

import math
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rldistill.envs import make_task
from rldistill.envs.spaces import SpaceCodec
from rldistill.errors import TaskError
from rldistill.observations import fields, flat
from rldistill.tasks import ObservationPart
from rldistill.types import ActionLayout
from tests.kit.tiny_envs import OddSpaces, Recorder

TWO = spaces.Discrete(2)
IMAGES = spaces.Box(0, 255, (8, 8, 3), np.uint8)
VECTORS = spaces.Box(-1.0, 1.0, (2,), np.float64)
GOALS = spaces.Dict(
    {"position": VECTORS, "goal": spaces.Discrete(3, start=5), "camera": IMAGES, "switches": spaces.MultiBinary([2, 2])}
)
NESTED = spaces.Dict(
    {"b": spaces.Tuple([spaces.MultiDiscrete([2, 3], start=[1, 1]), VECTORS]), "a": spaces.Dict({"x": TWO})}
)


def fingerprint_of(observation_space, action_space=TWO):
    return make_task(lambda: OddSpaces(observation_space, action_space)).task.fingerprint


# Observations


@pytest.mark.parametrize(
    ("observation_space", "shape", "dtype"),
    [
        (IMAGES, (8, 8, 3), "uint8"),
        (VECTORS, (2,), "float32"),
        (spaces.Box(-1, 1, (2, 3), np.float16), (2, 3), "float32"),
        (spaces.Box(0, 9, (), np.int64), (1,), "int64"),
        (spaces.Discrete(7), (7,), "float32"),
        (spaces.MultiDiscrete([2, 3]), (5,), "float32"),
        (spaces.MultiBinary([2, 3]), (2, 3), "float32"),
        (GOALS, (192 + 3 + 2 + 4,), "float32"),
        (spaces.Tuple([VECTORS, TWO]), (4,), "float32"),
        (spaces.Dict(left=IMAGES, right=IMAGES), (384,), "uint8"),
        (spaces.Dict(bytes=spaces.Box(0, 255, (4,), np.uint8)), (4,), "float32"),  # bytes, but no image
    ],
)
def test_spaces_become_shapes_and_dtypes_of_the_fingerprint(observation_space, shape, dtype):
    fingerprint = fingerprint_of(observation_space)
    flat = shape if not isinstance(observation_space, spaces.MultiBinary) else (6,)
    assert (fingerprint.observation_shape, fingerprint.observation_dtype) == (flat, dtype)


def test_parts_of_an_observation_are_named_in_the_order_in_which_they_lie():
    assert fingerprint_of(GOALS).observation_parts == (
        ObservationPart("camera", (8, 8, 3), "uint8"),
        ObservationPart("goal", (3,)),
        ObservationPart("position", (2,)),
        ObservationPart("switches", (2, 2)),
    )
    assert [part.name for part in fingerprint_of(NESTED).observation_parts] == ["a.x", "b.0", "b.1"]
    for single in (IMAGES, VECTORS, spaces.Discrete(7), spaces.MultiDiscrete([2, 3])):
        assert fingerprint_of(single).observation_parts == ()


@pytest.mark.parametrize("space", [GOALS, NESTED, spaces.MultiDiscrete([3, 2]), spaces.MultiBinary(4)], ids=str)
def test_observations_of_several_parts_are_side_by_side_what_gymnasium_flattens_them_to(space):
    env = Recorder(space, TWO)
    envs = make_task(lambda: env).make_envs(1, 1)
    observations = [envs.reset([0], [3]), *(envs.step(np.array([0])).observations for _ in range(5))]
    expected = [spaces.flatten(space, shown) for shown in env.shown]
    np.testing.assert_array_equal(flat(np.concatenate(observations)), np.array(expected, np.float32))
    assert flat(observations[0]).dtype == np.float32


def test_parts_keep_their_own_types_and_shapes_on_their_way():
    observations = make_task(lambda: Recorder(GOALS, TWO)).make_envs(2, 1).reset([0, 1], [3, 4])
    assert observations.shape == (2,)
    shapes = {name: (str(part.dtype), part.shape[1:]) for name, part in fields(observations).items()}
    assert shapes == {
        "camera": ("uint8", (8, 8, 3)),
        "goal": ("float32", (3,)),
        "position": ("float32", (2,)),
        "switches": ("float32", (2, 2)),
    }


def test_two_parts_of_one_name_are_refused():
    twins = spaces.Dict({"a.x": TWO, "a": spaces.Dict({"x": TWO})})
    with pytest.raises(TaskError, match=r"got two parts of observations called 'a\.x', expected different names\.$"):
        make_task(lambda: Recorder(twins, TWO))


def test_keys_are_sorted_whatever_order_a_space_was_made_in():
    unsorted = spaces.Dict([("z", TWO), ("a", VECTORS)])
    env = Recorder(unsorted, TWO)
    observation = make_task(lambda: env).make_envs(1, 1).reset([0], [0])[0]
    assert [part.name for part in fingerprint_of(unsorted).observation_parts] == ["a", "z"]
    np.testing.assert_array_equal(observation["a"], env.shown[0]["a"].astype(np.float32))


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
@pytest.mark.parametrize("space", [GOALS, NESTED, spaces.MultiDiscrete([3, 2]), IMAGES], ids=str)
def test_vector_environments_show_the_same(space, mode):
    def observations(envs):
        first = envs.reset([0, 1], [3, 4])
        return np.stack([first, *(envs.step(np.array([0, 1])).observations for _ in range(3))])

    make = partial(Recorder, space, TWO)
    vector = make_task(SyncVectorEnv([make] * 2, autoreset_mode=mode)).make_envs(2, 1)
    np.testing.assert_array_equal(observations(vector), observations(make_task(make).make_envs(2, 1)))


@pytest.mark.parametrize(
    ("observation_space", "action_space", "message"),
    [
        (
            spaces.Text(5),
            TWO,
            r"got observations Text\(.*\), expected Box, Discrete, MultiBinary, MultiDiscrete, Dict or Tuple\.$",
        ),
        (
            spaces.Dict(a=VECTORS, b=spaces.Text(5)),
            TWO,
            r"got observations Dict\(.*\) with Text\(.*\) inside, expected",
        ),
        (spaces.Dict(), TWO, r"got observations Dict\(\), expected Box"),
        (
            VECTORS,
            spaces.Dict(a=VECTORS),
            r"got actions Dict\(.*\), expected Discrete, MultiDiscrete, MultiBinary or a Box of floating-point numbers",
        ),
        (VECTORS, IMAGES, r"got actions Box\(0, 255, \(8, 8, 3\), uint8\), expected Discrete, MultiDiscrete"),
    ],
)
def test_spaces_that_are_not_supported_are_refused(observation_space, action_space, message):
    with pytest.raises(TaskError, match=message) as caught:
        fingerprint_of(observation_space, action_space)
    assert "\n" not in str(caught.value)


# Actions


@pytest.mark.parametrize(
    ("space", "layout"),
    [
        (spaces.Discrete(4, start=-1), ActionLayout.discrete(4)),
        (spaces.MultiDiscrete([3, 2]), ActionLayout("multi_discrete", (3, 2))),
        (spaces.MultiDiscrete([[3, 2], [4, 5]]), ActionLayout("multi_discrete", (3, 2, 4, 5))),
        (spaces.MultiBinary(5), ActionLayout("multi_binary", (5,))),
        (spaces.MultiBinary([2, 3]), ActionLayout("multi_binary", (6,))),
        (
            spaces.Box(np.array([-1, 0], np.float32), np.array([1, 200], np.float32)),
            ActionLayout("box", (2,), (-1.0, 0.0), (1.0, 200.0), "clip"),
        ),
        (spaces.Box(-2.0, 2.0, (), np.float64), ActionLayout("box", (1,), (-2.0,), (2.0,), "clip")),
        (spaces.Box(-2.0, 2.0, (2, 2)), ActionLayout("box", (4,), (-2.0,) * 4, (2.0,) * 4, "clip")),
        (spaces.Box(-np.inf, np.inf, (1,)), ActionLayout("box", (1,), (-math.inf,), (math.inf,), "clip")),
    ],
    ids=str,
)
def test_action_spaces_become_layouts(space, layout):
    assert fingerprint_of(VECTORS, space).action_layout == layout


def test_layouts_know_where_a_space_begins_to_count():
    assert fingerprint_of(VECTORS, spaces.Discrete(4, start=-1)).action_layout.start == (-1,)
    two = spaces.MultiDiscrete([[3, 2], [4, 5]], start=[[5, -1], [0, 2]])
    assert fingerprint_of(VECTORS, two).action_layout.start == (5, -1, 0, 2)


in_every_format = pytest.mark.parametrize(
    ("space", "actions", "expected"),
    [
        (spaces.Discrete(4, start=-1), [0, 3], [-1, 2]),
        (spaces.MultiDiscrete([3, 2]), [[0, 1], [2, 0]], [[0, 1], [2, 0]]),
        (spaces.MultiDiscrete([3, 2], start=[5, -1]), [[0, 1], [2, 0]], [[5, 0], [7, -1]]),
        (
            spaces.MultiDiscrete([[3, 2], [4, 5]], np.int32),
            [[2, 1, 3, 4], [0, 0, 0, 0]],
            [[[2, 1], [3, 4]], [[0, 0]] * 2],
        ),
        (spaces.MultiBinary(3), [[0, 1, 1], [1, 0, 0]], [[0, 1, 1], [1, 0, 0]]),
        (spaces.MultiBinary([2, 1]), [[0, 1], [1, 0]], [[[0], [1]], [[1], [0]]]),
        (spaces.Box(-2.0, 2.0, (2,), np.float64), [[0.5, -2.0], [2.0, 1.5]], [[0.5, -2.0], [2.0, 1.5]]),
        (spaces.Box(-0.1, 0.1, (1,), np.float64), [[0.1], [-0.1]], [[0.1], [-0.1]]),  # float32(0.1) is above 0.1
        (spaces.Box(-2.0, 2.0, (2, 1)), [[0.5, -2.0], [2.0, 1.5]], [[[0.5], [-2.0]], [[2.0], [1.5]]]),
        (spaces.Box(-2.0, 2.0, ()), [[0.5], [-2.0]], [0.5, -2.0]),
    ],
    ids=str,
)


@in_every_format
def test_environments_receive_actions_in_their_own_format(space, actions, expected):
    actions = np.array(actions, np.float32 if isinstance(space, spaces.Box) else np.int64)
    made = []

    def make():
        made.append(Recorder(VECTORS, space))
        return made[-1]

    envs = make_task(make).make_envs(2, 1)
    envs.reset([0, 1], [0, 1])
    envs.step(actions)
    np.testing.assert_array_equal([env.actions[0] for env in made[1:]], expected)
    if space.shape == () and isinstance(space, spaces.Box):
        return  # Gymnasium's own vector environments give such environments a number, which they refuse
    vector = make_task(SyncVectorEnv([make] * 2)).make_envs(2, 1)
    vector.reset([0, 1], [0, 1])
    vector.step(actions)
    np.testing.assert_array_equal([env.actions[0] for env in made[-2:]], expected)


@in_every_format
def test_actions_that_somebody_recorded_are_numbered_and_shaped_as_ours(space, actions, expected):
    codec = SpaceCodec(VECTORS, space, "float32")
    wanted = np.array(actions, np.float32 if isinstance(space, spaces.Box) else np.int64)
    recorded = np.array(expected, space.dtype)
    assert codec.encode_actions(recorded).dtype == wanted.dtype
    np.testing.assert_array_equal(codec.encode_actions(recorded), wanted)


def test_pendulum_is_played_with_actions_in_its_box():
    task = make_task("Pendulum-v1")
    assert task.task.fingerprint.action_layout == ActionLayout("box", (1,), (-2.0,), (2.0,), "clip")
    envs, env = task.make_envs(2, 1), gymnasium.make("Pendulum-v1")
    np.testing.assert_array_equal(envs.reset([0, 1], [5, 6])[1], env.reset(seed=6)[0])
    for torque in (-2.0, 0.5, 2.0):
        step = envs.step(np.array([[0.0], [torque]], np.float32))
        expected = env.step(np.array([torque], np.float32))
        np.testing.assert_array_equal(step.observations[1], expected[0])
        assert step.rewards[1] == float(expected[1])


def test_blackjack_shows_three_one_hot_codes():
    fingerprint = make_task("Blackjack-v1").task.fingerprint
    assert fingerprint.observation_shape == (32 + 11 + 2,)
    assert [part.shape for part in fingerprint.observation_parts] == [(32,), (11,), (2,)]
    observation = make_task("Blackjack-v1").make_envs(1, 1).reset([0], [0])[0]
    assert [observation[name].sum() for name in observation.dtype.names] == [1.0, 1.0, 1.0]
