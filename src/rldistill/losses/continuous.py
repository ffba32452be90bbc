"""Distillation losses for actions in a box: Gaussian teachers and deterministic ones.

Every loss takes student outputs first and teacher outputs second, `[..., D]` each, sums over
the D action dimensions, returns one value per row, `[...]`, and leaves weighting and averaging
to `losses.reduce`. Summed, because the dimensions of a diagonal Gaussian are independent and
their divergences add up; an average would make a robot of 17 joints count each of them for a
seventeenth. The teacher's outputs never carry gradient. Whatever the dtype of the inputs
(float16 and bfloat16 included), arithmetic and result are float32.

    diag_gaussian_kl           KL(teacher ‖ student)
    reverse_diag_gaussian_kl   KL(student ‖ teacher)
    mean_mse                   Σ ((student − teacher) / scale)²
    mean_huber                 Σ huber((student − teacher) / scale)

A divergence does not change when both sides pass through the same invertible function, so
Gaussians before tanh give the divergence of the squashed policies as well.

There is no likelihood of the teacher's mean: with a learned std it has no lower bound (the
std goes to 0), and against the teacher's whole distribution it is `diag_gaussian_kl` plus
the teacher's entropy, which has the same gradient.
"""

import math

from torch import Tensor
from torch.nn import functional

from rldistill.types import check_shapes

# The square of e^40 still fits into float32. Policies keep their log_std within [-20, 2].
_LOG_STD_LIMIT = 20.0


def diag_gaussian_kl(
    student_mean: Tensor, student_log_std: Tensor, teacher_mean: Tensor, teacher_log_std: Tensor
) -> Tensor:
    """Measure how far the student's Gaussian is from the teacher's.

    KL(p ‖ π) with p = N(μₜ, σₜ²), π = N(μₛ, σₛ²), in closed form and summed over dimensions:
    Σ ln(σₛ / σₜ) + (σₜ² + (μₜ − μₛ)²) / 2σₛ² − ½. The student must cover what the teacher does:
    where the teacher is nearly deterministic, a student whose std is fixed pays ln(σₛ / σₜ) − ½
    for good, and errors of the mean count in units of its own std. Zero exactly when π = p.

    Args:
        student_mean: `[..., D]`, before the action is clipped or squashed.
        student_log_std: `[..., D]`, nats; beyond ±20 it counts as ±20 and gets no gradient.
        teacher_mean: `[..., D]`, on the same scale as the student's.
        teacher_log_std: `[..., D]`, nats, likewise limited to ±20.

    Returns:
        `[...]`, nats, non-negative up to rounding.

    Raises:
        ValueError: shapes do not fit.

    Source: Rusu et al. 2015, "Policy Distillation", uses KL(teacher ‖ student) for discrete
    actions; this is the same divergence between Gaussians.
    """
    _check_gaussians(student_mean, student_log_std, teacher_mean, teacher_log_std)
    return _kl(teacher_mean.detach(), teacher_log_std.detach(), student_mean, student_log_std)


def reverse_diag_gaussian_kl(
    student_mean: Tensor, student_log_std: Tensor, teacher_mean: Tensor, teacher_log_std: Tensor
) -> Tensor:
    """Measure how far the teacher's Gaussian is from the student's.

    KL(π ‖ p), in closed form and summed over dimensions:
    Σ ln(σₜ / σₛ) + (σₛ² + (μₛ − μₜ)²) / 2σₜ² − ½. Errors of the mean count in units of the
    teacher's std, so the student is exact where the teacher is; it may be narrower than the
    teacher. Zero exactly when π = p.

    Args:
        student_mean: `[..., D]`, before the action is clipped or squashed.
        student_log_std: `[..., D]`, nats; beyond ±20 it counts as ±20 and gets no gradient.
        teacher_mean: `[..., D]`, on the same scale as the student's.
        teacher_log_std: `[..., D]`, nats, likewise limited to ±20; the loss grows like 1 ÷ σₜ².

    Returns:
        `[...]`, nats, non-negative up to rounding.

    Raises:
        ValueError: shapes do not fit.

    Source: Czarnecki et al. 2019, "Distilling Policy Distillation", as the distance to the
    teacher under the student's own actions.
    """
    _check_gaussians(student_mean, student_log_std, teacher_mean, teacher_log_std)
    return _kl(student_mean, student_log_std, teacher_mean.detach(), teacher_log_std.detach())


