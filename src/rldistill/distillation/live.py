"""The paper's live schedule: teachers go on playing, and the student learns from their newest steps.

"The teacher plays an hour, the student takes 10,000 updates, the last ten hours are kept"
(Rusu et al. 2015): before every `collect_period` updates each teacher plays `collect_steps`
more steps, of which a replay keeps the newest. Between two collections nothing changes, so
batches are decoded ahead as they are from a stored dataset.
"""

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rldistill.data import FieldSpec, Replay, StepLayout, as_targets, prefetch
from rldistill.data.sampler import MIN_HELD_OUT_EPISODES
from rldistill.distillation.batch import Minibatch, Window, origin_of
from rldistill.distillation.sources import HeldOut, draw_batch, sample_of_held_out
from rldistill.envs import EpisodeEnvs
from rldistill.policies import Policy
from rldistill.rollout.player import EpisodePlayer, StepRecord
from rldistill.schedules import TaskSchedule
from rldistill.seeding import stream_generator

_TEACHER = "teacher"

OnPlay = Callable[[str, int, int], None]
"""Told the task's name, its steps of this collection, and how many they will be; may raise to stop."""


class LiveTask:
    """One task whose teacher goes on playing, with its newest steps.

    Args:
        teacher: acts by its own behaviour, and labels.
        make_envs: called when there is something to play; makes N slots of the task.
        capacity: steps to keep.
        seed: of the episodes, and of the rows of each update.
        exploration_epsilon: chance of a uniformly random action.
        head: which head of the student this task teaches.
    """

    def __init__(
        self,
        teacher: Policy,
        make_envs: Callable[[], EpisodeEnvs],
        *,
        capacity: int,
        seed: int,
        exploration_epsilon: float,
        head: int = 0,
    ) -> None:
        task = teacher.tasks[0]
        self.name = task.name
        self.head = head
        self.num_episodes = 0
        self._teacher = teacher
        self._make_envs = make_envs
        self._seed = seed
        self._epsilon = exploration_epsilon
        num_outputs = task.fingerprint.action_layout.num_outputs(teacher.output_kind)
        fields = {teacher.output_kind: FieldSpec("float32", (num_outputs,), "target")}
        self.replay = Replay(StepLayout.of_task(task.fingerprint, fields), capacity)
        self._envs: EpisodeEnvs | None = None
        self._records: Iterator[StepRecord] | None = None
        self._slots: dict[int, int] = {}
        self._first_episode = 0

    def play(self, *, num_steps: int, num_episodes: int = 0, on_play: OnPlay | None = None) -> None:
        """Play on until so many steps were played and episodes were ended in all, of the task's whole life."""
        first = self.replay.num_appended

        def is_done() -> bool:
            return self.replay.num_appended >= num_steps and self.num_episodes >= num_episodes

        while not is_done():
            self._step()
            if on_play:
                # How many steps the last episodes take is not known: until then, one more than were played.
                end = max(num_steps, self.replay.num_appended + (not is_done()))
                on_play(self.name, self.replay.num_appended - first, end - first)
        self.replay.seal()

    def draw(self, update: int, num_rows: int) -> Window:
        """Return rows of one update; may be called from several threads while nothing is played."""
        return self._labelled(self.replay.draw(num_rows, stream_generator(self._seed, "batch", update)))

    def held_out(self) -> HeldOut:
        """Return a sample of all steps played, to measure a student on: for a task that nothing is drawn from."""
        num_steps = self.replay.num_steps
        chosen = sample_of_held_out(np.arange(num_steps), seed=self._seed)
        layout = self._teacher.tasks[0].fingerprint.action_layout
        return HeldOut.of(self._labelled(chosen), num_steps, layout, self._teacher.output_kind)

    @property
    def next_episode(self) -> int:
        """The first episode that was never begun."""
        return max(self._slots, default=self._first_episode - 1) + 1

    def go_on_from(self, episode: int, num_episodes: int) -> None:
        """Begin with an episode that was not begun before; for a task that has not played yet."""
        self._first_episode, self.num_episodes = episode, num_episodes

    def close(self) -> None:
        """Free the environments."""
        if self._envs is not None:
            self._envs.close()
        self._envs, self._records = None, None

    def _labelled(self, steps: NDArray[np.int64]) -> Window:
        kind, layout = self._teacher.output_kind, self._teacher.tasks[0].fingerprint.action_layout
        targets = as_targets(self.replay.field(kind)[steps], layout, kind)
        return Window.of_steps(
            self.head,
            {name: torch.from_numpy(part) for name, part in self.replay.observation_parts(steps).items()},
            {name: torch.from_numpy(values) for name, values in targets.items()},
            origin_of(steps, f"what {self._teacher.name} played of {self.name}"),
        )

    def _step(self) -> None:
        if self._records is None:
            self._envs = self._make_envs()
            player = EpisodePlayer(
                self._teacher,
                self._envs,
                itertools.count(self._first_episode),
                seed=self._seed,
                exploration_epsilon=self._epsilon,
                labellers={_TEACHER: self._teacher},
            )
            self._records = player.play()
        record = next(self._records)
        order = self._in_order_of_slots(record)
        ended, targets = record.ended[order], record.labels[_TEACHER]
        self.replay.append(
            record.observations[order],
            {targets.kind: targets.raw.float().cpu().numpy()[order]},
            ended=ended,
            next_observations=record.next_observations[order],
        )
        self.num_episodes += int(ended.sum())

    def _in_order_of_slots(self, record: StepRecord) -> NDArray[np.intp]:
        """Return the rows of a record so that every episode keeps its place, and a new one takes that of an old."""
        episodes = record.episodes.tolist()
        free = sorted(set(range(len(episodes))) - {self._slots[e] for e in episodes if e in self._slots})
        places = iter(free)
        self._slots = {
            episode: self._slots[episode] if episode in self._slots else next(places) for episode in episodes
        }
        return np.argsort([self._slots[episode] for episode in episodes])


