"""Scores of whole episodes, and how often two policies choose alike."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from rldistill.envs import EpisodeEnvs, PlayableTask
from rldistill.policies import Policy, choose_actions, fit_policy
from rldistill.rollout.player import EpisodePlayer
from rldistill.rollout.records import StepRecord
from rldistill.seeding import episode_seed
from rldistill.statistics import FloatArray, action_gaps
from rldistill.types import Actions

# Students are asked about every fourth state of the teacher: neighbours hardly differ, and
# which states are asked depends on the episode alone, not on the number of environments.
_AGREEMENT_STRIDE = 4
# Name of the policy that plays, among those that are asked; no policy of a table has it.
_PLAYING = ""
# Starts are drawn until this many draws in a row brought none that is new: of 30 the last is missed once in a million.
_DRAWS_WITHOUT_NEW_START = 400


@dataclass(frozen=True)
class EpisodeScore:
    """One episode."""

    score: float  # undiscounted return
    length: int  # decisions
    seed: int  # of the environment: repeats the episode
    trace: int  # checksum of the first observation, all actions and rewards, and the last observation

    def to_dict(self) -> dict[str, float | int]:
        """Return plain JSON data."""
        return {"return": self.score, "length": self.length, "seed": self.seed}


@dataclass(frozen=True)
class LikenessOfEpisodes:
    """How alike another policy would have chosen in the states of the one that played, by episode."""

    # `[E]`; of choices: states with the same greedy action; of a box: distances of the greedy actions, in its widths
    totals: FloatArray
    counts: FloatArray  # `[E]`, states that it was asked about

    @property
    def value(self) -> float:
        """The mean over all states: agreement of choices, the action gap of a box."""
        return float(self.totals.sum() / self.counts.sum())


@dataclass(frozen=True)
class PlayedEpisodes:
    """What a policy's episodes gave."""

    episodes: tuple[EpisodeScore, ...]  # in the order of their index
    # each distinct start of a deterministic task was played once: the mean is known, not estimated
    is_census: bool = False
    num_starts: int = 0  # first observations that differ; 0: not counted
    # of each compared policy, how alike it would have chosen in these episodes
    likeness: Mapping[str, LikenessOfEpisodes] = field(default_factory=dict[str, LikenessOfEpisodes])

    @property
    def num_distinct(self) -> int:
        """Episodes that differ in what was seen first and last, done or rewarded."""
        return len({episode.trace for episode in self.episodes})

    @property
    def scores(self) -> np.ndarray:
        """`[E]`, float64."""
        return np.array([episode.score for episode in self.episodes])


class _Comparison:
    """Keeps greedy actions of the policy that plays, and of others on its states."""

    def __init__(self, policy: Policy, others: Mapping[str, Policy]) -> None:
        self._layout = policy.tasks[0].fingerprint.action_layout
        # Nobody to compare with: then the player need not be asked what it would do.
        self.labellers = {_PLAYING: policy, **others} if others else {}
        self._episodes: list[NDArray[np.int64]] = []
        self._actions: dict[str, list[Actions]] = {name: [] for name in self.labellers}

    def record(self, step: StepRecord) -> None:
        if not step.labels:
            return
        self._episodes.append(step.episodes[step.labelled])
        for name, actions in self._actions.items():
            actions.append(choose_actions(step.labels[name], "greedy"))

    def likeness(self, episodes: Sequence[int]) -> dict[str, LikenessOfEpisodes]:
        """Compare, episode by episode in this order."""
        if not self._actions:
            return {}
        # Every episode has a first state, and that is asked about: none counts 0.
        places = np.searchsorted(np.array(episodes), np.concatenate(self._episodes))
        counts = _sums(places, np.ones(len(places)), len(episodes))
        actions = {name: np.concatenate(rows).reshape(len(places), -1) for name, rows in self._actions.items()}
        mine = actions.pop(_PLAYING)
        return {
            name: LikenessOfEpisodes(_sums(places, self._by_row(theirs, mine), len(episodes)), counts)
            for name, theirs in actions.items()
        }

    def _by_row(self, theirs: Actions, mine: Actions) -> FloatArray:
        if not self._layout.is_continuous:
            return (theirs == mine).all(axis=1).astype(np.float64)
        return action_gaps(torch.from_numpy(theirs), torch.from_numpy(mine), self._layout).mean(dim=1).numpy()


def _sums(places: NDArray[np.intp], values: FloatArray, size: int) -> FloatArray:
    """Return the sum of the values at each place, `[size]`."""
    sums = np.zeros(size)
    np.add.at(sums, places, values)
    return sums


