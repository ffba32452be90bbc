"""The page and the picture of an experiment: our figures beside the paper's, and plain words about both."""

import copy

import pytest

from rldistill.paper.page import experiment_figure, experiment_page, ranking_sentences, share


def _measure(value, interval=None):
    return {"value": value, "interval": interval, "by_seed": [{"seed": 0, "value": value}], "num_episodes": 60}


def _arm(name, value, paper=None, method="distill"):
    game = {
        "mean": 12.34,
        "num_episodes": 30,
        "by_seed": [{"seed": 0, "mean": 12.34}],
        "relative_score": value,
        "retention": value,
        "retention_interval": None if value is None else [value - 0.1, value + 0.1],
        "agreement": 0.9,
    }
    return {
        "name": name,
        "method": method,
        "settings": {"student": "net3", "loss": name} if method == "distill" else {"network": "multitask3"},
        "num_parameters": 61_174,
        "paper": paper,
        "starved": None,
        "geometric_mean": _measure(value, None if value is None else [value - 0.05, value + 0.05]),
        "mean_retention": _measure(value),
        "games": {"pong": game, "space_invaders": copy.deepcopy(game)},
    }


def _pair(value, interval, *, unsure=False):
    return {"paper_better": "kl", "paper_worse": "nll", "value": value, "interval": interval, "unsure": unsure}


MADE = {
    "versions": {"rldistill": "0.1.0", "torch": "2.13.0"},
    "commit": "0123456789abcdef+changes",
    "machine": {"processor": "a processor", "num_processors": 2, "device": "cpu"},
}
RESULTS = {
    "title": "Which loss",
    "section": "section 4.1",
    "budget": "cpu",
    "settings": {
        "games": ["pong", "space_invaders"],
        "num_seeds": 1,
        "teachers": "trained",
        "distill": {"num_updates": 8000},
        "collect": {"num_steps": 60000},
    },
    "games": ["pong", "space_invaders"],
    "seeds": [0],
    "num_episodes": 30,
    "exploration_epsilon": 0.05,
    "paper": {"games": ["pong", "qbert"], "order": ["kl", "nll"]},
    "teachers": {
        game: {"origin": origin, "mean": 17.0, "policy_hash": "ab" * 32, "weak": origin == "trained"}
        for game, origin in (("pong", "zoo"), ("space_invaders", "trained"))
    },
    "random": {game: {"mean": -20.0} for game in ("pong", "space_invaders")},
    "arms": [_arm("kl", 0.955, paper=1.169), _arm("nll", 0.8)],
    "learned_nothing": [],
    "left_out": [],
    "measure": "geometric_mean",
    "order": ["kl", "nll"],
    "differences": [_pair(0.155, [0.1, 0.21])],
    "contradictions": [],
    "unsure": False,
    "seconds": 5400.0,
    "jobs_made": [{"num_jobs": 9, "made": MADE}],
    "provenance": {"command": "rldistill reproduce losses", **MADE},
}


def test_the_page_has_our_figure_its_interval_and_the_papers_figure_in_one_row():
    page = experiment_page(RESULTS)
    assert "| kl | kl | 95.5 % [90.5, 100.5] | 95.5 | 95.5 % | 95.5 | 116.9 % |" in page
    assert (
        "| Space Invaders (weak teacher) | kl | 12.3 | 12.3 | 17.0 | -20.0 | 95.5 % | 95.5 % [85.5, 105.5] | 90.0 % |"
        in page
    )
    assert "The paper: Pong, Qbert. Means over other games differ." in page
    assert "- One seed of each arm (0), which share one dataset per game and one teacher; 30 episodes" in page
    assert "up to 29 no-ops" in page
    assert "| Pong | the zoo | 17.0 | 95.2 % | `abababababababab` |" in page
    assert (
        "losses`; rldistill 0.1.0, torch 2.13.0, commit `0123456789ab+changes`, a processor, 2 processors, cpu; "
        "1.50 hours, over all jobs, in the calls that finished them"
    ) in page


def test_the_page_names_every_machine_and_version_that_made_a_job():
    other = MADE | {"commit": None, "machine": MADE["machine"] | {"device": "NVIDIA H200"}}
    made = [{"num_jobs": 7, "made": other}, {"num_jobs": 2, "made": MADE}, {"num_jobs": 1, "made": None}]
    page = experiment_page(RESULTS | {"jobs_made": made})
    assert (
        "losses`; jobs, 7: rldistill 0.1.0, torch 2.13.0, a processor, 2 processors, NVIDIA H200; "
        "jobs, 2: rldistill 0.1.0, torch 2.13.0, commit `0123456789ab+changes`, a processor, 2 processors, cpu; "
        "jobs, 1: by a version that did not record what each job ran on; the last call: rldistill 0.1.0, torch 2.13.0, "
        "commit `0123456789ab+changes`, a processor, 2 processors, cpu; 1.50 hours"
    ) in page


