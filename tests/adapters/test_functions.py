"""Python functions and modules as policies: declared, checked once, never copied."""

import numpy as np
import pytest
import torch
from torch import nn

from rldistill.adapters.load import load_policy
from rldistill.errors import MismatchError, PolicyFileError, UsageError
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