def is_deterministic(policy: Policy, task: PlayableTask, exploration_epsilon: float) -> bool:
    """Return whether nothing in a policy's play of a task is drawn but the start."""
    sticky = task.task.protocol.sticky_action_probability
    return task.task.is_atari and policy.behaviour == "greedy" and exploration_epsilon == 0 and sticky == 0


def play_episodes(
    policy: Policy,
    envs: EpisodeEnvs,
    episodes: Sequence[int],
    *,
    seed: int,
    exploration_epsilon: float,
    compared: Mapping[str, Policy] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> PlayedEpisodes:
    """Play episodes to their ends.

    Args:
        policy: plays.
        envs: N slots; more than there are episodes stay idle.
        episodes: indices, in rising order.
        seed: of the episodes.
        exploration_epsilon: chance of a uniformly random action.
        compared: policies asked about this policy's states.
        on_step: called after each lockstep with the number of finished episodes; may raise to stop.
    """
    totals = dict.fromkeys(episodes, 0.0)
    lengths = dict.fromkeys(episodes, 0)
    traces = dict.fromkeys(episodes, 0)
    starts: set[int] = set()
    comparison = _Comparison(policy, compared or {})
    num_finished = 0
    player = EpisodePlayer(
        policy,
        envs,
        episodes,
        seed=seed,
        exploration_epsilon=exploration_epsilon,
        labellers=comparison.labellers,
        label_period=_AGREEMENT_STRIDE,
    )
    for step in player.play():
        comparison.record(step)
        for row, episode in enumerate(step.episodes.tolist()):
            totals[episode] += float(step.rewards[row])
            lengths[episode] += 1
            if step.steps[row] == 0:
                traces[episode] = zlib.crc32(step.observations[row].tobytes())
                starts.add(traces[episode])
            happened = step.actions[row].tobytes() + step.rewards[row].tobytes()
            if step.ended[row]:
                happened += step.next_observations[row].tobytes()
            traces[episode] = zlib.crc32(happened, traces[episode])
        num_finished += int(step.ended.sum())
        if on_step:
            on_step(num_finished)
    scores = tuple(
        EpisodeScore(totals[index], lengths[index], episode_seed(seed, index), traces[index]) for index in episodes
    )
    return PlayedEpisodes(scores, num_starts=len(starts), likeness=comparison.likeness(episodes))


def play_scores(
    policy: Policy,
    playable: PlayableTask,
    episodes: Sequence[int],
    *,
    num_envs: int,
    num_threads: int,
    seed: int,
    on_step: Callable[[int], None] | None = None,
) -> list[float]:
    """Return the scores of episodes, played under the protocol in environments made for them.

    Args:
        policy: plays, with its head of the task; its only head also plays a task of another name.
        playable: what is played.
        episodes: indices, in rising order.
        num_envs: environments stepped together, at most as many as episodes.
        num_threads: of the emulator.
        seed: of the episodes.
        on_step: as in `play_episodes`.
    """
    task = playable.task
    envs = playable.envs_for_play(min(num_envs, len(episodes)), num_threads)
    try:
        played = play_episodes(
            fit_policy(policy, task),
            envs,
            episodes,
            seed=seed,
            exploration_epsilon=task.protocol.exploration_epsilon,
            on_step=on_step,
        )
    finally:
        envs.close()
    return played.scores.tolist()


def distinct_starts(
    envs: EpisodeEnvs, *, seed: int, expected: int, on_draw: Callable[[int], None] | None = None
) -> list[int]:
    """Return indices of episodes whose starts all differ.

    Args:
        envs: slots of a task whose starts can be enumerated.
        seed: of the episodes.
        expected: how many there are at most: drawing stops when all were met.
        on_draw: called after each draw with the number of starts met so far; may raise to stop.

    Raises:
        ValueError: the environments cannot tell starts apart.
    """
    found: dict[int, int] = {}
    index, without_new = 0, 0
    while len(found) < expected and without_new < _DRAWS_WITHOUT_NEW_START:
        slots = range(envs.num_envs)
        envs.reset(slots, [episode_seed(seed, index + slot) for slot in slots])
        starts = envs.start_ids()
        if starts is None:
            raise ValueError("the starts of this task cannot be enumerated")
        for slot, start in enumerate(starts.tolist()):
            without_new = 0 if start not in found else without_new + 1
            found.setdefault(start, index + slot)
        index += envs.num_envs
        if on_draw:
            on_draw(len(found))
    return sorted(found.values())
