"""From episodes to figures: averaged over seeds, by game, over all games, against the paper's order."""

import json

import pytest

from rldistill.options.reproduce import ReproduceOptions
from rldistill.paper.plan import make_plan
from rldistill.paper.results import gather
from tests.paper.small_experiment import write_experiment


@pytest.fixture
def plan(tmp_path):
    return make_plan(ReproduceOptions(experiment=str(write_experiment(tmp_path)), budget="tiny", out=tmp_path / "out"))


def row(*scores: float) -> dict:
    episodes = [{"return": score} for score in scores]
    return {"episodes": episodes, "num_parameters": 7, "agreement": 0.5, "exploration_epsilon": 0.05}


def gathered(plan, played) -> dict:
    teachers = {
        f"teacher of {game}": {"game": game, "origin": "zoo", "policy_hash": "0" * 64} for game in plan.budget.games
    }
    return gather(plan, {"teachers": teachers, "evaluations": played})


def evaluations(**scores_of_arms) -> dict:
    """Return evaluations in which teachers score 10 and random play 0, five episodes each."""
    return {
        f"evaluation of {game}, seed {seed}": {
            "arms": {arm: row(*[scores[game][seed]] * 5) for arm, scores in scores_of_arms.items()},
            "teacher": row(*[10.0] * 5),
            "random": row(*[0.0] * 5),
        }
        for game in ("pong", "breakout")
        for seed in (0, 1)
    }


def test_the_record_of_a_teachers_file_says_whether_it_is_weak_before_these_episodes_do(plan):
    scores = {"pong": [8.0, 12.0], "breakout": [2.5, 2.5]}
    played = evaluations(kl=scores, nll=scores)
    records = {"pong": {"weak": False}, "breakout": {"weak": None}}
    teachers = {game: {"game": game, "origin": "zoo", "policy_hash": "0" * 64, **records[game]} for game in records}
    found = gather(plan, {"teachers": teachers, "evaluations": played})["teachers"]
    # 10 points are more than half of Nature DQN's skill in Pong, and less in Breakout.
    assert {game: teacher["weak"] for game, teacher in found.items()} == {"pong": False, "breakout": True}
    records["pong"]["weak"] = True
    teachers["pong"] |= records["pong"]
    assert gather(plan, {"teachers": teachers, "evaluations": played})["teachers"]["pong"]["weak"]


def test_a_hand_worked_experiment(plan):
    found = gathered(
        plan,
        evaluations(
            kl={"pong": [8.0, 12.0], "breakout": [2.5, 2.5]},
            nll={"pong": [4.0, 4.0], "breakout": [2.0, 3.0]},
        ),
    )
    kl, nll = found["arms"]
    # Pong: (8 + 12) / 2 ÷ 10 = 1; Breakout: 0.25; √(1 × 0.25) = 0.5 and (1 + 0.25) / 2.
    assert kl["geometric_mean"]["value"] == pytest.approx(0.5)
    assert kl["mean_retention"]["value"] == pytest.approx(0.625)
    by_seed = [point["value"] for point in kl["mean_retention"]["by_seed"]]
    assert by_seed == pytest.approx([(0.8 + 0.25) / 2, (1.2 + 0.25) / 2])
    # Every student is sure of its score; that those of two seeds differ is no matter of episodes.
    assert kl["mean_retention"]["interval"] == pytest.approx([0.625, 0.625])
    assert kl["games"]["pong"]["mean"] == 10.0
    assert kl["games"]["pong"]["num_episodes"] == 10
    assert kl["games"]["breakout"]["retention"] == pytest.approx(0.25)
    assert (kl["paper"], kl["num_parameters"], kl["games"]["pong"]["agreement"]) == (0.9, 7, 0.5)
    assert nll["geometric_mean"]["value"] == pytest.approx((0.4 * 0.25) ** 0.5)
    assert (found["measure"], found["order"]) == ("geometric_mean", ["kl", "nll"])
    assert (found["contradictions"], found["unsure"]) == ([], False)
    assert (found["num_episodes"], found["seeds"], found["evaluation_seeds"]) == (5, [0, 1], [1000, 1001])
    json.dumps(found, allow_nan=False)


def test_students_that_learned_nothing_are_named_with_arm_game_and_seed(plan):
    scores = {"pong": [4.0, 6.0], "breakout": [4.0, 6.0]}
    stages = {
        "teachers": {f"teacher of {game}": {"game": game, "origin": "zoo"} for game in plan.budget.games},
        "students": {
            "kl of pong, seed 0": {"learned_nothing": []},
            "nll of breakout, seed 1": {"learned_nothing": ["breakout"]},
        },
        "evaluations": evaluations(kl=scores, nll=scores),
    }
    assert gather(plan, stages)["learned_nothing"] == [{"arm": "nll", "game": "breakout", "seed": 1}]


def test_what_is_undefined_in_one_game_is_undefined_over_all(plan):
    found = gathered(
        plan,
        evaluations(
            kl={"pong": [-8.0, -8.0], "breakout": [5.0, 5.0]}, nll={"pong": [4.0, 4.0], "breakout": [6.0, 6.0]}
        ),
    )
    kl, nll = found["arms"]
    assert (kl["geometric_mean"]["value"], kl["geometric_mean"]["interval"]) == (None, None)
    assert nll["geometric_mean"]["value"] is not None
    # Arms are ranked by a measure that all of them have.
    assert found["measure"] == "mean_retention"
    assert found["contradictions"] == [{"paper_better": "kl", "here_better": "nll", "unsure": False}]
    (pair,) = found["differences"]
    assert (pair["value"], pair["interval"]) == (pytest.approx(-0.65), pytest.approx([-0.65, -0.65]))


