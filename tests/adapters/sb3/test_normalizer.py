"""`vecnormalize.pkl`: the statistics of real files, and nothing of hostile ones."""

import math
import os
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from rldistill.adapters.normalizer_file import read_normalizer
from rldistill.adapters.sb3.load import load_sb3
from rldistill.errors import PolicyFileError
from rldistill.policies import load_policy
from tests.adapters.sb3.made_up import pack


class RandomObservations(gym.Env):
    """An environment that shows random observations of any space."""

    def __init__(self, observation_space):
        self.observation_space = observation_space
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {"episode start": np.float32(1.0)}

    def step(self, action):
        return self.observation_space.sample(), 1.0, False, False, {}


def written_by_sb3(path, observation_space, **options):
    """Write a file with the real library, after a few steps; returns its wrapper."""
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
    wrapper = vec_env.VecNormalize(vec_env.DummyVecEnv([lambda: RandomObservations(observation_space)]), **options)
    wrapper.reset()
    for _ in range(5):
        wrapper.step(np.zeros(1, dtype=np.int64))
    wrapper.save(str(path))
    return wrapper


@pytest.fixture
def refusal(tmp_path):
    path = tmp_path / "vecnormalize.pkl"

    def refuse(data):
        path.write_bytes(data)
        with pytest.raises(PolicyFileError) as caught:
            read_normalizer(path)
        line = str(caught.value)
        assert "\n" not in line
        return line.replace(str(path), "FILE")

    return refuse


def test_every_shared_file_is_read(shared_teachers):
    paths = sorted((shared_teachers / "sb3").glob("*/*/vecnormalize.pkl"))
    assert len(paths) == 33
    for path in paths:
        record = read_normalizer(path)
        (statistics,) = record.statistics.values()
        assert (record.epsilon, record.clip, record.norm_obs) == (1e-8, 10.0, True)
        assert statistics.count > 10_000
        assert np.isfinite(statistics.mean).all()
        assert (statistics.variance > 0).all()


def test_the_statistics_of_one_shared_file(shared_teachers):
    record = read_normalizer(shared_teachers / "sb3" / "ppo" / "MountainCar-v0" / "vecnormalize.pkl")
    statistics = record.statistics[""]
    np.testing.assert_allclose(statistics.variance[1], 0.000967, atol=1e-6)
    assert -0.6 < statistics.mean[0] < 0
    assert statistics.count == pytest.approx(1_000_192)


def test_a_file_of_today(tmp_path):
    box = spaces.Box(-3, 5, (2, 3))
    wrapper = written_by_sb3(
        tmp_path / "v.pkl", box, clip_obs=7.5, epsilon=1e-6, norm_reward=False, training=True, gamma=0.9
    )
    record = read_normalizer(tmp_path / "v.pkl")
    np.testing.assert_array_equal(record.statistics[""].mean, wrapper.obs_rms.mean)
    np.testing.assert_array_equal(record.statistics[""].variance, wrapper.obs_rms.var)
    assert record.statistics[""].count == wrapper.obs_rms.count
    assert (record.clip, record.epsilon, record.norm_obs) == (7.5, 1e-6, True)


def test_a_file_of_today_with_dict_observations_of_which_some_are_normalised(tmp_path):
    parts = {"b": spaces.Box(-1, 1, (3,)), "a": spaces.Box(0, 9, (2, 2)), "c": spaces.Discrete(3)}
    wrapper = written_by_sb3(tmp_path / "v.pkl", spaces.Dict(parts), norm_obs_keys=["b", "a"])
    record = read_normalizer(tmp_path / "v.pkl")
    assert list(record.statistics) == ["b", "a"]
    for key, statistics in record.statistics.items():
        np.testing.assert_array_equal(statistics.mean, wrapper.obs_rms[key].mean)
        np.testing.assert_array_equal(statistics.variance, wrapper.obs_rms[key].var)


def test_a_file_whose_spaces_drag_generators_along(tmp_path):
    box = spaces.Box(-1, 1, (2,))
    box.seed(3)
    written_by_sb3(tmp_path / "v.pkl", box)
    assert read_normalizer(tmp_path / "v.pkl").statistics[""].mean.shape == (2,)


def test_a_file_that_normalised_rewards_alone(tmp_path):
    written_by_sb3(tmp_path / "v.pkl", spaces.Box(-1, 1, (2,)), norm_obs=False)
    record = read_normalizer(tmp_path / "v.pkl")
    assert (record.norm_obs, dict(record.statistics)) == (False, {})


# Hostile and damaged


