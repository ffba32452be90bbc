"""Plays whole episodes in N slots; episode i is a function of (seed, i) alone.

Who acts and who labels are separate: an actor (a policy, or a mixture of two) decides what is done, and any number
of labellers say what they would do of each observation. Every slot carries the state of every policy that has one.

An episode's environment seed and the generators of its behaviour come from (seed, i), and a network's answer does not
depend on its neighbours in the batch (`policies.padded`). The same episodes therefore result from any number of
environments, and whether all step together or in two halves.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rldistill.envs import EpisodeEnvs, OverlappedEnvs, StepBatch
from rldistill.errors import EnvironmentFaultError, UnendingEpisodeWarning
from rldistill.observations import flat
from rldistill.policies import Policy, choose_actions
from rldistill.policies.behaviour import draws_per_decision
from rldistill.policies.switched import SwitchedPolicy
from rldistill.rollout.threads import use_threads
from rldistill.seeding import episode_generator, episode_seed, stream_generator
from rldistill.tasks import ATARI_PREFIX
from rldistill.types import Actions, PolicyOutput, State

LONG_EPISODE = 10_000
"""Decisions after which a person is told that an episode may never end."""
LONGEST_EPISODE = 1_000_000
"""Decisions after which an episode is given up. Atari ends its own: by default after 27,000."""
_STEPS_BETWEEN_LOOKS = 1000


@dataclass
class Mixture:
    """Two policies that share the acting, as in DAgger (Ross et al. 2011).

    Attributes:
        first: acts with probability `fraction`, such as the teacher.
        second: acts otherwise, such as the student.
        fraction: in [0, 1]; may be changed between decisions.
        per: whether who acts is drawn anew for each decision, or once for each episode.
    """

    first: Policy
    second: Policy
    fraction: float
    per: Literal["decision", "episode"] = "decision"


@dataclass(frozen=True)
class StepRecord:
    """One decision in each of M slots that play.

    Attributes:
        episodes: `[M]`, which episode each row belongs to.
        steps: `[M]`, how many decisions that episode had before this one.
        observations: `[M, ...]`, what was decided on.
        labelled: `[M]`, bool: rows that the labellers were asked about.
        labels: by labeller, its output for the labelled rows; empty where there are none.
        actions: `[M, *action_shape]`, what was done, exploration included.
        rewards: `[M]`, float64.
        terminated: `[M]`, bool.
        truncated: `[M]`, bool.
        next_observations: `[M, ...]`, what came of it; at an episode's end its last observation.
    """

    episodes: NDArray[np.int64]
    steps: NDArray[np.int64]
    observations: NDArray[np.generic]
    labelled: NDArray[np.bool_]
    labels: Mapping[str, PolicyOutput]
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
        last_observation: what the last of them was decided on; its parts side by side.
    """

    actions: Actions
    last_observation: NDArray[np.generic]


@dataclass(frozen=True)
class _Decided:
    """What was decided in some slots, whose environments may still be stepping.

    Attributes:
        slots: `[M]`, those that play.
        rows: `[M]`, where these are in what the environments give.
        step: waits for that.
        record: makes the record of it.
    """

    slots: NDArray[np.intp]
    rows: NDArray[np.intp]
    step: Callable[[], StepBatch]
    record: Callable[..., StepRecord]


def _joined(first: StepRecord, second: StepRecord) -> StepRecord:
    """Return the records of both halves as one, in the order of episodes."""
    order = np.argsort(np.concatenate([first.episodes, second.episodes]))
    arrays = [item.name for item in fields(StepRecord) if item.name != "labels"]
    both = {name: np.concatenate([getattr(first, name), getattr(second, name)])[order] for name in arrays}
    labels = dict(first.labels or second.labels)
    if first.labels and second.labels:
        # They have the labelled rows alone, in the same order.
        places = np.argsort(np.concatenate([first.episodes[first.labelled], second.episodes[second.labelled]]))
        labels = {name: output.followed_by(second.labels[name], places) for name, output in first.labels.items()}
    return StepRecord(labels=labels, **both)


