"""Exports of policies whose observations are not a vector of floats, or whose actions have no bounds."""

import numpy as np
import onnxruntime
import pytest
import torch

import rldistill as rd
from rldistill.envs import make_task
from rldistill.errors import MismatchError, RldistillError
from rldistill.verbs.export import export
from tests.kit.shown_env import shown_task
from tests.kit.small_policies import small_policy

FEW = {"num_episodes": 2, "num_envs": 2, "num_threads": 1}


def policy_of(name, **options):
    return small_policy(make_task(shown_task(name)).task, **{"output_kind": "logits", **options})


@pytest.mark.parametrize("out", ["a.onnx", "a.c", "a.pt", pytest.param("a.pt2", marks=pytest.mark.slow), "a.zip", "a"])
def test_whole_numbers_leave_in_every_format_as_float32(out, tmp_path):
    if out == "a.zip":
        pytest.importorskip("stable_baselines3", reason="needs stable_baselines3")
    policy = policy_of("Whole")
    result = export(policy, tmp_path / out, to=None if "." in out else "hub-folder", **FEW)
    assert result.parity.agreement == 1
    if out == "a.onnx":
        rows = np.array([[3, 99], [0, 100]], np.float32)
        (logits,) = onnxruntime.InferenceSession(tmp_path / out).run(["logits"], {"observation": rows})
        np.testing.assert_allclose(logits, policy(rows.astype(np.int64))[0].raw, rtol=1e-4)


def test_int8_is_calibrated_on_whole_numbers(tmp_path):
    policy = policy_of("Whole")
    rd.collect(policy, shown_task("Whole"), num_steps=100, num_envs=2, out=tmp_path / "data")
    result = export(policy, tmp_path / "a.onnx", data=tmp_path / "data", precision="int8", **FEW)
    assert result.parity.agreement >= 0.9


@pytest.mark.parametrize("out", ["a.onnx", "a.pt", pytest.param("a.pt2", marks=pytest.mark.slow)])
def test_a_vector_of_bytes_leaves_as_a_program_that_takes_bytes_and_is_read_back(out, tmp_path):
    policy, task = policy_of("Bytes"), shown_task("Bytes")
    result = export(policy, tmp_path / out, task=task, **FEW)
    assert result.parity.agreement == 1
    copy = rd.load_policy(tmp_path / out, task=task, trust=not out.endswith("onnx"))
    rows = np.random.default_rng(0).integers(0, 256, (20, 3), np.uint8)
    np.testing.assert_allclose(copy(rows)[0].raw, policy(rows)[0].raw, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("task", [None, shown_task("Parts")])
@pytest.mark.parametrize("name", ["sb3", "rsl-rl"])
def test_parts_leave_side_by_side_for_libraries_that_take_a_vector(name, task, tmp_path):
    if name == "sb3":
        pytest.importorskip("stable_baselines3", reason="needs stable_baselines3")
    policy = policy_of("Parts") if name == "sb3" else policy_of("Reaching", output_kind="gaussian")
    task = task and shown_task("Parts" if name == "sb3" else "Reaching")
    path = tmp_path / f"a{'.zip' if name == 'sb3' else '.pt'}"
    result = export(policy, path, to=name, task=task, **FEW)
    assert result.parity.agreement == 1
    assert (result.score is None) == (task is None)
    if name == "sb3":
        way = "--teacher-sees mode,robot.pos,robot.vel"
        assert f"the zip takes one vector, these parts side by side; to play it here: {way}" in str(result)
        with pytest.raises(MismatchError, match=f"all parts side by side, in this order, say so: {way}"):
            rd.evaluate(path, shown_task("Parts"), num_episodes=2)
        sees = ["mode", "robot.pos", "robot.vel"]
        rd.evaluate(policy, shown_task("Parts"), teacher=path, teacher_sees=sees, num_episodes=2)


@pytest.mark.parametrize("name", ["Choice", "Choices", "Switches", "Image"])
def test_stable_baselines3_sees_what_the_policy_sees_in_the_environments_own_space(name, tmp_path):
    library = pytest.importorskip("stable_baselines3", reason="needs stable_baselines3")
    policy, task = policy_of(name), make_task(shown_task(name))
    assert export(policy, tmp_path / "a.zip", task=shown_task(name), **FEW).parity.agreement == 1
    model = library.PPO.load(tmp_path / "a.zip", env=task.make_env(), device="cpu")
    own, ours = task.make_env(), task.make_envs(1, 1)
    given, rows = own.reset(seed=3)[0], ours.reset([0], [3])
    with torch.no_grad():
        logits = model.policy.get_distribution(model.policy.obs_to_tensor(given)[0]).distribution.logits
    torch.testing.assert_close(logits, policy(rows)[0].raw.log_softmax(1), rtol=1e-4, atol=1e-5)


def test_what_stable_baselines3_would_see_otherwise_leaves_with_a_note_or_not_at_all(tmp_path):
    pytest.importorskip("stable_baselines3", reason="needs stable_baselines3")
    result = export(policy_of("LateChoice"), tmp_path / "a.zip", task=shown_task("LateChoice"), **FEW)
    assert "so that it gives that vector instead of Discrete(5, start=2)" in str(result)
    line = r"^--to sb3: the network of policy .* is an mlp that sees images with their channels last, which the library"
    with pytest.raises(RldistillError, match=line):
        export(policy_of("ChannelsLast"), tmp_path / "b.zip", task=shown_task("ChannelsLast"), **FEW)


@pytest.mark.parametrize("name", ["TwoRowsOfChoices", "TwoRowsOfSwitches", "LateChoices", "LateAction"])
def test_actions_that_stable_baselines3_does_not_take_are_refused_by_their_space(name, tmp_path):
    pytest.importorskip("stable_baselines3", reason="needs stable_baselines3")
    line = r"^--to sb3: the network of policy .* acts in \w+\(.*\), which the library cannot hold\. "
    with pytest.raises(RldistillError, match=line):
        export(policy_of(name), tmp_path / "a.zip", task=shown_task(name), **FEW)


def test_what_is_appended_to_an_environments_numbers_is_named_for_stable_baselines3(tmp_path):
    pytest.importorskip("stable_baselines3", reason="needs stable_baselines3")
    task = make_task("CartPole-v1", {"zero_padding": 2, "time_feature": 500}).task
    said = str(export(small_policy(task), tmp_path / "a.zip", **FEW))
    assert "with 2 zeros and the clock 1 - t / 500 behind the environment's numbers: to train it further" in said


def test_actions_without_bounds_are_refused_of_stable_baselines3_before_anything_is_made(tmp_path):
    line = (
        r"^--to sb3: policy .* has actions without bounds, and such files need finite ones\. These do not: --to onnx, "
    )
    with pytest.raises(RldistillError, match=line):
        export(policy_of("Unbounded", output_kind="actions"), tmp_path / "a.zip", **FEW)
    assert not list(tmp_path.iterdir())
    export(policy_of("Unbounded", output_kind="actions"), tmp_path / "a.onnx", **FEW)