class Intruder:
    """A pickle of it makes a folder when it is loaded."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return os.mkdir, (self._path,)


OTHER_STATISTICS = "Save its mean and var to an .npz and name that with --normalizer, or do without: --normalizer none."


def test_a_hostile_file_is_refused_by_name_and_not_executed(refusal, tmp_path):
    target = tmp_path / "broken in"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert refusal(pickle.dumps(Intruder(str(target)), protocol)) == (
            "Normaliser file FILE is refused: its pickle wants posix.mkdir, which is not allowed there. "
            f"Nothing of it was executed. {OTHER_STATISTICS}"
        )
    assert not target.exists()


def test_a_hostile_part_inside_a_real_file(refusal, tmp_path):
    wrapper = written_by_sb3(tmp_path / "v.pkl", spaces.Box(-1, 1, (2,)))
    wrapper.metadata_of_mine = Intruder(str(tmp_path / "broken in"))
    assert "its pickle wants posix.mkdir" in refusal(pickle.dumps(wrapper))
    assert not (tmp_path / "broken in").exists()


def test_truncated_files(refusal, tmp_path):
    written_by_sb3(tmp_path / "v.pkl", spaces.Box(-1, 1, (2,)))
    data = (tmp_path / "v.pkl").read_bytes()
    assert refusal(b"").endswith("is empty: got 0 bytes. Its download or copy was cut off. Fetch it again.")
    for length in range(1, len(data), 11):
        assert refusal(data[:length]).startswith("Normaliser file FILE cannot be read: it is no whole pickle (")


def test_nothing_there(tmp_path):
    with pytest.raises(PolicyFileError, match=r"cannot be read: No such file or directory\. Is the path right\?"):
        read_normalizer(tmp_path / "v.pkl")


def test_something_else(refusal):
    assert refusal(pickle.dumps({"mean": 1})) == (
        f"Normaliser file FILE: got a dict, expected a VecNormalize of Stable-Baselines3. {OTHER_STATISTICS}"
    )


def changed(tmp_path, **attributes):
    """Return a real file's bytes after attributes of its wrapper were changed."""
    wrapper = written_by_sb3(tmp_path / "v.pkl", spaces.Box(-1, 1, (2,)))
    for name, value in attributes.items():
        setattr(wrapper.obs_rms if name in ("mean", "var", "count") else wrapper, name, value)
    return pickle.dumps(wrapper)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"mean": np.array([0.0, np.nan])}, "mean holds NaN or infinity"),
        ({"var": np.array([1.0, np.inf])}, "var holds NaN or infinity"),
        ({"var": np.array([1.0, -1.0])}, "var holds negative numbers"),
        ({"var": np.ones(3)}, "a mean of shape [2] and a var of shape [3]"),
        ({"mean": None}, "expected an array, got NoneType"),
        ({"count": None}, "expected a number, got NoneType"),
        ({"count": 10**400}, "expected a finite number, got one beyond all floats"),
        ({"epsilon": -1.0}, "epsilon -1.0 must be 0 or more and clip_obs 10.0 positive"),
        ({"clip_obs": 0.0}, "epsilon 1e-08 must be 0 or more and clip_obs 0.0 positive"),
        ({"clip_obs": float("nan")}, "expected a finite number, got nan"),
        ({"clip_obs": float("-inf")}, "epsilon 1e-08 must be 0 or more and clip_obs -inf positive"),
        ({"epsilon": float("inf")}, "expected a finite number, got inf"),
        ({"obs_rms": None}, "expected running statistics, got NoneType"),
    ],
)
def test_statistics_that_cannot_be(refusal, tmp_path, attributes, reason):
    line = refusal(changed(tmp_path, **attributes))
    assert line.startswith(f"Normaliser file FILE: its statistics cannot be used: {reason}")


@pytest.mark.parametrize("limit", [math.inf, np.float64(np.inf), np.array(np.inf)])
def test_a_wrapper_that_clips_nothing_gives_a_policy_that_clips_nothing(tmp_path, limit):
    wrapper = written_by_sb3(tmp_path / "vecnormalize.pkl", spaces.Box(-1, 1, (3,)), clip_obs=limit)
    (tmp_path / "p.zip").write_bytes(pack())
    policy = load_sb3(tmp_path / "p.zip")
    assert not policy.normalization.clips
    rows = np.array([[1e4, -1e4, 0.0], [0.5, 0.5, 0.5]], np.float32)
    seen = torch.from_numpy(wrapper.normalize_obs(rows))
    bare = load_sb3(tmp_path / "p.zip", normalizer="none")
    torch.testing.assert_close(policy(rows)[0].logits, bare(seen)[0].logits, rtol=1e-5, atol=1e-5)
    policy.save(tmp_path / "p.safetensors")
    again = load_policy(tmp_path / "p.safetensors")
    assert again.hash == policy.hash
    assert torch.equal(again(rows)[0].logits, policy(rows)[0].logits)


def test_an_array_of_objects_is_not_built(refusal, tmp_path):
    mean = np.array([Intruder(str(tmp_path / "broken in")), 1.0], dtype=object)
    assert "its pickle wants posix.mkdir" in refusal(changed(tmp_path, mean=mean))
    assert "without shape, type and bytes" in refusal(changed(tmp_path, mean=np.array([1.0, 2.0], dtype=object)))
