"""What an experiment found: every arm over all games and in each, beside the paper's figure.

The bootstrap resamples episodes within each game and seed, those of student, teacher and random play together, and
averages the seeds. An interval thus speaks of other episodes of these students, and that of a difference of two arms,
which play the same episodes, of whether these episodes can tell them apart. How much students of other seeds differ is
for the points to say, one for each seed. A share that is undefined in one game leaves none over all games. A network
that learned the games by playing them is compared with teachers of as many steps, or not at all: starved, it proves
nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rldistill import statistics
from rldistill.paper.experiment import Arm
from rldistill.paper.plan import EVALUATION_SEED, Plan, evaluation_name, student_name
from rldistill.seeding import stream_generator
from rldistill.statistics import ROLES, FloatArray, Stratum, is_weak, mean_retention_samples

Evaluations = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""By game and seed of the students: what `evaluate_game` returned."""
Samples = Callable[..., FloatArray | None]


def gather(plan: Plan, stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the results of a plan as plain JSON data, from what its jobs returned, by stage and job."""
    played = stages["evaluations"]
    evaluations = {
        game: {seed: played[evaluation_name(game, seed)] for seed in plan.seeds} for game in plan.budget.games
    }
    strata = {
        arm.name: [_stratum(evaluations[game], arm.name, plan.seeds) for game in plan.budget.games]
        for arm in plan.experiment.arms
    }
    arms = [
        _arm_results(plan, arm, evaluations, strata[arm.name], _starved(plan, arm, stages))
        for arm in plan.experiment.arms
    ]
    teachers = _teachers(plan, stages)
    any_row = next(iter(played.values()))["teacher"]
    return {
        "schema_version": 1,
        "experiment": plan.experiment.name,
        "title": plan.experiment.title,
        "section": plan.experiment.section,
        "budget": plan.budget_name,
        "settings": plan.budget.to_dict(),
        "games": list(plan.budget.games),
        "seeds": list(plan.seeds),
        "evaluation_seeds": [EVALUATION_SEED + seed for seed in plan.seeds],
        "num_episodes": len(any_row["episodes"]),
        "exploration_epsilon": any_row["exploration_epsilon"],
        "paper": {"games": list(plan.experiment.paper_games), "measure": "geometric_mean", "order": _paper_order(plan)},
        "teachers": {
            game: _with_skill({**teachers[game], **_score(evaluations[game], "teacher")}, game)
            for game in plan.budget.games
        },
        "random": {game: _score(evaluations[game], "random") for game in plan.budget.games},
        "arms": arms,
        "learned_nothing": _learned_nothing(plan, stages),
        "left_out": [{"name": arm.name, "method": arm.method, "paper": arm.paper} for arm in plan.left_out],
        **_steadiness(plan, stages),
        **_ranking(plan, arms, strata),
    }


def _teachers(plan: Plan, stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return what is known of every game's teacher: of a learner, its best policy of the first seed."""
    if plan.experiment.kind != "online":
        return {result["game"]: result for result in stages["teachers"].values()}
    first, seed = plan.experiment.arms[0], plan.seeds[0]
    made = {game: stages["students"][student_name(first, [game], seed)] for game in plan.budget.games}
    return {game: {"origin": "online", "policy_hash": result["best_hash"]} for game, result in made.items()}


def _with_skill(teacher: Mapping[str, Any], game: str) -> dict[str, Any]:
    """Return what is known of a game's teacher and its play, with whether it is weak."""
    recorded = teacher.get("weak")
    known = {key: value for key, value in teacher.items() if key != "game"}
    return known | {"weak": is_weak(teacher["mean"], game) if recorded is None else recorded}


def _learned_nothing(plan: Plan, stages: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the students that came out no better than a constant action: their scores say little of their arm."""
    made = stages.get("students", {})
    # A record of an older version does not say it.
    return [
        {"arm": arm.name, "game": game, "seed": seed}
        for arm in plan.experiment.arms
        for games in plan.game_sets
        for seed in plan.seeds
        for game in made.get(student_name(arm, games, seed), {}).get("learned_nothing", [])
    ]


def _steadiness(plan: Plan, stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return, of online arms and their learner, how much the curves change between evaluations, game by game."""
    if plan.experiment.kind != "online":
        return {}
    first = plan.experiment.arms[0]

    def change(arm: Arm, game: str) -> list[float | None]:
        own, key = (first, "learner_change") if arm.method == "learner" else (arm, "student_change")
        return [stages["students"][student_name(own, [game], seed)][key] for seed in plan.seeds]

    return {
        "mean_change_between_evaluations": {
            arm.name: {game: change(arm, game) for game in plan.budget.games} for arm in plan.experiment.arms
        }
    }


def _starved(plan: Plan, arm: Arm, stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return how many steps of each game a joint arm had, if teachers had more or nobody knows; else None."""
    if arm.method != "joint":
        return None
    made = stages["students"][student_name(arm, plan.budget.games, plan.seeds[0])]
    # A record of an older version does not say it.
    num_steps = made.get("num_steps_of_each_game", 0)
    teachers = {game: teacher.get("num_steps") for game, teacher in _teachers(plan, stages).items()}
    # A learner ends with a whole rollout, some steps beyond its schedule.
    enough = all(steps is not None and num_steps >= 0.99 * steps for steps in teachers.values())
    return None if enough else {"num_steps": num_steps, "teachers": teachers}


def _arm_results(
    plan: Plan, arm: Arm, evaluations: Evaluations, strata: Sequence[Stratum], starved: Mapping[str, Any] | None
) -> dict[str, Any]:
    by_seed = {
        seed: [_stratum(evaluations[game], arm.name, [seed]) for game in plan.budget.games] for seed in plan.seeds
    }
    row = evaluations[plan.budget.games[0]][plan.seeds[0]]["arms"][arm.name]
    games: dict[str, Any] = {}
    for game, stratum in zip(plan.budget.games, strata, strict=True):
        rows = [evaluations[game][seed]["arms"][arm.name] for seed in plan.seeds]
        agreements = [row["agreement"] for row in rows if row["agreement"] is not None]
        student, teacher = stratum.student, stratum.teacher
        games[game] = _score(evaluations[game], arm.name) | {
            "relative_score": None if starved else statistics.relative_score(student, teacher),
            "retention": None if starved else statistics.retention(student, teacher, stratum.random),
            "retention_interval": None if starved else _interval(plan, [stratum], mean_retention_samples),
            "agreement": statistics.point_estimate(agreements),
        }
    return {
        "name": arm.name,
        "method": arm.method,
        "settings": plan.budget.settings_of(arm),
        "num_parameters": row["num_parameters"],
        "paper": arm.paper,
        "starved": starved,
        **{name: _over_games(plan, strata, by_seed, name, is_starved=bool(starved)) for name in _MEASURES},
        "games": games,
    }


def _over_games(
    plan: Plan, strata: Sequence[Stratum], by_seed: Mapping[int, Sequence[Stratum]], measure: str, *, is_starved: bool
) -> dict[str, Any]:
    """Return one measure over all games: its value, its interval, and the value of every seed alone."""
    value, samples = _MEASURES[measure]
    point = None if is_starved else value(strata)
    return {
        "value": point,
        "interval": None if point is None else _interval(plan, strata, samples),
        "by_seed": [{"seed": seed, "value": None if is_starved else value(alone)} for seed, alone in by_seed.items()],
        "num_episodes": sum(np.size(stratum.student) for stratum in strata),
    }


def _samples(plan: Plan, strata: Sequence[Stratum], samples: Samples) -> FloatArray | None:
    # One stream for all arms: the same episodes are drawn of each, so that two arms can be compared sample by sample.
    return samples(strata, rng=stream_generator(plan.seeds[0], "bootstrap reproduction"))


def _interval(plan: Plan, strata: Sequence[Stratum], samples: Samples) -> list[float] | None:
    interval = statistics.sample_interval(_samples(plan, strata, samples))
    return None if interval is None else interval.to_list()


def _difference_interval(better: FloatArray | None, worse: FloatArray | None) -> list[float] | None:
    """Return the interval of the difference of two arms' samples, which are undefined where one of them is."""
    if better is None or worse is None:
        return None
    defined = np.isfinite(better) & np.isfinite(worse)
    interval = statistics.sample_interval(np.subtract(better, worse, out=np.full(len(better), -np.inf), where=defined))
    return None if interval is None else interval.to_list()


def _geometric_mean(strata: Sequence[Stratum]) -> float | None:
    ratios = [statistics.relative_score(stratum.student, stratum.teacher) for stratum in strata]
    defined = [ratio for ratio in ratios if ratio is not None]
    return statistics.geometric_mean(defined) if len(defined) == len(ratios) else None


def _mean_retention(strata: Sequence[Stratum]) -> float | None:
    shares = [statistics.retention(stratum.student, stratum.teacher, stratum.random) for stratum in strata]
    defined = [share for share in shares if share is not None]
    return statistics.point_estimate(defined, statistics.mean) if len(defined) == len(shares) else None


_MEASURES: Mapping[str, tuple[Callable[[Sequence[Stratum]], float | None], Samples]] = {
    "geometric_mean": (_geometric_mean, statistics.geometric_mean_samples),
    "mean_retention": (_mean_retention, mean_retention_samples),
}


def _stratum(game: Mapping[int, Mapping[str, Any]], arm: str, seeds: Sequence[int]) -> Stratum:
    student, teacher, random = (_returns(game, role, seeds) for role in (arm, "teacher", "random"))
    return Stratum(student, teacher, random, together=ROLES, num_blocks=len(seeds))


def _score(game: Mapping[int, Mapping[str, Any]], role: str) -> dict[str, Any]:
    """Return the mean score of a role, or of an arm, in a game, and of each seed."""
    pooled = _returns(game, role, list(game))
    return {
        "mean": statistics.point_estimate(pooled),
        "num_episodes": len(pooled),
        "by_seed": [{"seed": seed, "mean": statistics.point_estimate(_returns(game, role, [seed]))} for seed in game],
    }


def _returns(game: Mapping[int, Mapping[str, Any]], role: str, seeds: Sequence[int]) -> list[float]:
    rows = [game[seed][role] if role in ("teacher", "random") else game[seed]["arms"][role] for seed in seeds]
    return [episode["return"] for row in rows for episode in row["episodes"]]


def _paper_order(plan: Plan) -> list[str]:
    """Return the arms as the paper ranks them, best first: as it says, or by its figures."""
    ranked = sorted((arm for arm in plan.experiment.arms if arm.paper is not None), key=lambda arm: -(arm.paper or 0))
    return list(plan.experiment.paper_order) or [arm.name for arm in ranked]


def _ranking(plan: Plan, arms: Sequence[Mapping[str, Any]], strata: Mapping[str, Sequence[Stratum]]) -> dict[str, Any]:
    """Return by which measure the arms are ranked here, their order, and what contradicts the paper's.

    By the paper's measure where every arm has one, else by the mean retention, else not at all. A starved arm has no
    place.
    """
    arms = [arm for arm in arms if arm["starved"] is None]
    for measure in _MEASURES:
        values = {arm["name"]: arm[measure]["value"] for arm in arms}
        if all(value is not None for value in values.values()):
            break
    else:
        nothing: dict[str, list[Any]] = {"differences": [], "differences_from_first": [], "contradictions": []}
        return {"measure": None, "order": [], **nothing, "unsure": True}
    samples = {name: _samples(plan, strata[name], _MEASURES[measure][1]) for name in values}

    def difference(one: str, other: str) -> dict[str, Any]:
        interval = _difference_interval(samples[one], samples[other])
        # Without an interval nothing tells the two apart.
        unsure = interval is None or interval[0] <= 0 <= interval[1]
        return {"value": values[one] - values[other], "interval": interval, "unsure": unsure}

    order = [name for name in _paper_order(plan) if name in values]
    differences: list[dict[str, Any]] = [
        {"paper_better": better, "paper_worse": worse, **difference(better, worse)}
        for place, better in enumerate(order)
        for worse in order[place + 1 :]
    ]
    first, *others = values or [""]  # none where all are starved
    from_first = [] if len(order) > 1 else [{"arm": name, "first": first, **difference(name, first)} for name in others]
    return {
        "measure": measure,
        "order": sorted(values, key=lambda name: -values[name]),
        "differences": differences,
        "differences_from_first": from_first,  # where the paper ranks nothing
        "contradictions": [
            {"paper_better": pair["paper_better"], "here_better": pair["paper_worse"], "unsure": pair["unsure"]}
            for pair in differences
            if pair["value"] < 0
        ],
        "unsure": any(pair["unsure"] for pair in differences),
    }
