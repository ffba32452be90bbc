"""Curves of several tasks in one panel: a line for each, in a colour of its own, named where it ends.

Points of different games do not add up, nor share an axis. Where every task has a human reference
score, games are therefore drawn between random play, 0, and a human tester, 1.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rldistill.errors import shortened
from rldistill.reports import canvas
from rldistill.reports.colours import TASK_COLOURS
from rldistill.statistics import normalised_score
from rldistill.tasks import ATARI_PREFIX

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Characters of a label that fit between two panels, with the number behind it.
_LONGEST_NAME = 18

Records = Sequence[Mapping[str, Any]]

Rescale = Callable[[str, float], float]
"""A task's name and a score to what is drawn."""


def task_colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each task, the same in every panel; more tasks than colours begin again."""
    return {name: TASK_COLOURS[place % len(TASK_COLOURS)] for place, name in enumerate(names)}


def pretty_tasks(names: Sequence[str], most: int = 3) -> str:
    """Return tasks for a headline: their names, or how many there are."""
    return ", ".join(_short(name) for name in names) if len(names) <= most else f"{len(names)} tasks"


def learning_curve_of_tasks(config: Mapping[str, Any], records: Records, out: Path, *, subtitle: str) -> Path:
    """Draw a distillation of several tasks: loss, likeness on held-out steps and, where there are any, games.

    Args:
        config: of the run.
        records: of its measurements.
        out: PNG file to write; it is returned.
        subtitle: how it was distilled.
    """
    tasks: Mapping[str, Mapping[str, Any]] = records[-1]["tasks"]
    has_played = any("scores" in values for record in records for values in record["tasks"].values())
    margins, last_update = canvas.Margins(right=1.9, between=2.5), records[-1]["update"]
    figure, panels = canvas.panels_over_updates(3 if has_played else 2, last_update, margins)
    _draw_held_out(panels[0], records, "held_out_loss", digits=3)
    canvas.title_panel(panels[0], "Loss", x_label="updates", y_label="held-out steps, each by its own loss")
    if "held_out_agreement" in next(iter(tasks.values())):
        panels[1].set_ylim(0, 100)
        _draw_held_out(panels[1], records, "held_out_agreement", factor=100)
        title, y_label = "Agreement with the teacher", "same action, held out (%)"
    else:
        _draw_held_out(panels[1], records, "held_out_action_gap", factor=100)
        title, y_label = "Distance from the teacher", "action, held out (% of its box)"
    canvas.title_panel(panels[1], title, x_label="updates", y_label=y_label)
    if has_played:
        _draw_play(panels[2], records)
    title = f"{pretty_tasks(list(tasks))}: distilling into {config.get('student', 'student')}"
    text = "Held-out steps: whole episodes that are never trained on"
    if any("temperature" in values for values in tasks.values()):
        text += "; losses at the temperature of the moment: they may rise while it falls"
    canvas.headline(figure, title, subtitle, f"{text}.")
    return canvas.save_png(figure, out)


def _draw_held_out(axes: "Axes", records: Records, key: str, *, factor: float = 1.0, digits: int = 1) -> None:
    """Draw a measurement on held-out steps (times a factor: 100 for percent) over the updates, a line for each task."""
    updates = [record["update"] for record in records]
    labels: list[canvas.EndLabel] = []
    for name, colour in task_colours(list(records[-1]["tasks"])).items():
        values = [factor * record["tasks"][name][key] for record in records]
        axes.plot(updates, values, color=colour, linewidth=1.8)
        labels.append(_label(name, values[-1], colour, digits))
    canvas.label_ends(axes, labels)


def _draw_play(axes: "Axes", records: Records) -> None:
    """Draw the mean score of the games that a student of several tasks played while it was trained."""
    names = list(records[-1]["tasks"])
    rescale, y_label = _common_scale(names)
    labels: list[canvas.EndLabel] = []
    for name, colour in task_colours(names).items():
        played = [(record["update"], record["tasks"][name].get("scores")) for record in records]
        points = [(update, rescale(name, float(np.mean(scores)))) for update, scores in played if scores]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.8, marker="o", markersize=3.2)
            labels.append(_label(name, points[-1][1], colour, 2))
    canvas.title_panel(axes, "Play, mean of the games", x_label="updates", y_label=y_label)
    canvas.label_ends(axes, labels)


def _common_scale(names: Sequence[str]) -> tuple[Rescale, str]:
    """Return how scores of several tasks are brought to one axis, and what that axis is called."""
    if all(normalised_score(0.0, name.removeprefix(ATARI_PREFIX)) is not None for name in names):
        return _human_normalised, "0: random play, 1: a human tester"
    return lambda _, score: score, "points of each task"


def _human_normalised(name: str, score: float) -> float:
    value = normalised_score(score, name.removeprefix(ATARI_PREFIX))
    assert value is not None, "asked only where every task has a reference"
    return value


def _label(name: str, value: float, colour: str, digits: int) -> canvas.EndLabel:
    return canvas.EndLabel(value, f"{_short(name)} {canvas.number(value, digits)}", colour)


def _short(name: str) -> str:
    """Return a task's name without the module that registers it, as far as there is room right of a panel."""
    return shortened(canvas.pretty_task(name).rpartition(":")[2], _LONGEST_NAME)
