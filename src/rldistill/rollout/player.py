"""Plays whole episodes in N slots; episode i is a function of (seed, i) alone.

Its environment seed and its behaviour's generator come from (seed, i), and the network's
answer does not depend on its neighbours in the batch (`policies.torch_policy`). The same
episodes therefore result from any number of environments.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rldistill.envs import EpisodeEnvs
from rldistill.errors import EnvironmentFaultError, MismatchError, UnendingEpisodeWarning
from rldistill.policies import Policy, choose_actions
from rldistill.policies.behaviour import draws_per_decision
from rldistill.seeding import episode_generator, episode_seed
from rldistill.tasks import ATARI_PREFIX
from rldistill.types import Actions, PolicyOutput

LONG_EPISODE = 10_000
"""Decisions after which a person is told that an episode may never end."""
LONGEST_EPISODE = 1_000_000
"""Decisions after which an episode is given up. Atari ends its own: by default after 27,000."""
_STEPS_BETWEEN_LOOKS = 1000


@dataclass(frozen=True)
class StepRecord:
    """One decision in each of M slots that play.

    Attributes:
        episodes: `[M]`, which episode each row belongs to.
        steps: `[M]`, how many decisions that episode had before this one.
        observations: `[M, ...]`, what was decided on.
        output: the policy's output for it, M rows.
        actions: `[M, *action_shape]`, what was done, exploration included.
        rewards: `[M]`, float64.
        terminated: `[M]`, bool.
        truncated: `[M]`, bool.
        next_observations: `[M, ...]`, what came of it; at an episode's end its last observation.
    """

    episodes: NDArray[np.int64]
    steps: NDArray[np.int64]
    observations: NDArray[np.generic]
    output: PolicyOutput
    actions: Actions
    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    next_observations: NDArray[np.generic]

    @property
    def ended(self) -> NDArray[np.bool_]:
        """`[M]`: this was the episode's last decision."""
        return self.terminated | self.truncated


@dataclass(frozen=True)
class BegunEpisode:
    """An episode as far as it was played.

    Attributes:
        actions: `[k, *action_shape]`, all that was done, k ≥ 1.
        last_observation: what the last of them was decided on.
    """

    actions: Actions
    last_observation: NDArray[np.generic]


class EpisodePlayer:
    """Plays episodes one after the other in every slot.

    Args:
        policy: acts, by its own behaviour.
        envs: N slots.
        episodes: which to play, taken in order by whichever slot is free.
        seed: of all episodes.
        exploration_epsilon: chance of a uniformly random action, in [0, 1].

    Raises:
        MismatchError: the policy has a memory.
        EnvironmentFaultError: while playing: an episode does not end.
    """

    def __init__(
        self, policy: Policy, envs: EpisodeEnvs, episodes: Iterable[int], *, seed: int, exploration_epsilon: float
    ) -> None:
        if policy.initial_state(1) is not None:
            raise MismatchError(f"Policy {policy.name!r} keeps a state between decisions, which is not supported yet.")
        self._policy = policy
        self._layout = policy.tasks[0].fingerprint.action_layout
        self._num_locksteps = 0
        self._is_told = False
        self._envs = envs
        self._queue: Iterator[int] = iter(episodes)
        self._seed = seed
        self._epsilon = exploration_epsilon
        self._episodes: list[int | None] = [None] * envs.num_envs
        self._steps = np.zeros(envs.num_envs, np.int64)
        self._generators: list[np.random.Generator | None] = [None] * envs.num_envs
        self._observations: NDArray[np.generic] | None = None

    def play(self) -> Iterator[StepRecord]:
        """Yield one record per lockstep until no episode is left."""
        self._begin([slot for slot, episode in enumerate(self._episodes) if episode is None])
        while any(episode is not None for episode in self._episodes):
            yield self._step()
            self._num_locksteps += 1
            if self._num_locksteps % _STEPS_BETWEEN_LOOKS == 0:
                self._look_for_the_end()
            self._begin([slot for slot, episode in enumerate(self._episodes) if episode is None])

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
        diverged: list[int] = []
        for time in range(max((len(episode.actions) for episode in begun.values()), default=0), 0, -1):
            starting = [number for number, episode in begun.items() if len(episode.actions) == time]
            self._assign([slots[number] for number in starting], starting)
            actions = self._no_actions()
            for number, episode in begun.items():
                if len(episode.actions) >= time:
                    actions[slots[number]] = episode.actions[len(episode.actions) - time]
            if time == 1:
                assert self._observations is not None
                last = self._observations
                diverged = [n for n, e in begun.items() if not np.array_equal(last[slots[n]], e.last_observation)]
            self._observations = self._envs.step(actions).observations
        for number, episode in begun.items():
            generator = self._generators[slots[number]]
            assert generator is not None
            generator.random((len(episode.actions), draws_per_decision(self._layout)))
            self._steps[slots[number]] = len(episode.actions)
        for number in diverged:
            self._episodes[slots[number]] = None
        return diverged

    def _look_for_the_end(self) -> None:
        """Tell a person of an episode that goes on and on, and give it up in the end."""
        playing = [slot for slot, episode in enumerate(self._episodes) if episode is not None]
        longest = int(self._steps[playing].max(initial=0))
        name = self._policy.tasks[0].name
        if longest < LONG_EPISODE:
            return
        limit = "max_frames" if name.startswith(ATARI_PREFIX) else "max_episode_steps"
        way = (
            "wrap what the callable makes in gymnasium.wrappers.TimeLimit"
            if name.startswith("python:")
            else f"""--env-kwargs '{{"{limit}": 1000}}' (in Python env_kwargs=)"""
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

    def _no_actions(self) -> Actions:
        """Return what idle slots are given, which they ignore."""
        dtype = np.float32 if self._layout.is_continuous else np.int64
        return np.zeros((self._envs.num_envs, *self._layout.action_shape), dtype)

    def _assign(self, slots: list[int], episodes: list[int]) -> None:
        for slot, episode in zip(slots, episodes, strict=True):
            self._episodes[slot] = episode
            self._steps[slot] = 0
            self._generators[slot] = episode_generator(self._seed, episode)
        if slots:
            self._observations = self._envs.reset(slots, [episode_seed(self._seed, episode) for episode in episodes])

    def _begin(self, free: list[int]) -> None:
        # `free` first: zip must not take an episode off the queue that no slot is there for.
        episodes = [episode for _, episode in zip(free, self._queue, strict=False)]
        self._assign(free[: len(episodes)], episodes)

    def _step(self) -> StepRecord:
        # In the order of episodes, not of slots: where a target cuts a lockstep, the same episodes are cut.
        numbered = sorted((episode, slot) for slot, episode in enumerate(self._episodes) if episode is not None)
        playing = [slot for _, slot in numbered]
        assert self._observations is not None
        observations = self._observations[playing]
        output, _ = self._policy(observations)
        generators = [generator for generator in (self._generators[slot] for slot in playing) if generator is not None]
        chosen = choose_actions(output, self._policy.behaviour, rng=generators, exploration_epsilon=self._epsilon)
        actions = self._no_actions()
        actions[playing] = chosen
        step = self._envs.step(actions)
        episodes = np.array([episode for episode, _ in numbered], np.int64)
        record = StepRecord(
            episodes,
            self._steps[playing],
            observations,
            output,
            chosen,
            step.rewards[playing],
            step.terminated[playing],
            step.truncated[playing],
            step.observations[playing],
        )
        self._observations = step.observations
        self._steps[playing] += 1
        for slot, is_over in zip(playing, record.ended, strict=True):
            if is_over:
                self._episodes[slot] = None
        return record