class LiveSource:
    """Batches from what teachers play while the student learns.

    Args:
        tasks: in the order of the data; each keeps its own pool of environments and its own store.
        held_out: tasks whose steps no batch is drawn from; played once, before all else.
        held_out_steps: of each of those, at least, and five ended episodes.
        batch_size: rows per update, over all tasks.
        schedule: which tasks make up which batch.
        collect_steps: steps of each task per collection.
        collect_period: updates between collections.
        max_collections: after so many nothing more is played; None: one for every period that is begun.
        on_play: told how far a collection is; may raise to stop.
        num_decoders: threads that decode ahead; changes no batch.
    """

    def __init__(
        self,
        tasks: Sequence[LiveTask],
        *,
        batch_size: int,
        schedule: TaskSchedule,
        held_out: Sequence[LiveTask] = (),
        held_out_steps: int = 1,
        collect_steps: int,
        collect_period: int,
        max_collections: int | None = None,
        on_play: OnPlay | None = None,
        num_decoders: int = 1,
    ) -> None:
        self._tasks = tasks
        self._num_decoders = num_decoders
        self._held_out = held_out
        self._held_out_steps = held_out_steps
        self._batch_size = batch_size
        self._schedule = schedule
        self._collect_steps = collect_steps
        self._collect_period = collect_period
        self._max_collections = sys.maxsize if max_collections is None else max_collections
        self._on_play = on_play

    def batch(self, update: int) -> Minibatch:
        """Return the batch of one update of the period that was last played for."""
        return draw_batch(self._tasks, self._schedule.rows(update, self._batch_size), update)

    def batches(self, first_update: int, num_updates: int) -> Iterator[Minibatch]:
        """Yield the batches of consecutive updates, playing before each period; plays on where a stop cut it short."""
        for task in self._held_out:
            # The environments are free again before the tasks that are learned from take theirs: they may be the same.
            task.play(num_steps=self._held_out_steps, num_episodes=MIN_HELD_OUT_EPISODES, on_play=self._on_play)
            task.close()
        update, last = first_update, first_update + num_updates
        while update < last:
            num_collections = min(update // self._collect_period + 1, self._max_collections)
            for task in self._tasks:
                task.play(num_steps=num_collections * self._collect_steps, on_play=self._on_play)
            is_last = num_collections == self._max_collections
            until = last if is_last else min(last, num_collections * self._collect_period)
            ahead = prefetch(self, update, until - update, num_threads=self._num_decoders)
            with contextlib.closing(ahead) as batches:
                yield from batches
            update = until

    @property
    def replays(self) -> Sequence[Replay]:
        """What is kept of past play, one per task, and what was held out."""
        return [task.replay for task in (*self._tasks, *self._held_out)]

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes, but for replays and environments."""
        return {"episodes": [[task.next_episode, task.num_episodes] for task in (*self._tasks, *self._held_out)]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned: with new episodes, for those under way were broken off."""
        tasks = (*self._tasks, *self._held_out)
        for task, (next_episode, num_episodes) in zip(tasks, state["episodes"], strict=True):
            task.go_on_from(next_episode, num_episodes)

    def close(self) -> None:
        """Free the environments."""
        for task in (*self._tasks, *self._held_out):
            task.close()
