"""DQN: Q-learning from a uniform replay, with a target network that stands still between copies.

Mnih et al. 2015, "Human-level control through deep reinforcement learning" (Nature DQN): 1 M steps of replay, 32
transitions per update, one update per 4 steps, the target network copied every 10,000 updates, TD errors clipped to ±1,
centred RMSProp, ε from 1 to 0.1 over the 1 M steps that follow 50,000 of random play. Deviations: 4 environments are
stepped together, and the updates that are due follow each of their steps; Kaiming-normal weights; steps can be drawn
once their chunk of the replay is sealed (`data.replay`); a truncated game is not an end. Options beyond the paper: Adam
with Dopamine's constants, double Q-learning, n-step returns.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rldistill.data import FieldSpec, Replay, StepLayout, Transitions
from rldistill.errors import NumericalError, UsageError
from rldistill.networks import Network
from rldistill.networks.memory import aligned
from rldistill.networks.precision import Precision, autocast
from rldistill.options.declaration import Above, Count, Options, Share
from rldistill.options.shared import NumEnvs
from rldistill.schedules import linear
from rldistill.seeding import stream_generator
from rldistill.tasks import Task
from rldistill.training.stream import IterationRecord, StreamStep, TrainingStream
from rldistill.value_learning import q_learning_targets

LEARNING_RATES = {"rmsprop": 2.5e-4, "adam": 6.25e-5}
"""Nature DQN's (Mnih et al. 2015) and Dopamine's (Castro et al. 2018)."""

_RMSPROP_DECAY = 0.95
_RMSPROP_EPSILON = 0.01
_ADAM_EPSILON = 1.5e-4


class CentredRMSProp(torch.optim.Optimizer):
    """RMSProp of Nature DQN: the step is divided by the gradient's deviation, with ε *under* the root.

    p ← p − lr · g ÷ √(E[g²] − E[g]² + ε). torch's own adds ε after the root, which for the small
    gradients of clipped rewards is another optimiser: √0.01 is 0.1.

    `decay`, in [0, 1), is that of both averages; `epsilon`, > 0, in squared units of the gradient.

    Source: the published code of Mnih et al. 2015 (`NeuralQLearner.lua`), after Graves 2013, equations 38 to 45.
    """

    def __init__(self, parameters: list[nn.Parameter], *, learning_rate: float, decay: float, epsilon: float) -> None:
        super().__init__(parameters, {"lr": learning_rate, "decay": decay, "epsilon": epsilon})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step with the gradients that are there; a parameter without one stays as it is."""
        assert closure is None, "gradients come from backward()"
        for group in self.param_groups:
            decay = group["decay"]
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["mean"] = torch.zeros_like(parameter)
                    state["mean_square"] = torch.zeros_like(parameter)
                mean = state["mean"].mul_(decay).add_(gradient, alpha=1 - decay)
                mean_square = state["mean_square"].mul_(decay).addcmul_(gradient, gradient, value=1 - decay)
                # Rounding may leave a variance just below zero.
                variance = mean_square.addcmul(mean, mean, value=-1).clamp_(min=0)
                parameter.addcdiv_(gradient, variance.add_(group["epsilon"]).sqrt_(), value=-group["lr"])


def make_optimizer(
    name: str, parameters: list[nn.Parameter], *, learning_rate: float, batch_size: int
) -> torch.optim.Optimizer:
    """Return the optimiser of a loss that is a *mean* over the batch.

    Nature DQN sums gradients over its batch. To divide them by B and ε by B² gives the same
    steps, so RMSProp's ε is 0.01 ÷ B². Adam's is Dopamine's, for a mean.

    Raises:
        UsageError: no such optimiser.
    """
    if name == "rmsprop":
        epsilon = _RMSPROP_EPSILON / batch_size**2
        return CentredRMSProp(parameters, learning_rate=learning_rate, decay=_RMSPROP_DECAY, epsilon=epsilon)
    if name == "adam":
        return torch.optim.Adam(parameters, lr=learning_rate, eps=_ADAM_EPSILON, fused=True)
    raise UsageError(f"optimizer: got {name!r}, expected {' or '.join(LEARNING_RATES)}.")


