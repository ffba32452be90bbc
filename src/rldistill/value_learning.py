"""Targets for value-based learners: pure functions of what was seen and what is expected.

Time runs along the first axis. Entry t belongs to the transition from state t to state t + 1:
its reward, its discount (γ, or 0 where the episode terminated) and the value of the state it
led to, which for a truncated episode is its own last state, not the first of the next.
"""

import torch
from torch import Tensor

from rldistill.types import check_shapes


def q_lambda_returns(
    rewards: Tensor, discounts: Tensor, next_values: Tensor, *, lambda_: float, truncated: Tensor | None = None
) -> Tensor:
    """Return Peng's Q(λ) returns, the targets of Q-learning with λ-mixed bootstraps.

    G_t = r_t + discount_t · (λ · G_{t+1} + (1 − λ) · v_{t+1}), with v = max_a q; the last step
    and truncated ones bootstrap from v_{t+1} alone. λ = 0 gives one-step targets, λ = 1 sums
    rewards to the end of the rollout.

    Args:
        rewards: `[T, N]`.
        discounts: `[T, N]`, in [0, 1]; 0 where the episode terminated.
        next_values: `[T, N]`, max_a q of the state that step t led to.
        lambda_: in [0, 1].
        truncated: `[T, N]`, bool, True where an episode was cut off at step t: what follows
            belongs to another episode. None: no episode was.

    Returns:
        `[T, N]`, in the unit and dtype of the rewards, without gradient: targets stand still.

    Raises:
        ValueError: shapes do not fit, or λ is out of range.

    Source: Gallici et al. 2024, "Simplifying Deep Temporal Difference Learning" (PQN), after
    Peng and Williams 1994, "Incremental Multi-Step Q-Learning": no cut at exploring actions.
    The treatment of truncation is ours.
    """
    if truncated is None:
        truncated = torch.zeros_like(rewards, dtype=torch.bool)
    check_shapes("T N", rewards=rewards, discounts=discounts, next_values=next_values, truncated=truncated)
    if not 0 <= lambda_ <= 1:
        raise ValueError(f"lambda_ must be in [0, 1], got {lambda_}.")
    returns = torch.empty_like(rewards)
    # What follows the last step is not known, what follows a truncation is not ours: one and the same case.
    is_cut = truncated.clone()
    is_cut[-1:] = True
    with torch.no_grad():
        next_returns = rewards.new_zeros(rewards.shape[1:])
        for t in reversed(range(len(rewards))):
            mixed = lambda_ * next_returns + (1 - lambda_) * next_values[t]
            # where, not a factor of 0: not even a NaN leaks from the next episode.
            bootstraps = torch.where(is_cut[t], next_values[t], mixed)
            next_returns = returns[t] = rewards[t] + discounts[t] * bootstraps
    return returns
