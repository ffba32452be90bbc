"""Tasks balanced by the norms of their gradients: a loss of large numbers must not drown the others in what all use."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# Of the average of a task's norms after each of its batches: those it is made of are 50 batches old, on average.
_KEPT = 0.98


class GradientBalance:
    """Gives each task's loss the factor with which its gradient on the shared layers has the mean norm of all tasks.

        w_i = mean_j(n_j) / n_i,  n_i: running average of ‖∇ L_i‖ over the shared layers.

    Source: Chen et al. 2018, "GradNorm", with α = 0, where all tasks are to have gradients of one norm. Deviations: the
    weights are this fixed point itself, where GradNorm descends to it; norms are averaged over batches, since a batch
    may hold one task alone; and all shared layers count, not the last one.

    Args:
        shared: parameters of the layers that all tasks use.
        heads: of the tasks that are taught.
    """

    def __init__(self, shared: Sequence[Tensor], heads: Sequence[int]) -> None:
        self._shared, self._heads = list(shared), list(heads)
        self._norms: dict[int, float] = {}
        self._counts: dict[int, int] = {}  # of the norms in each average

    def weight(self, head: int) -> float:
        """Return the factor of a task's loss; 1 until every task has been met."""
        if len(self._norms) < len(self._heads):
            return 1.0
        return sum(self._norms.values()) / len(self._norms) / self._norms[head]

    def backward(self, losses: Sequence[Tensor], shares: Sequence[float], heads: Sequence[int]) -> None:
        """Add the gradients of the weighted mean of some tasks' losses, and take note of the norms of each.

        Args:
            losses: one for each task in a batch.
            shares: of the tasks in the batch; their sum is 1.
            heads: of the tasks.
        """
        for loss, share, head in zip(losses, shares, heads, strict=True):
            before = [None if part.grad is None else part.grad.clone() for part in self._shared]
            factor = share * self.weight(head)
            (loss * factor).backward()
            own = [
                part.grad if earlier is None else part.grad - earlier
                for part, earlier in zip(self._shared, before, strict=True)
                if part.grad is not None
            ]
            norm = float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part) for part in own])))
            # Of a loss that is no number the update says so. A head that begins at zero passes nothing on at first.
            if math.isfinite(norm) and norm > 0:
                self._note(head, norm / factor)

    def state_dict(self) -> dict[str, Any]:
        """Return the averages."""
        return {"norms": dict(self._norms), "counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._norms = dict(state["norms"])
        # Earlier builds kept no counts: their averages are taken as ones of many norms.
        self._counts = dict(state.get("counts", dict.fromkeys(self._norms, 1000)))

    def _note(self, head: int, norm: float) -> None:
        """Average norms with weights that fall by age and whose sum is 1, however few there are."""
        count = self._counts[head] = self._counts.get(head, 0) + 1
        mean = self._norms.get(head, 0.0)
        self._norms[head] = mean + (1 - _KEPT) / (1 - _KEPT**count) * (norm - mean)
