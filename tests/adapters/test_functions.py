"""Python functions and modules as policies: declared, checked once, never copied."""

import copy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from rldistill.adapters.load import load_policy
from rldistill.envs import make_task
from rldistill.errors import MismatchError, NumericalError, PolicyFileError, UsageError
from rldistill.policies import RandomPolicy, TorchPolicy
from rldistill.policies.file_format import pack_policy
from rldistill.testing import Reference, check_policy
from tests.kit.small_policies import box_task, image_task, vector_task
from tests.kit.tiny_envs import Recorder

WEIGHT = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
NO_TENSORS = (
    ", expected a tensor or an array [B, O], or several in a tuple or by name. Return its scores of all actions, or "
    "its actions."
)
ROWS = np.random.default_rng(1).normal(size=(40, 4)).astype(np.float32)


def linear(observations):
    """Return scores as an array: functions need not know torch."""
    return np.asarray(observations) @ WEIGHT


def test_a_function_is_a_policy():
    policy = load_policy(linear, task=vector_task(), outputs="logits", behaviour="sample")
    np.testing.assert_allclose(policy(ROWS)[0].logits, linear(ROWS), rtol=1e-5)
    assert (policy.name, policy.behaviour) == ("linear", "sample")
    assert policy.act(ROWS, rng=np.random.default_rng(0))[0].shape == (40,)


def test_settings_without_a_task_and_a_device_that_is_not_there_are_refused_for_functions_too():
    with pytest.raises(UsageError, match=r"env_kwargs are settings of task, which is missing\."):
        load_policy(linear, outputs="logits", env_kwargs={"nonsense": 1})
    with pytest.raises(UsageError, match="device: got 'nonsense'"):
        load_policy(linear, task=vector_task(), outputs="logits", device="nonsense")


def test_a_function_may_answer_by_name_or_in_a_tuple():
    def by_name(observations):
        return {"mean": linear(observations), "log_std": np.zeros(3), "value": np.zeros(len(observations))}

    def in_a_tuple(observations):
        return linear(observations), torch.ones(len(observations), 3)

    named = load_policy(by_name, task=box_task(3), outputs="gaussian")(ROWS)[0]
    placed = load_policy(in_a_tuple, task=box_task(3), outputs="gaussian=0,log(1)")(ROWS)[0]
    assert torch.equal(named.mean, placed.mean)
    assert torch.equal(named.log_std, placed.log_std)


@pytest.mark.parametrize("offset", [0, 4, 8, 12])
def test_a_function_gets_rows_in_memory_of_one_layout(offset):
    seen = []

    def remembering(observations):
        seen.append((observations.data_ptr() % 64, observations.is_contiguous(), tuple(observations.shape)))
        return observations[:, :3]

    policy = load_policy(remembering, task=vector_task(), outputs="logits")
    memory = np.zeros(40 * 4 + 16, np.float32)
    rows = memory[offset // 4 : offset // 4 + 160].reshape(40, 4)
    policy(rows)
    policy(np.asfortranarray(rows))
    assert set(seen) == {(0, True, (16, 4))}


def test_its_answers_to_fixed_observations_identify_it():
    def twice(observations):
        return 2 * linear(observations)

    hashes = [load_policy(f, task=vector_task(), outputs="logits").hash for f in (linear, lambda x: linear(x), twice)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_where_an_environment_begins_to_count_makes_no_other_program_and_no_other_random_play():
    seen = vector_task().fingerprint
    layout = replace(seen.action_layout, start=(5,))
    counted = replace(vector_task(), fingerprint=replace(seen, action_layout=layout))
    first, second = (load_policy(linear, task=task, outputs="logits").hash for task in (vector_task(), counted))
    assert first == second
    assert RandomPolicy(vector_task()).hash == RandomPolicy(counted).hash


def test_a_function_sees_observations_as_the_environment_gives_them():
    seen = []

    def first_pixels(observations):
        seen.append(observations.dtype)
        return observations[:, 0, 0, :6].float()

    policy = load_policy(first_pixels, task=image_task(), outputs="q_values")
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 84, 84), np.uint8)
    np.testing.assert_array_equal(policy(frames)[0].q_values, frames[:, 0, 0, :6])
    assert set(seen) == {torch.uint8}


