"""Tasks balanced by the norms of their gradients on what they share."""

import pytest
import torch

from rldistill.distillation.balance import GradientBalance


def balanced(*scales: float, shares: tuple[float, ...], num_batches: int = 1):
    """Return the shared weight's gradient from losses that are a scale times it, and the balance."""
    weight = torch.ones(4, requires_grad=True)
    balance = GradientBalance([weight], list(range(len(scales))))
    for _ in range(num_batches):
        weight.grad = None
        balance.backward([scale * weight.sum() for scale in scales], shares, list(range(len(scales))))
    return weight.grad, balance


def test_losses_of_different_scales_have_gradients_of_their_mean_norm():
    # Gradients of norm 2 · 1 and 2 · 9: the mean is 10, so each element is 5 from each task, of which half counts.
    gradient, balance = balanced(1, 9, shares=(0.5, 0.5), num_batches=2)
    assert [balance.weight(head) for head in (0, 1)] == pytest.approx([5, 5 / 9])
    torch.testing.assert_close(gradient, torch.full((4,), 5.0))


def test_nothing_is_weighted_before_every_task_was_met():
    gradient, balance = balanced(1, 9, shares=(0.25, 0.75))
    torch.testing.assert_close(gradient, torch.full((4,), 0.25 + 6.75))
    alone = GradientBalance([torch.ones(1)], [0, 1])
    assert alone.weight(0) == 1
    assert balance.weight(0) == pytest.approx(5)


def test_a_task_without_a_gradient_was_not_met():
    _, balance = balanced(0, 3, shares=(0.5, 0.5))
    assert balance.weight(0) == balance.weight(1) == 1


def test_a_state_goes_on():
    _, balance = balanced(1, 3, shares=(0.5, 0.5), num_batches=3)
    again = GradientBalance([torch.ones(1)], [0, 1])
    again.load_state_dict(balance.state_dict())
    assert again.weight(1) == balance.weight(1) == pytest.approx(2 / 3)
    assert again.state_dict() == balance.state_dict()


def test_a_state_of_an_earlier_build_counts_as_one_of_many_norms():
    weight = torch.ones(4, requires_grad=True)
    balance = GradientBalance([weight], [0, 1])
    balance.load_state_dict({"norms": {0: 2.0, 1: 6.0}})
    assert [balance.weight(head) for head in (0, 1)] == [2, pytest.approx(2 / 3)]
    balance.backward([weight.sum(), weight.sum()], (0.5, 0.5), (0, 1))
    assert balance.state_dict()["norms"] == pytest.approx({0: 2.0, 1: 0.98 * 6 + 0.02 * 2})


def test_norms_are_averaged_with_weights_that_fall_by_age_and_without_those_of_heads_that_begin_at_zero():
    weight = torch.ones(4, requires_grad=True)
    balance = GradientBalance([weight], [0, 1])
    for scale in (0.0, 1.0, 3.0):
        weight.grad = None
        balance.backward([scale * weight.sum(), weight.sum()], (0.5, 0.5), (0, 1))
    # Of 2 · 1 and 2 · 3.
    assert balance.state_dict()["norms"] == pytest.approx({0: (0.98 * 2 + 6) / (0.98 + 1), 1: 2.0})
