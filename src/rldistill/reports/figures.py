"""The curve of a run folder, as PNG: how a student was distilled.

It says what it is made of: which steps, how many episodes, which seed. Loss and agreement are measured on episodes
that were never trained on; scores are those of whole games.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rldistill.errors import RldistillError
from rldistill.reports import canvas
from rldistill.reports.canvas import RANDOM_COLOUR, STUDENT_COLOUR, TEACHER_COLOUR
from rldistill.session.metrics import read_metrics
from rldistill.session.own_files import CONFIG_FILE
from rldistill.session.run_folder import read_config

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TRAIN_COLOUR = "#A6A6A6"
_ROLE_COLOURS = {"teacher": TEACHER_COLOUR, "student": STUDENT_COLOUR, "random": RANDOM_COLOUR}
_UNITS = {
    ("q_mse",): "squared units of Q",
    ("mean_mse",): "squared halves of the box",
    ("nll", "sharpened_kl", "reverse_kl", "diag_gaussian_kl", "reverse_diag_gaussian_kl"): "nats per decision",
}
# On a linear axis a loss that fell this far hides all but its first moments.
_LOGARITHMIC_FROM = 8.0


def learning_curve(run_folder: Path, out: Path, evaluation: Mapping[str, Any]) -> Path:
    """Draw a distillation: loss, agreement on held-out steps, and scores.

    Args:
        run_folder: of `distill`, of one task.
        out: PNG file to write; it is returned.
        evaluation: the JSON of `evaluate`, with the scores of teacher, student and random play.

    Raises:
        RldistillError: the folder holds no measurement of a distillation, or matplotlib is missing.
    """
    config, records = _read_run(run_folder)
    updates = _column(records, "update")
    margins = canvas.Margins()
    figure = canvas.new_figure(margins.left + margins.right + 3 * 2.85 + 2 * margins.between, 4.75)
    panels = canvas.add_panels(figure, 3, margins)
    for axes in panels:
        axes.set_xlim(0, updates[-1])
        canvas.count_ticks(axes)
    _draw_loss(panels[0], updates, records, str(config.get("loss", "loss")))
    _draw_likeness(panels[1], updates, records)
    _draw_scores(panels[2], list(evaluation["policies"]))
    student, loss = config.get("student", "student"), _spaced(str(config.get("loss", "its loss")))
    title = f"{canvas.pretty_task(str(evaluation['task']))}: distilling into {student} by {loss}"
    footnote = _distillation_footnote(records, evaluation)
    canvas.headline(figure, title, _distillation_subtitle(config, records), footnote)
    return canvas.save_png(figure, out)


def _read_run(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    path = folder / "metrics.jsonl"
    records = [record for record in read_metrics(path) if "held_out_loss" in record]
    if not records:
        raise RldistillError(
            f"No curve can be drawn: {path} holds no record with 'held_out_loss'. Expected the folder of a "
            "`rldistill distill` that has got as far as its first measurement."
        )
    return read_config(folder / CONFIG_FILE), records


def _draw_loss(axes: "Axes", updates: NDArray[np.float64], records: Sequence[Mapping[str, Any]], loss: str) -> None:
    train, held_out = _column(records, "loss"), _column(records, "held_out_loss")
    axes.plot(updates, train, color=_TRAIN_COLOUR, linewidth=1.6)
    axes.plot(updates, held_out, color=STUDENT_COLOUR, linewidth=2.0)
    both = np.concatenate([train, held_out])
    if both.min() > 0 and both.max() / both.min() > _LOGARITHMIC_FROM:
        from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

        axes.set_yscale("log")
        # Within one decade, powers of ten alone would leave a single number on the axis; over many, LogLocator leaves
        # none at all where more than powers of ten are asked for.
        steps = (1.0, 2.0, 5.0) if both.max() / both.min() < 100 else (1.0,)
        axes.yaxis.set_major_locator(LogLocator(subs=steps))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(auto=True)
    else:
        lowest, highest = min(0.0, float(both.min())), float(both.max()) * 1.06
        # Nothing to learn and nothing left to learn: zeros from the first update on.
        axes.set_ylim(lowest, highest if highest > lowest else lowest + 1.0)
    unit = next((f" ({unit})" for names, unit in _UNITS.items() if loss in names), "")
    canvas.title_panel(axes, "Loss", x_label="updates", y_label=f"{_spaced(loss)}{unit}")
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


def _draw_scores(axes: "Axes", policies: Sequence[Mapping[str, Any]]) -> None:
    """Draw each policy's games as a column of dots, with mean and interval beside them."""
    axes.set_xlim(-0.5, len(policies) - 0.5)
    for place, policy in enumerate(policies):
        scores = [episode["return"] for episode in policy["episodes"]]
        # Equal scores would hide one another: spread in the order they were played, not at random.
        spread = np.linspace(-0.22, 0.06, len(scores)) if len(scores) > 1 else np.zeros(1)
        colour = _ROLE_COLOURS[policy["role"]]
        axes.scatter(place + spread, scores, s=16, color=colour, alpha=0.35, linewidths=0)
        _draw_interval(axes, policy, place + 0.24)
    axes.set_xticks(range(len(policies)), [_narrow(str(policy["name"])) for policy in policies], fontsize=8)
    axes.grid(visible=False, axis="x")
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.03 * (high - low), high + 0.03 * (high - low))
    canvas.title_panel(axes, "Play", x_label="", y_label="score of a whole game (points)")
    labels = [canvas.EndLabel(each["mean"], _score_text(each), _ROLE_COLOURS[each["role"]]) for each in policies]
    # Clear of the caps of the last interval, which stands near the edge.
    canvas.label_ends(axes, labels, offset=0.05)


