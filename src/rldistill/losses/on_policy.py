"""What the student's own actions lead to: the part of the gradient that plain on-policy distillation leaves out.

Where the student acts, its weights decide which states it meets. The loss of a whole episode

    J(θ) = E[ Σ_t γ^t l(π_θ(s_t), π_T(s_t)) ],  the states drawn by π_θ,

has the gradient (policy gradient theorem, with −l as the reward)

    ∇J = E[ Σ_t γ^t ( ∇l(π_θ(s_t), π_T(s_t)) + R_t ∇ln π_θ(a_t | s_t) ) ],  R_t = Σ_{k ≥ 1} γ^k l_{t+k}.

Plain distillation on the student's states takes the first term alone. It is not the gradient of any objective, and it
can go round in circles (Czarnecki et al. 2019). With l = KL(π_θ ‖ π_T), the cross-entropy H(π_θ, π_T) less the entropy
of the student, the whole of it is their entropy-regularised form with the reward ln π_T(a' | s'), whose expectation
over a' is taken here; `docs/losses.md` has the derivation. As usual the outer γ^t is left out.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rldistill.losses.discrete import nll
from rldistill.losses.rows import choice_loss
from rldistill.types import ActionLayout, check_shapes


def future_sums(
    values: NDArray[np.float32], next_steps: NDArray[np.int64], places: NDArray[np.int64], discount: float
) -> NDArray[np.float32]:
    """Return what follows each step in its episode, discounted: R_t = Σ_{k ≥ 1} γ^k v_{t+k}.

    Args:
        values: `[N]`, of steps of any episodes in any order.
        next_steps: `[N]`, the step that follows each; negative where none does, or where it is not known.
        places: `[N]`, of every step in its episode, from 0.
        discount: γ, in [0, 1].

    Returns:
        `[N]`, in the unit of the values; 0 for last steps.
    """
    future = np.zeros_like(values)
    order = np.argsort(-places, kind="stable")
    # All steps of one place at once, the last places first.
    for steps in np.split(order, np.flatnonzero(np.diff(places[order])) + 1):
        going_on = steps[next_steps[steps] >= 0]
        following = next_steps[going_on]
        future[going_on] = discount * (values[following] + future[following])
    return future


def score_term(student_logits: Tensor, actions: Tensor, future: Tensor, layout: ActionLayout) -> Tensor:
    """Return rows whose value is 0 and whose gradient is (R_t − b) ∇ln π_θ(a_t | s_t).

    To be added to the loss of the same rows, whose value it leaves as it is. The baseline b of a row is the mean of the
    others' R and takes most of the variance. Rows of other episodes know nothing of the row's action, and change no
    expectation. Later rows of the same episode do: among rows of few episodes b makes the gradient somewhat smaller.

    Args:
        student_logits: `[N, O]`, as the layout has them.
        actions: `[N, *action_shape]`, drawn by the student.
        future: `[N]`, R_t, the loss of what followed; carries no gradient.
        layout: of the actions: one choice, or several.

    Returns:
        `[N]`, zeros.
    """
    check_shapes("N", future=future)
    negative = choice_loss(nll, layout)(student_logits, _scores_of(actions, layout).to(student_logits.device))
    future = future.detach().float()
    others = (future.sum() - future) / max(len(future) - 1, 1)
    return (future - others) * (negative.detach() - negative)


def _scores_of(actions: Tensor, layout: ActionLayout) -> Tensor:
    """Return scores `[N, O]` whose best choices are the actions."""
    if layout.kind == "multi_binary":
        return actions.float() - 0.5
    choices = actions.long().reshape(len(actions), -1).unbind(dim=1)
    each = [functional.one_hot(chosen, size) for chosen, size in zip(choices, layout.sizes, strict=True)]
    return torch.cat(each, dim=1).float()
