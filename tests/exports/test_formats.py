"""Every format but ONNX's graph, which has a file of its own: what is written is what the other library runs."""

import json
import sys
import threading
import warnings

import numpy as np
import pytest
import torch

import rldistill as rd
from rldistill.envs import make_task
from rldistill.errors import RldistillError, UsageError
from rldistill.exports.contract import make_contract
from rldistill.exports.formats import Export, Sample, Score, format_of
from rldistill.exports.names import Names
from rldistill.exports.sb3_format import predict_of
from rldistill.exports.table import FORMATS, check_form
from rldistill.exports.torch_formats import CONTRACT_FILE
from rldistill.networks import Architecture, GaussianOptions, InputNormalization, ValueAtoms
from rldistill.networks.outputs import OutputDeclaration
from rldistill.policies import TorchPolicy, choose_actions, load_policy
from rldistill.policies.padded import probe_rows
from rldistill.tasks import ObservationFingerprint, ObservationPart, Task
from rldistill.types import ActionLayout
from tests.kit.cart_pole import hand_made_teacher
from tests.kit.small_policies import beta_policy, box_task, image_task, small_policy, vector_task

STATISTICS = InputNormalization((0.1, 0.2, 0.3, 0.4), (0.5, 1.0, 2.0, 4.0))


def exported(policy, name, tmp_path, **options):
    """Write a policy, and return the file with what it was made of."""
    export = Export(policy, make_contract(policy, Names(), None), **options)
    path = tmp_path / f"out{FORMATS[name].suffix}"
    FORMATS[name].write(export, path)
    return export, path


def combined_policy():
    parts = (ObservationPart("camera", (3, 36, 36), "uint8"), ObservationPart("speed", (2,)))
    layout = ActionLayout.discrete(3)
    task = Task("made-up", ObservationFingerprint((3890,), "float32", layout, observation_parts=parts))
    return small_policy(task, network="combined:4-4:8:8")


def coloured_policy():
    task = Task("made-up", ObservationFingerprint((2, 20, 24, 3), "uint8", ActionLayout.discrete(3)))
    sizes = {"channels": (4,), "kernel_sizes": (4,), "strides": (2,)}
    return small_policy(task, network=Architecture("made-up", "conv", (8,), **sizes))


