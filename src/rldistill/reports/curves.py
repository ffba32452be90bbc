"""Curves of two other kinds of run, as PNG: a student whose teacher still learns, and a search for a small student."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rldistill.errors import RldistillError
from rldistill.reports import canvas
from rldistill.seeding import stream_generator
from rldistill.session.metrics import read_metrics
from rldistill.session.own_files import CONFIG_FILE
from rldistill.session.run_folder import read_config
from rldistill.statistics import bootstrap_interval, mean
from rldistill.verbs.sources import CURVES_FILE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURE_FILE = "curves.png"
_LINES = (
    ("learner", "learner", "#A6A6A6"),
    ("best", "its best\nso far", canvas.TEACHER_COLOUR),
    ("student", "student", canvas.STUDENT_COLOUR),
)


def online_curves(run_folder: Path, out: Path) -> Path:
    """Draw the scores of learner, best policy so far and student over the learner's steps; returns `out`, a PNG file.

    Raises RldistillError: the folder holds no such curves, or matplotlib is missing.
    """
    records = read_metrics(run_folder / CURVES_FILE)
    if not records:
        raise RldistillError(f"{run_folder} holds no {CURVES_FILE}: it is not a run of `distill --online`.")
    config = read_config(run_folder / CONFIG_FILE)
    figure = canvas.new_figure(8.6, 5.2)
    axes = figure.add_axes((0.085, 0.19, 0.775, 0.6))
    canvas.dress(axes)
    canvas.count_ticks(axes, num_ticks=6)
    steps = np.array([record["step"] for record in records], np.float64)
    axes.set_xlim(0, max(float(steps[-1]), 1.0))
    labels = [_draw(axes, steps, records, *line) for line in _LINES]
    canvas.title_panel(axes, "Mean score", x_label="decisions of the learner", y_label="points")
    canvas.label_ends(axes, labels)
    episodes = len(records[0]["learner_scores"])
    teacher = "the learner's best policy so far" if config["online_teacher"] == "best" else "the learner as it is"
    canvas.headline(
        figure,
        f"{canvas.pretty_task(str(config['task']))}: {config['student']} distilled while its teacher learns",
        f"taught by {teacher} · {str(config['algorithm']).upper()} · {config['num_updates']:,} updates · "
        f"one seed ({config['seed']})",
        f"Points are means of {episodes} episodes, bands their 95 % bootstrap intervals, every point with episodes of\n"
        "its own: the best policy is chosen by those of the learner and scored on others.",
    )
    return canvas.save_png(figure, out)


def _draw(
    axes: "Axes", steps: NDArray[np.float64], records: Sequence[Mapping[str, Any]], key: str, label: str, colour: str
) -> canvas.EndLabel:
    scores = [np.array(record[f"{key}_scores"], np.float64) for record in records]
    means = np.array([values.mean() for values in scores])
    rng = stream_generator(0, f"figure {key}")
    intervals = [bootstrap_interval(values, mean, rng=rng, num_resamples=2000) for values in scores]
    if all(interval is not None for interval in intervals):
        low, high = np.array([interval.to_list() for interval in intervals if interval is not None]).T
        axes.fill_between(steps, low, high, color=colour, alpha=0.16, linewidth=0)
    axes.plot(steps, means, color=colour, linewidth=1.8, marker="o", markersize=3.2)
    last, text_colour = float(means[-1]), canvas.INK if key == "learner" else colour
    return canvas.EndLabel(last, f"{label} {canvas.number(last)}", text_colour)


_HELD, _FAILED = "#1B6CA8", "#B0413E"
_LOWEST = -0.1


def size_curve(found: Mapping[str, Any], out: Path) -> Path:
    """Draw retention against the number of parameters, every size that was tried and what was proved.

    `found` is JSON data of `shrink`. Raises RldistillError: matplotlib is missing.
    """
    margins = canvas.Margins()
    figure = canvas.new_figure(margins.left + margins.right + 5.5, 4.75)
    (axes,) = canvas.add_panels(figure, 1, margins)
    trials = sorted(found["trials"], key=lambda trial: trial["num_parameters"])
    sizes = [trial["num_parameters"] for trial in trials]
    # A student far worse than random play would press all others into one line.
    shown = [max(trial["retention"], _LOWEST) for trial in trials]
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    keep = found["keep"]
    axes.axhline(keep, color=canvas.SOFT_INK, linewidth=1, linestyle="--")
    axes.axhline(1.0, color=canvas.GRID, linewidth=1)
    axes.plot(sizes, shown, color=canvas.GRID, linewidth=2, zorder=1)
    lowest = keep
    for trial, size, value in zip(trials, sizes, shown, strict=True):
        colour = _HELD if trial["holds"] else _FAILED
        bound = min(max(trial["bound"], _LOWEST), value)
        lowest = min(lowest, bound)
        axes.plot([size, size], [bound, value], color=colour, linewidth=2)
        axes.plot([size], [value], "o", color=colour, markersize=6)
        axes.annotate(
            trial["network"], (size, value), (0, 8), textcoords="offset points", ha="center", color=canvas.INK
        )
    axes.set_ylim(lowest - 0.05, max(1.1, *(value + 0.1 for value in shown)))
    canvas.title_panel(
        axes, f"dashed: {keep:.0%} asked for", x_label="parameters", y_label="share of the teacher's skill"
    )
    canvas.headline(
        figure,
        "How small can the student be?",
        "points: mean on the choosing episodes; lines reach down to the one-sided 95 % bound",
        textwrap.fill(found["verdict"], 100),
    )
    return canvas.save_png(figure, out)
