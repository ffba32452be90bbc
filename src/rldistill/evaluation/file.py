"""The file of an evaluation: tried before an hour's play, and written after it."""

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rldistill.errors import OutputExistsError, RldistillError, first_line
from rldistill.evaluation.records import Evaluation
from rldistill.limits import JSON, read_file, read_json
from rldistill.storage import canonical_json, check_temporary, write_json

# Larger than most results: where this much can be written, an evaluation can.
_PROBE_BYTES = 1 << 16
_OF_THE_PLAY = ("task", "fingerprint", "protocol", "environment_kwargs", "seed")


class EvaluationNotWrittenError(RldistillError):
    """An evaluation was played, and its file could not be written; `evaluation` is the result."""

    def __init__(self, message: str, evaluation: Evaluation) -> None:
        super().__init__(message)
        self.evaluation = evaluation


def check_out(path: Path) -> None:
    """Check that nothing but an earlier evaluation would be lost, and that the file can be written.

    Raises:
        OutputExistsError: a folder, or a file of something else.
        RldistillError: no space, no permission, or a link or a pipe in the place of its temporary file.
    """
    try:
        if path.is_dir():
            raise OutputExistsError(f"--out {path} is a folder, expected a file such as {path / 'evaluation.json'}.")
        if path.exists() and not _is_evaluation(path):
            raise OutputExistsError(f"--out {path} exists and is not an evaluation. Choose another --out.")
        target = _behind_links(path)
        with contextlib.suppress(FileExistsError):  # a file by that name: opening says so
            target.parent.mkdir(parents=True, exist_ok=True)
        check_temporary(target)
        # Without a name: a kill leaves nothing behind.
        with tempfile.TemporaryFile(dir=target.parent) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
    except OSError as error:
        raise RldistillError(
            f"--out {path} cannot be written: {error.strerror}. Nothing was played. Make room there, or choose "
            "another --out."
        ) from error


def _behind_links(path: Path) -> Path:
    """Return the file that a path leads to: a link that the user named stays one."""
    return Path(os.path.realpath(path))


def _is_evaluation(path: Path) -> bool:
    try:
        data = read_json(read_file(path, JSON.num_bytes))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and {"schema_version", "seed"} <= data.keys()


def keep_evaluation(path: Path, result: Evaluation) -> str | None:
    """Write an evaluation where nobody asked for it; return why not: what is there says more, or the place is shut."""
    data = result.to_dict()
    try:
        if os.path.lexists(path) and not _is_outdone(read_json(read_file(path, JSON.num_bytes)), data):
            return f"{path} is kept: it is of another play, or of more episodes. --out FILE writes this one."
        write_json(path, data)
    except (LookupError, TypeError, AttributeError):
        return f"{path} is kept: it is no evaluation as this version writes them. --out FILE writes this one."
    except (RldistillError, OSError, ValueError) as error:
        return f"{path} is not written: {first_line(error)}. --out FILE writes it elsewhere."
    return None


def _is_outdone(before: Any, now: Mapping[str, Any]) -> bool:  # noqa: ANN401 (JSON)
    """Return whether an evaluation played all that an earlier one did, in the same way and at least as long.

    One of other weights, such as those that the run had before it was resumed, is outdone by any.
    """
    if "tasks" in before:
        tasks = now.get("tasks", {})
        return all(_is_outdone(own, tasks.get(name, {})) for name, own in before["tasks"].items())
    students = [
        {row["policy_hash"] for row in each.get("policies", ()) if row["role"] == "student"} for each in (before, now)
    ]
    if students[0].isdisjoint(students[1]):
        return bool(students[1])
    if any(canonical_json(before[key]) != canonical_json(now.get(key)) for key in _OF_THE_PLAY):
        return False
    earlier, later = (
        {(row["role"], row["behaviour"]): len(row["episodes"]) for row in each["policies"]} for each in (before, now)
    )
    return all(later.get(row, 0) >= num_episodes for row, num_episodes in earlier.items())


def write_evaluation(path: Path, result: Evaluation) -> None:
    """Write an evaluation's JSON. Raises EvaluationNotWrittenError: it could not be written; holds the result."""
    try:
        write_json(_behind_links(path), result.to_dict())
    except RldistillError as error:
        reason = error.__cause__.strerror if isinstance(error.__cause__, OSError) else str(error).rstrip(".")
        raise EvaluationNotWrittenError(
            f"--out {path} could not be written: {reason}. What was found is not lost: it is printed, and in Python "
            "this error's `evaluation`.",
            result,
        ) from error
