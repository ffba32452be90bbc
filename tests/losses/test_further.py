"""Losses of features and state values: hand-worked values, and where their gradients go."""

import pytest
import torch

from rldistill.losses.further import FeatureRegression, FurtherLoss, feature_mse, value_mse

FEATURES, TAUGHT = torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([[0.0, 2.0], [2.0, 2.0]])


def test_feature_and_value_losses_match_hand_worked_values():
    torch.testing.assert_close(feature_mse(FEATURES, TAUGHT), torch.tensor([1.0, 13.0]))
    torch.testing.assert_close(value_mse(torch.tensor([1.0, -2.0]), torch.tensor([3.0, 1.0])), torch.tensor([4.0, 9.0]))


def test_they_are_zero_at_equality_and_their_gradient_reaches_the_student_alone():
    student, teacher = FEATURES.clone().requires_grad_(), FEATURES.clone().requires_grad_()
    loss = feature_mse(student, teacher) + value_mse(student[:, 0], teacher[:, 0])
    assert not loss.any()
    loss.sum().backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"teacher_features must be \[\.\.\., F\]"):
        feature_mse(torch.zeros(2, 3), torch.zeros(2, 4))


def test_a_regression_finds_features_that_a_linear_layer_can_make():
    generator = torch.Generator().manual_seed(0)
    student, matrix = torch.randn(200, 4, generator=generator), torch.randn(4, 7, generator=generator)
    regression = FeatureRegression(4, 7, generator=generator)
    optimizer = torch.optim.Adam(regression.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss = regression(student, student @ matrix + 1).mean()
        loss.backward()
        optimizer.step()
    assert loss < 1e-3


def test_weights_add_what_they_weigh():
    regression = FeatureRegression(2, 2, generator=torch.Generator().manual_seed(0))
    targets, value = {"value": torch.tensor([3.0, 1.0]), "features": TAUGHT}, torch.tensor([1.0, -2.0])
    alone = regression(FEATURES, TAUGHT)
    both = FurtherLoss(value_weight=0.5, feature_weight=2.0, regression=regression)
    torch.testing.assert_close(both(FEATURES, value, targets), 2 * alone + torch.tensor([2.0, 4.5]))
    values = FurtherLoss(value_weight=0.5)
    torch.testing.assert_close(values(None, value, targets), torch.tensor([2.0, 4.5]))
