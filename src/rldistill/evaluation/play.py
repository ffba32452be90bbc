"""Play one task: random play, the teacher and every policy, all on the same episodes, and relate their scores."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rldistill import statistics
from rldistill.adapters.program import ProgramPolicy
from rldistill.envs import EpisodeEnvs, PlayableTask
from rldistill.evaluation.names import NamedPolicy
from rldistill.evaluation.parts import PartUse, part_uses
from rldistill.evaluation.random_play import play_random
from rldistill.evaluation.records import PolicyEvaluation, finite_lower_bound, stratum
from rldistill.events import Callback, ProgressEvent, notify, tell
from rldistill.networks import NetworkSize, measure_size
from rldistill.policies import Policy, RandomPolicy, TorchPolicy, fit_policy
from rldistill.rollout.evaluate import PlayedEpisodes, distinct_starts, is_deterministic, play_episodes
from rldistill.rollout.speed import DecisionSpeed, measure_speed
from rldistill.seeding import stream_generator
from rldistill.statistics import Role, iqm, mean


@dataclass(frozen=True)
class TaskPlay:
    """The play of one task; the attributes are the options of `evaluate`.

    A callback stops it by `StopRequestedError`.
    """

    playable: PlayableTask
    num_episodes: int
    seed: int
    num_envs: int
    num_threads: int
    callbacks: Sequence[Callback]

    def compare(
        self, policies: Sequence[NamedPolicy], teacher: NamedPolicy | None = None
    ) -> tuple[PolicyEvaluation, ...]:
        """Play all, then relate each to the teacher and to random play; all fit the task.

        Returns:
            The teacher, if there is one, the policies, random play.
        """
        task = self.playable.task
        reference = None if teacher is None else NamedPolicy(teacher.name, fit_policy(teacher.policy, task))
        students = self._students(policies, reference)
        num_envs = min(self.num_envs, self.num_episodes)
        with contextlib.closing(self.playable.envs_for_play(num_envs, self.num_threads)) as envs:
            everyone = [*students, *([] if reference is None else [reference])]
            starts: list[int] = []
            if any(self._has_starts(named.policy) for named in everyone):
                # One episode for each distinct start of a census: the same for all, found once.
                noop_max = max(task.protocol.noop_max or 1, 1)
                report = self._report("find starts", noop_max, "starts")
                starts = distinct_starts(envs, seed=self.seed, expected=noop_max, on_draw=report)
            # Random play does not depend on what is evaluated: once for all policies, and kept for the next evaluation.
            at_random = play_random(
                self.playable,
                envs,
                self.num_episodes,
                seed=self.seed,
                on_step=self._report("evaluate random", self.num_episodes, "episodes"),
                callbacks=self.callbacks,
            )
            random = self._row("random", NamedPolicy("random", RandomPolicy(task)), at_random)
            # Students choose beside the teacher in its states, not in their own: what they do there is comparable.
            asked = {student.name: student.policy for student in students}
            taught = None
            if reference is not None:
                taught = self._row("teacher", reference, self._play(reference, envs, starts, asked))
            rows = [
                replace(
                    self._row("student", student, self._play(student, envs, starts)), parts=self._parts(student, envs)
                )
                for student in students
            ]
        if taught is None:
            return (*rows, random)
        return (taught, *(self._related(row, taught, random) for row in rows), random)

    def _students(self, policies: Sequence[NamedPolicy], teacher: NamedPolicy | None) -> list[NamedPolicy]:
        """Return the policies that are played beside the teacher, each by a name of its own."""
        students: list[NamedPolicy] = []
        # A name that somebody has is given to nobody else: what is asked of policies is kept by their names.
        taken = {named.name for named in policies}
        names: list[str] = []
        for named in policies:
            if teacher is not None and named.policy.hash == teacher.policy.hash:
                text = f"{named.name} is the teacher itself: it is played once, and its row is the teacher's"
                tell(self.callbacks, text)
                continue
            name, count = named.name, 1
            while name in names or (count > 1 and name in taken):
                count += 1
                name = f"{named.name} ({count})"
            names.append(name)
            students.append(NamedPolicy(name, fit_policy(named.policy, self.playable.task)))
        return students

    def _has_starts(self, policy: Policy) -> bool:
        return is_deterministic(policy, self.playable, self._epsilon)

    def _report(self, phase: str, total: int, unit: str) -> Callable[[int], None]:
        return lambda done: notify(self.callbacks, ProgressEvent(phase, done, total, unit))

    def _row(self, role: Role, named: NamedPolicy, played: PlayedEpisodes) -> PolicyEvaluation:
        """Return what a policy's episodes say of it alone."""
        policy, task = named.policy, self.playable.task
        scores, is_census = played.scores, played.is_census
        average = float(scores.mean())
        size, speed = _cost(policy) if isinstance(policy, TorchPolicy) else (None, None)
        return PolicyEvaluation(
            task=task,
            name=named.name,
            role=role,
            policy_hash=policy.hash,
            behaviour=policy.behaviour,
            exploration_epsilon=1.0 if role == "random" else self._epsilon,
            played=played,
            mean=average,
            interval=None if is_census else statistics.bootstrap_interval(scores, mean, rng=self._rng("mean")),
            iqm_interval=None if is_census else statistics.bootstrap_interval(scores, iqm, rng=self._rng("iqm")),
            normalised_score=statistics.normalised_score(average, task.game) if task.is_atari else None,
            network=_network_name(policy),
            size=size,
            speed=speed,
        )

    def _play(
        self,
        named: NamedPolicy,
        envs: EpisodeEnvs,
        starts: Sequence[int],
        asked: Mapping[str, Policy] | None = None,
    ) -> PlayedEpisodes:
        name, policy = named.name, named.policy
        episodes: Sequence[int] = range(self.num_episodes)
        has_starts = self._has_starts(policy)
        if has_starts:
            episodes = starts[: self.num_episodes]
            is_all = len(episodes) == len(starts)
            count = f"a census of all {len(starts)}" if is_all else f"a sample of {len(episodes)} of {len(starts)}"
            tell(self.callbacks, f"{name} plays without chance: {count} distinct starts, each once")
        played = play_episodes(
            policy,
            envs,
            episodes,
            seed=self.seed,
            exploration_epsilon=self._epsilon,
            compared=asked,
            on_step=self._report(f"evaluate {name}", len(episodes), "episodes"),
        )
        if has_starts:
            return replace(played, is_census=len(episodes) == len(starts))
        num_distinct = played.num_distinct
        # Where one start leads to different episodes, there is chance in them: those alike may be new.
        is_repeated = num_distinct <= min(played.num_starts, len(episodes) - 1)
        if policy.behaviour == "greedy" and self._epsilon == 0 and is_repeated:
            text = (
                f"{name}: only {num_distinct} of {len(episodes)} episodes differ, the others are copies: "
                "without exploration it repeats itself. Its interval takes copies for new episodes; "
                "--exploration-epsilon 0.05 would make them differ."
            )
            tell(self.callbacks, text, "warning")
        return played

    def _related(self, row: PolicyEvaluation, teacher: PolicyEvaluation, random: PolicyEvaluation) -> PolicyEvaluation:
        """Return a student's row with what it keeps of the teacher's skill, and how alike it chooses."""
        # One stream of each kind for every student: their intervals differ by their episodes alone.
        task = stratum(row, teacher, random)
        kept = statistics.retention_samples(task, rng=self._rng("retention"))
        ratios = statistics.relative_score_samples(task, rng=self._rng("relative score"))
        ratio = statistics.relative_score(task.student, task.teacher)
        related = replace(
            row,
            relative_score=ratio,
            relative_score_interval=None if ratio is None else statistics.sample_interval(ratios),
            retention=statistics.retention(task.student, task.teacher, task.random),
            retention_interval=statistics.sample_interval(kept),
            retention_lower_bound=finite_lower_bound(kept),
        )
        alike = teacher.played.likeness[row.name]
        interval = None
        if not teacher.played.is_census:  # its states are all there are
            interval = statistics.share_interval(alike.totals, alike.counts, rng=self._rng("likeness"))
        if row.task.fingerprint.action_layout.is_continuous:
            return replace(related, action_gap=alike.value, action_gap_interval=interval)
        return replace(related, agreement=alike.value, agreement_interval=interval)

    def _parts(self, named: NamedPolicy, envs: EpisodeEnvs) -> tuple[PartUse, ...]:
        """Play a student again for each part that it sees, where its file says which."""
        if not isinstance(named.policy, TorchPolicy):
            return ()
        return part_uses(
            named.policy,
            envs,
            range(self.num_episodes),
            seed=self.seed,
            exploration_epsilon=self._epsilon,
            on_step=self._report(f"parts of {named.name}", self.num_episodes, "episodes"),
        )

    @property
    def _epsilon(self) -> float:
        return self.playable.task.protocol.exploration_epsilon

    def _rng(self, purpose: str) -> np.random.Generator:
        return stream_generator(self.seed, f"bootstrap {purpose}")


def _cost(policy: TorchPolicy) -> tuple[NetworkSize, DecisionSpeed]:
    num_bytes = policy.spec.stored_dtype.itemsize
    return measure_size(policy.network, head=policy.head, bytes_per_parameter=num_bytes), measure_speed(policy)


def _network_name(policy: Policy) -> str | None:
    """Return what a policy computes with, in a word: `mlp:64x64`, a module's class, or a program's format."""
    if isinstance(policy, TorchPolicy):
        return policy.spec.module if policy.spec.architecture is None else policy.spec.architecture.name
    return policy.program.format if isinstance(policy, ProgramPolicy) else None
