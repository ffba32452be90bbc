"""Evaluate policies side by side: the same episodes for all, random play beside them, task by task."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rldistill.evaluation.file import check_out, write_evaluation
from rldistill.evaluation.pairing import OneOrMorePolicies, OneOrMoreTasks, Pairing, pair
from rldistill.evaluation.play import TaskPlay
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
from rldistill.session.interrupts import stop_on_interrupt
from rldistill.session.threads import use_threads
from rldistill.verbs.config import EvaluateConfig


def evaluate(
    policy: OneOrMorePolicies,
    task: OneOrMoreTasks | None = None,
    *,
    teacher: OneOrMorePolicies | None = None,
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

    A policy of several tasks is played on each of them, unless one is named: `tasks` of the result are the
    evaluations of each, as it would be alone, and `overall` are the students over all of them.

    A greedy policy on Atari without sticky actions and with ε = 0 meets at most `noop_max` different starts: each is
    then played once and reported as a census, without interval.

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
        MismatchError: a policy does not fit a task, or has no head for it; a teacher fits none of them, or two fit one.
        OutputExistsError: `out` holds something other than an evaluation.
        EvaluationNotWrittenError: `out` could not be written after all; its `evaluation` is the result.
        KeyboardInterrupt: stopped; nothing is written.
    """
    check_callbacks(callbacks)
    config = EvaluateConfig(  # checks the numbers
        num_episodes=num_episodes,
        seed=seed,
        exploration_epsilon=exploration_epsilon,
        num_envs=EvaluateConfig.num_envs if num_envs is None else num_envs,
        num_threads=num_threads,
        out=None if out is None else Path(out),
    )
    pairing = pair(
        policy,
        task,
        teacher,
        env_kwargs=env_kwargs,
        exploration_epsilon=exploration_epsilon,
        device=device,
    )
    return evaluate_pairing(pairing, config, callbacks)


def evaluate_pairing(pairing: Pairing, config: EvaluateConfig, callbacks: Sequence[Callback]) -> Evaluation:
    """Play what was loaded, task by task, and write the file.

    Args:
        pairing: policies, tasks and teachers; what `config` says of them is not read again.
        config: episodes, seed, environments, threads and file.
        callbacks: receive events and may stop the run.

    Raises:
        RldistillError: as `evaluate`.
    """
    if config.out is not None:
        check_out(config.out)  # before an hour's play, not after it
    rows: list[PolicyEvaluation] = []
    with use_threads(config.num_threads), stop_on_interrupt(callbacks) as listeners:
        for reason in dict.fromkeys(filter(None, pairing.missing_teachers.values())):
            notify(listeners, MessageEvent(f"no retention: {reason}", "warning"))
        for playable in pairing.playables:
            name = playable.task.name
            # Where there are several tasks, an event names the one that it is about.
            heard = [_naming(name, callback) for callback in listeners] if len(pairing.playables) > 1 else listeners
            play = TaskPlay(playable, config.num_episodes, config.seed, config.num_envs, config.num_threads, heard)
            try:
                rows += play.compare(pairing.policies, pairing.teachers.get(name))
            except StopRequestedError:
                raise KeyboardInterrupt from None
    result = Evaluation(config.seed, tuple(rows))
    if config.out is not None:
        write_evaluation(config.out, result)
    return result


def _naming(task_name: str, callback: Callback) -> Callback:
    """Return a callback that hears which of several tasks an event is about."""

    def named(event: Event) -> bool | None:
        if isinstance(event, ProgressEvent):
            return callback(replace(event, phase=f"{event.phase} on {task_name}"))
        return callback(replace(event, text=f"{task_name}: {event.text}"))

    return named
