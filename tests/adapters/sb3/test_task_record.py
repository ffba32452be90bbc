"""What a teacher saw of its environment: as its files say, or as the user does."""

import numpy as np
import pytest

from rldistill.adapters.load import load_policy
from rldistill.adapters.sb3.load import load_sb3
from rldistill.envs import make_task
from rldistill.errors import MismatchError, TeacherWarning
from rldistill.policies import fit_policy
from rldistill.rollout.evaluate import play_episodes
from rldistill.tasks import ObservationFingerprint, ObservationPart, Task
from rldistill.types import ActionLayout
from tests.adapters.sb3.made_up import BOX, pack, ppo_data, ppo_weights

ANT_ACTIONS = ActionLayout("box", (8,), (-1.0,) * 8, (1.0,) * 8, "clip")
IMAGE = BOX | {"dtype": "uint8", "low": "[[[0 ... 0]]]", "high": "[[[255 ... 255]]]"}


def vector_task(name, size, layout, **settings):
    return Task(name, ObservationFingerprint((size,), "float32", layout, **settings))


@pytest.fixture
def load(tmp_path):
    def load_bytes(content, config=None, arguments=None, task=None):
        (tmp_path / "p.zip").write_bytes(content)
        for name, text in (("config.yml", config), ("args.yml", arguments)):
            if text is not None:
                (tmp_path / name).write_text(text)
        return load_sb3(tmp_path / "p.zip", task=task)

    return load_bytes


def fingerprint_of(policy):
    return policy.tasks[0].fingerprint


# Dead inputs, and the clock


@pytest.mark.parametrize(
    ("name", "shape", "padding", "clock"),
    [
        ("ppo/Ant-v3", 112, 84, 1000),
        ("trpo/Ant-v3", 111, 84, None),
        ("a2c/Ant-v3", 111, 0, None),  # these contact forces moved
        ("a2c/Humanoid-v3", 376, 0, None),
        ("ppo/Walker2d-v3", 18, 0, 1000),
        ("ppo/HalfCheetah-v3", 17, 0, None),
    ],
)
def test_dead_inputs_and_clocks_of_published_teachers(shared_teachers, name, shape, padding, clock):
    fingerprint = fingerprint_of(load_sb3(shared_teachers / "sb3" / name / f"{name.split('/')[1]}.zip"))
    assert fingerprint.observation_shape == (shape,)
    assert (fingerprint.zero_padding, fingerprint.time_feature) == (padding, clock)


@pytest.mark.parametrize("name", ["ppo/Ant-v3", "trpo/Ant-v3"])
def test_a_task_of_today_is_observed_as_the_teacher_did(shared_teachers, name):
    path = shared_teachers / "sb3" / name / "Ant-v3.zip"
    own = fingerprint_of(load_sb3(path))
    declared = load_sb3(path, task=vector_task("Ant-v4", 27, ANT_ACTIONS))
    assert fingerprint_of(declared) == own
    assert declared.tasks[0].name == "Ant-v4"


@pytest.mark.parametrize(("name", "size"), [("ppo/Ant-v3", 27), ("trpo/Ant-v3", 27), ("ppo/Walker2d-v3", 17)])
def test_the_one_function_that_loads_policies_takes_the_plain_task(shared_teachers, tmp_path, name, size):
    path = shared_teachers / "sb3" / name / f"{name.split('/')[1]}.zip"
    own = load_sb3(path)
    task = vector_task("Today-v9", size, fingerprint_of(own).action_layout)
    loaded = load_policy(path, task=task)
    assert fingerprint_of(loaded) == fingerprint_of(own)
    loaded.save(tmp_path / "p.safetensors")
    assert fingerprint_of(load_policy(tmp_path / "p.safetensors", task=task)) == fingerprint_of(own)


@pytest.fixture
def half_dead(tmp_path):
    """Return a zip of 20 inputs, and statistics by which the last 10 never moved."""
    space = BOX | {"_shape": [20], "low": str([-1.0] * 20), "high": str([1.0] * 20)}
    (tmp_path / "p.zip").write_bytes(pack(ppo_data(observation_space=space), ppo_weights(num_inputs=20)))
    np.savez(tmp_path / "s.npz", mean=np.zeros(20), var=np.repeat([1.0, 1e-9], 10), count=1000)
    return tmp_path / "p.zip"


