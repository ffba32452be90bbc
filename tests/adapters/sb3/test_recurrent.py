"""RecurrentPPO of sb3-contrib: over sequences with a reset in the middle its actor answers as the library does."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rldistill.adapters.sb3.load import load_sb3
from rldistill.inspection.describe import describe
from rldistill.testing import Reference, check_policy
from tests.adapters.sb3.small_models import BOX, DICT, IMAGE, TORQUES, flattened, samples, train

pytest.importorskip("stable_baselines3")
contrib = pytest.importorskip("sb3_contrib")

NUM_STEPS, NUM_ENVS = 12, 3
SMALL = {"net_arch": [7], "lstm_hidden_size": 6}
SHARED = {"shared_lstm": True, "enable_critic_lstm": False}
DISCRETE = spaces.Discrete(4)
CASES = {
    "a critic with a memory of its own": ("MlpLstmPolicy", BOX, DISCRETE, SMALL),
    "a critic without a memory": ("MlpLstmPolicy", BOX, TORQUES, SMALL | {"enable_critic_lstm": False}),
    "a shared memory": ("MlpLstmPolicy", BOX, DISCRETE, SMALL | SHARED | {"net_arch": []}),
    "several layers": ("MlpLstmPolicy", BOX, spaces.MultiDiscrete([3, 2]), SMALL | SHARED | {"n_lstm_layers": 3}),
    "no biases": ("MlpLstmPolicy", BOX, DISCRETE, SMALL | {"lstm_kwargs": {"bias": False}}),
    "images": ("CnnLstmPolicy", IMAGE, DISCRETE, SMALL | {"features_extractor_kwargs": {"features_dim": 5}}),
    "several parts": ("MultiInputLstmPolicy", DICT, DISCRETE, SMALL),
}


def trained(name, path, **options):
    kind, seen, actions, policy = CASES[name]
    model = train(
        contrib.RecurrentPPO, kind, seen, actions, n_steps=12, batch_size=12, policy_kwargs=dict(policy), **options
    )
    model.save(path)
    return model


def reference(model):
    """Return what the library answers to steps of several environments, of which some begin anew in the middle."""
    space, policy = model.observation_space, model.policy
    policy.set_training_mode(False)
    seen = [samples(space, NUM_ENVS, seed) for seed in range(NUM_STEPS)]
    starts = np.zeros((NUM_STEPS, NUM_ENVS), bool)
    starts[0], starts[5, 1], starts[8, :2] = True, True, True
    state, actions, outputs = None, [], []
    policy.action_net.register_forward_hook(lambda _module, _given, answer: outputs.append(answer.detach()))
    for rows, begins in zip(seen, starts, strict=True):
        done, state = model.predict(rows, state=state, episode_start=begins, deterministic=True)
        actions.append(done)
    if isinstance(model.action_space, spaces.Box):
        outputs = [torch.cat([mean, policy.log_std.detach().expand_as(mean)], dim=1) for mean in outputs]
    observations = np.stack([flattened(space, rows) for rows in seen])
    return Reference(observations, torch.stack(outputs).numpy(), np.stack(actions), starts)


@pytest.mark.filterwarnings("ignore::rldistill.errors.TeacherWarning")
@pytest.mark.parametrize("name", CASES)
def test_its_answers_are_those_of_the_library(name, tmp_path):
    path = tmp_path / "model.zip"
    model = trained(name, path)
    check_policy(lambda: load_sb3(path), reference=reference(model))


def test_its_file_says_how_many_layers_remember(tmp_path):
    trained("several layers", tmp_path / "model.zip")
    found = describe(tmp_path / "model.zip")
    assert found["architecture"]["name"] == "lstm:6x6x6:7"
    assert [found["architecture"][key] for key in ("memory", "memory_size", "memory_layers")] == ["lstm", 6, 3]
    assert found["num_remembered"] == 3 * 2 * 6
    assert found["provenance"]["source"]["algorithm"] == "ppo_lstm"


def test_a_value_on_a_shared_memory_is_kept_and_one_on_its_own_is_left_out(tmp_path):
    for name, value in (("a shared memory", True), ("a critic with a memory of its own", False)):
        trained(name, tmp_path / "model.zip")
        output, _ = load_sb3(tmp_path / "model.zip")(samples(BOX, 2))
        assert (output.value is not None) is value
