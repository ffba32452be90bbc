"""Curves of a run folder, as PNG: how a student was distilled, of one task or of several.

A curve says what it is made of: which steps, how many episodes, which seed. Loss and agreement are measured on episodes
that were never trained on; scores are those of whole games. Points of different games do not add up, nor share an axis.
Where every task of several has a human reference score, games are therefore drawn between random play, 0, and a human
tester, 1.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rldistill.data import load_manifest
from rldistill.errors import RldistillError, shortened
from rldistill.reports import canvas
from rldistill.reports.canvas import RANDOM_COLOUR, STUDENT_COLOUR, TASK_COLOURS, TEACHER_COLOUR
from rldistill.session.metrics import read_metrics
from rldistill.session.run_folder import CONFIG_FILE, read_config
from rldistill.statistics import normalised_score
from rldistill.tasks import ATARI_PREFIX

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TRAIN_COLOUR = "#A6A6A6"
_ROLE_COLOURS = {"teacher": TEACHER_COLOUR, "student": STUDENT_COLOUR, "random": RANDOM_COLOUR}
# On a linear axis a loss that fell this far hides all but its first moments.
_LOGARITHMIC_FROM = 8.0


def learning_curve(run_folder: Path, out: Path, *, evaluation: Mapping[str, Any] | None = None) -> Path:
    """Draw a distillation: loss, agreement on held-out steps and, where there are any, scores.

    Args:
        run_folder: of `distill`.
        out: PNG file to write; it is returned.
        evaluation: the JSON of `evaluate`, to show the scores of teacher, student and random play.

    Raises:
        RldistillError: the folder holds no measurement of a distillation, matplotlib is missing, or there
            is an evaluation and the run has several tasks.
    """
    config, records = _read_run(run_folder, needed=("held_out_loss", "tasks"))
    if "tasks" in records[-1]:
        if evaluation is not None:
            raise RldistillError(
                f"No evaluation can be drawn into a curve of {len(records[-1]['tasks'])} tasks, whose scores share no "
                "axis. Leave it out."
            )
        return _learning_curve_of_tasks(config, records, out, subtitle=_distillation_subtitle(config, records))
    num_panels = 3 if evaluation is not None or any("scores" in record for record in records) else 2
    updates = _column(records, "update")
    figure, panels = canvas.panels_over_updates(num_panels, updates[-1], canvas.Margins())
    _draw_loss(panels[0], updates, records, str(config.get("loss", "loss")))
    _draw_likeness(panels[1], updates, records)
    if num_panels == 3:
        _draw_scores(panels[2], records, evaluation)
    student, loss = config.get("student", "student"), _spaced(str(config.get("loss", "its loss")))
    task = _task_of(config, evaluation)
    title = f"{task + ': ' if task else ''}distilling into {student} by {loss}"
    footnote = _distillation_footnote(records, evaluation)
    canvas.headline(figure, title, _distillation_subtitle(config, records), footnote)
    return canvas.save_png(figure, out)


def _read_run(folder: Path, *, needed: Sequence[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    path = folder / "metrics.jsonl"
    records = [record for record in read_metrics(path) if any(key in record for key in needed)]
    if not records:
        raise RldistillError(
            f"No curve can be drawn: {path} holds no record with {needed[0]!r}. Expected the folder of a "
            "`rldistill distill` that has got as far as its first measurement."
        )
    return read_config(folder / CONFIG_FILE), records


def _draw_loss(axes: "Axes", updates: NDArray[np.float64], records: Sequence[Mapping[str, Any]], loss: str) -> None:
    train, held_out = _column(records, "loss"), _column(records, "held_out_loss")
    axes.plot(updates, train, color=_TRAIN_COLOUR, linewidth=1.6)
    axes.plot(updates, held_out, color=STUDENT_COLOUR, linewidth=2.0)
    both = np.concatenate([train, held_out])
    if both.min() > 0 and both.max() / both.min() > _LOGARITHMIC_FROM:
        from matplotlib.ticker import LogFormatter, NullFormatter

        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(auto=True)
    else:
        lowest, highest = min(0.0, float(both.min())), float(both.max()) * 1.06
        # Nothing to learn and nothing left to learn: zeros from the first update on.
        axes.set_ylim(lowest, highest if highest > lowest else lowest + 1.0)
    unit = "squared units of Q" if loss == "q_mse" else "nats per decision"
    canvas.title_panel(axes, "Loss", x_label="updates", y_label=f"{_spaced(loss)} ({unit})")
    trained = canvas.EndLabel(float(train[-1]), f"training {train[-1]:.3g}", RANDOM_COLOUR)
    measured = canvas.EndLabel(float(held_out[-1]), f"held out {held_out[-1]:.3g}", STUDENT_COLOUR)
    canvas.label_ends(axes, [trained, measured])


def _draw_likeness(axes: "Axes", updates: NDArray[np.float64], records: Sequence[Mapping[str, Any]]) -> None:
    """Draw how alike student and teacher act on held-out steps, beside what a constant action would reach."""
    if "held_out_agreement" in records[-1]:
        student, constant = 100 * _column(records, "held_out_agreement"), 100 * float(records[-1]["majority_share"])
        title, y_label, limit = "Agreement with the teacher", "same action, held-out steps (%)", 100.0
        words = f"student {student[-1]:.1f} %", f"always the\ncommonest\naction {constant:.1f} %"
    else:
        student = 100 * _column(records, "held_out_action_gap")
        constant = 100 * float(records[-1]["constant_action_gap"])
        title, y_label = "Distance from the teacher", "action, held-out steps (% of its box)"
        limit = 1.1 * max(constant, float(student.max())) or 1.0
        words = f"student {student[-1]:.2g} %", f"always its\nmedian action\n{constant:.2g} %"
    axes.axhline(constant, color=RANDOM_COLOUR, linestyle=(0, (5, 3)), linewidth=1.3)
    axes.plot(updates, student, color=STUDENT_COLOUR, linewidth=2.0)
    axes.set_ylim(0, limit)
    canvas.title_panel(axes, title, x_label="updates", y_label=y_label)
    ends = (float(student[-1]), STUDENT_COLOUR), (constant, RANDOM_COLOUR)
    canvas.label_ends(axes, [canvas.EndLabel(y, text, colour) for (y, colour), text in zip(ends, words, strict=True)])


def _draw_scores(axes: "Axes", records: Sequence[Mapping[str, Any]], evaluation: Mapping[str, Any] | None) -> None:
    played = [record for record in records if record.get("scores")]
    policies: list[Mapping[str, Any]] = [] if evaluation is None else list(evaluation["policies"])
    labels: list[canvas.EndLabel] = []
    if played:
        means = _draw_played(axes, played)
        for policy in policies:
            if policy["role"] == "student":
                _draw_interval(axes, policy, float(records[-1]["update"]), clip=False)
            else:
                _draw_reference(axes, policy)
        if not any(policy["role"] == "student" for policy in policies):
            labels.append(canvas.EndLabel(means[-1], f"student {canvas.number(means[-1])}", STUDENT_COLOUR))
    else:
        _draw_strips(axes, policies)
    labels += [canvas.EndLabel(each["mean"], _score_text(each), _ROLE_COLOURS[each["role"]]) for each in policies]
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.03 * (high - low), high + 0.03 * (high - low))
    canvas.title_panel(axes, "Play", x_label="updates" if played else "", y_label="score of a whole game (points)")
    # Clear of the caps of the student's interval, which stands on the edge.
    canvas.label_ends(axes, labels, offset=0.05)


def _draw_played(axes: "Axes", played: Sequence[Mapping[str, Any]]) -> list[float]:
    """Draw the games played while training: a dot each, and a line through their means."""
    means = [float(np.mean(record["scores"])) for record in played]
    style: dict[str, Any] = {"s": 20, "color": STUDENT_COLOUR, "alpha": 0.3, "linewidths": 0}
    for record in played:
        updates = [record["update"]] * len(record["scores"])
        axes.scatter(updates, record["scores"], clip_on=False, zorder=3, **style)
    axes.plot([record["update"] for record in played], means, color=STUDENT_COLOUR, linewidth=2.0, zorder=4)
    return means


def _draw_reference(axes: "Axes", policy: Mapping[str, Any]) -> None:
    colour = _ROLE_COLOURS[policy["role"]]
    style = "-" if policy["role"] == "teacher" else (0, (5, 3))
    axes.axhline(policy["mean"], color=colour, linestyle=style, linewidth=1.5)
    if policy["interval"] is not None:
        axes.axhspan(policy["interval"][0], policy["interval"][1], color=colour, alpha=0.14, linewidth=0)


def _draw_interval(axes: "Axes", policy: Mapping[str, Any], x: float, *, clip: bool) -> None:
    """Draw a mean and its interval, if it has one."""
    low, high = policy["interval"] or (policy["mean"], policy["mean"])
    below_and_above = [[policy["mean"] - low], [high - policy["mean"]]]
    colour = _ROLE_COLOURS[policy["role"]]
    style: dict[str, Any] = {"markersize": 7, "markeredgecolor": "white", "markeredgewidth": 1.0, "capsize": 5}
    style |= {"color": colour, "linewidth": 2.2, "clip_on": clip, "zorder": 6}
    axes.errorbar([x], [policy["mean"]], yerr=below_and_above, fmt="o", **style)


def _draw_strips(axes: "Axes", policies: Sequence[Mapping[str, Any]]) -> None:
    """Draw each policy's games as a column of dots, with mean and interval beside them."""
    axes.set_xlim(-0.5, len(policies) - 0.5)
    for place, policy in enumerate(policies):
        scores = [episode["return"] for episode in policy["episodes"]]
        # Equal scores would hide one another: spread in the order they were played, not at random.
        spread = np.linspace(-0.22, 0.06, len(scores)) if len(scores) > 1 else np.zeros(1)
        colour = _ROLE_COLOURS[policy["role"]]
        axes.scatter(place + spread, scores, s=16, color=colour, alpha=0.35, linewidths=0)
        _draw_interval(axes, policy, place + 0.24, clip=True)
    axes.set_xticks(range(len(policies)), [str(policy["name"]) for policy in policies])
    axes.grid(visible=False, axis="x")


