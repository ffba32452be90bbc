"""What `inspect` and its `--verify` say, for people: aligned lines in blocks, 80 columns wide if words allow."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, cast

from rldistill.errors import printable
from rldistill.evaluation.records import PolicyEvaluation
from rldistill.evaluation.table import size_text
from rldistill.inspection.expected import ALLOWED_STANDARD_ERRORS
from rldistill.tasks import UNNAMED_TASK
from rldistill.verbs.verification import Verification, figure

_WIDTH = 80
_INDENT = "  "
# Shown as they are, in one line each.
_IN_ONE_LINE = frozenset({"heads", "environment_kwargs"})
# Of one value: a file of a stranger may say anything at any length.
_MOST_SHOWN = 4000
_MOST_ITEMS = 8
_Lines = list[tuple[str, str]]


def description_text(description: Mapping[str, Any], *, full: bool = False) -> str:
    """Return a description as blocks of `key  value` lines: what is said of the whole, then of each of its parts.

    It is plain data, perhaps of a stranger's file; `full`: with its run's configuration and all numbers of long lists.
    """
    # The whole describes the first of several tasks already.
    others = {f"task {number}": task for number, task in enumerate(description.get("tasks", ())[1:], start=2)}
    items = {key: value for key, value in description.items() if key != "tasks"} | others
    whole = [(key, _shown(key, value, full)) for key, value in items.items() if not _is_part(key, value)]
    parts = [block for key, value in items.items() if _is_part(key, value) for block in _blocks(key, value, full)]
    return "\n".join([aligned(whole), *parts])


def _is_part(key: str, value: object) -> bool:
    return isinstance(value, Mapping) and key not in _IN_ONE_LINE


def _blocks(title: str, part: Mapping[str, Any], full: bool) -> list[str]:
    """Return what a part says, then what the parts in it say; nothing of what is not set."""
    lines: _Lines = []
    inner: list[str] = []
    for name, value in part.items():
        if value is None or value in ({}, [], (), ""):
            continue
        if name == "config" and not full:
            lines.append((name, f"{len(value)} settings of the run, with --full"))
        elif _is_part(name, value):
            inner += _blocks(f"{title}.{name}", value, full)
        else:
            lines.append((name, _shown(name, value, full)))
    return [*([f"{printable(title)}\n{aligned(lines, _INDENT)}"] if lines else []), *inner]


def _shown(key: str, value: object, full: bool) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int) and key == "num_bytes":
        return f"{size_text(value)} ({value:,} bytes)" if value >= 1000 else size_text(value)
    if isinstance(value, int):
        return str(value) if key.endswith(("seed", "version")) else f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        items = cast(Mapping[object, object], value)
        return ", ".join(f"{name} {_shown('', item, full)}" for name, item in items.items()) or "-"
    if isinstance(value, Sequence) and not isinstance(value, str):
        items = cast(Sequence[object], value)
        if len(items) > _MOST_ITEMS and not full and not all(isinstance(item, str) for item in items):
            return f"{len(items)} values, with --full"
        return ", ".join(_shown("", item, full) for item in items) or "-"
    if key == "task" and value == UNNAMED_TASK:
        return "not in the file: name it with --task"
    return str(value)


def aligned(lines: Sequence[tuple[str, str]], indent: str = "") -> str:
    """Return `key  value` lines, long values wrapped below themselves; a path or a hash stays whole, to be copied."""
    width = max(len(printable(key)) for key, _ in lines)
    text = ""
    for key, value in lines:
        start = f"{indent}{printable(key):<{width}}  "
        text += textwrap.fill(
            printable(value, _MOST_SHOWN) or "-",
            _WIDTH,
            initial_indent=start,
            subsequent_indent=" " * len(start),
            break_long_words=False,
            break_on_hyphens=False,
        )
        text += "\n"
    return text


def verification_text(verification: Verification) -> str:
    """Return the scores, the verdict and the usual mistakes as aligned lines."""
    played, expected = verification.played, verification.expected
    kind = "starts, a census" if played.played.is_census else "episodes"
    how = f"{len(played.played.episodes)} {kind}, {played.behaviour}, seed {verification.evaluation.seed}"
    lines = [
        ("played", f"{played.name} on {played.task.name}, {how}"),
        ("score", _score(played)),
        ("random play", _score(verification.random)),
    ]
    if expected is not None:
        error = "" if expected.standard_error is not None else "; its standard error is not known: as that of the score"
        lines.append(("expected", f"{figure(expected.mean, expected.standard_error)} ({expected.source}{error})"))
    lines.append(("verdict", _verdict(verification)))
    if verification.verdict != "agrees":
        name = "likely cause" if verification.verdict == "differs" else "to check"
        lines += [(name, cause) for cause in verification.likely_causes]
    for finding in verification.findings:
        note = "" if finding.note is None else f" ({finding.note})"
        lines.append((finding.mistake, f"{finding.as_played}{note}"))
    return aligned(lines)


def _score(row: PolicyEvaluation) -> str:
    text = figure(row.mean, row.standard_error)
    if row.interval is None:
        return text
    return f"{text} (standard error), 95 % interval {figure(row.interval.low)} to {figure(row.interval.high)}"


def _verdict(verification: Verification) -> str:
    difference, allowed = verification.difference, verification.allowed_difference
    beside = f"it {_beside_random(verification)} random play"
    if difference is None or allowed is None:
        return (
            "not compared: no return is recorded beside it, and none was given (--expected-return R). Only that "
            f"{beside} was seen"
        )
    if verification.verdict == "not compared":
        return (
            f"not compared: {figure(abs(difference))} apart, but its scores show no spread, and how sure the expected "
            f"return is nobody says: give --expected-standard-error; {beside}"
        )
    text = f"{verification.verdict}: {figure(abs(difference))} apart, at most {figure(allowed)} allowed"
    return text if verification.verdict == "agrees" else f"{text}; {beside}"


def _beside_random(verification: Verification) -> str:
    played, random = verification.played, verification.random
    gap = played.mean - random.mean
    if abs(gap) <= ALLOWED_STANDARD_ERRORS * math.hypot(played.standard_error, random.standard_error):
        return "is not to be told from"
    return "is better than" if gap > 0 else "is worse than"
