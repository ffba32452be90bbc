"""The episodes of a search: played by every policy alike, and what a student keeps in them."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from rldistill.envs import PlayableTask
from rldistill.errors import MismatchError, UsageError
from rldistill.events import Callback, ProgressEvent, notify
from rldistill.options.shrink import ShrinkOptions
from rldistill.policies import Policy, RandomPolicy
from rldistill.rollout.evaluate import play_scores
from rldistill.seeding import stream_generator, stream_seed
from rldistill.statistics import ROLES, Stratum, lower_bound, retention_samples
from rldistill.verbs.shrink_records import NOTHING

# A game of Atari has at most 27,000 decisions; no task of Gymnasium has more.
_LONGEST_EPISODE = 30_000


class Episodes:
    """Episodes of one task, some for each purpose, that teacher, random play and students meet alike.

    Args:
        options: of the search.
        teacher: whose skill is kept.
        playable: its task.
        callbacks: receive how far the play is.
        deadline: of the search, by `time.monotonic`; the first play of teacher and random play must be over by then.

    Attributes:
        deadline: likewise; infinite where that play need not be in time.
    """

    def __init__(
        self,
        options: ShrinkOptions,
        teacher: Policy,
        playable: PlayableTask,
        callbacks: Sequence[Callback],
        *,
        deadline: float,
    ) -> None:
        self._options, self._teacher, self._playable, self._callbacks = options, teacher, playable, callbacks
        self.deadline = deadline
        self._baselines: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}
        # What an episode of the teacher and one of random play took, when last they played.
        self.teacher_seconds = self.random_seconds = 0.0

    def is_skill(self, purpose: str, num_episodes: int) -> bool:
        """Return whether the teacher plays better than random play, beyond doubt."""
        teacher, random = self.baseline(purpose, num_episodes)
        samples = retention_samples(Stratum(teacher, teacher, random, together=ROLES), rng=self._rng("teacher"))
        return samples is not None and lower_bound(samples) != -np.inf

    def kept(
        self, scores: np.ndarray, purpose: str, confidence: float, stream: str, *, failure_cost: float | None = None
    ) -> tuple[float, float]:
        """Return retention and its one-sided lower bound, by resampling episodes that all have met.

        Good episodes do not show how rare failures are: with a `failure_cost`, in units of the skill, one more counts,
        in which the student plays as random play does and its teacher so much better.
        """
        teacher, random = self.baseline(purpose, len(scores))
        skill = teacher.mean() - random.mean()
        if skill <= 0:
            return NOTHING, NOTHING
        roles = [scores, teacher, random]
        if failure_cost is not None:
            failed = random.mean(), random.mean() + failure_cost * skill, random.mean()
            roles = [np.append(own, more) for own, more in zip(roles, failed, strict=True)]
        samples = retention_samples(Stratum(*roles, together=ROLES), rng=self._rng(stream))
        assert samples is not None
        return float((scores.mean() - random.mean()) / skill), max(lower_bound(samples, confidence), NOTHING)

    def failure_cost(self, purpose: str, num_episodes: int) -> float:
        """Return what a failure costs, in units of the skill: 1 where the teacher always scores alike, else more.

        A student can lose only what its teacher has: where that fails in half of its episodes, a failure in one of the
        others costs twice the skill, and half as many episodes show how rare failures are. In general an episode weighs
        what the teacher keeps in it; n ÷ cost is the effective number of episodes (Kish 1965).
        """
        teacher, random = self.baseline(purpose, num_episodes)
        weights = teacher - random.mean()
        return float((weights**2).mean() / weights.mean() ** 2) if weights.mean() > 0 else 1.0

    def baseline(self, purpose: str, num_episodes: int) -> tuple[np.ndarray, np.ndarray]:
        """Return scores of the teacher and of random play, played once."""
        key = purpose, num_episodes
        if key not in self._baselines:
            longer = [pair for (name, size), pair in self._baselines.items() if name == purpose and size > num_episodes]
            if longer:
                return longer[0][0][:num_episodes], longer[0][1][:num_episodes]
            policies: tuple[Policy, Policy] = self._teacher, RandomPolicy(self._playable.task)
            clock = [time.monotonic()]
            played: list[np.ndarray] = []
            for policy in policies:
                played.append(self.scores(policy, purpose, num_episodes))
                clock.append(time.monotonic())
            self._baselines[key] = played[0], played[1]
            self.teacher_seconds, self.random_seconds = (np.diff(clock) / num_episodes).tolist()
        return self._baselines[key]

    def scores(self, policy: Policy, purpose: str, num_episodes: int, *, first: int = 0) -> np.ndarray:
        """Return scores of episodes `first` to n − 1 of a purpose, which are the same for every policy."""
        scores = play_scores(
            policy,
            self._playable,
            range(first, num_episodes),
            num_envs=self._playable.num_envs(self._options.num_envs, num_episodes - first),
            num_threads=self._options.num_threads,
            seed=stream_seed(self._options.seed, f"shrink {purpose}"),
            on_step=self._reporter(f"{purpose} {policy.name}", first, num_episodes),
        )
        return np.array(scores)

    def _reporter(self, phase: str, first: int, num_episodes: int) -> Callable[[int], None]:
        """Return what reports how many episodes are over, and raises where none comes to its end."""
        num_finished = num_steps = 0
        is_first = not self._baselines  # a proof may well go on beyond the deadline

        def report(done: int) -> None:
            nonlocal num_finished, num_steps
            num_steps = 0 if done > num_finished else num_steps + 1
            num_finished = done
            limit = "--env-kwargs '{\"max_episode_steps\": 1000}'"
            if num_steps > _LONGEST_EPISODE:
                raise MismatchError(
                    f"{self._playable.task.name}: no episode ended within {_LONGEST_EPISODE:,} decisions, and scores "
                    f"are of whole episodes. Give it a time limit: {limit}."
                )
            if is_first and time.monotonic() > self.deadline:
                raise UsageError(
                    f"within: got {self._options.within:g} s, in which {done} of {num_episodes} episodes ended "
                    f"({phase}); teacher and random play come first. Give more time, or the episodes a limit: {limit}."
                )
            notify(self._callbacks, ProgressEvent(phase, first + done, num_episodes, "episodes"))

        return report

    def _rng(self, stream: str) -> np.random.Generator:
        return stream_generator(self._options.seed, f"shrink {stream}")
