"""The search for a small student: try sizes on one set of episodes, prove the smallest that holds on fresh ones."""

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rldistill.distillation import LiveSource, distil
from rldistill.distillation.loop import UpdateDivergedError
from rldistill.errors import MismatchError, RldistillError, UsageError
from rldistill.events import Callback, ProgressEvent, notify, tell
from rldistill.loading.named import PolicyLike, as_teacher
from rldistill.networks.growth import grow
from rldistill.options.distill import AUTO, DistillOptions, Live
from rldistill.options.shrink import ShrinkOptions
from rldistill.policies import TorchPolicy, load_policy
from rldistill.policies.entry import num_parameters_of
from rldistill.rollout.evaluate import is_deterministic
from rldistill.sight import choose_parts, shown_to
from rldistill.tasks import Task
from rldistill.verbs.default_student import sizes_that_fit
from rldistill.verbs.distill import set_up
from rldistill.verbs.distillation_setup import DistillationSetup
from rldistill.verbs.recipes import choose_recipe
from rldistill.verbs.shrink_play import Episodes
from rldistill.verbs.shrink_proof import ERROR, MOST_LOOKS, least_episodes, likely_episodes, proved
from rldistill.verbs.shrink_records import (
    NOTHING,
    STUDENT_FILE,
    STUDENTS_FOLDER,
    Proof,
    Shrunk,
    Trial,
    provenance_of,
    share,
    verdict,
)
from rldistill.verbs.shrink_tried import Tried
from rldistill.verbs.sizes import gets_cells, ladder, next_size

# Looks in a row that show nothing better, after which a size is given up.
_PATIENCE = 4
# Episodes on which sizes are compared, and a first few that tell whether the others are worth their time.
_CHOOSING, _GLANCING = 40, 10
# Retention above which the weights of a size that failed are a better beginning than fresh ones. Of one that learned
# nothing they are a worse one: net3 of Pong kept nothing from those of conv:8-8-8:32, and 98 % from fresh ones.
_WORTH_GROWING = 0.5
# Updates after which it is seen anew how many the time is enough for.
_PACE_PERIOD = 100
# Shares of the time: one size may take this much of what is left, is not begun with less than this much of it once
# another holds, and may take this much while none does; the proof is kept this much of all, at least.
_SHARE_OF_A_TRIAL, _LEAST_SHARE, _SHARE_WHILE_NONE_HOLDS, _SHARE_OF_THE_PROOF = 0.5, 0.1, 0.35, 0.2