def test_a_function_sees_the_only_part_of_an_observation_as_a_vector():
    task = make_task(lambda: Recorder(spaces.Dict(m=spaces.Box(-1.0, 1.0, (2, 3))), spaces.Discrete(3)))
    policy = load_policy(lambda rows: rows[:, 3:], task=task, outputs="logits")
    observations = task.make_envs(2, 1).reset([0, 1], [0, 1])
    np.testing.assert_array_equal(policy(observations)[0].raw, observations["m"][:, 1])


@pytest.mark.parametrize("options", [{}, {"task": vector_task()}, {"outputs": "logits"}])
@pytest.mark.parametrize("source", [linear, nn.Linear(4, 3)], ids=["function", "module"])
def test_neither_says_its_task_or_its_outputs(source, options):
    with pytest.raises(UsageError, match=r"pass task=… and outputs=…, such as outputs='logits': a \w+ says neither\.$"):
        load_policy(source, **options)


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (lambda x: "no", f"Function <lambda> answered a str{NO_TENSORS}"),
        (lambda x: None, f"Function <lambda> answered None{NO_TENSORS}"),
        (lambda x: {"logits": None}, f"Function <lambda> answered a dict{NO_TENSORS}"),
        (
            lambda x: {"logits": linear(x), "state": (1, x)},
            f"Function <lambda> answered a dict with a tuple as 'state'{NO_TENSORS}",
        ),
        (lambda x: np.empty((len(x), 3), object), f"Function <lambda> answered a ndarray{NO_TENSORS}"),
        (lambda x: [linear(x)] * 9, "has 9 outputs: 0 [B, 3], 1 [B, 3], 2 [B, 3], 3 [B, 3], 4 [B, 3], 5 [B, 3], 6 "),
        (lambda x: torch.zeros(len(x), 2), "Function <lambda>: logits=output is [16, 2] for 16 observations, expected"),
        (lambda x: torch.zeros(3), "Function <lambda>: logits=output is [3] for 16 observations, expected [16, 3]"),
        (
            lambda x: torch.zeros(len(x), dtype=torch.int64),
            "Function <lambda>: output 'output' is int64: the actions it has chosen, not scores of all of them. Return "
            "logits that choose them, with A actions: 10.0 * torch.nn.functional.one_hot(torch.as_tensor(chosen), A), "
            "where chosen is [B], int64.",
        ),
        (
            lambda x: torch.zeros(len(x), 3, dtype=torch.complex64),
            "Function <lambda>: output 'output' is complex64, expected real numbers. Return or export their real part.",
        ),
    ],
)
def test_answers_that_are_no_rows_are_refused(answer, line):
    with pytest.raises((MismatchError, PolicyFileError, UsageError)) as caught:
        load_policy(answer, task=vector_task(), outputs="logits")
    assert line in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: linear(x).astype(np.float64),
        lambda x: linear(x).tolist(),
        lambda x: list(linear(x)),
        lambda x: list(torch.from_numpy(linear(x))),
        lambda x: torch.from_numpy(linear(x)).double().requires_grad_(),
    ],
    ids=["float64", "list", "list of arrays", "list of tensors", "with a gradient"],
)
def test_rows_may_come_as_any_kind_of_numbers(answer):
    raw = load_policy(answer, task=vector_task(), outputs="logits")(ROWS)[0].raw
    assert (raw.dtype, raw.requires_grad) == (torch.float32, False)
    np.testing.assert_allclose(raw, linear(ROWS), rtol=1e-5)


def test_logits_that_choose_an_action_are_read_as_the_message_advises():
    def choosing(x):
        chosen = linear(x).argmax(axis=1)
        return 10.0 * torch.nn.functional.one_hot(torch.as_tensor(chosen), 3)

    policy = load_policy(choosing, task=vector_task(), outputs="logits")
    np.testing.assert_array_equal(policy.act(ROWS)[0], linear(ROWS).argmax(axis=1))


@pytest.mark.parametrize("source", [linear, nn.Linear(4, 3)], ids=["function", "module"])
def test_actions_may_be_declared_as_parts_of_the_box(source):
    task = box_task(3, low=0.0, high=10.0)
    parts = load_policy(source, task=task, outputs="actions")(ROWS)[0].actions
    scaled = load_policy(source, task=task, outputs="actions=rescale")(ROWS)[0].actions
    torch.testing.assert_close(scaled, 5 * (parts + 1))


