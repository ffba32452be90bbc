"""What a TOML of an experiment may say, what it must, and how an error names the place."""

import tomllib

import pytest

from rldistill.errors import UsageError
from rldistill.loading.bundled import bundled_experiments
from rldistill.paper.experiment import load_experiment
from rldistill.statistics import REFERENCE_SCORES
from tests.paper.small_experiment import write_experiment


def test_a_file_becomes_arms_and_budgets(tmp_path):
    experiment = load_experiment(str(write_experiment(tmp_path)))
    assert (experiment.name, experiment.kind, experiment.paper_order) == ("small", "single_task", ("kl", "nll"))
    kl, nll = experiment.arms
    assert (kl.name, kl.paper, nll.paper) == ("kl", 0.9, None)
    tiny = experiment.budgets["tiny"]
    assert (tiny.games, tiny.num_seeds, tiny.env) == (("pong", "breakout"), 2, {"max_frames": 80, "noop_max": 2})
    # An arm overrides its budget, and a loss without a temperature is given none.
    assert tiny.settings_of(kl)["temperature"] == 0.1
    assert tiny.settings_of(nll) == {
        "student": "conv:4-4:8",
        "num_updates": 2,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "loss": "nll",
    }


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("section =", "chapter =", r"^small\.toml: unknown key 'chapter', expected one of arms, budgets, "),
        ('title = "Which loss"', "", r"^small\.toml: title is missing\.$"),
        (
            'kind = "single_task"',
            'kind = "double"',
            r"toml: kind: got 'double', expected single_task, multi_task or online",
        ),
        ('loss = "nll"', 'los = "nll"', r"^small\.toml, arms: unknown key 'los', expected one of batch_size, "),
        ('name = "nll"', 'name = "kl"', "arms need names of their own"),
        ('name = "nll"', 'name = "teacher"', "name is 'teacher', expected letters"),
        ('name = "nll"', 'name = "../nll"', r"name is '\.\./nll', expected letters"),
        ('["kl", "nll"]', '["kl", "mse"]', "paper_order names arms"),
        ('loss = "nll"', 'method = "guess"', "arms: method: got 'guess', expected distill, joint, online or learner"),
        ('loss = "nll"', 'method = "joint"', "a joint arm needs several tasks: kind multi_task"),
        ("num_seeds = 2", "num_seeds = 0", r"budgets\.tiny: num_seeds must be 1 or more, got 0\.$"),
        ("num_seeds = 2", "num_seeds = 1.5", r"budgets\.tiny: num_seeds: got 1\.5, expected a whole number"),
        ("num_seeds = 2", "num_seeds = true", r"budgets\.tiny: num_seeds: got True, expected a whole number"),
        ("env = {", "env = 5 #", r"budgets\.tiny: env: got 5, expected a mapping\."),
        ('title = "Which loss"', "title = 3", r"^small\.toml: title: got 3, expected a text\.$"),
        ('loss = "nll"', 'loss = "nll"\npaper = "108 %"', "paper: got '108 %', expected a number"),
        ("num_episodes = 5", "num_games = 5", r"budgets\.tiny\.evaluate: unknown key 'num_games', expected"),
        (
            "num_steps = 160",
            'num_steps = "many"',
            r"budgets\.tiny\.collect: num_steps: got 'many', expected a whole number",
        ),
        (
            "num_steps = 160",
            "num_steps = true",
            r"budgets\.tiny\.collect: num_steps: got True, expected a whole number",
        ),
        ("num_updates = 2", "seed = 2", r"budgets\.tiny\.distill: unknown key 'seed'"),
        ("num_updates = 2", "online = true", r"budgets\.tiny\.distill: unknown key 'online'"),
        ("evaluate = {", "evaluate = 3 #", r"budgets\.tiny: evaluate: got 3, expected a mapping"),
        ("evaluate = {", "arms = { q = {} }\nevaluate = {", r"budgets\.tiny: arms: got 'q', expected one of kl, nll\."),
        ("evaluate = {", "arms = { kl = 3 }\nevaluate = {", r"budgets\.tiny: arms: got 3, expected a mapping"),
        (
            "evaluate = {",
            "arms = { kl = { num_epochs = 3 } }\nevaluate = {",
            r"budgets\.tiny\.arms\.kl: unknown key 'num_epochs'",
        ),
    ],
)
def test_an_error_names_place_and_value(tmp_path, old, new, complaint):
    path = write_experiment(tmp_path, (old, new))
    with pytest.raises(UsageError, match=complaint):
        load_experiment(str(path))


def test_an_unknown_experiment_is_answered_with_those_there_are():
    with pytest.raises(
        UsageError, match=r"got 'loss', expected one of compression, levers, losses, .*, or a TOML file\.$"
    ):
        load_experiment("loss")


@pytest.mark.parametrize(("name", "path"), bundled_experiments().items())
def test_every_bundled_experiment_opens_with_its_command_and_has_all_budgets(name, path):
    lines = path.read_text().splitlines()
    assert lines[0] == f"# rldistill reproduce {name} --budget cpu --out runs/{name}"
    experiment = load_experiment(name)
    # What is beyond the paper has no budget of the paper's.
    assert set(experiment.budgets) >= {
        "smoke",
        "cpu",
        *(["paper"] if experiment.paper_games or name == "online" else []),
    }
    assert {game for budget in experiment.budgets.values() for game in budget.games} <= REFERENCE_SCORES.keys()
    # The paper shows curves of online distillation, and no figure over games.
    if experiment.paper_games:
        assert experiment.budgets["paper"].games == experiment.paper_games
    assert tomllib.loads(path.read_text())["title"] == experiment.title


def test_a_budget_adds_settings_of_single_arms(tmp_path):
    arms = "arms = { kl = { num_updates = 7, temperature = 0.3 } }\nevaluate = {"
    experiment = load_experiment(str(write_experiment(tmp_path, ("evaluate = {", arms))))
    budget = experiment.budgets["tiny"]
    kl, nll = (budget.settings_of(arm) for arm in experiment.arms)
    assert (kl["num_updates"], kl["temperature"], kl["batch_size"]) == (7, 0.3, 8)
    assert (nll["num_updates"], nll["batch_size"]) == (2, 8)
