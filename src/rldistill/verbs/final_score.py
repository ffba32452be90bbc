"""The end of a distillation: how alike student and teacher are and how well each plays, in one line per task.

A student may choose like its teacher in 97 % of steps and lose every game by the others.
"""

import time
from collections.abc import Callable, Mapping, Sequence

from rldistill.distillation import Likeness
from rldistill.distillation.live import LiveSource
from rldistill.distillation.sources import Source
from rldistill.distillation.stored import StoredSource
from rldistill.envs import PlayableTask, make_task
from rldistill.errors import RldistillError, docs_page, first_line
from rldistill.evaluation.parts import part_uses
from rldistill.events import Callback, ProgressEvent, StopRequestedError, notify, tell
from rldistill.loading.recorded import recorded_teacher
from rldistill.options.distill import DistillOptions
from rldistill.policies import Policy, RandomPolicy, TorchPolicy, fit_policy
from rldistill.rollout.evaluate import play_scores
from rldistill.seeding import stream_generator, stream_seed
from rldistill.statistics import ROLES, Role, Stratum, retention, retention_samples, sample_interval
from rldistill.statistics.bootstrap import MIN_VALUES

DEFAULT_EPISODES = 10
# An environment without a time limit may never end with this student, and nobody asked for this play.
_MOST_STEPS = 20_000
_MOST_SECONDS = 60.0
# Below this share of its teacher's skill a user will want to know what to do.
_GOOD_ENOUGH = 0.95


def tell_scores(
    student: TorchPolicy,
    tasks: Sequence[tuple[Source, Likeness]],
    options: DistillOptions,
    callbacks: Sequence[Callback],
) -> bool:
    """Play a few episodes with student, teacher and random play, and tell the scores; never fails the run.

    Args:
        student: finished and saved.
        tasks: that it was taught, with its likeness to each teacher.
        options: of the run; `evaluate_episodes` None: 10 as far as they end within a minute, but none of Atari, whose
            games take minutes, nor of an environment that was given as an object in Python.
        callbacks: told; one that asks to stop ends the play alone.

    Returns:
        Whether it came to its end: nobody asked to stop.
    """
    started = time.monotonic()
    for data, alike in tasks:
        playable = _playable(data, options)
        if playable is None:
            continue
        try:
            score = _score_line(student, data, alike, playable, options, callbacks, started)
            tell(callbacks, score)
            for text in _parts_line(student, playable, options, callbacks, started):
                tell(callbacks, text)
        except StopRequestedError:
            tell(callbacks, "stopped; the student is saved, its score was not finished")
            return False
        except Exception as error:  # an environment of anybody's: the student is finished whatever happens here
            tell(callbacks, f"no score of {data.task.name}: {first_line(error)}")
    return True


def _playable(data: Source, options: DistillOptions) -> PlayableTask | None:
    """Return what is to be played, without exploration but for Atari; None: nothing, or nothing that can be."""
    task = data.task
    # Nobody asked for this play: it neither takes minutes nor moves an environment of the user's own.
    is_not_played_unasked = task.is_atari or task.name.startswith("python:")
    if options.evaluate_episodes == 0 or (options.evaluate_episodes is None and is_not_played_unasked):
        return None
    if isinstance(data, LiveSource):
        playable = data.playable
    elif isinstance(data, StoredSource) and (task.is_atari or ":" not in task.name):
        # A name with a colon is a Python object that is gone, or a module that a dataset must not have imported.
        try:
            playable = make_task(task)
        except RldistillError:
            return None
    else:
        return None
    if playable.fixed_num_envs is not None and options.evaluate_episodes is None:
        return None
    return playable.with_exploration(0.05 if task.is_atari else 0.0)


