"""Targets for value-based learners: pure functions of what was seen and what is expected.

Where there is time, it runs along the first axis. Entry t belongs to the transition from state t to state t + 1:
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
            next_returns = returns[t] = rewards[t] + torch.where(discounts[t] == 0, 0.0, discounts[t] * bootstraps)
    return returns


def n_step_returns(rewards: Tensor, discounts: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a window of steps paid, and how much of the value after it counts.

    R = Σ_t (Π_{k<t} discount_k) · r_t and D = Π_t discount_t: the target is R + D · v of the
    state that the window led to. Where a window is shorter than the others, because its
    episode was cut off, fill it with rewards of 0 and discounts of 1.

    Args:
        rewards: `[T, B]`.
        discounts: `[T, B]`, in [0, 1]; 0 where the return ended: nothing after it counts.

    Returns:
        R and D, `[B]` each.

    Raises:
        ValueError: shapes do not fit.

    Source: Sutton and Barto 2018, "Reinforcement Learning", section 7.1; without correction for
    exploring actions, as in Rainbow (Hessel et al. 2018).
    """
    check_shapes("T B", rewards=rewards, discounts=discounts)
    reached = torch.cat([torch.ones_like(discounts[:1]), discounts]).cumprod(dim=0)
    return (reached[:-1] * rewards).sum(dim=0), reached[-1]


def q_learning_targets(
    rewards: Tensor, discounts: Tensor, next_q_values: Tensor, *, selector_q_values: Tensor | None = None
) -> Tensor:
    """Return the targets of Q-learning, or of double Q-learning.

    r + discount · q(s', argmax_a selector(s', a)). Without a selector of its own, q selects, and
    the target is r + discount · max_a q(s', a).

    Args:
        rewards: `[B]`, of one step or of n (see `n_step_returns`).
        discounts: `[B]`, in [0, 1]; 0 where the return ended.
        next_q_values: `[B, A]`, of the network that evaluates: the target network.
        selector_q_values: `[B, A]`, of the network that selects: the online network, for double Q.

    Returns:
        `[B]`, without gradient.

    Raises:
        ValueError: shapes do not fit.

    Source: Mnih et al. 2015; van Hasselt et al. 2016, "Deep Reinforcement Learning with Double
    Q-learning", equation 4.
    """
    selector = next_q_values if selector_q_values is None else selector_q_values
    check_shapes("B", rewards=rewards, discounts=discounts)
    check_shapes("B A", next_q_values=next_q_values, selector_q_values=selector)
    with torch.no_grad():
        chosen = next_q_values.gather(1, selector.argmax(dim=1, keepdim=True)).squeeze(1)
        # where, not a factor of 0: a value that is no number must not outlive its episode.
        return rewards + torch.where(discounts == 0, 0.0, discounts * chosen)
