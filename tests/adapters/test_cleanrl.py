"""CleanRL's checkpoints become networks of ours that answer as CleanRL's do, on a thousand observations."""

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from rldistill.adapters import checkpoints
from rldistill.adapters.load import load_policy
from rldistill.errors import MismatchError, PolicyFileError, TeacherWarning, UsageError
from rldistill.policies import TorchPolicy, fit_policy
from rldistill.policies import load_policy as load_own
from tests.adapters.sb3.made_up import ppo_weights
from tests.kit.other_libraries import (
    PPO,
    CategoricalQNetwork,
    PPOAtari,
    PPOContinuous,
    QDagger,
    QNetwork,
    SACActor,
    TD3Actor,
    dense,
    randomised,
)
from tests.kit.small_policies import box_task, image_task, vector_task

VECTORS = torch.randn(1000, 4, generator=torch.Generator().manual_seed(1))
FRAMES = torch.randint(0, 256, (1000, 4, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))

# Algorithm: network, output kind, behaviour, whether it takes images.
ALGORITHMS = {
    "dqn": (lambda: QNetwork(), "q_values", "greedy", False),
    "dqn_atari": (lambda: QNetwork(atari=True), "q_values", "greedy", True),
    "pqn": (lambda: QNetwork(norm=True), "q_values", "greedy", False),
    "pqn_atari": (lambda: QNetwork(atari=True, norm=True), "q_values", "greedy", True),
    "c51": (lambda: CategoricalQNetwork(), "q_values", "greedy", False),
    "c51_atari": (lambda: CategoricalQNetwork(atari=True), "q_values", "greedy", True),
    "qdagger_atari": (QDagger, "q_values", "greedy", True),
    "ppo": (PPO, "logits", "sample", False),
    "ppo_atari": (PPOAtari, "logits", "sample", True),
    "sac_continuous_action": (SACActor, "gaussian", "greedy", False),
    "td3_continuous_action": (TD3Actor, "actions", "greedy", False),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.cleanrl_model"


def refusal(path, error=PolicyFileError, **options):
    with pytest.raises(error) as caught:
        load_policy(path, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line.replace(str(path), "FILE")


def assert_parity(policy, reference, rows):
    """Compare heads as style demands: relative 1e-5, absolute 1e-5 times the largest output; greedy actions alike."""
    with torch.no_grad():
        expected = torch.cat([reference(part.float()) for part in rows.split(16)])
    output, _ = policy(rows)
    tolerance = 1e-5 * expected.abs().max().item()
    torch.testing.assert_close(output.raw, expected, rtol=1e-5, atol=tolerance)
    if policy.output_kind in ("q_values", "logits"):
        best = expected.topk(2).values
        clear = (best[:, 0] - best[:, 1]) > 2 * tolerance
        assert torch.equal(output.raw.argmax(1)[clear], expected.argmax(1)[clear])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_its_answers_are_those_of_the_library(algorithm, path):
    make, kind, behaviour, is_image = ALGORITHMS[algorithm]
    reference = randomised(make())
    torch.save(reference.state_dict(), path)
    policy = load_policy(path)
    assert isinstance(policy, TorchPolicy)
    assert (policy.output_kind, policy.behaviour) == (kind, behaviour)
    assert policy.spec.provenance["source"]["algorithm"] == algorithm
    assert_parity(policy, reference, FRAMES[:250] if is_image else VECTORS)


def test_a_state_value_on_the_same_features_is_kept(path):
    reference = randomised(PPOAtari())
    torch.save(reference.state_dict(), path)
    with torch.no_grad():
        expected = reference.critic(reference.network(FRAMES[:16] / 255.0)).squeeze(1)
    torch.testing.assert_close(load_policy(path)(FRAMES[:16])[0].value, expected)


@pytest.mark.parametrize("actor", [SACActor, TD3Actor])
def test_actions_reach_the_box_that_the_actor_says(actor, path):
    reference = randomised(actor())
    torch.save(reference.state_dict(), path)
    policy = load_policy(path)
    layout = policy.tasks[0].fingerprint.action_layout
    assert (layout.low, layout.high, layout.mapping) == ((-1, -1), (3, 0), "tanh_rescale")
    with torch.no_grad():
        expected = (reference.greedy if actor is SACActor else reference)(VECTORS)
    np.testing.assert_allclose(policy.act(VECTORS)[0], expected, atol=1e-5)


def test_the_box_that_the_actor_says_must_be_that_of_the_task(path):
    torch.save(SACActor().state_dict(), path)
    assert refusal(path, MismatchError, task=box_task()).startswith(
        "Policy 'model' has actions in [-1, 3] × [-1, 0], task 'made-up' in [-1, 1]. Was its environment rescaled?"
    )


def test_ppo_continuous_is_clipped_to_the_tasks_box_and_warns_of_the_wrappers_that_its_file_does_not_hold(path):
    reference = randomised(PPOContinuous())
    torch.save(reference.state_dict(), path)
    with pytest.warns(TeacherWarning) as caught:
        policy = load_policy(path, task=box_task())
    assert str(caught[0].message) == (
        f"Policy file {path}: CleanRL's ppo_continuous_action normalises observations by running statistics and clips "
        "them to ±10 in wrappers that the file does not hold. Unless this teacher was trained without them, it plays "
        "about as well as at random. Save their mean and var to an .npz and name it with --normalizer (in Python "
        "normalizer=)."
    )
    assert_parity(policy, reference, VECTORS)
    assert policy.tasks[0].fingerprint.action_layout.mapping == "clip"
    assert policy.behaviour == "sample"
    with pytest.warns(TeacherWarning):
        assert load_policy(path, task=box_task(), behaviour="greedy").behaviour == "greedy"


@pytest.mark.filterwarnings("ignore::rldistill.errors.TeacherWarning")
def test_ppo_continuous_does_not_say_the_range_of_its_actions(path):
    torch.save(randomised(PPOContinuous()).state_dict(), path)
    assert refusal(path, UsageError) == (
        "Policy file FILE (CleanRL ppo_continuous_action) does not say in which range its actions lie. Name its task: "
        "--task ID."
    )


@pytest.mark.parametrize(
    "content",
    [
        lambda: {"model_weights": CategoricalQNetwork().state_dict(), "args": {"n_atoms": 51, "exp_name": "c51"}},
        lambda: (TD3Actor().state_dict(), dense(6, 8, 1)[0].state_dict(), dense(6, 8, 1)[0].state_dict()),
        lambda: {"state_dict": QNetwork().state_dict(), "step": 3},
    ],
    ids=["c51's model_data", "td3's tuple", "state_dict"],
)
def test_the_actor_is_found_in_what_scripts_save(content, path):
    torch.save(content(), path)
    assert load_policy(path).tasks[0].name == "unnamed"


def test_it_can_be_saved_as_a_policy_file(path, tmp_path):
    torch.save(randomised(CategoricalQNetwork()).state_dict(), path)
    policy = load_policy(path, task=vector_task())
    policy.save(tmp_path / "p.safetensors")
    loaded = load_own(tmp_path / "p.safetensors")
    assert loaded.hash == policy.hash
    assert torch.equal(loaded(VECTORS)[0].q_values, policy(VECTORS)[0].q_values)
    assert loaded.tasks[0].name == "made-up"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_floats_than_float32_are_converted_and_recorded(dtype, path):
    reference = randomised(QNetwork()).to(dtype)
    torch.save(reference.state_dict(), path)
    policy = load_policy(path)
    assert_parity(policy, reference.float(), VECTORS)
    assert policy.spec.provenance["source"]["weights_converted_from"] == [str(dtype)[6:]]


def test_a_task_that_does_not_fit_is_refused_naming_both(path):
    torch.save(QNetwork().state_dict(), path)
    assert refusal(path, MismatchError, task=vector_task(num_inputs=8)) == (
        "Policy file FILE (CleanRL dqn) takes 4 numbers, task 'made-up' gives observations [8]. Was it trained on "
        "another task?"
    )
    assert refusal(path, MismatchError, task=vector_task(5)) == (
        "Policy file FILE (CleanRL dqn) has actions discrete [3], task 'made-up' has discrete [5]. Was it trained on "
        "another task?"
    )
    assert refusal(path, MismatchError, task=box_task()).endswith(
        "has actions discrete [3], task 'made-up' has box [2]. Was it trained on another task?"
    )


def test_images_take_the_fingerprint_of_the_task(path):
    torch.save(QNetwork(atari=True).state_dict(), path)
    assert load_policy(path).tasks[0].fingerprint.observation_shape == (4, 84, 84)
    assert load_policy(path, task=image_task()).tasks[0] == image_task()


def test_without_a_name_the_users_word_for_the_frames_counts(path):
    torch.save(QNetwork(atari=True).state_dict(), path)
    policy = load_policy(path)
    assert fit_policy(policy, image_task()) is policy
    with pytest.raises(MismatchError, match=r"observation_shape: \[4, 84, 84\] against \[4\]"):
        fit_policy(policy, vector_task(6))


# What is refused.


def changed(module, change):
    tensors = dict(module.state_dict())
    change(tensors)
    return tensors


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            lambda: changed(QNetwork(), lambda t: t.update({"network.9.weight": torch.zeros(2, 2)})),
            "its layers are not known: network.9 has no bias.",
        ),
        (
            lambda: changed(QNetwork(), lambda t: t.update({"network.scale": torch.zeros(2)})),
            "its layers are not known: network.scale beside its layers.",
        ),
        (
            lambda: {f"network.{i}.{n}": t for i in (0, 1) for n, t in dense(4, 4)[0].state_dict().items()},
            "its layers are not known: layers at [0, 1], expected at [0, 2].",
        ),
        (
            lambda: {f"network.{i}.{n}": t for i in (0, 2) for n, t in dense(4, 3)[0].state_dict().items()},
            "its layers are not known: 3 outputs before 4 inputs.",
        ),
        (
            lambda: changed(QNetwork(atari=True), lambda t: t.update({"network.0.weight": torch.zeros(4, 4, 5, 5)})),
            "its layers are not known: convolutions of kernels (5, 4, 3), whose strides leave no trace in the weights.",
        ),
        (
            lambda: changed(CategoricalQNetwork(), lambda t: t.update(atoms=torch.tensor([0.0, 1.0, 5.0]))),
            "its layers are not known: atoms at unequal distances.",
        ),
        (
            lambda: changed(CategoricalQNetwork(), lambda t: t.update(atoms=torch.linspace(0, 1, 50))),
            "its layers are not known: 153 outputs for 50 atoms.",
        ),
        (
            lambda: changed(CategoricalQNetwork(), lambda t: t.update(atoms=torch.ones(51, dtype=torch.bool))),
            "its layers are not known: atoms of torch.bool, expected floats.",
        ),
        (
            lambda: changed(TD3Actor(), lambda t: t.update(action_bias=torch.zeros(3))),
            "its layers are not known: action_scale of 2 and action_bias of 3.",
        ),
        (
            lambda: changed(TD3Actor(), lambda t: t.pop("fc2.bias")),
            "its layers are not known: fc2.bias is missing.",
        ),
        (
            lambda: {"encoder.weight": torch.zeros(2, 3), "policy": torch.zeros(1)},
            "its layers are not known: got encoder.weight [2, 3], policy [1], expected those of CleanRL, "
            "rl_games, rsl_rl, skrl.",
        ),
    ],
)
def test_unknown_layers_are_listed_and_a_way_out_is_named(content, line, path):
    torch.save(content(), path)
    assert refusal(path) == (
        f"Policy file FILE: {line} Load them into a module of your own, in Python: "
        "rd.load_policy(path, module=…, task=…, outputs=…)."
    )


