"""Teachers with a memory in every verb: their state belongs to an episode, whatever plays beside it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import rldistill as rd
from rldistill.adapters.load import load_policy
from rldistill.distillation.sources import DEFAULT_WINDOW
from rldistill.errors import UsageError
from rldistill.session.run_folder import read_config
from rldistill.verbs import shrink_search
from rldistill.verbs.recipes import choose_recipe
from tests.kit.cue_env import CUE_TASK
from tests.kit.episodes import assert_prefixes, assert_same_episodes, read_episodes
from tests.kit.interruptions import StopAfter

SMALL = {"num_updates": 100, "batch_size": 64, "learning_rate": 0.01, "precision": "float32", "evaluate_period": 50}


def remembering(rows, cue):
    """Act by the cue that was shown at the first step alone, as nobody could without a memory."""
    cue = cue + rows[:, -1:]  # `shown`, the last of the parts
    return torch.cat([-cue, cue], 1), cue


def teacher():
    return load_policy(remembering, task=CUE_TASK, outputs="logits", initial_state=torch.zeros(1))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cue") / "data"
    rd.collect(teacher(), num_steps=1500, num_envs=3, out=folder, exploration_epsilon=0.3)
    return folder


def test_what_it_says_of_a_step_depends_on_the_episode_alone(data, tmp_path):
    for episode in read_episodes(data).values():
        cue = np.sign(episode["observation"][0, -1])
        np.testing.assert_array_equal(episode["logits"], np.tile([-cue, cue], (len(episode["action"]), 1)))
    rd.collect(teacher(), num_steps=1500, num_envs=1, out=tmp_path / "one", exploration_epsilon=0.3)
    # Those that the target cuts off are cut elsewhere.
    assert_prefixes(read_episodes(data), read_episodes(tmp_path / "one"))


def test_a_collection_that_goes_on_computes_its_state_again(data, tmp_path):
    settings = {"num_steps": 1500, "num_envs": 3, "out": tmp_path / "cut", "exploration_epsilon": 0.3}
    with pytest.raises(KeyboardInterrupt):
        rd.collect(teacher(), callbacks=[StopAfter(2)], **settings)
    rd.collect(teacher(), resume=True, **settings)
    assert_same_episodes(read_episodes(data), read_episodes(tmp_path / "cut"))


def test_it_is_evaluated_with_a_state_for_each_environment():
    few, many = (rd.evaluate(teacher(), num_episodes=7, num_envs=n, exploration_epsilon=0) for n in (1, 4))
    assert [row["episodes"] for row in few.to_dict()["policies"]] == [
        row["episodes"] for row in many.to_dict()["policies"]
    ]
    assert few.policies[0].mean == pytest.approx(1)


@pytest.mark.learning
@pytest.mark.parametrize("student", ["gru:6", "mlp:4"])
def test_students_with_and_without_a_memory_learn_from_what_it_said_and_says(student, data, tmp_path):
    window = {"window": 9} if "gru" in student else {}
    sees = {"student_sees": "shown" if window else "always"}
    for source in (data, rd.Live(teacher(), CUE_TASK, collect_steps=500, teacher_fraction=0.5)):
        out = tmp_path / f"{type(source).__name__}"
        made = rd.distill(source, student=student, out=out, evaluate_episodes=3, **window, **sees, **SMALL)
        rows = rd.evaluate(made, CUE_TASK, num_episodes=20, teacher=teacher()).policies
        student_row = next(row for row in rows if row.role == "student")
        assert student_row.mean > 0.95
        assert student_row.agreement > 0.95


def test_the_smallest_student_of_it_is_searched(tmp_path, monkeypatch):
    """Few updates and few episodes: what is found does not matter."""
    monkeypatch.setattr(shrink_search, "_CHOOSING", 10)
    monkeypatch.setattr(shrink_search, "_GLANCING", 5)
    few = {"num_updates": 60, "check_period": 30}
    monkeypatch.setattr(shrink_search, "choose_recipe", lambda *of, **how: replace(choose_recipe(*of, **how), **few))
    monkeypatch.setattr(shrink_search, "ladder", lambda _task, remembers: ("gru:1", "gru:2") if remembers else ())
    found = rd.shrink(teacher(), CUE_TASK, out=tmp_path / "s", keep=0.05, within=120.0, num_episodes=20, num_envs=4)
    assert {trial.network for trial in found.trials} <= {"gru:1", "gru:2"}
    assert found.proofs


def test_a_student_that_is_chosen_for_it_learns_from_windows(tmp_path):
    settings = {"evaluate_episodes": 0, **SMALL}
    rd.distill(rd.Live(teacher(), CUE_TASK, collect_steps=200), out=tmp_path / "r", **settings)
    written = read_config(tmp_path / "r" / "config.toml")
    assert written["student"].startswith("gru:")
    assert written["window"] == DEFAULT_WINDOW > 9, "no episode is as long, and nothing is refused that nobody said"
    assert written["burn_in"] > 0
    with pytest.raises(UsageError, match=r"window: got 99 steps, the longest episode of .* has"):
        rd.distill(rd.Live(teacher(), CUE_TASK, collect_steps=200), out=tmp_path / "s", window=99, **settings)
    with pytest.raises(UsageError, match="window belongs with a student that remembers, such as gru:16"):
        rd.distill(rd.Live(forgetful(), CUE_TASK), out=tmp_path / "t", window=9, **settings)


def forgetful():
    return load_policy(lambda rows: torch.cat([-rows[:, :1], rows[:, :1]], 1), task=CUE_TASK, outputs="logits")
