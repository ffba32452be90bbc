"""Evaluate policies side by side: the same episodes for all, random play beside them, task by task."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

import numpy as np

from rldistill.adapters.program import ProgramPolicy
from rldistill.envs import EpisodeEnvs, PlayableTask, TaskLike
from rldistill.errors import UsageError
from rldistill.evaluation.file import check_out, write_evaluation
from rldistill.evaluation.multitask import MultiTaskEvaluation, combine
from rldistill.evaluation.names import NamedPolicy
from rldistill.evaluation.pairing import (
    TasksLike,
    TeachersLike,
    check_heads,
    is_several,
    policies_of,
    tasks_to_play,
    teachers_for,
)
from rldistill.evaluation.records import Evaluation, PolicyEvaluation
from rldistill.events import (
    Callback,
    Event,
    MessageEvent,
    ProgressEvent,
    StopRequestedError,
    check_callbacks,
    notify,
)
from rldistill.loading.named import PolicyLike, why_no_teacher
from rldistill.networks import measure_size
from rldistill.policies import Policy, RandomPolicy, TorchPolicy, fit_policy
from rldistill.rollout.evaluate import PlayedEpisodes, distinct_starts, is_deterministic, play_episodes
from rldistill.rollout.speed import measure_speed
from rldistill.seeding import stream_generator
from rldistill.session.interrupts import stop_on_interrupt
from rldistill.session.threads import use_threads
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
from rldistill.tasks import Task
from rldistill.verbs.config import EvaluateConfig

_DEFAULT_NUM_ENVS = 16


class EvaluateSettings(TypedDict, total=False):
    """The keyword arguments of `evaluate`, for its overloads."""

    teacher: TeachersLike | None
    num_episodes: int
    seed: int
    exploration_epsilon: float | None
    env_kwargs: Mapping[str, Any] | None
    num_envs: int | None
    num_threads: int
    device: str
    out: str | Path | None
    callbacks: Sequence[Callback]


@overload
def evaluate(
    policy: PolicyLike | Sequence[PolicyLike], task: TaskLike, **settings: Unpack[EvaluateSettings]
) -> Evaluation: ...
@overload
def evaluate(
    policy: PolicyLike | Sequence[PolicyLike], task: Sequence[TaskLike], **settings: Unpack[EvaluateSettings]
) -> MultiTaskEvaluation: ...
@overload
def evaluate(
    policy: PolicyLike | Sequence[PolicyLike], task: TasksLike | None = None, **settings: Unpack[EvaluateSettings]
) -> Evaluation | MultiTaskEvaluation: ...
def evaluate(
    policy: PolicyLike | Sequence[PolicyLike],
    task: TasksLike | None = None,
    *,
    teacher: TeachersLike | None = None,
    num_episodes: int = 30,
    seed: int = 0,
    exploration_epsilon: float | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    num_envs: int | None = None,
    num_threads: int = 0,
    device: str = "auto",
    out: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
) -> Evaluation | MultiTaskEvaluation:
    """Play the same episodes with every policy, and with random play, and compare.

    A policy of several tasks is played on each of them, unless one is named, and the result is a
    `MultiTaskEvaluation`: each task's evaluation, as it would be alone, and what follows for all of them.

    A greedy policy on Atari without sticky actions and with ε = 0 meets at most `noop_max`
    different starts: each is then played once and reported as a census, without interval; fewer
    episodes than there are starts are a sample of them.

    Args:
        policy: policy, file or run folder, or several.
        task: what to play, or a sequence of that; None takes all the first policy has heads for. The
            name of one of several heads means that head's task as it was recorded.
        teacher: the reference, or several, each for the task it was made for; where there is none, the
            one that the first policy's file names, if it is still there.
        num_episodes: of each policy; of a census, at most that many starts.
        seed: episode i is a function of (seed, i).
        exploration_epsilon: None takes the task's: 0.05 for Atari, else 0, whatever data were collected with.
        env_kwargs: settings of the task.
        num_envs: environments stepped together; changes no result.
        num_threads: of torch and the emulator; 0: one per processor.
        device: auto, cpu or cuda.
        out: JSON file to write; that it can be is checked before anything is played.
        callbacks: receive events and may stop the run.

    Raises:
        MismatchError: a policy does not fit a task, or has no head for it; a teacher fits none of
            the tasks, or two fit one.
        OutputExistsError: `out` holds something other than an evaluation.
        EvaluationNotWrittenError: `out` could not be written after all; its `evaluation` is the result.
        UsageError: a number out of range.
        KeyboardInterrupt: stopped; nothing is written.
    """
    check_callbacks(callbacks)
    # The numbers as the command line checks them.
    config = EvaluateConfig(
        num_episodes=num_episodes,
        seed=seed,
        exploration_epsilon=exploration_epsilon,
        num_envs=_DEFAULT_NUM_ENVS if num_envs is None else num_envs,
        num_threads=num_threads,
    )
    num_episodes, seed, num_threads = config.num_episodes, config.seed, config.num_threads
    policies = policies_of(policy, device=device, task=task, env_kwargs=env_kwargs)
    if not policies:
        raise UsageError("evaluate needs at least one policy.")
    first = policies[0].policy
    playables = tasks_to_play(first, task, env_kwargs)
    if exploration_epsilon is not None:
        playables = [playable.with_exploration(exploration_epsilon) for playable in playables]
    tasks = [playable.task for playable in playables]
    teachers = teachers_for(tasks, first, teacher, device=device)
    has_several = is_several(task) or len(tasks) > 1
    if has_several:
        check_heads([named.policy for named in policies], tasks)
    if out is not None:
        check_out(Path(out))
    evaluations: list[Evaluation] = []
    with use_threads(num_threads), stop_on_interrupt(callbacks) as listeners:
        _tell_of_missing_teachers(first, [own for own in tasks if own.name not in teachers], listeners)
        for playable in playables:
            name = playable.task.name
            heard = [_naming(name, callback) for callback in listeners] if has_several else listeners
            run = _EvaluationRun(playable, num_episodes, seed, config.num_envs, num_threads, heard)
            try:
                evaluations.append(run.compare(policies, teachers.get(name)))
            except StopRequestedError:
                raise KeyboardInterrupt from None
    result = combine(evaluations, seed=seed) if has_several else evaluations[0]
    if out is not None:
        write_evaluation(Path(out), result)
    return result


def evaluate_alone(
    policy: Policy,
    playable: PlayableTask,
    *,
    num_episodes: int,
    seed: int,
    num_envs: int | None = None,
    num_threads: int = 0,
    callbacks: Sequence[Callback] = (),
) -> Evaluation:
    """Play the same episodes with one policy and with random play, under the task's protocol as it is.

    Args:
        policy: plays by its own behaviour.
        playable: what is played.
        num_episodes: of each; of a census, at most that many starts.
        seed: episode i is a function of (seed, i).
        num_envs: environments stepped together; changes no result.
        num_threads: of the emulator.
        callbacks: receive events and may stop the run, by `StopRequestedError`.

    Raises:
        MismatchError: the policy does not fit the task.
    """
    run = _EvaluationRun(playable, num_episodes, seed, num_envs or _DEFAULT_NUM_ENVS, num_threads, callbacks)
    return run.compare([NamedPolicy(policy.name, policy)], None)


def _naming(task_name: str, callback: Callback) -> Callback:
    """Return a callback that is told which of several tasks an event is about."""

    def told(event: Event) -> bool | None:
        if isinstance(event, ProgressEvent):
            return callback(replace(event, phase=f"{event.phase} on {task_name}"))
        return callback(replace(event, text=f"{task_name}: {event.text}"))

    return told


def _tell_of_missing_teachers(student: Policy, tasks: Sequence[Task], callbacks: Sequence[Callback]) -> None:
    """Say why there is nothing to compare with where the student's file names a teacher."""
    reasons = [why_no_teacher(student, task) for task in tasks]
    for reason in dict.fromkeys(reason for reason in reasons if reason):
        notify(callbacks, MessageEvent(f"no retention: {reason}", "warning"))


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

    def compare(self, students: Sequence[NamedPolicy], teacher: NamedPolicy | None) -> Evaluation:
        """Play all, then relate each to the teacher and to random play."""
        task = self._playable.task
        reference = None if teacher is None else fit_policy(teacher.policy, task)
        label = "" if teacher is None else teacher.name
        # The teacher may also be named among the policies: it is played once, as the teacher.
        asked = [named for named in students if reference is None or named.policy.hash != reference.hash]
        fitted = [fit_policy(named.policy, task) for named in asked]
        names = _unique_names([named.name for named in asked])
        envs = self._playable.make_envs(self._num_envs, self._num_threads)
        try:
            compared = dict(zip(names, fitted, strict=True))
            random = self._play(RandomPolicy(task), envs, "random")
            taught = None if reference is None else self._play(reference, envs, label, compared)
            played = [self._play(student, envs, name) for name, student in compared.items()]
        finally:
            envs.close()
        rows: list[PolicyEvaluation] = []
        if reference is not None and taught is not None:
            rows.append(self._describe(reference, "teacher", label, taught))
        for name, student, episodes in zip(names, fitted, played, strict=True):
            row = self._describe(student, "student", name, episodes)
            rows.append(row if taught is None else self._relate(row, taught, random))
        rows.append(self._describe(RandomPolicy(task), "random", "random", random))
        return Evaluation(task, self._seed, tuple(rows))

    def _play(
        self, policy: Policy, envs: EpisodeEnvs, name: str, compared: Mapping[str, Policy] | None = None
    ) -> PlayedEpisodes:
        has_starts = is_deterministic(policy, self._playable, self._epsilon)
        episodes: Sequence[int] = range(self._num_episodes)
        is_census = False
        if has_starts:
            starts = self._distinct_starts(envs)
            episodes = starts[: self._num_episodes]
            is_census = len(episodes) == len(starts)
            count = f"a census of all {len(starts)}" if is_census else f"a sample of {len(episodes)} of {len(starts)}"
            notify(self._callbacks, MessageEvent(f"{name} plays without chance: {count} distinct starts, each once"))

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
        if policy.behaviour == "greedy" and self._epsilon == 0 and not has_starts:
            self._warn_of_copies(name, played)
        return replace(played, is_census=is_census)

    def _warn_of_copies(self, name: str, played: PlayedEpisodes) -> None:
        num_episodes = len(played.episodes)
        if played.num_distinct == num_episodes:
            return
        text = (
            f"{name}: only {played.num_distinct} of {num_episodes} episodes differ, the others are copies: without "
            "exploration it repeats itself. Its interval takes copies for new episodes; --exploration-epsilon 0.05 "
            "would make them differ."
        )
        notify(self._callbacks, MessageEvent(text, "warning"))

    def _distinct_starts(self, envs: EpisodeEnvs) -> list[int]:
        """Return one episode for each distinct start; found once."""
        if self._starts is None:
            noop_max = max(self._playable.task.protocol.noop_max or 1, 1)

            def report(num_found: int) -> None:
                notify(self._callbacks, ProgressEvent("find starts", num_found, noop_max, "starts"))

            self._starts = distinct_starts(envs, seed=self._seed, expected=noop_max, on_draw=report)
        return self._starts

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
            network=_network_name(policy),
            size=None
            if network is None
            else measure_size(network.network, head=network.head, bytes_per_parameter=network.spec.bytes_per_parameter),
            speed=measure_speed(network) if network else None,
        )

    def _relate(self, row: PolicyEvaluation, teacher: PlayedEpisodes, random: PlayedEpisodes) -> PolicyEvaluation:
        arms: dict[Role, PlayedEpisodes] = {"student": row.played, "teacher": teacher, "random": random}
        fixed: list[Role] = [role for role, played in arms.items() if played.is_census]
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
            action_gap=teacher.action_gap.get(row.name),
        )

    def _rng(self, purpose: str) -> np.random.Generator:
        return stream_generator(self._seed, f"bootstrap {purpose}")


def _network_name(policy: Policy) -> str | None:
    """Return what a policy computes with, in a word: `mlp:64x64`, a module's class, or a program's format."""
    if isinstance(policy, TorchPolicy):
        return policy.spec.module if policy.spec.architecture is None else policy.spec.architecture.name
    return policy.program.format if isinstance(policy, ProgramPolicy) else None


def _unique_names(names: Sequence[str]) -> list[str]:
    """Number names that occur twice, so that tables and JSON can tell them apart."""
    counts: dict[str, int] = {}
    unique: list[str] = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        unique.append(name if counts[name] == 1 else f"{name} ({counts[name]})")
    return unique
