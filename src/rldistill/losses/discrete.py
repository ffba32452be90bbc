"""Distillation losses for discrete actions.

Every loss takes student outputs first and teacher outputs second, both `[..., A]` (`[B, A]` rows, or `[T, B, A]`
windows of time), returns one value per observation, `[...]`, and leaves weighting and averaging to `losses.reduce`. The
teacher's scores are its Q-values or its logits. They never carry gradient. Whatever the dtype of the inputs (float16
and bfloat16 included), arithmetic and result are float32.

The Kullback-Leibler losses differ in what the temperature divides and in who averages:

    sharpened_kl   KL(softmax(teacher / temperature) ‖ softmax(student))
    softened_kl    KL(softmax(teacher / temperature) ‖ softmax(student / temperature)) · temperature²
    reverse_kl     KL(softmax(student) ‖ softmax(teacher / temperature))
"""

import math

from torch import Tensor
from torch.nn import functional

from rldistill.types import check_shapes


def nll(student_logits: Tensor, teacher_scores: Tensor) -> Tensor:
    """Measure how unlikely the student finds the teacher's greedy action.

    −log π(a*) with π = softmax(student_logits), a* = argmax(teacher_scores). Of equal best
    scores the first counts, as in greedy play.

    Args:
        student_logits: `[..., A]`, unnormalised log-probabilities.
        teacher_scores: `[..., A]`, Q-values or logits, any scale: only their order matters.

    Returns:
        `[...]`, nats, non-negative; 0 is reached only in the limit of a certain student.

    Source: Rusu et al. 2015, "Policy Distillation", section 3 (loss NLL).
    """
    check_shapes("... A", student_logits=student_logits, teacher_scores=teacher_scores)
    greedy = teacher_scores.argmax(dim=-1)
    # cross_entropy wants the actions in dimension 1: rows are laid out flat for it.
    rows = student_logits.float().reshape(-1, student_logits.shape[-1])
    losses = functional.cross_entropy(rows, greedy.flatten(), reduction="none")
    return losses.view(greedy.shape)


def q_mse(student_q_values: Tensor, teacher_q_values: Tensor) -> Tensor:
    """Measure the squared distance between the student's and the teacher's Q-values.

    ‖q_teacher − q_student‖², summed over actions, not averaged. The student's outputs become
    Q-values on the teacher's scale, as good for a value-based learner as for play.

    Args:
        student_q_values: `[..., A]`, expected returns.
        teacher_q_values: `[..., A]`, expected returns on the scale that the student is to learn.

    Returns:
        `[...]`, squared units of the return, non-negative.

    Source: Rusu et al. 2015, "Policy Distillation", section 3 (loss MSE).
    """
    check_shapes("... A", student_q_values=student_q_values, teacher_q_values=teacher_q_values)
    return (student_q_values.float() - teacher_q_values.detach().float()).square().sum(dim=-1)


def sharpened_kl(student_logits: Tensor, teacher_scores: Tensor, *, temperature: float) -> Tensor:
    """Measure how far the student's policy is from the teacher's sharpened scores.

    KL(p ‖ π) with p = softmax(teacher_scores / temperature), π = softmax(student_logits).
    Only the teacher is tempered: Q-values of neighbouring actions differ little, so a
    temperature well below 1 is needed before their order shows. Logits are a policy already:
    temperature 1 leaves it as it is. Zero exactly when π = p.

    Args:
        student_logits: `[..., A]`, unnormalised log-probabilities.
        teacher_scores: `[..., A]`, Q-values or logits, any scale.
        temperature: > 0; the paper uses 0.01 on Q-values of reward-clipped Atari.

    Returns:
        `[...]`, nats, non-negative up to rounding.

    Raises:
        ValueError: shapes do not fit, or the temperature is not a finite number > 0.

    Source: Rusu et al. 2015, "Policy Distillation", section 3 (loss KL).
    """
    check_shapes("... A", student_logits=student_logits, teacher_scores=teacher_scores)
    _check_temperature(temperature)
    return _kl(_log_policy(teacher_scores.detach(), temperature), _log_policy(student_logits))


def softened_kl(student_logits: Tensor, teacher_scores: Tensor, *, temperature: float) -> Tensor:
    """Measure how far the student is from the teacher when both are tempered alike.

    KL(p ‖ π) · temperature² with p = softmax(teacher_scores / temperature) and
    π = softmax(student_logits / temperature). The factor keeps the gradient's size while the
    temperature changes. As the temperature grows, the loss tends to the squared distance of
    the centred scores ÷ 2A. Zero exactly when scores are equal up to a constant.

    Args:
        student_logits: `[..., A]`, unnormalised log-probabilities.
        teacher_scores: `[..., A]`, Q-values or logits; the student learns their scale.
        temperature: > 0; above 1 it softens, 1 makes the loss equal to `sharpened_kl` at 1.

    Returns:
        `[...]`, nats · temperature², non-negative up to rounding.

    Raises:
        ValueError: shapes do not fit, or the temperature is not a finite number > 0.

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2, as a
    divergence where the paper writes a cross-entropy (same gradient, zero at equality).
    """
    check_shapes("... A", student_logits=student_logits, teacher_scores=teacher_scores)
    _check_temperature(temperature)
    divergence = _kl(_log_policy(teacher_scores.detach(), temperature), _log_policy(student_logits, temperature))
    return divergence * temperature**2


def reverse_kl(student_logits: Tensor, teacher_scores: Tensor, *, temperature: float) -> Tensor:
    """Measure how far the student strays to actions the teacher's policy avoids.

    KL(π ‖ p) with π = softmax(student_logits), p = softmax(teacher_scores / temperature): the
    expectation is the student's, so it may settle on one of several good actions where
    `sharpened_kl` must cover all. The student is not tempered. Zero exactly when π = p.

    Args:
        student_logits: `[..., A]`, unnormalised log-probabilities.
        teacher_scores: `[..., A]`, Q-values or logits, any scale.
        temperature: > 0; the loss grows like 1 ÷ temperature for a student that disagrees.

    Returns:
        `[...]`, nats, non-negative up to rounding.

    Raises:
        ValueError: shapes do not fit, or the temperature is not a finite number > 0.

    Source: Czarnecki et al. 2019, "Distilling Policy Distillation", as the distance to the
    teacher under the student's own actions; the teacher's temperature is ours.
    """
    check_shapes("... A", student_logits=student_logits, teacher_scores=teacher_scores)
    _check_temperature(temperature)
    return _kl(_log_policy(student_logits), _log_policy(teacher_scores.detach(), temperature))


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}.")
    if math.isinf(temperature):
        raise ValueError(f"temperature must be finite, got {temperature}.")


def _log_policy(scores: Tensor, temperature: float = 1.0) -> Tensor:
    """Return log softmax(scores / temperature), `[..., A]`, in float32."""
    scores = scores.float()
    if temperature == 1.0:  # the softmax centres by itself
        return functional.log_softmax(scores, dim=-1)
    # Centre first: 1000.01 / 0.01 rounds away the digits that tell actions apart, 0.01 / 0.01 does not.
    centred = scores - scores.detach().amax(dim=-1, keepdim=True)
    return functional.log_softmax(centred / temperature, dim=-1)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p ‖ q), `[...]`, from log-probabilities `[..., A]`; both may carry gradient."""
    # log_target avoids log(0): at 0.01 most of a teacher's probabilities underflow.
    return functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)