def test_what_students_share_depends_on_the_arm_and_on_the_budget():
    live = {key: value for key, value in RESULTS["settings"].items() if key != "collect"}
    assert "of each arm (0), which share one teacher per game; 30" in experiment_page(RESULTS | {"settings": live})
    arms = [*RESULTS["arms"], _arm("joint", 0.5, method="joint")]
    page = experiment_page(RESULTS | {"arms": arms})
    assert "of each arm (0), of which kl and nll share one dataset per game and one teacher; 30" in page
    assert "of each arm (0); 30 episodes" in experiment_page(RESULTS | {"arms": arms[2:]})


def test_what_arms_differ_in_besides_network_and_loss_has_a_column():
    arms = copy.deepcopy(RESULTS["arms"])
    arms[0]["settings"] |= {"num_updates": 10, "temperature": 0.01, "batch_size": 8}
    arms[1]["settings"] |= {"num_updates": 30, "teacher_fraction": "linear:1->0@0.5", "batch_size": 8}
    page = experiment_page(RESULTS | {"arms": arms})
    assert "| arm | loss | settings of its own | geometric mean" in page
    assert "| kl | kl | num_updates 10 | 95.5 % " in page
    assert "| nll | nll | num_updates 30, teacher_fraction linear:1->0@0.5 | 80.0 % " in page
    assert "settings of its own" not in experiment_page(RESULTS)


def test_what_all_arms_have_in_common_is_said_once_below_the_table():
    page = experiment_page(RESULTS)
    assert "| arm | loss | geometric mean of student ÷ teacher [95 %] | by seed |" in page
    assert "All arms: student net3, parameters 61,174." in page
    alone = experiment_page(RESULTS | {"arms": RESULTS["arms"][:1]})
    assert "| arm | student | loss | parameters |" in alone
    assert "All arms" not in alone


def test_the_papers_column_is_there_only_where_the_paper_has_a_figure():
    assert "the paper's geometric mean |" in experiment_page(RESULTS)
    without = [arm | {"paper": None} for arm in RESULTS["arms"]]
    page = experiment_page(RESULTS | {"arms": without})
    assert "the paper's geometric mean |" not in page
    assert "| kl | kl | 95.5 % [90.5, 100.5] | 95.5 | 95.5 % | 95.5 |\n" in page
    left_out = [{"name": "alone", "method": "joint", "paper": 0.5}]
    page = experiment_page(RESULTS | {"arms": without, "left_out": left_out})
    assert "| kl | kl | 95.5 % [90.5, 100.5] | 95.5 | 95.5 % | 95.5 | – |\n" in page
    assert "| alone | – | – | – | – | – | 50.0 % |\n" in page


def test_where_the_paper_ranks_nothing_the_page_says_how_arms_differ_from_the_first():
    pairs = [
        {"arm": "nll", "first": "kl", "value": 0.021, "interval": [-0.01, 0.05], "unsure": True},
        {"arm": "mse", "first": "kl", "value": -0.3, "interval": [-0.4, -0.2], "unsure": False},
    ]
    unranked = {"paper": {"games": [], "order": []}, "differences": [], "differences_from_first": pairs}
    assert ranking_sentences(RESULTS | unranked) == (
        "Differences from kl in points of the geometric mean of student ÷ teacher [95 %], on the same episodes: "
        "nll 2.1 [-1.0, 5.0] (these episodes cannot tell); mse -30.0 [-40.0, -20.0]."
    )


def test_only_an_arm_that_has_a_teacher_has_a_loss():
    arms = [_arm("a", 0.5, method="online"), _arm("b", 0.5, method="learner"), _arm("c", 0.5, method="joint")]
    page = experiment_page(RESULTS | {"arms": arms})
    assert "| a | of the default size | the recipe's | 50.0 %" in page
    assert "| b | the learner at its last step | none | 50.0 %" in page
    assert "| c | multitask3 | none | 50.0 %" in page


