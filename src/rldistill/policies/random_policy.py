"""Uniformly random play, as a policy: the zero of every scale."""

from dataclasses import replace
from pathlib import Path

import torch

from rldistill.observations import num_rows
from rldistill.policies.behaviour import Behaviour
from rldistill.policies.protocol import ActsByOutputs, Observations
from rldistill.storage import canonical_json, sha256_bytes
from rldistill.tasks import Task
from rldistill.types import OutputKind, PolicyOutput, State


class RandomPolicy(ActsByOutputs):
    """Chooses uniformly among the actions of one task; has no weights."""

    def __init__(self, task: Task) -> None:
        self._task = task

    @property
    def name(self) -> str:
        """`random`."""
        return "random"

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Its one task."""
        return (self._task,)

    @property
    def output_kind(self) -> OutputKind:
        """Equal logits for choices, zeros for a box."""
        return "actions" if self._task.fingerprint.action_layout.is_continuous else "logits"

    @property
    def behaviour(self) -> Behaviour:
        """Each action as likely as any other."""
        return "random"

    @property
    def hash(self) -> str:
        """SHA-256 of its action layout: all random play of one layout is the same policy."""
        layout = replace(self._task.fingerprint.action_layout, start=())
        return sha256_bytes(canonical_json(["random", layout.to_dict()]).encode())

    def __call__(self, observations: Observations, state: State = None) -> tuple[PolicyOutput, State]:
        """Return zeros `[B, O]`."""
        layout = self._task.fingerprint.action_layout
        raw = torch.zeros(num_rows(observations), layout.num_outputs(self.output_kind))
        return PolicyOutput.from_raw(layout, self.output_kind, raw), state

    def initial_state(self, num_envs: int) -> State:
        """Return None: no memory."""
        return None

    def for_task(self, name: str) -> "RandomPolicy":
        """Return itself: it plays what it was made for."""
        return self

    def save(self, path: str | Path) -> None:
        """Refuse: there is nothing to keep."""
        raise TypeError("random play has no weights to save")
