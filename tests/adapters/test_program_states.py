"""Programs that take and give a state: it begins with every episode, and belongs to one environment."""

import numpy as np
import pytest
import torch

from rldistill.adapters.program import Program, ProgramPolicy, ProgramState
from rldistill.errors import MismatchError
from tests.kit.small_policies import vector_task


def adding(rows, total):
    """Score by all that was observed so far."""
    return {"logits": total + rows[:, :3], "total": total + rows[:, :3]}


def policy_of(run, *, batch_size=16):
    states = (ProgramState("total", torch.ones(3)),)
    program = Program("sum", "Function sum", "python", run, batch_size=batch_size, states=states)
    return ProgramPolicy.create(program, vector_task(), outputs="logits")


@pytest.mark.parametrize("batch_size", [1, 16])
def test_each_environment_has_its_own_state_which_begins_as_the_program_says(batch_size):
    policy = policy_of(adding, batch_size=batch_size)
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    _, state = policy(rows)
    output, (total,) = policy(rows, state)
    np.testing.assert_array_equal(output.raw, 1 + 2 * rows[:, :3])
    np.testing.assert_array_equal(total, output.raw)
    np.testing.assert_array_equal(policy(rows, policy.initial_state(2))[0].raw, 1 + rows[:, :3])


@pytest.mark.parametrize("num_envs", [1, 3])
def test_a_state_of_other_environments_is_refused(num_envs):
    policy, rows = policy_of(adding), np.ones((2, 4), np.float32)
    for call in (policy, lambda rows, state: policy.act(rows, state=state)):
        with pytest.raises(
            MismatchError, match=rf"^Policy 'sum' got 2 observations and the state \[\[{num_envs}, 3\]\]"
        ):
            call(rows, policy.initial_state(num_envs))


def test_what_is_done_to_a_state_reaches_no_other_episode():
    def spoiling(rows, total):
        answers = adding(rows, total.clone())
        total.fill_(np.nan)
        return answers

    policy, rows = policy_of(spoiling), np.ones((1, 4), np.float32)
    _, state = policy(rows)
    assert policy(rows, state)[0].raw.tolist() == policy(rows, state)[0].raw.tolist() == [[3.0, 3.0, 3.0]]


@pytest.mark.parametrize(
    ("total", "got"), [(lambda total: torch.cat([total, total], 1), r"\[6\]"), (lambda total: None, "nothing")]
)
def test_a_state_that_grows_or_is_missing_is_told_in_a_line(total, got):
    def growing(rows, before):
        answers = {"logits": rows[:, :3], "total": total(before)}
        return {name: answer for name, answer in answers.items() if answer is not None}

    with pytest.raises(MismatchError, match=rf"^Function sum is to give its next state total as \[3\] .* gave {got}\."):
        policy_of(growing)
