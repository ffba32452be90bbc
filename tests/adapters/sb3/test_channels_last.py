"""Environments whose images have their channels last: the library turns them, whatever layers see them."""

import numpy as np
import pytest
from gymnasium import spaces

from rldistill.adapters.sb3.load import load_sb3
from rldistill.envs import make_task
from rldistill.envs.spaces import SpaceCodec
from rldistill.errors import MismatchError
from rldistill.policies import fit_policy
from rldistill.rollout.evaluate import play_episodes
from tests.adapters.sb3.small_models import TORQUES, RandomObservations, compare, samples, train

SCREEN = spaces.Box(0, 255, (36, 40, 3), np.uint8)
SIGHTS = spaces.Dict(
    {
        "view": SCREEN,
        "speed": spaces.Box(-1, 1, (3,)),
        "map": spaces.Box(0, 255, (36, 37, 1), np.uint8),
        "zone": spaces.Discrete(3),
    }
)
VIEWS = spaces.Dict({"right": SCREEN, "left": spaces.Box(0, 255, (36, 36, 4), np.uint8)})
CHOICES = spaces.Discrete(4)
DQN = {"buffer_size": 50, "learning_starts": 5, "batch_size": 8}
PPO = {"n_steps": 12, "batch_size": 12, "n_epochs": 1}


def case(algorithm, kind, observation_space, action_space, options, **kwargs):
    return (
        algorithm,
        kind,
        observation_space,
        action_space,
        options | {"policy_kwargs": {"net_arch": [16, 12]} | kwargs},
    )


CASES = {
    "dqn-flat": case("DQN", "MlpPolicy", SCREEN, CHOICES, DQN),
    "dqn-flat-unscaled": case("DQN", "MlpPolicy", SCREEN, CHOICES, DQN, normalize_images=False),
    "ppo-flat": case("PPO", "MlpPolicy", SCREEN, TORQUES, PPO),
    "ppo-flat-linear-gsde": case("PPO", "MlpPolicy", SCREEN, TORQUES, PPO | {"use_sde": True}, net_arch=[]),
    "ppo-convolutions": case("PPO", "CnnPolicy", SCREEN, CHOICES, PPO),
    "ppo-dict": case("PPO", "MultiInputPolicy", SIGHTS, CHOICES, PPO),
    "sac-dict": case("SAC", "MultiInputPolicy", SIGHTS, TORQUES, DQN),
    "dqn-dict-of-images": case("DQN", "MultiInputPolicy", VIEWS, CHOICES, DQN),
}


def playable(observation_space, action_space):
    return make_task(lambda: RandomObservations(observation_space, action_space))


@pytest.fixture
def saved(tmp_path):
    """Return a function from a case to the library's model; it lies in `tmp_path / "model.zip"`."""
    sb3 = pytest.importorskip("stable_baselines3")

    def save(name):
        algorithm, *rest, options = CASES[name]
        model = train(getattr(sb3, algorithm), *rest, **options)
        model.save(tmp_path / "model.zip")
        return model

    return save


@pytest.mark.parametrize("name", CASES)
def test_the_head_is_that_of_the_real_model_for_images_as_the_task_shows_them(name, saved, tmp_path):
    model = saved(name)
    _, _, observation_space, action_space, _ = CASES[name]
    task = playable(observation_space, action_space).task
    policy = load_sb3(tmp_path / "model.zip", task=task)
    assert policy.tasks[0].fingerprint.differences(task.fingerprint) == []
    observations = samples(observation_space, 1000)
    codec = SpaceCodec(observation_space, action_space, task.fingerprint.observation_dtype)
    compare(model, policy, observations, codec.encode_batch(observations))


@pytest.mark.parametrize("name", ["ppo-flat", "ppo-dict"])
def test_such_a_policy_plays_where_it_was_trained(name, saved, tmp_path):
    saved(name)
    task = playable(*CASES[name][2:4])
    policy = fit_policy(load_sb3(tmp_path / "model.zip", task=task.task), task.task)
    played = play_episodes(policy, task.make_envs(2, 1), range(2), seed=0, exploration_epsilon=0.0)
    assert [episode.length for episode in played.episodes] == [10, 10]


def test_images_of_another_size_are_refused_naming_both(saved, tmp_path):
    saved("ppo-dict")
    other = spaces.Dict(SIGHTS.spaces | {"view": spaces.Box(0, 255, (40, 36, 3), np.uint8)})
    task = playable(other, CHOICES).task
    with pytest.raises(MismatchError, match=r"view uint8 \[3, 36, 40\].* against .*view uint8 \[40, 36, 3\]"):
        fit_policy(load_sb3(tmp_path / "model.zip", task=task), task)


def turned_and_normalised(env, *, keeps_bytes):
    """Return an environment whose images are turned, then normalised; old releases went on calling them bytes."""
    from stable_baselines3.common.vec_env import VecNormalize, VecTransposeImage

    turned = VecTransposeImage(env)
    normalised = VecNormalize(turned, clip_obs=2.5)
    if keeps_bytes:
        normalised.observation_space = turned.observation_space
    return normalised


@pytest.mark.parametrize(
    ("kind", "kwargs", "keeps_bytes"),
    [
        ("MlpPolicy", {}, False),
        ("MlpPolicy", {}, True),
        ("MlpPolicy", {"net_arch": []}, True),
        ("MlpPolicy", {"normalize_images": False}, True),
        ("CnnPolicy", {}, True),
        ("CnnPolicy", {"normalize_images": False}, False),
    ],
    ids=["flat", "flat bytes", "linear bytes", "unscaled bytes", "convolutions of bytes", "convolutions"],
)
def test_statistics_of_turned_images_are_applied_as_the_library_does(kind, kwargs, keeps_bytes, tmp_path):
    sb3 = pytest.importorskip("stable_baselines3")
    model = train(
        sb3.PPO,
        kind,
        SCREEN,
        CHOICES,
        wrap=lambda env: turned_and_normalised(env, keeps_bytes=keeps_bytes),
        **PPO | {"policy_kwargs": {"net_arch": [16, 12]} | kwargs},
    )
    model.save(tmp_path / "model.zip")
    wrapper = model.get_vec_normalize_env()
    wrapper.save(tmp_path / "vecnormalize.pkl")
    images = samples(SCREEN, 1000)
    policy = load_sb3(tmp_path / "model.zip", task=playable(SCREEN, CHOICES).task)
    compare(model, policy, wrapper.normalize_obs(np.moveaxis(images, 3, 1)), images)
