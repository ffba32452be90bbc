"""One function loads them all: by content, not by name, and words that are not needed are refused, not ignored."""

import errno
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import rldistill as rd
from rldistill.adapters.load import load_policy, load_with, share_words
from rldistill.errors import MismatchError, PolicyFileError, TeacherWarning, UsageError
from rldistill.options.reading import Reading
from rldistill.policies import TorchPolicy
from tests.kit.other_libraries import QNetwork, randomised
from tests.kit.shared_teachers import load_actor_critic
from tests.kit.small_policies import box_task, small_policy, vector_task

ROWS = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def own(tmp_path):
    policy = small_policy(output_kind="logits")
    policy.save(tmp_path / "own.safetensors")
    return tmp_path / "own.safetensors"


@pytest.fixture
def checkpoint(tmp_path):
    torch.save(randomised(QNetwork()).state_dict(), tmp_path / "dqn.cleanrl_model")
    return tmp_path / "dqn.cleanrl_model"


def refusal(source, error=UsageError, **options):
    with pytest.raises(error) as caught:
        load_policy(source, **options)
    return str(caught.value).replace(str(source), "FILE")


def test_it_is_the_public_function():
    assert rd.load_policy is load_policy


def test_a_policy_of_our_own_says_everything_itself(own):
    assert load_policy(own).hash == small_policy(output_kind="logits").hash
    assert load_policy(own, task=vector_task(), outputs="logits").hash == load_policy(own).hash
    assert refusal(own, outputs="q_values") == ("FILE says itself that its outputs are logits: got outputs='q_values'.")
    assert "observation_shape: [4] against [5]" in refusal(own, MismatchError, task=vector_task(num_inputs=5))


def test_how_it_acts_may_be_changed_which_makes_it_another_policy(own, checkpoint):
    for path in (own, checkpoint):
        greedy = load_policy(path)
        # The checkpoint's are Q-values, which say no chances.
        warns = pytest.warns(TeacherWarning, match="gives Q-values, which are no chances")
        with warns if path == checkpoint else nullcontext():
            sampling = load_policy(path, behaviour="sample")
        assert (greedy.behaviour, sampling.behaviour) == ("greedy", "sample")
        assert greedy.hash != sampling.hash
        assert load_policy(path, behaviour="greedy").hash == greedy.hash


def test_nothing_is_drawn_from_answers_that_are_actions(tmp_path):
    path = tmp_path / "actions.safetensors"
    small_policy(box_task(), network="mlp:8", output_kind="actions", name="steady").save(path)
    assert refusal(path, behaviour="sample") == (
        "behaviour: got 'sample' for policy 'steady', whose answers are its actions: there is nothing to draw from. "
        "Leave it out."
    )
    with pytest.raises(UsageError, match="whose answers are its actions"):
        load_with(path, Reading(behaviour="sample"), device="cpu", task=None)
    with pytest.raises(UsageError, match="behaviour: got 'best', expected greedy or sample"):
        load_policy(path, behaviour="best")


def test_a_class_is_no_module(checkpoint):
    assert refusal(checkpoint, module=QNetwork) == (
        "load_policy: got module=the class QNetwork, expected an nn.Module, such as Net()."
    )
    with pytest.raises(UsageError, match=r"got the class QNetwork, expected a path, an nn\.Module, or"):
        load_policy(QNetwork, task=vector_task(), outputs="q_values")


def test_words_that_a_file_does_not_need_are_refused(own, checkpoint):
    assert refusal(checkpoint, input_scale=1.0) == "FILE (checkpoint) takes no input_scale. Leave it out."
    assert refusal(own, activation="elu") == "FILE (policy file of rldistill) takes no activation. Leave it out."


def test_a_module_of_ones_own_has_its_own_activation(checkpoint):
    said = {"module": QNetwork(), "task": vector_task(), "outputs": "q_values"}
    assert refusal(checkpoint, activation="tanh", **said) == (
        "load_policy: got activation='tanh' with a module of your own, which has its own. Leave it out."
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"normalizer": "none"}, "FILE (policy file of rldistill) takes no normalizer. Leave it out."),
        ({"activation": "elu"}, "FILE (policy file of rldistill) takes no activation. Leave it out."),
        ({"input_scale": 0.5}, "FILE (policy file of rldistill) takes no input_scale. Leave it out."),
        ({"outputs": "q_values"}, "FILE says itself that its outputs are logits: got outputs='q_values'."),
    ],
)
def test_what_is_said_of_one_file_is_not_ignored(own, words, message):
    with pytest.raises(UsageError) as caught:
        load_with(own, Reading(trust=True, **words), device="cpu", task=None)
    assert str(caught.value).replace(str(own), "FILE") == message


