"""From what a user names to a policy and the task it plays."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rldistill.data import TeacherEntry
from rldistill.envs import PlayableTask
from rldistill.errors import MismatchError, PolicyFileError
from rldistill.policies import Policy, TorchPolicy, fit_policy, load_policy
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


def played_by(policy: Policy, playable: PlayableTask) -> PlayableTask:
    """Return a task with what a policy was trained to see beside the environment's observations, such as a clock."""
    name = playable.task.name
    head = policy.for_task(name) if name in [own.name for own in policy.tasks] else policy
    return playable.observed_as(head.tasks[0].fingerprint)


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


def recorded_teacher(student: Policy, task: Task, *, device: str) -> Policy | None:
    """Return the teacher that a student's file names, if it is still there, still the same, and plays this task.

    A student of several tasks names a teacher for each of them (`teachers`), a student of one task its only
    one (`teacher`).
    """
    if not isinstance(student, TorchPolicy):
        return None
    record = _teacher_record(student.spec.provenance, task.name)
    path = record.get("path")
    if not (path and isinstance(path, str)):
        return None
    try:
        teacher = as_policy(path, device=device)
        # One teacher for all of several tasks needs a head by the name of each: games share fingerprints.
        by_name = len(student.tasks) > 1 and "task" not in record
        fit_policy(teacher.for_task(task.name) if by_name else teacher, task)
    except (PolicyFileError, MismatchError):
        return None  # gone, or something else by now: the path is a hint, the hash decides
    return teacher if teacher.hash == record.get("hash") else None


def _teacher_record(provenance: Mapping[str, Any], task_name: str) -> Mapping[str, Any]:
    """Return what a student's file says of a task's teacher; a stranger's file may say anything."""
    listed = provenance.get("teachers")
    candidates = [*listed, provenance.get("teacher")] if isinstance(listed, list) else [provenance.get("teacher")]
    records = (record for record in candidates if isinstance(record, Mapping))
    return next((record for record in records if record.get("task", task_name) == task_name), {})