def test_layers_that_do_not_fit_their_observations(path):
    torch.save(changed(QNetwork(atari=True), lambda t: t.update({"network.7.weight": torch.zeros(16, 100)})), path)
    assert refusal(path) == (
        "Policy file FILE (CleanRL dqn_atari): its layers do not fit observations [4, 84, 84]: torso.7.weight [16, "
        "100] instead of [16, 392]. Load them into a module of your own, in Python: "
        "rd.load_policy(path, module=…, task=…, outputs=…)."
    )


@pytest.mark.parametrize(("content", "got"), [({"step": 3}, "step"), ([], "list"), ({}, "nothing"), (3, "int")])
def test_files_without_tensors(content, got, path):
    torch.save(content, path)
    assert refusal(path) == f"Policy file FILE holds no state dict: got {got}, expected tensors by name."


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number(bad, path):
    network = QNetwork()
    network.network[0].weight.data[0, 0] = bad
    torch.save(network.state_dict(), path)
    assert refusal(path) == (
        "Policy file FILE: tensor network.0.weight holds NaN or infinity. Its training diverged, or the file is "
        "damaged."
    )


def box_space():
    return gymnasium.spaces.Box(-1, 1, (2,))


class Payload:
    """What a hostile file would do when it is opened."""

    def __init__(self, victim):
        self.victim = str(victim)

    def __reduce__(self):
        return (open, (self.victim, "w"))


