"""What datasets and students record of the policy that taught them.

Not among the names of `rldistill.policies`: whoever only loads a policy need not import the datasets' packages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from rldistill.data import TeacherEntry
from rldistill.errors import MismatchError, UsageError
from rldistill.policies.behaviour import Behaviour
from rldistill.policies.input_statistics import observed_statistics
from rldistill.policies.protocol import Policy
from rldistill.policies.sighted import SightedPolicy
from rldistill.policies.switched import SwitchedPolicy
from rldistill.policies.torch_policy import TorchPolicy
from rldistill.tasks import Task
from rldistill.types import FURTHER_FIELDS

_WHY_MISSING: Mapping[str, str] = {
    "value": "Its critic is missing in its file, or a network apart from its policy.",
    "features": "Its network is a program or a module, whose inner layers nobody knows.",
}


def teacher_entry(
    policy: Policy,
    path: str | Path | None,
    reading: Mapping[str, Any] | None = None,
    *,
    played_as: Behaviour | None = None,
) -> TeacherEntry:
    """Return what datasets and students record of a teacher.

    Args:
        policy: the teacher.
        path: of its file, if it has one.
        reading: what a user said of that file, if anything.
        played_as: how it acted while it was recorded; None: as it does.
    """
    if isinstance(policy, SightedPolicy):
        reading = {**(reading or {}), "sight": policy.sight.to_dict()}
        return teacher_entry(policy.policy, path, reading, played_as=played_as)
    normalization = observed_statistics(policy) if isinstance(policy, TorchPolicy) else None
    return TeacherEntry(
        policy.name,
        policy.hash,
        policy.output_kind,
        None if path is None else str(path),
        None if normalization is None else asdict(normalization),
        reading,
        policy.behaviour if played_as not in (None, policy.behaviour) else None,
        num_parameters_of(policy),
    )


def several_entry(
    policy: SwitchedPolicy, members: Sequence[TeacherEntry], *, played_as: Behaviour | None = None
) -> TeacherEntry:
    """Return what is recorded of several teachers of one task, given what is of each, in order."""
    teachers = [{**entry.for_student, "name": name} for name, entry in zip(policy.members, members, strict=True)]
    entry = teacher_entry(policy, None, played_as=played_as)
    return replace(entry, several={"choose": policy.choice.to_dict(), "teachers": teachers})


def further_shapes(policy: Policy, task: Task, wanted: Sequence[str], option: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what a policy gives of one observation besides its outputs, as far as it is wanted.

    Args:
        policy: is asked once.
        task: whose observations it takes.
        wanted: some of `FURTHER_FIELDS`.
        option: that wants them, for messages.

    Raises:
        UsageError: nobody knows one of them.
        MismatchError: the policy does not give one of them.
    """
    if unknown := [name for name in wanted if name not in FURTHER_FIELDS]:
        raise UsageError(f"{option}: got {unknown[0]!r}, expected {' or '.join(FURTHER_FIELDS)}.")
    if not wanted:
        return {}
    if isinstance(policy, SwitchedPolicy):
        # Each is asked: nobody can say whose a blank observation is.
        shapes = [further_shapes(own, task, wanted, option) for own in policy.members.values()]
        if any(own != shapes[0] for own in shapes):
            raise MismatchError(
                f"{option}: the teachers of {policy.name} give {wanted} of different sizes. Leave it out."
            )
        return shapes[0]
    fingerprint = task.fingerprint
    blank = np.zeros((1, *fingerprint.observation_shape), fingerprint.observation_dtype)
    output, _ = policy(blank, policy.initial_state(1))
    given = {name: getattr(output, name) for name in FURTHER_FIELDS}
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in given.items() if tensor is not None}
    for name in wanted:
        if name not in shapes:
            raise MismatchError(
                f"{option}: teacher {policy.name} gives no {name}, only {' and '.join([output.kind, *shapes])}. "
                f"{_WHY_MISSING[name]} Leave {option} out, or use another teacher."
            )
    return {name: shapes[name] for name in wanted}


def num_parameters_of(policy: Policy) -> int | None:
    """Return the size of a policy's network; None where only its answers are known."""
    if isinstance(policy, TorchPolicy):
        return policy.num_parameters
    if isinstance(policy, SwitchedPolicy):
        sizes = [num_parameters_of(own) for own in policy.members.values()]
        return sum(size for size in sizes if size is not None) if None not in sizes else None
    # A program may say its size; any other policy cannot.
    program = getattr(policy, "program", None)
    return getattr(program, "num_parameters", None) or None
