"""Python functions and modules as policies: declared, checked once, never copied."""

import numpy as np
import pytest
import torch
from torch import nn

from rldistill.adapters.load import load_policy
from rldistill.errors import MismatchError, NumericalError, PolicyFileError, UsageError
from rldistill.policies import TorchPolicy
from tests.kit.small_policies import box_task, image_task, vector_task

WEIGHT = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
ROWS = np.random.default_rng(1).normal(size=(40, 4)).astype(np.float32)


def linear(observations):
    """Return scores as an array: functions need not know torch."""
    return np.asarray(observations) @ WEIGHT


def test_a_function_is_a_policy():
    policy = load_policy(linear, task=vector_task(), outputs="logits", behaviour="sample")
    np.testing.assert_allclose(policy(ROWS)[0].logits, linear(ROWS), rtol=1e-5)
    assert (policy.name, policy.behaviour) == ("linear", "sample")
    assert policy.act(ROWS, rng=np.random.default_rng(0))[0].shape == (40,)


def test_a_function_may_answer_by_name_or_in_a_tuple():
    def by_name(observations):
        return {"mean": linear(observations), "log_std": np.zeros(3), "value": np.zeros(len(observations))}

    def in_a_tuple(observations):
        return linear(observations), torch.ones(len(observations), 3)

    named = load_policy(by_name, task=box_task(3), outputs="gaussian")(ROWS)[0]
    placed = load_policy(in_a_tuple, task=box_task(3), outputs="gaussian=0,log(1)")(ROWS)[0]
    assert torch.equal(named.mean, placed.mean)
    assert torch.equal(named.log_std, placed.log_std)


def test_its_answers_to_fixed_observations_identify_it():
    def twice(observations):
        return 2 * linear(observations)

    hashes = [load_policy(f, task=vector_task(), outputs="logits").hash for f in (linear, lambda x: linear(x), twice)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_function_sees_observations_as_the_environment_gives_them():
    seen = []

    def first_pixels(observations):
        seen.append(observations.dtype)
        return observations[:, 0, 0, :6].float()

    policy = load_policy(first_pixels, task=image_task(), outputs="q_values")
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 84, 84), np.uint8)
    np.testing.assert_array_equal(policy(frames)[0].q_values, frames[:, 0, 0, :6])
    assert set(seen) == {torch.uint8}


@pytest.mark.parametrize("options", [{}, {"task": vector_task()}, {"outputs": "logits"}])
@pytest.mark.parametrize("source", [linear, nn.Linear(4, 3)], ids=["function", "module"])
def test_neither_says_its_task_or_its_outputs(source, options):
    with pytest.raises(UsageError, match=r"pass task=… and outputs=…, such as outputs='logits': a \w+ says neither\.$"):
        load_policy(source, **options)


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (lambda x: "no", "Function <lambda> answered str, expected a tensor, or several in a tuple or by name."),
        (lambda x: torch.zeros(len(x), 2), "Function <lambda>: logits=output is [16, 2] for 16 observations, expected"),
        (lambda x: torch.zeros(3), "Function <lambda>: logits=output is [3] for 16 observations, expected [16, 3]"),
        (lambda x: torch.zeros(len(x), 3, dtype=torch.int64), "output 'output' is int64: the actions it has chosen"),
    ],
)
def test_answers_that_are_no_rows_are_refused(answer, line):
    with pytest.raises((MismatchError, PolicyFileError)) as caught:
        load_policy(answer, task=vector_task(), outputs="logits")
    assert line in str(caught.value)


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


def test_a_modules_outputs_must_be_what_the_actions_have():
    with pytest.raises(MismatchError, match="declared as gaussian, but discrete actions have q_values or logits"):
        load_policy(nn.Linear(4, 3), task=vector_task(), outputs="gaussian")
    with pytest.raises(UsageError, match=r"names outputs; a module returns one tensor \[B, O\]\.$"):
        load_policy(nn.Linear(4, 3), task=vector_task(), outputs="logits=x")


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


def test_a_mask_of_a_module_may_be_infinite_but_no_statistic():
    module = nn.Linear(4, 3)
    module.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    load_policy(module, task=vector_task(), outputs="logits")
    module.register_buffer("variance", torch.tensor([1.0, torch.inf]))
    with pytest.raises(NumericalError, match=r"weight variance holds NaN or infinity\."):
        load_policy(module, task=vector_task(), outputs="logits")


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
