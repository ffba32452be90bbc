"""The tables of an evaluation, for people: what it scores, and what it costs. They fit a terminal of 80 columns."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from rich.cells import cell_len

from rldistill.errors import printable
from rldistill.evaluation.parts import PartUse
from rldistill.statistics import Interval

if TYPE_CHECKING:
    from rldistill.evaluation.records import Evaluation, PolicyEvaluation

_WIDTH = 80
_GAP = "  "
_LONGEST_NETWORK = 16
_UNKNOWN = "-"
_Row = Sequence[str]


def evaluation_table(evaluation: "Evaluation") -> str:
    """Return tables as text: scores with intervals and what was kept, by task; over several tasks; size and speed."""
    blocks = _score_blocks(evaluation)
    blocks += [f"{printable(row.name)} {parts_text(row.parts)}" for row in evaluation.policies if row.parts]
    if len(evaluation.tasks) > 1 and evaluation.overall:
        blocks += _overall_blocks(evaluation)
    costs = _cost_table(evaluation)
    return "\n\n".join([*blocks, *([table_text(costs, left=2)] if len(costs) > 1 else [])])


def parts_text(parts: Sequence[PartUse]) -> str:
    """Return how a student fares without each of the parts that it sees."""
    return "\n  ".join(["with one part of its observations from another episode:", *map(str, parts)])


def size_text(num_bytes: int) -> str:
    """Return a size as people read it: 232 B, 5.90 kB, 6.76 MB."""
    if num_bytes < 1000:
        return f"{num_bytes} B"
    for unit, factor in (("kB", 10**3), ("MB", 10**6), ("GB", 10**9)):
        if num_bytes < 999.5 * factor:  # rounded to three digits it would be the next unit's
            return f"{num_bytes / factor:.3g} {unit}"
    return f"{num_bytes / 10**9:,.0f} GB"


def _score_blocks(evaluation: "Evaluation") -> list[str]:
    """Return, for each task, its caption, its scores, and its students beside their teacher; in the same columns."""
    behaviours = {row.behaviour for row in evaluation.policies if row.role != "random"}
    differ = len(behaviours) > 1
    header, *lines = _lines(_score_table(evaluation.policies, differ=differ), left=1 + differ)
    beside = [row for row in evaluation.students if row.agreement is not None or row.action_gap is not None]
    beside_header, *beside_lines = _lines(_beside_table(beside), left=1)
    blocks: list[str] = []
    for task in evaluation.tasks.values():
        blocks.append(_caption(task, "" if differ else f"all {min(behaviours)}"))
        blocks.append("\n".join([header, *lines[: len(task.policies)]]))
        lines = lines[len(task.policies) :]
        count = sum(row in beside for row in task.students)
        if count:
            blocks.append("\n".join([beside_header, *beside_lines[:count]]))
            beside_lines = beside_lines[count:]
    return blocks


def _score_table(rows: "Sequence[PolicyEvaluation]", *, differ: bool) -> list[_Row]:
    """Return score and retention of each; `differ`: also how each acts."""
    scores = _with_intervals([_number(row.mean, 4) for row in rows], [_score_interval(row) for row in rows])
    kept = _with_intervals([_share(row.retention) for row in rows], [_interval(row.retention_interval) for row in rows])
    table: list[_Row] = [["policy", *["acts"] * differ, "score [95 %]", "retention [95 %]"]]
    for row, score, share in zip(rows, scores, kept, strict=True):
        name = f"{printable(row.name)} (teacher)" if row.role == "teacher" else printable(row.name)
        acts = [_UNKNOWN if row.role == "random" else row.behaviour] * differ
        table.append([name, *acts, score, share])
    return table


def _beside_table(rows: "Sequence[PolicyEvaluation]") -> list[_Row]:
    """Return, of students beside their teacher, the ratio of the scores, and how alike they choose in its states."""
    ratios = _with_intervals(
        [_share(row.relative_score) for row in rows], [_interval(row.relative_score_interval) for row in rows]
    )
    alike = [(row.agreement, row.agreement_interval) for row in rows]
    gaps = [(row.action_gap, row.action_gap_interval) for row in rows]
    table: list[_Row] = [["student", "score ÷ teacher's [95 %]", "agreement [95 %]", "action gap [95 %]"]]
    columns = (ratios, _percentages(alike), _percentages(gaps))
    table += [[printable(row.name), *cells] for row, *cells in zip(rows, *columns, strict=True)]
    # Only tasks of both kinds of actions need both columns.
    unused = [column for column in (2, 3) if all(row[column] == _UNKNOWN for row in table[1:])]
    return [[cell for column, cell in enumerate(row) if column not in unused] for row in table]


def _percentages(values: Sequence[tuple[float | None, Interval | None]]) -> list[str]:
    shown = [_UNKNOWN if value is None else f"{value:.1%}" for value, _ in values]
    ends = ["" if ends is None else f"[{100 * ends.low:.1f}, {100 * ends.high:.1f}]" for _, ends in values]
    return _with_intervals(shown, ends)


def _overall_blocks(evaluation: "Evaluation") -> list[str]:
    num_tasks, students = len(evaluation.tasks), evaluation.overall
    means = _with_intervals(
        [_over_tasks(row.geometric_mean, row.num_relative_scores, num_tasks) for row in students],
        [_interval(row.geometric_mean_interval) for row in students],
    )
    shares = _with_intervals(
        [_over_tasks(row.mean_retention, row.num_retentions, num_tasks) for row in students],
        [_interval(row.mean_retention_interval) for row in students],
    )
    table: list[_Row] = [["policy", "geometric mean [95 %]", "mean retention [95 %]", "lower bound"]]
    for row, mean, share in zip(students, means, shares, strict=True):
        table.append([printable(row.name), mean, share, _share(row.mean_retention_lower_bound)])
    caption = f"all {num_tasks} tasks: geometric mean of student ÷ teacher, mean of retention"
    if any(student.geometric_mean is None or student.mean_retention is None for student in students):
        caption += "\n(where a task has none: in how many there is one)"
    return [caption, table_text(table)]


def _over_tasks(value: float | None, num_defined: int, num_tasks: int) -> str:
    return f"in {num_defined} of {num_tasks}" if value is None else f"{value:.3f}"


def _cost_table(evaluation: "Evaluation") -> list[_Row]:
    """Return size and speed of each network; one that plays several tasks is shown for the first of them."""
    table: dict[tuple[str, str], _Row] = {}
    for row in evaluation.policies:
        if row.size is None or (row.name, row.policy_hash) in table:
            continue
        network, speed = printable(row.network or _UNKNOWN), row.speed
        table[row.name, row.policy_hash] = [
            printable(row.name),
            network if len(network) <= _LONGEST_NETWORK else f"{network[: _LONGEST_NETWORK - 1]}…",
            f"{row.size.num_parameters:,}",
            f"{row.size.num_macs:,}",
            size_text(row.size.num_bytes),
            _UNKNOWN if speed is None else f"{speed.latency_seconds * 1e3:.2f} ms",
            _UNKNOWN if speed is None else f"{speed.decisions_per_second:,.0f}",
        ]
    return [["policy", "network", "parameters", "MACs", "size", "latency", "per second"], *table.values()]


def table_text(table: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Return rows of cells as text, the first `left` columns to the left and the others to the right."""
    return "\n".join(_lines(table, left=left))


