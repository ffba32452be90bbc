"""`train-teacher --algorithm dqn` as a run: records, its options, and a replay that agrees with the checkpoint."""

import json
import tomllib
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from rldistill.data import Replay, StepLayout, replay
from rldistill.errors import DatasetError, DiskFullError, OutputExistsError, UsageError
from rldistill.options.shared import recorded
from rldistill.options.train_teacher import TrainTeacherOptions
from rldistill.policies import load_policy
from rldistill.session.metrics import read_metrics
from rldistill.storage import load_checkpoint
from rldistill.training.dqn import REPLAY_FIELDS, DQNSettings
from rldistill.training.pqn import PQNSettings
from rldistill.verbs import training_run
from rldistill.verbs.train_teacher import resolve_training, train_teacher
from tests.kit.commands import run as run_command
from tests.kit.interruptions import StopAfter, full_disk
from tests.kit.tiny_envs import CHAIN_TASK

NUM_STEPS = 2048
STEPS_PER_RECORD = 512


def config_for(out, **changes):
    """Four records of 512 steps on the chain: a second."""
    settings = {
        "task": CHAIN_TASK,
        "out": out,
        "algorithm": "dqn",
        "num_steps": NUM_STEPS,
        "network": "mlp:8",
        "replay_capacity": 800,
        "learning_starts": 200,
        "exploration_steps": 1000,
        "steps_per_update": 16,
        "target_network_update_period": 20,
        "checkpoint_period": 512,
        "num_threads": 1,
        "device": "cpu",
        "precision": "float32",
    }
    return TrainTeacherOptions(**settings | changes)


def run(out, *callbacks, resume=False, overwrite=False, **changes):
    return train_teacher.of(
        replace(config_for(out, **changes), resume=resume, overwrite=overwrite, callbacks=callbacks)
    )


def run_until(out, num_reports, **changes):
    with pytest.raises(KeyboardInterrupt):
        run(out, StopAfter(num_reports), **changes)


def records(out):
    return read_metrics(out / "metrics.jsonl")


def chunks(out):
    return sorted(path.name for path in (out / "replay" / "0").iterdir())


