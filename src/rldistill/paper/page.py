"""The results of an experiment for people: a page of Markdown, our figures beside the paper's, and a picture.

In the picture a large dot with its interval is what an arm reached with all seeds; small dots are its seeds alone. Open
diamonds are the paper's figures, drawn only where ours are of the same measure.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rldistill.reports import canvas
from rldistill.reports.canvas import POLICY_COLOURS, pretty_game
from rldistill.statistics import normalised_score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_UNDEFINED = "–"
_MEASURES = {"geometric_mean": "geometric mean of student ÷ teacher", "mean_retention": "mean retention"}
Results = Mapping[str, Any]


def experiment_page(results: Results) -> str:
    """Return the page."""
    is_smoke = results["budget"] == "smoke"
    remark = ": small enough to run in a test; it shows that everything works, and nothing else" if is_smoke else ""
    parts = [
        f"# {results['title']}",
        f"{results['section']}. Budget `{results['budget']}`{remark}.",
        _over_games(results),
        ranking_sentences(results),
        _learned_nothing(results),
        "## By game",
        _by_game(results),
        _steadiness(results),
        "## Teachers",
        _teachers(results),
        "## How",
        _conditions(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def ranking_sentences(results: Results) -> str:
    """Return in words how the order of the arms compares with the paper's."""
    starved = [arm["name"] for arm in results["arms"] if arm["starved"]]
    paper = [name for name in results["paper"]["order"] if name not in starved]
    if len(paper) < 2:
        return _differences_from_first(results)
    if results["measure"] is None:
        return "The arms cannot be ranked here: neither measure is defined for all of them."
    ours = f"ours, by {_MEASURES[results['measure']]}, is {' > '.join(results['order'])}"
    ranked = f"The paper's order is {' > '.join(paper)}; {ours}."
    pairs = [
        f"{pair['paper_better']} − {pair['paper_worse']} {share(pair['value'], pair['interval']).replace(' %', '')}"
        for pair in results["differences"]
    ]
    apart = f" Differences in points [95 %], on the same episodes: {'; '.join(pairs)}." if pairs else ""
    if not results["contradictions"]:
        unsure = [
            f"{pair['paper_better']} from {pair['paper_worse']}" for pair in results["differences"] if pair["unsure"]
        ]
        but = f", but these episodes cannot tell {' or '.join(unsure)}" if unsure else ""
        return f"{ranked} The two agree{but}.{apart}"
    clauses = [
        f"{pair['here_better']} does better here than {pair['paper_better']}"
        + (" (these episodes cannot tell)" if pair["unsure"] else "")
        for pair in results["contradictions"]
    ]
    return f"{ranked} **This contradicts the paper**: {'; '.join(clauses)}.{apart}"


def _differences_from_first(results: Results) -> str:
    """Return by how much each arm differs from the first, where the paper ranks nothing."""
    # Results of an older version do not say it.
    if not (found := results.get("differences_from_first")):
        return ""
    arms = [
        f"{each['arm']} {share(each['value'], each['interval']).replace(' %', '')}"
        + (" (these episodes cannot tell)" if each["unsure"] else "")
        for each in found
    ]
    return (
        f"Differences from {found[0]['first']} in points of the {_MEASURES[results['measure']]} [95 %], on the same "
        f"episodes: {'; '.join(arms)}."
    )


def share(value: float | None, interval: Sequence[float] | None = None) -> str:
    """Write a share as a percentage, with its interval if it has one."""
    if value is None:
        return _UNDEFINED
    return f"{100 * value:.1f} %" + ("" if interval is None else f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]")


def student_of(arm: Mapping[str, Any]) -> str:
    """Return which network an arm is."""
    if arm["method"] == "learner":
        return "the learner at its last step"
    return str(arm["settings"].get("network" if arm["method"] == "joint" else "student", "of the default size"))


def _loss_of(arm: Mapping[str, Any]) -> str:
    """Return by which loss an arm learns from a teacher; a learner plays, and has none of these."""
    return str(arm["settings"].get("loss", "the recipe's" if arm["method"] in ("distill", "online") else "none"))