def _score_text(policy: Mapping[str, Any]) -> str:
    text = f"{policy['role']} {canvas.number(policy['mean'])}"
    if policy["interval"] is not None and not policy.get("degenerate"):
        text += f"\n[{canvas.number(policy['interval'][0])}, {canvas.number(policy['interval'][1])}]"
    return text


def _distillation_subtitle(config: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> str:
    parts = [f"{int(records[-1]['update']):,} updates of {config.get('batch_size', '?')} decisions"]
    if "temperature" in config:
        parts.append(f"temperature {_arrow(str(config['temperature']))}")
    learning_rate = _arrow(str(config.get("learning_rate", "?")))
    parts.append(f"{config.get('optimizer', 'optimiser')}, learning rate {learning_rate}")
    if data := config.get("data"):
        parts.append(f"dataset {', '.join(Path(path).name for path in data)}")
    return " · ".join([*parts, f"one seed ({config.get('seed', '?')})"])


def _distillation_footnote(records: Sequence[Mapping[str, Any]], evaluation: Mapping[str, Any] | None) -> str:
    text = "Held-out steps: whole episodes that are never trained on; training loss: mean since the last point"
    if any("temperature" in record for record in records):
        text += "; both at the temperature of the moment: they may rise while it falls"
    lines = [f"{text}."]
    num_played = max((len(record.get("scores") or []) for record in records), default=0)
    parts: list[str] = []
    if num_played:
        parts.append(f"dots: {num_played} games each time while training, line: their mean")
    if evaluation is not None:
        parts.append(_evaluation_note(evaluation))
    if parts:
        text = "; ".join(parts)
        lines.append(text[0].upper() + text[1:] + ".")
    return "\n".join(lines)


def _evaluation_note(evaluation: Mapping[str, Any]) -> str:
    """Say how many episodes, on which seed, with how much chance, and what the bars are."""
    policies: list[Mapping[str, Any]] = list(evaluation["policies"])
    players = [policy for policy in policies if policy["role"] != "random"]
    counts = sorted({len(policy["episodes"]) for policy in policies})
    episodes = f"{counts[0]} episodes" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} episodes"
    note = f"evaluation: {episodes} each, seed {evaluation['seed']}"
    if players:
        note += f", ε {players[0]['exploration_epsilon']:g}"
    if any(policy["interval"] is not None for policy in policies):
        note += ", means with 95 % intervals (bootstrap)"
    if any(policy.get("census") for policy in policies):
        note += ", every distinct start once where no interval is given"
    return note


