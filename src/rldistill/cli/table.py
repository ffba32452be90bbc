"""The table of an evaluation, for people."""

import io
import shutil

from rich.console import Console
from rich.table import Table

from rldistill.runs.evaluate import Evaluation, PolicyEvaluation
from rldistill.statistics import Interval

_MIN_WIDTH = 100


def evaluation_table(evaluation: Evaluation) -> str:
    """Return the table as text: scores with intervals, what was kept, what it costs."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("policy")
    for name in ("score", "95 % interval", "IQM", "retention", "agreement", "parameters", "latency", "decisions/s"):
        table.add_column(name, justify="right")
    for row in evaluation.policies:
        table.add_row(*_cells(row))
    buffer = io.StringIO()
    width = max(_MIN_WIDTH, shutil.get_terminal_size().columns)
    Console(file=buffer, width=width, highlight=False).print(table)
    return f"{_caption(evaluation)}\n{buffer.getvalue()}"


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


def _cells(row: PolicyEvaluation) -> list[str]:
    iqm = row.to_dict()["iqm"]
    return [
        row.name if row.name == row.role else f"{row.name} ({row.role})",
        f"{row.mean:.4g}",
        "census" if row.played.is_census else _interval(row.interval),
        "-" if iqm is None else f"{iqm:.4g}",
        "-" if row.retention is None else f"{row.retention:.3f} {_interval(row.retention_interval)}".strip(),
        "-" if row.agreement is None else f"{row.agreement:.1%}",
        "-" if row.size is None else f"{row.size.num_parameters:,}",
        "-" if row.speed is None else f"{row.speed.latency_seconds * 1e3:.2f} ms",
        "-" if row.speed is None else f"{row.speed.decisions_per_second:,.0f}",
    ]


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f"[{interval.low:.4g}, {interval.high:.4g}]"
