"""DQN: Q-learning from a uniform replay, with a target network that stands still between copies.

Mnih et al. 2015, "Human-level control through deep reinforcement learning" (Nature DQN): 1 M steps of replay, 32
transitions per update, one update per 4 steps, the target network copied every 10,000 updates, TD errors clipped to ±1,
centred RMSProp, ε from 1 to 0.1 over the 1 M steps that follow 50,000 of random play. Deviations: 4 environments are
stepped together, and the updates that are due follow each of their steps; Kaiming-normal weights; steps can be drawn
once their chunk of the replay is sealed (`data.replay`); a truncated game is not an end. Options beyond the paper: Adam
with Dopamine's constants, double Q-learning, n-step returns.
"""

import copy
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rldistill.data import Replay, Transitions
from rldistill.errors import UsageError
from rldistill.networks import Network
from rldistill.networks.memory import aligned
from rldistill.networks.precision import Precision, autocast
from rldistill.options.declaration import Above, Count, Options, Share
from rldistill.options.shared import NumEnvs
from rldistill.schedules import linear
from rldistill.training.optimizers import LEARNING_RATES, make_optimizer
from rldistill.value_learning import q_learning_targets


@dataclass(frozen=True)
class DQNSettings(Options):
    """Settings of DQN, with the deviations from the paper that the module names.

    Attributes:
        num_envs: environments stepped in parallel.
        replay_capacity: newest steps that are kept, of each task.
        learning_starts: steps of play before the first update, of each task.
        steps_per_update: steps of play for each update.
        batch_size: transitions per update.
        target_network_update_period: updates between copies to the target network.
        optimizer: `rmsprop` or `adam`.
        learning_rate: of the optimiser, constant.
        gamma: discount of a step.
        num_return_steps: rewards that are summed before the value takes over.
        double_q: the online network selects the next action, the target network evaluates it.
        exploration_start: ε until learning starts.
        exploration_end: ε after `exploration_steps` more steps.
        exploration_steps: steps over which ε falls linearly.
        clip_rewards: to [−1, 1] in training.
        cut_at_life_loss: a lost life ends the return in training.
    """

    num_envs: NumEnvs = 4
    replay_capacity: Count = 1_000_000
    learning_starts: Count = 50_000
    steps_per_update: Count = 4
    batch_size: Count = 32
    target_network_update_period: Count = 10_000
    optimizer: Literal["rmsprop", "adam"] = "rmsprop"
    learning_rate: Annotated[float, Above(0)] = LEARNING_RATES["rmsprop"]
    gamma: Share = 0.99
    num_return_steps: Count = 1
    double_q: bool = False
    exploration_start: Share = 1.0
    exploration_end: Share = 0.1
    exploration_steps: Count = 1_000_000
    clip_rewards: bool = True
    cut_at_life_loss: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        window = (self.num_return_steps + 1) * self.num_envs
        if self.replay_capacity < window:
            raise UsageError(
                f"replay_capacity must hold (num_return_steps + 1) × num_envs = {window} steps, got "
                f"{self.replay_capacity}: fewer make no transition."
            )
        if self.learning_starts > self.replay_capacity:
            raise UsageError(
                f"learning_starts must not exceed replay_capacity, got {self.learning_starts} and "
                f"{self.replay_capacity}."
            )

    def exploration_epsilon(self, step: int) -> float:
        """Return ε after so many steps of a task."""
        progress = min(max(step - self.learning_starts, 0) / self.exploration_steps, 1.0)
        return linear(self.exploration_start, self.exploration_end)(progress)


class DQNLearner:
    """Online network, target network and optimiser of DQN.

    Args:
        network: the online network, trained in place.
        settings: see there.
        precision: of forward passes.

    Attributes:
        num_updates: so far.
    """

    def __init__(self, network: Network, settings: DQNSettings, *, precision: Precision) -> None:
        self.network = network
        self.settings = settings
        self.target_network = copy.deepcopy(network).requires_grad_(False)
        self.num_updates = 0
        self._device = next(network.parameters()).device
        self._autocast = autocast(precision, self._device)
        self.optimizer = make_optimizer(
            settings.optimizer,
            list(network.parameters()),
            learning_rate=settings.learning_rate,
            batch_size=settings.batch_size,
        )

    @torch.inference_mode()
    def q_values(self, observations: Tensor, head: int = 0) -> Tensor:
        """Return one head's Q-values `[B, A]` for observations `[B, ...]`, without gradient."""
        with self._autocast():
            return self.network(aligned(observations.to(self._device)), head).outputs

    def learn_from(self, replay: Replay, rng: np.random.Generator, head: int = 0) -> Tensor:
        """Draw a batch, take one gradient step with it; return the loss."""
        return self.learn(replay.transitions(replay.draw(self.settings.batch_size, rng)), head)

    def learn(self, batch: Transitions, head: int = 0) -> Tensor:
        """Take one gradient step, then copy the target network where that is due.

        Args:
            batch: B transitions of one task.
            head: of that task.

        Returns:
            The mean over the batch of ½δ² where |δ| ≤ 1, |δ| − ½ beyond: the gradient by the TD
            error δ is δ clipped to ±1. On the device, without gradient.
        """
        targets = self._targets(batch, head)
        with self._autocast():
            outputs = self.network(aligned(torch.from_numpy(batch.observations).to(self._device)), head).outputs
        actions = torch.from_numpy(batch.actions.astype(np.int64)).to(self._device)
        taken = outputs.float().gather(1, actions[:, None]).squeeze(1)
        loss = functional.huber_loss(taken, targets, delta=1.0)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.num_updates += 1
        if self.num_updates % self.settings.target_network_update_period == 0:
            self.target_network.load_state_dict(self.network.state_dict())
        return loss.detach()

    @torch.no_grad()
    def _targets(self, batch: Transitions, head: int) -> Tensor:
        next_observations = aligned(torch.from_numpy(batch.next_observations).to(self._device))
        with self._autocast():
            next_q_values = self.target_network(next_observations, head).outputs.float()
            selector = self.network(next_observations, head).outputs.float() if self.settings.double_q else None
        rewards, discounts = (torch.from_numpy(values).to(self._device) for values in (batch.returns, batch.discounts))
        return q_learning_targets(rewards, discounts, next_q_values, selector_q_values=selector)

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes while learning."""
        return {
            "network": self.network.state_dict(),
            "target_network": self.target_network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "num_updates": self.num_updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.target_network.load_state_dict(state["target_network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.num_updates = state["num_updates"]