POLICIES = {
    "vectors": small_policy,
    "statistics": lambda: small_policy(normalization=STATISTICS),
    "images": lambda: small_policy(image_task(), network="conv:4-4-4:8", layer_norm=True),
    "coloured": coloured_policy,
    "parts": combined_policy,
    "gaussian": lambda: small_policy(box_task(mapping="tanh_rescale"), output_kind="gaussian"),
    "beta": beta_policy,
    "choices": lambda: small_policy(
        Task("made-up", ObservationFingerprint((4,), "float32", ActionLayout("multi_discrete", (2, 3)))),
        output_kind="logits",
    ),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_torchscript_module_answers_batches_of_any_size_as_the_policy_does(name, tmp_path):
    policy = POLICIES[name]()
    _, path = exported(policy, "torchscript", tmp_path)
    rows = probe_rows(policy.tasks[0].fingerprint, 33)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.load(path)
    for batch in (rows, rows[:1]):
        with torch.no_grad():
            answers = module(batch)
        output, _ = policy(batch)
        raw = torch.cat([part for field, part in answers.items() if field != "action"], dim=1)
        torch.testing.assert_close(raw, output.raw, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(answers["action"], choose_actions(output, "greedy"), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
def test_an_exported_program_answers_batches_of_any_size_as_the_policy_does(name, tmp_path):
    policy = POLICIES[name]()
    export, path = exported(policy, "torch-export", tmp_path)
    copy = FORMATS["torch-export"].open(export, path)[0]
    rows = probe_rows(policy.tasks[0].fingerprint, 33)
    torch.testing.assert_close(copy(rows)[0].raw, policy(rows)[0].raw, rtol=1e-4, atol=1e-5)


BOUNDED = {
    "gaussian": POLICIES["gaussian"],
    "actions": lambda: small_policy(box_task(mapping="tanh_rescale", high=3.0), output_kind="actions"),
    "clipped": beta_policy,
    "distributions": lambda: TorchPolicy.from_spec(
        small_policy().with_spec(atoms=ValueAtoms(-2.0, 5.0, 11)).spec, [None], zero_output=False
    ),
    "module": lambda: TorchPolicy.from_module(
        torch.nn.Linear(4, 2),
        box_task(high=3.0),
        output_kind="actions",
        outputs=OutputDeclaration("actions", ("output",), is_scaled=True),
    ),
    "bytes": POLICIES["images"],
}


@pytest.mark.parametrize("name", BOUNDED)
def test_a_traced_program_holds_nothing_that_stays_on_the_device_of_its_trace(name, tmp_path):
    policy = BOUNDED[name]()
    _, path = exported(policy, "torchscript", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        graph = torch.jit.load(path).inlined_graph
    assert "cpu" not in str(graph)
    constants = [node.output() for node in graph.nodes() if node.kind() == "prim::Constant"]
    tensors = [own.toIValue() for own in constants if isinstance(own.toIValue(), torch.Tensor)]
    assert {tensor.dim() for tensor in tensors} <= {0}  # a single number goes with tensors of any device
    _, path = exported(policy, "torch-export", tmp_path)
    program = torch.export.load(path)
    assert not any("device" in node.kwargs for node in program.graph.nodes)
    rows = probe_rows(policy.tasks[0].fingerprint, 3).to("meta")
    assert program.module().to("meta")(rows)["action"].is_meta


def test_a_torchscript_archive_holds_its_contract(tmp_path):
    export, path = exported(small_policy(), "torchscript", tmp_path)
    files = {CONTRACT_FILE: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.load(path, _extra_files=files)
    assert json.loads(files[CONTRACT_FILE]) == export.contract


@pytest.mark.parametrize("name", ["onnx", "torchscript", "torch-export"])
def test_a_policy_that_draws_its_actions_is_read_back_as_one_unless_its_user_says_otherwise(name, tmp_path):
    policy = small_policy(output_kind="logits", behaviour="sample")
    export, path = exported(policy, name, tmp_path)
    task = policy.tasks[0]
    assert rd.load_policy(path, task=task, trust=name != "onnx").behaviour == "sample"
    assert rd.load_policy(path, task=task, trust=name != "onnx", behaviour="greedy").behaviour == "greedy"
    actions = small_policy(box_task(), output_kind="actions")
    other = Export(actions, export.contract)  # actions that draw are none
    FORMATS[name].write(other, path)
    assert rd.load_policy(path, task=box_task(), trust=name != "onnx").behaviour == "greedy"


def test_a_module_of_ones_own_leaves_as_torchscript_and_says_so_where_it_cannot_leave(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    policy = TorchPolicy.from_module(module, vector_task(), output_kind="logits")
    export, path = exported(policy, "torchscript", tmp_path)
    rows = probe_rows(policy.tasks[0].fingerprint, 5)
    copy = FORMATS["torchscript"].open(export, path)[0]
    torch.testing.assert_close(copy(rows)[0].raw, policy(rows)[0].raw)
    for name in ("onnx", "c", "sb3", "rsl-rl", "hub-folder"):
        line = (
            rf"^--to {name}: policy .* is a module of its maker's own .* These need none: --to torchscript, --to torch"
        )
        with pytest.raises(RldistillError, match=line):
            check_form(policy, FORMATS[name])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_module_of_ones_own_leaves_in_the_type_of_its_weights(dtype, tmp_path):
    policy = TorchPolicy.from_module(torch.nn.Linear(4, 3).to(dtype), vector_task(), output_kind="logits")
    export, path = exported(policy, "torchscript", tmp_path)
    rows = probe_rows(policy.tasks[0].fingerprint, 5)
    torch.testing.assert_close(FORMATS["torchscript"].open(export, path)[0](rows)[0].raw, policy(rows)[0].raw)


@pytest.mark.parametrize("name", ["torchscript", "torch-export"])
def test_a_module_of_ones_own_keeps_its_mode_where_it_is_exported(name, tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(), torch.nn.Linear(8, 3)).train()
    policy = TorchPolicy.from_module(module, vector_task(), output_kind="logits")
    export, path = exported(policy, name, tmp_path)
    assert module.training and module[1].training
    assert all(weight.requires_grad for weight in module.parameters())
    rows = probe_rows(policy.tasks[0].fingerprint, 5)
    torch.testing.assert_close(FORMATS[name].open(export, path)[0](rows)[0].raw, policy(rows)[0].raw)


def nature(strides):
    return Architecture("made-up", "conv", (512,), channels=(32, 64, 64), kernel_sizes=(8, 4, 3), strides=strides)


def pixels_task(shape, dtype):
    return Task("pixels", ObservationFingerprint(shape, dtype, ActionLayout.discrete(3)))


@pytest.mark.parametrize("name", ["torchscript", "torch-export"])
def test_a_module_that_keeps_a_lock_is_refused_in_one_line(name, tmp_path):
    module = torch.nn.Linear(4, 3)
    module.lock = threading.Lock()
    policy = TorchPolicy.from_module(module, vector_task(), output_kind="logits")
    with pytest.raises(
        RldistillError, match=rf"^--to {name}: the network of policy 'Linear' cannot be copied: .* no locks"
    ):
        exported(policy, name, tmp_path)


def sb3_policies():
    q_values = small_policy(network="mlp:8x6")
    logits = small_policy(network="mlp:8:6", output_kind="logits")
    task = box_task(mapping="tanh_rescale", low=-0.5, high=2.0)
    squashed = small_policy(task, network="mlp:8x6", output_kind="gaussian")
    actions = small_policy(task, network="mlp:8x6", output_kind="actions")
    clipped = small_policy(box_task(), output_kind="gaussian", gaussian=GaussianOptions("parameter"))
    images = small_policy(image_task(), network="dqn")
    turned = small_policy(pixels_task((84, 84, 3), "uint8"), network="dqn")
    return {
        "DQN turned": turned,
        "DQN": q_values,
        "PPO": logits,
        "SAC": squashed,
        "TD3": actions,
        "PPO box": clipped,
        "DQN images": images,
    }


@pytest.mark.parametrize("name", ["DQN", "PPO", "SAC", "TD3", "PPO box", "DQN images", "DQN turned"])
def test_stable_baselines3_loads_the_zip_and_acts_as_the_policy_does(name, tmp_path):
    library = pytest.importorskip("stable_baselines3", reason="needs stable_baselines3")
    policy = sb3_policies()[name]
    _, path = exported(policy, "sb3", tmp_path)
    model = getattr(library, name.partition(" ")[0]).load(path, device="cpu", buffer_size=1)
    rows = probe_rows(policy.tasks[0].fingerprint, 20).numpy()
    actions, _ = model.predict(rows, deterministic=True)
    np.testing.assert_allclose(actions, choose_actions(policy(rows)[0], "greedy"), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "own", "target"), [("DQN", "q_net", "q_net_target"), ("TD3", "actor", "actor_target")]
)
def test_training_on_begins_with_targets_that_agree_also_where_bytes_are_scaled(name, own, target, tmp_path):
    library = pytest.importorskip("stable_baselines3", reason="needs stable_baselines3")
    layout = ActionLayout.discrete(3) if name == "DQN" else ActionLayout("box", (1,), (-2.0,), (2.0,), "tanh_rescale")
    task = Task("bytes", ObservationFingerprint((5,), "uint8", layout))
    policy = small_policy(task, network="mlp:8", output_kind="q_values" if name == "DQN" else "actions")
    assert policy.spec.input_scale != 1
    _, path = exported(policy, "sb3", tmp_path)
    saved = getattr(library, name).load(path, device="cpu", buffer_size=1).policy
    ours, targets = getattr(saved, own).state_dict(), getattr(saved, target).state_dict()
    assert all(torch.equal(ours[key], targets[key]) for key in ours)


def test_running_statistics_lie_beside_the_zip_as_a_vec_normalize(tmp_path):
    library = pytest.importorskip("stable_baselines3", reason="needs stable_baselines3")
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
    policy = small_policy(network="mlp:8", normalization=STATISTICS)
    export, path = exported(policy, "sb3", tmp_path)
    env = vec_env.DummyVecEnv([lambda: make_task("CartPole-v1").make_env()])
    normalize = vec_env.VecNormalize.load(str(path.with_name("out.vecnormalize.pkl")), env)
    rows = probe_rows(policy.tasks[0].fingerprint, 20).numpy()
    actions, _ = library.DQN.load(path, buffer_size=1).predict(normalize.normalize_obs(rows), deterministic=True)
    np.testing.assert_array_equal(actions, choose_actions(policy(rows)[0], "greedy"))
    torch.testing.assert_close(FORMATS["sb3"].open(export, path)[0](rows)[0].raw, policy(rows)[0].raw)
    torch.testing.assert_close(rd.load_policy(path)(rows)[0].raw, policy(rows)[0].raw)
    normalize.obs_rms.update(rows + 9)
    np.testing.assert_allclose(normalize.obs_rms.mean, STATISTICS.mean, atol=0.01)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["DQN", "PPO", "SAC", "TD3"])
def test_a_student_is_trained_on_by_stable_baselines3(name, tmp_path):
    library = pytest.importorskip("stable_baselines3", reason="needs stable_baselines3")
    playable = make_task("Pendulum-v1" if name in ("SAC", "TD3") else "CartPole-v1")
    kinds = {"DQN": "q_values", "PPO": "logits", "SAC": "gaussian", "TD3": "actions"}
    policy = small_policy(playable.task, network="mlp:16", output_kind=kinds[name])
    if name in ("SAC", "TD3"):
        layout = ActionLayout("box", (1,), (-2.0,), (2.0,), "tanh_rescale")
        task = Task(playable.task.name, ObservationFingerprint((3,), "float32", layout))
        policy = small_policy(task, network="mlp:16", output_kind=kinds[name])
    _, path = exported(policy, "sb3", tmp_path, playable=playable)
    model = getattr(library, name).load(path, env=playable.make_env(), device="cpu")
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(1000)
    assert any(not torch.equal(old, new) for old, new in zip(before, model.policy.parameters(), strict=True))


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (lambda: small_policy(image_task(), network="conv:4-4-4:8"),
         r"convolutions 4-4-4 \(kernels 8-4-3, strides 4-2-1\), not NatureCNN's 32-64-64"),
        (lambda: small_policy(image_task(), network=nature(strides=(4, 2, 2))),
         r"convolutions 32-64-64 \(kernels 8-4-3, strides 4-2-2\), not NatureCNN's 32-64-64"),
        (lambda: small_policy(pixels_task((4, 84, 84), "float32"), network="dqn"),
         r"has convolutions on float32 \[4, 84, 84\], not on bytes of three dimensions"),
        (lambda: small_policy(pixels_task((84, 84, 3), "float32"), network="dqn"),
         r"has convolutions on float32 \[84, 84, 3\], not on bytes of three dimensions"),
        (lambda: small_policy(pixels_task((2, 84, 84, 3), "uint8"), network="dqn"),
         r"has convolutions on uint8 \[2, 84, 84, 3\], not on bytes of three dimensions"),
        (lambda: small_policy(pixels_task((1, 84, 84), "uint8"), network="dqn",
                              normalization=InputNormalization((0.0,) * 84**2, (1.0,) * 84**2)), "normalises images"),
        (lambda: small_policy(layer_norm=True), "has a LayerNorm"),
        (lambda: small_policy(box_task(mapping="tanh_rescale"), output_kind="gaussian",
                              gaussian=GaussianOptions("gsde")), "a spread of the kind gsde"),
        (beta_policy, "ends in distributions of values or actions"),
    ],
)  # fmt: skip
def test_stable_baselines3_refuses_networks_that_it_does_not_build(policy, why, tmp_path):
    pytest.importorskip("stable_baselines3", reason="needs stable_baselines3")
    with pytest.raises(RldistillError, match=f"--to sb3: the network of policy .*{why}"):
        exported(policy(), "sb3", tmp_path)


@pytest.mark.filterwarnings("ignore:Treating image space as channels-last:UserWarning")
def test_stable_baselines3_refuses_images_whose_channels_it_looks_for_elsewhere(tmp_path):
    pytest.importorskip("stable_baselines3", reason="needs stable_baselines3")
    policy = small_policy(pixels_task((84, 40, 44), "uint8"), network="dqn")
    with pytest.raises(RldistillError, match=r"--to sb3: the network of policy .* has channels of \[84, 40, 44\] els"):
        exported(policy, "sb3", tmp_path)


def test_an_rsl_rl_checkpoint_holds_the_actor_and_is_read_as_the_policy(tmp_path):
    architecture = Architecture("made-up", "mlp", (8, 6), activation="elu")
    statistics = InputNormalization((0.1, 0.2, 0.3, 0.4), (0.5, 1.0, 2.0, 4.0), clip=float("inf"))
    policy = small_policy(
        box_task(),
        network=architecture,
        output_kind="gaussian",
        gaussian=GaussianOptions("parameter"),
        normalization=statistics,
    )
    export, path = exported(policy, "rsl-rl", tmp_path)
    rows = probe_rows(policy.tasks[0].fingerprint, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        copy = FORMATS["rsl-rl"].open(export, path)[0]
    torch.testing.assert_close(copy(rows)[0].raw, policy(rows)[0].raw, rtol=1e-4, atol=1e-5)


def test_the_actions_of_a_beta_policy_are_those_of_its_file_also_without_a_task(tmp_path):
    policy = beta_policy()
    _, path = exported(policy, "onnx", tmp_path)
    layouts = [rd.load_policy(path, task=task).tasks[0].fingerprint.action_layout for task in (None, policy.tasks[0])]
    assert layouts[0] == layouts[1] == policy.tasks[0].fingerprint.action_layout


@pytest.mark.parametrize("name", POLICIES)
def test_an_onnx_file_counts_the_parameters_of_its_policy_and_no_factors_and_bounds(name, tmp_path):
    policy = POLICIES[name]()
    export, path = exported(policy, "onnx", tmp_path)
    copy, _ = FORMATS["onnx"].open(export, path)
    assert copy.program.num_parameters == policy.num_parameters


@pytest.mark.parametrize(
    "layout", [ActionLayout("multi_discrete", (3, 2)), ActionLayout("multi_binary", (3,)), ActionLayout.discrete(3)]
)
def test_an_onnx_file_is_read_without_a_task_as_the_actions_that_its_contract_says(layout, tmp_path):
    task = Task("made-up", ObservationFingerprint((4,), "float32", layout))
    _, path = exported(small_policy(task, output_kind="logits"), "onnx", tmp_path)
    assert rd.load_policy(path).tasks[0].fingerprint.action_layout == layout


def test_an_rsl_rl_checkpoint_holds_no_beta_distributions(tmp_path):
    with pytest.raises(RldistillError, match=r"--to rsl-rl: the network of policy .*, or ends in Beta distributions"):
        exported(beta_policy(), "rsl-rl", tmp_path)


@pytest.mark.slow
def test_the_runner_of_rsl_rl_loads_the_actor(tmp_path):
    models = pytest.importorskip("rsl_rl.models", reason="needs rsl-rl-lib 5.5")
    from tensordict import TensorDict

    gaussian = GaussianOptions("parameter")
    policy = small_policy(
        box_task(), network="mlp:8x6", output_kind="gaussian", gaussian=gaussian, normalization=STATISTICS
    )
    _, path = exported(policy, "rsl-rl", tmp_path)
    rows = probe_rows(policy.tasks[0].fingerprint, 20)
    observations = TensorDict({"policy": rows}, batch_size=[20])
    actor = models.MLPModel(
        observations,
        {"actor": ["policy"]},
        "actor",
        2,
        hidden_dims=[8, 6],
        activation="relu",
        obs_normalization=True,
        distribution_cfg={"class_name": "GaussianDistribution"},
    )
    actor.load_state_dict(torch.load(path)["actor_state_dict"], strict=True)  # what the runner does with its content
    actor.eval()
    with torch.no_grad():
        torch.testing.assert_close(actor(observations), policy(rows)[0].mean, rtol=1e-4, atol=1e-5)


def test_a_hub_folder_has_a_card_with_its_score_the_policy_and_onnx(tmp_path):
    policy = hand_made_teacher()
    score = Score(39.5, (38.0, 40.0), 30)
    _, path = exported(policy, "hub-folder", tmp_path, score=score)
    assert sorted(file.name for file in path.iterdir()) == [
        "README.md",
        "contract.json",
        "policy.onnx",
        "policy.safetensors",
    ]
    assert load_policy(path / "policy.safetensors").hash == policy.hash
    yaml = pytest.importorskip("yaml", reason="needs pyyaml")
    card = yaml.safe_load((path / "README.md").read_text().split("---")[1])
    assert card["library_name"] == "rldistill"
    (result,) = card["model-index"][0]["results"]
    assert result["dataset"] == {"name": "CartPole-v1", "type": "CartPole-v1"}
    (metric,) = result["metrics"]
    assert metric["value"] == 39.5
    assert metric["name"] == "mean return over 30 episodes, 95 % interval 38 to 40"


@pytest.mark.parametrize(
    ("precision", "said"),
    [
        ("float32", "the same with normalisation and action mapping, for onnxruntime"),
        ("float16", "the same with normalisation and action mapping, weights in float16, for onnxruntime"),
        ("int8", "the same with normalisation and action mapping, weights in int8, for onnxruntime"),
    ],
)
def test_the_card_of_a_hub_folder_names_the_precision_of_its_onnx_file(precision, said, tmp_path):
    policy = small_policy()
    sample = Sample(probe_rows(policy.tasks[0].fingerprint, 20).numpy())
    _, path = exported(policy, "hub-folder", tmp_path, precision=precision, calibration=sample)
    assert f"| `policy.onnx` | {said} |" in (path / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "out", "expected"),
    [
        (None, "a.onnx", "onnx"),
        (None, "a.pt", "torchscript"),
        ("rsl-rl", "a.pt", "rsl-rl"),
        ("hub-folder", "hub", "hub-folder"),
    ],
)
def test_the_format_follows_the_ending_unless_it_is_named(name, out, expected, tmp_path):
    assert format_of(FORMATS, name, tmp_path / out).name == expected


def test_an_ending_of_another_format_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"got a path ending in '.onnx', expected a folder for --to hub-folder"):
        format_of(FORMATS, "hub-folder", tmp_path / "hub.onnx")


def test_a_teacher_of_stable_baselines3_decides_by_its_predict(tmp_path):
    pytest.importorskip("stable_baselines3", reason="needs stable_baselines3")
    policy = small_policy(box_task(), network="mlp:8", output_kind="gaussian", gaussian=GaussianOptions("parameter"))
    _, path = exported(policy, "sb3", tmp_path)
    teacher, rows = rd.load_policy(path), np.ones((1, 4), np.float32)
    predict, way = predict_of(teacher)
    assert way == "predict of stable_baselines3"
    np.testing.assert_allclose(predict(rows)[0], choose_actions(policy(rows)[0], "greedy"), atol=1e-5)
    assert predict_of(policy) == (None, "in PyTorch")


def test_a_teacher_whose_library_is_missing_is_timed_in_pytorch_and_says_so(tmp_path, monkeypatch):
    policy = small_policy(network="mlp:8").with_provenance({"source": {"format": "stable-baselines3"}})
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    assert predict_of(policy) == (None, "in PyTorch: stable_baselines3 is not installed")
