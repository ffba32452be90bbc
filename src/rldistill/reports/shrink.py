"""The curve of a search for a small student: what is kept, against parameters."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rldistill.reports.canvas import (
    GRID,
    INK,
    SOFT_INK,
    Margins,
    add_panels,
    headline,
    new_figure,
    save_png,
    title_panel,
)

_HELD, _FAILED = "#1B6CA8", "#B0413E"
_LOWEST = -0.1


def size_curve(found: Mapping[str, Any], keep: float, out: Path) -> Path:
    """Draw retention against the number of parameters, every size that was tried and what was proved.

    Args:
        found: JSON data of `shrink`.
        keep: share of the skill that was asked for.
        out: PNG file to write.

    Raises:
        RldistillError: matplotlib is missing.
    """
    margins = Margins()
    figure = new_figure(margins.left + margins.right + 5.5, 4.75)
    (axes,) = add_panels(figure, 1, margins)
    trials = sorted(found["trials"], key=lambda trial: trial["num_parameters"])
    sizes = [trial["num_parameters"] for trial in trials]
    # A student far worse than random play would press all others into one line.
    shown = [max(trial["retention"], _LOWEST) for trial in trials]
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.axhline(keep, color=SOFT_INK, linewidth=1, linestyle="--")
    axes.axhline(1.0, color=GRID, linewidth=1)
    axes.plot(sizes, shown, color=GRID, linewidth=2, zorder=1)
    lowest = keep
    for trial, size, value in zip(trials, sizes, shown, strict=True):
        colour = _HELD if trial["holds"] else _FAILED
        bound = min(max(trial["bound"], _LOWEST), value)
        lowest = min(lowest, bound)
        axes.plot([size, size], [bound, value], color=colour, linewidth=2)
        axes.plot([size], [value], "o", color=colour, markersize=6)
        axes.annotate(trial["network"], (size, value), (0, 8), textcoords="offset points", ha="center", color=INK)
    axes.set_ylim(lowest - 0.05, max(1.1, *(value + 0.1 for value in shown)))
    title_panel(axes, f"dashed: {keep:.0%} asked for", x_label="parameters", y_label="share of the teacher's skill")
    headline(
        figure,
        "How small can the student be?",
        "points: mean on the choosing episodes; lines reach down to the one-sided 95 % bound",
        textwrap.fill(found["verdict"], 100),
    )
    return save_png(figure, out)
