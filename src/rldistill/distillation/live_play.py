"""The play that one teacher labels while a student learns: the newest of it, as rows or windows."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rldistill.data import FieldSpec, Replay, StepLayout, UniformSampler, as_targets
from rldistill.data.layout import further_fields
from rldistill.distillation.batch import Window, make_window
from rldistill.distillation.hindsight import Hindsight
from rldistill.distillation.sources import (
    HeldOut,
    check_window,
    held_out_windows,
    windows_of,
)
from rldistill.envs import EpisodeEnvs
from rldistill.events import Callback, ProgressEvent, notify
from rldistill.policies import Policy
from rldistill.rollout.decisions import Mixture
from rldistill.rollout.player import EpisodePlayer
from rldistill.rollout.records import StepRecord
from rldistill.seeding import UpdateNumbers

_TEACHER, _STUDENT = "teacher", "student"


class LivePlay:
    """The play that one teacher labels, with its newest steps.

    Args:
        teacher: labels.
        actor: acts: the teacher by its own behaviour, or a mixture of teacher and student.
        make_envs: called when there is something to play; makes N slots of the task.
        capacity: steps to keep.
        seed: of the episodes, and of the rows of each update.
        exploration_epsilon: chance of a uniformly random action.
        head: which head of the student is taught.
        further: shapes of what is kept of the teacher besides its outputs, by name.
        hindsight: what is kept of the student's own play, and found when it is over; None: nothing.
        window_length: steps of a window; 1: single steps.
        burn_in: steps before a window that fill the student's memory.
    """

    def __init__(
        self,
        teacher: Policy,
        actor: Policy | Mixture,
        make_envs: Callable[[], EpisodeEnvs],
        *,
        capacity: int,
        seed: int,
        exploration_epsilon: float,
        head: int = 0,
        further: Mapping[str, tuple[int, ...]] | None = None,
        hindsight: Hindsight | None = None,
        window_length: int = 1,
        burn_in: int = 0,
    ) -> None:
        self._window_length, self._burn_in = window_length, burn_in
        self._sampler: UniformSampler | None = None  # of windows, from what is sealed
        task = teacher.tasks[0]
        self.name = task.name
        self.head = head
        self.num_episodes = 0
        self._teacher, self._actor = teacher, actor
        self._make_envs = make_envs
        self._seed, self._numbers = seed, UpdateNumbers(seed, "batch")
        self._epsilon = exploration_epsilon
        num_outputs = task.fingerprint.action_layout.num_outputs(teacher.output_kind)
        self._further = further or {}
        fields = {teacher.output_kind: FieldSpec("float32", (num_outputs,), "target"), **further_fields(self._further)}
        self._hindsight = hindsight
        fields |= {} if hindsight is None else hindsight.fields
        self._followed: Mapping[str, NDArray[np.float32]] = {}
        self.replay = Replay(StepLayout.of_task(task.fingerprint, fields), capacity)
        self._envs: EpisodeEnvs | None = None
        self._records: Iterator[StepRecord] | None = None
        self._slots: dict[int, int] = {}
        self._first_episode = 0

    def play(self, *, num_steps: int, num_episodes: int = 0, callbacks: Sequence[Callback] = ()) -> None:
        """Play on until so many steps were played and episodes were ended in all, of the task's whole life.

        `callbacks` receive how many steps of this collection there are, and will be; may stop the run.
        """
        first = self.replay.num_appended

        def is_done() -> bool:
            return self.replay.num_appended >= num_steps and self.num_episodes >= num_episodes

        while not is_done():
            self._step()
            # How many steps the last episodes take is not known: until then, one more than were played.
            end = max(num_steps, self.replay.num_appended + (not is_done()))
            done = self.replay.num_appended - first
            notify(callbacks, ProgressEvent(f"play {self.name}", done, end - first, "steps"))
        self.replay.seal()
        if self._window_length > 1 or self._burn_in:
            self._sampler = UniformSampler(
                self.replay.store,
                np.arange(self.replay.num_steps),
                seed=self._seed,
                window_length=self._window_length,
                burn_in=self._burn_in,
            )

    def look_back(self, progress: float) -> None:
        """Find what followed the steps that are kept, which were played when the run was this far."""
        if self._hindsight is not None:
            self._followed = self._hindsight.of(self.replay, self._teacher.output_kind, progress)

    def draw(self, update: int, num_rows: int) -> Window:
        """Return rows of one update; may be called from several threads while nothing is played."""
        if self._sampler is not None:
            return self._labelled(self._sampler.windows(update, windows_of(num_rows, self._window_length)))
        return self._labelled(self.replay.draw(self._numbers.of(update, num_rows))[None])

    def sample(self) -> HeldOut:
        """Return a sample of all steps played, to measure a student on: for play that nothing is drawn from."""
        num_steps, store, length = self.replay.num_steps, self.replay.store, self._window_length
        # Episodes here were played to their ends.
        check_window(store, length, f"{self._teacher.name} playing {self.name}")
        chosen = held_out_windows(
            store, np.arange(num_steps), seed=self._seed, window_length=length, burn_in=self._burn_in
        )
        layout = self._teacher.tasks[0].fingerprint.action_layout
        return HeldOut.of(self._labelled(chosen), num_steps, layout, self._teacher.output_kind)

    def state_dict(self) -> dict[str, int]:
        """Return the first episode that was never begun, and how many were ended."""
        next_episode = max(self._slots, default=self._first_episode - 1) + 1
        return {"next_episode": next_episode, "num_episodes": self.num_episodes}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin with an episode that was not begun before; nothing has been played yet."""
        self._first_episode, self.num_episodes = state["next_episode"], state["num_episodes"]

    def go_on_from(self, earlier: "LivePlay") -> None:
        """Keep what another play recorded, and begin with an episode that it did not begin."""
        self.load_state_dict(earlier.state_dict())
        self.replay = earlier.replay
        self.replay.break_off()

    def close(self) -> None:
        """Free the environments."""
        if self._envs is not None:
            self._envs.close()
        self._envs, self._records = None, None

    def _labelled(self, steps: NDArray[np.int64]) -> Window:
        kind, layout = self._teacher.output_kind, self._teacher.tasks[0].fingerprint.action_layout

        def targets(chosen: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
            outputs = as_targets(self.replay.field(kind)[chosen], layout, kind)
            return outputs | {name: self.replay.field(name)[chosen] for name in self._further}

        values = dict(self._followed)
        if "future" in values:
            values["actions"] = self.replay.field("action")
        return make_window(
            steps,
            head=self.head,
            burn_in=self._burn_in,
            observations=self.replay.observation_parts,
            targets=targets,
            steps_in_episode=self.replay.store.steps_in_episode,
            where=f"what {self._teacher.name} played of {self.name}",
            values=values,
        )

    def _step(self) -> None:
        if self._records is None:
            self._envs = self._make_envs()
            own = {} if self._hindsight is None else {_STUDENT: self._hindsight.student}
            player = EpisodePlayer(
                self._actor,
                self._envs,
                itertools.count(self._first_episode),
                seed=self._seed,
                exploration_epsilon=self._epsilon,
                labellers={_TEACHER: self._teacher, **own},
            )
            self._records = player.play()
        record = next(self._records)
        order = self._in_order_of_slots(record)
        ended, targets = record.ended[order], record.labels[_TEACHER]
        values = {targets.kind: targets.raw.float().cpu().numpy(), **targets.further(self._further)}
        if self._hindsight is not None:
            values |= self._hindsight.values(record, _STUDENT)
        self.replay.append(
            record.observations[order],
            {name: rows[order] for name, rows in values.items()},
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
