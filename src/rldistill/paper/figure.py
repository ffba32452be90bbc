"""The results of an experiment as a picture: every arm over all games, and in each.

A large dot with its interval is what an arm reached with all seeds; small dots are its seeds alone. Open
diamonds are the paper's figures, drawn only where ours are of the same measure.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rldistill.paper.page import same_games
from rldistill.reports import canvas
from rldistill.reports.colours import POLICY_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABELS = {"geometric_mean": "geometric mean of student ÷ teacher (%)", "mean_retention": "mean retention (%)"}
_COLOURS = POLICY_COLOURS[1:]


def experiment_figure(results: Mapping[str, Any], out: Path) -> Path:
    """Draw the results. Raises RldistillError: matplotlib is not installed."""
    arms, games = results["arms"], results["games"]
    num_rows = max(2 + len(arms), len(games) * (len(arms) + 1) * 0.55)
    margins = canvas.Margins(left=0.95, right=0.35, top=1.2, bottom=1.15, between=1.6)
    figure = canvas.new_figure(10.0, margins.top + margins.bottom + max(2.2, 0.32 * num_rows))
    over_all, by_game = canvas.add_panels(figure, 2, margins)
    measure = results["measure"] or "mean_retention"
    _draw_over_games(over_all, arms, measure)
    _draw_by_game(by_game, arms, games)
    count = canvas.pretty_game(games[0]) if len(games) == 1 else f"all {len(games)} games"
    canvas.title_panel(over_all, f"Over {count}", x_label=_LABELS[measure], y_label="")
    canvas.title_panel(by_game, "In each game", x_label="retention (%)", y_label="")
    seeds = "one seed" if len(results["seeds"]) == 1 else f"{len(results['seeds'])} seeds"
    canvas.headline(
        figure,
        results["title"],
        f"{results['section']} · budget {results['budget']} · {seeds} · "
        f"{results['num_episodes']} episodes of each student and game",
        _footnote(results, measure),
    )
    return canvas.save_png(figure, out)


def _draw_over_games(axes: "Axes", arms: Sequence[Mapping[str, Any]], measure: str) -> None:
    for place, arm in enumerate(arms):
        _draw_arm(axes, place, _COLOURS[place % len(_COLOURS)], arm[measure])
        if measure == "geometric_mean" and arm["paper"] is not None:
            style: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": canvas.INK, "markersize": 7}
            axes.plot([100 * arm["paper"]], [place - 0.28], "D", zorder=7, **style)
    _name_rows(axes, [arm["name"] for arm in arms])


def _draw_by_game(axes: "Axes", arms: Sequence[Mapping[str, Any]], games: Sequence[str]) -> None:
    step = 0.8 / len(arms)
    for row, game in enumerate(games):
        for place, arm in enumerate(arms):
            found = arm["games"][game]
            height = row + step * (place - (len(arms) - 1) / 2)
            point = {"value": found["retention"], "interval": found["retention_interval"], "by_seed": []}
            _draw_arm(axes, height, _COLOURS[place % len(_COLOURS)], point)
            if found["retention"] is None:
                text, left = f"{arm['name']}: undefined", axes.get_yaxis_transform()
                axes.text(0.02, height, text, transform=left, fontsize=7.5, color=canvas.SOFT_INK, va="center")
    _name_rows(axes, [canvas.pretty_game(game) for game in games])


def _draw_arm(axes: "Axes", height: float, colour: str, found: Mapping[str, Any]) -> None:
    if found["value"] is None:
        return
    low, high = found["interval"] or (found["value"], found["value"])
    axes.plot([100 * low, 100 * high], [height, height], color=colour, linewidth=2.2, solid_capstyle="butt")
    axes.plot([100 * found["value"]], [height], "o", color=colour, markersize=8, markeredgecolor="white", zorder=6)
    seeds = [100 * point["value"] for point in found["by_seed"] if point["value"] is not None]
    axes.scatter(seeds, [height + 0.28] * len(seeds), s=18, color=colour, alpha=0.55, linewidths=0, zorder=5)


def _name_rows(axes: "Axes", names: Sequence[str]) -> None:
    """Name the rows of a panel from above, and draw the teacher across them."""
    axes.axvline(100, color=canvas.SOFT_INK, linewidth=1.0, linestyle=(0, (5, 3)))
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", labelsize=10, length=0)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.08)


def _footnote(results: Mapping[str, Any], measure: str) -> str:
    lines = [
        "Large dots: all seeds, with 95 % intervals (stratified bootstrap over episodes); small dots below: each seed. "
        "Dashed: the teacher."
    ]
    if any(arm["paper"] is not None for arm in results["arms"]):
        others = f"{len(results['paper']['games'])} games, not all of them ours"
        lines.append(
            f"Diamonds: the paper's figures, over {'the same games' if same_games(results) else others}."
            if measure == "geometric_mean"
            else "The paper's figures are geometric means of student ÷ teacher, not defined for all arms here."
        )
    return "\n".join(lines)
