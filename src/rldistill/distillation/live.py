"""A teacher that plays on as a source: the paper's live schedule.

"The teacher plays an hour, the student takes 10,000 updates, the last ten hours are kept" (Rusu et al. 2015): before
every `collect_period` updates the teacher plays `collect_steps` more steps, of which a replay keeps the newest.

With a teacher fraction below 1 the student acts in the rest of the play and the teacher labels what it meets: DAgger
(Ross et al. 2011). The student thus learns what to do after its own mistakes, which the teacher's play never shows.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rldistill.data import Replay, TeacherEntry
from rldistill.data.sampler import MIN_HELD_OUT_EPISODES
from rldistill.distillation.batch import Window
from rldistill.distillation.hindsight import Hindsight, sampling
from rldistill.distillation.live_play import LivePlay
from rldistill.distillation.sources import HeldOut, Loss, measure_inputs
from rldistill.envs import PlayableTask
from rldistill.errors import UsageError
from rldistill.events import Callback
from rldistill.options.distill import Live
from rldistill.policies import Policy, TorchPolicy, as_played_by, fit_policy
from rldistill.policies.entry import teacher_entry
from rldistill.rollout.decisions import Mixture
from rldistill.schedules import Schedule, as_schedule
from rldistill.seeding import stream_seed

# In the identity of a teacher that plays otherwise while it is recorded than it acts.
PLAYED_AS = " played as "
_UNBOUNDED = 2**62


def teacher_fraction(said: Live) -> Schedule:
    """Return the chance that the teacher acts; else the student does.

    Raises:
        UsageError: it is no chance.
    """
    assert said.teacher_fraction is not None, "the recipe has filled this in"
    schedule = as_schedule(said.teacher_fraction, "teacher_fraction")
    lowest, highest = schedule.bounds
    if not 0 <= lowest <= highest <= 1:
        raise UsageError(f"teacher_fraction must lie in [0, 1], got {said.teacher_fraction!r}.")
    return schedule


def num_collections(num_updates: int, collect_period: int) -> int:
    """Return how often teachers play: a last collection for less than half a period is not worth its play."""
    return max(1, (2 * num_updates + collect_period) // (2 * collect_period))


class LiveSource:
    """A teacher that plays on, as the teacher of one task.

    Args:
        teacher: labels what is met, and says how the student is to act.
        player: acts: the teacher as it plays while it is recorded.
        playable: what is played, under the protocol's exploration.
        said: how much is played, and who acts; nothing of it left open.
        entry: what is recorded of the teacher; None: of one that has no file.
        seed: of the episodes, and of the rows of each update.
        num_envs: environments stepped together, unless the task brings its own.
        num_threads: of the emulator.
        held_out_steps: steps played first that no batch is drawn from, at least, and five whole episodes.
        callbacks: receive how far a collection is; may stop the run.
        num_updates: of the whole run: the unit of progress.
        notes: what was decided for the user.
        further: shapes of what the teacher gives besides its outputs, by name, as far as it is learned from.
        window_length: steps of a window; 1: single steps.
        burn_in: steps before a window that fill the student's memory.
    """

    policies: Mapping[str, TorchPolicy] = {}

    def __init__(
        self,
        teacher: Policy,
        player: Policy,
        playable: PlayableTask,
        said: Live,
        *,
        entry: TeacherEntry | None = None,
        seed: int,
        num_envs: int = 16,
        num_threads: int = 0,
        held_out_steps: int = 1,
        callbacks: Sequence[Callback] = (),
        num_updates: int = 1,
        notes: Sequence[str] = (),
        further: Mapping[str, tuple[int, ...]] | None = None,
        window_length: int = 1,
        burn_in: int = 0,
    ) -> None:
        self._window_length, self._burn_in = window_length, burn_in
        self._player = fit_policy(player, playable.task)
        self.policy = fit_policy(teacher, playable.task)
        self.playable, self.notes, self.further = playable, notes, further or {}
        self.task = as_played_by(self._player, playable.task)
        self.teacher = entry or teacher_entry(teacher, None)
        acts = self.policy.behaviour
        self.samples = teacher.output_kind != "q_values" and acts == "sample"
        self.label = f"Teacher {self.teacher.path or teacher.name}"
        self.description = f"{self.teacher.path or teacher.name} playing {self.task.name}"
        played_as = "" if self._player.behaviour == acts else f"{PLAYED_AS}{self._player.behaviour}"
        self.identity = f"{teacher.hash} {self.task.to_dict()}{played_as}"
        self._seed, self._num_threads = seed, num_threads
        self._num_envs = playable.fixed_num_envs or num_envs
        assert said.collect_steps and said.collect_period, "the recipe has filled these in"
        self._said, self._collect_steps, self._collect_period = said, said.collect_steps, said.collect_period
        self._num_collections = num_collections(num_updates, said.collect_period)
        self._held_out_steps, self._callbacks = held_out_steps, callbacks
        self._teacher_fraction, self._num_updates = teacher_fraction(said), num_updates
        self._mixture: Mixture | None = None
        self._held_out: HeldOut | None = None
        self._num_begun = 0

    def teach(
        self, head: int, student: TorchPolicy, loss: Loss, *, num_rows: float | None = None, measure: bool = False
    ) -> None:
        """Lay out the play that is learned from, and that which is held out."""
        del num_rows  # any are drawn from all that is kept
        self._student, self._measures_inputs, said = student, measure, self._said
        hindsight: Hindsight | None = None
        if self._teacher_fraction.bounds[0] < 1:
            acting = fit_policy(sampling(student) if said.lookahead else student, self.playable.task)
            self._mixture = Mixture(self._player, acting, self._teacher_fraction(0.0), per=said.mix)
            if said.lookahead or said.value_gate is not None:
                hindsight = Hindsight(acting, loss, said.lookahead, said.value_gate)
        # A collection ends when all environments have stepped.
        in_whole_locksteps = -(-self._collect_steps // self._num_envs) * self._num_envs
        capacity = said.replay_capacity if said.replay == "keep" else in_whole_locksteps
        self._learned = self._play(self._mixture, head, "live", self._num_envs, capacity, hindsight)
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
        self._measured.play(
            num_steps=self._held_out_steps, num_episodes=MIN_HELD_OUT_EPISODES, callbacks=self._callbacks
        )
        self._measured.close()
        if self._measures_inputs and update == 0:
            # Before the student acts or learns; a run that goes on has them in its checkpoint.
            measure_inputs(self._student, self.held_out.batch)
        collections = min(update // self._collect_period + 1, self._num_collections)
        if self._mixture is not None:
            self._mixture.fraction = self._teacher_fraction(1.0 if self._num_begun else update / self._num_updates)
        # Where there are data, the first collection is left out: a student that knows nothing would act.
        due = (collections - bool(self._num_begun)) * self._collect_steps
        self._learned.play(num_steps=self._num_begun + due, callbacks=self._callbacks)
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
        return self._learned.replay.store.is_decoded

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
        warnings: list[str] = []
        fraction = self._teacher_fraction(0.0)
        if self._teacher_fraction.bounds[0] < 1 and self._num_collections == 1:
            who = "only the teacher acts" if fraction == 1 else "the student acts untrained"
            warnings.append(
                f"{self.description}: all of it comes before the first update, where teacher_fraction is {fraction:g} "
                f"and {who}. Lower --collect-period ({self._collect_period:,}) and --collect-steps "
                f"({self._collect_steps:,}), or raise --num-updates ({self._num_updates:,})."
            )
        has_chance = self._epsilon > 0 or self.task.protocol.sticky_action_probability > 0
        if self.task.is_atari and self._player.behaviour == "greedy" and not has_chance:
            warnings.append(
                f"{self.description} without chance: episodes repeat, and held-out ones may equal those trained on. "
                "Play with --exploration-epsilon 0.05."
            )
        return warnings

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
            window_length=self._window_length,
            burn_in=self._burn_in,
        )