@pytest.mark.parametrize(("size", "padding"), [(20, 0), (18, 2), (10, 10)])
def test_a_named_task_says_which_inputs_are_lost(half_dead, size, padding):
    task = vector_task("Own-v0", size, ActionLayout.discrete(2))
    policy = load_policy(half_dead, task=task, normalizer=str(half_dead.with_name("s.npz")))
    assert fingerprint_of(policy).zero_padding == padding


@pytest.mark.parametrize(("environment", "padding"), [("Own-v0", 0), ("Ant-v3", 10)])
def test_without_a_task_inputs_are_lost_only_where_the_environment_lost_some(half_dead, environment, padding):
    half_dead.with_name("args.yml").write_text(f"env: {environment}\n")
    policy = load_sb3(half_dead, normalizer=half_dead.with_name("s.npz"))
    assert fingerprint_of(policy).zero_padding == padding


@pytest.mark.parametrize(("given", "warns"), [({}, True), ({"size": 5}, False)])
def test_settings_of_the_files_that_a_named_task_lacks_are_a_warning(load, recwarn, given, warns):
    task = Task("X-v0", vector_task("X-v0", 3, ActionLayout.discrete(2)).fingerprint, environment_kwargs=given)
    load(pack(), arguments="env: Own-v0\nenv_kwargs: {size: 4}\n", task=task)
    lines = [str(warning.message).partition("p.zip: ")[2] for warning in recwarn]
    assert (
        lines
        == [
            "the files beside it give its environment {\"size\": 4}, and task 'X-v0' is played without. If it is the "
            "teacher's environment, say so: --env-kwargs (in Python env_kwargs=)."
        ][: int(warns)]
    )


def test_inputs_that_moved_are_not_replaced_by_zeros(shared_teachers):
    ant = vector_task("Ant-v4", 27, ANT_ACTIONS)
    policy = load_sb3(shared_teachers / "sb3" / "a2c" / "Ant-v3" / "Ant-v3.zip", task=ant)
    assert fingerprint_of(policy).zero_padding == 0
    with pytest.raises(MismatchError, match=r"observation_shape: \[111\] against \[27\]"):
        fit_policy(policy, ant)


def test_the_users_own_settings_count(load):
    declared = vector_task("X-v0", 3, ActionLayout.discrete(2), zero_padding=1, time_feature=77)
    fingerprint = fingerprint_of(load(pack(), task=declared))
    assert (fingerprint.zero_padding, fingerprint.time_feature) == (1, 77)


CLOCK = "env_wrapper: sb3_contrib.common.wrappers.TimeFeatureWrapper\n"


@pytest.mark.parametrize(
    ("config", "environment", "expected"),
    [
        (CLOCK, "Unheard-v7", 1000),
        (CLOCK, "Acrobot-v0", 500),  # gone, but Acrobot-v1 is registered
        (CLOCK, "CartPole-v1", 200),  # of its oldest version
        ("env_wrapper:\n- x.TimeFeatureWrapper:\n    max_steps: 321\n", "CartPole-v1", 321),
    ],
)
def test_the_length_of_the_clock(load, config, environment, expected):
    policy = load(pack(), config, f"env: {environment}\n")
    assert fingerprint_of(policy).time_feature == expected


# Tasks that play


def test_a_published_teacher_plays_the_task_of_today(shared_teachers):
    task = make_task("CartPole-v1")
    policy = load_sb3(shared_teachers / "sb3" / "a2c" / "CartPole-v1" / "CartPole-v1.zip")
    envs = task.make_envs(4, 1)
    played = play_episodes(fit_policy(policy, task.task), envs, range(4), seed=0, exploration_epsilon=0.0)
    assert [episode.score for episode in played.episodes] == [500.0] * 4


def test_the_wrong_environment_names_both_spaces(shared_teachers):
    policy = load_sb3(shared_teachers / "sb3" / "dqn" / "MountainCar-v0" / "MountainCar-v0.zip")
    with pytest.raises(MismatchError) as caught:
        fit_policy(policy, make_task("CartPole-v1").task)
    assert "observation_shape: [2] against [4]; action_layout: discrete [3] against discrete [2]" in str(caught.value)


