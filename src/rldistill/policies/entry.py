"""What datasets and students record of the policy that taught them.

Not among the names of `rldistill.policies`: whoever only loads a policy need not import the datasets' packages.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rldistill.data import TeacherEntry
from rldistill.policies.protocol import Policy
from rldistill.policies.torch_policy import TorchPolicy


def teacher_entry(policy: Policy, path: str | Path | None, reading: Mapping[str, Any] | None = None) -> TeacherEntry:
    """Return what datasets and students record of a teacher.

    Args:
        policy: the teacher.
        path: of its file, if it has one.
        reading: what a user said of that file, if anything.
    """
    normalization = policy.normalization if isinstance(policy, TorchPolicy) else None
    return TeacherEntry(
        policy.name,
        policy.hash,
        policy.output_kind,
        None if path is None else str(path),
        None if normalization is None else asdict(normalization),
        reading,
    )
