"""A teacher that plays on as a source: the paper's live schedule.

"The teacher plays an hour, the student takes 10,000 updates, the last ten hours are kept" (Rusu et al. 2015): before
every `collect_period` updates the teacher plays `collect_steps` more steps, of which a replay keeps the newest.

With a teacher fraction below 1 the student acts in the rest of the play and the teacher labels what it meets: DAgger
(Ross et al. 2011). The student thus learns what to do after its own mistakes, which the teacher's play never shows.
"""

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rldistill.data import FieldSpec, Replay, StepLayout, as_targets
from rldistill.data.layout import further_fields
from rldistill.data.sampler import MIN_HELD_OUT_EPISODES
from rldistill.distillation.batch import Window, origin_of
from rldistill.distillation.hindsight import Hindsight, sampling
from rldistill.distillation.sources import HeldOut, Loss, measure_inputs, sample_of_held_out
from rldistill.envs import EpisodeEnvs, PlayableTask
from rldistill.policies import Policy, TorchPolicy, as_played_by, fit_policy
from rldistill.policies.entry import teacher_entry
from rldistill.rollout.player import EpisodePlayer, Mixture, StepRecord
from rldistill.schedules import Schedule, constant
from rldistill.seeding import stream_generator, stream_seed

# In the identity of a teacher that plays otherwise while it is recorded than it acts.
PLAYED_AS = " played as "
_TEACHER, _STUDENT = "teacher", "student"
_UNBOUNDED = 2**62

OnPlay = Callable[[str, int, int], None]
"""Receives the task's name, its steps of this collection, and how many they will be; may raise to stop."""


