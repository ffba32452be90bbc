"""The teachers that students' files name: found again where they are still there, and still the same."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rldistill.adapters.load import PROGRAMS, FileKind, acting, detect_kind, policy_file_of
from rldistill.errors import MismatchError, RldistillError, printable
from rldistill.loading.bundled import find_recorded
from rldistill.loading.named import PolicyFile, load_file
from rldistill.options.reading import Reading
from rldistill.policies import Policy, TorchPolicy, fit_policy
from rldistill.policies.behaviour import LEARNED_BEHAVIOURS
from rldistill.policies.sighted import seeing
from rldistill.policies.switched import Choice, SwitchedPolicy
from rldistill.sight import Sight, recorded_sight, shown_to
from rldistill.tasks import Task
from rldistill.types import OUTPUT_KINDS_OF_ACTIONS

# A path in a stranger's file may have any length.
_MOST_OF_A_PATH = 200


def recorded_teacher(student: Policy, task: Task, *, device: str) -> Policy | None:
    """Return the teacher that a student's file names, if it is still there, still the same, and plays this task.

    A student of several tasks names a teacher for each of them (`teachers`), a student of one task its only
    one (`teacher`).
    """
    record = teacher_record(student, task)
    if isinstance(record.get("several"), Mapping):
        return _several(record, task, device=device)
    path = record.get("path")
    if not (path and isinstance(path, str)):
        return None
    # One teacher for all of several tasks needs a head by the name of each: games share fingerprints.
    by_name = len(student.tasks) > 1 and "task" not in record
    # A file that names no task takes it from here, and has the recorded hash only with the settings of that time.
    known = [own for own in student.tasks if own.name == task.name and own.fingerprint == task.fingerprint]
    for teacher in _as_recorded(Path(path), record, known[0] if known else task, device=device):
        try:
            fit_policy(teacher.for_task(task.name) if by_name else teacher, task)
        except RldistillError:
            continue
        return teacher
    return None


def why_no_teacher(student: Policy, task: Task) -> str | None:
    """Say what became of a teacher that a student's file names and `recorded_teacher` does not find.

    None where the file names none.
    """
    record = teacher_record(student, task)
    path = record.get("path")
    if not record.get("hash"):
        return None
    if isinstance(record.get("several"), Mapping):
        return "one of several recorded teachers is gone, or a function chose among them: --teacher NAME=FILE --choose"
    if not (path and isinstance(path, str)):
        return "the recorded teacher was given as an object in Python and has no file; name it with --teacher FILE"
    kind = _kind_of(find_recorded(Path(path)))
    what = f"teacher recorded at {printable(path, _MOST_OF_A_PATH)}"
    if kind is None and not os.path.exists(path):  # unlike Path.exists, False for a name that no file can have
        return f"{what} is not there; name it with --teacher FILE"
    if kind in ("torchscript", "torch_export"):
        return f"{what} is a program, which runs only if you say so; name it with --teacher FILE --trust"
    return f"{what} is another policy now, or cannot play this task; name it with --teacher FILE"


def _kind_of(path: Path) -> FileKind | None:
    try:
        return detect_kind(policy_file_of(path))
    except (RldistillError, OSError, ValueError):  # a stranger's record may name anything
        return None


def _as_recorded(path: Path, record: Mapping[str, Any], task: Task, *, device: str) -> Iterator[Policy]:
    """Yield what a file holds, where that is the policy of the record: the path is a hint, the hash decides."""
    path = find_recorded(path)
    try:
        readings = _readings(path, record.get("reading"), task)
        sight = recorded_sight(record.get("reading"))
        shown_task = shown_to(task, sight)
    except RldistillError:
        return
    for reading in readings:
        try:
            policy = load_file(PolicyFile(path, reading), device=device, task=shown_task)
        except RldistillError:
            continue  # something else by now, or a program that nobody trusts here
        # How a policy acts may have been said when it was read.
        policies = (acting(policy, behaviour) for behaviour in (None, *LEARNED_BEHAVIOURS))
        found = [candidate for candidate in policies if candidate.hash == record.get("hash")]
        with contextlib.suppress(MismatchError):  # the task has other parts by now
            yield from [seeing(candidate, task, sight) for candidate in found]


def _several(record: Mapping[str, Any], task: Task, *, device: str) -> Policy | None:
    """Return the teachers of one task that a record names, as one policy; a function that chose is not imported."""
    try:
        said, members = record["several"], dict[str, Policy]()
        choose, spans = said["choose"], said["choose"].get("names", {})
        for own in said["teachers"]:
            members |= {str(own["name"]): next(_as_recorded(Path(own["path"]), own, task, device=device))}
        sight = Sight.from_dict({"parts": [choose["part"]], "names": spans}) if "part" in choose else None
        choice = Choice(sight, None if sight is not None else choose["info"])
        observed = {name: fit_policy(own, task) for name, own in members.items()}
        found = SwitchedPolicy(observed, task, choice)
    # A stranger's record may say anything, and a file may be gone.
    except (RldistillError, AttributeError, KeyError, TypeError, ValueError, StopIteration):
        return None
    return found if found.hash == record.get("hash") else None


def _readings(path: Path, said: object, task: Task) -> list[Reading]:
    """Return how a recorded file may have been read; records that say nothing of it leave a program's outputs open."""
    if isinstance(said, Mapping):
        return [Reading.from_dict(said)]
    if detect_kind(policy_file_of(path)) not in PROGRAMS:
        return [Reading()]
    return [Reading(outputs=kind) for kind in OUTPUT_KINDS_OF_ACTIONS[task.fingerprint.action_layout.kind]]


def teacher_record(student: Policy, task: Task) -> Mapping[str, Any]:
    """Return what a student's file says of a task's teacher; a stranger's file may say anything."""
    if not isinstance(student, TorchPolicy):
        return {}
    provenance = student.spec.provenance
    listed = provenance.get("teachers")
    candidates = [*listed, provenance.get("teacher")] if isinstance(listed, list) else [provenance.get("teacher")]
    records = (record for record in candidates if isinstance(record, Mapping))
    return next((record for record in records if record.get("task", task.name) == task.name), {})