def _is_same(observation: NDArray[np.generic], recorded: NDArray[np.generic]) -> bool:
    return np.array_equal(flat(np.asarray(observation)[None])[0], recorded)


class _Seated:
    """A policy with its state in every slot."""

    def __init__(self, policy: Policy, envs: EpisodeEnvs) -> None:
        self.policy = policy
        self._envs = envs
        self._state = policy.initial_state(envs.num_envs)

    @property
    def remembers(self) -> bool:
        return self._state is not None

    def begin(self, slots: Sequence[int]) -> None:
        """Forget what these slots held: an episode begins in each."""
        self._keep(self.policy.initial_state(len(slots)), np.array(slots, np.intp))

    def answer(self, observations: NDArray[np.generic], slots: NDArray[np.intp]) -> PolicyOutput:
        """Return the output for what these slots observe, `[M, ...]`, and keep their next states."""
        state = None if self._state is None else tuple(part[slots] for part in self._state)
        if isinstance(self.policy, SwitchedPolicy):
            # What the environments told beside their observations may say whose row each is.
            told = self.policy.choice.told(self._envs, slots.tolist())
            output, following = self.policy.answer(observations, state, told)
        else:
            output, following = self.policy(observations, state)
        self._keep(following, slots)
        return output

    @torch.inference_mode()
    def _keep(self, state: State, slots: NDArray[np.intp]) -> None:
        for part, own in zip(self._state or (), state or (), strict=True):
            part[slots] = own


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
        self._mixture = actor if isinstance(actor, Mixture) else None
        acting = (actor.first, actor.second) if isinstance(actor, Mixture) else (actor,)
        labellers = labellers or {}
        # A policy that both acts and labels is asked once.
        seated = {id(policy): _Seated(policy, envs) for policy in (*acting, *labellers.values())}
        self._acting = [seated[id(policy)] for policy in acting]
        self._labellers = {name: seated[id(policy)] for name, policy in labellers.items()}
        self._seated = list(seated.values())
        self._label_period = label_period
        self._layout = acting[0].tasks[0].fingerprint.action_layout
        # What idle slots are given, which they ignore.
        dtype = np.float32 if self._layout.is_continuous else np.int64
        self._idle = np.zeros((envs.num_envs, *self._layout.action_shape), dtype)
        self._num_locksteps = 0
        self._is_told = False
        self._envs = envs
        self._queue: Iterator[int] = iter(episodes)
        self._seed = seed
        self._epsilon = exploration_epsilon
        self._episodes: list[int | None] = [None] * envs.num_envs
        self._steps = np.zeros(envs.num_envs, np.int64)
        self._generators: list[np.random.Generator | None] = [None] * envs.num_envs
        # Of a mixture: from what each slot draws who acts, and what it drew last.
        self._mixing: list[np.random.Generator | None] = [None] * envs.num_envs
        self._first_acts = np.ones(envs.num_envs, bool)
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
        # The emulators that step meanwhile have the other half of the threads.
        num_threads = max(torch.get_num_threads() // 2, 1)

        def decide(part: int) -> _Decided | None:
            with use_threads(num_threads):
                return self._decide(part)

        ahead = [decide(part) for part in range(len(self._parts))]
        while any(decided is not None for decided in ahead):
            steps: list[StepRecord] = []
            for part, decided in enumerate(ahead):
                if decided is not None:
                    steps.append(self._received(decided))
                    if steps[-1].ended.any():
                        self._begin(self._parts[part : part + 1])
                    ahead[part] = decide(part)
            yield steps[0] if len(steps) == 1 else _joined(*steps)

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
            actions = self._idle.copy()
            for number, episode in begun.items():
                if len(episode.actions) >= time:
                    actions[slots[number]] = episode.actions[len(episode.actions) - time]
            assert self._observations is not None
            last = self._observations
            under_way = np.array([slots[n] for n, episode in begun.items() if len(episode.actions) >= time], np.intp)
            for seat in self._seated:
                if seat.remembers:  # a state is a function of all that was observed
                    seat.answer(last[under_way], under_way)
            if time == 1:
                diverged = [n for n, e in begun.items() if not _is_same(last[slots[n]], e.last_observation)]
            self._observations = self._envs.step(actions).observations
        for number, episode in begun.items():
            generator = self._generators[slots[number]]
            assert generator is not None
            generator.random((len(episode.actions), draws_per_decision(self._layout)))
            mixing = self._mixing[slots[number]]
            if mixing is not None and self._mixture is not None and self._mixture.per == "decision":
                mixing.random(len(episode.actions))
            self._steps[slots[number]] = len(episode.actions)
        for number in diverged:
            self._episodes[slots[number]] = None
        self._orders.clear()
        return diverged

    def _look_for_the_end(self) -> None:
        """Tell a person of an episode that goes on and on, and give it up in the end."""
        playing = [slot for slot, episode in enumerate(self._episodes) if episode is not None]
        longest = int(self._steps[playing].max(initial=0))
        name = self._acting[0].policy.tasks[0].name
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
            self._generators[slot] = episode_generator(self._seed, episode)
            if self._mixture is not None:
                mixing = stream_generator(self._seed, "who acts", episode)
                self._mixing[slot] = mixing
                if self._mixture.per == "episode":
                    self._first_acts[slot] = mixing.random() < self._mixture.fraction
        self._orders.clear()
        if slots:
            for seat in self._seated:
                seat.begin(slots)
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
        observations = self._observations[playing]
        steps = self._steps[playing]
        labelled = steps % self._label_period == 0
        # Labellers that neither act nor remember are asked below, about the labelled rows alone.
        outputs = {
            seat: seat.answer(observations, playing) for seat in self._seated if seat in self._acting or seat.remembers
        }
        labels = {
            name: outputs[seat].rows(labelled)
            if seat in outputs
            else seat.answer(observations[labelled], playing[labelled])
            for name, seat in (self._labellers.items() if labelled.any() else ())
        }
        chosen = self._choose([outputs[seat] for seat in self._acting], playing)
        actions = self._idle.copy()
        actions[playing] = chosen
        if isinstance(self._envs, OverlappedEnvs):
            step = self._envs.begin_step(part, actions)
        else:
            step = partial(self._envs.step, actions)
        record = partial(StepRecord, episodes, steps, observations, labelled, labels, chosen)
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

    def _choose(self, outputs: Sequence[PolicyOutput], playing: NDArray[np.intp]) -> Actions:
        """Return one action per row, each chosen by the policy that acts there."""
        if self._mixture is None:
            return self._chosen(self._acting[0], outputs[0], self._rng(playing))
        actions = self._idle[playing]
        for output, seat, rows in zip(outputs, self._acting, self._who_acts(self._mixture, playing), strict=True):
            rng = self._rng(playing[rows])
            if not rng:
                continue
            actions[rows] = self._chosen(seat, output.rows(rows), rng)
            if seat.policy.behaviour == "greedy" and self._epsilon == 0:
                # Whoever acts, a decision moves its episode's generator by the same number of draws.
                for generator in rng:
                    generator.random(draws_per_decision(self._layout))
        return actions

    def _chosen(self, seat: _Seated, output: PolicyOutput, rng: list[np.random.Generator]) -> Actions:
        return choose_actions(output, seat.policy.behaviour, rng=rng, exploration_epsilon=self._epsilon)

    def _rng(self, slots: NDArray[np.intp]) -> list[np.random.Generator]:
        generators = [self._generators[slot] for slot in slots.tolist()]
        return [generator for generator in generators if generator is not None]

    def _who_acts(self, mixture: Mixture, playing: NDArray[np.intp]) -> tuple[NDArray[np.bool_], ...]:
        """Return for each policy that may act, `[M]`: the rows where it does."""
        if mixture.per == "decision":
            for slot in playing.tolist():
                mixing = self._mixing[slot]
                assert mixing is not None, "every slot that plays has an episode"
                self._first_acts[slot] = mixing.random() < mixture.fraction
        first = self._first_acts[playing]
        return first, ~first
