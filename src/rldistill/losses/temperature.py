"""A temperature for a teacher whose scale nobody knows: relative to the gaps between its actions.

What a temperature does to a teacher depends on the gap between its best two actions divided
by the temperature alone. The paper's 0.01 suits Q-values of reward-clipped Atari, where that
gap is about 0.07 (Pong): 7 temperatures. The same multiple suits teachers of any scale.
"""

import torch
from torch import Tensor

from rldistill.errors import NumericalError, UsageError
from rldistill.types import ActionLayout, check_shapes

GAP_IN_TEMPERATURES = 7.0
"""At the median gap the better of the best two actions is then e⁷ ≈ 1,100 times as likely."""
# Masks put −∞ or −1e9 where an action is not allowed; no score that was learned is so low.
_RULED_OUT = -1e8


def auto_temperature(scores: Tensor, layout: ActionLayout) -> float:
    """Return the temperature that suits a teacher's own scale.

    The median over rows of the gap between the best two actions' scores, ÷ 7. Gaps that say
    nothing are left out: two best actions whose scores are equal as far as float32 can tell,
    and rows in which all but one action are ruled out (below −1e8). Where several things are chosen
    at once, each choice of each row has a gap of its own; a binary one's is |logit|.

    Args:
        scores: `[N, O]`, a sample of what the teacher gave: Q-values or logits.
        layout: of the teacher's actions.

    Returns:
        > 0 and finite, in the unit of the scores.

    Raises:
        NumericalError: a score is NaN or +∞.
        UsageError: no row has a gap: the teacher prefers no action, or there is but one.
    """
    check_shapes("N O", scores=scores)
    scores = scores.detach().double()
    if (scores.isnan() | scores.isposinf()).any():
        raise NumericalError("temperature: got NaN or infinity among the teacher's scores, expected numbers.")
    gaps = torch.cat([_gaps(block) for block in _choices(scores, layout)]) if len(scores) else scores.new_empty(0)
    if len(gaps) == 0:
        raise UsageError(
            f"temperature: got auto for a teacher that prefers no action in any of {len(scores)} rows. "
            "Give a number, or see whether the teacher was trained."
        )
    return gaps.median().item() / GAP_IN_TEMPERATURES


def _choices(scores: Tensor, layout: ActionLayout) -> list[Tensor]:
    """Return the scores of every choice, `[·, A]` each."""
    if layout.kind == "multi_binary":
        flat = scores.reshape(-1)
        return [torch.stack([torch.zeros_like(flat), flat], dim=-1)]
    return list(scores.split(list(layout.sizes), dim=-1))


def _gaps(scores: Tensor) -> Tensor:
    """Return the gaps of those rows of `[N, A]` that have one."""
    if scores.shape[1] < 2:
        return scores.new_empty(0)
    best, second = scores.topk(2, dim=-1).values.unbind(dim=-1)
    gaps = best - second
    # Targets are stored in float32: a smaller difference is its rounding.
    rounding = torch.finfo(torch.float32).eps * torch.maximum(best.abs(), second.abs())
    return gaps[(second > _RULED_OUT) & (gaps > rounding)]
