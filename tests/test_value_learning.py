"""Targets against hand-worked values, the limits of Q(λ), and the walls between episodes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rldistill.value_learning import n_step_returns, q_lambda_returns, q_learning_targets


def column(*values):
    """Return one environment's values over time, `[T, 1]`."""
    return torch.tensor(values).unsqueeze(1)


def rollout(seed, num_steps=7, num_envs=3):
    generator = torch.Generator().manual_seed(seed)
    rewards, next_values = torch.randn(2, num_steps, num_envs, generator=generator, dtype=torch.float64)
    is_terminated = torch.rand(num_steps, num_envs, generator=generator) < 0.2
    return rewards, torch.where(is_terminated, 0.0, 0.9).double(), next_values


@pytest.mark.parametrize(
    ("discounts", "truncated", "expected"),
    [
        # Backwards: 3 + ½·40 = 23;  2 + ½(½·23 + ½·20) = 12.75;  1 + ½(½·12.75 + ½·10) = 6.6875
        ((0.5, 0.5, 0.5), None, (6.6875, 12.75, 23.0)),
        # Terminated at step 1: 2 alone, then 1 + ½(½·2 + ½·10) = 4
        ((0.5, 0.0, 0.5), None, (4.0, 2.0, 23.0)),
        # Truncated at step 1: 2 + ½·20 = 12, then 1 + ½(½·12 + ½·10) = 6.5
        ((0.5, 0.5, 0.5), (False, True, False), (6.5, 12.0, 23.0)),
        # Terminated and truncated at once: terminated counts
        ((0.5, 0.0, 0.5), (False, True, False), (4.0, 2.0, 23.0)),
        # Truncated at the last step: as ever
        ((0.5, 0.5, 0.5), (False, False, True), (6.6875, 12.75, 23.0)),
    ],
)
def test_returns_match_hand_worked_values(discounts, truncated, expected):
    returns = q_lambda_returns(
        column(1.0, 2.0, 3.0),
        column(*discounts),
        column(10.0, 20.0, 40.0),
        lambda_=0.5,
        truncated=None if truncated is None else column(*truncated),
    )
    assert returns.squeeze(1).tolist() == list(expected)


def test_a_nan_behind_an_end_leaks_into_no_return():
    rewards, discounts = torch.ones(2, 1), torch.tensor([[0.0], [1.0]])
    returns = q_lambda_returns(rewards, discounts, torch.tensor([[float("nan")], [2.0]]), lambda_=0.5)
    assert returns.tolist() == [[1.0], [3.0]]


def test_lambda_0_gives_one_step_targets():
    rewards, discounts, next_values = rollout(0)
    expected = rewards + discounts * next_values
    torch.testing.assert_close(q_lambda_returns(rewards, discounts, next_values, lambda_=0.0), expected)


def test_lambda_1_gives_the_discounted_sum_of_rewards_and_the_last_value():
    rewards, next_values = rollout(0)[0], rollout(0)[2]
    powers = 0.9 ** torch.arange(7, dtype=torch.float64).unsqueeze(1)
    first = (powers * rewards).sum(dim=0) + 0.9**7 * next_values[-1]
    returns = q_lambda_returns(rewards, torch.full_like(rewards, 0.9), next_values, lambda_=1.0)
    torch.testing.assert_close(returns[0], first)


def test_exact_values_are_a_fixed_point_for_every_lambda():
    # A reward of 1 for ever is worth 1 ÷ (1 - 0.9) = 10 from every state.
    ones = torch.ones(6, 2, dtype=torch.float64)
    for lambda_ in (0.0, 0.65, 1.0):
        torch.testing.assert_close(q_lambda_returns(ones, 0.9 * ones, 10 * ones, lambda_=lambda_), 10 * ones)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), lambda_=st.floats(0, 1))
def test_returns_equal_the_temporal_difference_form(seed, lambda_):
    # As purejaxql writes it: r + γ v + γ λ (G' - v).
    rewards, discounts, next_values = rollout(seed)
    expected, following = torch.empty_like(rewards), next_values[-1]
    for t in reversed(range(len(rewards))):
        following = rewards[t] + discounts[t] * (next_values[t] + lambda_ * (following - next_values[t]))
        expected[t] = following
    torch.testing.assert_close(q_lambda_returns(rewards, discounts, next_values, lambda_=lambda_), expected)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), cut=st.integers(0, 5))
def test_truncation_splits_a_rollout_into_two_that_know_nothing_of_each_other(seed, cut):
    parts = rollout(seed)
    truncated = torch.zeros(7, 3, dtype=torch.bool)
    truncated[cut] = True
    whole = q_lambda_returns(*parts, lambda_=0.65, truncated=truncated)
    before = q_lambda_returns(*(part[: cut + 1] for part in parts), lambda_=0.65)
    after = q_lambda_returns(*(part[cut + 1 :] for part in parts), lambda_=0.65)
    assert torch.equal(whole, torch.cat([before, after]))


def test_not_even_a_nan_crosses_a_truncation():
    rewards = column(1.0, float("nan"))
    returns = q_lambda_returns(
        rewards, column(0.9, 0.9), column(10.0, 0.0), lambda_=0.65, truncated=column(True, False)
    )
    assert returns[0].item() == 10.0