@pytest.mark.parametrize("is_new", [True, False])
def test_a_hostile_pickle_is_refused_unexecuted_and_names_what_it_wants(is_new, path, tmp_path):
    victim = tmp_path / "executed"
    content = {**QNetwork().state_dict(), "args": Payload(victim)}
    torch.save(content, path, _use_new_zipfile_serialization=is_new)
    line = refusal(path, trust=True)
    assert line == (
        "Policy file FILE is refused: its pickle wants io.open, which weights do not need. Nothing of it was executed."
    )
    assert not victim.exists()


def test_a_whole_pickled_module_is_refused_even_if_trusted(path):
    torch.save(QNetwork(), path)
    assert refusal(path, trust=True) == (
        "Policy file FILE is refused: its pickle wants tests.kit.other_libraries.QNetwork, which weights do not need. "
        "Nothing of it was executed. If you trust its maker, load it yourself (torch.load(path, weights_only=False)), "
        "and pass its module to rd.load_policy or save the weights alone: torch.save(module.state_dict(), "
        "'weights.pt')."
    )


def test_what_one_policy_of_stable_baselines3_saves_is_refused_with_what_to_save_instead(path):
    torch.save({"state_dict": {}, "data": {"observation_space": box_space()}}, path)
    assert refusal(path).endswith(
        "If Stable-Baselines3's policy.save() wrote it: save the whole model instead, model.save('model.zip')."
    )


