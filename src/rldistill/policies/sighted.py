"""A policy of another library that sees some parts of a task's observations: a teacher of state among pictures."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rldistill.errors import MismatchError, UsageError
from rldistill.networks.input_layer import join_parts
from rldistill.observations import as_tensors
from rldistill.policies.behaviour import Behaviour
from rldistill.policies.padded import check_observations
from rldistill.policies.protocol import Observations, Policy
from rldistill.policies.torch_policy import TorchPolicy
from rldistill.sight import Sight
from rldistill.tasks import Task
from rldistill.types import Actions, OutputKind, PolicyOutput, State


class SightedPolicy:
    """Plays a task by a policy that was made for some parts of its observations; the `Policy` protocol around both.

    Students say in their own files which parts they see (`PolicySpec.sight`) and need no such thing.

    Args:
        policy: takes the parts side by side, or the only one as it is.
        task: whose observations have these parts.
        sight: which of them the policy is given, in order.

    Raises:
        MismatchError: the policy takes something else, or has other actions.
    """

    def __init__(self, policy: Policy, task: Task, sight: Sight) -> None:
        own, seen = policy.tasks[0].fingerprint, sight.seen(task.fingerprint)
        # Names of parts are no matter to a policy that was made for a plain vector.
        alike = seen if own.observation_parts else replace(seen, observation_parts=())
        if differences := replace(own, time_feature=None, zero_padding=0).differences(alike, says_frames=False):
            raise MismatchError(
                f"Policy {policy.name!r} does not fit {', '.join(sight.parts)} of task {task.name!r}: "
                f"{'; '.join(differences)}. Choose the parts that it was trained on, in their order: --teacher-sees."
            )
        self.policy, self.sight, self.name = policy, sight, policy.name
        self.output_kind: OutputKind = policy.output_kind
        self.behaviour: Behaviour = policy.behaviour
        self._task = replace(task, fingerprint=replace(task.fingerprint, action_layout=own.action_layout))
        self.tasks = (self._task,)

    @property
    def hash(self) -> str:
        """SHA-256 of the policy: what it is does not depend on where its observations come from."""
        return self.policy.hash

    def mapped(self, change: Callable[[Policy], Policy]) -> "SightedPolicy":
        """Return what another policy becomes that sees the same parts."""
        return SightedPolicy(change(self.policy), self._task, self.sight)

    def __call__(self, observations: Observations, state: State = None) -> tuple[PolicyOutput, State]:
        """Return outputs for observations of the task, and the next state."""
        return self.policy(self._chosen(observations), state)

    def act(
        self,
        observations: Observations,
        *,
        state: State = None,
        rng: np.random.Generator | Sequence[np.random.Generator] | None = None,
        exploration_epsilon: float = 0.0,
    ) -> tuple[Actions, State]:
        """Return one action per row, and the next state."""
        chosen = self._chosen(observations)
        return self.policy.act(chosen, state=state, rng=rng, exploration_epsilon=exploration_epsilon)

    def initial_state(self, num_envs: int) -> State:
        """Return what the policy remembers at the start of an episode."""
        return self.policy.initial_state(num_envs)

    def for_task(self, name: str) -> "SightedPolicy":
        """Return itself, for its own task. Raises MismatchError: another task."""
        if name != self._task.name:
            raise MismatchError(f"Policy {self.name!r} sees parts of {self._task.name}, got task {name!r}.")
        return self

    def save(self, path: str | Path) -> None:
        """Write the policy, which does not know of the task's other parts."""
        self.policy.save(path)

    def _chosen(self, observations: Observations) -> Observations:
        rows = as_tensors(observations, self._task.fingerprint)
        check_observations(self.name, rows, self._task.fingerprint)
        return join_parts(self.sight.choose(rows))


def check_takes_parts(policy: Policy, sight: Sight, what: str) -> None:
    """Check that a policy, called `what`, does not say itself which parts it sees. Raises UsageError: it does."""
    own = policy.sight if isinstance(policy, SightedPolicy) else None
    own = policy.spec.sight if isinstance(policy, TorchPolicy) else own
    if own is not None:
        raise UsageError(
            f"{what} says itself that it sees {', '.join(own.parts)}: got teacher_sees {', '.join(sight.parts)}. "
            "Leave it out."
        )


def seeing(policy: Policy, task: Task, sight: Sight | None) -> Policy:
    """Return a policy that plays a task by some parts of its observations; None: by all of them."""
    return policy if sight is None else SightedPolicy(policy, task, sight)
