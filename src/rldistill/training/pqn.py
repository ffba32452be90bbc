"""PQN: Q-learning on parallel environments without replay or target network.

Gallici et al. 2024, "Simplifying Deep Temporal Difference Learning" (arXiv 2407.04811): λ-returns over short rollouts,
LayerNorm after every layer of the torso, RAdam. Deviations: 32 environments instead of 128; the learning rate falls
linearly to 0; convolutions are normalised over channels and space together, the authors' over channels at each pixel;
and ε falls to 0.05, the evaluation protocol's own, instead of 0.001 (trained down to 0.01, a Pong teacher loses several
points when 5 % of its play is random).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from rldistill.data import Replay
from rldistill.errors import NumericalError, UsageError
from rldistill.networks import Network
from rldistill.networks.memory import aligned
from rldistill.networks.precision import Precision, autocast
from rldistill.options.declaration import Above, Count, Options, Share
from rldistill.options.shared import NumEnvs
from rldistill.schedules import linear
from rldistill.training.stream import IterationRecord, Rollout, TrainingStream
from rldistill.value_learning import q_lambda_returns


@dataclass(frozen=True)
class PQNSettings(Options):
    """Settings of PQN, with the deviations from the paper that the module names."""

    num_envs: NumEnvs = 32  # environments stepped in parallel
    rollout_length: Count = 32  # steps in each environment between updates
    num_epochs: Count = 2  # passes over each rollout
    num_minibatches: Count = 8  # gradient steps per pass
    learning_rate: Annotated[float, Above(0)] = 2.5e-4  # of RAdam at the start; falls linearly to 0 over the run
    max_gradient_norm: Annotated[float, Above(0)] = 10.0  # gradients are scaled down to this norm
    gamma: Share = 0.99  # discount of a step
    return_lambda: Share = 0.65  # mixes one-step and longer returns
    exploration_start: Share = 1.0  # ε at the start
    exploration_end: Share = 0.05  # ε after `exploration_fraction` of the run
    exploration_fraction: Share = 0.1  # share of the run over which ε falls linearly
    repeat_exponent: Annotated[float, Above(1)] | None = None  # of `Exploration`
    clip_rewards: bool = True  # to [−1, 1] in training
    cut_at_life_loss: bool = True  # a lost life ends the return in training

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps_per_rollout % self.num_minibatches:
            raise UsageError(
                f"num_minibatches must divide num_envs × rollout_length, got {self.num_minibatches} "
                f"and {self.steps_per_rollout}."
            )

    @property
    def steps_per_rollout(self) -> int:
        """Decisions in one rollout, over all environments."""
        return self.num_envs * self.rollout_length

    def exploration_epsilon(self, progress: float) -> float:
        """Return ε at a share of the run in [0, 1]."""
        if self.exploration_fraction == 0:
            return self.exploration_end
        return linear(self.exploration_start, self.exploration_end, self.exploration_fraction)(min(progress, 1.0))


class PQNLearner:
    """Network (trained in place) and optimiser of PQN; `generator` shuffles minibatches."""

    def __init__(
        self, network: Network, settings: PQNSettings, *, precision: Precision, generator: torch.Generator
    ) -> None:
        self.network = network
        self.settings = settings
        self._device = next(network.parameters()).device
        self._autocast = autocast(precision, self._device)
        self._generator = generator
        self.optimizer = torch.optim.RAdam(network.parameters(), lr=settings.learning_rate)

    @torch.inference_mode()
    def q_values(self, observations: Tensor, head: int = 0) -> Tensor:
        """Return one head's Q-values `[B, A]` for observations `[B, ...]`, without gradient."""
        with self._autocast():
            return self.network(aligned(observations.to(self._device)), head).outputs

    def learn(self, rollout: Rollout, *, progress: float, head: int = 0) -> float:
        """Fit Q to the λ-returns of one rollout of a head's task.

        The share of the run that is done, `progress` in [0, 1], sets the learning rate.

        Returns:
            Mean loss, ½(q − G)², over all minibatches.

        Raises:
            NumericalError: the loss is NaN or infinite.
        """
        settings = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * (1.0 - progress)
        returns = q_lambda_returns(
            rollout.rewards,
            rollout.discounts,
            rollout.next_values,
            lambda_=settings.return_lambda,
            truncated=rollout.truncated,
        )
        # A GPU gets the rollout once and is waited for once: minibatches are gathered where they are used.
        observations, actions, targets = (
            column.to(self._device)
            for column in (rollout.observations.flatten(0, 1), rollout.actions.flatten(), returns.flatten())
        )
        total = torch.zeros((), device=self._device)
        for _ in range(settings.num_epochs):
            order = torch.randperm(len(actions), generator=self._generator).to(self._device)
            for rows in order.chunk(settings.num_minibatches):
                total += self._update(observations[rows], actions[rows], targets[rows], head)
        mean_loss = float(total) / (settings.num_epochs * settings.num_minibatches)
        if not math.isfinite(mean_loss):
            raise NumericalError(
                f"PQN diverged: the loss of a rollout is {mean_loss}. Begin anew with --overwrite and a "
                "lower learning rate."
            )
        return mean_loss

    def _update(self, observations: Tensor, actions: Tensor, targets: Tensor, head: int) -> Tensor:
        with self._autocast():
            outputs = self.network(observations, head).outputs
        taken = outputs.float().gather(1, actions[:, None]).squeeze(1)
        loss = 0.5 * (taken - targets).square().mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.max_gradient_norm)
        self.optimizer.step()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes while learning."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])


class PQNTraining:
    """PQN on one or more tasks, as `Training`: an iteration is one rollout of the task with the fewest steps.

    The learner has a head, and there is a stream, for each task; `num_steps`, those of a task in the whole run, are the
    unit of every schedule; `rng` draws the exploration.
    """

    def __init__(
        self, learner: PQNLearner, streams: Sequence[TrainingStream], *, num_steps: int, rng: np.random.Generator
    ) -> None:
        self._learner = learner
        self._streams = streams
        self._num_steps = num_steps
        self._rng = rng

    @property
    def replays(self) -> Sequence[Replay]:
        """None: it learns from fresh steps alone."""
        return ()

    def iterate(self, steps: Sequence[int]) -> IterationRecord:
        """Play one rollout and learn from it."""
        task = min(range(len(steps)), key=steps.__getitem__)
        settings, progress = self._learner.settings, steps[task] / self._num_steps
        epsilon = settings.exploration_epsilon(progress)
        rollout = self._streams[task].rollout(
            partial(self._learner.q_values, head=task),
            settings.rollout_length,
            exploration_epsilon=epsilon,
            rng=self._rng,
        )
        loss = self._learner.learn(rollout, progress=progress, head=task)
        return IterationRecord(task, settings.steps_per_rollout, loss, epsilon, rollout.scores)

    def state_dict(self) -> dict[str, Any]:
        """Return the learner's state."""
        return self._learner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._learner.load_state_dict(state)

    def close(self) -> None:
        """Free the environments."""
        for stream in self._streams:
            stream.close()
