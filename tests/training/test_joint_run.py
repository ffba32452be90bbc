"""One network for several tasks, `train-teacher --task A,B`: steps, records, scores and replays by task."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from rldistill.envs import make_task
from rldistill.errors import MismatchError, UsageError
from rldistill.options.train_teacher import TrainTeacherOptions
from rldistill.policies import load_policy
from rldistill.rollout.evaluate import play_episodes
from rldistill.session.metrics import read_metrics
from rldistill.storage import load_checkpoint
from rldistill.verbs.train_teacher import train_teacher
from rldistill.verbs.training_run import TrainingRun
from tests.kit.interruptions import StopAfter
from tests.kit.tiny_envs import CHAIN_TASK, TURNED_CHAIN_TASK, TinyChain

TASKS = (CHAIN_TASK, TURNED_CHAIN_TASK)
NUM_STEPS = 320
COMMON = {"network": "mlp:16", "num_threads": 1, "device": "cpu", "precision": "float32", "checkpoint_period": 256}
PQN = {"num_envs": 4, "rollout_length": 4, "num_minibatches": 2, "learning_rate": 1e-2, "exploration_fraction": 0.5}
DQN = {"algorithm": "dqn", "replay_capacity": 200, "learning_starts": 50, "exploration_steps": 200}


def config_for(out, **changes):
    return TrainTeacherOptions(**{"task": TASKS, "out": out, "num_steps": NUM_STEPS} | COMMON | changes)


def run(out, *callbacks, resume=False, **changes):
    return train_teacher.of(replace(config_for(out, **changes), resume=resume, overwrite=False, callbacks=callbacks))


def run_until(out, num_reports, **changes):
    with pytest.raises(KeyboardInterrupt):
        run(out, StopAfter(num_reports), **changes)


def records(out):
    return read_metrics(out / "metrics.jsonl")


@pytest.fixture(scope="module", params=[PQN, DQN], ids=["pqn", "dqn"])
def finished(request, tmp_path_factory):
    """A run of each algorithm that was never stopped; only to be read."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return out, run(out, **request.param), request.param


def test_the_policy_has_a_head_with_its_own_actions_for_each_task(finished):
    policy = load_policy(finished[1].last_policy)
    assert policy.spec.head_sizes == {CHAIN_TASK: 2, TURNED_CHAIN_TASK: 3}
    assert policy.name == "+".join(TASKS)
    output, _ = policy.for_task(TURNED_CHAIN_TASK)(np.zeros((4, 5), np.float32))
    assert output.q_values.shape == (4, 3)


def test_every_task_has_its_steps(finished):
    out, result, _ = finished
    assert result.num_steps == 2 * NUM_STEPS == records(out)[-1]["step"]
    last = {line["task"]: line["task_step"] for line in records(out)}
    assert last == dict.fromkeys(TASKS, NUM_STEPS)


def test_records_tell_task_and_steps_of_the_task(finished):
    out, _, _ = finished
    counts = dict.fromkeys(TASKS, 0)
    before = 0
    for line in records(out):
        num_steps = line["step"] - before
        counts[line["task"]] += num_steps
        assert line["task_step"] == counts[line["task"]]
        before = line["step"]


def test_exploration_goes_by_the_steps_of_the_task(finished):
    out, _, settings = finished
    for line, before in zip(records(out)[2:], records(out), strict=False):
        if settings is PQN:  # strictly in turn: the record before the last one is of the same task
            share = min(before["task_step"] / (0.5 * NUM_STEPS), 1)
            assert line["exploration_epsilon"] == pytest.approx(1 - 0.95 * share)
    assert records(out)[-1]["exploration_epsilon"] < 0.2


def test_pqn_plays_a_rollout_of_each_in_turn(tmp_path):
    run(tmp_path / "run", num_steps=48, **PQN)
    assert [line["task"] for line in records(tmp_path / "run")] == [*TASKS] * 3


