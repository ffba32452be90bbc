"""From what a user names to a policy and the task it plays."""

from pathlib import Path

from rldistill.errors import PolicyFileError
from rldistill.policies import Policy, TorchPolicy, load_policy
from rldistill.tasks import Task
from rldistill.types import resolve_device

PolicyLike = str | Path | Policy


def as_policy(policy: PolicyLike, *, device: str) -> Policy:
    """Return a policy: itself, from its file, or what a run folder ends in: the student, or the last policy.

    Raises:
        PolicyFileError: there is no such file, or it cannot be trusted.
    """
    if not isinstance(policy, str | Path):
        return policy.to(resolve_device(device)) if isinstance(policy, TorchPolicy) else policy
    path = Path(policy)
    if path.is_dir():
        files = [path / name for name in ("student.safetensors", "last_policy.safetensors")]
        found = [file for file in files if file.is_file()]
        if not found:
            raise PolicyFileError(
                f"Run folder {policy} holds neither student.safetensors nor last_policy.safetensors. "
                "Did its run finish?"
            )
        path = found[0]
    return load_policy(path, device=device)


def recorded_teacher(student: Policy, task: Task, *, device: str) -> Policy | None:
    """Return the teacher that a student's file names, if it is still there, still the same, and plays this task."""
    if not isinstance(student, TorchPolicy):
        return None
    record = student.spec.provenance.get("teacher") or {}
    if not record.get("path"):
        return None
    try:
        teacher = as_policy(record["path"], device=device)
    except PolicyFileError:
        return None  # gone, or something else by now: the path is a hint, the hash decides
    plays_task = not teacher.tasks[0].fingerprint.differences(task.fingerprint)
    return teacher if teacher.hash == record.get("hash") and plays_task else None