def _task_of(config: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> str | None:
    """Return the task's name for people: from the evaluation, else from the dataset if it is still there."""
    if evaluation is not None:
        return canvas.pretty_task(str(evaluation["task"]))
    for path in config.get("data", []):
        try:
            return canvas.pretty_task(load_manifest(Path(path)).provenance.task.name)
        except (RldistillError, OSError):
            return None
    return None


def _spaced(name: str) -> str:
    return name.replace("_", " ").replace("kl", "KL").replace("nll", "negative log-likelihood")


def _arrow(schedule: str) -> str:
    return schedule.replace("->", " → ").replace(":", " ", 1).replace("_", " ")


def _column(records: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    return np.array([record[key] for record in records], np.float64)


# Characters of a label that fit between two panels, with the number behind it.
_LONGEST_NAME = 18
_MOST_NAMED = 3  # tasks in a headline

Records = Sequence[Mapping[str, Any]]


def _task_colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each task, the same in every panel; more tasks than colours begin again."""
    return {name: TASK_COLOURS[place % len(TASK_COLOURS)] for place, name in enumerate(names)}


def _learning_curve_of_tasks(config: Mapping[str, Any], records: Records, out: Path, *, subtitle: str) -> Path:
    """Draw a distillation of several tasks: loss, likeness on held-out steps and, where there are any, games."""
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
    named = ", ".join(map(_short, tasks)) if len(tasks) <= _MOST_NAMED else f"{len(tasks)} tasks"
    title = f"{named}: distilling into {config.get('student', 'student')}"
    text = "Held-out steps: whole episodes that are never trained on"
    if any("temperature" in values for values in tasks.values()):
        text += "; losses at the temperature of the moment: they may rise while it falls"
    canvas.headline(figure, title, subtitle, f"{text}.")
    return canvas.save_png(figure, out)


def _draw_held_out(axes: "Axes", records: Records, key: str, *, factor: float = 1.0, digits: int = 1) -> None:
    """Draw a measurement on held-out steps (times a factor: 100 for percent) over the updates, a line for each task."""
    updates = [record["update"] for record in records]
    labels: list[canvas.EndLabel] = []
    for name, colour in _task_colours(list(records[-1]["tasks"])).items():
        values = [factor * record["tasks"][name][key] for record in records]
        axes.plot(updates, values, color=colour, linewidth=1.8)
        labels.append(_task_label(name, values[-1], colour, digits))
    canvas.label_ends(axes, labels)


def _draw_play(axes: "Axes", records: Records) -> None:
    """Draw the mean score of the games that a student of several tasks played while it was trained."""
    names = list(records[-1]["tasks"])
    rescale, y_label = _common_scale(names)
    labels: list[canvas.EndLabel] = []
    for name, colour in _task_colours(names).items():
        played = [(record["update"], record["tasks"][name].get("scores")) for record in records]
        points = [(update, rescale(name, float(np.mean(scores)))) for update, scores in played if scores]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.8, marker="o", markersize=3.2)
            labels.append(_task_label(name, points[-1][1], colour, 2))
    canvas.title_panel(axes, "Play, mean of the games", x_label="updates", y_label=y_label)
    canvas.label_ends(axes, labels)


def _common_scale(names: Sequence[str]) -> tuple[Callable[[str, float], float], str]:
    """Return how scores of several tasks, by name, are brought to one axis, and what that axis is called."""
    if all(normalised_score(0.0, name.removeprefix(ATARI_PREFIX)) is not None for name in names):
        return _human_normalised, "0: random play, 1: a human tester"
    return lambda _, score: score, "points of each task"


def _human_normalised(name: str, score: float) -> float:
    value = normalised_score(score, name.removeprefix(ATARI_PREFIX))
    assert value is not None, "asked only where every task has a reference"
    return value


def _task_label(name: str, value: float, colour: str, digits: int) -> canvas.EndLabel:
    return canvas.EndLabel(value, f"{_short(name)} {canvas.number(value, digits)}", colour)


def _short(name: str) -> str:
    """Return a task's name without the module that registers it, as far as there is room right of a panel."""
    return shortened(canvas.pretty_task(name).rpartition(":")[2], _LONGEST_NAME)