def _lines(table: Sequence[_Row], *, left: int) -> list[str]:
    """Return each row as text: the first `left` cells to the left, all others to the right.

    A first cell that is too long for the width stands in a line of its own, whole, above the rest of its row.
    """
    widths = [max(map(cell_len, column)) for column in zip(*[row[1:] for row in table], strict=True)]
    room = max(cell_len(table[0][0]), _WIDTH - sum(widths) - len(_GAP) * len(widths))
    first = max(length for row in table if (length := cell_len(row[0])) <= room)
    lines: list[str] = []
    for row in table:
        is_long = cell_len(row[0]) > room
        cells = [_pad("" if is_long else row[0], first)]
        for number, (cell, width) in enumerate(zip(row[1:], widths, strict=True), start=1):
            cells.append(_pad(cell, width if number < left else -width))
        line = _GAP.join(cells).rstrip()
        lines.append(f"{row[0]}\n{line}" if is_long else line)
    return lines


def _pad(text: str, width: int) -> str:
    """Fill up with blanks on the right, or, to a negative width, on the left; letters may be two columns wide."""
    blanks = " " * (abs(width) - cell_len(text))
    return text + blanks if width >= 0 else blanks + text


def _with_intervals(values: Sequence[str], intervals: Sequence[str]) -> list[str]:
    """Return cells in which values and intervals stand below each other."""
    widths = [max(map(len, texts), default=0) for texts in (values, intervals)]
    if not widths[1]:
        return list(values)
    return [f"{value:>{widths[0]}} {interval:<{widths[1]}}" for value, interval in zip(values, intervals, strict=True)]


def _caption(evaluation: "Evaluation", behaviour: str) -> str:
    """Return what was played, wrapped at commas."""
    task, protocol = evaluation.task, evaluation.task.protocol
    counts = sorted({len(row.played.episodes) for row in evaluation.policies})
    parts = [
        f"seed {evaluation.seed}",
        f"exploration ε {protocol.exploration_epsilon:g}",
        behaviour,
        "" if protocol.noop_max is None else f"{protocol.noop_max} no-op starts",
        "" if protocol.max_frames is None else f"at most {protocol.max_frames:,} frames",
        f"sticky actions {protocol.sticky_action_probability:g}" if protocol.sticky_action_probability else "",
        f"settings {json.dumps(dict(task.environment_kwargs), default=repr)}" if task.environment_kwargs else "",
    ]
    episodes = "1 episode" if counts == [1] else f"{' or '.join(map(str, counts))} episodes"
    lines = [f"{printable(task.name)}: {episodes} each"]
    for part in filter(None, map(printable, parts)):
        part = part if len(part) <= _WIDTH - 2 else f"{part[: _WIDTH - 3]}…"  # whole in the JSON
        if cell_len(f"{lines[-1]}, {part},") <= _WIDTH:
            lines[-1] += f", {part}"
        else:
            lines[-1] += ","
            lines.append(f"  {part}")
    return "\n".join(lines)


def _score_interval(row: "PolicyEvaluation") -> str:
    if row.played.is_census:
        return "(census)"
    return "" if row.interval is None else f"[{_number(row.interval.low, 3)}, {_number(row.interval.high, 3)}]"


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f"[{interval.low:.3f}, {interval.high:.3f}]"


def _share(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.3f}"


def _number(value: float, num_digits: Literal[3, 4]) -> str:
    # Scores of some games are large: 12,345 reads better than 1.23e+04.
    # What rounds to 1,000 is one of them.
    return f"{value:,.0f}" if abs(value) >= 1000 - 0.5 * 10 ** (3 - num_digits) else f"{value:.{num_digits}g}"