def listed(out):
    (state,) = json.loads(load_checkpoint(out / "checkpoint.ckpt")["replays"])
    return sorted(entry["file"] for entry in state["chunks"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that was never stopped; only to be read."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return out, run(out)


def test_a_run_has_a_record_every_512_steps_and_a_loss_once_learning_has_started(finished):
    out, result = finished
    lines = records(out)
    assert [line["step"] for line in lines] == [512, 1024, 1536, 2048]
    assert all(np.isfinite(line["loss"]) for line in lines)
    # ε as it was when a record's first step was played: from 1 to 0.1 over the 1,000 steps after the 200th.
    assert [line["exploration_epsilon"] for line in lines] == pytest.approx([1.0, 0.7192, 0.2584, 0.1])
    assert (result.num_steps, result.mean_score) == (NUM_STEPS, lines[-1]["mean_score"])


def test_a_record_before_learning_starts_has_no_loss(tmp_path):
    run(tmp_path / "run", num_steps=512, learning_starts=800)
    assert "loss" not in records(tmp_path / "run")[0]


def test_the_policy_has_no_layer_norm_unless_told(finished, tmp_path):
    assert not load_policy(finished[1].last_policy).spec.architecture.layer_norm
    run(tmp_path / "run", num_steps=64, layer_norm=True)
    assert load_policy(tmp_path / "run" / "last_policy.safetensors").spec.architecture.layer_norm


def test_the_written_configuration_is_complete_and_gives_the_same_run(finished, tmp_path):
    out, _ = finished
    values = tomllib.loads((out / "config.toml").read_text())
    # TOML has no value that says nothing.
    assert {item.name for item in fields(DQNSettings) if item.default is not None} <= values.keys()
    assert not (PQNSettings.__dataclass_fields__.keys() - DQNSettings.__dataclass_fields__.keys()) & values.keys()
    train_teacher.of(replace(TrainTeacherOptions(**values | {"out": tmp_path / "run"}), resume=False, overwrite=False))
    for line, other in zip(records(out), records(tmp_path / "run"), strict=True):
        assert {**line, "steps_per_second": 0} == {**other, "steps_per_second": 0}


# Its options


def test_every_setting_of_an_algorithm_is_an_option():
    options = TrainTeacherOptions.__dataclass_fields__.keys()
    assert PQNSettings.__dataclass_fields__.keys() | DQNSettings.__dataclass_fields__.keys() <= options


@pytest.mark.parametrize(
    ("optimizer", "learning_rate", "expected"),
    [(None, None, 2.5e-4), ("adam", None, 6.25e-5), ("rmsprop", None, 2.5e-4), ("adam", 1e-3, 1e-3)],
)
def test_the_learning_rate_goes_with_the_optimiser_unless_told(tmp_path, optimizer, learning_rate, expected):
    config = config_for(tmp_path, optimizer=optimizer, learning_rate=learning_rate)
    assert resolve_training(config).learning_rate == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"return_lambda": 0.5},
            r"^return_lambda belongs to pqn; dqn takes batch_size, clip_rewards, .*steps_per_update",
        ),
        ({"num_epochs": 2}, r"^num_epochs belongs to pqn; dqn takes "),
        (
            {"algorithm": "pqn", "learning_starts": None},
            r"^replay_capacity belongs to dqn; pqn takes clip_rewards, .*, rollout_length\.$",
        ),
        ({"optimizer": "sgd"}, r"^optimizer: got 'sgd', expected rmsprop or adam\.$"),
        ({"learning_starts": 900}, r"^learning_starts must not exceed replay_capacity, got 900 and 800\.$"),
    ],
)
def test_an_option_that_does_not_fit_the_algorithm_is_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        run(tmp_path / "run", **changes)
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_says_on_and_off(tmp_path):
    command = ("train-teacher", "--task", CHAIN_TASK, "--network", "mlp:8", "--out", tmp_path / "run", "--dry-run")
    plain = tomllib.loads(run_command(*command, "--algorithm", "dqn").stdout)
    assert (plain["layer_norm"], plain["double_q"], plain["clip_rewards"]) == (False, False, True)
    told = run_command(*command, "--algorithm", "dqn", "--layer-norm", "--double-q", "True", "--no-clip-rewards").stdout
    values = tomllib.loads(told)
    assert (values["layer_norm"], values["double_q"], values["clip_rewards"]) == (True, True, False)
    (tmp_path / "config.toml").write_text(told)
    again = run_command("train-teacher", "--config", tmp_path / "config.toml", "--no-double-q", "--dry-run").stdout
    assert tomllib.loads(again) == values | {"double_q": False}


# The replay on disk


def test_the_folder_holds_the_chunks_that_the_checkpoint_lists_and_no_others(finished):
    out, _ = finished
    assert chunks(out) == listed(out)
    stored = Replay(load_layout(out), 800, num_return_steps=1)
    (state,) = json.loads(load_checkpoint(out / "checkpoint.ckpt")["replays"])
    stored.read(out / "replay" / "0", state)
    assert stored.num_appended == NUM_STEPS
    assert 700 < stored.num_steps <= 800


def load_layout(out):
    task = load_policy(out / "last_policy.safetensors").tasks[0]
    return StepLayout.of_task(task.fingerprint, REPLAY_FIELDS)


def test_a_checkpoint_appends_only_new_blocks(tmp_path):
    run_until(tmp_path / "run", 1, replay_capacity=5000)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run" / "replay" / "0").iterdir()}
    run_until(tmp_path / "run", 1, resume=True, replay_capacity=5000)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run" / "replay" / "0").iterdir()}
    assert before.items() < after.items()


