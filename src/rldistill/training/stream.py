"""What a learner plays and how every way of training looks from outside: steps, rollouts, iterations.

Training habits live here and nowhere else: rewards clipped to [−1, 1], the discount cut at a
lost life while the game goes on. What is *reported* is the raw score of whole games.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rldistill.data import Replay
from rldistill.envs import EpisodeEnvs
from rldistill.observations import flat
from rldistill.training.exploration import Exploration

QFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class StreamStep:
    """One step of N environments."""

    observations: NDArray[np.generic]  # `[N, ...]`, what was decided on
    rewards: NDArray[np.float32]  # `[N]`, float32, after the training habits
    discounts: NDArray[np.float32]  # `[N]`, float32: γ, or 0 at a terminal state or a lost life
    truncated: NDArray[np.bool_]  # `[N]`, bool
    ended: NDArray[np.bool_]  # `[N]`, bool: the game is over, for whichever reason
    next_observations: NDArray[np.generic]  # `[N, ...]`, what the step led to; at a game's end its last observation
    scores: tuple[float, ...]  # raw, of the whole games that ended with it


@dataclass(frozen=True)
class Rollout:
    """T steps of N environments."""

    observations: Tensor  # `[T, N, ...]`, as the environment gave them
    actions: Tensor  # `[T, N]`, int64
    rewards: Tensor  # `[T, N]`, after the training habits
    discounts: Tensor  # `[T, N]`: γ, or 0 at a terminal state or a lost life
    next_values: Tensor  # `[T, N]`, max_a q of the state that each step led to
    truncated: Tensor  # `[T, N]`, bool
    scores: tuple[float, ...]  # raw, of the whole games that ended in these steps


class TrainingStream:
    """Plays ε-greedily on N environments that begin new games by themselves.

    Args:
        envs: fresh environments, closed with the stream.
        num_actions: number of discrete actions.
        first_seed: environment i begins with seed `first_seed + i` and goes on with its own generator.
        gamma: discount of a step.
        clip_rewards: to [−1, 1].
        cut_at_life_loss: whether a lost life ends the return (never the game).
        repeat_exponent: of `Exploration`.
        on_step: shown every step.
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
        repeat_exponent: float | None = None,
        on_step: Callable[[StreamStep], None] | None = None,
    ) -> None:
        self._on_step = on_step
        self._envs = envs
        self.num_envs = envs.num_envs
        self.num_actions = num_actions
        self.exploration = Exploration(envs.num_envs, repeat_exponent)
        self._gamma = gamma
        self._clip_rewards = clip_rewards
        self._cut_at_life_loss = cut_at_life_loss
        slots = range(envs.num_envs)
        # A learner's network sees all parts of an observation, side by side.
        self._observations = flat(envs.reset(slots, [first_seed + slot for slot in slots]))
        self._lives = np.zeros(envs.num_envs, np.int32)
        self._scores = np.zeros(envs.num_envs)

    @property
    def observations(self) -> NDArray[np.generic]:
        """`[N, ...]`, what is to be decided on next."""
        return self._observations

    def close(self) -> None:
        """Free the environments."""
        self._envs.close()

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
        num_envs = self.num_envs
        observations: list[Tensor] = []
        actions = np.zeros((length, num_envs), np.int64)
        rewards = np.zeros((length, num_envs), np.float32)
        discounts = np.zeros((length, num_envs), np.float32)
        truncated = np.zeros((length, num_envs), np.bool_)
        next_values = torch.zeros(length, num_envs)
        scores: list[float] = []
        q_values = q_function(torch.from_numpy(self._observations)).float().cpu()
        for t in range(length):
            actions[t] = self.exploration.choose(q_values, exploration_epsilon, rng)
            step = self.step(actions[t])
            observations.append(torch.from_numpy(step.observations))
            rewards[t], discounts[t], truncated[t] = step.rewards, step.discounts, step.truncated
            scores += step.scores
            q_values = q_function(torch.from_numpy(self._observations)).float().cpu()
            next_values[t] = q_values.amax(dim=1)
            if truncated[t].any():
                # The state that was cut off, not the first of the next game.
                cut = torch.from_numpy(truncated[t])
                last_values = q_function(torch.from_numpy(step.next_observations)).float().cpu().amax(dim=1)
                next_values[t, cut] = last_values[cut]
        return Rollout(
            torch.stack(observations),
            torch.from_numpy(actions),
            torch.from_numpy(rewards),
            torch.from_numpy(discounts),
            next_values,
            torch.from_numpy(truncated),
            tuple(scores),
        )

    def step(self, actions: NDArray[np.int64]) -> StreamStep:
        """Step, record games that ended, begin new ones.

        Args:
            actions: `[N]`.
        """
        observations = self._observations
        step = self._envs.step(actions)
        terminal = step.terminated.copy()
        if step.lives is not None:
            if self._cut_at_life_loss:
                terminal |= step.lives < self._lives
            self._lives = step.lives.copy()
        self._scores += step.rewards
        self._observations = following = flat(step.observations)
        ended = [int(slot) for slot in np.flatnonzero(step.ended)]
        scores = tuple(self._scores[ended].tolist())
        if ended:
            self._observations = flat(self._envs.reset(ended, None))
            self._scores[ended], self._lives[ended] = 0.0, 0
            self.exploration.stop(ended)
        rewards = np.clip(step.rewards, -1.0, 1.0) if self._clip_rewards else step.rewards
        seen = StreamStep(
            observations,
            rewards.astype(np.float32),
            np.where(terminal, 0.0, self._gamma).astype(np.float32),
            step.truncated,
            step.ended,
            following,
            scores,
        )
        if self._on_step:
            self._on_step(seen)
        return seen


@dataclass(frozen=True)
class IterationRecord:
    """Some play of one task, and what was learned meanwhile."""

    task: int  # index of the task that was played
    num_steps: int  # decisions of it, over all environments
    loss: float | None  # mean over the updates; None where there was none yet
    exploration_epsilon: float  # chance of a random action, at the iteration's beginning
    scores: tuple[float, ...]  # raw, of the whole games that ended


class Training(Protocol):
    """Plays one or more tasks with one network and learns from them; whoever runs it counts the steps."""

    @property
    def replays(self) -> Sequence[Replay]:
        """What it keeps of past play, one per task; none where it learns from fresh steps alone."""
        ...

    def iterate(self, steps: Sequence[int]) -> IterationRecord:
        """Play and learn for a while.

        Args:
            steps: of each task so far: what schedules go by, and which task is due.

        Raises:
            NumericalError: the learner diverged.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes, but for replays and environments."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        ...

    def close(self) -> None:
        """Free the environments."""
        ...
