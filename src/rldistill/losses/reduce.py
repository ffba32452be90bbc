"""From one loss per row to the number that is minimised: a separate, named step.

Losses sum over actions; here, and nowhere else, they are averaged over the batch.
"""

from torch import Tensor

from rldistill.types import check_shapes


def mean_over_batch(losses: Tensor, weights: Tensor | None = None) -> Tensor:
    """Average losses over the batch.

    Σ wᵢ lᵢ ÷ Σ wᵢ, the plain mean without weights. Only the ratio of weights matters, and
    doubling the batch leaves the mean; a row of weight 0 might as well be absent, if its loss is finite.

    Args:
        losses: `[...]`, at least one row.
        weights: `[...]`, non-negative, not all 0: a mask, importance, or the share of a task. They carry no gradient.

    Returns:
        `[]`, in the unit of the losses.

    Raises:
        ValueError: no rows, shapes that differ, a negative weight, or weights that sum to 0.
    """
    if losses.numel() == 0:
        raise ValueError("losses must hold at least one row, got none.")
    if weights is None:
        return losses.mean()
    check_shapes("...", losses=losses, weights=weights)
    weights = weights.detach().to(losses.dtype)
    lowest, total = weights.min(), weights.sum()
    if not (lowest >= 0 and total > 0):
        raise ValueError(f"weights must be >= 0 with a sum > 0, got lowest {lowest.item()}, sum {total.item()}.")
    return (weights * losses).sum() / total