def test_a_modules_file_keeps_that_its_actions_are_parts_of_the_box(tmp_path):
    task, module = box_task(3, low=0.0, high=10.0), nn.Linear(4, 3)
    policy = load_policy(module, task=task, outputs="actions=rescale")
    policy.save(tmp_path / "own.safetensors")
    again = load_policy(tmp_path / "own.safetensors", module=nn.Linear(4, 3))
    assert again.hash == policy.hash
    assert torch.equal(again(ROWS)[0].actions, policy(ROWS)[0].actions)


def takes_nothing():
    """Return what nobody asked for."""


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x @ torch.zeros(5, 3), "RuntimeError: mat1 and mat2 shapes cannot be multiplied (16x4 and 5x3)"),
        (lambda x: x["position"], "IndexError: too many indices for tensor of dimension 2"),
        (lambda x: {}["logits"], "KeyError: 'logits'"),
        (takes_nothing, "TypeError: takes_nothing() takes 0 positional arguments but 1 was given"),
    ],
)
def test_what_a_function_fails_with_is_told_in_one_line(function, said):
    with pytest.raises(MismatchError) as caught:
        load_policy(function, task=vector_task(), outputs="logits")
    assert str(caught.value) == (
        f"Function {function.__name__} failed on observations [16, 4] of float32: {said}. It is called with one batch "
        "[B, …] of its task's observations and nothing else. Was it made for others?"
    )


@pytest.mark.parametrize(
    ("module", "task", "line"),
    [
        (
            nn.Linear(5, 3),
            vector_task(),
            "Module Linear failed on observations [16, 4] of float32: RuntimeError: mat1 and mat2 shapes cannot be "
            "multiplied (16x4 and 5x3). It is called with one batch [B, …] of its task's observations and nothing "
            "else. Was it made for others?",
        ),
        (
            nn.Embedding(4, 3),
            vector_task(),
            "Module Embedding failed on observations [16, 4] of float32: RuntimeError: Expected tensor for argument #1 "
            "'indices' to have one of the following scalar types: Long, Int; but got torch.FloatTensor instead (while "
            "checking arguments for embedding). It is called with one batch [B, …] of its task's observations and "
            "nothing else. Was it made for others?",
        ),
        (
            nn.Linear(4, 2),
            vector_task(),
            "Module Linear: logits=output is [16, 2] for 16 observations, expected [16, 3] (discrete [3]). Was it made "
            "for another task?",
        ),
        (
            nn.Linear(84, 6),
            image_task(),
            "Module Linear: logits=output is [16, 4, 84, 6] for 16 observations, expected [16, 6] (discrete [6]). Was "
            "it made for another task?",
        ),
    ],
)
def test_a_module_that_does_not_fit_its_task_is_refused_when_it_is_loaded(module, task, line):
    with pytest.raises(MismatchError) as caught:
        load_policy(module, task=task, outputs="logits")
    assert str(caught.value) == line


def test_a_module_becomes_a_policy_that_can_be_trained_and_saved(tmp_path):
    module = nn.Linear(4, 3)
    policy = load_policy(module, task=vector_task(), outputs="q_values")
    assert isinstance(policy, TorchPolicy)
    with torch.no_grad():
        torch.testing.assert_close(policy(ROWS)[0].q_values, module(torch.from_numpy(ROWS)))
    policy.save(tmp_path / "p.safetensors")
    other = nn.Linear(4, 3)
    assert load_policy(tmp_path / "p.safetensors", module=other).hash == policy.hash
    assert torch.equal(other.weight, module.weight)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 5e-2)], ids=str
)
def test_a_module_of_other_floats_is_fed_what_it_takes(dtype, tolerance, tmp_path):
    module = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))
    expected = load_policy(module, task=vector_task(), outputs="logits")(ROWS)[0].logits
    policy = load_policy(copy.deepcopy(module).to(dtype), task=vector_task(), outputs="logits")
    logits = policy(ROWS)[0].logits
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, atol=tolerance, rtol=tolerance)
    policy.save(tmp_path / "p.safetensors")
    again = load_policy(tmp_path / "p.safetensors", module=copy.deepcopy(module).to(dtype))
    assert again.hash == policy.hash
    assert torch.equal(again(ROWS)[0].logits, logits)


class Tempered(nn.Module):
    """Layers of float32, and one number of float64 that stands before them."""

    def __init__(self):
        super().__init__()
        self.temperature, self.layer = nn.Parameter(torch.tensor(2.0, dtype=torch.float64)), nn.Linear(4, 3)

    def forward(self, observations):
        return self.layer(observations) / self.temperature


