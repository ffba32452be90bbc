"""What datasets and students record of the policy that taught them.

Not among the names of `rldistill.policies`: whoever only loads a policy need not import the datasets' packages.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rldistill.data import TeacherEntry
from rldistill.policies.behaviour import Behaviour
from rldistill.policies.protocol import Policy
from rldistill.policies.torch_policy import TorchPolicy


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
    normalization = policy.normalization if isinstance(policy, TorchPolicy) else None
    return TeacherEntry(
        policy.name,
        policy.hash,
        policy.output_kind,
        None if path is None else str(path),
        None if normalization is None else asdict(normalization),
        reading,
        policy.behaviour if played_as not in (None, policy.behaviour) else None,
        _num_parameters(policy),
    )


def _num_parameters(policy: Policy) -> int | None:
    """Return the size of a policy's network; None where only its answers are known."""
    if isinstance(policy, TorchPolicy):
        return policy.num_parameters
    # Of a program its own word, if it has one; of a policy of somebody's own nothing.
    program = getattr(policy, "program", None)
    return getattr(program, "num_parameters", None) or None
