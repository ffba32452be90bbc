"""Evaluate policies side by side: the same episodes for all, random play beside them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rldistill.envs import EpisodeEnvs, PlayableTask, TaskLike, make_task
from rldistill.errors import GateError, OutputExistsError, UsageError
from rldistill.events import Callback, MessageEvent, ProgressEvent, StopRequestedError, notify
from rldistill.networks import measure_size
from rldistill.policies import Policy, RandomPolicy, TorchPolicy, fit_policy
from rldistill.rollout.evaluate import PlayedEpisodes, distinct_starts, is_deterministic, play_episodes
from rldistill.rollout.speed import measure_speed
from rldistill.runs.evaluation import Evaluation, PolicyEvaluation
from rldistill.runs.loading import PolicyLike, as_policy, recorded_teacher
from rldistill.runs.threads import use_threads
from rldistill.seeding import stream_generator
from rldistill.statistics import (
    Role,
    bootstrap_interval,
    iqm,
    lower_bound,
    mean,
    normalised_score,
    relative_score,
    retention,
    retention_samples,
    sample_interval,
)
from rldistill.storage import write_json

_DEFAULT_NUM_ENVS = 16


def evaluate(
    policy: PolicyLike | Sequence[PolicyLike],
    task: TaskLike | None = None,
    *,
    teacher: PolicyLike | None = None,
    num_episodes: int = 30,
    seed: int = 0,
    exploration_epsilon: float | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    num_envs: int | None = None,
    num_threads: int = 0,
    device: str = "auto",
    out: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
) -> Evaluation:
    """Play the same episodes with every policy, and with random play, and compare.

    A greedy policy on Atari without sticky actions and with ε = 0 meets at most `noop_max`
    different starts: each is then played once and reported as a census, without interval.

    Args:
        policy: policy, file or run folder, or several.
        task: what to play; None takes the first policy's own task.
        teacher: the reference; None takes the one a student's file names, if it is still there.
        num_episodes: of each policy; of a census, at most that many starts.
        seed: episode i is a function of (seed, i).
        exploration_epsilon: None takes the protocol's: 0.05 for Atari, else 0.
        env_kwargs: settings of the task.
        num_envs: environments stepped together; changes no result.
        num_threads: of torch and the emulator; 0: one per processor.
        device: auto, cpu or cuda.
        out: JSON file to write.
        callbacks: receive events and may stop the run.

    Raises:
        MismatchError: a policy does not fit the task.
        OutputExistsError: `out` holds something other than an evaluation.
        UsageError: a number out of range.
        KeyboardInterrupt: stopped; nothing is written.
    """
    if num_episodes < 1:
        raise UsageError(f"num_episodes must be 1 or more, got {num_episodes}.")
    given = policy if isinstance(policy, Sequence) and not isinstance(policy, str) else [policy]
    if not given:
        raise UsageError("evaluate needs at least one policy.")
    policies = [as_policy(item, device=device) for item in given]
    playable = make_task(task if task is not None else policies[0].tasks[0], env_kwargs)
    if exploration_epsilon is not None:
        playable = playable.with_exploration(exploration_epsilon)
    reference = (
        as_policy(teacher, device=device)
        if teacher is not None
        else recorded_teacher(policies[0], playable.task, device=device)
    )
    if out is not None:
        _check_out(Path(out))
    with use_threads(num_threads):
        run = _EvaluationRun(playable, num_episodes, seed, num_envs or _DEFAULT_NUM_ENVS, num_threads, callbacks)
        try:
            result = run.compare(policies, reference)
        except StopRequestedError:
            raise KeyboardInterrupt from None
    if out is not None:
        write_json(Path(out), result.to_dict())
    return result


def _check_out(path: Path) -> None:
    """Check that nothing but an earlier evaluation would be lost, before an hour's play.

    Raises:
        OutputExistsError: a folder, or a file of something else.
    """
    if not path.exists():
        return
    try:
        is_ours = "policies" in json.loads(path.read_text())
    except (OSError, ValueError, TypeError):
        is_ours = False
    if not is_ours:
        raise OutputExistsError(f"--out {path} exists and is not an evaluation. Choose another --out.")


def reference_for(policies: Sequence[PolicyLike], teacher: PolicyLike | None, *, device: str = "cpu") -> Policy:
    """Return the teacher that policies are compared with.

    Raises:
        UsageError: none was named, and the first policy's file names none that is still there.
    """
    if teacher is not None:
        return as_policy(teacher, device=device)
    student = as_policy(policies[0], device=device)
    recorded = recorded_teacher(student, student.tasks[0], device=device)
    if recorded is None:
        raise UsageError("--require-retention compares with a teacher: name it with --teacher FILE.")
    return recorded


def check_retention(evaluation: Evaluation, required: float) -> None:
    """Check that every student keeps at least this share of the teacher's skill, at 95 % confidence.

    Raises:
        UsageError: there is no teacher to compare with.
        GateError: names the students whose lower bound is below.
    """
    if evaluation.teacher is None:
        raise UsageError("--require-retention compares with a teacher: name it with --teacher FILE.")
    if not evaluation.students:
        raise UsageError("--require-retention got no student: every policy named is the teacher itself.")
    failed = [
        student
        for student in evaluation.students
        if student.retention_lower_bound is None or student.retention_lower_bound < required
    ]
    if failed:
        listing = ", ".join(
            f"{student.name} "
            + ("unknown" if student.retention_lower_bound is None else f"{student.retention_lower_bound:.3f}")
            for student in failed
        )
        raise GateError(
            f"Retention gate failed: lower bound (one-sided 95 %) of {listing}, required {required:g}. "
            "More episodes narrow the interval; a better student raises it."
        )


class _EvaluationRun:
    """One comparison: the task, its environments, its episodes."""

    def __init__(
        self,
        playable: PlayableTask,
        num_episodes: int,
        seed: int,
        num_envs: int,
        num_threads: int,
        callbacks: Sequence[Callback],
    ) -> None:
        self._playable = playable
        self._num_episodes = num_episodes
        self._seed = seed
        self._num_envs = playable.fixed_num_envs or min(num_envs, num_episodes)
        self._num_threads = num_threads
        self._callbacks = callbacks
        self._epsilon = playable.task.protocol.exploration_epsilon
        self._starts: list[int] | None = None

    def compare(self, students: Sequence[Policy], teacher: Policy | None) -> Evaluation:
        """Play all, then relate each to the teacher and to random play."""
        task = self._playable.task
        fitted = [fit_policy(student, task) for student in students]
        reference = None if teacher is None else fit_policy(teacher, task)
        # The teacher may also be named among the policies: it is played once, as the teacher.
        fitted = [student for student in fitted if reference is None or student.hash != reference.hash]
        names = _unique_names([student.name for student in fitted])
        envs = self._playable.make_envs(self._num_envs, self._num_threads)
        try:
            compared = dict(zip(names, fitted, strict=True))
            random = self._play(RandomPolicy(task), envs, "random")
            taught = None if reference is None else self._play(reference, envs, reference.name, compared)
            played = [self._play(student, envs, name) for name, student in compared.items()]
        finally:
            envs.close()
        rows: list[PolicyEvaluation] = []
        if reference is not None and taught is not None:
            rows.append(self._describe(reference, "teacher", reference.name, taught))
        for name, student, episodes in zip(names, fitted, played, strict=True):
            row = self._describe(student, "student", name, episodes)
            rows.append(row if taught is None else self._relate(row, taught, random))
        rows.append(self._describe(RandomPolicy(task), "random", "random", random))
        return Evaluation(task, self._seed, tuple(rows))

    def _play(
        self, policy: Policy, envs: EpisodeEnvs, name: str, compared: Mapping[str, Policy] | None = None
    ) -> PlayedEpisodes:
        is_census = is_deterministic(policy, self._playable, self._epsilon)
        episodes: Sequence[int] = range(self._num_episodes)
        if is_census:
            episodes = self._census(envs)
            text = f"{name} plays without chance: {len(episodes)} of {self._num_starts} distinct starts, each once"
            notify(self._callbacks, MessageEvent(text))

        def report(num_finished: int) -> None:
            notify(self._callbacks, ProgressEvent(f"evaluate {name}", num_finished, len(episodes), "episodes"))

        played = play_episodes(
            policy,
            envs,
            episodes,
            seed=self._seed,
            exploration_epsilon=self._epsilon,
            compared=compared,
            on_step=report,
        )
        return replace(played, is_census=is_census)

    def _census(self, envs: EpisodeEnvs) -> Sequence[int]:
        """Return one episode for each distinct start, or for as many as were asked for; found once."""
        if self._starts is None:
            noop_max = max(self._playable.task.protocol.noop_max or 1, 1)
            self._starts = distinct_starts(envs, seed=self._seed, expected=noop_max)
        return self._starts[: self._num_episodes]

    @property
    def _num_starts(self) -> int:
        return 0 if self._starts is None else len(self._starts)

    def _describe(
        self, policy: Policy, role: Literal["teacher", "student", "random"], name: str, played: PlayedEpisodes
    ) -> PolicyEvaluation:
        scores = played.scores
        average = float(scores.mean())
        task = self._playable.task
        network = policy if isinstance(policy, TorchPolicy) else None
        return PolicyEvaluation(
            name=name,
            role=role,
            policy_hash=policy.hash,
            behaviour=policy.behaviour,
            exploration_epsilon=1.0 if role == "random" else self._epsilon,
            played=played,
            mean=average,
            interval=None if played.is_census else bootstrap_interval(scores, mean, rng=self._rng("mean")),
            iqm_interval=None if played.is_census else bootstrap_interval(scores, iqm, rng=self._rng("iqm")),
            normalised_score=normalised_score(average, task.game) if task.is_atari else None,
            size=measure_size(network.network, bytes_per_parameter=network.spec.bytes_per_parameter)
            if network
            else None,
            speed=measure_speed(network) if network else None,
        )

    def _relate(self, row: PolicyEvaluation, teacher: PlayedEpisodes, random: PlayedEpisodes) -> PolicyEvaluation:
        arms: dict[Role, PlayedEpisodes] = {"student": row.played, "teacher": teacher, "random": random}
        # Where every start was played, nothing is left to chance; a part of them is a sample.
        num_starts = self._num_starts
        fixed: list[Role] = [
            role for role, played in arms.items() if played.is_census and len(played.episodes) == num_starts
        ]
        scores = [played.scores for played in arms.values()]
        samples = retention_samples(scores[0], scores[1], scores[2], rng=self._rng("retention"), fixed=fixed)
        bound = None if samples is None else lower_bound(samples)
        return replace(
            row,
            relative_score=relative_score(scores[0], scores[1]),
            retention=retention(scores[0], scores[1], scores[2]),
            retention_interval=None if samples is None else sample_interval(samples),
            retention_lower_bound=None if bound is None or not math.isfinite(bound) else bound,
            agreement=teacher.agreement.get(row.name),
        )

    def _rng(self, purpose: str) -> np.random.Generator:
        return stream_generator(self._seed, f"bootstrap {purpose}")


def _unique_names(names: Sequence[str]) -> list[str]:
    """Number names that occur twice, so that tables and JSON can tell them apart."""
    counts: dict[str, int] = {}
    unique: list[str] = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        unique.append(name if counts[name] == 1 else f"{name} ({counts[name]})")
    return unique
