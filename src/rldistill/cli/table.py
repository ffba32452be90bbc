"""The tables of an evaluation, for people: what it scores, and what it costs."""

import io

from rich.console import Console
from rich.table import Table

from rldistill.runs.evaluation import Evaluation, PolicyEvaluation
from rldistill.statistics import Interval, iqm, point_estimate

# Wider than any row: tables are read in logs and terminals of 80 columns, and must not wrap cells.
_WIDTH = 200
_UNKNOWN = "-"


def evaluation_table(evaluation: Evaluation) -> str:
    """Return two tables as text: scores with intervals and what was kept; size and speed."""
    scores = _table("policy", "role", "score", "95 % interval", "IQM", "retention", "95 % interval", "agreement")
    costs = _table("policy", "parameters", "multiply-adds", "size", "latency", "decisions/s")
    for row in evaluation.policies:
        scores.add_row(row.name, row.role, *_score_cells(row))
        if row.size is not None:
            costs.add_row(row.name, *_cost_cells(row))
    buffer = io.StringIO()
    console = Console(file=buffer, width=_WIDTH, highlight=False)
    console.print(scores)
    if costs.row_count:
        console.print()
        console.print(costs)
    lines = [line.rstrip() for line in buffer.getvalue().splitlines()]
    return "\n".join([_caption(evaluation), "", *lines, ""])


def _table(first: str, *names: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first, no_wrap=True)
    for name in names:
        table.add_column(name, justify="left" if name == "role" else "right", no_wrap=True)
    return table


def _caption(evaluation: Evaluation) -> str:
    protocol = evaluation.task.protocol
    counts = sorted({len(row.played.episodes) for row in evaluation.policies})
    episodes = " or ".join(map(str, counts))
    starts = "" if protocol.noop_max is None else f", {protocol.noop_max} no-op starts"
    frames = "" if protocol.max_frames is None else f", at most {protocol.max_frames:,} frames"
    return (
        f"{evaluation.task.name}: {episodes} episodes each, seed {evaluation.seed}, "
        f"exploration ε {protocol.exploration_epsilon:g}{starts}{frames}"
    )


def _score_cells(row: PolicyEvaluation) -> list[str]:
    middle, shares = point_estimate(row.played.scores, iqm), row.retention_interval
    return [
        _number(row.mean, 4),
        "census" if row.played.is_census else _interval(row.interval),
        _UNKNOWN if middle is None else _number(middle, 4),
        _UNKNOWN if row.retention is None else f"{row.retention:.3f}",
        _UNKNOWN if shares is None else f"{shares.low:.3f} to {shares.high:.3f}",
        _UNKNOWN if row.agreement is None else f"{row.agreement:.1%}",
    ]


def _cost_cells(row: PolicyEvaluation) -> list[str]:
    assert row.size is not None
    speed = row.speed
    return [
        f"{row.size.num_parameters:,}",
        f"{row.size.num_macs:,}",
        f"{row.size.num_bytes / 1e6:.2f} MB",
        _UNKNOWN if speed is None else f"{speed.latency_seconds * 1e3:.2f} ms",
        _UNKNOWN if speed is None else f"{speed.decisions_per_second:,.0f}",
    ]


def _interval(interval: Interval | None) -> str:
    return _UNKNOWN if interval is None else f"{_number(interval.low, 3)} to {_number(interval.high, 3)}"


def _number(value: float, num_digits: int) -> str:
    # Scores of some games are large: 12,345 reads better than 1.23e+04.
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{num_digits}g}"
