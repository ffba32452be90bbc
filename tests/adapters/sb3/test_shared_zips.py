"""Published teachers that none of us trained: their heads are those that Stable-Baselines3 computes.

The references were computed by stable-baselines3 on other machines, on inputs that were already
normalised. Outputs of squashed actors stand there after tanh.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from rldistill.adapters.sb3.load import load_sb3
from rldistill.errors import TeacherWarning
from rldistill.policies import load_policy
from rldistill.types import PolicyOutput

SHARED = Path(__file__).resolve().parents[4] / "shared" / "teachers" / "sb3"
ZIPS = [str(path.relative_to(SHARED)) for path in sorted(SHARED.glob("*/*/*.zip"))]


@pytest.fixture
def folder(shared_teachers):
    return shared_teachers / "sb3"


def reference_of(path):
    suffix = "_best_model" if path.stem == "best_model" else ""
    return np.load(path.with_name(f"sb3_reference{suffix}.npz"))


def assert_close(actual, expected, *, largest=None):
    """Relative 1e-5, absolute 1e-5 × the largest output of the head."""
    largest = np.abs(expected).max() if largest is None else largest
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=1e-5, atol=1e-5 * largest)


def raw_output(policy, inputs):
    """Return what the network computes for all inputs at once, as the reference did."""
    with torch.inference_mode():
        raw = policy.network.eval()(torch.from_numpy(inputs)).outputs
    return PolicyOutput.from_raw(policy.tasks[0].fingerprint.action_layout, policy.output_kind, raw)


def without_normalizer(path):
    """Load a zip for inputs that are normalised already; whoever says so is not warned."""
    return load_sb3(path, normalizer="none")


def test_all_of_them_are_there(folder):
    assert len(ZIPS) == 70
    assert len(list(folder.glob("*/*/sb3_reference.npz"))) == 59


@pytest.mark.filterwarnings("ignore::rldistill.errors.TeacherWarning")
@pytest.mark.parametrize("name", ZIPS or ["absent"])
def test_the_head_is_that_of_stable_baselines3(folder, name):
    policy = without_normalizer(folder / name)
    reference = reference_of(folder / name)
    output = raw_output(policy, reference["X"])
    layout = output.action_layout
    actions, _ = policy.act(reference["X"])
    match output.kind:
        case "q_values":
            expected = reference["head"].mean(axis=1) if reference["head"].ndim == 3 else reference["head"]
            assert_close(output.q_values, expected)
            assert_same_choice(actions, reference["action"], expected)
        case "logits":
            # On-policy references are log-probabilities; the scores of ARS are compared without their sum, too.
            expected = torch.log_softmax(torch.from_numpy(reference["head"]), 1).numpy()
            assert_close(torch.log_softmax(output.logits, 1), expected, largest=output.logits.abs().max().item())
            assert_same_choice(actions, reference["action"], expected)
        case "gaussian":
            largest = output.mean.abs().max().item()
            mean = torch.tanh(output.mean) if layout.mapping == "tanh_rescale" else output.mean
            assert_close(mean, reference["head"], largest=largest)
            assert_close(output.log_std.exp(), reference["std"])
            assert_close(actions, reference["action"], largest=largest * max(layout.high))
        case "actions":
            squashed = layout.mapping == "tanh_rescale"
            assert_close(output.actions, reference["action"] if squashed else reference["head"])
            assert_close(actions, reference["action"])


def assert_same_choice(actions, expected, scores):
    """Greedy actions are equal wherever the best two differ by more than rounding does."""
    best, second = np.sort(scores, axis=1)[:, :-3:-1].T
    is_clear = best - second > 2e-5 * np.abs(scores).max()
    assert is_clear.mean() > 0.9
    np.testing.assert_array_equal(actions[is_clear], expected[is_clear])


@pytest.mark.parametrize("name", ZIPS or ["absent"])
def test_the_normaliser_beside_a_zip_becomes_part_of_the_policy(folder, name):
    policy = load_sb3(folder / name)
    statistics = (folder / name).with_name("vecnormalize.pkl")
    assert (policy.normalization is not None) == statistics.is_file()
    source = policy.spec.provenance["source"]
    assert source["algorithm"] == name.partition("/")[0]
    assert source["environment"] == name.split("/")[1] == policy.tasks[0].name
    assert source["notes"] == []


def test_a_zip_becomes_a_policy_file_of_our_own(folder, tmp_path):
    policy = load_sb3(folder / "ppo" / "MountainCarContinuous-v0" / "MountainCarContinuous-v0.zip")
    policy.save(tmp_path / "p.safetensors")
    loaded = load_policy(tmp_path / "p.safetensors")
    observations = np.linspace([-1.2, -0.07], [0.6, 0.07], 50, dtype=np.float32)
    torch.testing.assert_close(loaded(observations)[0].raw, policy(observations)[0].raw, rtol=0, atol=0)
    assert loaded.hash == policy.hash
    assert loaded.normalization == policy.normalization


def test_provenance_says_where_a_policy_comes_from(folder):
    path = folder / "a2c" / "Pendulum-v1" / "Pendulum-v1.zip"
    source = load_sb3(path).spec.provenance["source"]
    assert source["sha256"] == "".join(source["sha256"].split()) and len(source["sha256"]) == 64
    assert source["normalizer"]["file"] == "vecnormalize.pkl"
    assert source["normalizer"]["num_observations"] == 1_000_000
    assert (source["format"], source["file"], source["library_version"]) == (
        "stable-baselines3",
        "Pendulum-v1.zip",
        "2.4.0a11",
    )
    assert source["policy_class"] == "stable_baselines3.common.policies.ActorCriticPolicy"


def test_a_zip_from_2020_without_a_version_and_in_the_old_format_of_torch(folder):
    source = load_sb3(folder / "sac" / "Pendulum-v1" / "Pendulum-v1.zip").spec.provenance["source"]
    assert (source["library_version"], source["num_timesteps"]) == (None, 20_000)


# What goes wrong silently elsewhere


def test_a_missing_normaliser_is_a_warning_that_names_the_file_expected(folder, tmp_path):
    original = folder / "ppo" / "MountainCar-v0"
    for name in ("MountainCar-v0.zip", "config.yml"):
        (tmp_path / name).write_bytes((original / name).read_bytes())
    expected = (
        f"Policy file {tmp_path / 'MountainCar-v0.zip'}: its teacher saw normalised observations, but "
        f"{tmp_path / 'vecnormalize.pkl'} is missing. Without these statistics it plays about as well as at random. "
        "Fetch the file, or name it with --normalizer (in Python normalizer=)."
    )
    with pytest.warns(TeacherWarning) as caught:
        policy = load_sb3(tmp_path / "MountainCar-v0.zip")
    assert [str(warning.message) for warning in caught] == [expected]
    assert policy.spec.provenance["source"]["notes"] == [expected]


def test_the_zip_itself_says_that_an_on_policy_teacher_saw_other_observations(folder, tmp_path):
    original = folder / "ppo" / "MountainCar-v0" / "MountainCar-v0.zip"
    (tmp_path / "x.zip").write_bytes(original.read_bytes())
    with pytest.warns(TeacherWarning, match=r"vecnormalize\.pkl is missing"):
        load_sb3(tmp_path / "x.zip")
    (tmp_path / "y.zip").write_bytes((folder / "ppo" / "CartPole-v1" / "CartPole-v1.zip").read_bytes())
    assert load_sb3(tmp_path / "y.zip").tasks[0].name == "unnamed"


def test_statistics_left_out_change_most_actions(folder):
    path = folder / "ppo" / "MountainCar-v0" / "MountainCar-v0.zip"
    observations = np.random.default_rng(0).uniform([-1.2, -0.07], [0.6, 0.07], (500, 2)).astype(np.float32)
    bare, _ = without_normalizer(path).act(observations)
    actions, _ = load_sb3(path).act(observations)
    assert (bare != actions).mean() > 0.2


def test_a_normaliser_of_another_teacher_is_refused(folder):
    with pytest.raises(Exception, match=r"statistics of shape \[17\] for observations of shape \[2\]"):
        load_sb3(
            folder / "ppo" / "MountainCar-v0" / "MountainCar-v0.zip",
            normalizer=folder / "ppo" / "HalfCheetah-v3" / "vecnormalize.pkl",
        )


def test_the_activation_is_the_one_that_the_zip_names(folder):
    # The default of the algorithm is tanh: with it this teacher falls from 5893 to -32.
    policy = load_sb3(folder / "ppo" / "HalfCheetah-v3" / "HalfCheetah-v3.zip")
    assert policy.spec.architecture.activation == "relu"
    assert load_sb3(folder / "ppo" / "Walker2d-v3" / "Walker2d-v3.zip").spec.architecture.activation == "tanh"


def test_quantiles_are_averaged_for_each_action(folder):
    # Read action by action instead of quantile by quantile, CartPole falls from 500 to 9.
    path = folder / "qrdqn" / "CartPole-v1" / "CartPole-v1.zip"
    reference = reference_of(path)
    policy = load_sb3(path)
    wrong = reference["head"].reshape(64, 2, 10).mean(axis=2)
    right = policy(reference["X"])[0].q_values.numpy()
    assert np.abs(right - reference["head"].mean(axis=1)).max() < 1e-4 * np.abs(right).max()
    assert np.abs(right - wrong).max() > 0.01 * np.abs(right).max()


def test_squashed_actions_are_rescaled_to_their_box(folder):
    # Unscaled, Pendulum falls from -153 to -700: its torque is at most 2, not 1.
    path = folder / "sac" / "Pendulum-v1" / "Pendulum-v1.zip"
    policy = load_sb3(path)
    layout = policy.tasks[0].fingerprint.action_layout
    assert (layout.low, layout.high, layout.mapping) == ((-2.0,), (2.0,), "tanh_rescale")
    assert np.abs(policy.act(reference_of(path)["X"])[0]).max() > 1.5