def test_a_seed_without_a_value_is_a_dash_among_the_others():
    arm = _arm("kl", 0.955)
    arm["geometric_mean"]["by_seed"] = [{"seed": 0, "value": 0.93}, {"seed": 1, "value": None}]
    assert "| 95.5 % [90.5, 100.5] | 93.0, – |" in experiment_page(RESULTS | {"arms": [arm]})


def test_the_page_says_which_teachers_are_weak():
    page = experiment_page(RESULTS)
    assert "| Space Invaders (weak teacher) | trained here | 17.0 | -7.2 % |" in page
    assert "Weak teachers have less than half of it" in page
    strong = {game: teacher | {"weak": False} for game, teacher in RESULTS["teachers"].items()}
    assert "eak teacher" not in experiment_page(RESULTS | {"teachers": strong})


def test_the_page_tells_the_settings_of_the_budget():
    assert "- Settings: `teachers: trained; distill: num_updates 8000; collect: num_steps 60000`." in experiment_page(
        RESULTS
    )


def test_the_page_names_students_that_learned_nothing():
    assert "Learned nothing" not in experiment_page(RESULTS)
    found = [{"arm": "nll", "game": "pong", "seed": 1}, {"arm": "nll", "game": "space_invaders", "seed": 0}]
    page = experiment_page(RESULTS | {"learned_nothing": found})
    assert "**Learned nothing**: nll of Pong, seed 1; nll of Space Invaders, seed 0. On held-out steps" in page


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {},
            "The paper's order is kl > nll; ours, by geometric mean of student ÷ teacher, is kl > nll. The two agree. "
            "Differences in points [95 %], on the same episodes: kl − nll 15.5 [10.0, 21.0].",
        ),
        (
            {"differences": [_pair(0.05, [-0.01, 0.11], unsure=True)]},
            "The two agree, but these episodes cannot tell kl from nll. "
            "Differences in points [95 %], on the same episodes: kl − nll 5.0 [-1.0, 11.0].",
        ),
        (
            {
                "order": ["nll", "kl"],
                "differences": [_pair(-0.05, [-0.11, 0.01], unsure=True)],
                "contradictions": [{"paper_better": "kl", "here_better": "nll", "unsure": True}],
            },
            "**This contradicts the paper**: nll does better here than kl (these episodes cannot tell). "
            "Differences in points [95 %], on the same episodes: kl − nll -5.0 [-11.0, 1.0].",
        ),
        ({"measure": None}, "The arms cannot be ranked here: neither measure is defined for all of them."),
        ({"paper": {"games": [], "order": []}}, ""),
    ],
)
def test_how_our_order_compares_with_the_papers_is_said_in_words(changes, sentence):
    assert ranking_sentences(RESULTS | changes).endswith(sentence)


def test_a_baseline_that_had_less_or_was_left_out_has_empty_cells_and_a_reason():
    starved = {"num_steps": 500_000, "teachers": {"pong": 2_500_608, "space_invaders": None}}
    joint = _arm("joint", None, paper=0.835, method="joint") | {"starved": starved}
    left_out = [{"name": "alone", "method": "joint", "paper": 0.5}]
    page = experiment_page(RESULTS | {"arms": [*RESULTS["arms"], joint], "left_out": left_out})
    assert "| joint | multitask3 | none | – | – | – | – | 83.5 % |" in page
    assert "| alone | – | – | – | – | – | – | 50.0 % |" in page
    assert (
        "joint had 500,000 steps of each game, its teachers 2,500,608 of Pong, an unknown number of Space Invaders: "
        "it is compared with teachers of as many steps, or not at all."
    ) in page
    assert "alone was left out: a fair comparison takes as many steps as the teachers learned from" in page


def test_an_undefined_share_is_a_dash():
    assert share(None) == share(None, [0.1, 0.2]) == "–"


@pytest.mark.parametrize("value", [0.9, None])
def test_the_picture_is_drawn_also_of_what_is_undefined(tmp_path, value):
    pytest.importorskip("matplotlib")
    arms = [_arm("kl", value, paper=1.169), _arm("nll", 0.8), _arm("joint", 0.5, method="joint")]
    measure = "geometric_mean" if value else None
    path = experiment_figure(RESULTS | {"arms": arms, "measure": measure}, tmp_path / "results.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_setting_that_is_a_table_is_written_as_the_others():
    settings = {"online": {"num_updates": 6, "learner": {"network": "dqn", "num_envs": 2}}}
    page = experiment_page(RESULTS | {"settings": settings})
    assert "Settings: `online: num_updates 6, learner (network dqn, num_envs 2)`." in page
