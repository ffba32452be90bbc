"""Every algorithm and kind of policy, against the real library: 1,000 observations, the same batch size."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from rldistill.adapters.load import load_policy
from rldistill.adapters.sb3.load import load_sb3
from rldistill.envs import make_task
from rldistill.errors import PolicyFileError
from rldistill.inspection.describe import describe
from rldistill.verbs.collect import collect
from tests.adapters.sb3.small_models import (
    BOX,
    DICT,
    FAR_GOALS,
    FLOAT_IMAGE,
    FLOAT_SIGHTS,
    GOALS,
    IMAGE,
    SIGHTS,
    TORQUES,
    VIEWS,
    RandomObservations,
    compare,
    flattened,
    samples,
    train,
)
from tests.kit.flat import distill

sb3 = pytest.importorskip("stable_baselines3")
contrib = pytest.importorskip("sb3_contrib")

SMALL = {"net_arch": [16, 12]}
ON_POLICY = {"n_steps": 12, "policy_kwargs": SMALL}
OFF_POLICY = {"buffer_size": 50, "learning_starts": 5, "batch_size": 8, "policy_kwargs": SMALL}
DISCRETE = spaces.Discrete(4)
GSDE = {"use_sde": True}


def kwargs(base, **policy_kwargs):
    return base | {"policy_kwargs": base["policy_kwargs"] | policy_kwargs}


PPO = kwargs(ON_POLICY) | {"batch_size": 12, "n_epochs": 1}
HER = OFF_POLICY | {"replay_buffer_class": sb3.HerReplayBuffer, "learning_starts": 15}
ARS = {"n_delta": 2, "policy_kwargs": {"net_arch": [8]}}
CNN = {"net_arch": [], "features_extractor_kwargs": {"features_dim": 16}}
SIGHT = SMALL | {"features_extractor_kwargs": {"cnn_output_dim": 11}}
LINEAR = {"net_arch": []}
UNSCALED = {"normalize_images": False}
PRELU = {"n_steps": 12, "batch_size": 12, "policy_kwargs": {"activation_fn": nn.PReLU}}

CASES = {
    "dqn": (sb3.DQN, "MlpPolicy", BOX, DISCRETE, OFF_POLICY),
    "dqn-elu": (sb3.DQN, "MlpPolicy", BOX, DISCRETE, kwargs(OFF_POLICY, activation_fn=nn.ELU)),
    "dqn-linear": (sb3.DQN, "MlpPolicy", BOX, DISCRETE, kwargs(OFF_POLICY, net_arch=[])),
    "dqn-images": (sb3.DQN, "CnnPolicy", IMAGE, DISCRETE, kwargs(OFF_POLICY, **CNN)),
    "dqn-flat-images": (sb3.DQN, "MlpPolicy", IMAGE, DISCRETE, OFF_POLICY),
    "dqn-flat-images-unscaled": (
        sb3.DQN,
        "MlpPolicy",
        IMAGE,
        DISCRETE,
        kwargs(OFF_POLICY, normalize_images=False),
    ),
    "dqn-bytes": (sb3.DQN, "MlpPolicy", spaces.Box(0, 255, (6,), np.uint8), DISCRETE, OFF_POLICY),
    "dqn-dict": (sb3.DQN, "MultiInputPolicy", DICT, DISCRETE, OFF_POLICY),
    "dqn-dict-of-tables": (
        sb3.DQN,
        "MultiInputPolicy",
        spaces.Dict(switches=spaces.MultiBinary([2, 3]), choices=spaces.MultiDiscrete([2, 3])),
        DISCRETE,
        OFF_POLICY,
    ),
    "dqn-her": (sb3.DQN, "MultiInputPolicy", GOALS, DISCRETE, HER),
    "dqn-images-and-more-linear": (sb3.DQN, "MultiInputPolicy", SIGHTS, DISCRETE, kwargs(OFF_POLICY, **SIGHT | LINEAR)),
    "ppo-images-and-more-gsde": (sb3.PPO, "MultiInputPolicy", SIGHTS, TORQUES, kwargs(PPO, **SIGHT | LINEAR) | GSDE),
    "ppo-images-and-more-unscaled": (
        sb3.PPO,
        "MultiInputPolicy",
        SIGHTS,
        DISCRETE,
        kwargs(PPO, **SIGHT | UNSCALED),
    ),
    "ppo-float-images-and-more": (
        sb3.PPO,
        "MultiInputPolicy",
        FLOAT_SIGHTS,
        DISCRETE,
        kwargs(PPO, **SIGHT | UNSCALED),
    ),
    "sac-float-images-and-more": (
        sb3.SAC,
        "MultiInputPolicy",
        FLOAT_SIGHTS,
        TORQUES,
        kwargs(OFF_POLICY, **SIGHT | UNSCALED),
    ),
    "ppo-float-images-as-vectors": (sb3.PPO, "MultiInputPolicy", spaces.Dict(a=FLOAT_IMAGE), DISCRETE, PPO),
    "ppo-float-images": (sb3.PPO, "CnnPolicy", FLOAT_IMAGE, DISCRETE, kwargs(PPO, **CNN | UNSCALED)),
    "dqn-two-images": (sb3.DQN, "MultiInputPolicy", VIEWS, DISCRETE, kwargs(OFF_POLICY, **SIGHT)),
    "dqn-of-a-choice": (sb3.DQN, "MlpPolicy", spaces.Discrete(6), DISCRETE, OFF_POLICY),
    "crossq": (contrib.CrossQ, "MlpPolicy", BOX, TORQUES, OFF_POLICY),
    "qrdqn": (contrib.QRDQN, "MlpPolicy", BOX, DISCRETE, kwargs(OFF_POLICY, n_quantiles=7)),
    "qrdqn-her": (contrib.QRDQN, "MultiInputPolicy", GOALS, DISCRETE, HER),
    "qrdqn-images": (contrib.QRDQN, "CnnPolicy", IMAGE, DISCRETE, kwargs(OFF_POLICY, n_quantiles=7, **CNN)),
    "ppo": (sb3.PPO, "MlpPolicy", BOX, DISCRETE, PPO),
    "ppo-dict-of-layers": (sb3.PPO, "MlpPolicy", BOX, DISCRETE, kwargs(PPO, net_arch={"pi": [9], "vf": [7, 7]})),
    "a2c-layers-of-their-own": (
        sb3.A2C,
        "MlpPolicy",
        BOX,
        TORQUES,
        kwargs(ON_POLICY, net_arch={"pi": [9, 5], "vf": [7]}),
    ),
    "ppo-value-with-layers": (sb3.PPO, "MlpPolicy", BOX, DISCRETE, kwargs(PPO, net_arch={"pi": [], "vf": [7]})),
    "ppo-value-without-layers": (sb3.PPO, "MlpPolicy", BOX, TORQUES, kwargs(PPO, net_arch={"pi": [9], "vf": []})),
    "ppo-images-layers-of-their-own": (
        sb3.PPO,
        "CnnPolicy",
        IMAGE,
        DISCRETE,
        kwargs(PPO, **CNN | {"net_arch": {"pi": [9], "vf": [7, 5]}}),
    ),
    "ppo-linear": (sb3.PPO, "MlpPolicy", BOX, DISCRETE, kwargs(PPO, net_arch=[])),
    "ppo-gaussian": (sb3.PPO, "MlpPolicy", BOX, TORQUES, PPO),
    "ppo-gelu": (sb3.PPO, "MlpPolicy", BOX, TORQUES, kwargs(PPO, activation_fn=nn.GELU)),
    **{
        f"ppo-{activation.__name__}": (sb3.PPO, "MlpPolicy", BOX, TORQUES, kwargs(PPO, activation_fn=activation))
        for activation in (nn.Mish, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Softsign, nn.CELU, nn.ReLU6)
    },
    "ppo-gsde": (sb3.PPO, "MlpPolicy", BOX, TORQUES, PPO | GSDE),
    "ppo-gsde-one-std": (sb3.PPO, "MlpPolicy", BOX, TORQUES, kwargs(PPO, full_std=False) | GSDE),
    "ppo-gsde-expln": (sb3.PPO, "MlpPolicy", BOX, TORQUES, kwargs(PPO, use_expln=True) | GSDE),
    "ppo-gsde-squashed": (sb3.PPO, "MlpPolicy", BOX, TORQUES, kwargs(PPO, squash_output=True) | GSDE),
    "ppo-several-choices": (sb3.PPO, "MlpPolicy", BOX, spaces.MultiDiscrete([3, 2, 4]), PPO),
    "ppo-switches": (sb3.PPO, "MlpPolicy", BOX, spaces.MultiBinary(3), PPO),
    "ppo-images": (sb3.PPO, "CnnPolicy", IMAGE, DISCRETE, kwargs(PPO, **CNN)),
    "ppo-images-not-shared": (
        sb3.PPO,
        "CnnPolicy",
        IMAGE,
        DISCRETE,
        kwargs(PPO, share_features_extractor=False, **CNN),
    ),
    "ppo-dict": (sb3.PPO, "MultiInputPolicy", DICT, TORQUES, PPO),
    "a2c": (sb3.A2C, "MlpPolicy", BOX, DISCRETE, ON_POLICY),
    "a2c-gaussian": (sb3.A2C, "MlpPolicy", BOX, TORQUES, ON_POLICY),
    "trpo": (contrib.TRPO, "MlpPolicy", BOX, DISCRETE, ON_POLICY | {"batch_size": 12}),
    "trpo-gaussian": (contrib.TRPO, "MlpPolicy", BOX, TORQUES, ON_POLICY | {"batch_size": 12}),
    "maskable-ppo": (contrib.MaskablePPO, "MlpPolicy", BOX, DISCRETE, PPO),
    "sac": (sb3.SAC, "MlpPolicy", BOX, TORQUES, OFF_POLICY),
    "sac-linear": (sb3.SAC, "MlpPolicy", BOX, TORQUES, kwargs(OFF_POLICY, net_arch=[])),
    "sac-gsde": (sb3.SAC, "MlpPolicy", BOX, TORQUES, OFF_POLICY | GSDE),
    "sac-gsde-unlimited": (sb3.SAC, "MlpPolicy", BOX, TORQUES, kwargs(OFF_POLICY, clip_mean=0.0) | GSDE),
    "sac-her": (sb3.SAC, "MultiInputPolicy", GOALS, TORQUES, HER),
    "tqc-her": (contrib.TQC, "MultiInputPolicy", GOALS, TORQUES, HER),
    "tqc": (contrib.TQC, "MlpPolicy", BOX, TORQUES, OFF_POLICY),
    "tqc-gsde": (contrib.TQC, "MlpPolicy", BOX, TORQUES, OFF_POLICY | GSDE),
    "td3": (sb3.TD3, "MlpPolicy", BOX, TORQUES, OFF_POLICY),
    "td3-one-critic": (sb3.TD3, "MlpPolicy", BOX, TORQUES, kwargs(OFF_POLICY, n_critics=1)),
    "td3-her": (sb3.TD3, "MultiInputPolicy", GOALS, TORQUES, HER),
    "ddpg-two-critics": (sb3.DDPG, "MlpPolicy", BOX, TORQUES, kwargs(OFF_POLICY, n_critics=2)),
    "ddpg-her": (sb3.DDPG, "MultiInputPolicy", GOALS, TORQUES, HER),
    "ddpg": (sb3.DDPG, "MlpPolicy", BOX, TORQUES, OFF_POLICY),
    "ars": (contrib.ARS, "MlpPolicy", BOX, TORQUES, ARS),
    "ars-choices": (contrib.ARS, "MlpPolicy", BOX, DISCRETE, ARS),
    "ars-linear": (contrib.ARS, "LinearPolicy", BOX, TORQUES, {"n_delta": 2}),
    "ars-linear-choices": (contrib.ARS, "LinearPolicy", BOX, DISCRETE, {"n_delta": 2}),
}
# Every algorithm that takes images, with each of the two features extractors that have convolutions.
ALGORITHMS = {
    "dqn": (sb3.DQN, DISCRETE, OFF_POLICY),
    "qrdqn": (contrib.QRDQN, DISCRETE, kwargs(OFF_POLICY, n_quantiles=7)),
    "ppo": (sb3.PPO, TORQUES, PPO),
    "maskable-ppo": (contrib.MaskablePPO, spaces.MultiDiscrete([3, 2]), PPO),
    "a2c": (sb3.A2C, DISCRETE, ON_POLICY),
    "trpo": (contrib.TRPO, TORQUES, ON_POLICY | {"batch_size": 12}),
    "sac": (sb3.SAC, TORQUES, OFF_POLICY),
    "tqc": (contrib.TQC, TORQUES, OFF_POLICY),
    "td3": (sb3.TD3, TORQUES, OFF_POLICY),
    "ddpg": (sb3.DDPG, TORQUES, OFF_POLICY),
}
EXTRACTORS = {
    "nature": ("CnnPolicy", IMAGE, {"features_extractor_kwargs": {"features_dim": 16}}),
    "combined": ("MultiInputPolicy", SIGHTS, SIGHT),
}
CASES |= {
    f"{name}-{extractor}": (algorithm, policy, observation_space, action_space, kwargs(options, **policy_kwargs))
    for name, (algorithm, action_space, options) in ALGORITHMS.items()
    for extractor, (policy, observation_space, policy_kwargs) in EXTRACTORS.items()
}
NORMALISED = {
    "ppo-normalised": (sb3.PPO, "MlpPolicy", BOX, TORQUES, PPO, {}),
    "ppo-normalised-clipped": (sb3.PPO, "MlpPolicy", BOX, TORQUES, PPO, {"clip_obs": 0.7, "epsilon": 0.1}),
    "sac-normalised": (sb3.SAC, "MlpPolicy", BOX, TORQUES, OFF_POLICY, {}),
    "sac-her-normalised": (sb3.SAC, "MultiInputPolicy", GOALS, TORQUES, HER, {}),
    "ppo-dict-normalised": (
        sb3.PPO,
        "MultiInputPolicy",
        DICT,
        TORQUES,
        PPO,
        {"norm_obs_keys": ["position", "a matrix"]},
    ),
    "sac-her-observation-normalised": (
        sb3.SAC,
        "MultiInputPolicy",
        FAR_GOALS,
        TORQUES,
        HER,
        {"norm_obs_keys": ["observation"], "clip_obs": 1.5},
    ),
    "ppo-images-and-more-normalised": (
        sb3.PPO,
        "MultiInputPolicy",
        SIGHTS,
        TORQUES,
        kwargs(PPO, **SIGHT),
        {"norm_obs_keys": ["speed"], "clip_obs": 0.9},
    ),
    "ppo-float-images-and-more-normalised": (
        sb3.PPO,
        "MultiInputPolicy",
        FLOAT_SIGHTS,
        TORQUES,
        kwargs(PPO, **SIGHT | UNSCALED),
        {"norm_obs_keys": ["speed", "view"]},
    ),
    "ppo-dict-of-images-normalised-unscaled": (
        sb3.PPO,
        "MultiInputPolicy",
        VIEWS,
        TORQUES,
        kwargs(PPO, **SIGHT | UNSCALED),
        {},
    ),
    "ppo-dict-of-images-normalised": (sb3.PPO, "MultiInputPolicy", VIEWS, TORQUES, PPO, {}),
    "ppo-images-normalised": (sb3.PPO, "CnnPolicy", IMAGE, TORQUES, kwargs(PPO, **CNN | UNSCALED), {}),
    "ppo-not-normalised": (sb3.PPO, "MlpPolicy", BOX, TORQUES, PPO, {"norm_obs": False}),
}


@pytest.mark.filterwarnings("ignore:.*MaskablePPO")
@pytest.mark.parametrize("case", CASES)
def test_the_head_is_that_of_the_real_model(case, tmp_path):
    algorithm, kind, observation_space, action_space, options = CASES[case]
    model = train(algorithm, kind, observation_space, action_space, **options)
    model.save(tmp_path / "model.zip")
    observations = samples(observation_space, 1000)
    policy = load_sb3(tmp_path / "model.zip")
    task = make_task(lambda: RandomObservations(observation_space, action_space)).task
    rows = flattened(observation_space, observations).astype(task.fingerprint.observation_dtype)
    compare(model, policy, observations, rows)
    assert policy.tasks[0].fingerprint.differences(task.fingerprint) == []
    name = type(model).__name__
    expected = {"MaskablePPO": "ppo_mask", "DDPG": ("ddpg", "td3/ddpg")["two-critics" in case]}.get(name, name.lower())
    assert policy.spec.provenance["source"]["algorithm"] == expected
    assert policy.spec.provenance["source"]["library_version"] == sb3.__version__


@pytest.mark.parametrize("case", NORMALISED)
def test_statistics_beside_the_zip_are_applied_as_the_library_does(case, tmp_path):
    algorithm, kind, observation_space, action_space, options, normalised = NORMALISED[case]
    model = train(algorithm, kind, observation_space, action_space, normalised=normalised, **options)
    model.save(tmp_path / "model.zip")
    wrapper = model.get_vec_normalize_env()
    wrapper.save(tmp_path / "vecnormalize.pkl")
    observations = samples(observation_space, 1000)
    task = make_task(lambda: RandomObservations(observation_space, action_space)).task
    policy = load_sb3(tmp_path / "model.zip", task=task)
    assert policy.tasks[0].fingerprint.differences(task.fingerprint) == []
    rows = flattened(observation_space, observations).astype(task.fingerprint.observation_dtype)
    compare(model, policy, wrapper.normalize_obs(observations), rows)
    policy.save(tmp_path / "own.safetensors")
    again = load_policy(tmp_path / "own.safetensors")
    assert (again.hash, again.normalization) == (policy.hash, policy.normalization)


def test_an_image_that_is_normalised_into_a_vector_beside_another_image_is_refused(tmp_path):
    model = train(sb3.PPO, "MultiInputPolicy", SIGHTS, DISCRETE, normalised={"norm_obs_keys": ["view"]}, **PPO)
    model.save(tmp_path / "model.zip")
    model.get_vec_normalize_env().save(tmp_path / "vecnormalize.pkl")
    task = make_task(lambda: RandomObservations(SIGHTS, DISCRETE)).task
    with pytest.raises(PolicyFileError, match=r"it has 6 layers below its output, where its images need 10\. "):
        load_sb3(tmp_path / "model.zip", task=task)


def test_statistics_of_some_parts_travel_into_the_student(tmp_path):
    algorithm, kind, observation_space, action_space, options, normalised = NORMALISED["ppo-dict-normalised"]
    model = train(algorithm, kind, observation_space, action_space, normalised=normalised, **options)
    model.save(tmp_path / "model.zip")
    model.get_vec_normalize_env().save(tmp_path / "vecnormalize.pkl")
    task = make_task(lambda: RandomObservations(observation_space, action_space))
    policy = load_sb3(tmp_path / "model.zip", task=task.task)
    collect(policy, task, num_steps=80, out=tmp_path / "data", num_envs=2, num_threads=1)
    distill(
        tmp_path / "data",
        student="mlp:4",
        num_updates=2,
        batch_size=8,
        evaluate_episodes=0,
        out=tmp_path / "run",
        num_threads=1,
    )
    student = load_policy(tmp_path / "run" / "student.safetensors")
    assert student.normalization == policy.normalization
    assert student.normalization.untouched == ((4, 6), (9, 13))


def test_values_travel_where_they_share_the_features(tmp_path):
    model = train(*CASES["ppo-images"][:4], **CASES["ppo-images"][4])
    model.save(tmp_path / "model.zip")
    observations = samples(IMAGE, 50)
    output, _ = load_sb3(tmp_path / "model.zip")(observations)
    with torch.inference_mode():
        expected = model.policy.predict_values(torch.from_numpy(observations)).squeeze(1)
    torch.testing.assert_close(output.value, expected, rtol=1e-5, atol=1e-5)
    assert describe(tmp_path / "model.zip")["state_value"] == "kept, on the policy's own features"


@pytest.mark.parametrize("case", ["ppo", "a2c-layers-of-their-own", "ppo-value-with-layers", "ppo-images-not-shared"])
def test_values_that_have_layers_of_their_own_are_left_out(case, tmp_path):
    model = train(*CASES[case][:4], **CASES[case][4])
    model.save(tmp_path / "model.zip")
    output, _ = load_sb3(tmp_path / "model.zip")(samples(CASES[case][2], 2))
    assert output.value is None
    assert describe(tmp_path / "model.zip")["state_value"] == "left out: its file computes it with layers of its own"


@pytest.mark.parametrize(
    ("algorithm", "kind", "action_space", "options", "reason"),
    [
        (
            "CrossQ",
            "MlpPolicy",
            TORQUES,
            {"learning_starts": 5, "buffer_size": 50, "use_sde": True},
            "noise that depends on the state (gSDE) above batch renormalisation",
        ),
        ("TRPO", "MlpPolicy", DISCRETE, PRELU, "activations that learn (PReLU)"),
    ],
)
def test_algorithms_that_are_not_supported_are_refused_by_name(
    tmp_path, algorithm, kind, action_space, options, reason
):
    model = train(getattr(contrib, algorithm), kind, BOX, action_space, num_steps=12, **options)
    model.save(tmp_path / "model.zip")
    with pytest.raises(PolicyFileError) as caught:
        load_sb3(tmp_path / "model.zip")
    assert f"cannot be rebuilt: it has {reason}" in str(caught.value)
