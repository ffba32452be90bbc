"""The one interface through which the library sees a policy, whatever made it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rldistill.policies.behaviour import Behaviour, Generators, choose_actions
from rldistill.tasks import Task
from rldistill.types import Actions, OutputKind, PolicyOutput, State

Observations = NDArray[np.generic] | Tensor | Mapping[str, NDArray[np.generic] | Tensor]
"""An array, or those of several parts: structured (`rldistill.observations`), by name, or side by side `[B, P]`."""


class Policy(Protocol):
    """Observations to outputs; acts only through its behaviour."""

    @property
    def name(self) -> str:
        """A short name for tables."""
        ...

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks it can play, one head each; the first is the one it plays unless told."""
        ...

    @property
    def output_kind(self) -> OutputKind:
        """Which action field its outputs have."""
        ...

    @property
    def behaviour(self) -> Behaviour:
        """How it acts by default: greedily, or by sampling."""
        ...

    @property
    def hash(self) -> str:
        """SHA-256 that identifies it everywhere."""
        ...

    def __call__(self, observations: Observations, state: State = None) -> tuple[PolicyOutput, State]:
        """Return outputs for `[B, *observation_shape]` and the next state."""
        ...

    def act(
        self,
        observations: Observations,
        *,
        state: State = None,
        rng: np.random.Generator | Sequence[np.random.Generator] | None = None,
        exploration_epsilon: float = 0.0,
    ) -> tuple[Actions, State]:
        """Return one action per row, `[B, *action_shape]`, choices counted from 0, and the next state."""
        ...

    def initial_state(self, num_envs: int) -> State:
        """Return the state `[B, ...]` at the start of an episode, tensors of its own; None: it remembers nothing."""
        ...

    def for_task(self, name: str) -> "Policy":
        """Return the same policy playing another of its tasks."""
        ...

    def save(self, path: str | Path) -> None:
        """Write it to one file."""
        ...


class ActsByOutputs:
    """`act` of a policy that asks its own `__call__`, and chooses by its behaviour."""

    def act(
        self: Policy,
        observations: Observations,
        *,
        state: State = None,
        rng: Generators | None = None,
        exploration_epsilon: float = 0.0,
    ) -> tuple[Actions, State]:
        """Return one action per row, `[B, *action_shape]`, and the next state."""
        output, state = self(observations, state)
        return choose_actions(output, self.behaviour, rng=rng, exploration_epsilon=exploration_epsilon), state
