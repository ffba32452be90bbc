"""The bundled teachers: what is said of them is what stands beside them."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from rldistill import evaluate, load_policy
from rldistill.options.train_teacher import TrainTeacherOptions
from rldistill.verbs.train_teacher import train_teacher

ZOO = Path(__file__).resolve().parents[2] / "zoo"
TEACHERS = sorted(path.stem for path in ZOO.glob("*.safetensors"))


def evaluation(name: str, kind: str) -> dict:
    return json.loads((ZOO / name / f"{kind}.json").read_text())


@pytest.mark.parametrize("name", TEACHERS)
def test_every_evaluation_is_of_the_file_it_stands_beside(name):
    policy = load_policy(ZOO / f"{name}.safetensors")
    paths = list((ZOO / name).glob("evaluation*.json"))
    assert len(paths) == 2
    for path in paths:
        assert json.loads(path.read_text())["policies"][0]["policy_hash"] == policy.hash


def test_the_pong_teacher_has_the_scores_that_quickstart_relies_on():
    played, census = (
        evaluation("pong", "evaluation")["policies"][0],
        evaluation("pong", "evaluation_greedy")["policies"][0],
    )
    assert played["exploration_epsilon"] == 0.05
    assert len(played["episodes"]) == 100
    assert played["interval"][0] >= 14
    assert census["census"]
    assert census["num_distinct"] == 30
    assert census["mean"] >= 18


@pytest.mark.parametrize("name", TEACHERS)
def test_a_rollout_of_a_teachers_configuration_trains(name, tmp_path):
    values = tomllib.loads((ZOO / name / "config.toml").read_text())
    # In bfloat16 a processor that does not compute in it takes minutes.
    here = {"num_steps": 1_000, "out": tmp_path / "run", "num_threads": 1, "precision": "auto"}
    anew = {"start_step": 0, "init_from": None}  # some went on from an earlier file
    config = TrainTeacherOptions(**values | here | anew)
    result = train_teacher.of(replace(config, resume=False, overwrite=False))
    assert result.num_steps == 1_024  # a whole rollout of 32 × 32
    trained = load_policy(result.last_policy)
    assert trained.spec.architecture == load_policy(ZOO / f"{name}.safetensors").spec.architecture


@pytest.mark.slow
def test_the_pong_teacher_still_plays_as_recorded():
    recorded = evaluation("pong", "evaluation_greedy")["policies"][0]
    played = evaluate(ZOO / "pong.safetensors", num_episodes=30, seed=4242, exploration_epsilon=0.0)
    assert played.policies[0].mean == pytest.approx(recorded["mean"], abs=1.5)