def _further_settings(arms: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return by name of an arm in what it differs from others, besides its network and its loss; {} if no arm does."""
    shown_elsewhere = {"student", "loss", "temperature"}  # that goes with the loss
    distilled = {arm["name"]: arm["settings"] for arm in arms if arm["method"] in ("distill", "online")}
    keys = sorted({key for settings in distilled.values() for key in settings} - shown_elsewhere)
    differing = [key for key in keys if len({str(settings.get(key)) for settings in distilled.values()}) > 1]
    if not differing:
        return {}
    return {
        name: ", ".join(f"{key} {settings[key]}" for key in differing if key in settings)
        for name, settings in distilled.items()
    }


def _same_games(results: Results) -> bool:
    """Return whether our games are the paper's."""
    return sorted(results["games"]) == sorted(results["paper"]["games"])


def _over_games(results: Results) -> str:
    arms, further = results["arms"], _further_settings(results["arms"])
    about = {"student": [student_of(arm) for arm in arms], "loss": [_loss_of(arm) for arm in arms]}
    if further:
        about["settings of its own"] = [further.get(arm["name"]) or _UNDEFINED for arm in arms]
    about["parameters"] = [f"{arm['num_parameters']:,}" for arm in arms]
    # What all arms have in common is said once, below the table.
    common = {name: cells[0] for name, cells in about.items() if len(arms) > 1 and len(set(cells)) == 1}
    columns = {name: cells for name, cells in about.items() if name not in common}
    papers = [share(arm["paper"]) for arm in (*arms, *results["left_out"])]
    has_figures = any(paper != _UNDEFINED for paper in papers)
    header = ["arm", *columns, "geometric mean of student ÷ teacher [95 %]", "by seed"]
    header += ["mean retention [95 %]", "by seed", *(["the paper's geometric mean"] if has_figures else [])]
    rows = [[arm["name"], *cells, *_over_all(arm)] for arm, *cells in zip(arms, *columns.values(), strict=True)]
    rows += [[arm["name"], *[_UNDEFINED] * (len(columns) + 4)] for arm in results["left_out"]]
    if has_figures:
        rows = [[*row, paper] for row, paper in zip(rows, papers, strict=True)]
    who = "All arms that ran" if results["left_out"] else "All arms"
    notes = [f"{who}: {', '.join(f'{name} {cell}' for name, cell in common.items())}."] if common else []
    note = f"Ours: {', '.join(_game(results, game) for game in results['games'])}."
    if results["paper"]["games"] and not _same_games(results):
        note += f" The paper: {', '.join(map(pretty_game, results['paper']['games']))}. Means over other games differ."
    return "\n\n".join([_table(header, rows), *notes, note, *_not_compared(results)])


def _over_all(arm: Mapping[str, Any]) -> list[str]:
    """Return both measures of an arm over all games, each with its interval and by seed."""
    cells: list[str] = []
    for measure in _MEASURES:
        found = arm[measure]
        cells += [share(found["value"], found["interval"]), _by_seed(found)]
    return cells


def _not_compared(results: Results) -> list[str]:
    """Return why a network that learned the games by playing them has empty cells."""
    reasons = [
        f"{arm['name']} had {arm['starved']['num_steps']:,} steps of each game, its teachers "
        + ", ".join(
            f"{'an unknown number' if steps is None else format(steps, ',')} of {pretty_game(game)}"
            for game, steps in arm["starved"]["teachers"].items()
        )
        + ": it is compared with teachers of as many steps, or not at all."
        for arm in results["arms"]
        if arm["starved"]
    ]
    return reasons + [
        f"{arm['name']} was left out: a fair comparison takes as many steps as the teachers learned from, which this "
        "budget does not have."
        for arm in results["left_out"]
    ]


def _by_game(results: Results) -> str:
    header = ["game", "arm", "score", "by seed", "teacher", "random play", "÷ teacher", "retention [95 %]", "agreement"]
    rows: list[list[str]] = []
    for game in results["games"]:
        others = [_number(results[role][game]["mean"]) for role in ("teachers", "random")]
        for arm in results["arms"]:
            found = arm["games"][game]
            by_seed = ", ".join(_number(point["mean"]) for point in found["by_seed"])
            shares = [share(found["relative_score"]), share(found["retention"], found["retention_interval"])]
            row = [_game(results, game), arm["name"], _number(found["mean"]), by_seed, *others, *shares]
            rows.append([*row, share(found["agreement"])])
    return _table(header, rows)


def _learned_nothing(results: Results) -> str:
    """Return which students count although they are no better than a constant action."""
    if not (found := results["learned_nothing"]):
        return ""
    students = [f"{student['arm']} of {pretty_game(student['game'])}, seed {student['seed']}" for student in found]
    return (
        f"**Learned nothing**: {'; '.join(students)}. On held-out steps they agree with the teacher no more than its "
        "commonest action alone would. Their episodes count all the same; other seeds, a lower learning rate or more "
        "updates may tell more."
    )


def _steadiness(results: Results) -> str:
    """Return how much the curves move: the paper's claim is that a student's moves far less than its learner's."""
    if "mean_change_between_evaluations" not in results:
        return ""
    rows = [
        [pretty_game(game), arm, ", ".join("–" if value is None else f"{value:.2f}" for value in changes[game])]
        for arm, changes in results["mean_change_between_evaluations"].items()
        for game in results["games"]
    ]
    header = ["game", "arm", "mean absolute change of the score between evaluations, second half of the run, by seed"]
    return f"## Steadiness\n\n{_table(header, rows)}"


def _teachers(results: Results) -> str:
    origins = {"file": "a file that was named", "zoo": "the zoo", "trained": "trained here"}
    origins |= {"online": "each seed's learner, its best policy; the hash is the first one's"}
    rows = [
        [
            _game(results, game),
            origins[teacher["origin"]],
            _number(teacher["mean"]),
            share(normalised_score(teacher["mean"], game, of="nature_dqn")),
            f"`{teacher['policy_hash'][:16]}`",
        ]
        for game, teacher in results["teachers"].items()
    ]
    table = _table(["game", "from", "mean score", "of Nature DQN's, above random play", "hash"], rows)
    if not any(teacher["weak"] for teacher in results["teachers"].values()):
        return table
    return (
        f"{table}\n\nWeak teachers have less than half of it, those of the zoo in their own 100 episodes: what "
        "a student keeps of them is hardly a skill."
    )


def _game(results: Results, game: str) -> str:
    """Return a game's name, and whether its teacher is weak."""
    return pretty_game(game) + (" (weak teacher)" if results["teachers"][game]["weak"] else "")


def _conditions(results: Results) -> str:
    seeds = results["seeds"]
    num_seeds = "one seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
    unknown = f"by a version that did not record what each job ran on; the last call: {_maker(results['provenance'])}"
    makers = [(each["num_jobs"], _maker(each["made"]) if each["made"] else unknown) for each in results["jobs_made"]]
    made = makers[0][1] if len(makers) == 1 else "; ".join(f"jobs, {count}: {maker}" for count, maker in makers)
    settings = [(key, value) for key, value in results["settings"].items() if key not in ("games", "num_seeds")]
    lines = [
        f"{num_seeds} of each arm ({', '.join(map(str, seeds))}){_shared(results)}; "
        f"{results['num_episodes']} episodes of each student and game, ε {results['exploration_epsilon']:g}, up to "
        f"{max(results['settings'].get('env', {}).get('noop_max', 30), 1) - 1} no-ops, "
        "where the paper has human starts. No teacher, dataset or student has seen these episodes.",
        "An interval (95 %, stratified bootstrap) speaks of other episodes of these students; how much other seeds "
        "differ is for the values by seed to say. "
        f"{_UNDEFINED}: undefined, such as a share of a score of 0 or less.",
        f"Settings: `{'; '.join(f'{key}: {_setting(value)}' for key, value in settings)}`.",
        f"`{results['provenance']['command']}`; {made}; {results['seconds'] / 3600:.2f} hours, over all jobs, in the "
        "calls that finished them: what calls that were stopped had done before is not in it.",
    ]
    return "\n".join(f"- {line[0].upper()}{line[1:]}" for line in lines)


def _maker(made: Mapping[str, Any]) -> str:
    """Return what made some of the jobs: versions, commit and machine."""
    machine, full = made["machine"], made["commit"]
    commit = "" if full is None else f", commit `{full[:12]}{'+changes' if full.endswith('+changes') else ''}`"
    return (
        f"rldistill {made['versions']['rldistill']}, torch {made['versions']['torch']}{commit}, "
        f"{machine['processor']}, {machine['num_processors']} processors, {machine['device']}"
    )


def _shared(results: Results) -> str:
    """Return what the students of all seeds have in common."""
    if "mean_change_between_evaluations" in results:
        return ", each with a learner of its own"
    distilled = [arm["name"] for arm in results["arms"] if arm["method"] == "distill"]
    if not distilled:
        return ""
    who = "which" if len(distilled) == len(results["arms"]) else f"of which {' and '.join(distilled)}"
    what = "one dataset per game and one teacher" if "collect" in results["settings"] else "one teacher per game"
    return f", {who} share {what}"


def _setting(value: Mapping[str, Any] | str) -> str:
    """Return a section of a budget, or what it says in a word, as text."""
    if isinstance(value, str):
        return value
    return ", ".join(
        f"{name} ({_setting(item)})" if isinstance(item, Mapping) else f"{name} {item}" for name, item in value.items()
    )


def _by_seed(measure: Mapping[str, Any]) -> str:
    values = [point["value"] for point in measure["by_seed"]]
    return ", ".join(_number(None if value is None else 100 * value) for value in values)


def _number(value: float | None) -> str:
    return _UNDEFINED if value is None else f"{value:.1f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


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
        _draw_arm(axes, place, _COLOURS[place % len(_COLOURS)], arm[measure], _missing(arm))
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
            _draw_arm(axes, height, _COLOURS[place % len(_COLOURS)], point, f"{arm['name']}: {_missing(arm)}")
    _name_rows(axes, [canvas.pretty_game(game) for game in games])


def _missing(arm: Mapping[str, Any]) -> str:
    """Return why an arm has no share."""
    return "not compared" if arm["starved"] else "undefined"


def _draw_arm(axes: "Axes", height: float, colour: str, found: Mapping[str, Any], missing: str) -> None:
    """Draw a share with its interval and those of its seeds, or write why it is missing."""
    if found["value"] is None:
        left = axes.get_yaxis_transform()
        axes.text(0.02, height, missing, transform=left, fontsize=7.5, color=canvas.SOFT_INK, va="center")
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
            f"Diamonds: the paper's figures, over {'the same games' if _same_games(results) else others}."
            if measure == "geometric_mean"
            else "The paper's figures are geometric means of student ÷ teacher, not defined for all arms here."
        )
    return "\n".join(lines)
