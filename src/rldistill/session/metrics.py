"""`metrics.jsonl`: one JSON object a line, in the order of a counter; the truth about a run."""

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rldistill.events import Callback, tell
from rldistill.storage import canonical_json, write_atomically, writing


class MetricsFile:
    """Appends records; after a resume, those beyond the checkpoint are dropped first.

    Args:
        path: the file.
        counter: key of the counter that every record has: `update` or `step`.
        resume_at: records with a larger counter are dropped; None starts an empty file.
        callbacks: are warned of lines that are damaged, which are dropped too.
    """

    def __init__(self, path: Path, *, counter: str, resume_at: int | None, callbacks: Sequence[Callback] = ()) -> None:
        self._counter = counter
        self._path = path
        lines = [] if resume_at is None else _whole_lines(path)
        records = [record for line in lines if (record := _parsed(line, counter)) is not None]
        if num_damaged := len(lines) - len(records):
            text = f"{path}: {num_damaged} of {len(lines)} lines are damaged and are left out; the run itself is whole."
            tell(callbacks, text, "warning")
        kept = [record for record in records if record[counter] <= (resume_at or 0)]
        write_atomically(path, "".join(canonical_json(record) + "\n" for record in kept).encode())
        self._file = path.open("a", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; it reaches the operating system at once."""
        assert self._counter in record, f"every record needs {self._counter!r}"
        with writing(self._path):
            self._file.write(canonical_json(record) + "\n")
            self._file.flush()

    def sync(self) -> None:
        """Make all records survive a power cut; call it before a checkpoint that stands behind them."""
        with writing(self._path):
            os.fsync(self._file.fileno())

    def __enter__(self) -> "MetricsFile":
        """Return itself."""
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Close the file, its records safe on disk."""
        # Every record was flushed, or its failure reported: closing would only report it a second time. A disk that
        # fails at this sync fails the checkpoint or the policy that is written next.
        with contextlib.suppress(OSError), self._file:
            os.fsync(self._file.fileno())


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read all whole records; damaged lines are left out, as is a last one that was cut by a kill."""
    return [record for line in _whole_lines(path) if (record := _parsed(line)) is not None]


def _whole_lines(path: Path) -> list[bytes]:
    """Return the lines of a file that may not be there, without a last one that was cut by a kill."""
    if not path.is_file():
        return []
    *lines, last = path.read_bytes().split(b"\n")
    # A kill cuts a line, a power cut may leave zeros in its place: those are damage.
    return [line for line in (*lines, *([last] if b"\0" in last else [])) if line.strip()]


def _parsed(line: bytes, counter: str | None = None) -> dict[str, Any] | None:
    """Return the record of a line, None where it is damaged."""
    try:
        record = json.loads(line)
        canonical_json(record)  # refuses numbers beyond all range
    except (ValueError, RecursionError):
        return None
    is_whole = isinstance(record, dict) and (counter is None or type(record.get(counter)) is int)  # pyright: ignore[reportUnknownMemberType]
    return record if is_whole else None  # pyright: ignore[reportUnknownVariableType]