# Dict observations


DICT_OBSERVATIONS = {
    ":type:": "<class 'gymnasium.spaces.dict.Dict'>",
    "spaces": "{'observation': Box(-1.0, 1.0, (4,), float32), 'achieved_goal': Box(-1.0, 1.0, (1, 2), float64), "
    "'room': Discrete(3)}",
}


def test_parts_are_named_as_an_environment_of_today_names_them(load):
    from gymnasium import spaces

    from rldistill.envs.spaces import space_fingerprint

    parts = {
        "observation": spaces.Box(-1, 1, (4,)),
        "achieved_goal": spaces.Box(-1, 1, (1, 2), np.float64),
        "room": spaces.Discrete(3),
    }
    policy = load(pack(ppo_data(observation_space=DICT_OBSERVATIONS), ppo_weights(num_inputs=9)))
    expected = space_fingerprint("X", spaces.Dict(parts), spaces.Discrete(2))
    assert fingerprint_of(policy).differences(expected) == []


def test_the_clock_of_a_dict_observation_stands_at_its_end(load):
    space = DICT_OBSERVATIONS | {"spaces": DICT_OBSERVATIONS["spaces"].replace("'room'", "'desired'")}
    fingerprint = fingerprint_of(load(pack(ppo_data(observation_space=space), ppo_weights(num_inputs=9)), CLOCK))
    assert fingerprint.observation_shape == (9,)
    assert fingerprint.observation_parts[-1] == ObservationPart("observation", (3,))
    assert fingerprint.time_feature == 1000


# Images


def cnn_weights(num_actions=6, channels=4):
    import torch

    weights = {
        f"q_net.q_net.0.{part}": torch.zeros((num_actions, 16) if part == "weight" else num_actions)
        for part in ("weight", "bias")
    }
    sizes = {"cnn.0": (8, channels, 8, 8), "cnn.2": (8, 8, 4, 4), "cnn.4": (8, 8, 3, 3), "linear.0": (16, 8 * 49)}
    for name, shape in sizes.items():
        weights[f"q_net.features_extractor.{name}.weight"] = torch.zeros(shape)
        weights[f"q_net.features_extractor.{name}.bias"] = torch.zeros(shape[0])
    return weights


def image_zip(channels=4, num_actions=6):
    data = ppo_data(
        policy_class={
            "__module__": "stable_baselines3.dqn.policies",
            "__init__": "<function CnnPolicy.__init__ at 0x7f>",
        },
        observation_space=IMAGE | {"_shape": [channels, 84, 84]},
        action_space={":type:": "<class 'gym.spaces.discrete.Discrete'>", "n": str(num_actions)},
    )
    return pack(data, cnn_weights(num_actions, channels))


ATARI_CONFIG = "env_wrapper:\n- stable_baselines3.common.atari_wrappers.AtariWrapper\nframe_stack: 4\n"


def test_an_atari_teacher_of_the_zoo_plays_our_task_of_the_game(load, recwarn):
    policy = load(image_zip(), ATARI_CONFIG, "env: PongNoFrameskip-v4\nalgo: dqn\n")
    task = make_task("atari:pong").task
    assert policy.tasks[0].name == "atari:pong"
    assert fingerprint_of(policy).differences(task.fingerprint) == []
    assert [str(warning.message) for warning in recwarn] == []
    assert fit_policy(policy, task).hash == policy.hash


WITH_OPTIONS = """env_wrapper:
- stable_baselines3.common.atari_wrappers.AtariWrapper:
    frame_skip: 2
    noop_max: 7
    clip_reward: false
    colour: red
frame_stack: 4
"""


def test_an_atari_teacher_plays_as_its_wrapper_was_told(load):
    arguments = "env: PongNoFrameskip-v4\nenv_kwargs: {repeat_action_probability: 0.25, mode: 1}\n"
    unknown = r"name mode of env_kwargs \(args\.yml\), colour of AtariWrapper \(config\.yml\), which is not"
    with pytest.warns(TeacherWarning, match=unknown):
        task = load(image_zip(), WITH_OPTIONS, arguments).tasks[0]
    assert (task.fingerprint.frame_skip, task.protocol.noop_max) == (2, 7)
    assert (task.protocol.sticky_action_probability, task.protocol.fire_at_reset) == (0.25, True)