def test_a_file_over_the_limit_is_refused_before_it_is_read(path, monkeypatch):
    torch.save(QNetwork().state_dict(), path)
    monkeypatch.setattr(checkpoints, "MAX_BYTES", 100)
    assert refusal(path) == (
        "Policy file FILE takes 0 MiB, the most that is read is 0 MiB. Save the state dict of the actor alone."
    )


def test_a_cut_off_file_is_one_line(path):
    torch.save(QNetwork().state_dict(), path)
    path.write_bytes(path.read_bytes()[:500])
    assert "FILE" in refusal(path)


def changed_script(module, activation):
    """Return a module whose hidden layers have another activation, as somebody who edits the script makes it."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ReLU | nn.Tanh):
                setattr(parent, name, activation())
    return module


@pytest.mark.parametrize(
    ("make", "name", "activation"),
    [
        (PPO, "relu", nn.ReLU),
        (PPOContinuous, "relu", nn.ReLU),
        (QNetwork, "tanh", nn.Tanh),
        (lambda: QNetwork(norm=True), "elu", nn.ELU),
        (lambda: QNetwork(atari=True), "silu", nn.SiLU),
        (PPOAtari, "elu", nn.ELU),
        (CategoricalQNetwork, "tanh", nn.Tanh),
    ],
)
@pytest.mark.filterwarnings("ignore::rldistill.errors.TeacherWarning")
def test_the_activation_of_a_script_that_was_changed_is_said_by_the_user(make, name, activation, path, tmp_path):
    reference = changed_script(randomised(make()), activation)
    torch.save(reference.state_dict(), path)
    task = {"task": box_task()} if make is PPOContinuous else {}
    policy = load_policy(path, activation=name, **task)
    rows = VECTORS if policy.spec.architecture.kind == "mlp" else FRAMES[:64]
    assert_parity(policy, reference, rows)
    as_written = load_policy(path, **task)
    assert not torch.allclose(as_written(rows[:16])[0].raw, policy(rows[:16])[0].raw, rtol=1e-3)
    assert as_written.hash != policy.hash
    policy.save(tmp_path / "p.safetensors")
    assert torch.equal(load_own(tmp_path / "p.safetensors")(rows[:16])[0].raw, policy(rows[:16])[0].raw)
    own = as_written.spec.architecture.activation
    assert load_policy(path, activation=own, **task).hash == as_written.hash


@pytest.mark.parametrize("actor", [SACActor, TD3Actor])
def test_actors_of_named_layers_take_another_activation_too(actor, path):
    reference = randomised(actor())
    torch.save(reference.state_dict(), path)
    policy = load_policy(path, activation="tanh")
    with torch.no_grad():
        features = reference.fc2(reference.fc1(VECTORS[:16]).tanh()).tanh()
        mean = reference.fc_mean(features) if actor is SACActor else reference.fc_mu(features)
        expected = mean.tanh() * reference.action_scale + reference.action_bias
    np.testing.assert_allclose(policy.act(VECTORS[:16])[0], expected, atol=1e-5)


def test_an_activation_that_cannot_be_is_refused(path):
    torch.save(QDagger().state_dict(), path)
    assert refusal(path, UsageError, activation="tanh") == (
        "Policy file FILE (CleanRL qdagger_atari): got activation tanh, and its residual blocks know relu alone. Leave "
        "activation out."
    )
    assert load_policy(path, activation="relu").hash == load_policy(path).hash
    assert refusal(path, UsageError, activation="sine").startswith(
        "activation: got 'sine', expected one of relu, tanh,"
    )


def test_weights_of_a_module_of_ones_own_are_read_into_it(path):
    reference = randomised(PPO())
    torch.save({"model_weights": reference.state_dict()}, path)
    policy = load_policy(path, module=PPO(), task=vector_task(), outputs="logits")
    assert_parity(policy, reference, VECTORS)
    assert refusal(path, module=QNetwork(), task=vector_task(), outputs="logits").startswith(
        "Policy file FILE: its tensors are not those of QNetwork: got critic.0.weight [8, 4], critic.0.bias [8], "
    )


def test_an_actor_with_a_memory_is_refused_by_its_name(path):
    memory = {f"lstm.{name}": tensor for name, tensor in nn.LSTM(16, 8).state_dict().items()}
    torch.save(PPOAtari().state_dict() | memory, path)
    assert refusal(path) == (
        "Policy file FILE is recurrent: it has lstm.weight_ih_l0. No memory is read from such a file: export the "
        "policy to ONNX or TorchScript with its state."
    )


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.module.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: name.replace("network.", "network._orig_mod."),
    ],
    ids=["compiled", "parallel", "both", "both, the other way round", "a part compiled"],
)
def test_wrappers_around_a_network_leave_no_trace(wrapped, path):
    tensors = randomised(QNetwork()).state_dict()
    torch.save(tensors, path)
    expected = load_policy(path)(VECTORS)[0].q_values
    torch.save({wrapped(name): tensor for name, tensor in tensors.items()}, path)
    assert torch.equal(load_policy(path)(VECTORS)[0].q_values, expected)


def test_names_that_would_become_one_stay_two(path):
    tensors = QNetwork().state_dict()
    torch.save(tensors | {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()}, path)
    assert "_orig_mod.network.0.weight [12, 4]" in refusal(path)


@pytest.mark.parametrize("file_wrapper", ["", "_orig_mod.", "module."])
@pytest.mark.parametrize("compiled", [False, True])
def test_weights_go_into_a_module_whatever_is_wrapped_around_either(file_wrapper, compiled, path):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(4, 3)  # the name that data parallel training gives what it wraps

        def forward(self, observations):
            return self.module(observations)

    saved, own = Own(), Own()
    torch.save({f"{file_wrapper}{name}": tensor for name, tensor in saved.state_dict().items()}, path)
    module = nn.ModuleDict({"_orig_mod": own}) if compiled else own
    if compiled:
        module.forward = own.forward
    policy = load_policy(path, module=module, task=vector_task(), outputs="logits")
    with torch.no_grad():
        torch.testing.assert_close(policy(VECTORS)[0].logits, saved(VECTORS))


# What nobody says is a guess, and said to be one.


class SharedTorso(nn.Module):
    """PPO on vectors with one torso, as many write it and no script of CleanRL does."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        self.actor, self.critic = nn.Linear(8, 3), nn.Linear(8, 1)

    def forward(self, x):
        return self.actor(self.network(x))


