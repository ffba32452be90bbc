"""Plays whole episodes in N slots; episode i is a function of (seed, i) alone.

An episode's environment seed and the generators of its behaviour come from (seed, i), and a network's answer does not
depend on its neighbours in the batch (`policies.padded`). The same episodes therefore result from any number of
environments, and whether all step together or in two halves.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from rldistill.envs import EpisodeEnvs, OverlappedEnvs, StepBatch
from rldistill.errors import EnvironmentFaultError, UnendingEpisodeWarning
from rldistill.observations import flat
from rldistill.policies import Policy
from rldistill.rollout.decisions import Deciders, Mixture
from rldistill.rollout.records import StepRecord, joined
from rldistill.rollout.threads import use_threads
from rldistill.seeding import episode_seed
from rldistill.tasks import ATARI_PREFIX
from rldistill.types import Actions

LONG_EPISODE = 10_000
"""Decisions after which a person is told that an episode may never end."""
LONGEST_EPISODE = 1_000_000
"""Decisions after which an episode is given up. Atari ends its own: by default after 27,000."""
_STEPS_BETWEEN_LOOKS = 1000


@dataclass(frozen=True)
class BegunEpisode:
    """An episode as far as it was played."""

    actions: Actions  # `[k, *action_shape]`, all that was done, k ≥ 1
    last_observation: NDArray[np.generic]  # what the last of them was decided on; its parts side by side


@dataclass(frozen=True)
class _Decided:
    """What was decided in some slots, whose environments may still be stepping."""

    slots: NDArray[np.intp]  # `[M]`, those that play
    rows: NDArray[np.intp]  # `[M]`, where these are in what the environments give
    step: Callable[[], StepBatch]  # waits for that
    record: Callable[..., StepRecord]  # makes the record of it


def _is_same(observation: NDArray[np.generic], recorded: NDArray[np.generic]) -> bool:
    return np.array_equal(flat(np.asarray(observation)[None])[0], recorded)


class EpisodePlayer:
    """Plays episodes one after the other in every slot.

    Args:
        actor: acts, by its own behaviour; of a mixture, each policy by its own.
        envs: N slots.
        episodes: which to play, taken in order by whichever slot is free.
        seed: of all episodes.
        exploration_epsilon: chance of a uniformly random action, in [0, 1], whoever acts.
        labellers: by name, policies that are asked about what is observed.
        label_period: they are asked at every step of an episode that is a multiple of this.

    Raises:
        EnvironmentFaultError: while playing: an episode does not end.
    """

    def __init__(
        self,
        actor: Policy | Mixture,
        envs: EpisodeEnvs,
        episodes: Iterable[int],
        *,
        seed: int,
        exploration_epsilon: float,
        labellers: Mapping[str, Policy] | None = None,
        label_period: int = 1,
    ) -> None:
        self._deciders = Deciders(
            actor,
            labellers or {},
            envs,
            seed=seed,
            exploration_epsilon=exploration_epsilon,
            label_period=label_period,
        )
        self._num_locksteps = 0
        self._is_told = False
        self._envs = envs
        self._queue: Iterator[int] = iter(episodes)
        self._seed = seed
        self._episodes: list[int | None] = [None] * envs.num_envs
        self._steps = np.zeros(envs.num_envs, np.int64)
        # The slots that are decided on together.
        self._parts = envs.slots if isinstance(envs, OverlappedEnvs) else (np.arange(envs.num_envs),)
        # Of each part, its episodes under way and their slots; none: some began or ended since.
        self._orders: dict[int, tuple[NDArray[np.int64], NDArray[np.intp]]] = {}
        self._observations: NDArray[np.generic] | None = None

    def play(self) -> Iterator[StepRecord]:
        """Yield one record per lockstep until no episode is left.

        Whoever receives a record may change the policies, or what a mixture draws, before the next decisions. Not so
        in `OverlappedEnvs`: there these are made already.
        """
        self._begin(self._parts)
        for step in self._in_halves() if isinstance(self._envs, OverlappedEnvs) else self._in_turn():
            yield step
            self._num_locksteps += 1
            if self._num_locksteps % _STEPS_BETWEEN_LOOKS == 0:
                self._look_for_the_end()

    def _in_turn(self) -> Iterator[StepRecord]:
        while (decided := self._decide(0)) is not None:
            step = self._received(decided)
            yield step
            if step.ended.any():
                self._begin(self._parts)

    def _in_halves(self) -> Iterator[StepRecord]:
        """Yield what `_in_turn` does: episodes begin in the same order, and each record has both halves."""
        # The emulators that step meanwhile have the other half of the threads: an operation that waited for one of
        # theirs would cost more than a decision, however small it is.
        num_threads = max(torch.get_num_threads() // 2, 1)
        with use_threads(num_threads):
            ahead = [self._decide(part) for part in range(len(self._parts))]
        while any(decided is not None for decided in ahead):
            steps: list[StepRecord] = []
            with use_threads(num_threads):
                for part, decided in enumerate(ahead):
                    if decided is not None:
                        steps.append(self._received(decided))
                        if steps[-1].ended.any():
                            self._begin(self._parts[part : part + 1])
                        ahead[part] = self._decide(part)
                step = steps[0] if len(steps) == 1 else joined(*steps)
            yield step

    def wind_forward(self, begun: Mapping[int, "BegunEpisode"]) -> list[int]:
        """Take up episodes that were begun before, by repeating what was done in them.

        They are staggered so that all reach their place together. Call it before `play`.

        Args:
            begun: by episode; at most N.

        Returns:
            Episodes that came out differently: their environment is not a function of its seed.
            They are given up, and their slots are free.
        """
        assert len(begun) <= self._envs.num_envs, "more begun episodes than slots"
        slots = dict(zip(begun, range(self._envs.num_envs), strict=False))
        diverged: set[int] = set()
        for time in range(max((len(episode.actions) for episode in begun.values()), default=0), 0, -1):
            starting = [number for number, episode in begun.items() if len(episode.actions) == time]
            self._assign([slots[number] for number in starting], starting)
            under_way = [number for number, episode in begun.items() if len(episode.actions) >= time]
            playing = np.array([slots[number] for number in under_way], np.intp)
            done = np.stack([begun[number].actions[-time] for number in under_way])
            assert self._observations is not None
            last = self._observations
            self._deciders.observe(last[playing], playing)
            if time == 1:
                diverged |= {n for n, e in begun.items() if not _is_same(last[slots[n]], e.last_observation)}
            step = self._envs.step(self._deciders.in_all_slots(done, playing))
            self._observations = step.observations
            diverged |= {n for n in under_way if step.ended[slots[n]]}  # none of them had ended where it was left
        for number, episode in begun.items():
            self._deciders.wind_forward(slots[number], len(episode.actions))
            self._steps[slots[number]] = len(episode.actions)
        for number in diverged:
            self._episodes[slots[number]] = None
        self._orders.clear()
        return sorted(diverged)

    def _look_for_the_end(self) -> None:
        """Tell a person of an episode that goes on and on, and give it up in the end."""
        playing = [slot for slot, episode in enumerate(self._episodes) if episode is not None]
        longest = int(self._steps[playing].max(initial=0))
        name = self._deciders.task_name
        # The emulator ends every episode of Atari by its own limit of frames, 27,000 decisions by default.
        if longest < LONG_EPISODE or name.startswith(ATARI_PREFIX):
            return
        way = (
            "wrap what the callable makes in gymnasium.wrappers.TimeLimit"
            if name.startswith("python:")
            else """--env-kwargs '{"max_episode_steps": 1000}' (in Python env_kwargs=)"""
        )
        if longest >= LONGEST_EPISODE:
            raise EnvironmentFaultError(
                f"Task {name!r}: an episode has not ended after {longest:,} decisions, expected an end. The environment"
                f" seems to have none. Give it one: {way}."
            )
        if not self._is_told:
            self._is_told = True
            warnings.warn(
                f"Task {name!r}: an episode has not ended after {longest:,} decisions. If the environment never ends "
                f"one, give it a limit: {way}. After {LONGEST_EPISODE:,} decisions the episode is given up with an "
                "error.",
                UnendingEpisodeWarning,
                stacklevel=2,
            )

    def _assign(self, slots: list[int], episodes: list[int]) -> None:
        for slot, episode in zip(slots, episodes, strict=True):
            self._episodes[slot] = episode
            self._steps[slot] = 0
        self._orders.clear()
        if slots:
            self._deciders.begin(slots, episodes)
            observed = self._envs.reset(slots, [episode_seed(self._seed, episode) for episode in episodes])
            if self._observations is None:
                self._observations = observed
            else:
                self._observations[slots] = observed[slots]

    def _begin(self, parts: Sequence[NDArray[np.intp]]) -> None:
        """Begin an episode in every free slot of some parts, as long as there are any."""
        free = [slot for part in parts for slot in part.tolist() if self._episodes[slot] is None]
        # `free` first: zip must not take an episode off the queue that no slot is there for.
        episodes = [episode for _, episode in zip(free, self._queue, strict=False)]
        self._assign(free[: len(episodes)], episodes)

    def _decide(self, part: int) -> _Decided | None:
        """Ask the policies in the slots of a part, and let its environments step; None: no episode is played there."""
        episodes, playing = self._orders[part] = self._orders.get(part) or self._in_order(part)
        if not len(playing):
            return None
        assert self._observations is not None
        observations, steps = self._observations[playing], self._steps[playing]
        decision = self._deciders.decide(observations, playing, steps)
        actions = self._deciders.in_all_slots(decision.actions, playing)
        if isinstance(self._envs, OverlappedEnvs):
            step = self._envs.begin_step(part, actions)
        else:
            step = partial(self._envs.step, actions)
        record = partial(
            StepRecord, episodes, steps, observations, decision.labelled, decision.labels, decision.actions
        )
        return _Decided(playing, playing - self._parts[part][0], step, record)

    def _received(self, decided: _Decided) -> StepRecord:
        """Return what came of the decisions in a part, and keep what its slots observe now."""
        step, slots, rows = decided.step(), decided.slots, decided.rows
        record = decided.record(
            step.rewards[rows], step.terminated[rows], step.truncated[rows], step.observations[rows]
        )
        assert self._observations is not None
        self._observations[slots] = record.next_observations
        self._steps[slots] += 1
        for slot in slots[record.ended].tolist():
            self._episodes[slot] = None
            self._orders.clear()
        return record

    def _in_order(self, part: int) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
        """Return the episodes under way in a part, `[M]`, and the slot of each.

        In the order of episodes, not of slots: where a target cuts a lockstep, the same episodes are cut.
        """
        slots = self._parts[part].tolist()
        numbered = sorted((episode, slot) for slot in slots if (episode := self._episodes[slot]) is not None)
        return np.array([episode for episode, _ in numbered]), np.array([slot for _, slot in numbered], np.intp)
