"""Files that other libraries themselves wrote answer as those libraries do (`scripts/foreign_fixtures.py`)."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rldistill.adapters.load import load_policy
from rldistill.errors import MismatchError, PolicyFileError, TeacherWarning
from rldistill.testing import Reference, check_policy
from tests.kit.small_policies import box_task, image_task, vector_task

FILES = Path(__file__).with_name("fixtures")
BOX = box_task(low=-2.0, high=2.0)
CHOICE = vector_task(num_inputs=4, num_actions=2)
pytestmark = pytest.mark.filterwarnings("ignore::rldistill.errors.TeacherWarning")


def task_of(name):
    if name == "flax_ppo_atari":
        return image_task(2)
    return CHOICE if name.endswith(("discrete", "categorical", "dqn", "c51")) else BOX


@pytest.mark.parametrize("name", sorted(path.name for path in FILES.iterdir() if path.suffix != ".npz"))
def test_its_answers_are_those_of_the_library(name):
    path = FILES / name
    arrays = np.load(path.with_suffix(".npz"))
    said = {} if name.startswith("flax") else {"activation": "elu"}
    if "export" in name:
        pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
        said = {"outputs": "actions", "trust": True}
    check_policy(lambda: load_policy(path, task=task_of(path.stem), **said), reference=Reference(**arrays))


def test_how_much_a_policy_of_rsl_rl_remembers_is_in_its_description():
    policy = load_policy(FILES / "rsl_rl5_lstm.pt", task=BOX, activation="elu")
    architecture = policy.spec.architecture
    assert (architecture.name, architecture.memory, architecture.memory_layers) == ("lstm:5x5:8x6", "lstm", 2)
    assert policy.spec.provenance["source"]["unused"] == ["critic_state_dict"]
    old = load_policy(FILES / "rsl_rl2_gru.pt", task=BOX, activation="elu")
    assert old.spec.architecture.name == "gru:5:8x6"
    assert {name.partition(".")[0] for name in old.spec.provenance["source"]["unused"]} == {"critic", "memory_c"}


def test_what_rl_games_does_not_say_is_told_in_a_warning():
    with pytest.warns(TeacherWarning) as caught:
        load_policy(FILES / "rl_games_continuous.pt", task=BOX)
    lines = [str(warning.message) for warning in caught]
    assert "rl_games' checkpoints do not say their activation: taken is elu" in lines[0]
    assert "its actions are clipped to ±1, which stand for the task's bounds" in lines[1]


def test_without_bounds_nothing_of_rl_games_is_clipped_nor_said_to_be():
    endless = box_task(low=-math.inf, high=math.inf)
    with pytest.warns(TeacherWarning) as caught:
        load_policy(FILES / "rl_games_continuous.pt", task=endless)
    assert [str(warning.message) for warning in caught if "clip" in str(warning.message)] == []


def test_actions_of_another_number_than_the_tasks_are_refused():
    with pytest.raises(MismatchError, match=r"has actions box \[2\], task 'made-up' has box \[1\]"):
        load_policy(FILES / "rl_games_continuous.pt", task=box_task(1))


def test_rl_games_networks_of_other_layers_are_refused_by_what_is_beside_them(tmp_path):
    content = torch.load(FILES / "rl_games_continuous.pt", weights_only=False)
    content["model"]["a2c_network.extra.weight"] = torch.zeros(2, 2)
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(PolicyFileError, match=r"its layers are not known: extra\.weight beside its layers"):
        load_policy(tmp_path / "other.pth", task=BOX)


def without_statistics(content):
    """Take the statistics of observations out of a checkpoint of rl_games, and return them by their own names."""
    names = [name for name in content["model"] if name.startswith("running_mean_std.")]
    return {name.removeprefix("running_mean_std."): content["model"].pop(name) for name in names}


def test_statistics_that_an_older_rl_games_kept_beside_its_weights_are_applied(tmp_path):
    content = torch.load(FILES / "rl_games_continuous.pt", weights_only=False)
    content["running_mean_std"] = without_statistics(content)
    torch.save(content, tmp_path / "old.pth")
    rows = np.load(FILES / "rl_games_continuous.npz")["observations"]
    old, new = (load_policy(path, task=BOX) for path in (tmp_path / "old.pth", FILES / "rl_games_continuous.pt"))
    assert new.normalization is not None
    assert torch.equal(old(rows)[0].mean, new(rows)[0].mean)


def test_statistics_of_rl_games_of_another_layout_are_refused_and_not_left_out(tmp_path):
    content = torch.load(FILES / "rl_games_continuous.pt", weights_only=False)
    of_parts = {
        f"running_mean_std.running_mean_std.obs.{name}": each for name, each in without_statistics(content).items()
    }
    content["model"] |= of_parts
    torch.save(content, tmp_path / "parts.pth")
    with pytest.raises(PolicyFileError, match=r"expected running_mean and running_var"):
        load_policy(tmp_path / "parts.pth", task=BOX)


def test_an_agent_of_skrl_without_a_std_needs_a_word_on_a_task_of_boxes():
    path = FILES / "skrl2_categorical.pt"
    with pytest.raises(PolicyFileError, match=r"2 outputs and no log_std_parameter. If they are logits, say so"):
        load_policy(path, task=BOX)
    assert load_policy(path, task=CHOICE).output_kind == "logits"


def test_statistics_of_skrl_can_be_left_out():
    path = FILES / "skrl1_gaussian.pt"
    assert load_policy(path, task=BOX).normalization is not None
    assert load_policy(path, task=BOX, normalizer="none").normalization is None


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda data: data[:-40], r"cannot be read: it is no whole file of flax"),
        (lambda data: data.replace(b"kernel", b"gammas", 1), r"Dense_0 has bias, gammas, expected kernel and bias"),
        (lambda data: b"\x81\xa6params\xdc\x10\x00" + b"\x90" * 4096, r"it holds more than 4,096 maps and lists"),
        (lambda data: data.replace(b"float32", b"float3x", 1), r"an array that is none of numbers"),
    ],
)
def test_damaged_files_of_flax_are_refused_in_one_line(damage, line, tmp_path):
    path = tmp_path / "dqn.cleanrl_model"
    path.write_bytes(damage((FILES / "flax_dqn.cleanrl_model").read_bytes()))
    with pytest.raises(PolicyFileError, match=line) as caught:
        load_policy(path, task=CHOICE)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::rldistill.errors.TeacherWarning")
def test_actions_of_rl_games_reach_a_box_that_is_not_centred():
    path = FILES / "rl_games_continuous.pt"
    rows = np.load(path.with_suffix(".npz"))["observations"][:20]
    unit, other = (load_policy(path, task=box_task(low=a, high=b))(rows)[0] for a, b in ((-1.0, 1.0), (1.0, 5.0)))
    torch.testing.assert_close(other.mean, 3 + 2 * unit.mean)
    torch.testing.assert_close(other.log_std, unit.log_std + math.log(2))


@pytest.mark.filterwarnings("ignore::rldistill.errors.TeacherWarning")
def test_a_std_of_skrl_is_clipped_as_skrl_does(tmp_path):
    content = torch.load(FILES / "skrl2_gaussian.pt", weights_only=False)
    stored = content["policy"]["log_std_parameter"]
    content["policy"]["log_std_parameter"] = torch.tensor([5.0, -30.0])[: len(stored)]
    torch.save(content, tmp_path / "a.pt")
    policy = load_policy(tmp_path / "a.pt", task=box_task(low=-2.0, high=2.0))
    assert policy(np.zeros((1, 4), np.float32))[0].log_std[0].tolist() == [2.0, -20.0][: len(stored)]