@pytest.mark.parametrize(
    ("make", "suffix", "unsaid", "way"),
    [
        (SharedTorso, ".pt", "its activation (taken is relu), as in CleanRL's ppo", "--activation tanh (in Python a"),
        (SharedTorso, ".cleanrl_model", "its activation (taken is relu)", "--activation tanh"),
        (PPO, ".pt", "its activation (taken is tanh), as in CleanRL's ppo", "--activation relu"),
        (
            QNetwork,
            ".pt",
            "its activation (taken is relu) or what its outputs are (taken are Q-values), as in CleanRL's dqn",
            "--activation tanh --outputs logits (in Python activation='tanh', outputs='logits')",
        ),
        (TD3Actor, ".pt", "its activation (taken is relu), as in CleanRL's td3_continuous_action", "--activation tanh"),
    ],
)
def test_what_neither_file_nor_user_says_is_a_warning(make, suffix, unsaid, way, tmp_path):
    path = tmp_path / f"policy{suffix}"
    torch.save(make().state_dict(), path)
    with pytest.warns(TeacherWarning) as caught:
        load_policy(path)
    (line,) = (str(warning.message) for warning in caught)
    assert line.startswith(f"Policy file {path}: the file does not say {unsaid}")
    assert f"If it was trained otherwise, say so: {way}" in line


@pytest.mark.parametrize(
    ("make", "suffix", "library", "algorithm"),
    [
        (QNetwork, ".pt", "state dict", None),
        (QNetwork, ".cleanrl_model", "CleanRL", "dqn"),
        (PPO, ".pt", "state dict", None),
        (SharedTorso, ".cleanrl_model", "state dict", None),
        (SACActor, ".pt", "CleanRL", "sac_continuous_action"),
    ],
)
def test_a_library_is_named_only_where_names_or_suffix_are_its_own(make, suffix, library, algorithm, tmp_path):
    path = tmp_path / f"policy{suffix}"
    torch.save(make().state_dict(), path)
    policy = load_policy(path, activation="relu", outputs="q_values" if make is QNetwork else None)
    source = policy.spec.provenance["source"]
    assert (source["format"], source["algorithm"]) == (library, algorithm)