def _score_line(
    student: TorchPolicy,
    data: Source,
    alike: Likeness,
    playable: PlayableTask,
    options: DistillOptions,
    callbacks: Sequence[Callback],
    started: float,
) -> str:
    task, num_episodes = playable.task, options.evaluate_episodes or DEFAULT_EPISODES
    teacher = data.policy or recorded_teacher(student, task, device=options.device)
    policies: dict[Role, Policy] = {"student": student}
    if teacher is not None:
        policies |= {"teacher": teacher, "random": RandomPolicy(task)}
    scores: dict[Role, Sequence[float]] = {
        role: play_scores(
            policy,
            playable,
            range(num_episodes),
            num_envs=options.num_envs,
            num_threads=options.num_threads,
            # Of this purpose alone: evaluations meet other episodes.
            seed=stream_seed(options.seed, "score of the finished student"),
            on_step=_reporter(role, options, callbacks, started),
        )
        for role, policy in policies.items()
    }
    return _in_words(scores, alike, options, of=f" of {task.name}" if len(student.tasks) > 1 else "")


def _parts_line(
    student: TorchPolicy,
    playable: PlayableTask,
    options: DistillOptions,
    callbacks: Sequence[Callback],
    started: float,
) -> list[str]:
    """Return what the student makes of each part that it sees, where that was chosen."""
    if student.spec.sight is None:
        return []
    num_episodes = options.evaluate_episodes or DEFAULT_EPISODES
    fitted = fit_policy(student, playable.task)
    assert isinstance(fitted, TorchPolicy), "a policy of ours stays one"
    envs = playable.make_envs(min(options.num_envs, num_episodes), options.num_threads)
    try:
        parts = part_uses(
            fitted,
            envs,
            range(num_episodes),
            seed=stream_seed(options.seed, "score of the finished student"),
            exploration_epsilon=playable.task.protocol.exploration_epsilon,
            on_step=_reporter("student without a part", options, callbacks, started),
        )
    finally:
        envs.close()
    return [f"score with a part of another episode: {', '.join(map(str, parts))}"] if parts else []


def _reporter(
    role: str, options: DistillOptions, callbacks: Sequence[Callback], started: float
) -> Callable[[int], None]:
    num_episodes, num_steps = options.evaluate_episodes or DEFAULT_EPISODES, 0
    how = f"`rldistill evaluate {options.out}` plays without this limit"

    def report(num_finished: int) -> None:
        nonlocal num_steps
        num_steps += 1
        if options.evaluate_episodes is None and num_steps > _MOST_STEPS:
            text = f"gave up: the {role}'s {num_episodes} episodes did not end within {_MOST_STEPS:,} steps. {how}"
            raise RldistillError(text)
        if options.evaluate_episodes is None and time.monotonic() - started > _MOST_SECONDS:
            raise RldistillError(f"gave up: the play did not end within {_MOST_SECONDS:.0f} s. {how}")
        notify(callbacks, ProgressEvent(f"score {role}", num_finished, num_episodes, "episodes"))

    return report


def _in_words(scores: Mapping[Role, Sequence[float]], alike: Likeness, options: DistillOptions, *, of: str) -> str:
    likeness = f"{alike.name.replace('_', ' ')} {100 * alike.value:.1f} %"
    means, num_episodes = {role: sum(own) / len(own) for role, own in scores.items()}, len(scores["student"])
    if "teacher" not in scores:
        return f"score{of} {means['student']:.4g} ({num_episodes} episodes; its teacher is not at hand); {likeness}"
    kept = retention(scores["student"], scores["teacher"], scores["random"])
    shown = f"score{of} {means['student']:.4g} of {means['teacher']:.4g}"
    if kept is None:
        return f"{shown} ({num_episodes} episodes each; the teacher is no better than random play); {likeness}"
    episodes = Stratum(scores["student"], scores["teacher"], scores["random"], together=ROLES)
    rng = stream_generator(options.seed, "interval of the finished student's score")
    interval = sample_interval(retention_samples(episodes, rng=rng))
    if interval is None and num_episodes >= MIN_VALUES:
        doubt = f"whether its teacher is better than random play, {num_episodes} episodes do not show"
        return f"{shown} ({num_episodes} episodes each; {doubt}); {likeness}"
    ends = "" if interval is None else f" [{interval.low:.2f}, {interval.high:.2f}]"
    advice = "" if kept >= _GOOD_ENOUGH else f". To raise it: {docs_page('worse-than-teacher.md')}"
    return f"{shown} (retention {kept:.2f}{ends}, {num_episodes} episodes each); {likeness}{advice}"