def test_a_module_of_several_floats_is_fed_float32():
    module = Tempered()
    policy = load_policy(module, task=vector_task(), outputs="logits")
    with torch.no_grad():
        torch.testing.assert_close(policy(ROWS)[0].logits, module.layer(torch.from_numpy(ROWS)) / 2)


@pytest.mark.parametrize("is_training", [True, False])
def test_a_module_stays_in_the_mode_that_it_was_in(is_training):
    module = nn.Sequential(nn.Linear(4, 3), nn.Dropout()).train(is_training)
    policy = load_policy(module, task=vector_task(), outputs="logits")
    assert torch.equal(policy(ROWS)[0].raw, policy(ROWS)[0].raw)
    assert [part.training for part in module] == [is_training] * 2


class ActorCritic(nn.Module):
    """Answers logits and a value, packed by a function."""

    def __init__(self, pack=lambda logits, value: (logits, value)):
        super().__init__()
        self.pi, self.v, self.pack = nn.Linear(4, 3), nn.Linear(4, 1), pack

    def forward(self, observations):
        return self.pack(self.pi(observations), self.v(observations).squeeze(1))


class Named(NamedTuple):
    logits: torch.Tensor
    value: torch.Tensor


@pytest.mark.parametrize(
    ("pack", "outputs"),
    [
        (lambda logits, value: (logits, value), "logits=0"),
        (lambda logits, value: [value, logits, None], "logits=1"),
        (lambda logits, value: {"logits": logits, "value": value}, "logits"),
        (lambda logits, value: {"pi": logits, "v": value}, "logits=pi"),
        (Named, "logits"),
    ],
    ids=["tuple", "list", "by the name of a kind", "by name", "named tuple"],
)
def test_of_a_modules_outputs_the_user_chooses_and_the_policy_file_remembers(pack, outputs, tmp_path):
    module = ActorCritic(pack)
    policy = load_policy(module, task=vector_task(), outputs=outputs)
    with torch.no_grad():
        torch.testing.assert_close(policy(ROWS)[0].logits, module.pi(torch.from_numpy(ROWS)))
    policy.save(tmp_path / "p.safetensors")
    again = load_policy(tmp_path / "p.safetensors", module=ActorCritic(pack))
    assert again.hash == policy.hash
    assert torch.equal(again(ROWS)[0].logits, policy(ROWS)[0].logits)


def test_of_a_modules_outputs_one_must_be_chosen_that_is_there():
    with pytest.raises(UsageError) as caught:
        load_policy(ActorCritic(), task=vector_task(), outputs="logits")
    assert str(caught.value) == (
        "Module ActorCritic has 2 outputs: 0 [B, 3], 1 [B]. Say which of them are its logits: --outputs logits=NAME."
    )
    with pytest.raises(MismatchError, match=r"^Module ActorCritic has no output 'pi', only 0 \[B, 3\], 1 \[B\]\.$"):
        load_policy(ActorCritic(), task=vector_task(), outputs="logits=pi")
    with pytest.raises(MismatchError, match=r"logits=1 is \[16\] for 16 observations, expected \[16, 3\]"):
        load_policy(ActorCritic(), task=vector_task(), outputs="logits=1")


def test_a_gaussian_of_a_module_may_come_in_two_outputs():
    module = ActorCritic(lambda logits, value: {"mu": logits, "std": torch.tensor([1.0, 2, 3])})
    output, _ = load_policy(module, task=box_task(3), outputs="gaussian=mu,log(std)")(ROWS[:2])
    torch.testing.assert_close(output.log_std, torch.tensor([[1.0, 2, 3]] * 2).log())


def test_an_output_that_goes_missing_later_is_named():
    module = ActorCritic(lambda logits, value: {"pi": logits, "v": value})
    policy = load_policy(module, task=vector_task(), outputs="logits=pi")
    module.pack = lambda logits, value: {"policy": logits}
    with pytest.raises(MismatchError, match=r"^Module ActorCritic has no output 'pi', only policy \[B, 3\]\.$"):
        policy(ROWS)


