"""What an export was found to be: the report beside it, what makes it fail, and the lines that people read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rldistill.evaluation.records import Evaluation, PolicyEvaluation
from rldistill.evaluation.table import size_text
from rldistill.exports.formats import Precision, Written
from rldistill.exports.parity import MAX_LOG_STD_ERROR, MAX_OUTPUT_ERROR, MIN_AGREEMENT, DecisionTime, Parity

MIN_RETENTION = 0.95
"""Of the policy's own score. An export fails where it is sure, at 95 %, that less is left."""


@dataclass(frozen=True)
class Exported:
    """What was written and what it was found to do; `to_dict` gives the documented JSON, `print` the lines."""

    format: str
    path: Path
    precision: Precision
    num_bytes: Mapping[str, int]  # of each file by its name
    compared_on: str
    parity: Parity | None  # None: nothing on this machine runs such files
    times: Mapping[str, DecisionTime]  # of `export`, `policy` and, where it is known, `teacher`
    score: Evaluation | None  # the policy as teacher, the export as student; None: no task was named
    written: Written | None = None  # what the writer knows beside
    teacher_decides_by: str | None = None  # in which way the teacher was timed; None: it was not
    keeps_spread: bool = True  # whether its files can hold the policy's own spread

    @property
    def problems(self) -> list[str]:
        """Why it is not what was asked for; none: it is."""
        return list(self._problems())

    def _problems(self) -> Iterator[str]:
        if self.parity is not None and self.parity.agreement < MIN_AGREEMENT[self.precision]:
            remedy = ". Add --quantization-aware" if self.precision == "int8" else ""
            yield (
                f"it acts as the policy does in {self.parity.agreement:.2%} of {self.parity.num_decisions:,} decisions,"
                f" expected {MIN_AGREEMENT[self.precision]:.0%} for {self.precision}{remedy}"
            )
        if self.parity is not None and self.parity.has_nan:
            yield "it gives NaN where the policy gives numbers"
        elif self.parity is not None and self.parity.relative_error > MAX_OUTPUT_ERROR[self.precision]:
            yield (
                f"an output is off by {self.parity.largest_output_error:.2g} where outputs reach "
                f"{self.parity.largest_output:.3g}, expected {MAX_OUTPUT_ERROR[self.precision]:g} of that at most"
            )
        spread = None if self.parity is None or not self.keeps_spread else self.parity.largest_log_std_error
        if spread is not None and spread > MAX_LOG_STD_ERROR[self.precision]:
            yield (
                f"the logarithm of a standard deviation is off by {spread:.2g}, expected "
                f"{MAX_LOG_STD_ERROR[self.precision]:g} at most for {self.precision}"
            )
        interval = None if self.score is None else self.score.students[0].retention_interval
        if interval is not None and interval.high < MIN_RETENTION:
            yield (
                f"it keeps {interval.low:.1%} to {interval.high:.1%} of the policy's score, expected "
                f"{MIN_RETENTION:.0%}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "schema_version": 1,
            "format": self.format,
            "path": str(self.path),
            "precision": self.precision,
            "num_bytes": dict(self.num_bytes),
            "compared_on": self.compared_on,
            "parity": None if self.parity is None else self.parity.to_dict(),
            "decision_seconds": {name: dict(vars(own)) for name, own in self.times.items()},
            "teacher_decides_by": self.teacher_decides_by,
            "score": None if self.score is None else self.score.to_dict(),
            "written": None if self.written is None else dict(self.written.data),
            "problems": self.problems,
        }

    def __str__(self) -> str:
        """Return the lines that `rldistill export` prints."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        sizes = ", ".join(f"{name} {size_text(num_bytes)}" for name, num_bytes in self.num_bytes.items())
        yield f"{self.path}: {self.format}, {self.precision}: {sizes}"
        if self.written is not None:
            yield self.written.text
        own = self.parity
        if own is None:
            yield f"not verified: nothing on this machine runs {self.format}. Run it where it is compiled, and compare"
            return
        ties = f", {own.num_ties} of them ties" if own.num_ties else ""
        yield (
            f"same action in {own.agreement:.2%} of {own.num_decisions:,} decisions{ties} ({self.compared_on}); "
            f"largest error of any output {own.largest_output_error:.2g} where outputs reach {own.largest_output:.3g}"
        )
        if own.largest_log_std_error is not None and own.largest_log_std_error > MAX_LOG_STD_ERROR["float32"]:
            yield (
                f"its spread is another: the logarithm of the standard deviation differs by up to "
                f"{own.largest_log_std_error:.2g}, so drawn actions differ; greedy ones do not"
            )
        times = (f"{name} {_time_text(own)}" for name, own in self.times.items())
        way = "" if self.teacher_decides_by is None else f" ({self.teacher_decides_by})"
        yield f"one decision on one thread, median (99th percentile): {', '.join(times)}{way}"
        if self.score is None:
            yield "no score: no task was named (--task ID)"
        else:
            yield "; ".join(map(_score_text, self.score.policies))


def _time_text(own: DecisionTime) -> str:
    return f"{own.median_seconds * 1e6:,.0f} µs ({own.p99_seconds * 1e6:,.0f})"


def _score_text(row: PolicyEvaluation) -> str:
    spread = "" if row.interval is None else f" [{row.interval.low:.4g}, {row.interval.high:.4g}]"
    who = {"teacher": "policy", "student": "export"}.get(row.role, row.role)
    return f"{who} {row.mean:.4g}{spread} over {len(row.played.episodes)} episodes"
