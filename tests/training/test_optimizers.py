"""RMSProp with ε under the root against its formula, and a mean over a batch against the sum it stands for."""

import pytest
import torch

from rldistill.errors import UsageError
from rldistill.training.dqn import CentredRMSProp, make_optimizer


def parameter(*values):
    return torch.nn.Parameter(torch.tensor(values))


def step_with(optimizer, weight, gradient):
    weight.grad = torch.tensor(gradient)
    optimizer.step()


def test_the_first_step_worked_by_hand():
    weight = parameter(1.0, 1.0)
    step_with(CentredRMSProp([weight], learning_rate=0.1, decay=0.95, epsilon=0.01), weight, [-1.0, 2.0])
    # mean 0.05 g, mean square 0.05 g²: variance 0.0475 g². 1 + 0.1 ÷ √0.0575 and 1 − 0.2 ÷ √0.2
    assert weight.tolist() == pytest.approx([1.417029, 0.552786], abs=1e-6)


def test_many_steps_follow_the_formula():
    weight, expected = parameter(0.0), 0.0
    optimizer = CentredRMSProp([weight], learning_rate=0.05, decay=0.9, epsilon=0.02)
    mean = mean_square = 0.0
    for gradient in torch.randn(20, generator=torch.Generator().manual_seed(0)).tolist():
        step_with(optimizer, weight, [gradient])
        mean, mean_square = 0.9 * mean + 0.1 * gradient, 0.9 * mean_square + 0.1 * gradient**2
        expected -= 0.05 * gradient / (mean_square - mean**2 + 0.02) ** 0.5
    assert weight.item() == pytest.approx(expected, abs=1e-5)


def test_a_constant_gradient_leaves_a_variance_of_nothing_and_not_below():
    weight = parameter(0.0)
    optimizer = CentredRMSProp([weight], learning_rate=1.0, decay=0.95, epsilon=1e-10)
    for _ in range(1000):
        step_with(optimizer, weight, [1234.5678])
    assert torch.isfinite(weight).all()


def test_a_parameter_without_a_gradient_stays():
    weight, other = parameter(1.0), parameter(2.0)
    step_with(CentredRMSProp([weight, other], learning_rate=0.1, decay=0.95, epsilon=0.01), weight, [1.0])
    assert other.item() == 2.0


def test_a_mean_over_the_batch_gives_the_steps_of_the_sum_with_epsilon_0_01():
    weights = [parameter(0.3, -0.2), parameter(0.3, -0.2)]
    of_mean = make_optimizer("rmsprop", [weights[0]], learning_rate=0.01, batch_size=32)
    of_sum = CentredRMSProp([weights[1]], learning_rate=0.01, decay=0.95, epsilon=0.01)
    for gradient in torch.randn(10, 2, generator=torch.Generator().manual_seed(0)):
        step_with(of_mean, weights[0], (gradient / 32).tolist())
        step_with(of_sum, weights[1], gradient.tolist())
    torch.testing.assert_close(*weights)


def test_a_state_that_was_saved_goes_on():
    weights = [parameter(1.0), parameter(1.0)]
    straight, stopped = (CentredRMSProp([w], learning_rate=0.1, decay=0.95, epsilon=0.01) for w in weights)
    for gradient in (1.0, -2.0):
        step_with(straight, weights[0], [gradient])
        step_with(stopped, weights[1], [gradient])
    resumed = CentredRMSProp([weights[1]], learning_rate=9.0, decay=0.1, epsilon=9.0)
    resumed.load_state_dict(stopped.state_dict())
    step_with(straight, weights[0], [0.5])
    step_with(resumed, weights[1], [0.5])
    assert weights[0].item() == weights[1].item()


def test_adam_has_dopamines_epsilon():
    optimizer = make_optimizer("adam", [parameter(1.0)], learning_rate=6.25e-5, batch_size=32)
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["eps"]) == (6.25e-5, 1.5e-4)


def test_an_unknown_optimiser_is_refused():
    with pytest.raises(UsageError, match=r"^optimizer: got 'sgd', expected rmsprop or adam\.$"):
        make_optimizer("sgd", [parameter(1.0)], learning_rate=0.1, batch_size=1)
