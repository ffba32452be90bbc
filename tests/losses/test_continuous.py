"""The kit that every loss for boxes passes, and what is particular to Gaussians and to single actions."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Independent, Normal, TransformedDistribution, kl_divergence
from torch.distributions.transforms import TanhTransform

from rldistill.losses import diag_gaussian_kl, mean_huber, mean_mse, mean_over_batch, reverse_diag_gaussian_kl

LOG2 = 0.6931472
KLS = {"diag_gaussian_kl": diag_gaussian_kl, "reverse_diag_gaussian_kl": reverse_diag_gaussian_kl}
SCALE = torch.tensor([1.0, 0.5, 100.0])


def rows(seed, num_rows=64, num_dimensions=3):
    return torch.randn(num_rows, num_dimensions, generator=torch.Generator().manual_seed(seed))


def of_means(loss, student, teacher):
    """Call a loss for Gaussians with fixed stds, so that all losses take one tensor of each side."""
    return loss(student, torch.full_like(student, -0.5), teacher, torch.full_like(teacher, 0.25))


ALL_LOSSES = [
    *(pytest.param(partial(of_means, loss), id=name) for name, loss in KLS.items()),
    pytest.param(partial(mean_mse, scale=SCALE), id="mean_mse"),
    pytest.param(partial(mean_huber, scale=SCALE), id="mean_huber"),
]


# Hand-worked values


@pytest.mark.parametrize(
    ("student_mean", "student_log_std", "teacher_mean", "teacher_log_std", "expected"),
    [
        ([0.0], [0.0], [0.0], [0.0], 0.0),
        ([1.0], [0.0], [0.0], [0.0], 0.5),  # (1 − 0)² ÷ 2
        ([1.0], [LOG2], [0.0], [LOG2], 0.125),  # the same error, in units of std 2
        ([0.0], [LOG2], [0.0], [0.0], 0.3181472),  # ln 2 + 1/8 − 1/2: the student is twice as wide
        ([0.0], [0.0], [0.0], [LOG2], 0.8068528),  # −ln 2 + 4/2 − 1/2: and half as wide
        ([1.0, 0.0], [0.0, LOG2], [0.0, 0.0], [0.0, 0.0], 0.8181472),  # a sum over dimensions
        ([0.0], [-19.0], [0.0], [-20.0], 0.5676676),  # 1 + e⁻²/2 − 1/2: very narrow ones are told apart,
        ([0.0], [-25.0], [0.0], [-20.0], 0.0),  # down to e⁻²⁰
    ],
)
def test_diag_gaussian_kl_matches_hand_worked_values(
    student_mean, student_log_std, teacher_mean, teacher_log_std, expected
):
    given_rows = [torch.tensor([row]) for row in (student_mean, student_log_std, teacher_mean, teacher_log_std)]
    torch.testing.assert_close(diag_gaussian_kl(*given_rows), torch.tensor([expected]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("student_mean", "student_log_std", "teacher_mean", "teacher_log_std", "expected"),
    [
        ([0.0], [LOG2], [0.0], [0.0], 0.8068528),  # the student is twice as wide: the weighting is its own
        ([0.0], [0.0], [0.0], [LOG2], 0.3181472),
        ([1.0], [0.0], [0.0], [-LOG2], 2.8068528),  # −ln 2 + (1 + 1) / (2 · 1/4) − 1/2
    ],
)
def test_reverse_diag_gaussian_kl_matches_hand_worked_values(
    student_mean, student_log_std, teacher_mean, teacher_log_std, expected
):
    given_rows = [torch.tensor([row]) for row in (student_mean, student_log_std, teacher_mean, teacher_log_std)]
    torch.testing.assert_close(reverse_diag_gaussian_kl(*given_rows), torch.tensor([expected]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("student", "teacher", "scale", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], None, 0.0),
        ([1.0, 2.0], [3.0, -1.0], None, 13.0),  # 2² + 3², a sum and not a mean
        ([1.0, 200.0], [0.0, 100.0], [1.0, 100.0], 2.0),  # both are off by half of their boxes
        ([1.0], [0.0], [0.5], 4.0),
    ],
)
def test_mean_mse_matches_hand_worked_values(student, teacher, scale, expected):
    scale = None if scale is None else torch.tensor(scale)
    assert mean_mse(torch.tensor([student]), torch.tensor([teacher]), scale=scale).tolist() == [expected]


@pytest.mark.parametrize(
    ("student", "teacher", "scale", "delta", "expected"),
    [
        ([0.5], [0.0], None, 1.0, 0.125),  # 0.5² ÷ 2
        ([3.0], [0.0], None, 1.0, 2.5),  # 3 − 1/2
        ([3.0], [0.0], None, 2.0, 4.0),  # 2 · (3 − 1)
        ([-3.0, 0.5], [0.0, 0.0], None, 1.0, 2.625),
        ([300.0, 0.5], [0.0, 0.0], [100.0, 1.0], 1.0, 2.625),
    ],
)
def test_mean_huber_matches_hand_worked_values(student, teacher, scale, delta, expected):
    scale = None if scale is None else torch.tensor(scale)
    loss = mean_huber(torch.tensor([student]), torch.tensor([teacher]), scale=scale, delta=delta)
    assert loss.tolist() == [expected]


# Divergences


@pytest.mark.parametrize("loss", KLS.values(), ids=KLS)
def test_divergence_is_zero_when_student_equals_teacher(loss):
    assert loss(rows(0), rows(1), rows(0), rows(1)).abs().max() == 0


@pytest.mark.parametrize("loss", KLS.values(), ids=KLS)
def test_divergence_equals_torch_distributions(loss):
    student_mean, student_log_std, teacher_mean, teacher_log_std = (rows(seed) for seed in range(4))
    student = Independent(Normal(student_mean.double(), student_log_std.double().exp()), 1)
    teacher = Independent(Normal(teacher_mean.double(), teacher_log_std.double().exp()), 1)
    expected = kl_divergence(teacher, student) if loss is diag_gaussian_kl else kl_divergence(student, teacher)
    got = loss(student_mean, student_log_std, teacher_mean, teacher_log_std)
    torch.testing.assert_close(got, expected.float(), atol=1e-5, rtol=1e-5)


def test_divergence_of_gaussians_is_that_of_the_squashed_policies():
    # E over the teacher's squashed actions of the difference of log-densities; tanh changes both alike.
    teacher, student = Normal(torch.tensor(0.3), torch.tensor(0.5)), Normal(torch.tensor(-0.2), torch.tensor(0.8))
    squashed_teacher, squashed_student = (TransformedDistribution(each, TanhTransform()) for each in (teacher, student))
    actions = teacher.icdf((torch.arange(20_000) + 0.5) / 20_000).tanh()
    expected = (squashed_teacher.log_prob(actions) - squashed_student.log_prob(actions)).mean()
    got = diag_gaussian_kl(
        *(torch.tensor([[value]]) for value in (-0.2, torch.tensor(0.8).log(), 0.3, torch.tensor(0.5).log()))
    )
    torch.testing.assert_close(got[0], expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("loss", KLS.values(), ids=KLS)
def test_divergence_is_unchanged_when_both_are_moved_and_stretched_alike(loss):
    student_mean, student_log_std, teacher_mean, teacher_log_std = (rows(seed) for seed in range(4))
    expected = loss(student_mean, student_log_std, teacher_mean, teacher_log_std)
    got = loss(4 * student_mean + 3, student_log_std + 2 * LOG2, 4 * teacher_mean + 3, teacher_log_std + 2 * LOG2)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_the_two_divergences_swap_when_student_and_teacher_swap():
    student, teacher = (rows(0), rows(1)), (rows(2), rows(3))
    assert torch.equal(diag_gaussian_kl(*student, *teacher), reverse_diag_gaussian_kl(*teacher, *student))


def test_divergence_near_equality_keeps_its_digits():
    # ½ (e^2r − 1 − 2r) = r² + …, which e^2r − 1 in float32 would lose.
    zeros = torch.zeros(1, 1)
    got = diag_gaussian_kl(zeros, zeros, zeros, torch.full((1, 1), 1e-3))
    torch.testing.assert_close(got, torch.tensor([1.000667e-6]), rtol=1e-3, atol=0)


row = st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=3)


@pytest.mark.parametrize("loss", KLS.values(), ids=KLS)
@settings(deadline=None, max_examples=100)
@given(means=st.tuples(row, row), log_stds=st.tuples(row, row))
def test_divergence_is_finite_and_never_negative_beyond_rounding(loss, means, log_stds):
    student_mean, teacher_mean, student_log_std, teacher_log_std = (
        torch.tensor([values]) for values in (*means, *log_stds)
    )
    value = loss(student_mean, student_log_std, teacher_mean, teacher_log_std)
    assert value.isfinite().all()
    assert value.item() >= -1e-5


@pytest.mark.parametrize("loss", KLS.values(), ids=KLS)
def test_loss_and_gradient_are_finite_for_stds_beyond_all_measure(loss):
    extremes = torch.tensor([[-1e4, 1e4, 0.0], [20.0, -20.0, -1e4]])
    mean, log_std = torch.tensor([[1e4, -1e4, 0.0]] * 2).requires_grad_(), extremes.clone().requires_grad_()
    value = loss(mean, log_std, -mean.detach(), extremes.flip(0))
    value.sum().backward()
    assert value.isfinite().all()
    assert mean.grad.isfinite().all()
    assert log_std.grad.isfinite().all()


def test_gradient_reaches_mean_and_std_of_the_student_and_nothing_of_the_teacher():
    for loss in KLS.values():
        given_rows = [rows(seed).requires_grad_() for seed in range(4)]
        loss(*given_rows).sum().backward()
        assert [each.grad is not None for each in given_rows] == [True, True, False, False]
        assert all(each.grad.abs().max() > 0 for each in given_rows[:2])


# Single actions


def test_huber_equals_half_the_squared_distance_within_delta():
    student, teacher = rows(0) / 10, rows(1) / 10
    torch.testing.assert_close(mean_huber(student, teacher, delta=1.0), mean_mse(student, teacher) / 2)


def test_scale_makes_boxes_of_all_widths_count_alike():
    student, teacher, scale = rows(0), rows(1), torch.tensor([1.0, 100.0, 0.01])
    for loss in (mean_mse, mean_huber):
        torch.testing.assert_close(
            loss(student * scale, teacher * scale, scale=scale), loss(student, teacher), atol=1e-6, rtol=1e-5
        )


@pytest.mark.parametrize("loss", [mean_mse, mean_huber])
@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ([1.0, 2.0], r"^scale must be \[3\], one number per dimension, got \[2\]\.$"),
        ([1.0, 0.0, 2.0], r"^scale must hold finite numbers > 0, got \[1\.0, 0\.0, 2\.0\]\.$"),
        ([1.0, float("inf"), 2.0], r"^scale must hold finite numbers > 0, got \[1\.0, inf, 2\.0\]\.$"),
        ([1.0, float("nan"), 2.0], r"^scale must hold finite numbers > 0, got \[1\.0, nan, 2\.0\]\.$"),
    ],
)
def test_scale_that_does_not_fit_is_named(loss, scale, message):
    with pytest.raises(ValueError, match=message):
        loss(rows(0), rows(1), scale=torch.tensor(scale))


@pytest.mark.parametrize("delta", [0.0, -1.0, float("nan"), float("inf")])
def test_delta_out_of_range_is_named(delta):
    with pytest.raises(ValueError, match=rf"^delta must be a finite number > 0, got {delta}\.$"):
        mean_huber(rows(0), rows(1), delta=delta)


# All losses


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_loss_has_one_value_per_row_which_ignores_the_rest_of_the_batch(loss):
    values = loss(rows(0), rows(1))
    assert values.shape == (64,)
    torch.testing.assert_close(values[3:4], loss(rows(0)[3:4], rows(1)[3:4]))


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_doubling_the_batch_leaves_the_mean(loss):
    student, teacher = rows(0), rows(1)
    doubled = mean_over_batch(loss(torch.cat([student, student]), torch.cat([teacher, teacher])))
    torch.testing.assert_close(doubled, mean_over_batch(loss(student, teacher)))


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_gradient_reaches_the_student_and_not_the_teacher(loss):
    student, teacher = rows(0).requires_grad_(), rows(1).requires_grad_()
    loss(student, teacher).sum().backward()
    assert student.grad.abs().max() > 0
    assert teacher.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_half_precision_inputs_are_computed_and_returned_in_float32(loss, dtype):
    student, teacher = rows(0).to(dtype), rows(1).to(dtype)
    value = loss(student, teacher)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(student.float(), teacher.float()))


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_autocast_does_not_lower_the_precision(loss):
    expected = loss(rows(0), rows(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(rows(0), rows(1)), expected)


def test_shapes_that_differ_are_named():
    got = r"student_mean \[2, 3\], student_log_std \[2, 3\], teacher_mean \[2, 4\]"
    message = rf"^teacher_mean must be \[\.\.\., D\], got {got}"
    for loss in KLS.values():
        with pytest.raises(ValueError, match=message):
            loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2, 4))
    message = r"^teacher_actions must be \[\.\.\., D\], got student_actions \[2, 3\], teacher_actions \[2, 4\]\.$"
    for loss in (mean_mse, mean_huber):
        with pytest.raises(ValueError, match=message):
            loss(torch.zeros(2, 3), torch.zeros(2, 4))