class Search:
    """One search: teacher, episodes, trials and proofs."""

    def __init__(self, options: ShrinkOptions, named: PolicyLike, out: Path, callbacks: Sequence[Callback]) -> None:
        self._options, self._out, self._callbacks = options, out, callbacks
        self._deadline = time.monotonic() + options.within
        self._teacher, self._playable = as_teacher(
            named, options.task, options, device=options.device, names=options.names
        )
        if self._playable.fixed_num_envs is not None:
            # To break the play off before each look would show students the beginnings of episodes alone.
            raise UsageError(
                "task: got a VectorEnv, expected an id or a callable that makes one environment: `shrink` judges "
                "students in the midst of the play that they learn from, and cannot do both in the same environments. "
                "Pass a callable: lambda: gymnasium.make(…)."
            )
        self._named, self._teacher_size = named, num_parameters_of(self._teacher)
        if is_deterministic(self._teacher, self._playable, self._playable.task.protocol.exploration_epsilon):
            raise UsageError(
                f"{self._playable.task.name} without chance has few different episodes, and none would be fresh for "
                "the proof. Leave --exploration-epsilon out: 0.05."
            )
        # What the student sees decides how it learns.
        sight = choose_parts("student_sees", options.student_sees, options.names, self._playable.task)
        task, teacher_remembers = shown_to(self._playable.task, sight), self._teacher.initial_state(1) is not None
        remembers = gets_cells(task.fingerprint, remembers=teacher_remembers)
        self._recipe = choose_recipe(self._teacher.output_kind, task, remembers=remembers)
        self._episodes = Episodes(options, self._teacher, self._playable, callbacks, deadline=self._deadline)
        # What one size met, the next learns from too.
        self._source: LiveSource | None = None
        self._tried = Tried(out, {"teacher": self._teacher.hash, "task": self._playable.task.to_dict()})
        self._is_out_of_time = False  # before all sizes were tried
        # What an episode of the last student that held took.
        self._student_seconds: float | None = None

    @property
    def task(self) -> Task:
        """The task that is played."""
        return self._playable.task

    def run(self) -> Shrunk:
        """Search, prove, and write what was found."""
        tell(self._callbacks, f"recipe: {self._recipe}")
        if len(self._tried.proofs) < MOST_LOOKS:  # else nothing that is found could be proved
            self._search()
        proof = self._prove()
        while proof is None and self._tried.holding and len(self._tried.proofs) < MOST_LOOKS:
            left, most = self._time_for_a_size()
            if most <= _LEAST_SHARE * left:
                break
            self._go_on(time.monotonic() + most)
            proof = self._prove()
        return self._found(proof)

    def take_up(self) -> None:
        """Go on with what an earlier call tried. Raises MismatchError: it was of another teacher or task."""
        lost = self._tried.take_up(self._options.keep)
        if lost:
            text = f"{', '.join(lost)}: missing in {self._out / STUDENTS_FOLDER}, damaged, or not the student that was"
            tell(self._callbacks, f"{text} recorded; tried again", "warning")
        if self._tried.trials:
            tell(self._callbacks, f"going on with {len(self._tried.trials)} sizes that were tried")
            self._episodes.deadline = math.inf  # there is something to show, whatever the time

    def check_teacher(self) -> None:
        """Check that there is a skill to keep, and time to look for a student, before anything is trained.

        Raises:
            MismatchError: the teacher plays no better than random play, or no episode ends.
            UsageError: this play takes all the time.
        """
        teacher, random = self._episodes.baseline("choosing", _CHOOSING)
        shown = f"teacher {teacher.mean():.4g}, random play {random.mean():.4g}, {_CHOOSING} episodes each"
        if not self._episodes.is_skill("choosing", _CHOOSING):
            raise MismatchError(
                f"{self._teacher.name} plays {self._playable.task.name} no better than random play ({shown}): there is "
                "no skill to keep. See `rldistill inspect FILE --verify`, and whether it acts by --behaviour sample."
            )
        tell(self._callbacks, f"{self._teacher.name} on {self._playable.task.name}: {shown}")
        if (least := self._num_proof_episodes(None)) > self._options.num_episodes:
            tell(self._callbacks, f"a proof of --keep {self._options.keep:g} takes {least} fresh episodes or more here")

    # Sizes.

    def _search(self) -> None:
        """Try sizes: from the middle down while they hold, up where they do not, until neighbours are known."""
        sizes = self._sizes()
        names = list(sizes)
        while True:
            tried = self._tried.outcomes
            if (name := next_size(sizes, tried, self._teacher_size)) is None:
                return
            left, most = self._time_for_a_size()
            # A size that has no time to learn in would count as one that fails.
            if most <= (_LEAST_SHARE * left if self._tried.has_held else 0):
                self._is_out_of_time = True
                tell(
                    self._callbacks,
                    f"time is up: {len(names) - len(tried)} of {len(names)} sizes were not tried to the end",
                )
                return
            self._try(name, time.monotonic() + max(most, 1.0))

    def _go_on(self, until: float) -> None:
        """Look for another student that holds, since those that do failed on fresh episodes.

        Few episodes flatter, and a size is left as soon as it shows enough, while its rate is still high. So the
        largest of them learns again, until its schedule ends; if it then does not hold, larger sizes are tried.
        """
        largest = max(self._tried.holding, key=_size_of)
        self._tried.given_up |= {trial.network for trial in self._tried.holding}
        if largest.num_updates < self._recipe.num_updates:
            self._try(largest.network, until, to_the_end=True)
        if not self._tried.holding:
            self._search()

    def _time_for_a_size(self) -> tuple[float, float]:
        """Return the seconds that are left, and how many of them the next size may take."""
        left = self._deadline - time.monotonic()
        most = min(_SHARE_OF_A_TRIAL * left, left - self._proof_seconds)
        # Without a size that holds there is nothing to prove: better a late proof than none.
        if not self._tried.has_held:
            most = max(most, _SHARE_WHILE_NONE_HOLDS * left)
        return left, most

    @property
    def _proof_seconds(self) -> float:
        """Time that is kept for a last look and a proof.

        An episode of a student takes as long as one of the last that held; before one did, as long as the others'.
        """
        student, others = self._seconds
        proof = self._num_proof_episodes(min(self._tried.holding, key=_size_of, default=None))
        return max(_SHARE_OF_THE_PROOF * self._options.within, _CHOOSING * student + proof * (student + others))

    @property
    def _seconds(self) -> tuple[float, float]:
        """What an episode of a student takes, and one of its teacher and of random play together."""
        both = self._episodes.teacher_seconds, self._episodes.random_seconds
        return max(both) if self._student_seconds is None else self._student_seconds, sum(both)

    def _num_proof_episodes(self, trial: Trial | None) -> int:
        """Return how many fresh episodes the next look at a proof has, of a size that held or, None, of any."""
        keep, num_looks = self._options.keep, len(self._tried.proofs)
        cost = self._episodes.failure_cost("choosing", _CHOOSING)
        least = least_episodes(self._options.num_episodes, keep, num_looks, cost)
        if trial is None:
            return least
        student, others = self._seconds
        left = (self._deadline - time.monotonic()) / max(student + others, 1e-9)
        return max(least, min(likely_episodes(trial, _CHOOSING, keep, num_looks, least, cost), int(left)))

    def _sizes(self) -> dict[str, int]:
        """Return the sizes that fit the observation, smallest first, with their parameters.

        Raises:
            MismatchError: none fits.
        """
        options, setup = set_up(self._distillation(AUTO), self._callbacks)
        setup.batches.close()
        names = ladder(setup.tasks[0].seen, remembers=setup.tasks[0].remembers)
        sizes = sizes_that_fit(names, options, setup.tasks)
        ordered = sorted(sizes.items(), key=lambda item: item[1])
        # A student as large as its teacher is no find; for the smallest of teachers something is tried all the same.
        largest = self._teacher_size or math.inf
        return dict([item for item in ordered if item[1] < largest] or ordered[:1])

    def _distillation(self, student: str) -> DistillOptions:
        options = self._options
        return DistillOptions(
            # What is left out of both, the recipe says: the same one for every size.
            Live(self._teacher, self._playable, behaviour=options.behaviour),
            out=self._out,
            student=student,
            **options.of_student,
            evaluate_episodes=0,
            seed=options.seed,
            num_envs=self._playable.num_envs(options.num_envs, 0),
            num_threads=options.num_threads,
            device=options.device,
        )

    def _try(self, name: str, until: float, *, to_the_end: bool = False) -> None:
        """Train one size until it holds, gets no better, or its updates or its time are over.

        Args:
            name: of the network.
            until: when its time is over.
            to_the_end: do not look before its updates or its time are over; it replaces what this size was if it holds.
        """
        started, setup = time.monotonic(), set_up(self._distillation(name), self._callbacks)[1]
        (source,) = setup.sources
        assert isinstance(source, LiveSource)
        if self._source is not None:
            source.go_on_from(self._source)
        num_begun, self._source = int(source.record["num_steps"]), source
        self._begin_from_failed(setup.student)
        best: tuple[float, float, TorchPolicy, int] | None = None
        num_looks_in_vain, is_cut = 0, False
        try:
            for update, is_last in self._updates(setup, name, until):
                is_cut = is_last and update < self._recipe.num_updates
                if not is_last and (to_the_end or update % self._recipe.check_period):
                    continue
                retention, bound = self._look(setup.student, name)
                num_looks_in_vain += 1
                if best is None or (bound, retention) > best[:2]:
                    best, num_looks_in_vain = (bound, retention, setup.student.copy(), update), 0
                if is_last or bound >= self._options.keep or num_looks_in_vain == _PATIENCE:
                    # A bar that waits for updates that will not come would stay on the screen.
                    notify(self._callbacks, ProgressEvent(f"try {name}", update, update, "updates"))
                    break
        except UpdateDivergedError:
            tell(self._callbacks, f"{name} is given up: its training diverged")
        finally:
            setup.batches.close()
        num_steps = int(source.record["num_steps"])
        # A size that diverged before the first look has not shown anything.
        bound, retention, student, num_updates = best or (NOTHING, NOTHING, setup.student, 0)
        trial = Trial(
            name,
            student.num_parameters,
            retention,
            bound,
            bound >= self._options.keep,
            num_updates,
            num_steps - num_begun,
            time.monotonic() - started,
            is_cut,
            "",
        )
        if trial.holds or not to_the_end:
            made = provenance_of(trial, self._teacher, self._named, num_steps=num_steps)
            self._tried.record(trial, student.with_provenance(made))
        what = "holds" if trial.holds else "does not hold"
        tell(
            self._callbacks,
            f"{name}, {trial.num_parameters:,} parameters: keeps {share(trial.retention)} "
            f"(bound {share(trial.bound)}), {what}; {trial.num_steps:,} steps, {trial.seconds:.0f} s",
        )

    def _begin_from_failed(self, student: TorchPolicy) -> None:
        """Give a student the weights of the largest that failed but kept half of the skill, if its layers are alike."""
        failed = [
            trial
            for trial in self._tried.trials
            if trial not in self._tried.holding
            and trial.retention >= _WORTH_GROWING
            and trial.num_parameters <= student.num_parameters
        ]
        for trial in sorted(failed, key=_size_of, reverse=True):
            if grow(load_policy(self._out / trial.file).network, student.network):
                tell(self._callbacks, f"{student.name} begins from the weights of {trial.network}")
                return

    def _updates(self, setup: DistillationSetup, name: str, until: float) -> Iterator[tuple[int, bool]]:
        """Train, giving how many updates were taken, and whether there will be no more."""
        most, began = self._recipe.num_updates, 0.0
        for record in distil(setup.distiller, setup.batches.of_updates(0, most)):
            update, now = record.update + 1, time.monotonic()
            if update == 1:
                began = now  # the first play is over
            elif update % _PACE_PERIOD == 0:
                # A student whose rate was never lowered is worse than it need be: where the time is too short for all
                # updates, the schedules end with it.
                fitting = update + int((until - now) / (now - began) * update)
                setup.distiller.num_updates = max(min(most, fitting), update)
            total = min(setup.distiller.num_updates, most)
            notify(self._callbacks, ProgressEvent(f"try {name}", update, total, "updates"))
            yield update, update == total or now > until

    def _look(self, student: TorchPolicy, name: str) -> tuple[float, float]:
        """Return retention and its bound on the choosing episodes; on the first of them where these are hopeless."""
        # A few episodes of a task with rare rewards may show no skill at all: then all of them are played.
        teacher, random = self._episodes.baseline("choosing", _GLANCING)
        glance = self._episodes.scores(student, "choosing", _GLANCING)
        kept = self._episodes.kept(glance, "choosing", 1 - ERROR, f"look at {name}")
        if teacher.mean() > random.mean() and kept[0] < self._options.keep:
            return kept
        began = time.monotonic()
        others = self._episodes.scores(student, "choosing", _CHOOSING, first=_GLANCING)
        seconds = (time.monotonic() - began) / (_CHOOSING - _GLANCING)
        retention, bound = self._episodes.kept(np.append(glance, others), "choosing", 1 - ERROR, f"look at {name}")
        if bound >= self._options.keep:
            self._student_seconds = seconds
        return retention, bound

    def _prove(self) -> Proof | None:
        """Look at fresh episodes of the smallest sizes that hold, until one is proved or time is up."""
        keep = self._options.keep
        for trial in sorted(self._tried.holding, key=_size_of):
            earlier = [proof for proof in self._tried.proofs if proof.policy_hash == trial.policy_hash]
            held = [proof for proof in earlier if proof.holds]
            if held:
                return held[0]
            if self._tried.proofs and time.monotonic() > self._deadline:
                continue  # an earlier call may have proved a larger one
            student = load_policy(self._out / trial.file, device=self._options.device)
            doubled = [2 * proof.num_episodes for proof in earlier]
            num_episodes = max([self._num_proof_episodes(trial), *doubled])
            while len(self._tried.proofs) < MOST_LOOKS:
                proof = proved(self._episodes, student, trial.network, num_episodes, keep, len(self._tried.proofs))
                self._tried.add_proof(proof)
                kept = f"{share(proof.retention)} (bound {share(proof.bound)} at {100 * proof.confidence:g} %)"
                tell(self._callbacks, f"proof of {trial.network}: keeps {kept} in {proof.num_episodes} fresh episodes")
                if proof.holds:
                    return proof
                # More episodes may settle it, and the next look costs half the error.
                num_episodes = 2 * proof.num_episodes
                has_time = time.monotonic() + num_episodes * sum(self._seconds) <= self._deadline
                if proof.retention < keep or not has_time:
                    break
        return None

    # What is left.

    def _found(self, proof: Proof | None) -> Shrunk:
        """Write the student that was found, and say what it is."""
        if not self._tried.trials:
            raise RldistillError(
                f"--within {self._options.within:g} s was over before a first size was tried. Give more time."
            )
        chosen, look = self._tried.closest(proof)
        student = load_policy(self._out / chosen.file, device=self._options.device)
        student.save(self._out / STUDENT_FILE)
        found = Shrunk(
            student,
            self._options.keep,
            proof is not None,
            verdict(
                chosen,
                look,
                self._playable.task.name,
                keep=self._options.keep,
                teacher_size=self._teacher_size,
                time_helps=self._is_out_of_time
                or bool(self._tried.holding)
                or any(trial.is_cut for trial in self._tried.trials),
                may_look_again=len(self._tried.proofs) < MOST_LOOKS,
            ),
            tuple(self._tried.trials),
            tuple(self._tried.proofs),
            self._out,
        )
        self._tried.write(found.to_dict())
        return found


def _size_of(trial: Trial) -> int:
    return trial.num_parameters