def test_of_several_files_each_takes_the_words_that_it_needs(own, checkpoint):
    said = Reading(trust=True, activation="tanh", normalizer="none", behaviour="sample")
    of_own, of_checkpoint = share_words([own, checkpoint], said)
    assert of_own == Reading(trust=True, behaviour="sample")
    assert of_checkpoint == said
    assert load_with(own, of_own, device="cpu", task=None).behaviour == "sample"
    with pytest.warns(TeacherWarning, match="no chances"):
        read = load_with(checkpoint, of_checkpoint, device="cpu", task=None)
        assert read.hash == load_policy(checkpoint, activation="tanh", normalizer="none", behaviour="sample").hash


def test_a_word_that_none_of_several_files_needs_is_refused(own):
    with pytest.raises(UsageError) as caught:
        share_words([own, own], Reading(input_scale=0.5))
    assert str(caught.value) == (
        f"input_scale: none of these files takes one: {own} (policy file of rldistill), {own} "
        "(policy file of rldistill). Leave it out."
    )


def test_outputs_of_several_files_that_say_them_themselves_are_compared(own, checkpoint):
    readings = share_words([own, checkpoint], Reading(outputs="logits"))
    assert load_with(own, readings[0], device="cpu", task=None).output_kind == "logits"
    with pytest.raises(UsageError, match="says itself that its outputs are q_values"):
        load_with(checkpoint, readings[1], device="cpu", task=None)


def test_words_about_files_do_not_fit_objects():
    assert refusal(nn.Linear(4, 3), task=vector_task(), outputs="logits", input_scale=1.0) == (
        "load_policy: module, input_scale, activation and normalizer belong with a file."
    )


def test_a_task_may_be_named(checkpoint):
    two = QNetwork()
    two.network[4] = nn.Linear(10, 2)
    torch.save(two.state_dict(), checkpoint)
    assert load_policy(checkpoint, task="CartPole-v1").tasks[0].name == "CartPole-v1"
    assert "has actions discrete [2], task 'Acrobot-v1'" in refusal(
        checkpoint, MismatchError, task=vector_task(name="Acrobot-v1")
    )


def test_a_device_that_is_not_there_is_refused(own, checkpoint):
    for path in (own, checkpoint):
        assert refusal(path, device="tpu") == "device: got 'tpu', expected auto, cpu or cuda."


def test_a_zip_of_stable_baselines3_is_known_by_its_content(shared_teachers, tmp_path):
    folder = shared_teachers / "sb3" / "dqn" / "CartPole-v1"
    renamed = tmp_path / "model.bin"
    shutil.copy(next(folder.glob("*.zip")), renamed)
    policy = load_policy(renamed)
    assert isinstance(policy, TorchPolicy)
    assert policy.output_kind == "q_values"
    assert policy(np.zeros((1, 4), np.float32))[0].q_values.shape == (1, 2)
    assert refusal(renamed, activation="relu") == "FILE (Stable-Baselines3 zip) takes no activation. Leave it out."


def test_what_nothing_can_read_is_one_line(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"nothing known")
    assert "Readable are policy files" in refusal(tmp_path / "x.bin", PolicyFileError)


# State dicts of networks that nobody described: a safetensors without our metadata, a checkpoint with other names.


class Pair(nn.Module):
    """A network with names of its maker's own; `judge` is no part of the policy."""

    def __init__(self):
        super().__init__()
        self.body, self.act, self.judge = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(8, 1)

    def forward(self, rows):
        return self.act(self.body(rows).relu())


@pytest.mark.parametrize("save", [safetensors.torch.save_file, torch.save], ids=["safetensors", "torch"])
def test_a_bare_state_dict_says_what_to_do_and_loads_into_a_module(tmp_path, save):
    trained, path = randomised(Pair()), tmp_path / "weights.safetensors"
    save(dict(sorted(trained.state_dict().items())), path)
    assert refusal(path, PolicyFileError) == (
        "Policy file FILE: its layers are not known: got act.bias [3], act.weight [3, 8], body.bias [8], "
        "body.weight [8, 4], judge.bias [1], judge.weight [1, 8], expected those of CleanRL, rl_games, rsl_rl, skrl. "
        "Load them into a module of your own, in Python: rd.load_policy(path, module=…, task=…, outputs=…)."
    )
    policy = load_policy(path, module=Pair(), task=vector_task(), outputs="logits")
    with torch.no_grad():
        torch.testing.assert_close(policy(ROWS.numpy())[0].logits, trained(ROWS))
    assert "pass task=… and outputs=…" in refusal(path, module=Pair())
    assert "its tensors are not those of QNetwork: got " in refusal(
        path, PolicyFileError, module=QNetwork(), task=vector_task(), outputs="logits"
    )


