"""The kit that every loss for discrete actions passes, and what is particular to each."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, kl_divergence

from rldistill.losses import mean_over_batch, nll, q_mse, reverse_kl, sharpened_kl, softened_kl

LOG2, LOG3 = 0.6931472, 1.0986123
TEMPERATURES = (0.01, 0.1, 1.0, 5.0)
TEMPERED = {"sharpened_kl": sharpened_kl, "softened_kl": softened_kl, "reverse_kl": reverse_kl}
DIVERGENCES = [
    pytest.param(partial(loss, temperature=temperature), temperature, id=f"{name}-{temperature}")
    for name, loss in TEMPERED.items()
    for temperature in TEMPERATURES
]
ALL_LOSSES = [
    pytest.param(nll, id="nll"),
    pytest.param(q_mse, id="q_mse"),
    *(pytest.param(partial(loss, temperature=0.01), id=name) for name, loss in TEMPERED.items()),
]


def scores(seed, rows=64, num_actions=6, scale=1.0):
    return scale * torch.randn(rows, num_actions, generator=torch.Generator().manual_seed(seed))


# Hand-worked values


@pytest.mark.parametrize(
    ("student_logits", "teacher_scores", "expected"),
    [
        ([0.0, 0.0], [1.0, 0.0], LOG2),  # uniform student
        ([LOG3, 0.0], [5.0, 1.0], 0.2876821),  # ln(4/3): the student gives the first action 3/4
        ([LOG3, 0.0], [1.0, 5.0], 1.3862944),  # ln 4: and the second 1/4
        ([LOG3, 0.0], [1.0, 1.0], 0.2876821),  # of equal best scores the first counts
        ([LOG2, 0.0, 0.0], [0.0, 0.1, 0.2], 1.3862944),  # 1/2, 1/4, 1/4
    ],
)
def test_nll_matches_hand_worked_values(student_logits, teacher_scores, expected):
    loss = nll(torch.tensor([student_logits]), torch.tensor([teacher_scores]))
    torch.testing.assert_close(loss, torch.tensor([expected]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("student_q_values", "teacher_q_values", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.0], [3.0, -1.0], 13.0),  # 2² + 3², a sum and not a mean
        ([0.0, 0.0, 0.0], [0.5, 0.5, 0.5], 0.75),
        ([1.0, 2.0], [2.0, 3.0], 2.0),  # a constant counts: the scale is learned
    ],
)
def test_q_mse_matches_hand_worked_values(student_q_values, teacher_q_values, expected):
    loss = q_mse(torch.tensor([student_q_values]), torch.tensor([teacher_q_values]))
    assert loss.tolist() == [expected]


@pytest.mark.parametrize(
    ("student_logits", "teacher_scores", "temperature", "expected"),
    [
        ([0.0, 0.0], [0.0, 0.0], 1.0, 0.0),  # both uniform
        ([0.0, 0.0], [LOG3, 0.0], 1.0, 0.1308121),  # 3/4 ln(3/4 ÷ 1/2) + 1/4 ln(1/4 ÷ 1/2)
        ([0.0, 0.0], [0.1 * LOG3, 0.0], 0.1, 0.1308121),  # the same, sharpened tenfold
        ([LOG3, 0.0], [0.0, 0.0], 1.0, 0.1438410),  # 1/2 ln(1/2 ÷ 3/4) + 1/2 ln(1/2 ÷ 1/4)
        ([0.0, 0.0], [1.0, 0.0], 0.01, LOG2),  # teacher all but greedy
        ([LOG2, 0.0, 0.0], [0.0, 0.0, 0.0], 1.0, 0.0566330),  # 1/3 (ln 2/3 + 2 ln 4/3)
    ],
)
def test_sharpened_kl_matches_hand_worked_values(student_logits, teacher_scores, temperature, expected):
    loss = sharpened_kl(torch.tensor([student_logits]), torch.tensor([teacher_scores]), temperature=temperature)
    torch.testing.assert_close(loss, torch.tensor([expected]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("student_logits", "teacher_scores", "temperature", "expected"),
    [
        ([0.0, 0.0], [LOG3, 0.0], 1.0, 0.1308121),  # at 1 nothing is softened
        ([0.0, 0.0], [2 * LOG3, 0.0], 2.0, 0.5232481),  # 4 · 0.1308121: the factor temperature²
        ([2 * LOG3, 0.0], [0.0, 0.0], 2.0, 0.5753641),  # 4 · 0.1438410: the student is tempered too
        ([0.1 * LOG3, 0.0], [0.0, 0.0], 0.1, 0.0014384),
    ],
)
def test_softened_kl_matches_hand_worked_values(student_logits, teacher_scores, temperature, expected):
    loss = softened_kl(torch.tensor([student_logits]), torch.tensor([teacher_scores]), temperature=temperature)
    torch.testing.assert_close(loss, torch.tensor([expected]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("student_logits", "teacher_scores", "temperature", "expected"),
    [
        ([LOG3, 0.0], [0.0, 0.0], 1.0, 0.1308121),  # the student's 3/4, 1/4 do the weighting
        ([0.0, 0.0], [LOG3, 0.0], 1.0, 0.1438410),
        ([0.0, 0.0], [0.1 * LOG3, 0.0], 0.1, 0.1438410),  # only the teacher is tempered
        (
            [0.0, 0.0],
            [1.0, 0.0],
            0.01,
            49.3068528,
        ),  # half the time an action the teacher finds e^-100 likely: 50 - ln 2
    ],
)
def test_reverse_kl_matches_hand_worked_values(student_logits, teacher_scores, temperature, expected):
    loss = reverse_kl(torch.tensor([student_logits]), torch.tensor([teacher_scores]), temperature=temperature)
    torch.testing.assert_close(loss, torch.tensor([expected]), atol=1e-6, rtol=1e-6)


# The family of divergences


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("loss", [sharpened_kl, reverse_kl])
def test_untempered_student_at_the_teachers_tempered_scores_has_zero_loss(loss, temperature):
    teacher = scores(0)
    assert loss(teacher / temperature, teacher, temperature=temperature).abs().max() < 2e-6


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_softened_kl_is_zero_when_student_equals_teacher(temperature):
    assert softened_kl(scores(0), scores(0), temperature=temperature).abs().max() == 0


@pytest.mark.parametrize(("loss", "temperature"), DIVERGENCES)
def test_divergence_is_unchanged_by_adding_a_constant_to_all_scores_of_a_row(loss, temperature):
    # Multiples of 1/1024, so that adding 1024 is exact in float32 and the losses must be equal to the last bit.
    student, teacher = (scores(seed).mul(1024).round().div(1024) for seed in (0, 1))
    expected = loss(student, teacher)
    assert torch.equal(loss(student + 1024, teacher), expected)
    assert torch.equal(loss(student, teacher + 1024), expected)


@pytest.mark.parametrize(("loss", "temperature"), DIVERGENCES)
def test_divergence_equals_torch_distributions(loss, temperature):
    student, teacher = scores(0).double(), scores(1).double()
    policy, target = Categorical(logits=student), Categorical(logits=teacher / temperature)
    tempered_policy = Categorical(logits=student / temperature)
    expected = {
        sharpened_kl: kl_divergence(target, policy),
        softened_kl: kl_divergence(target, tempered_policy) * temperature**2,
        reverse_kl: kl_divergence(policy, target),
    }[loss.func]
    torch.testing.assert_close(loss(student, teacher), expected.float(), atol=2e-6 * max(1, temperature**2), rtol=2e-5)


row = st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=3)


@pytest.mark.parametrize("loss", TEMPERED.values(), ids=TEMPERED)
@settings(deadline=None, max_examples=100)
@given(student=row, teacher=row, temperature=st.sampled_from(TEMPERATURES))
def test_divergence_is_never_negative_beyond_rounding(loss, student, teacher, temperature):
    value = loss(torch.tensor([student]), torch.tensor([teacher]), temperature=temperature)
    assert value.item() >= -1e-5 * max(1, temperature**2)


def test_softened_kl_tends_to_the_squared_distance_of_centred_scores_as_temperature_grows():
    student, teacher = scores(0), scores(1)
    difference = student - teacher
    limit = (difference - difference.mean(dim=-1, keepdim=True)).square().mean(dim=-1) / 2
    torch.testing.assert_close(softened_kl(student, teacher, temperature=50.0), limit, atol=2e-3, rtol=0.1)


# The family of likelihoods


def test_nll_equals_torch_distributions():
    student, teacher = scores(0), scores(1)
    torch.testing.assert_close(nll(student, teacher), -Categorical(logits=student).log_prob(teacher.argmax(dim=-1)))


def test_nll_is_unchanged_by_adding_a_constant_to_all_scores_of_a_row():
    torch.testing.assert_close(nll(scores(0) + 7, scores(1) - 3), nll(scores(0), scores(1)), atol=1e-5, rtol=0)


def test_nll_depends_on_the_order_of_the_teachers_scores_alone():
    assert torch.equal(nll(scores(0), scores(1)), nll(scores(0), scores(1).exp()))


def test_nll_of_a_uniform_student_is_log_of_the_number_of_actions():
    torch.testing.assert_close(nll(torch.zeros(8, 18), scores(0, 8, 18)), torch.full((8,), 2.8903718))


def test_nll_is_bounded_below_by_zero_and_reaches_it_when_the_student_is_certain():
    teacher = scores(0)
    assert nll(scores(1), teacher).min() > 0
    certain = 1000.0 * torch.nn.functional.one_hot(teacher.argmax(dim=-1), 6)
    assert nll(certain, teacher).max() == 0


# All losses


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_loss_has_one_value_per_row(loss):
    assert loss(scores(0, rows=5), scores(1, rows=5)).shape == (5,)


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_loss_of_a_row_ignores_the_rest_of_the_batch(loss):
    torch.testing.assert_close(loss(scores(0), scores(1))[3:4], loss(scores(0)[3:4], scores(1)[3:4]))


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_doubling_the_batch_leaves_the_mean(loss):
    student, teacher = scores(0), scores(1)
    doubled = mean_over_batch(loss(torch.cat([student, student]), torch.cat([teacher, teacher])))
    torch.testing.assert_close(doubled, mean_over_batch(loss(student, teacher)))


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_gradient_reaches_the_student_and_not_the_teacher(loss):
    student, teacher = scores(0).requires_grad_(), scores(1).requires_grad_()
    loss(student, teacher).sum().backward()
    assert student.grad is not None
    assert student.grad.abs().max() > 0
    assert teacher.grad is None


@pytest.mark.parametrize("loss", [loss for loss in ALL_LOSSES if loss.id != "q_mse"])
def test_gradient_of_a_row_of_logits_sums_to_zero(loss):
    student = scores(0).requires_grad_()
    loss(student, scores(1)).sum().backward()
    assert student.grad.sum(dim=-1).abs().max() < 1e-4 * student.grad.abs().max()


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_loss_and_gradient_are_finite_for_scores_of_ten_thousand_at_temperature_one_hundredth(loss):
    extremes = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, 1e4], [0.0, 1e4, 1e4], [1e4, 0.0, -1e4]])
    student = extremes.clone().requires_grad_()
    value = loss(student, extremes.flip(0))
    value.sum().backward()
    assert value.isfinite().all()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_half_precision_inputs_are_computed_and_returned_in_float32(loss, dtype):
    student, teacher = scores(0).to(dtype), scores(1).to(dtype)
    value = loss(student, teacher)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(student.float(), teacher.float()))


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_autocast_does_not_lower_the_precision(loss):
    expected = loss(scores(0), scores(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(scores(0), scores(1)), expected)


# Errors


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (nll, r"^teacher_scores must be \[\.\.\., A\], got student_logits \[2, 3\], teacher_scores \[2, 4\]\.$"),
        (
            q_mse,
            r"^teacher_q_values must be \[\.\.\., A\], got student_q_values \[2, 3\], teacher_q_values \[2, 4\]\.$",
        ),
        *(
            (
                partial(loss, temperature=1.0),
                r"^teacher_scores must be \[\.\.\., A\], got student_logits \[2, 3\], teacher_scores \[2, 4\]\.$",
            )
            for loss in TEMPERED.values()
        ),
    ],
)
def test_shapes_that_differ_are_named(loss, message):
    with pytest.raises(ValueError, match=message):
        loss(torch.zeros(2, 3), torch.zeros(2, 4))


@pytest.mark.parametrize(
    ("temperature", "message"),
    [
        (0, r"^temperature must be > 0, got 0\.$"),
        (-0.5, r"^temperature must be > 0, got -0\.5\.$"),
        (float("nan"), r"^temperature must be > 0, got nan\.$"),
        (float("inf"), r"^temperature must be finite, got inf\.$"),
    ],
)
@pytest.mark.parametrize("loss", TEMPERED.values(), ids=TEMPERED)
def test_temperature_out_of_range_is_named(loss, temperature, message):
    with pytest.raises(ValueError, match=message):
        loss(torch.zeros(1, 2), torch.zeros(1, 2), temperature=temperature)
