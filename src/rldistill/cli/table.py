"""The tables of an evaluation, for people: what it scores, and what it costs."""

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from rldistill.runs.evaluation import Evaluation, PolicyEvaluation
from rldistill.runs.multitask_evaluation import MultiTaskEvaluation
from rldistill.statistics import Interval, iqm, point_estimate

# Wider than any row: tables are read in logs and terminals of 80 columns, and must not wrap cells.
_WIDTH = 200
_UNKNOWN = "-"


def evaluation_table(evaluation: Evaluation | MultiTaskEvaluation) -> str:
    """Return tables as text: scores with intervals and what was kept, by task; over all tasks; size and speed."""
    if isinstance(evaluation, MultiTaskEvaluation):
        evaluations = list(evaluation.tasks.values())
        parts = [*_score_blocks(evaluations), *_aggregate_block(evaluation), *_cost_block(evaluations)]
    else:
        parts = [*_score_blocks([evaluation]), *_cost_block([evaluation])]
    return "\n".join("\n".join([*part, ""]) for part in parts)


def _score_blocks(evaluations: Sequence[Evaluation]) -> list[list[str]]:
    """Return, for each task, its caption and its rows; all stand in the same columns."""
    is_continuous = any(row.action_gap is not None for evaluation in evaluations for row in evaluation.policies)
    alike = "action gap" if is_continuous else "agreement"
    scores = _table("policy", "role", "score", "95 % interval", "IQM", "retention", "95 % interval", alike)
    for evaluation in evaluations:
        for row in evaluation.policies:
            scores.add_row(row.name, row.role, *_score_cells(row))
    header, *lines = _lines(scores)
    blocks: list[list[str]] = []
    for evaluation in evaluations:
        num_rows = len(evaluation.policies)
        blocks += [[_caption(evaluation)], [header, *lines[:num_rows]]]
        lines = lines[num_rows:]
    return blocks


def _aggregate_block(evaluation: MultiTaskEvaluation) -> list[list[str]]:
    num_tasks = len(evaluation.tasks)
    if not evaluation.policies:
        return []
    table = _table("policy", "geometric mean", "95 % interval", "mean retention", "95 % interval", "lower bound")
    for policy in evaluation.policies:
        bound = policy.mean_retention_lower_bound
        table.add_row(
            policy.name,
            _share_over_tasks(policy.geometric_mean, policy.num_relative_scores, num_tasks),
            _share_interval(policy.geometric_mean_interval),
            _share_over_tasks(policy.mean_retention, policy.num_retentions, num_tasks),
            _share_interval(policy.mean_retention_interval),
            _UNKNOWN if bound is None else f"{bound:.3f}",
        )
    caption = f"all {num_tasks} tasks: geometric mean of student ÷ teacher, mean of retention"
    if any(policy.geometric_mean is None or policy.mean_retention is None for policy in evaluation.policies):
        caption += ", or in how many there is one"
    return [[caption], _lines(table)]


def _share_over_tasks(value: float | None, num_defined: int, num_tasks: int) -> str:
    return f"in {num_defined} of {num_tasks}" if value is None else f"{value:.3f}"


def _cost_block(evaluations: Sequence[Evaluation]) -> list[list[str]]:
    """Return size and speed of each network; one that plays several tasks is shown for the first of them."""
    costs = _table("policy", "parameters", "multiply-adds", "size", "latency", "decisions/s")
    shown: set[tuple[str, str]] = set()
    for row in (row for evaluation in evaluations for row in evaluation.policies):
        if row.size is not None and (row.name, row.policy_hash) not in shown:
            shown.add((row.name, row.policy_hash))
            costs.add_row(row.name, *_cost_cells(row))
    return [_lines(costs)] if costs.row_count else []


def _lines(table: Table) -> list[str]:
    buffer = io.StringIO()
    Console(file=buffer, width=_WIDTH, highlight=False, markup=False, emoji=False).print(table)
    return [line.rstrip() for line in buffer.getvalue().splitlines()]


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
    middle = point_estimate(row.played.scores, iqm)
    return [
        _number(row.mean, 4),
        "census" if row.played.is_census else _interval(row.interval),
        _UNKNOWN if middle is None else _number(middle, 4),
        _UNKNOWN if row.retention is None else f"{row.retention:.3f}",
        _share_interval(row.retention_interval),
        _likeness(row),
    ]


def _likeness(row: PolicyEvaluation) -> str:
    value = row.agreement if row.action_gap is None else row.action_gap
    return _UNKNOWN if value is None else f"{value:.1%}"


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


def _share_interval(interval: Interval | None) -> str:
    return _UNKNOWN if interval is None else f"{interval.low:.3f} to {interval.high:.3f}"


def _number(value: float, num_digits: int) -> str:
    # Scores of some games are large: 12,345 reads better than 1.23e+04.
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{num_digits}g}"
