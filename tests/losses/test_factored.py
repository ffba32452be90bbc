"""Several choices at once: every loss for one choice, summed over dimensions."""

from functools import partial

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, kl_divergence

from rldistill.losses import (
    mean_over_batch,
    multi_binary_loss,
    multi_discrete_loss,
    nll,
    reverse_kl,
    sharpened_kl,
    softened_kl,
)

LOG2, LOG3 = 0.6931472, 1.0986123
SIZES = (2, 1, 4)
TEMPERED = {"sharpened_kl": sharpened_kl, "softened_kl": softened_kl, "reverse_kl": reverse_kl}
CHOICE_LOSSES = {"nll": nll, **{name: partial(loss, temperature=0.1) for name, loss in TEMPERED.items()}}
ALL_LOSSES = [
    pytest.param(combined, id=f"{kind}-{name}")
    for name, loss in CHOICE_LOSSES.items()
    for kind, combined in {
        "multi_discrete": partial(multi_discrete_loss, loss, sizes=SIZES),
        "multi_binary": partial(multi_binary_loss, loss),
    }.items()
]


def scores(seed, num_rows=64):
    return torch.randn(num_rows, sum(SIZES), generator=torch.Generator().manual_seed(seed))


def test_multi_discrete_losses_match_hand_worked_values():
    student, teacher = torch.zeros(1, 4), torch.tensor([[LOG3, 0.0, 0.0, LOG3]])
    kl = partial(sharpened_kl, temperature=1.0)
    got = [
        multi_discrete_loss(nll, student, teacher, sizes=(2, 2)),  # ln 2 twice
        multi_discrete_loss(nll, student, teacher, sizes=(3, 1)),  # ln 3; where there is no choice, 0
        multi_discrete_loss(kl, student, teacher, sizes=(2, 2)),  # 3/4 ln(3/4 ÷ 1/2) + 1/4 ln(1/4 ÷ 1/2), twice
    ]
    torch.testing.assert_close(torch.cat(got), torch.tensor([2 * LOG2, LOG3, 2 * 0.1308121]), atol=1e-6, rtol=0)


def test_multi_binary_losses_match_hand_worked_values():
    student, teacher = torch.tensor([[0.0, LOG3]]), torch.tensor([[LOG3, LOG3]])
    tempered = partial(sharpened_kl, temperature=0.1)
    got = [
        multi_binary_loss(nll, student, teacher),  # ln 2, and on with 3/4: ln 4/3
        multi_binary_loss(nll, student, -teacher),  # off: ln 2 and ln 4
        multi_binary_loss(nll, student, torch.zeros(1, 2)),  # of a logit of 0 off is the greedy action
        multi_binary_loss(partial(sharpened_kl, temperature=1.0), student, teacher),
        multi_binary_loss(tempered, student, 0.1 * teacher),  # the same, sharpened tenfold
    ]
    expected = [LOG2 + 0.2876821, LOG2 + 2 * LOG2, LOG2 + 2 * LOG2, 0.1308121, 0.1308121]
    torch.testing.assert_close(torch.cat(got), torch.tensor(expected), atol=1e-6, rtol=0)


def test_multi_discrete_of_one_dimension_is_the_loss_for_one_choice():
    for loss in CHOICE_LOSSES.values():
        assert torch.equal(multi_discrete_loss(loss, scores(0), scores(1), sizes=(7,)), loss(scores(0), scores(1)))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_divergences_equal_torch_distributions(temperature):
    student, teacher = scores(0), scores(1)
    kl = partial(sharpened_kl, temperature=temperature)
    blocks = zip(student.double().split(SIZES, -1), teacher.double().split(SIZES, -1), strict=True)
    expected = sum(kl_divergence(Categorical(logits=t / temperature), Categorical(logits=s)) for s, t in blocks)
    torch.testing.assert_close(
        multi_discrete_loss(kl, student, teacher, sizes=SIZES), expected.float(), atol=1e-5, rtol=1e-5
    )
    binary = kl_divergence(Bernoulli(logits=teacher.double() / temperature), Bernoulli(logits=student.double())).sum(
        dim=-1
    )
    torch.testing.assert_close(multi_binary_loss(kl, student, teacher), binary.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_divergence_is_zero_at_equality(temperature):
    for loss in (sharpened_kl, reverse_kl):
        at_temperature = partial(loss, temperature=temperature)
        student = scores(0) / temperature
        assert multi_discrete_loss(at_temperature, student, scores(0), sizes=SIZES).abs().max() < 5e-6
        assert multi_binary_loss(at_temperature, student, scores(0)).abs().max() < 5e-6


def test_nll_equals_torch_distributions():
    student, teacher = scores(0), scores(1)
    expected = -Bernoulli(logits=student).log_prob((teacher > 0).float()).sum(dim=-1)
    torch.testing.assert_close(multi_binary_loss(nll, student, teacher), expected)


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_doubling_the_batch_leaves_the_mean(loss):
    student, teacher = scores(0), scores(1)
    values = loss(student, teacher)
    assert values.shape == (64,)
    doubled = mean_over_batch(loss(torch.cat([student, student]), torch.cat([teacher, teacher])))
    torch.testing.assert_close(doubled, mean_over_batch(values))


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_gradient_reaches_the_student_and_not_the_teacher(loss):
    student, teacher = scores(0).requires_grad_(), scores(1).requires_grad_()
    loss(student, teacher).sum().backward()
    assert student.grad.abs().max() > 0
    assert teacher.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_half_precision_inputs_are_computed_and_returned_in_float32(loss, dtype):
    student, teacher = scores(0).to(dtype), scores(1).to(dtype)
    value = loss(student, teacher)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(student.float(), teacher.float()))


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_loss_and_gradient_are_finite_for_scores_of_ten_thousand(loss):
    student = (1e4 * scores(0).sign()).requires_grad_()
    value = loss(student, 1e4 * scores(1).sign())
    value.sum().backward()
    assert value.isfinite().all()
    assert student.grad.isfinite().all()


def test_shapes_that_do_not_fit_are_named():
    message = r"^scores must be \[\.\.\., 7\] for sizes \(2, 1, 4\), got \[2, 6\]\.$"
    with pytest.raises(ValueError, match=message):
        multi_discrete_loss(nll, torch.zeros(2, 6), torch.zeros(2, 6), sizes=SIZES)
    message = r"^teacher_scores must be \[\.\.\., S\], got student_scores \[2, 7\], teacher_scores \[2, 6\]\.$"
    with pytest.raises(ValueError, match=message):
        multi_discrete_loss(nll, torch.zeros(2, 7), torch.zeros(2, 6), sizes=SIZES)
    message = r"^teacher_logits must be \[\.\.\., D\], got student_logits \[2, 3\], teacher_logits \[2, 4\]\.$"
    with pytest.raises(ValueError, match=message):
        multi_binary_loss(nll, torch.zeros(2, 3), torch.zeros(2, 4))