def test_environments_do_not_mix():
    parts = rollout(1)
    returns = q_lambda_returns(*parts, lambda_=0.65)
    for env in range(3):
        alone = q_lambda_returns(*(part[:, env : env + 1] for part in parts), lambda_=0.65)
        assert torch.equal(returns[:, env : env + 1], alone)


def test_returns_carry_no_gradient():
    rewards, discounts, next_values = (part.requires_grad_() for part in rollout(0))
    assert not q_lambda_returns(rewards, discounts, next_values, lambda_=0.65).requires_grad


def test_inputs_are_left_as_they_are():
    parts = rollout(0)
    copies = [part.clone() for part in parts]
    q_lambda_returns(*parts, lambda_=0.65)
    assert all(torch.equal(part, copy) for part, copy in zip(parts, copies, strict=True))


@pytest.mark.parametrize("lambda_", [-0.1, 1.1, float("nan")])
def test_lambda_out_of_range_is_named(lambda_):
    with pytest.raises(ValueError, match=rf"^lambda_ must be in \[0, 1\], got {lambda_}\.$"):
        q_lambda_returns(*rollout(0), lambda_=lambda_)


def test_shapes_that_differ_are_named():
    message = (
        r"^next_values must be \[T, N\], got rewards \[7, 3\], discounts \[7, 3\], next_values \[8, 3\], "
        r"truncated \[7, 3\]\.$"
    )
    with pytest.raises(ValueError, match=message):
        q_lambda_returns(torch.zeros(7, 3), torch.zeros(7, 3), torch.zeros(8, 3), lambda_=0.65)


# Windows of n steps


@pytest.mark.parametrize(
    ("rewards", "discounts", "expected"),
    [
        ((3.0,), (0.5,), (3.0, 0.5)),
        ((1.0, 2.0, 4.0), (0.5, 0.5, 0.5), (1 + 1 + 1, 0.125)),  # 1 + ½·2 + ¼·4
        ((1.0, 2.0, 4.0), (0.5, 0.0, 0.5), (1 + 1, 0.0)),  # ended, or a life lost, at the second step
        ((1.0, 2.0, 4.0), (0.0, 0.0, 0.5), (1.0, 0.0)),
        ((1.0, 2.0, 0.0), (0.5, 0.5, 1.0), (2.0, 0.25)),  # cut off after the second step: filled with 0 and 1
    ],
)
def test_n_step_returns_match_hand_worked_values(rewards, discounts, expected):
    returns, factors = n_step_returns(column(*rewards), column(*discounts))
    assert (returns.item(), factors.item()) == expected


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31))
def test_n_step_returns_with_a_last_value_are_the_lambda_returns_of_lambda_1(seed):
    rewards, discounts, next_values = rollout(seed)
    returns, factors = n_step_returns(rewards, discounts)
    expected = q_lambda_returns(rewards, discounts, next_values, lambda_=1.0)[0]
    torch.testing.assert_close(returns + factors * next_values[-1], expected)


def test_n_step_returns_name_shapes_that_differ():
    with pytest.raises(ValueError, match=r"^discounts must be \[T, B\], got rewards \[3, 2\], discounts \[2, 2\]\.$"):
        n_step_returns(torch.zeros(3, 2), torch.zeros(2, 2))


# Targets of DQN


NEXT_Q_VALUES = torch.tensor([[1.0, 4.0, 2.0], [10.0, 20.0, 30.0]])


def test_q_learning_takes_the_best_next_value():
    # 1 + ½·4 and 2 + 0·30
    targets = q_learning_targets(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.0]), NEXT_Q_VALUES)
    assert targets.tolist() == [3.0, 2.0]


def test_double_q_learning_takes_the_value_of_the_action_that_the_other_network_prefers():
    selector = torch.tensor([[0.0, 0.0, 1.0], [7.0, 5.0, 6.0]])
    # 1 + ½·2 and 2 + ½·10
    targets = q_learning_targets(
        torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.5]), NEXT_Q_VALUES, selector_q_values=selector
    )
    assert targets.tolist() == [2.0, 7.0]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31))
def test_double_q_is_never_above_q_and_equal_to_it_where_both_networks_agree(seed):
    generator = torch.Generator().manual_seed(seed)
    next_q_values, selector = torch.randn(2, 5, 4, generator=generator)
    rewards, discounts = torch.zeros(5), torch.full((5,), 0.9)
    single = q_learning_targets(rewards, discounts, next_q_values)
    assert (q_learning_targets(rewards, discounts, next_q_values, selector_q_values=selector) <= single).all()
    assert torch.equal(
        q_learning_targets(rewards, discounts, next_q_values, selector_q_values=3 * next_q_values + 1), single
    )


def test_a_value_that_is_no_number_does_not_outlive_its_episode():
    targets = q_learning_targets(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([[float("nan"), 1.0]]))
    assert targets.tolist() == [1.0]


def test_q_learning_targets_carry_no_gradient():
    rewards, discounts, next_q_values = (torch.ones(shape, requires_grad=True) for shape in (2, 2, (2, 3)))
    assert not q_learning_targets(rewards, discounts, next_q_values).requires_grad


def test_q_learning_targets_name_shapes_that_differ():
    with pytest.raises(ValueError, match=r"^selector_q_values must be \[B, A\], got next_q_values \[2, 3\], "):
        q_learning_targets(torch.zeros(2), torch.zeros(2), torch.zeros(2, 3), selector_q_values=torch.zeros(2, 4))
