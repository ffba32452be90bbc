"""Which parts of its observations does a policy use? Each in turn is replaced by what it was in another episode.

A part that a policy does not need can be anything: its outputs stay the same. One that it lives by costs it its score.
Values of another episode are such as the part has, in their order, but say nothing of the episode that is played.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rldistill.envs import EpisodeEnvs
from rldistill.observations import Tensors, as_tensors
from rldistill.policies import Policy, TorchPolicy
from rldistill.policies.behaviour import Behaviour
from rldistill.policies.protocol import ActsByOutputs, Observations
from rldistill.rollout.evaluate import PlayedEpisodes, play_episodes
from rldistill.rollout.player import EpisodePlayer
from rldistill.seeding import stream_seed
from rldistill.sight import Sight
from rldistill.tasks import Task
from rldistill.types import OutputKind, PolicyOutput, State

_RECORDED_EPISODES = 3
_MOST_RECORDED = 10_000


@dataclass(frozen=True)
class PartUse:
    """A policy without one part of its observations."""

    name: str  # of the part
    mean: float  # score of the policy where the part is that of another episode
    agreement: float | None  # of choices: share of the policy's own states in which it then chooses as it does
    action_gap: float | None  # of a box: mean distance between the two actions there, in widths of the box

    def __str__(self) -> str:
        """Return what it says in words."""
        alike = f"agreement {self.agreement:.1%}" if self.action_gap is None else f"action gap {self.action_gap:.1%}"
        return f"{self.name} {self.mean:.4g} ({alike})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return dict(vars(self))


def part_uses(
    policy: TorchPolicy,
    envs: EpisodeEnvs,
    episodes: Sequence[int],
    *,
    seed: int,
    exploration_epsilon: float,
    on_step: Callable[[int], None] | None = None,
) -> tuple[PartUse, ...]:
    """Play a policy again for each part that it sees; of a policy that sees everything nothing is known.

    Args:
        policy: a student that records what it sees.
        envs: N slots of its task.
        episodes: the ones that it is evaluated on.
        seed: of the episodes.
        exploration_epsilon: chance of a uniformly random action.
        on_step: called after each lockstep with the number of finished episodes; may raise to stop.
    """
    sight = policy.spec.sight
    if sight is None:
        return ()

    def play(actor: Policy, compared: Mapping[str, Policy]) -> PlayedEpisodes:
        return play_episodes(
            actor,
            envs,
            episodes,
            seed=seed,
            exploration_epsilon=exploration_epsilon,
            compared=compared,
            on_step=on_step,
        )

    values = _other_values(policy, envs, seed=stream_seed(seed, "values of other episodes"), sight=sight)
    replaced = {name: _Replaced(policy, name, sight, part) for name, part in values.items()}
    alike = play(policy, replaced)
    is_continuous = policy.tasks[0].fingerprint.action_layout.is_continuous
    return tuple(
        PartUse(
            name,
            float(play(actor, {}).scores.mean()),
            None if is_continuous else alike.likeness[name].value,
            alike.likeness[name].value if is_continuous else None,
        )
        for name, actor in replaced.items()
    )


def _other_values(policy: TorchPolicy, envs: EpisodeEnvs, *, seed: int, sight: Sight) -> dict[str, Tensor]:
    """Return values of each part that is seen, `[K, ...]`, of a few episodes one after the other."""
    episodes: dict[int, list[np.ndarray]] = {number: [] for number in range(_RECORDED_EPISODES)}
    num_recorded = 0
    for step in EpisodePlayer(policy, envs, list(episodes), seed=seed, exploration_epsilon=0.0).play():
        for row, episode in enumerate(step.episodes.tolist()):
            episodes[episode].append(step.observations[row : row + 1])
        num_recorded += len(step.episodes)
        if num_recorded >= _MOST_RECORDED:
            break
    rows = np.concatenate([row for recorded in episodes.values() for row in recorded])
    shown = as_tensors(rows, policy.tasks[0].fingerprint)
    return {name: sight.part(name, shown).clone() for name in sight.parts}


class _Replaced(ActsByOutputs):
    """A policy that gets a part of another episode: its state counts the steps of the episode that it plays."""

    def __init__(self, policy: TorchPolicy, part: str, sight: Sight, values: Tensor) -> None:
        self._policy, self._part, self._sight, self._values = policy, part, sight, values
        self.name, self.hash = policy.name, policy.hash
        self.tasks: tuple[Task, ...] = policy.tasks
        self.output_kind: OutputKind = policy.output_kind
        self.behaviour: Behaviour = policy.behaviour

    def __call__(self, observations: Observations, state: State = None) -> tuple[PolicyOutput, State]:
        """Return the policy's output for observations with the part replaced, and the next state."""
        shown = as_tensors(observations, self._policy.tasks[0].fingerprint)
        steps, *own = state or self.initial_state(len(observations))
        output, following = self._policy(self._shown(shown, steps), tuple(own) or None)
        return output, (steps + 1, *(following or ()))

    def initial_state(self, num_envs: int) -> tuple[Tensor, ...]:
        """Return no step, and what the policy remembers."""
        return torch.zeros(num_envs, dtype=torch.long), *(self._policy.initial_state(num_envs) or ())

    def for_task(self, name: str) -> "_Replaced":
        """Return itself: it plays what the policy plays."""
        return self

    def save(self, path: str | Path) -> None:
        """Refuse: there is nothing to keep."""
        raise TypeError("a policy whose observations are replaced is never saved")

    def _shown(self, shown: Tensors, steps: Tensor) -> Tensors:
        values = self._values[steps % len(self._values)]
        if isinstance(shown, Tensor):
            changed = shown.clone()
            self._sight.part(self._part, changed)[...] = values
            return changed
        return {name: values if name == self._part else part for name, part in shown.items()}
