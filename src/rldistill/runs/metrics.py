"""`metrics.jsonl`: one JSON object a line, in the order of a counter; the truth about a run."""

import contextlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from rldistill.storage import canonical_json, write_atomically, writing


class MetricsFile:
    """Appends records; after a resume, those beyond the checkpoint are dropped first.

    Args:
        path: the file.
        counter: key of the counter that every record has: `update` or `step`.
        resume_at: records with a larger counter are dropped; None starts an empty file.
    """

    def __init__(self, path: Path, *, counter: str, resume_at: int | None) -> None:
        self._counter = counter
        self._path = path
        kept = [] if resume_at is None else [line for line in read_metrics(path) if line[counter] <= resume_at]
        write_atomically(path, "".join(canonical_json(line) + "\n" for line in kept).encode())
        self._file = path.open("a")

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
    """Read all whole records; a last line cut by a kill is left out."""
    if not path.is_file():
        return []
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1] if line.strip()]
