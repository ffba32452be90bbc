"""Who acts and who labels, in every slot.

An actor (a policy, or a mixture of two) decides what is done, and any number of labellers say what they would do of
each observation. Every slot carries the state of every policy that has one, and the random streams of its episode.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rldistill.envs import EpisodeEnvs
from rldistill.policies import Policy, choose_actions
from rldistill.policies.behaviour import draws_per_decision
from rldistill.policies.switched import SwitchedPolicy
from rldistill.seeding import episode_generator, stream_generator
from rldistill.types import Actions, PolicyOutput, State


@dataclass
class Mixture:
    """Two policies that share the acting, as in DAgger (Ross et al. 2011)."""

    first: Policy  # acts with probability `fraction`, such as the teacher
    second: Policy  # acts otherwise, such as the student
    fraction: float  # in [0, 1]; may be changed between decisions
    # Whether who acts is drawn anew for each decision, or once for each episode.
    per: Literal["decision", "episode"] = "decision"


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


@dataclass(frozen=True)
class Decision:
    """What was decided in M slots."""

    labelled: NDArray[np.bool_]  # `[M]`, bool: rows that the labellers were asked about
    labels: Mapping[str, PolicyOutput]  # by labeller, its output for the labelled rows; empty where there are none
    actions: Actions  # `[M, *action_shape]`, exploration included


class Deciders:
    """An actor and its labellers in every slot, as `EpisodePlayer` is given them."""

    def __init__(
        self,
        actor: Policy | Mixture,
        labellers: Mapping[str, Policy],
        envs: EpisodeEnvs,
        *,
        seed: int,
        exploration_epsilon: float,
        label_period: int,
    ) -> None:
        self._mixture = actor if isinstance(actor, Mixture) else None
        acting = (actor.first, actor.second) if isinstance(actor, Mixture) else (actor,)
        # A policy that both acts and labels is asked once.
        seated = {id(policy): _Seated(policy, envs) for policy in (*acting, *labellers.values())}
        self._acting = [seated[id(policy)] for policy in acting]
        self._labellers = {name: seated[id(policy)] for name, policy in labellers.items()}
        self._seated = list(seated.values())
        self._seed = seed
        self._epsilon = exploration_epsilon
        self._label_period = label_period
        self._task = acting[0].tasks[0]
        layout = self._task.fingerprint.action_layout
        self._num_draws = draws_per_decision(layout)
        # What idle slots are given, which they ignore. Those of a VectorEnv are stepped with it: it must be an action.
        self._idle = np.zeros((envs.num_envs, *layout.action_shape), np.float32 if layout.is_continuous else np.int64)
        if layout.is_continuous:
            self._idle[:] = np.clip(0.0, np.array(layout.low), np.array(layout.high))
        self._generators: list[np.random.Generator | None] = [None] * envs.num_envs
        # Of a mixture: from what each slot draws who acts, and what it drew last.
        self._mixing: list[np.random.Generator | None] = [None] * envs.num_envs
        self._first_acts = np.ones(envs.num_envs, bool)

    @property
    def task_name(self) -> str:
        """What is played."""
        return self._task.name

    def in_all_slots(self, actions: Actions, slots: NDArray[np.intp]) -> Actions:
        """Return actions `[N, *action_shape]`: those of some slots, `[M, *action_shape]`, and any for idle ones."""
        every = self._idle.copy()
        every[slots] = actions
        return every

    def begin(self, slots: Sequence[int], episodes: Sequence[int]) -> None:
        """Begin an episode in each of these slots."""
        for slot, episode in zip(slots, episodes, strict=True):
            self._generators[slot] = episode_generator(self._seed, episode)
            if self._mixture is not None:
                mixing = stream_generator(self._seed, "who acts", episode)
                self._mixing[slot] = mixing
                if self._mixture.per == "episode":
                    self._first_acts[slot] = mixing.random() < self._mixture.fraction
        if slots:
            for seat in self._seated:
                seat.begin(slots)

    def observe(self, observations: NDArray[np.generic], slots: NDArray[np.intp]) -> None:
        """Let policies that remember see what these slots observe, `[M, ...]`, where what is done is known."""
        for seat in self._seated:
            if seat.remembers:  # a state is a function of all that was observed
                seat.answer(observations, slots)

    def wind_forward(self, slot: int, num_steps: int) -> None:
        """Draw from a slot's streams what so many decisions draw."""
        generator, mixing = self._generators[slot], self._mixing[slot]
        assert generator is not None
        generator.random((num_steps, self._num_draws))
        if mixing is not None and self._mixture is not None and self._mixture.per == "decision":
            mixing.random(num_steps)

    def decide(self, observations: NDArray[np.generic], slots: NDArray[np.intp], steps: NDArray[np.int64]) -> Decision:
        """Ask the policies what to do in M slots.

        Args:
            observations: `[M, ...]`.
            slots: `[M]`.
            steps: `[M]`, how many decisions each slot's episode had before this one.
        """
        labelled = steps % self._label_period == 0
        # Labellers that neither act nor remember are asked below, about the labelled rows alone.
        outputs = {
            seat: seat.answer(observations, slots) for seat in self._seated if seat in self._acting or seat.remembers
        }
        labels = {
            name: outputs[seat].rows(labelled)
            if seat in outputs
            else seat.answer(observations[labelled], slots[labelled])
            for name, seat in (self._labellers.items() if labelled.any() else ())
        }
        return Decision(labelled, labels, self._choose([outputs[seat] for seat in self._acting], slots))

    def _choose(self, outputs: Sequence[PolicyOutput], slots: NDArray[np.intp]) -> Actions:
        """Return one action per row, each chosen by the policy that acts there."""
        if self._mixture is None:
            return self._chosen(self._acting[0], outputs[0], self._rng(slots))
        actions = self._idle[slots]
        for output, seat, rows in zip(outputs, self._acting, self._who_acts(self._mixture, slots), strict=True):
            rng = self._rng(slots[rows])
            if not rng:
                continue
            actions[rows] = self._chosen(seat, output.rows(rows), rng)
            if seat.policy.behaviour == "greedy" and self._epsilon == 0:
                # Whoever acts, a decision moves its episode's generator by the same number of draws.
                for generator in rng:
                    generator.random(self._num_draws)
        return actions

    def _chosen(self, seat: _Seated, output: PolicyOutput, rng: list[np.random.Generator]) -> Actions:
        return choose_actions(output, seat.policy.behaviour, rng=rng, exploration_epsilon=self._epsilon)

    def _rng(self, slots: NDArray[np.intp]) -> list[np.random.Generator]:
        generators = [self._generators[slot] for slot in slots.tolist()]
        return [generator for generator in generators if generator is not None]

    def _who_acts(self, mixture: Mixture, slots: NDArray[np.intp]) -> tuple[NDArray[np.bool_], ...]:
        """Return for each policy that may act, `[M]`: the rows where it does."""
        if mixture.per == "decision":
            for slot in slots.tolist():
                mixing = self._mixing[slot]
                assert mixing is not None, "every slot that plays has an episode"
                self._first_acts[slot] = mixing.random() < mixture.fraction
        first = self._first_acts[slots]
        return first, ~first