@dataclass(frozen=True)
class DQNSettings(Options):
    """Settings of DQN, with the deviations from the paper that the module names."""

    num_envs: NumEnvs = 4  # environments stepped in parallel
    replay_capacity: Count = 1_000_000  # newest steps that are kept, of each task
    learning_starts: Count = 50_000  # steps of play before the first update, of each task
    steps_per_update: Count = 4  # steps of play for each update
    batch_size: Count = 32  # transitions per update
    target_network_update_period: Count = 10_000  # updates between copies to the target network
    optimizer: Literal["rmsprop", "adam"] = "rmsprop"  # `rmsprop` or `adam`
    learning_rate: Annotated[float, Above(0)] = LEARNING_RATES["rmsprop"]  # of the optimiser, constant
    gamma: Share = 0.99  # discount of a step
    num_return_steps: Count = 1  # rewards that are summed before the value takes over
    double_q: bool = False  # the online network selects the next action, the target network evaluates it
    exploration_start: Share = 1.0  # ε until learning starts
    exploration_end: Share = 0.1  # ε after `exploration_steps` more steps
    exploration_steps: Count = 1_000_000  # steps over which ε falls linearly
    repeat_exponent: Annotated[float, Above(1)] | None = None  # of `Exploration`
    clip_rewards: bool = True  # to [−1, 1] in training
    cut_at_life_loss: bool = True  # a lost life ends the return in training

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
    """Online network (trained in place), target network and optimiser of DQN; `num_updates` counts its steps."""

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

    def learn(self, batch: Transitions, head: int = 0) -> Tensor:
        """Take one gradient step with transitions of one task, then copy the target network where that is due.

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


_STEPS_PER_ITERATION = 512

REPLAY_FIELDS: Mapping[str, FieldSpec] = {
    "action": FieldSpec("int32", (), "action"),
    "reward": FieldSpec("float32", (), "reward"),
    "discount": FieldSpec("float32", (), "discount"),
}


class DQNTraining:
    """DQN as `Training`: an iteration is some steps of one task, each followed by the updates that are due.

    With several tasks, each has its replay and its environments; every minibatch is of one task, and the next task has
    its turn when an episode of the current one ends (Rusu et al. 2015, multi-task DQN; with N environments: when any of
    the N ends). A task that has had its steps is passed over.

    The learner has a head, and there is a stream, for each task; `num_steps` are those of a task in the whole run. The
    batch of an update is a function of `seed` and of the replay; `rng` draws the exploration.
    """

    def __init__(
        self,
        learner: DQNLearner,
        streams: Sequence[TrainingStream],
        tasks: Sequence[Task],
        *,
        num_steps: int,
        seed: int,
        rng: np.random.Generator,
        steps_per_iteration: int = _STEPS_PER_ITERATION,
    ) -> None:
        settings = learner.settings
        self._learner = learner
        self._settings = settings
        self._streams = streams
        self._num_steps = num_steps
        self._seed = seed
        self._rng = rng
        self._steps_per_iteration = steps_per_iteration
        self._task = 0
        self._replays = [
            Replay(
                StepLayout.of_task(task.fingerprint, REPLAY_FIELDS),
                settings.replay_capacity,
                num_return_steps=settings.num_return_steps,
            )
            for task in tasks
        ]

    @property
    def replays(self) -> Sequence[Replay]:
        """Past play, one per task."""
        return self._replays

    def iterate(self, steps: Sequence[int]) -> IterationRecord:
        """Play one task until an episode ends (where there are others), or for `steps_per_iteration`."""
        task = self._due_task(steps)
        stream, replay = self._streams[task], self._replays[task]
        wanted = min(self._steps_per_iteration, self._num_steps - steps[task])
        scores, losses, num_steps = [], [], 0
        while num_steps < wanted:
            epsilon = self._settings.exploration_epsilon(steps[task] + num_steps)
            step = self._play(task, epsilon)
            num_steps += stream.num_envs
            scores += step.scores
            losses += self._learn(replay, stream.num_envs, task)
            if step.ended.any() and len(self._streams) > 1:
                self._task = task + 1
                break
        loss = self._mean(losses)
        return IterationRecord(task, num_steps, loss, self._settings.exploration_epsilon(steps[task]), tuple(scores))

    def state_dict(self) -> dict[str, Any]:
        """Return the learner's state and whose turn it is."""
        return self._learner.state_dict() | {"task": self._task}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._learner.load_state_dict(state)
        self._task = state["task"]

    def close(self) -> None:
        """Free the environments."""
        for stream in self._streams:
            stream.close()

    def _due_task(self, steps: Sequence[int]) -> int:
        """Return the first task, from the one whose turn it is, that has not had its steps."""
        num_tasks = len(self._streams)
        order = [(self._task + later) % num_tasks for later in range(num_tasks)]
        self._task = next(task for task in order if steps[task] < self._num_steps)
        return self._task

    def _play(self, task: int, epsilon: float) -> StreamStep:
        """Take one step in every environment of a task and remember it."""
        stream = self._streams[task]
        if epsilon >= 1:
            q_values = torch.zeros(stream.num_envs, stream.num_actions)
        else:
            q_values = self._learner.q_values(torch.from_numpy(stream.observations), task).float().cpu()
        actions = stream.exploration.choose(q_values, epsilon, self._rng)
        step = stream.step(actions)
        values = {"action": actions.astype(np.int32), "reward": step.rewards, "discount": step.discounts}
        self._replays[task].append(
            step.observations, values, ended=step.ended, next_observations=step.next_observations
        )
        return step

    def _learn(self, replay: Replay, num_new_steps: int, task: int) -> list[Tensor]:
        """Take the updates that the newest steps make due."""
        if replay.num_appended < self._settings.learning_starts:
            return []
        if not replay.num_drawable:
            replay.seal()
        if not replay.num_drawable:
            return []
        period = self._settings.steps_per_update
        num_due = replay.num_appended // period - (replay.num_appended - num_new_steps) // period
        losses: list[Tensor] = []
        for _ in range(num_due):
            # One stream per update, so that no generator's state is to be kept.
            rng = stream_generator(self._seed, "replay batch", self._learner.num_updates)
            drawn = replay.draw(rng.random(self._settings.batch_size))
            losses.append(self._learner.learn(replay.transitions(drawn), task))
        return losses

    def _mean(self, losses: Sequence[Tensor]) -> float | None:
        if not losses:
            return None
        loss = float(torch.stack(list(losses)).mean())
        if not np.isfinite(loss):
            raise NumericalError(
                f"DQN diverged: its mean loss up to update {self._learner.num_updates} is {loss}. "
                "Begin anew with --overwrite and a lower learning rate."
            )
        return loss