def _narrow(name: str) -> str:
    """Return a name in at most three lines that fit beside the next one's."""
    lines = textwrap.wrap(name, 13)
    return "\n".join(lines if len(lines) <= 3 else [*lines[:2], f"{lines[2][:12]}…"])


def _draw_interval(axes: "Axes", policy: Mapping[str, Any], x: float) -> None:
    """Draw a mean and its interval, if it has one."""
    low, high = policy["interval"] or (policy["mean"], policy["mean"])
    below_and_above = [[policy["mean"] - low], [high - policy["mean"]]]
    colour = _ROLE_COLOURS[policy["role"]]
    style: dict[str, Any] = {"markersize": 7, "markeredgecolor": "white", "markeredgewidth": 1.0, "capsize": 5}
    style |= {"color": colour, "linewidth": 2.2, "zorder": 6}
    axes.errorbar([x], [policy["mean"]], yerr=below_and_above, fmt="o", **style)


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


def _distillation_footnote(records: Sequence[Mapping[str, Any]], evaluation: Mapping[str, Any]) -> str:
    text = "Held-out steps: whole episodes that are never trained on; training loss: mean since the last point"
    if len({record["temperature"] for record in records if "temperature" in record}) > 1:
        text += "; both at the temperature of the moment: they may rise while it falls"
    return f"{text}.\n{_evaluation_note(evaluation)}."


def _evaluation_note(evaluation: Mapping[str, Any]) -> str:
    """Say how many episodes, on which seed, with how much chance, and what the bars are."""
    policies: list[Mapping[str, Any]] = list(evaluation["policies"])
    players = [policy for policy in policies if policy["role"] != "random"]
    counts = sorted({len(policy["episodes"]) for policy in policies})
    episodes = f"{counts[0]} episodes" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} episodes"
    note = f"Evaluation: {episodes} each, seed {evaluation['seed']}"
    if players:
        note += f", ε {players[0]['exploration_epsilon']:g}"
    if any(policy["interval"] is not None for policy in policies):
        note += ", means with 95 % intervals (bootstrap)"
    if any(policy.get("census") for policy in policies):
        note += ", every distinct start once where no interval is given"
    return note


def _spaced(name: str) -> str:
    return name.replace("_", " ").replace("kl", "KL").replace("nll", "negative log-likelihood")


def _arrow(schedule: str) -> str:
    return schedule.replace("->", " → ").replace(":", " ", 1).replace("_", " ")


def _column(records: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    return np.array([record[key] for record in records], np.float64)