def test_dqn_goes_to_the_next_task_when_an_episode_ends(tmp_path):
    run(tmp_path / "run", **DQN)
    lines = records(tmp_path / "run")
    assert len(lines) > 20
    # Until one of the tasks has had its steps.
    both = [line for line in lines if line["task_step"] < NUM_STEPS]
    turns = [TASKS.index(line["task"]) for line in both][: len(both) // 2]
    assert turns == [number % 2 for number in range(len(turns))]
    assert all(line["scores"] for line in both)


def test_scores_are_told_by_task_and_points_of_different_tasks_are_never_added(finished):
    out, result, _ = finished
    assert result.mean_score is None
    for task in TASKS:
        told = [line.get("mean_score") for line in records(out) if line["task"] == task]
        assert result.mean_scores[task] == told[-1]
    assert any(result.mean_scores.values())
    assert result.best_policy is None
    made = load_policy(result.last_policy).spec.provenance
    assert (made["mean_training_score"], made["mean_training_scores"]) == (None, result.mean_scores)


def test_the_best_policy_of_known_games_is_chosen_by_the_mean_of_their_normalised_scores(monkeypatch):
    run_of_two = object.__new__(TrainingRun)
    means = {"atari:pong": 14.6, "atari:freeway": 0.0}
    monkeypatch.setattr(run_of_two, "_mean_scores", lambda: means)
    assert run_of_two._overall_score() == 0.5  # a human's Pong, random play's Freeway
    means["atari:freeway"] = None
    assert run_of_two._overall_score() is None
    means["atari:freeway"], means["atari:skiing"] = 0.0, -9000.0
    assert run_of_two._overall_score() is None


@pytest.mark.parametrize("settings", [PQN, DQN], ids=["pqn", "dqn"])
def test_a_resumed_run_gives_every_task_its_steps(tmp_path, settings):
    run_until(tmp_path / "run", 5, **settings)
    run_until(tmp_path / "run", 4, resume=True, **settings)
    state = load_checkpoint(tmp_path / "run" / "checkpoint.ckpt")
    assert sum(state["steps"]) == state["step"]
    result = run(tmp_path / "run", resume=True, **settings)
    assert result.num_steps == 2 * NUM_STEPS
    steps = [line["step"] for line in records(tmp_path / "run")]
    assert steps == sorted(set(steps))
    if settings is DQN:
        replays = json.loads(load_checkpoint(tmp_path / "run" / "checkpoint.ckpt")["replays"])
        assert [replay["num_appended"] for replay in replays] == [NUM_STEPS, NUM_STEPS]
        assert sorted(path.name for path in (tmp_path / "run" / "replay").iterdir()) == ["0", "1"]


def test_recent_scores_of_every_task_survive_a_stop(tmp_path):
    run_until(tmp_path / "run", 16, **PQN)
    before = load_checkpoint(tmp_path / "run" / "checkpoint.ckpt")
    assert set(before["score_tasks"]) == {0, 1}
    run_until(tmp_path / "run", 1, resume=True, **PQN)
    after = load_checkpoint(tmp_path / "run" / "checkpoint.ckpt")
    other = 1 - TASKS.index(records(tmp_path / "run")[-1]["task"])
    kept = [
        [score for task, score in zip(state["score_tasks"], state["scores"], strict=True) if task == other]
        for state in (before, after)
    ]
    assert kept[0] == kept[1]


def test_the_python_verb_takes_a_list(tmp_path):
    result = train_teacher(list(TASKS), out=tmp_path / "run", num_steps=32, **COMMON, **PQN)
    assert result.num_steps == 64


def test_init_from_takes_a_policy_of_the_same_tasks_and_no_other(finished, tmp_path):
    source, settings = finished[1].last_policy, finished[2]
    run(tmp_path / "run", init_from=source, **settings | {"num_steps": 32})
    with pytest.raises(MismatchError, match=r"has heads for .*TinyChain-v0, .*TurnedChain-v0, expected one for each"):
        run(tmp_path / "one", init_from=source, task=CHAIN_TASK, **settings)
    turned = ",".join(reversed(TASKS))
    with pytest.raises(MismatchError, match=r"does not fit .*TurnedChain-v0: action_layout: discrete \[2\] against"):
        run(tmp_path / "turned", init_from=source, task=turned.split(","), **settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": []}, "task: got [], expected different tasks."),
        ({"task": ["atari:pong", "atari:pong"]}, "task: got atari:pong twice, expected different tasks."),
        ({"task": ["atari:pong", ""]}, "task: got ['atari:pong', ''], expected different tasks."),
        (
            {"task": [CHAIN_TASK, "CartPole-v1"]},
            f"tasks: one network needs one kind of observation, got float32 [5] of {CHAIN_TASK} and float32 [4] of "
            "CartPole-v1.",
        ),
    ],
)
def test_tasks_that_cannot_be_learned_together_are_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(UsageError) as caught:
        run(tmp_path / "run", **changes)
    assert str(caught.value) == message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("settings", [PQN | {"num_envs": 2}, DQN], ids=["pqn", "dqn"])
def test_it_trains_on_several_games(tmp_path, settings):
    options = {"max_frames": 48, "height": 42, "width": 42}
    changes = {
        "network": "conv:4-4:8",
        "env_kwargs": options,
        "num_steps": 64,
        "task": ["atari:pong", "atari:breakout"],
    }
    policy = load_policy(run(tmp_path / "run", **settings | changes).last_policy)
    assert policy.spec.head_sizes == {"atari:pong": 6, "atari:breakout": 4}
    assert policy.name == "pong+breakout"


@pytest.mark.slow
@pytest.mark.learning
@pytest.mark.parametrize(
    "settings",
    [
        PQN | {"num_envs": 8, "rollout_length": 8, "num_minibatches": 4, "gamma": 0.9},
        {
            **{"algorithm": "dqn", "optimizer": "adam", "learning_rate": 3e-3, "gamma": 0.9},
            **{"replay_capacity": 4000, "learning_starts": 500},
            **{"exploration_steps": 3000, "target_network_update_period": 100},
        },
    ],
    ids=["pqn", "dqn"],
)
def test_one_network_reaches_the_optimum_of_both_tasks_in_at_least_4_of_5_seeds(tmp_path, settings):
    num_solved = 0
    for seed in range(5):
        result = run(tmp_path / str(seed), seed=seed, **settings | {"num_steps": 12_000, "network": "mlp:32"})
        policy, worst = load_policy(result.last_policy), []
        for name in TASKS:
            envs = make_task(name).make_envs(4, 1)
            played = play_episodes(policy.for_task(name), envs, range(8), seed=0, exploration_epsilon=0.0)
            envs.close()
            worst.append(played.scores.min())
        num_solved += worst == [TinyChain.OPTIMAL_RETURN] * 2
    assert num_solved >= 4, num_solved


def test_only_the_head_of_the_task_at_work_is_trained(tmp_path):
    run(tmp_path / "short", num_steps=16, **PQN)  # one rollout each
    run_until(tmp_path / "one", 1, num_steps=16, **PQN)  # the first task's alone
    both, one = (
        load_checkpoint(tmp_path / name / "checkpoint.ckpt")["learner"]["network"] for name in ("short", "one")
    )
    assert torch.equal(both["heads.0.output.weight"], one["heads.0.output.weight"])
    assert not torch.equal(both["heads.1.output.weight"], one["heads.1.output.weight"])
