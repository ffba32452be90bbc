"""DQN on one or more tasks: play, remember, learn, and go to the next task when an episode ends."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rldistill.data import FieldSpec, Replay, StepLayout
from rldistill.errors import NumericalError
from rldistill.seeding import stream_generator
from rldistill.tasks import Task
from rldistill.training.dqn import DQNLearner
from rldistill.training.protocol import IterationRecord
from rldistill.training.stream import StreamStep, TrainingStream, explore

STEPS_PER_ITERATION = 512

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

    Args:
        learner: with a head per task.
        streams: one per task.
        tasks: what is played.
        num_steps: of each task in the whole run.
        seed: the batch of an update is a function of it and of the replay.
        rng: draws the exploration.
        steps_per_iteration: at most.
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
        steps_per_iteration: int = STEPS_PER_ITERATION,
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
        games, losses, num_steps = [], [], 0
        while num_steps < wanted:
            epsilon = self._settings.exploration_epsilon(steps[task] + num_steps)
            step = self._play(task, epsilon)
            num_steps += stream.num_envs
            games += step.games
            losses += self._learn(replay, stream.num_envs, task)
            if step.ended.any() and len(self._streams) > 1:
                self._task = task + 1
                break
        loss = self._mean(losses)
        return IterationRecord(task, num_steps, loss, self._settings.exploration_epsilon(steps[task]), tuple(games))

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
        actions = explore(q_values, epsilon, self._rng)
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
        # One stream per update, so that no generator's state is to be kept.
        return [
            self._learner.learn_from(
                replay, stream_generator(self._seed, "replay batch", self._learner.num_updates), task
            )
            for _ in range(num_due)
        ]

    def _mean(self, losses: Sequence[Tensor]) -> float | None:
        if not losses:
            return None
        loss = float(torch.stack(list(losses)).mean())
        if not np.isfinite(loss):
            raise NumericalError(
                f"DQN diverged: its mean loss up to update {self._learner.num_updates} is {loss}. "
                "Lower the learning rate."
            )
        return loss