def test_a_modules_outputs_must_be_what_the_actions_have():
    for source, what in ((nn.Linear(4, 3), "Module Linear"), (linear, "Function linear")):
        with pytest.raises(MismatchError) as caught:
            load_policy(source, task=vector_task(), outputs="gaussian")
        assert str(caught.value) == (
            f"{what}: its outputs were declared as gaussian, but discrete actions have q_values or logits. Was another "
            "task meant?"
        )
    with pytest.raises(MismatchError, match=r"^Module Linear has no output 'x', only output \[B, 3\]\.$"):
        load_policy(nn.Linear(4, 3), task=vector_task(), outputs="logits=x")


@pytest.mark.parametrize(
    ("layer", "memory"),
    [
        (nn.LSTM(4, 3), "part.weight_ih_l0"),
        (nn.GRU(4, 3, bidirectional=True), "part.weight_ih_l0"),
        (nn.RNN(4, 3), "part.weight_ih_l0"),
        (nn.LSTMCell(4, 3), "part.weight_ih"),
        (nn.GRUCell(4, 3), "part.weight_ih"),
        (nn.utils.parametrizations.weight_norm(nn.RNNCell(4, 3), "weight_hh"), "part.weight_ih"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_module_with_a_memory_is_refused_by_its_name(layer, memory):
    with pytest.raises(UsageError) as caught:
        load_policy(nn.ModuleDict({"part": layer}), task=vector_task(), outputs="logits")
    assert str(caught.value) == (
        f"Module ModuleDict is recurrent: it has {memory}. Let a teacher take and return its state, and say what it is "
        "when an episode begins: load_policy(…, initial_state=torch.zeros(64)). A student with a memory is named: "
        "student='gru:64'."
    )


class Remembering(nn.Module):
    """Its memory is no buffer, so nothing but its answers tells of it."""

    def __init__(self):
        super().__init__()
        self.layer, self.memory = nn.Linear(4, 3), torch.zeros(3)

    def forward(self, observations):
        self.memory = self.memory + self.layer(observations).mean(0)
        return self.layer(observations) + self.memory


class Fading(nn.Module):
    """To zeros it answers zeros for ever."""

    def __init__(self):
        super().__init__()
        self.layer, self.memory = nn.Linear(4, 3, bias=False), torch.zeros(4)

    def forward(self, observations):
        self.memory = 0.9 * self.memory + observations.mean(0)
        return self.layer(self.memory.expand(len(observations), -1))


class Dropping(nn.Module):
    """Drops inputs even when it is not in training, before a layer without a bias."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3, bias=False)

    def forward(self, observations):
        return self.layer(nn.functional.dropout(observations, training=True))


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (Remembering(), "Module Remembering"),
        (Fading(), "Module Fading"),
        (Fading().forward, "Function forward"),
        (Dropping(), "Module Dropping"),
        (Dropping().forward, "Function forward"),
        (lambda x: Remembering.forward(REMEMBERED, x), "Function <lambda>"),
        (lambda x: torch.randn(len(x), 3), "Function <lambda>"),
    ],
    ids=[
        "module",
        "a module without a bias",
        "a function without a bias",
        "a module that drops inputs",
        "a function that drops inputs",
        "function",
        "random",
    ],
)
def test_who_answers_the_same_observations_differently_remembers_or_draws_and_is_refused(source, what):
    with pytest.raises(MismatchError) as caught:
        load_policy(source, task=vector_task(), outputs="logits")
    assert str(caught.value) == (
        f"{what} answers the same observations differently when it is asked again: it remembers, or draws random "
        "numbers. Let it take and return what it remembers; actions are drawn from what a policy answers."
    )


REMEMBERED = Remembering()


class Writing(nn.Module):
    """Writes into its input."""

    def forward(self, observations):
        observations -= 1
        return observations[:, :3]


@pytest.mark.parametrize("source", [Writing(), Writing().forward], ids=["module", "function"])
def test_observations_are_left_as_they_were_whatever_is_done_to_them(source):
    rows = ROWS[:32].copy()
    raw = load_policy(source, task=vector_task(), outputs="logits")(rows)[0].raw
    np.testing.assert_array_equal(rows, ROWS[:32])
    np.testing.assert_allclose(raw, ROWS[:32, :3] - 1)


def test_anything_else_is_refused():
    with pytest.raises(UsageError, match=r"got a int, expected a path, an nn\.Module, or a function of observations"):
        load_policy(3)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_a_module_with_a_weight_that_is_no_number_is_refused(value, dtype):
    module = nn.Linear(4, 3).to(dtype)
    module.bias.data[1] = float(value)
    with pytest.raises(NumericalError) as caught:
        load_policy(module, task=vector_task(), outputs="logits")
    assert str(caught.value) == "Module Linear: weight bias holds NaN or infinity. Its training diverged."


class Masked(nn.Linear):
    """Weighs its inputs by a softmax over those that a mask of -∞ leaves, within bounds that bound nothing."""

    def __init__(self):
        super().__init__(4, 3)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf, 0.0, 0.0]))
        self.register_buffer("most", torch.full((4,), torch.inf))

    def forward(self, rows):
        return super().forward(rows.minimum(self.most) * (rows + self.mask).softmax(1))


def test_buffers_of_a_module_may_be_infinite_also_in_files(tmp_path):
    said = {"task": vector_task(), "outputs": "logits"}
    policy = load_policy(Masked(), **said)
    policy.save(tmp_path / "own.safetensors")
    torch.save(
        {f"module.{name}": tensor for name, tensor in policy.network.module.state_dict().items()}, tmp_path / "w"
    )
    rows = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    for again in (
        load_policy(tmp_path / "own.safetensors", module=Masked()),
        load_policy(tmp_path / "w", module=Masked(), **said),
    ):
        assert torch.equal(again.network.module.mask, Masked().mask)
        assert torch.equal(again(rows)[0].logits, policy(rows)[0].logits)


@pytest.mark.parametrize(("name", "value"), [("mask", torch.nan), ("bias", -torch.inf)])
def test_nan_in_a_buffer_and_infinity_in_a_parameter_are_neither_loaded_nor_saved(name, value, tmp_path):
    said = {"task": vector_task(), "outputs": "logits"}
    policy = load_policy(Masked(), **said)
    policy.network.module.state_dict()[name][1] = value
    with pytest.raises(NumericalError, match=rf"weight module\.{name} holds NaN or infinity in float32\."):
        policy.save(tmp_path / "own.safetensors")
    (tmp_path / "own.safetensors").write_bytes(pack_policy(policy.spec.to_dict(), policy.stored_weights()))
    with pytest.raises(PolicyFileError, match=rf"weight module\.{name} holds NaN or infinity\."):
        load_policy(tmp_path / "own.safetensors", module=Masked())
    torch.save(policy.network.module.state_dict(), tmp_path / "w")
    with pytest.raises(PolicyFileError, match=rf"tensor {name} holds NaN or infinity\."):
        load_policy(tmp_path / "w", module=Masked(), **said)
    with pytest.raises(NumericalError, match=rf"weight {name} holds NaN or infinity\."):
        load_policy(policy.network.module, **said)


def test_a_number_of_a_buffer_that_would_become_infinite_is_refused(tmp_path):
    said = {"task": vector_task(), "outputs": "logits"}
    large, module = Masked(), Masked()
    large.most = torch.full((4,), 1e300, dtype=torch.float64)
    torch.save(large.state_dict(), tmp_path / "w")
    with pytest.raises(PolicyFileError, match="tensor most holds numbers beyond the range of float32"):
        load_policy(tmp_path / "w", module=Masked(), **said)
    module.most = torch.full((4,), 1e5)
    policy = load_policy(module, **said).with_spec(weights_dtype="float16")
    with pytest.raises(NumericalError, match=r"weight module\.most holds NaN or infinity in float16"):
        policy.save(tmp_path / "p.safetensors")


@pytest.mark.parametrize(
    ("weight", "kind"),
    [
        (torch.zeros(3).to(torch.float8_e4m3fn), "float8_e4m3fn of layout strided on cpu"),
        (torch.eye(3).to_sparse(), "float32 of layout sparse_coo on cpu"),
    ],
    ids=["float8", "sparse"],
)
def test_a_module_with_weights_that_nothing_computes_with_is_refused(weight, kind):
    module = nn.Linear(4, 3)
    module.scale = nn.Parameter(weight, requires_grad=False)
    with pytest.raises(NumericalError) as caught:
        load_policy(module, task=vector_task(), outputs="logits")
    assert str(caught.value) == (
        f"Module Linear: weight scale is {kind}, expected dense float64, float32, float16 or bfloat16, or integers. "
        "Convert it before you pass it."
    )


class Counting(nn.Linear):
    """Keeps more than tensors in its state dict."""

    def get_extra_state(self):
        return {"calls": 1}

    def set_extra_state(self, state):
        """Leave it."""


def test_a_module_that_keeps_more_than_tensors_is_refused_and_its_forward_is_a_function(tmp_path):
    module, path = Counting(4, 3), tmp_path / "weights.pt"
    torch.save(nn.Linear(4, 3).state_dict(), path)
    for source, said in ((module, {}), (path, {"module": module})):
        with pytest.raises(UsageError) as caught:
            load_policy(source, task=vector_task(), outputs="logits", **said)
        assert str(caught.value) == (
            "Module Counting keeps a dict under '_extra_state' beside its weights, which no policy file can. Leave out "
            "its get_extra_state, or, of a teacher, pass its forward, a function."
        )
    load_policy(module.forward, task=vector_task(), outputs="logits")


def test_a_module_whose_weights_have_no_shape_does_not_take_those_of_a_file(tmp_path):
    torch.save(nn.Linear(4, 3).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(UsageError) as caught:
        load_policy(tmp_path / "weights.pt", module=nn.LazyLinear(3), task=vector_task(), outputs="logits")
    assert str(caught.value) == (
        "Module LazyLinear: weight weight has no shape yet. Call the module on a batch of observations before you "
        "pass it."
    )


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (torch.Tensor.to_sparse, "float32 of layout sparse_coo on cpu"),
        (torch.Tensor.to_sparse_csr, "float32 of layout sparse_csr on cpu"),
        (lambda rows: torch.quantize_per_tensor(rows, 0.1, 0, torch.qint8), "qint8 of layout strided on cpu"),
        (lambda rows: rows.to("meta"), "float32 of layout strided on meta"),
        (lambda rows: torch.nested.nested_tensor(list(rows)), "nested float32 of layout strided on cpu"),
    ],
    ids=["sparse", "compressed", "quantised", "without values", "nested"],
)
@pytest.mark.filterwarnings("ignore")  # torch says of some kinds that they are beta
def test_answers_that_are_not_dense_are_refused(change, kind):
    with pytest.raises(MismatchError) as caught:
        load_policy(lambda x: change(torch.from_numpy(linear(x))), task=vector_task(), outputs="logits")
    assert str(caught.value) == (
        f"Function <lambda> answered {kind} as 'output', expected dense numbers. Return them by to_dense() or "
        "dequantize()."
    )


@pytest.mark.parametrize("module", [nn.LazyLinear(3), nn.Linear(4, 3, device="meta")], ids=["lazy", "meta"])
def test_a_module_whose_weights_have_no_values_is_refused(module):
    with pytest.raises(NumericalError) as caught:
        load_policy(module, task=vector_task(), outputs="logits")
    assert str(caught.value) == (
        f"Module {type(module).__name__}: weight weight has no values yet. Load its weights before you pass it."
    )


NO_NUMBERS = (
    "Policy {name!r} answered logits [{answer}, 0, 1] to an observation, expected finite numbers. The observation is "
    "finite, so the policy makes them: by an overflow, a division by zero, or a mask of -inf, for which -1e9 does as "
    "well. Check the policy."
)


@pytest.mark.parametrize("answer", ["nan", "inf", "-inf"])
def test_answers_that_are_no_finite_numbers_are_the_policys(answer):
    # For one observation only: the others, and the zeros of loading, are answered.
    def answered(observations):
        rows = torch.tensor([1.0, 0, 1]).repeat(len(observations), 1)
        rows[observations[:, 0] == 7, 0] = float(answer)
        return rows

    class Answering(nn.Module):
        def forward(self, observations):
            return answered(observations)

    rows = ROWS.copy()
    rows[20, 0] = 7
    for source, name in ((answered, "answered"), (Answering(), "Answering")):
        policy = load_policy(source, task=vector_task(), outputs="logits")
        with pytest.raises(NumericalError) as caught:
            policy(rows)
        assert str(caught.value) == NO_NUMBERS.format(name=name, answer=answer)


# Memory


class Cell(nn.Module):
    """A GRU above a scaled observation, which takes and returns its state."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.cell, self.output = nn.GRUCell(4, 5, dtype=dtype), nn.Linear(5, 3, dtype=dtype)
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)

    def forward(self, rows, state):
        state = self.cell(rows, state)
        return self.output(state), state


def two_parts(rows, state):
    """Score by the last observation and by how many there were."""
    last, count = state
    return (last + count, count), (rows[:, :3], count + 1)


def sequence():
    rows = np.random.default_rng(0).normal(size=(6, 3, 4)).astype(np.float32)
    starts = np.zeros((6, 3), bool)
    starts[0], starts[2, 1], starts[4, :2] = True, True, True
    return rows, starts


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_module_that_takes_and_returns_a_state_remembers(dtype):
    (rows, starts), module, state, outputs = sequence(), Cell(dtype), torch.zeros(3, 5, dtype=dtype), []
    with torch.no_grad():
        for seen, begins in zip(rows, starts, strict=True):
            state = torch.where(torch.from_numpy(begins)[:, None], 0.0, state)
            answer, state = module(torch.from_numpy(seen).to(dtype), state)
            outputs.append(answer.numpy())
    said = {"task": vector_task(), "outputs": "logits", "initial_state": torch.zeros(5)}
    reference = Reference(rows, np.stack(outputs), starts=starts)
    check_policy(lambda: load_policy(Cell(dtype), **said), reference=reference)

    def function(rows, state):
        answer, state = module(rows.to(dtype), state.to(dtype))
        return answer.float(), state.float()

    check_policy(lambda: load_policy(function, **said), reference=reference)


def test_a_function_may_remember_several_parts_which_need_not_begin_at_zero():
    (rows, starts), last, outputs = sequence(), np.zeros((3, 3)), []
    count = np.zeros((3, 1))
    for seen, begins in zip(rows, starts, strict=True):
        last, count = np.where(begins[:, None], 0, last), np.where(begins[:, None], 2, count)
        outputs.append(last + count)
        last, count = seen[:, :3], count + 1
    check_policy(
        lambda: load_policy(
            two_parts, task=vector_task(), outputs="logits=0", initial_state=(torch.zeros(3), np.full(1, 2.0))
        ),
        reference=Reference(rows, np.stack(outputs), starts=starts),
    )


def test_functions_that_differ_in_what_they_remember_alone_are_different_policies():
    said = {"task": vector_task(), "outputs": "logits", "initial_state": torch.zeros(3)}
    first, second = (
        load_policy(lambda rows, state, step=step: (state + rows[:, :3], state + step), **said).hash for step in (1, 2)
    )
    assert first != second


def test_the_file_of_a_module_with_a_memory_loads_with_its_module(tmp_path):
    policy = load_policy(Cell(), task=vector_task(), outputs="logits", initial_state=torch.full((5,), 0.5))
    policy.save(tmp_path / "policy.safetensors")
    loaded = load_policy(tmp_path / "policy.safetensors", module=Cell())
    assert loaded.hash == policy.hash
    assert loaded.initial_state(2)[0].tolist() == [[0.5] * 5] * 2


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (
            lambda rows, state: rows[:, :3],
            r"^Function <lambda> answered a Tensor, expected two values, \(outputs, state\)",
        ),
        (
            lambda rows, state: (rows[:, :3], torch.cat([state, state], 1)),
            r"^Function <lambda> was given a state of shapes \[\[16, 5\]\] and answered one of \[\[16, 10\]\], ",
        ),
        (
            lambda rows, state: (rows[:, :3], (state, state)),
            r"and answered one of \[\[16, 5\], \[16, 5\]\], expected the",
        ),
        (
            lambda rows, state: (rows[:, :3], None),
            r"^Function <lambda> answered a NoneType as its state, expected tensors",
        ),
        (
            lambda rows: rows[:, :3],
            r"^Function <lambda> failed .* TypeError: .* observations and what it remembers of them",
        ),
        (nn.Linear(4, 3), r"^Module Linear failed"),
    ],
)
def test_what_returns_no_state_of_the_same_shape_is_refused_in_one_line(source, line):
    with pytest.raises(MismatchError, match=line) as caught:
        load_policy(source, task=vector_task(), outputs="logits", initial_state=torch.zeros(5))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "initial", [64, "zeros", (), torch.zeros(3, dtype=torch.long), torch.full((2,), torch.nan), torch.zeros(0)]
)
def test_an_initial_state_is_made_of_floats(initial):
    with pytest.raises(UsageError, match=r"^load_policy: got initial_state=.*, expected what is remembered of one env"):
        load_policy(Cell(), task=vector_task(), outputs="logits", initial_state=initial)


def test_files_take_no_initial_state(tmp_path):
    with pytest.raises(UsageError, match="initial_state belongs with a module or a function: files say theirs"):
        load_policy(tmp_path / "policy.pt", task=vector_task(), outputs="logits", initial_state=torch.zeros(5))