def test_a_game_named_with_another_frame_skip_is_refused(load, tmp_path):
    load(image_zip(), WITH_OPTIONS.replace("    colour: red\n", ""), "env: PongNoFrameskip-v4\n")
    task = make_task("atari:pong", {"fire_at_reset": True}).task
    with pytest.raises(MismatchError, match="frame_skip: 2 against 4"):
        load_policy(tmp_path / "p.zip", task=task)
    assert load_policy(tmp_path / "p.zip", task="atari:pong", env_kwargs={"frame_skip": 2, "fire_at_reset": True})


@pytest.mark.parametrize(("options", "warns"), [({}, True), ({"fire_at_reset": True}, False)])
def test_a_game_named_without_the_start_of_its_teacher_is_a_warning(load, recwarn, options, warns):
    load(image_zip(), ATARI_CONFIG, "env: PongNoFrameskip-v4\n", task=make_task("atari:pong", options).task)
    assert ['its environment {"fire_at_reset": true}, and' in str(warning.message) for warning in recwarn] == [
        True
    ] * warns


@pytest.mark.parametrize(
    ("environment", "results", "expected"),
    [
        ("PongNoFrameskip-v4", None, "sample"),
        ("MiniGrid-Empty-5x5-v0", None, "sample"),
        ("CartPole-v1", None, "greedy"),
        ("CartPole-v1", "false", "sample"),
        ("PongNoFrameskip-v4", "true", "greedy"),
    ],
)
def test_a_policy_acts_as_it_was_scored(load, tmp_path, environment, results, expected):
    if results is not None:
        record = f'{{"mean_reward": 1.0, "std_reward": 0, "n_eval_episodes": 3, "is_deterministic": {results}}}'
        (tmp_path / "results.json").write_text(record)
    assert load(pack(), arguments=f"env: {environment}\n").behaviour == expected


def test_q_values_are_no_chances(load):
    assert load(image_zip(), ATARI_CONFIG, "env: PongNoFrameskip-v4\nalgo: dqn\n").behaviour == "greedy"


@pytest.mark.parametrize("environment", ["BeamRiderNoFrameskip-v4", "UpNDownNoFrameskip-v4", "MsPacmanNoFrameskip-v4"])
def test_games_of_several_words(load, environment):
    expected = {"B": "atari:beam_rider", "U": "atari:up_n_down", "M": "atari:ms_pacman"}[environment[0]]
    num_actions = fingerprint_of_task(expected)
    policy = load(image_zip(num_actions=num_actions), ATARI_CONFIG, f"env: {environment}\n")
    assert policy.tasks[0].name == expected


def fingerprint_of_task(name):
    return make_task(name).task.fingerprint.action_layout.sizes[0]


def test_an_atari_teacher_without_files_plays_what_the_user_says(load):
    task = make_task("atari:pong").task
    policy = load(image_zip(), task=task)
    assert fit_policy(policy, task).tasks[0].fingerprint.frame_stack == 4


def test_images_with_their_channels_last_are_declared_by_the_task(load):
    import torch

    content = image_zip(channels=3)
    layout = ActionLayout.discrete(6)
    task = Task("Screens-v0", ObservationFingerprint((84, 84, 3), "uint8", layout))
    first, last = load(content), load(content, task=task)
    assert fingerprint_of(first).observation_shape == (3, 84, 84)
    assert fingerprint_of(last).observation_shape == (84, 84, 3)
    with torch.no_grad():
        for policy in (first, last):
            for parameter in policy.network.parameters():
                parameter.copy_(torch.sin(torch.arange(parameter.numel())).view(parameter.shape) * 0.1)
    images = np.random.default_rng(0).integers(0, 256, (2, 84, 84, 3), dtype=np.uint8)
    torch.testing.assert_close(last(images)[0].q_values, first(np.moveaxis(images, 3, 1).copy())[0].q_values)


def test_stacks_of_images_that_are_not_atari_are_a_warning(load):
    from rldistill.errors import TeacherWarning

    with pytest.warns(TeacherWarning, match=r"its environment was wrapped in VecFrameStack of 2, which is not done"):
        load(image_zip(channels=3), "frame_stack: 2\n")
