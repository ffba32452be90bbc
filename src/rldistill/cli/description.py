"""What `inspect` says, for people: aligned lines in blocks, at most 80 columns wide where words allow it."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from rldistill.events import printable

_WIDTH = 80
_INDENT = "  "
# Shown as they are, in one line each.
_IN_ONE_LINE = frozenset({"heads", "environment_kwargs"})
_MOST_ITEMS = 8
_Lines = list[tuple[str, str]]


def description_text(description: Mapping[str, Any], *, full: bool = False) -> str:
    """Return a description as blocks of `key  value` lines: what is said of the whole, then of each of its parts.

    Args:
        description: plain data, perhaps of a stranger's file.
        full: with the configuration of its run and all numbers of long lists.
    """
    parts = {key: value for key, value in _told(description).items() if _is_part(key, value)}
    whole = [(key, _shown(key, value, full)) for key, value in _told(description).items() if key not in parts]
    blocks = [_aligned(whole, "")]
    for key, value in parts.items():
        lines = list(_flat(value, full))
        blocks += [f"{printable(key)}\n{_aligned(lines, _INDENT)}"] if lines else []
    return "\n".join(blocks)


def _told(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is to be told; of several tasks the first is told by the whole already."""
    told = {key: value for key, value in description.items() if key != "tasks"}
    for number, other in enumerate(description.get("tasks", ())[1:], start=2):
        told[f"task {number}"] = other
    return told


def _is_part(key: str, value: object) -> bool:
    return isinstance(value, Mapping) and key not in _IN_ONE_LINE


def _flat(part: Mapping[str, Any], full: bool, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield what a part says, names of nested parts joined by dots; nothing of what is not set."""
    for name, value in part.items():
        key = f"{prefix}{name}"
        if value is None or value in ({}, [], (), ""):
            continue
        if name == "config" and not full:
            yield key, f"{len(value)} settings of the run, with --full"
        elif _is_part(name, value):
            yield from _flat(value, full, f"{key}.")
        else:
            yield key, _shown(name, value, full)


def _shown(key: str, value: object, full: bool) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
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
    return str(value)


def _aligned(lines: _Lines, indent: str) -> str:
    width = max(len(printable(key)) for key, _ in lines)
    text = ""
    for key, value in lines:
        start = f"{indent}{printable(key):<{width}}  "
        # A path or a hash stays whole, so that it can be copied.
        text += textwrap.fill(
            printable(value) or "-",
            _WIDTH,
            initial_indent=start,
            subsequent_indent=" " * len(start),
            break_long_words=False,
            break_on_hyphens=False,
        )
        text += "\n"
    return text
