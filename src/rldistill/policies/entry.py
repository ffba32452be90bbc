"""What datasets and students record of the policy that taught them.

Not among the names of `rldistill.policies`: whoever only loads a policy need not import the datasets' packages.
"""

from dataclasses import asdict
from pathlib import Path

from rldistill.data import TeacherEntry
from rldistill.policies.protocol import Policy
from rldistill.policies.torch_policy import TorchPolicy


def teacher_entry(policy: Policy, path: str | Path | None) -> TeacherEntry:
    """Return what datasets and students record of a teacher."""
    normalization = policy.normalization if isinstance(policy, TorchPolicy) else None
    return TeacherEntry(
        policy.name,
        policy.hash,
        policy.output_kind,
        None if path is None else str(path),
        None if normalization is None else asdict(normalization),
    )