class LiveSource:
    """A teacher that plays on, as the teacher of one task.

    Args:
        teacher: labels what is met, and says how the student is to act.
        player: acts: the teacher as it plays while it is recorded.
        playable: what is played, under the protocol's exploration.
        path: of the teacher's file, if it has one.
        reading: what the user said of that file, if anything.
        seed: of the episodes, and of the rows of each update.
        num_envs: environments stepped together, unless the task brings its own.
        num_threads: of the emulator.
        collect_steps: steps per collection.
        collect_period: updates between collections.
        num_collections: after so many nothing more is played.
        replay_capacity: newest steps that are kept.
        held_out_steps: steps played first that no batch is drawn from, at least, and five whole episodes.
        on_play: receives how far a collection is; may raise to stop.
        teacher_fraction: share of the play in which the teacher acts, as a function of progress; the student acts in
            the rest.
        mix: whether who acts is drawn for each episode or for each decision.
        num_updates: of the whole run: the unit of progress.
        notes: what was decided for the user.
        further: shapes of what the teacher gives besides its outputs, by name, as far as it is learned from.
        measures_inputs: whether the student's normalisation of its inputs is taken from the first play.
        lookahead: discount of the losses that the student's own choices lead to; 0: they do not count.
        value_gate: discount of the rewards that the teacher's values are compared with; None: they are not.
    """

    policies: Mapping[str, TorchPolicy] = {}

    def __init__(
        self,
        teacher: Policy,
        player: Policy,
        playable: PlayableTask,
        *,
        path: Path | None = None,
        reading: Mapping[str, Any] | None = None,
        seed: int,
        num_envs: int = 16,
        num_threads: int = 0,
        collect_steps: int,
        collect_period: int,
        num_collections: int = sys.maxsize,
        replay_capacity: int = 540_000,
        held_out_steps: int = 1,
        on_play: OnPlay | None = None,
        teacher_fraction: Schedule = constant(1.0),  # noqa: B008 (frozen)
        mix: Literal["episode", "decision"] = "episode",
        num_updates: int = 1,
        notes: Sequence[str] = (),
        further: Mapping[str, tuple[int, ...]] | None = None,
        measures_inputs: bool = False,
        lookahead: float = 0.0,
        value_gate: float | None = None,
    ) -> None:
        self._player = fit_policy(player, playable.task)
        self.policy = fit_policy(teacher, playable.task)
        self.playable, self.notes, self.further = playable, notes, further or {}
        self.task = as_played_by(self._player, playable.task)
        self.teacher = teacher_entry(teacher, path, reading)
        acts = self.policy.behaviour
        self.samples = teacher.output_kind != "q_values" and acts == "sample"
        self.label = f"Teacher {path or teacher.name}"
        self.description = f"{path or teacher.name} playing {self.task.name}"
        played_as = "" if self._player.behaviour == acts else f"{PLAYED_AS}{self._player.behaviour}"
        self.identity = f"{teacher.hash} {self.task.to_dict()}{played_as}"
        self._seed, self._num_threads = seed, num_threads
        self._num_envs = playable.fixed_num_envs or num_envs
        self._collect_steps, self._collect_period = collect_steps, collect_period
        self._num_collections = num_collections
        self._replay_capacity, self._held_out_steps = replay_capacity, held_out_steps
        self._on_play = on_play
        self._teacher_fraction, self._num_updates = teacher_fraction, num_updates
        self._mix: Literal["episode", "decision"] = mix
        self._mixture: Mixture | None = None
        self._held_out: HeldOut | None = None
        self._num_begun = 0
        self._measures_inputs = measures_inputs
        self._lookahead, self._value_gate = lookahead, value_gate

    def teach(self, head: int, student: TorchPolicy, loss: Loss) -> None:
        """Lay out the play that is learned from, and that which is held out."""
        self._student = student
        hindsight: Hindsight | None = None
        if self._teacher_fraction.bounds[0] < 1:
            acting = fit_policy(sampling(student) if self._lookahead else student, self.playable.task)
            self._mixture = Mixture(self._player, acting, self._teacher_fraction(0.0), per=self._mix)
            if self._lookahead or self._value_gate is not None:
                hindsight = Hindsight(acting, loss, self._lookahead, self._value_gate)
        self._learned = self._play(self._mixture, head, "live", self._num_envs, self._replay_capacity, hindsight)
        # Steps in whole episodes: the capacity is no limit here.
        few_envs = self.playable.fixed_num_envs or min(self._num_envs, MIN_HELD_OUT_EPISODES)
        self._measured = self._play(None, head, "held-out play", few_envs, _UNBOUNDED)

    def go_on_from(self, earlier: "LiveSource") -> None:
        """Learn from what an earlier student's source played too; after `teach`, and before anything is played.

        What the teacher's own play shows is known then: this student acts from the start, once it has learned from it.
        """
        self._learned.go_on_from(earlier._learned)
        self._measured.go_on_from(earlier._measured)
        self._num_begun = self._learned.replay.num_appended

    def advance(self, update: int) -> int:
        """Play before each period of updates, and what is held out before all else; goes on where a stop cut it."""
        # The environments are free again before the play that is learned from takes its own: they may be the same.
        self._measured.play(num_steps=self._held_out_steps, num_episodes=MIN_HELD_OUT_EPISODES, on_play=self._on_play)
        self._measured.close()
        if self._measures_inputs and update == 0:
            # Before the student acts or learns; a run that goes on has them in its checkpoint.
            measure_inputs(self._student, self.held_out.batch.observations)
        collections = min(update // self._collect_period + 1, self._num_collections)
        if self._mixture is not None:
            self._mixture.fraction = self._teacher_fraction(1.0 if self._num_begun else update / self._num_updates)
        # Where there are data, the first collection is left out: a student that knows nothing would act.
        due = (collections - bool(self._num_begun)) * self._collect_steps
        self._learned.play(num_steps=self._num_begun + due, on_play=self._on_play)
        self._learned.look_back((collections - 1) * self._collect_period / self._num_updates)
        return sys.maxsize if collections == self._num_collections else collections * self._collect_period

    def finish(self) -> None:
        """Do nothing: what was drawn from is complete."""

    def draw(self, update: int, num_rows: int) -> Window:
        """Return rows of one update; may be called from several threads while nothing is played."""
        return self._learned.draw(update, num_rows)

    @property
    def is_decoded(self) -> bool:
        """Whether what is kept is decoded: vectors are; frames are compressed, and threads decode them ahead."""
        return self._learned.replay.is_decoded

    @property
    def held_out(self) -> HeldOut:
        """A sample of the steps that the teacher played for this alone."""
        if self._held_out is None:
            self._held_out = self._measured.sample()
        return self._held_out

    @property
    def record(self) -> Mapping[str, Any]:
        """What was played so far."""
        return {"num_steps": self._learned.replay.num_appended, "exploration_epsilon": self._epsilon}

    @property
    def warnings(self) -> list[str]:
        """Return what makes this play less than it seems."""
        has_chance = self._epsilon > 0 or self.task.protocol.sticky_action_probability > 0
        if not self.task.is_atari or self._player.behaviour != "greedy" or has_chance:
            return []
        return [
            f"{self.description} without chance: episodes repeat, and held-out ones may equal those trained on. "
            "Play with --exploration-epsilon 0.05."
        ]

    @property
    def replays(self) -> Sequence[Replay]:
        """What is kept of past play, and what was held out."""
        return self._learned.replay, self._measured.replay

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes, but for replays and environments."""
        return {"learned": self._learned.state_dict(), "measured": self._measured.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned: with new episodes, for those under way were broken off."""
        self._learned.load_state_dict(state["learned"])
        self._measured.load_state_dict(state["measured"])

    def close(self) -> None:
        """Free the environments."""
        self._learned.close()
        self._measured.close()

    @property
    def _epsilon(self) -> float:
        return self.task.protocol.exploration_epsilon

    def _play(
        self,
        mixture: Mixture | None,
        head: int,
        stream: str,
        num_envs: int,
        capacity: int,
        hindsight: Hindsight | None = None,
    ) -> "LivePlay":
        # The player says what the teacher says and differs in how it acts alone: so one answer serves both.
        return LivePlay(
            self._player,
            mixture or self._player,
            lambda: self.playable.make_envs(num_envs, self._num_threads),
            capacity=capacity,
            seed=stream_seed(self._seed, stream, head),
            exploration_epsilon=self._epsilon,
            head=head,
            further=self.further,
            hindsight=hindsight,
        )


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
    ) -> None:
        task = teacher.tasks[0]
        self.name = task.name
        self.head = head
        self.num_episodes = 0
        self._teacher, self._actor = teacher, actor
        self._make_envs = make_envs
        self._seed = seed
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

    def look_back(self, progress: float) -> None:
        """Find what followed the steps that are kept, which were played when the run was this far."""
        if self._hindsight is not None:
            self._followed = self._hindsight.of(self.replay, self._teacher.output_kind, progress)

    def draw(self, update: int, num_rows: int) -> Window:
        """Return rows of one update; may be called from several threads while nothing is played."""
        return self._labelled(self.replay.draw(num_rows, stream_generator(self._seed, "batch", update)))

    def sample(self) -> HeldOut:
        """Return a sample of all steps played, to measure a student on: for play that nothing is drawn from."""
        num_steps = self.replay.num_steps
        chosen = sample_of_held_out(np.arange(num_steps), seed=self._seed)
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
        targets = as_targets(self.replay.field(kind)[steps], layout, kind)
        targets |= {name: self.replay.field(name)[steps] for name in self._further}
        followed = {name: torch.from_numpy(values[steps]) for name, values in self._followed.items()}
        if "future" in followed:
            followed["actions"] = torch.from_numpy(self.replay.field("action")[steps])
        return Window.of_steps(
            self.head,
            {name: torch.from_numpy(part) for name, part in self.replay.observation_parts(steps).items()},
            {name: torch.from_numpy(values) for name, values in targets.items()},
            origin_of(steps, f"what {self._teacher.name} played of {self.name}"),
            **followed,
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