def mean_mse(student_actions: Tensor, teacher_actions: Tensor, *, scale: Tensor | None = None) -> Tensor:
    """Measure the squared distance between the student's and the teacher's actions.

    Σ ((aₛ − aₜ) / scale)², summed over dimensions, not averaged. For students that name one
    action instead of a distribution.

    Args:
        student_actions: `[..., D]`, actions, or means, in any unit.
        teacher_actions: `[..., D]`, in the same unit.
        scale: `[D]`, > 0, in the same unit: what an error of 1 is. Half the width of the box
            makes one of width 200 and one of width 2 count alike. None: the unit itself.

    Returns:
        `[...]`, squared multiples of the scale, non-negative.

    Raises:
        ValueError: shapes do not fit, or a scale is not a finite number > 0.
    """
    return _scaled_error(student_actions, teacher_actions, scale).square().sum(dim=-1)


def mean_huber(
    student_actions: Tensor, teacher_actions: Tensor, *, scale: Tensor | None = None, delta: float = 1.0
) -> Tensor:
    """Measure the distance between the student's and the teacher's actions, large errors linearly.

    Σ h((aₛ − aₜ) / scale) with h(e) = e² / 2 up to |e| = delta and delta · (|e| − delta / 2)
    beyond, summed over dimensions. Rare states in which the student is far off then do not
    outweigh all others. Within delta it is half of `mean_mse`.

    Args:
        student_actions: `[..., D]`, actions, or means, in any unit.
        teacher_actions: `[..., D]`, in the same unit.
        scale: `[D]`, > 0, in the same unit: what an error of 1 is. None: the unit itself.
        delta: > 0, in multiples of the scale: from where on the loss is linear.

    Returns:
        `[...]`, squared multiples of the scale, non-negative.

    Raises:
        ValueError: shapes do not fit, or a scale or delta is not a finite number > 0.

    Source: Huber 1964, "Robust Estimation of a Location Parameter".
    """
    if not 0 < delta < math.inf:
        raise ValueError(f"delta must be a finite number > 0, got {delta}.")
    error = _scaled_error(student_actions, teacher_actions, scale)
    return functional.huber_loss(error, error.new_zeros(()).expand_as(error), reduction="none", delta=delta).sum(dim=-1)


def _kl(mean_p: Tensor, log_std_p: Tensor, mean_q: Tensor, log_std_q: Tensor) -> Tensor:
    """Return KL(p ‖ q), `[...]`, of diagonal Gaussians `[..., D]`; both may carry gradient."""
    log_std_p, log_std_q = (each.float().clamp(-_LOG_STD_LIMIT, _LOG_STD_LIMIT) for each in (log_std_p, log_std_q))
    # With r = ln(σp / σq): ½ (e^2r − 1 − 2r), by expm1 since near equality e^2r − 1 loses its digits.
    doubled = 2 * (log_std_p - log_std_q)
    distance = (mean_p.float() - mean_q.float()) * (-log_std_q).exp()
    return 0.5 * (doubled.expm1() - doubled + distance.square()).sum(dim=-1)


def _scaled_error(student: Tensor, teacher: Tensor, scale: Tensor | None) -> Tensor:
    check_shapes("... D", student_actions=student, teacher_actions=teacher)
    error = student.float() - teacher.detach().float()
    if scale is None:
        return error
    if scale.shape != student.shape[-1:]:
        raise ValueError(f"scale must be [{student.shape[-1]}], one number per dimension, got {list(scale.shape)}.")
    if not (scale.isfinite().all() and (scale > 0).all()):
        raise ValueError(f"scale must hold finite numbers > 0, got {scale.tolist()}.")
    return error / scale.detach().to(error)


def _check_gaussians(
    student_mean: Tensor, student_log_std: Tensor, teacher_mean: Tensor, teacher_log_std: Tensor
) -> None:
    check_shapes(
        "... D",
        student_mean=student_mean,
        student_log_std=student_log_std,
        teacher_mean=teacher_mean,
        teacher_log_std=teacher_log_std,
    )