def test_a_resumed_run_goes_on_with_its_replay_optimiser_and_target_network(finished, tmp_path):
    run_until(tmp_path / "run", 2)
    stopped = load_checkpoint(tmp_path / "run" / "checkpoint.ckpt")
    result = run(tmp_path / "run", resume=True)
    resumed = load_checkpoint(tmp_path / "run" / "checkpoint.ckpt")
    straight = load_checkpoint(finished[0] / "checkpoint.ckpt")
    assert result.num_steps == NUM_STEPS
    assert stopped["learner"]["num_updates"] == 1024 // 16 - 200 // 16
    # The same updates at the same steps as without the stop: the replay did not have to fill anew.
    assert resumed["learner"]["num_updates"] == straight["learner"]["num_updates"] == 2048 // 16 - 200 // 16
    assert [line["step"] for line in records(tmp_path / "run")] == [512, 1024, 1536, 2048]
    assert json.loads(resumed["replays"])[0]["num_appended"] == NUM_STEPS
    period, target = 20, resumed["learner"]["target_network"]
    assert resumed["learner"]["num_updates"] % period
    assert any(not torch.equal(target[name], tensor) for name, tensor in resumed["learner"]["network"].items())


class Killed(BaseException):
    """The process dies here; nothing after it happens."""


@pytest.mark.parametrize(
    "moment", ["before the chunks", "between two chunks", "after the chunks", "after the checkpoint"]
)
@pytest.mark.parametrize("num_checkpoints", [0, 2])
def test_whenever_the_process_is_killed_checkpoint_and_replay_agree(tmp_path, monkeypatch, moment, num_checkpoints):
    out, left = tmp_path / "run", [num_checkpoints]

    def dying(function):
        def work(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return function(*arguments, **options)

        return work

    with monkeypatch.context() as patch:
        if moment == "after the checkpoint":
            patch.setattr(Replay, "prune", dying(Replay.prune))
        elif moment == "after the chunks":
            patch.setattr(training_run, "save_checkpoint", dying(training_run.save_checkpoint))
        elif moment == "between two chunks":
            patch.setattr(replay, "write_shard", dying(replay.write_shard))
        else:
            patch.setattr(Replay, "write", dying(Replay.write))
        with pytest.raises(Killed):
            run(out)
    if (out / "checkpoint.ckpt").is_file():
        assert set(listed(out)) <= set(chunks(out))
    result = run(out, resume=True)
    assert result.num_steps == NUM_STEPS
    assert [line["step"] for line in records(out)] == [512, 1024, 1536, 2048]
    assert chunks(out) == listed(out)


def test_a_full_disk_keeps_checkpoint_and_replay(tmp_path):
    run_until(tmp_path / "run", 2)
    before = (tmp_path / "run" / "checkpoint.ckpt").read_bytes(), listed(tmp_path / "run")
    with full_disk(2_500), pytest.raises(DiskFullError):
        run(tmp_path / "run", resume=True)
    assert ((tmp_path / "run" / "checkpoint.ckpt").read_bytes(), listed(tmp_path / "run")) == before
    assert run(tmp_path / "run", resume=True).num_steps == NUM_STEPS


def test_a_replay_that_is_not_there_is_refused(tmp_path):
    run_until(tmp_path / "run", 2)
    next((tmp_path / "run" / "replay" / "0").iterdir()).unlink()
    with pytest.raises(DatasetError, match=r"^Shard .*chunk-.* is missing, .*Begin anew with --overwrite\.$"):
        run(tmp_path / "run", resume=True)


def test_overwriting_deletes_the_replay_and_never_what_lies_beside_it(tmp_path):
    run(tmp_path / "run", num_steps=512)
    assert run(tmp_path / "run", overwrite=True, num_steps=64).num_steps == 64
    (tmp_path / "run" / "replay" / "0" / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"--overwrite would delete replay/0 in "):
        run(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "config.toml").is_file()


def test_it_trains_on_atari(tmp_path):
    options = {"max_frames": 48, "height": 42, "width": 42}
    changes = {"network": "conv:4-4:8", "env_kwargs": options, "num_steps": 128, "learning_starts": 64}
    result = run(tmp_path / "run", task="atari:breakout", **changes)
    policy = load_policy(result.last_policy)
    assert (policy.name, policy.spec.observation_shape) == ("breakout", (4, 42, 42))
    assert recorded(resolve_training(config_for(tmp_path)))["num_envs"] == 4
