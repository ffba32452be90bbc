"""Whatever is wrong with a teacher of another library is told in one line, and nothing is left behind."""

import pickle
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from tests.adapters.sb3.made_up import Intruder, pack, ppo_weights
from tests.kit.commands import run, run_well
from tests.kit.other_libraries import ActorCritic, QNetwork, randomised

CART_POLE, MOUNTAIN_CAR = ("--task", "CartPole-v1"), ("--task", "MountainCar-v0")
ONNX = ("--outputs", "logits")


def sb3(path, **changes):
    path.write_bytes(pack(**changes))


def zoo_zip(path):
    sb3(path)
    (path.parent / "args.yml").write_text("env: Balance-v0\nalgo: ppo\n")


def cleanrl_of_three(path):
    torch.save(QNetwork().state_dict(), path)


def cleanrl(path, change=lambda tensors: None, dtype=torch.float32):
    network = QNetwork()
    network.network[4] = nn.Linear(10, 2)
    tensors = dict(randomised(network).to(dtype).state_dict())
    change(tensors)
    torch.save(tensors, path)


def rsl_rl(path, **extra):
    torch.save({"model_state_dict": ActorCritic().state_dict() | extra}, path)


def onnx(path, **options):
    pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    from tests.kit.onnx_files import mlp_model, saved

    saved(mlp_model(**options), path)


def recurrent_onnx(path):
    pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    from onnx import helper

    from tests.kit.onnx_files import FLOAT, model_of, saved

    ends = [helper.make_tensor_value_info(name, FLOAT, ["b", 4]) for name in ("obs", "h_in", "out", "other")]
    nodes = [helper.make_node("Add", ["obs", "h_in"], [name]) for name in ("out", "other")]
    saved(model_of(nodes, ends[:2], ends[2:]), path)


def onnx_that_is_no_number(path):
    pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    from tests.kit.onnx_files import layers

    (w0, b0), last = layers()
    onnx(path, weights=[(w0 * np.nan, b0), last])


def bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", b"{}" + b" " * (8 << 20))
        archive.writestr("policy.pth", b"x")


def hostile(path):
    torch.save({**QNetwork().state_dict(), "args": Intruder(path.parent / "broken in")}, path)


def hostile_zip(path):
    sb3(path, members={"policy.pth": pickle.dumps(Intruder(path.parent / "broken in"), 2)})


def hostile_normalizer(path):
    sb3(path)
    (path.parent / "vecnormalize.pkl").write_bytes(pickle.dumps(Intruder(path.parent / "broken in")))