def test_a_policy_that_looks_like_a_q_network_is_said_to_be_one(tmp_path):
    path = tmp_path / "policy.pt"
    reference = changed_script(randomised(QNetwork()), nn.Tanh)
    torch.save(reference.state_dict(), path)
    policy = load_policy(path, activation="tanh", outputs="logits")
    assert policy.output_kind == "logits"
    assert_parity(policy, reference, VECTORS)
    shared = randomised(SharedTorso())
    torch.save(shared.state_dict(), path)
    assert_parity(load_policy(path, activation="tanh"), shared, VECTORS)


# Statistics beside the weights.

MEAN, VARIANCE = np.array([1.0, -2.0, 0.0, 30.0]), np.array([4.0, 0.25, 1.0, 100.0])


@pytest.mark.parametrize(
    "statistics",
    [
        {"obs_rms_mean": MEAN, "obs_rms_var": VARIANCE, "obs_rms_count": np.float64(1000)},
        {"obs_rms": {"mean": torch.tensor(MEAN), "var": torch.tensor(VARIANCE), "count": 1000.0}},
        {"obs_mean": MEAN.tolist(), "obs_var": VARIANCE.tolist(), "args": {"seed": 1}},
    ],
    ids=["arrays", "nested", "lists"],
)
def test_statistics_beside_the_weights_are_used_where_the_script_says_how(statistics, path):
    reference = randomised(PPOContinuous())
    torch.save({"model_weights": reference.state_dict(), **statistics}, path)
    policy = load_policy(path, task=box_task())
    rows = 10 * VECTORS
    expected = reference(((rows.double() - torch.tensor(MEAN)) / torch.tensor(VARIANCE).sqrt()).clip(-10, 10).float())
    torch.testing.assert_close(policy(rows)[0].raw, expected.detach(), rtol=1e-5, atol=1e-5)
    assert load_policy(path, task=box_task(), normalizer="none").normalization is None


@pytest.mark.parametrize(
    ("make", "beside", "names"),
    [
        (PPOContinuous, {"obs_mean": torch.zeros(5), "obs_var": torch.ones(5)}, "obs_mean, obs_var"),
        (PPOContinuous, {"obs_rms": {"mean": [0.0] * 4, "std": [1.0] * 4}}, "obs_rms.mean, obs_rms.std"),
        (PPO, {"norm": {"running_mean": torch.zeros(4), "running_var": torch.ones(4)}}, "norm.running_mean, norm."),
    ],
)
def test_statistics_whose_use_is_not_known_are_asked_about(make, beside, names, path):
    torch.save({"model_weights": make().state_dict(), **beside}, path)
    line = refusal(path, UsageError, task=box_task() if make is PPOContinuous else vector_task())
    assert line.startswith(f"Policy file FILE holds running statistics beside its weights ({names}")
    assert "name it with --normalizer (in Python normalizer=); else say --normalizer none." in line
    own = {"module": make(), "outputs": "logits", "task": vector_task()}
    if make is PPO:
        assert refusal(path, UsageError, **own) == line
        assert load_policy(path, normalizer="none", **own).normalization is None


def test_statistics_of_returns_and_counts_beside_the_weights_are_left_alone(path):
    beside = {"ret_rms": {"mean": [0.0], "var": [1.0]}, "last_mean_rewards": np.float32(3), "step": torch.tensor(7)}
    torch.save({"model_weights": randomised(PPO()).state_dict(), **beside}, path)
    assert load_policy(path, task=vector_task()).normalization is None


# Files of several state dicts.


def test_an_agent_of_skrl_is_named_with_the_way_on(path):
    scaler = {"running_mean": torch.zeros(4), "running_variance": torch.ones(4), "current_count": torch.ones(())}
    agent = {"policy": PPO().state_dict(), "value": PPO().state_dict(), "optimizer": {"state": {}}}
    torch.save(agent | {"observation_preprocessor": scaler, "value_preprocessor": scaler}, path)
    line = refusal(path)
    assert line.startswith("Policy file FILE is an agent of skrl (policy, value, observation_preprocessor, value_")
    assert line.endswith(" the lines of Python stand in docs/other-libraries.md in the checkout of rldistill.")
    assert refusal(path, module=PPO(), task=vector_task(), outputs="logits") == line


def test_of_several_state_dicts_none_is_guessed(path):
    torch.save({"pi": PPO().state_dict(), "q": QNetwork().state_dict(), "optimizer": {}, "step": 3}, path)
    line = refusal(path)
    assert line.startswith("Policy file FILE holds the state dicts pi, q, and does not say which one is the policy.")
    assert "torch.save(torch.load(path, weights_only=True)['pi'], 'policy.pt')" in line
    assert refusal(path, module=PPO(), task=vector_task(), outputs="logits") == line