def test_a_teacher_no_better_than_random_play_leaves_nothing_to_rank_by(plan):
    played = evaluations(kl={"pong": [1.0] * 2, "breakout": [1.0] * 2}, nll={"pong": [1.0] * 2, "breakout": [1.0] * 2})
    for evaluation in played.values():
        evaluation["teacher"] = row(*[0.0] * 5)
    found = gathered(plan, played)
    assert (found["measure"], found["order"]) == (None, [])
    assert found["arms"][0]["games"]["pong"]["retention"] is None
    json.dumps(found, allow_nan=False)


def test_arms_that_these_episodes_cannot_tell_apart_are_said_to_be(plan):
    same = {"pong": [4.0, 6.0], "breakout": [4.0, 6.0]}
    found = gathered(plan, evaluations(kl=same, nll=same))
    assert (found["contradictions"], found["unsure"]) == ([], True)


def spread_out(**means_of_arms) -> dict:
    """Return evaluations in which episodes are hard or easy for all alike, of which arms score a share."""
    easy = [20.0 + 8.0 * number for number in range(10)]
    return {
        f"evaluation of {game}, seed {seed}": {
            "arms": {
                arm: row(*(share * score + (-1) ** number for number, score in enumerate(easy)))
                for arm, share in means_of_arms.items()
            },
            "teacher": row(*easy),
            "random": row(*[0.0] * 10),
        }
        for game in ("pong", "breakout")
        for seed in (0, 1)
    }


def test_what_makes_an_episode_easy_for_all_cancels_out(plan):
    kl = gathered(plan, spread_out(kl=0.9, nll=0.8))["arms"][0]
    low, high = kl["mean_retention"]["interval"]
    assert 0.88 < low < 0.9 < high < 0.92  # by themselves: 0.8 to 1.0


def test_arms_whose_intervals_overlap_may_still_be_told_apart(plan):
    found = gathered(plan, spread_out(kl=0.81, nll=0.80))
    kl, nll = (arm["geometric_mean"]["interval"] for arm in found["arms"])
    assert kl[0] < nll[1]
    (pair,) = found["differences"]
    assert (pair["paper_better"], pair["paper_worse"], pair["unsure"]) == ("kl", "nll", False)
    assert pair["interval"] == pytest.approx([0.01, 0.01], abs=1e-3)
    assert found["unsure"] is False


def test_a_difference_that_is_undefined_in_too_many_resamples_is_not_known(plan):
    played = spread_out(kl=0.9, nll=0.8)
    for name in played:
        played[name]["arms"]["nll"] = row(*[-1.0, 1.5] * 5)
    found = gathered(plan, played)
    assert found["differences"][0]["interval"] is None
    assert found["unsure"] is True


def test_without_an_order_the_papers_figures_make_one(tmp_path):
    path = write_experiment(
        tmp_path, ('paper_order = ["kl", "nll"]\n', ""), ('loss = "nll"', 'loss = "nll"\npaper = 1.2')
    )
    plan = make_plan(ReproduceOptions(experiment=str(path), budget="tiny"))
    good = {"pong": [4.0, 6.0], "breakout": [4.0, 6.0]}
    assert gathered(plan, evaluations(kl=good, nll=good))["paper"]["order"] == ["nll", "kl"]


def test_where_the_paper_ranks_nothing_arms_are_compared_with_the_first(tmp_path):
    path = write_experiment(tmp_path, ('paper_order = ["kl", "nll"]\n', ""))
    plan = make_plan(ReproduceOptions(experiment=str(path), budget="tiny"))
    found = gathered(plan, spread_out(kl=0.8, nll=0.9))
    assert found["differences"] == []
    (pair,) = found["differences_from_first"]
    assert (pair["arm"], pair["first"], pair["unsure"]) == ("nll", "kl", False)
    assert pair["value"] == pytest.approx(0.1, abs=1e-3)
    assert pair["interval"] == pytest.approx([0.1, 0.1], abs=5e-3)


@pytest.mark.parametrize(
    ("steps_of_teachers", "is_starved"),
    [((64, 64), False), ((65, 2_500_608), True), ((64, None), True)],
)
def test_a_joint_arm_is_compared_with_teachers_of_as_many_steps_or_not_at_all(tmp_path, steps_of_teachers, is_starved):
    changes = [
        ('kind = "single_task"', 'kind = "multi_task"'),
        ('loss = "nll"', 'method = "joint"'),
        ("evaluate = {", "joint = { num_steps = 64 }\nevaluate = {"),
    ]
    plan = make_plan(ReproduceOptions(experiment=str(write_experiment(tmp_path, *changes)), budget="tiny"))
    same = {"pong": [4.0, 6.0], "breakout": [4.0, 6.0]}
    teachers = {
        game: {"game": game, "origin": "file", "policy_hash": "0" * 64, "num_steps": steps}
        for game, steps in zip(plan.budget.games, steps_of_teachers, strict=True)
    }
    students = {f"nll of 2 games, seed {seed}": {"num_steps_of_each_game": 64} for seed in plan.seeds}
    found = gather(plan, {"teachers": teachers, "students": students, "evaluations": evaluations(kl=same, nll=same)})
    joint = found["arms"][1]
    empty = [joint["mean_retention"]["value"], joint["geometric_mean"]["interval"], joint["games"]["pong"]["retention"]]
    assert ([value is None for value in empty] == [True] * 3) is is_starved
    assert ("nll" in found["order"]) is not is_starved
    assert joint["games"]["pong"]["mean"] == 5.0