SAID = (*CART_POLE, *ONNX)
MEMORY = {"lstm_actor.weight_ih_l0": torch.zeros(16, 3)}
ATTENTION = {"attention.weight": torch.zeros(2, 2)}
OWN_MODULE = "Load them into a module of your own, in Python: rd.load_policy(path, module=…, task=…, outputs=…)."
OTHER_TASK = "Was it trained on another task?"
# What is written, what is said of it, and the words of the one line; FILE is the teacher, FOLDER where it lies.
CASES = {
    "sb3: another environment": (
        sb3,
        MOUNTAIN_CAR,
        "Policy 'ppo unnamed' (made for unnamed) does not fit task 'MountainCar-v0': observation_shape: [3] against "
        "[2]; action_layout: discrete [2] against discrete [3]. Was it trained on another game, or with other "
        "preprocessing? See `rldistill inspect FILE`.",
    ),
    "sb3: another environment than its files say": (
        zoo_zip,
        MOUNTAIN_CAR,
        "Policy 'ppo Balance-v0' (made for Balance-v0) does not fit task 'MountainCar-v0': observation_shape: [3] "
        "against [2]; action_layout: discrete [2] against discrete [3]. Was it trained on another game, or with other "
        "preprocessing? See `rldistill inspect FILE`.",
    ),
    "cleanrl: another environment": (
        cleanrl,
        MOUNTAIN_CAR,
        f"Policy file FILE (state dict) takes 4 numbers, task 'MountainCar-v0' gives observations [2]. {OTHER_TASK}",
    ),
    "cleanrl: other actions": (
        cleanrl_of_three,
        CART_POLE,
        "Policy file FILE (state dict) has actions discrete [3], task 'CartPole-v1' has discrete [2]. " + OTHER_TASK,
    ),
    "rsl_rl: another environment": (
        rsl_rl,
        ("--task", "Pendulum-v1", "--activation", "elu"),
        f"Policy file FILE (rsl_rl ppo) takes 4 numbers, task 'Pendulum-v1' gives observations [3]. {OTHER_TASK}",
    ),
    "onnx: another environment": (
        onnx,
        (*MOUNTAIN_CAR, *ONNX),
        "ONNX file FILE takes observations [4], task 'MountainCar-v0' gives [2]. Was it made for another task?",
    ),
    "sb3: unknown layers": (
        lambda path: sb3(path, weights=ppo_weights() | ATTENTION),
        CART_POLE,
        "Policy file FILE cannot be rebuilt: it has layers that no network of Stable-Baselines3 has: attention.weight. "
        "A policy or features extractor of its maker's own cannot be rebuilt from its weights. Export it to ONNX or "
        "TorchScript, and load that; or load it with Stable-Baselines3 and pass its network: rd.load_policy(module, "
        "task=…, outputs=…).",
    ),
    "cleanrl: unknown layers": (
        lambda path: cleanrl(path, lambda tensors: tensors.update(ATTENTION)),
        CART_POLE,
        "Policy file FILE: its layers are not known: got network.0.weight [12, 4], network.0.bias [12], "
        "network.2.weight [10, 12], network.2.bias [10], network.4.weight [2, 10], network.4.bias [2], "
        f"attention.weight [2, 2], expected those of CleanRL, rl_games, rsl_rl, skrl. {OWN_MODULE}",
    ),
    "rsl_rl: unknown layers": (
        lambda path: rsl_rl(path, **ATTENTION),
        CART_POLE,
        f"Policy file FILE: its layers are not known: attention.weight beside its layers. {OWN_MODULE}",
    ),
    "sb3: a hostile pickle": (
        hostile_zip,
        CART_POLE,
        "policy.pth in FILE is refused: its pickle wants posix.mkdir, which weights do not need. Nothing of it was "
        "executed.",
    ),
    "sb3: a hostile normaliser": (
        hostile_normalizer,
        CART_POLE,
        "Normaliser file FOLDER/vecnormalize.pkl is refused: its pickle wants posix.mkdir, which is not allowed there. "
        "Nothing of it was executed. Save its mean and var to an .npz and name that with --normalizer, or do without: "
        "--normalizer none.",
    ),
    "cleanrl: a hostile pickle": (
        hostile,
        CART_POLE,
        "Policy file FILE is refused: its pickle wants posix.mkdir, which weights do not need. Nothing of it was "
        "executed.",
    ),
    "sb3: NaN": (
        lambda path: sb3(path, weights=ppo_weights() | {"action_net.bias": torch.full((2,), torch.nan)}),
        CART_POLE,
        "policy.pth in FILE: tensor action_net.bias holds NaN or infinity. Its training diverged, or the file is "
        "damaged.",
    ),
    "cleanrl: NaN": (
        lambda path: cleanrl(path, lambda tensors: tensors["network.0.weight"].fill_(torch.nan)),
        CART_POLE,
        "Policy file FILE: tensor network.0.weight holds NaN or infinity. Its training diverged, or the file is "
        "damaged.",
    ),
    "onnx: NaN": (
        onnx_that_is_no_number,
        SAID,
        "ONNX file FILE: weight w0 holds NaN or infinity. Its training diverged.",
    ),
    "a zip bomb": (
        bomb,
        CART_POLE,
        "Policy file FILE is refused: data unpacks to more than 200 times its 8,160 bytes. Weights do not compress "
        "like that: it was made to exhaust its reader.",
    ),
    "0 bytes": (
        lambda path: path.write_bytes(b""),
        CART_POLE,
        "Policy file FILE is empty (0 bytes): its download or copy is incomplete. Fetch it again.",
    ),
    "onnx: a dynamic dimension": (
        lambda path: onnx(path, observation=("n",)),
        SAID,
        "ONNX file FILE: dimension 1 of its input obs is not fixed ('n'); only the batch, dimension 0, may be. Export "
        "it with the shape of the observations.",
    ),
    "sb3: half a memory": (
        lambda path: sb3(path, weights=ppo_weights() | MEMORY),
        CART_POLE,
        "Policy file FILE cannot be rebuilt: it has lstm_actor.weight_ih_l0 without lstm_actor.weight_hh_l0. Export it "
        "to ONNX or TorchScript, and load that; or load it with Stable-Baselines3 and pass its network: "
        "rd.load_policy(module, task=…, outputs=…).",
    ),
    "rsl_rl: half a memory": (
        lambda path: rsl_rl(path, **{"memory_a.rnn.weight_ih_l0": torch.zeros(2, 2)}),
        CART_POLE,
        "Policy file FILE: its layers are not known: memory_a.rnn.weight_ih_l0 without memory_a.rnn.weight_hh_l0. "
        f"{OWN_MODULE}",
    ),
    "onnx: a state that does not come back": (
        recurrent_onnx,
        SAID,
        "ONNX file FILE takes 2 inputs (obs, h_in) and gives out, other. Policies take one, and what they remember: "
        "inputs that come back as outputs of a like name and the same shape, such as h_in and h_out.",
    ),
}