def test_the_only_state_dict_of_a_file_is_read_whatever_it_is_called(path):
    weights = PPO().state_dict()
    torch.save({"agent": weights, "optimizer": {"state": {}}, "step": 3}, path)
    rows = np.zeros((2, 4), np.float32)
    found = load_policy(path)(rows)[0].logits
    torch.save(weights, path)
    assert torch.equal(found, load_policy(path)(rows)[0].logits)
    for name in ("critic", "qf1", "vf", "target_critics", "baseline"):
        torch.save({name: weights}, path)
        assert f"holds the state dicts {name}, and does not say which one is the policy" in refusal(path)


def test_a_plain_network_is_not_said_to_contradict_that_it_is_a_gaussian(path):
    torch.save(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4)).state_dict(), path)
    line = refusal(path, UsageError, outputs="gaussian", task=vector_task())
    assert "is a plain network, whose outputs are read as q_values, logits or actions: got outputs gaussian." in line


def test_an_agent_of_skrl_is_named_whatever_its_tensors_hold(path):
    value = {"running_mean": torch.full((1,), float("nan")), "running_variance": torch.ones(1)}
    torch.save({"policy": PPO().state_dict(), "value_preprocessor": value}, path)
    assert refusal(path).startswith("Policy file FILE is an agent of skrl (policy, value_preprocessor), whose policy")


# A plain nn.Sequential, by any one name or none.


@pytest.mark.parametrize("prefix", ["", "net.", "policy.net.", "mlp_2."])
def test_a_plain_sequential_is_read_as_its_user_says(prefix, tmp_path):
    path, module = tmp_path / "policy.pt", randomised(nn.Sequential(*dense(4, 8, 6, 3, activation=nn.Tanh)))
    torch.save({f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}, path)
    policy = load_policy(path, activation="tanh", outputs="logits", task=vector_task())
    assert policy.output_kind == "logits"
    assert_parity(policy, module, VECTORS)
    with pytest.warns(TeacherWarning, match=r"does not say its activation \(taken is relu\) or what its outputs are"):
        assert load_policy(path).output_kind == "q_values"


