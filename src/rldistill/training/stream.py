"""A learner's stream of experience: fixed-length rollouts of many environments at once.

Training habits live here and nowhere else: rewards clipped to [−1, 1], the discount cut at a
lost life while the game goes on. What is *reported* is the raw score of whole games.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rldistill.envs import EpisodeEnvs

QFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class GameRecord:
    """One whole game of training play: raw score, decisions, and whether it was cut by a limit."""

    score: float
    length: int
    truncated: bool


@dataclass(frozen=True)
class Rollout:
    """T steps of N environments.

    Attributes:
        observations: `[T, N, ...]`, as the environment gave them.
        actions: `[T, N]`, int64.
        rewards: `[T, N]`, after the training habits.
        discounts: `[T, N]`: γ, or 0 at a terminal state or a lost life.
        next_values: `[T, N]`, max_a q of the state that each step led to.
        truncated: `[T, N]`, bool.
        games: whole games that ended in these steps.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    discounts: Tensor
    next_values: Tensor
    truncated: Tensor
    games: tuple[GameRecord, ...]


class TrainingStream:
    """Plays ε-greedily on N environments that begin new games by themselves.

    Args:
        envs: fresh environments.
        num_actions: number of discrete actions.
        first_seed: environment i begins with seed `first_seed + i` and goes on with its own generator.
        gamma: discount of a step.
        clip_rewards: to [−1, 1].
        cut_at_life_loss: whether a lost life ends the return (never the game).
    """

    def __init__(
        self,
        envs: EpisodeEnvs,
        num_actions: int,
        *,
        first_seed: int,
        gamma: float,
        clip_rewards: bool = True,
        cut_at_life_loss: bool = True,
    ) -> None:
        self._envs = envs
        self._num_actions = num_actions
        self._gamma = gamma
        self._clip_rewards = clip_rewards
        self._cut_at_life_loss = cut_at_life_loss
        slots = range(envs.num_envs)
        self._observations = envs.reset(slots, [first_seed + slot for slot in slots])
        self._lives = np.zeros(envs.num_envs, np.int32)
        self._scores = np.zeros(envs.num_envs)
        self._lengths = np.zeros(envs.num_envs, np.int64)
        self._games: list[GameRecord] = []

    def rollout(
        self, q_function: QFunction, length: int, *, exploration_epsilon: float, rng: np.random.Generator
    ) -> Rollout:
        """Play `length` steps in every environment.

        Args:
            q_function: observations `[N, ...]` to Q-values `[N, A]`, without gradient.
            length: T.
            exploration_epsilon: chance of a uniformly random action, in [0, 1].
            rng: draws the exploration.
        """
        num_envs = self._envs.num_envs
        observations: list[Tensor] = []
        actions = np.zeros((length, num_envs), np.int64)
        rewards = np.zeros((length, num_envs), np.float32)
        discounts = np.full((length, num_envs), self._gamma, np.float32)
        truncated = np.zeros((length, num_envs), np.bool_)
        next_values = torch.zeros(length, num_envs)
        self._games = []
        q_values = q_function(torch.from_numpy(self._observations)).float().cpu()
        for t in range(length):
            observations.append(torch.from_numpy(self._observations))
            actions[t] = self._explore(q_values, exploration_epsilon, rng)
            rewards[t], terminal, truncated[t], last_observations = self._step(actions[t])
            discounts[t, terminal] = 0.0
            q_values = q_function(torch.from_numpy(self._observations)).float().cpu()
            next_values[t] = q_values.amax(dim=1)
            if truncated[t].any():
                # The state that was cut off, not the first of the next game.
                cut = torch.from_numpy(truncated[t])
                next_values[t, cut] = q_function(torch.from_numpy(last_observations)).float().cpu().amax(dim=1)[cut]
        return Rollout(
            torch.stack(observations),
            torch.from_numpy(actions),
            torch.from_numpy(rewards),
            torch.from_numpy(discounts),
            next_values,
            torch.from_numpy(truncated),
            tuple(self._games),
        )

    def _explore(self, q_values: Tensor, exploration_epsilon: float, rng: np.random.Generator) -> NDArray[np.int64]:
        greedy = q_values.argmax(dim=1).numpy()
        uniform = rng.integers(self._num_actions, size=len(greedy))
        return np.where(rng.random(len(greedy)) < exploration_epsilon, uniform, greedy)

    def _step(
        self, actions: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.generic]]:
        """Step, record games that ended, begin new ones; return rewards, terminal, truncated, last observations."""
        step = self._envs.step(actions)
        terminal = step.terminated.copy()
        if step.lives is not None:
            if self._cut_at_life_loss:
                terminal |= step.lives < self._lives
            self._lives = step.lives.copy()
        self._scores += step.rewards
        self._lengths += 1
        self._observations = step.observations
        ended = [int(slot) for slot in np.flatnonzero(step.ended)]
        if ended:
            self._games += [
                GameRecord(float(self._scores[slot]), int(self._lengths[slot]), bool(step.truncated[slot]))
                for slot in ended
            ]
            self._observations = self._envs.reset(ended, None)
            self._scores[ended], self._lengths[ended], self._lives[ended] = 0.0, 0, 0
        rewards = np.clip(step.rewards, -1.0, 1.0) if self._clip_rewards else step.rewards
        return rewards, terminal, step.truncated, step.observations