@pytest.mark.parametrize("verb", ["collect", "evaluate", "distill"])
@pytest.mark.parametrize(("write", "said", "line"), CASES.values(), ids=CASES)
def test_it_is_refused_in_one_line_by_every_verb(tmp_path, verb, write, said, line):
    path = tmp_path / "teacher"
    write(path)
    argv = {
        "collect": ("collect", path, "--out", tmp_path / "out"),
        "evaluate": ("evaluate", path),
        "distill": ("distill", "--teacher", path, "--student", "mlp:8", "--out", tmp_path / "out"),
    }[verb]
    result = run(*argv, *said)
    expected = line.replace("FOLDER", str(tmp_path))
    if "inspect FILE`" not in line:
        expected = expected.replace("FILE", str(path))
    assert (result.code, result.line, result.stdout) == (1, f"rldistill {verb}: {expected}", "")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "broken in").exists()


def test_which_of_several_outputs_is_meant_must_be_said(tmp_path):
    path = tmp_path / "teacher.onnx"
    onnx(path, outputs=("value", "policy"))
    result = run("collect", path, *SAID, "--out", tmp_path / "out")
    assert (result.code, result.line) == (
        2,
        f"rldistill collect: ONNX file {path} has 2 outputs: value [B, 3], policy [B, 3]. Say which of them are its "
        "logits: --outputs logits=NAME.",
    )


def test_a_missing_normaliser_is_a_warning_that_names_the_file(tmp_path):
    path = tmp_path / "teacher.zip"
    sb3(path)
    (tmp_path / "config.yml").write_text("normalize: true\n")
    result = run_well("inspect", path)
    assert result.line == (
        f"warning: Policy file {path}: its teacher saw normalised observations, but {tmp_path / 'vecnormalize.pkl'} is "
        "missing. Without these statistics it plays about as well as at random. Fetch the file, or name it with "
        "--normalizer (in Python normalizer=)."
    )
    assert run_well("inspect", path, "--normalizer", "none").stderr == "", "whoever says so need not be warned"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("library", ["sb3", "cleanrl"])
def test_weights_of_another_precision_are_read_and_recorded(tmp_path, dtype, library):
    path = tmp_path / "teacher"
    if library == "sb3":
        sb3(path, weights={name: tensor.to(dtype) for name, tensor in ppo_weights().items()})
    else:
        path = tmp_path / "dqn.cleanrl_model"
        cleanrl(path, dtype=dtype)
    result = run_well("inspect", path, "--json")
    name = str(dtype).removeprefix("torch.")
    assert result.json["provenance"]["source"]["weights_converted_from"] == [name]
    assert result.stderr == ""