@pytest.mark.filterwarnings("ignore:.*whether a tanh follows:rldistill.errors.TeacherWarning")
def test_an_actor_beside_a_critic_may_answer_actions(tmp_path):
    path, module = tmp_path / "actor_critic.pt", randomised(PPO())
    torch.save(module.state_dict(), path)
    policy = load_policy(path, activation="tanh", outputs="actions", task=box_task(3))
    assert policy.behaviour == "greedy"
    with torch.no_grad():
        np.testing.assert_allclose(policy.act(VECTORS)[0], module(VECTORS).clamp(-1, 1), atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*whether a tanh follows:rldistill.errors.TeacherWarning")
def test_a_plain_sequential_may_answer_actions(tmp_path):
    path, module = tmp_path / "actor.pt", randomised(nn.Sequential(*dense(4, 8, 2)))
    torch.save(module.state_dict(), path)
    policy = load_policy(path, activation="relu", outputs="actions", task=box_task())
    with torch.no_grad():
        np.testing.assert_allclose(policy.act(VECTORS)[0], module(VECTORS).clamp(-1, 1), atol=1e-5)
    assert refusal(path, UsageError, task=box_task()) == (
        "Policy file FILE does not say what its outputs are, and task 'made-up' has box actions. If they are these "
        "actions, in the environment's units, say so: --outputs actions (in Python outputs='actions')."
    )


@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_actions_that_pass_through_tanh_reach_the_bounds_of_the_task(low, tmp_path):
    path, module, task = tmp_path / "actor.pt", randomised(nn.Sequential(*dense(4, 8, 2))), box_task(low=low, high=4.0)
    torch.save(module.state_dict(), path)
    policy = load_policy(path, activation="relu", outputs="actions=tanh", task=task)
    with torch.no_grad():
        expected = low + (4 - low) * (module(VECTORS).tanh() + 1) / 2
    np.testing.assert_allclose(policy.act(VECTORS)[0], expected, atol=1e-5)
    policy.save(tmp_path / "own.safetensors")
    assert load_policy(tmp_path / "own.safetensors", outputs="actions=tanh").hash == policy.hash
    endless = box_task(low=-np.inf, high=np.inf)
    assert "its tanh reaches the bounds of a box, and that of task 'made-up' has none." in refusal(
        path, MismatchError, activation="relu", outputs="actions=tanh", task=endless
    )


def test_whether_a_tanh_follows_the_actions_is_a_guess(tmp_path):
    path = tmp_path / "actor.pt"
    torch.save(nn.Sequential(*dense(4, 8, 2)).state_dict(), path)
    with pytest.warns(TeacherWarning, match=r"say whether a tanh follows .* none\), .*: --outputs actions=tanh \(in"):
        load_policy(path, activation="relu", outputs="actions", task=box_task())


def test_without_bounds_no_tanh_follows_the_actions_and_nothing_is_in_doubt(tmp_path, recwarn):
    path = tmp_path / "actor.pt"
    torch.save(nn.Sequential(*dense(4, 8, 2)).state_dict(), path)
    load_policy(path, activation="relu", outputs="actions", task=box_task(low=-np.inf, high=np.inf))
    assert not recwarn.list


def test_a_checkpoint_is_not_rescaled_by_a_word(path):
    torch.save(nn.Sequential(*dense(4, 8, 2)).state_dict(), path)
    assert refusal(path, UsageError, outputs="actions=rescale", task=box_task()) == (
        "Policy file FILE is a checkpoint, and rescale belongs with programs: got outputs='actions=rescale'. Say "
        "--outputs actions, or actions=tanh where a tanh follows its last layer, whose -1 and 1 stand for the bounds "
        "of the task's box."
    )


def test_the_kind_of_norms_is_a_guess_but_in_files_of_the_script(tmp_path):
    torch.save(QNetwork(norm=True).state_dict(), tmp_path / "q.pt")
    with pytest.warns(TeacherWarning, match=r"does not say of which kind its norms are: taken are LayerNorms"):
        load_policy(tmp_path / "q.pt", activation="relu", outputs="q_values")
    torch.save(QNetwork(norm=True).state_dict(), tmp_path / "q.cleanrl_model")
    load_policy(tmp_path / "q.cleanrl_model")


def test_the_factor_on_images_is_a_guess_that_the_user_may_correct(tmp_path):
    path, reference = tmp_path / "q.pt", randomised(QNetwork(atari=True))
    torch.save(reference.state_dict(), path)
    said = {"activation": "relu", "outputs": "q_values", "task": image_task()}
    with pytest.warns(TeacherWarning, match=r"factor on its images \(taken is 1/255\), .* --input-scale 1 \(in .*=1\)"):
        load_policy(path, **said)
    policy = load_policy(path, input_scale=1.0, **said)
    frames = FRAMES[:4]
    with torch.no_grad():
        torch.testing.assert_close(policy(frames)[0].q_values, reference(frames.float() * 255.0), rtol=1e-4, atol=1e-2)
    torch.save(QNetwork().state_dict(), path)
    assert "takes no input_scale. Leave it out." in refusal(
        path, UsageError, activation="relu", outputs="q_values", input_scale=1.0
    )
    assert "load_policy: got input_scale=1.0 with a module of your own" in refusal(
        path, UsageError, module=QNetwork(), task=vector_task(), outputs="logits", input_scale=1.0
    )


# Names that say what a file is, or that they do not.


@pytest.mark.parametrize("names", ["layer1 layer2 layer3", "l1 l2 l3"])
def test_layers_numbered_without_gaps_are_said_to_be(names, path):
    layers = nn.ModuleDict({name: nn.Linear(4, 4) for name in names.split()})
    torch.save(layers.state_dict(), path)
    assert f"not known: {names.split()[0]}, … are numbered without gaps for activations: names of a module of" in (
        refusal(path)
    )


def test_the_weights_of_a_zip_of_stable_baselines3_are_told_from_other_state_dicts(path):
    torch.save(ppo_weights(), path)
    assert refusal(path) == (
        "Policy file FILE holds the weights of a zip of Stable-Baselines3 (policy.pth), and not what the zip says of "
        "them: spaces, activation, algorithm. Load the .zip itself."
    )


@pytest.mark.parametrize("name", ["model_state_dict", "actor_state_dict", "student_state_dict"])
def test_plain_layers_are_not_rsl_rls_whatever_their_state_dict_is_called(name, path):
    module = randomised(PPO() if name == "model_state_dict" else nn.Sequential(*dense(4, 8, 3, activation=nn.Tanh)))
    torch.save({name: module.state_dict(), "optimizer_state_dict": {"state": {}}, "epoch": 3}, path)
    policy = load_policy(path, activation="tanh", outputs="logits", task=vector_task())
    assert policy.spec.provenance["source"]["format"] == ("CleanRL" if name == "model_state_dict" else "state dict")
    assert_parity(policy, module, VECTORS)
