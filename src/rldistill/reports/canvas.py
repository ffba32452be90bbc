"""A figure in our style: headline, panels side by side, a footnote; drawn without pyplot.

pyplot keeps figures and a backend for the whole process; a library must not touch them. All
sizes are inches or points, so that figures with one, two or three panels look alike.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rldistill.errors import optional_import
from rldistill.storage import write_atomically
from rldistill.tasks import ATARI_PREFIX

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by people with any kind of colour vision, and in grey.
TEACHER_COLOUR = "#0072B2"
STUDENT_COLOUR = "#D55E00"
RANDOM_COLOUR = "#6E6E6E"
POLICY_COLOURS = (TEACHER_COLOUR, STUDENT_COLOUR, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

INK, SOFT_INK, GRID = "#222222", "#666666", "#E4E4E4"
DOTS_PER_INCH = 150
_LABEL_GAP = 0.062
# Inches that stay free right of the longest label.
_EDGE = 0.1


@dataclass(frozen=True)
class Margins:
    """Inches around and between panels; `right` and `between` leave room for labels beside the lines."""

    left: float = 0.9
    right: float = 1.35
    top: float = 1.15
    bottom: float = 1.0
    between: float = 1.95


@dataclass(frozen=True)
class EndLabel:
    """Words beside the end of a line, instead of a legend."""

    y: float
    text: str
    colour: str


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty white figure that knows how to draw itself; RldistillError where matplotlib is missing."""
    optional_import("matplotlib.figure", what="Drawing a curve", extra="report")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def add_panels(figure: "Figure", num_panels: int, margins: Margins) -> "list[Axes]":
    """Add panels of equal width in a row."""
    width, height = figure.get_size_inches()
    panel = (width - margins.left - margins.right - margins.between * (num_panels - 1)) / num_panels
    bottom, top = margins.bottom / height, (height - margins.bottom - margins.top) / height
    lefts = [margins.left + index * (panel + margins.between) for index in range(num_panels)]
    panels = [figure.add_axes((left / width, bottom, panel / width, top)) for left in lefts]
    for axes in panels:
        dress(axes)
    return panels


def dress(axes: "Axes") -> None:
    """Give axes our look: two spines, a quiet grid under the data."""
    axes.set_facecolor("white")
    axes.set_axisbelow(True)
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9A9A9A")
    axes.tick_params(colors=SOFT_INK, labelsize=9, width=0.8, length=3)


def title_panel(axes: "Axes", title: str, *, x_label: str, y_label: str) -> None:
    """Say what a panel shows, and in which units."""
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, pad=9)
    axes.set_xlabel(x_label, fontsize=9.5, color=SOFT_INK, labelpad=5)
    axes.set_ylabel(y_label, fontsize=9.5, color=SOFT_INK, labelpad=5)


def count_ticks(axes: "Axes", *, num_ticks: int = 5) -> None:
    """Write counts on the x axis as 4k and 1.5M."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(num_ticks, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def label_ends(axes: "Axes", labels: Sequence[EndLabel], *, offset: float = 0.025) -> None:
    """Write labels right of a panel with its final limits, at their heights, moved apart where they would overlap.

    `offset` is their distance from the panel, in widths of it.
    """
    to_axes = axes.transAxes.inverted()
    heights = [float(to_axes.transform(axes.transData.transform((axes.get_xlim()[1], item.y)))[1]) for item in labels]
    order = sorted(range(len(labels)), key=heights.__getitem__)
    placed: list[float] = []
    for index in order:
        lines = labels[index].text.count("\n") + 1
        below = placed[-1] + _LABEL_GAP * lines if placed else 0.0
        placed.append(max(heights[index], below))
    # What was pushed out above the panel is brought back, the others giving way.
    limit = 1.0
    for rank in range(len(placed) - 1, -1, -1):
        placed[rank] = min(placed[rank], limit)
        limit = placed[rank] - _LABEL_GAP * (labels[order[rank]].text.count("\n") + 1)
    style: dict[str, Any] = {"transform": axes.transAxes, "fontsize": 9, "va": "center", "linespacing": 1.15}
    for height, index in zip(placed, order, strict=True):
        axes.text(1 + offset, height, labels[index].text, color=labels[index].colour, **style)


def number(value: float, digits: int = 1) -> str:
    """Write a number with the minus sign that the axes use."""
    return f"{value:.{digits}f}".replace("-", "−")


def headline(figure: "Figure", title: str, subtitle: str, footnote: str) -> None:
    """Write the figure's title, a second line under it, and what a reader must know at the foot."""
    width, height = figure.get_size_inches()
    left = 0.22 / width
    figure.text(left, 1 - 0.2 / height, title, fontsize=14.5, fontweight="bold", color=INK, va="top")
    figure.text(left, 1 - 0.5 / height, subtitle, fontsize=10, color=SOFT_INK, va="top")
    figure.text(left, 0.13 / height, footnote, fontsize=8, color=SOFT_INK, va="bottom", linespacing=1.35)


def save_png(figure: "Figure", out: Path) -> Path:
    """Write the figure as a whole PNG, wide enough for all that is written in it; returns `out`."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a name with two dollar signs is a name and no formula
    _make_room(figure)
    buffer = io.BytesIO()
    # Without the version of matplotlib in it, equal runs give equal files.
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    write_atomically(out, buffer.getbuffer())
    return out


def _make_room(figure: "Figure") -> None:
    """Widen a figure whose words would be cut off at its right edge; panels keep their place and size in inches."""
    width, height = figure.get_size_inches()
    texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    ends = [text.get_window_extent().x1 / figure.dpi for text in texts]
    needed = max(ends, default=0.0) + _EDGE
    if needed <= width:
        return
    share = width / needed
    for axes in figure.axes:
        box = axes.get_position()
        axes.set_position((box.x0 * share, box.y0, box.width * share, box.height))
    for text in figure.texts:
        text.set_x(text.get_position()[0] * share)
    figure.set_size_inches(needed, height)


def pretty_task(name: str) -> str:
    """Return a task's name for people: `atari:ms_pacman` is Ms Pacman."""
    return pretty_game(name.removeprefix(ATARI_PREFIX)) if name.startswith(ATARI_PREFIX) else name


def pretty_game(game: str) -> str:
    """Return a game's name for people: `space_invaders` is Space Invaders."""
    return game.replace("_", " ").title()
