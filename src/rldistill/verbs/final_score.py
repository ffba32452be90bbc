"""The end of a distillation: how alike student and teacher are and how well each plays, in one line per task.

A student may choose like its teacher in 97 % of steps and lose every game by the others.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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
    play = _Play(student, options, callbacks, time.monotonic())
    for data, alike in tasks:
        playable = _playable(data, options)
        if playable is None:
            continue
        try:
            tell(callbacks, play.score_line(data, alike, playable))
            for text in play.parts_line(playable):
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


@dataclass(frozen=True)
class _Play:
    """The play of one student."""

    student: TorchPolicy
    options: DistillOptions
    callbacks: Sequence[Callback]
    started: float  # by the clock of `time.monotonic`

    @property
    def num_episodes(self) -> int:
        return self.options.evaluate_episodes or DEFAULT_EPISODES

    @property
    def seed(self) -> int:
        """Of this purpose alone: evaluations meet other episodes."""
        return stream_seed(self.options.seed, "score of the finished student")

    def score_line(self, data: Source, alike: Likeness, playable: PlayableTask) -> str:
        student, options, task = self.student, self.options, playable.task
        teacher = data.policy or recorded_teacher(student, task, device=options.device)
        policies: dict[Role, Policy] = {"student": student}
        if teacher is not None:
            policies |= {"teacher": teacher, "random": RandomPolicy(task)}
        scores: dict[Role, Sequence[float]] = {
            role: play_scores(
                policy,
                playable,
                range(self.num_episodes),
                num_envs=options.num_envs,
                num_threads=options.num_threads,
                seed=self.seed,
                on_step=self.reporter(role),
            )
            for role, policy in policies.items()
        }
        return _in_words(scores, alike, options, of=f" of {task.name}" if len(student.tasks) > 1 else "")

    def parts_line(self, playable: PlayableTask) -> list[str]:
        """Return what the student makes of each part that it sees, where that was chosen."""
        if self.student.spec.sight is None:
            return []
        fitted = fit_policy(self.student, playable.task)
        assert isinstance(fitted, TorchPolicy), "a policy of ours stays one"
        envs = playable.make_envs(min(self.options.num_envs, self.num_episodes), self.options.num_threads)
        try:
            parts = part_uses(
                fitted,
                envs,
                range(self.num_episodes),
                seed=self.seed,
                exploration_epsilon=playable.task.protocol.exploration_epsilon,
                on_step=self.reporter("student without a part"),
            )
        finally:
            envs.close()
        return [f"score with a part of another episode: {', '.join(map(str, parts))}"] if parts else []

    def reporter(self, role: str) -> Callable[[int], None]:
        """Return what hears how many episodes have ended, and gives up play that nobody asked for."""
        num_steps, has_limits = 0, self.options.evaluate_episodes is None
        how = f"`rldistill evaluate {self.options.out}` plays without this limit"

        def report(num_finished: int) -> None:
            nonlocal num_steps
            num_steps += 1
            if has_limits and num_steps > _MOST_STEPS:
                episodes = f"the {role}'s {self.num_episodes} episodes"
                raise RldistillError(f"gave up: {episodes} did not end within {_MOST_STEPS:,} steps. {how}")
            if has_limits and time.monotonic() - self.started > _MOST_SECONDS:
                raise RldistillError(f"gave up: the play did not end within {_MOST_SECONDS:.0f} s. {how}")
            notify(self.callbacks, ProgressEvent(f"score {role}", num_finished, self.num_episodes, "episodes"))

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
