"""From what a user names to a policy and the task it plays."""

from pathlib import Path

from rldistill.errors import PolicyFileError
from rldistill.policies import Policy, TorchPolicy, load_policy

PolicyLike = str | Path | Policy


def as_policy(policy: PolicyLike, *, device: str) -> Policy:
    """Return a policy: itself, from its file, or the student of a run folder.

    Raises:
        PolicyFileError: there is no such file, or it cannot be trusted.
    """
    if not isinstance(policy, str | Path):
        return policy
    path = Path(policy)
    if path.is_dir():
        path = path / "student.safetensors"
        if not path.is_file():
            raise PolicyFileError(f"Run folder {policy} holds no student.safetensors. Did its distillation finish?")
    return load_policy(path, device=device)


def recorded_teacher(student: Policy, *, device: str) -> Policy | None:
    """Return the teacher that a student's file names, if it is still there and still the same."""
    if not isinstance(student, TorchPolicy):
        return None
    record = student.spec.provenance.get("teacher") or {}
    path = record.get("path")
    if not path or not Path(path).is_file():
        return None
    teacher = load_policy(path, device=device)
    return teacher if teacher.hash == record.get("hash") else None