@pytest.mark.parametrize(
    ("said", "error", "line"),
    [
        ({}, UsageError, "pass task=… and outputs=…"),
        ({"task": vector_task()}, UsageError, "pass task=… and outputs=…"),
        ({"task": vector_task(), "outputs": "scores"}, UsageError, "outputs: got 'scores'"),
        ({"task": vector_task(), "outputs": "gaussian"}, MismatchError, "declared as gaussian"),
        ({"task": vector_task(), "outputs": "logits", "normalizer": "absent.npz"}, PolicyFileError, "absent.npz"),
    ],
    ids=["nothing", "task", "no outputs", "other outputs", "no statistics"],
)
def test_a_module_keeps_its_weights_where_what_is_said_of_it_is_refused(tmp_path, said, error, line):
    module, path = Pair(), tmp_path / "weights.pt"
    torch.save(randomised(Pair()).state_dict(), path)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert line in refusal(path, error, module=module, **said)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_a_checkpoint_of_a_known_library_may_be_a_safetensors_file(checkpoint, tmp_path):
    path = tmp_path / "dqn.safetensors"
    safetensors.torch.save_file(torch.load(checkpoint), path)
    policy = load_policy(path, activation="relu", outputs="q_values")
    np.testing.assert_array_equal(policy(ROWS)[0].q_values, load_policy(checkpoint)(ROWS)[0].q_values)


@pytest.mark.parametrize("place", [20, -9])
def test_a_bare_safetensors_that_was_cut_off_is_one_line(tmp_path, place):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors.torch.save(Pair().state_dict())[:place])
    assert "cannot be read" in refusal(path, PolicyFileError)


class ActorCritic(nn.Module):
    """The network of the shared Atari teachers, by the names in their files."""

    def __init__(self, num_actions):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(4, 32, 8, stride=4), nn.Conv2d(32, 64, 4, stride=2)
        self.conv3, self.fc = nn.Conv2d(64, 32, 3), nn.Linear(1568, 512)
        self.pi, self.v = nn.Linear(512, num_actions), nn.Linear(512, 1)

    def forward(self, x):
        for layer in (self.conv1, self.conv2, self.conv3):
            x = layer(x).relu()
        return self.pi(self.fc(x.flatten(1)).relu())


def test_weights_of_a_published_atari_teacher_load_into_its_module(shared_teachers):
    path = shared_teachers / "atari" / "pong_acktr.safetensors"
    policy = load_policy(path, module=ActorCritic(6), task="atari:pong", outputs="logits")
    frames = np.random.default_rng(0).integers(0, 256, (8, 4, 84, 84), np.uint8)
    expected = load_actor_critic(path)(frames)[0].logits
    torch.testing.assert_close(policy(frames)[0].logits, expected, rtol=1e-4, atol=1e-4)


def test_a_folder_that_may_not_be_read_is_told_in_one_line(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(PolicyFileError, match=r"cannot be read: Permission denied\.$"):
        load_policy(tmp_path)


def test_a_run_folder_is_the_policy_that_its_run_ended_in(tmp_path):
    with pytest.raises(PolicyFileError, match=r"holds neither student\.safetensors nor last_policy\.safetensors"):
        load_policy(tmp_path)
    (tmp_path / "config.toml").touch()
    with pytest.raises(PolicyFileError, match="its run has not finished: repeat its command with --resume"):
        load_policy(tmp_path)
    (tmp_path / "students").mkdir()
    with pytest.raises(PolicyFileError, match="name one of its students, which lie in the folder students"):
        load_policy(tmp_path)
    for seed, name in enumerate(("last_policy", "student")):
        policy = small_policy(seed=seed)
        policy.save(tmp_path / f"{name}.safetensors")
        assert load_policy(tmp_path).hash == load_policy(str(tmp_path)).hash == policy.hash


def test_a_policy_shows_its_size_and_its_task():
    assert repr(small_policy()) == "<TorchPolicy mlp:8: 67 parameters, plays made-up, greedy>"
    function = load_policy(lambda rows: rows[:, :3], task=vector_task(), outputs="logits", behaviour="sample")
    assert repr(function) == "<ProgramPolicy <lambda> (python): plays made-up, sample>"


@pytest.mark.parametrize(
    ("name", "way_on"),
    [
        ("rllib_checkpoint.json", "it is a checkpoint of RLlib: export its module to ONNX, and load that."),
        ("policy.pth", "it is an unpacked zip of Stable-Baselines3: load the .zip itself."),
        ("notes.txt", "this is not a run folder."),
    ],
)
def test_a_folder_of_another_library_is_named_with_the_way_on(tmp_path, name, way_on):
    (tmp_path / name).write_text("{}")
    with pytest.raises(PolicyFileError) as caught:
        load_policy(tmp_path)
    assert str(caught.value).endswith(way_on)
