"""`train-teacher` as a run: what it leaves, how it goes on after a stop, and the folders that it does not touch."""

import json
import re
import shutil
import tomllib
from dataclasses import replace

import pytest
import torch

from rldistill.envs import make_task
from rldistill.errors import (
    DiskFullError,
    LockedError,
    MismatchError,
    NumericalError,
    OutputExistsError,
    PolicyFileError,
    RldistillError,
    UsageError,
)
from rldistill.events import MessageEvent
from rldistill.networks import parse_architecture
from rldistill.options.shared import recorded
from rldistill.options.train_teacher import TrainTeacherOptions
from rldistill.policies import TorchPolicy, load_policy
from rldistill.session.metrics import read_metrics
from rldistill.sight import choose_parts
from rldistill.storage import folder_lock, load_checkpoint
from rldistill.verbs.train_teacher import GAMES_PER_MEAN, train_teacher
from tests.kit.interruptions import StopAfter, full_disk
from tests.kit.shown_env import shown_task
from tests.kit.small_policies import small_policy
from tests.kit.tiny_envs import CHAIN_TASK, TinyChain

NUM_STEPS = 320
STEPS_PER_ROLLOUT = 16


def config_for(out, **changes):
    """20 rollouts of 4 × 4 steps on the chain: a third of a second."""
    settings = {
        "task": CHAIN_TASK,
        "out": out,
        "num_steps": NUM_STEPS,
        "network": "mlp:8",
        "num_envs": 4,
        "rollout_length": 4,
        "num_minibatches": 2,
        "learning_rate": 1e-2,
        "exploration_fraction": 0.5,
        "checkpoint_period": 64,
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


class Messages:
    def __init__(self):
        self.texts = []

    def __call__(self, event):
        if isinstance(event, MessageEvent):
            self.texts.append(event.text)


class CrashAfter:
    """Fails at the n-th report, as a killed process would: nothing is saved."""

    def __init__(self, num_reports):
        self._left = num_reports

    def __call__(self, event):
        self._left -= not isinstance(event, MessageEvent)
        if self._left == 0:
            raise RuntimeError("crash")


def records(out):
    return read_metrics(out / "metrics.jsonl")


def planned(record):
    """What of a record follows from the configuration alone."""
    return record["step"], record["exploration_epsilon"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that was never stopped; only to be read."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return out, run(out)


# What a run leaves


def test_a_finished_run_says_what_it_did(finished):
    out, result = finished
    assert (result.num_steps, result.last_policy) == (NUM_STEPS, out / "last_policy.safetensors")
    assert result.best_policy == out / "best_policy.safetensors"
    assert result.mean_score == records(out)[-1]["mean_score"]
    assert sorted(path.name for path in out.iterdir() if path.name != ".lock") == [
        "best_policy.safetensors",
        "checkpoint.ckpt",
        "config.toml",
        "last_policy.safetensors",
        "metrics.jsonl",
    ]


def test_every_rollout_has_one_record(finished):
    lines = records(finished[0])
    assert [line["step"] for line in lines] == list(range(16, NUM_STEPS + 1, 16))
    assert {"loss", "exploration_epsilon", "steps_per_second", "scores"} <= lines[0].keys()


def test_exploration_follows_its_schedule_over_the_whole_run(finished):
    lines = records(finished[0])
    # From 1 to 0.05 within half of 320 steps; each rollout has the value of its beginning.
    expected = [1.0 - 0.95 * min(step / 160, 1.0) for step in range(0, NUM_STEPS, 16)]
    assert [line["exploration_epsilon"] for line in lines] == pytest.approx(expected)


def test_mean_scores_are_of_the_last_32_whole_games(finished):
    scores = []
    for line in records(finished[0]):
        scores += line["scores"]
        recent = scores[-GAMES_PER_MEAN:]
        assert line.get("mean_score") == (pytest.approx(sum(recent) / 32) if len(recent) == 32 else None)
    assert set(scores) == {0.3, 1.0}  # what the chain pays


def test_the_last_policy_says_that_it_is_the_last(finished):
    out, result = finished
    made = load_policy(out / "last_policy.safetensors").spec.provenance
    assert (made["verb"], made["chosen_by"], made["num_steps"]) == ("train-teacher", "last step", NUM_STEPS)
    assert made["mean_training_score"] == result.mean_score
    assert made["config"]["learning_rate"] == 1e-2


def test_the_best_policy_says_by_what_it_was_chosen(finished):
    out, _ = finished
    made = load_policy(out / "best_policy.safetensors").spec.provenance
    measured = {line["step"]: line["mean_score"] for line in records(out) if "mean_score" in line}
    best = max(measured.values())
    assert made["chosen_by"] == f"best mean score of 32 training games: {best:.4g}"
    assert made["mean_training_score"] == best
    assert made["num_steps"] == min(step for step, mean in measured.items() if mean == best)


def test_policies_are_float16_q_networks_for_their_task(finished):
    policy = load_policy(finished[0] / "last_policy.safetensors")
    assert (policy.spec.weights_dtype, policy.output_kind, policy.behaviour) == ("float16", "q_values", "greedy")
    assert policy.spec.architecture.layer_norm
    assert policy.tasks[0].name == CHAIN_TASK


def test_a_run_of_too_few_games_has_no_best_policy(tmp_path):
    result = run(tmp_path / "run", num_steps=16)
    assert (result.best_policy, result.mean_score) == (None, None)
    assert not (tmp_path / "run" / "best_policy.safetensors").exists()


def test_the_written_configuration_gives_the_same_run(finished, tmp_path):
    out, _ = finished
    values = tomllib.loads((out / "config.toml").read_text())
    again = TrainTeacherOptions(**values | {"out": tmp_path / "run"})
    train_teacher.of(replace(again, resume=False, overwrite=False))
    for line, other in zip(records(out), records(tmp_path / "run"), strict=True):
        assert {**line, "steps_per_second": 0} == {**other, "steps_per_second": 0}
    weights, other_weights = (load_policy(path / "last_policy.safetensors") for path in (out, tmp_path / "run"))
    for name, tensor in weights.network.state_dict().items():
        assert torch.equal(tensor, other_weights.network.state_dict()[name])


def test_another_seed_gives_another_run(finished, tmp_path):
    run(tmp_path / "run", seed=1)
    assert [line["loss"] for line in records(tmp_path / "run")] != [line["loss"] for line in records(finished[0])]


def test_the_python_verb_takes_the_settings_by_name(tmp_path):
    settings = recorded(config_for(tmp_path / "run", num_steps=32))
    result = train_teacher(settings.pop("task"), **settings)
    assert (result.num_steps, len(records(tmp_path / "run"))) == (32, 2)


# Stopping and going on


def test_a_run_stopped_by_a_callback_is_saved_and_says_how_to_go_on(tmp_path):
    with pytest.raises(KeyboardInterrupt, match=r"^stopped at step 48; saved\. Go on with --resume\.$"):
        run(tmp_path / "run", StopAfter(3))
    assert load_checkpoint(tmp_path / "run" / "checkpoint.ckpt")["step"] == 48
    assert load_policy(tmp_path / "run" / "last_policy.safetensors").spec.provenance["num_steps"] == 48


def test_a_resumed_run_goes_on_where_it_was_and_says_that_episodes_begin_anew(tmp_path):
    run_until(tmp_path / "run", 7)
    messages = Messages()
    result = run(tmp_path / "run", messages, resume=True)
    assert messages.texts[0] == "going on from step 112; the emulators begin new episodes"
    assert result.num_steps == NUM_STEPS


def test_a_finished_run_that_is_resumed_says_so_and_makes_no_environment(finished, tmp_path, monkeypatch):
    out, result = finished
    shutil.copytree(out, tmp_path / "run")
    monkeypatch.setattr("rldistill.verbs.training_run.make_training", None)
    messages = Messages()
    again = run(tmp_path / "run", messages, resume=True)
    assert messages.texts == [f"{tmp_path / 'run'} is finished"]
    assert (again.num_steps, again.mean_scores) == (result.num_steps, result.mean_scores)
    assert again.last_policy.read_bytes() == result.last_policy.read_bytes()


def test_a_finished_run_whose_last_policy_is_gone_writes_it_again(finished, tmp_path):
    out, result = finished
    shutil.copytree(out, tmp_path / "run")
    (tmp_path / "run" / result.last_policy.name).unlink()
    again = run(tmp_path / "run", resume=True)
    assert again.last_policy == tmp_path / "run" / result.last_policy.name
    assert again.last_policy.read_bytes() == result.last_policy.read_bytes()
    assert again.num_steps == result.num_steps


@pytest.mark.parametrize("stops", [(7,), (1, 12, 3)])
def test_records_of_a_resumed_run_are_those_of_one_that_never_stopped(finished, tmp_path, stops):
    for index, num_reports in enumerate(stops):
        run_until(tmp_path / "run", num_reports, resume=index > 0)
    run(tmp_path / "run", resume=True)
    assert [planned(line) for line in records(tmp_path / "run")] == [planned(line) for line in records(finished[0])]


def test_a_resumed_run_ends_with_the_counters_optimiser_and_random_states_of_one_that_never_stopped(finished, tmp_path):
    run_until(tmp_path / "run", 7)
    run(tmp_path / "run", resume=True)
    straight, resumed = (load_checkpoint(out / "checkpoint.ckpt") for out in (finished[0], tmp_path / "run"))
    assert (resumed["step"], resumed["rng"]) == (straight["step"], straight["rng"])
    assert torch.equal(resumed["learner"]["generator"], straight["learner"]["generator"])
    groups = [state["learner"]["optimizer"]["param_groups"] for state in (resumed, straight)]
    assert groups[0] == groups[1]
    assert groups[0][0]["lr"] == pytest.approx(1e-2 * (1 - 304 / 320))
    steps = [
        {float(entry["step"]) for entry in state["learner"]["optimizer"]["state"].values()}
        for state in (resumed, straight)
    ]
    assert steps[0] == steps[1] == {20 * 2 * 2}  # rollouts × epochs × minibatches


def test_weights_and_moments_at_the_stop_are_those_of_one_that_never_stopped(finished, tmp_path):
    # Both are at step 64: the run that went on saved a checkpoint there, which the crash kept.
    run_until(tmp_path / "stopped", 4)
    with pytest.raises(RuntimeError, match=r"^crash$"):
        run(tmp_path / "crashed", CrashAfter(6))
    stopped, crashed = (load_checkpoint(tmp_path / name / "checkpoint.ckpt") for name in ("stopped", "crashed"))
    assert stopped["step"] == crashed["step"] == 64
    for name, tensor in stopped["learner"]["network"].items():
        assert torch.equal(tensor, crashed["learner"]["network"][name])
    assert stopped["scores"] == crashed["scores"]


def test_recent_scores_and_the_best_mean_survive_a_stop(tmp_path):
    run_until(tmp_path / "run", 10)
    before = load_checkpoint(tmp_path / "run" / "checkpoint.ckpt")
    assert len(before["scores"]) == GAMES_PER_MEAN
    assert before["best_mean"] == max(line["mean_score"] for line in records(tmp_path / "run") if "mean_score" in line)
    run_until(tmp_path / "run", 1, resume=True)
    after = load_checkpoint(tmp_path / "run" / "checkpoint.ckpt")
    new = records(tmp_path / "run")[-1]["scores"]
    assert after["scores"] == (before["scores"] + new)[-GAMES_PER_MEAN:]
    assert after["best_mean"] >= before["best_mean"]


def test_after_a_crash_the_run_goes_on_from_the_last_checkpoint_and_repeats_the_rest(finished, tmp_path):
    with pytest.raises(RuntimeError, match=r"^crash$"):
        run(tmp_path / "run", CrashAfter(6))
    assert records(tmp_path / "run")[-1]["step"] == 96  # beyond the checkpoint at 64
    messages = Messages()
    run(tmp_path / "run", messages, resume=True)
    assert messages.texts[0] == "going on from step 64; the emulators begin new episodes"
    assert [planned(line) for line in records(tmp_path / "run")] == [planned(line) for line in records(finished[0])]


def test_a_crash_before_the_first_checkpoint_begins_anew(finished, tmp_path):
    with pytest.raises(RuntimeError, match=r"^crash$"):
        run(tmp_path / "run", CrashAfter(2))
    assert not (tmp_path / "run" / "checkpoint.ckpt").exists()
    run(tmp_path / "run", resume=True)
    # From the start, with the same seeds: the very same run.
    assert [line["loss"] for line in records(tmp_path / "run")] == [line["loss"] for line in records(finished[0])]


def test_resuming_where_nothing_is_begins(tmp_path):
    assert run(tmp_path / "run", resume=True, num_steps=16).num_steps == 16


def test_resuming_a_finished_run_changes_nothing_but_answers(tmp_path):
    first = run(tmp_path / "run")
    before = [planned(line) for line in records(tmp_path / "run")]
    hash_before = load_policy(first.last_policy).hash
    again = run(tmp_path / "run", resume=True)
    assert again == first
    assert [planned(line) for line in records(tmp_path / "run")] == before
    assert load_policy(again.last_policy).hash == hash_before


def test_a_resumed_run_must_have_the_configuration_it_began_with(tmp_path):
    run_until(tmp_path / "run", 2)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(RldistillError) as caught:
        run(tmp_path / "run", resume=True, learning_rate=0.5, seed=3)
    assert str(caught.value) == (
        f"{tmp_path / 'run'}: the run began with another configuration: learning_rate was 0.01, is 0.5; "
        "seed was 0, is 3. Use the same, or --overwrite."
    )
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_the_folders_name_the_period_of_checkpoints_and_the_threads_may_change(tmp_path):
    run_until(tmp_path / "run", 1, num_steps=32)
    (tmp_path / "run").rename(tmp_path / "moved")
    assert run(tmp_path / "moved", resume=True, num_steps=32, checkpoint_period=1000, num_threads=2).num_steps == 32


def test_a_damaged_checkpoint_is_refused(tmp_path):
    run_until(tmp_path / "run", 2)
    path = tmp_path / "run" / "checkpoint.ckpt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RldistillError, match=r"^Checkpoint .*checkpoint\.ckpt cannot be read: .*--overwrite\.$"):
        run(tmp_path / "run", resume=True)


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path):
    run_until(tmp_path / "run", 4)
    before = (tmp_path / "run" / "checkpoint.ckpt").read_bytes()
    limit = len((tmp_path / "run" / "metrics.jsonl").read_bytes()) + 5_000
    assert limit < len(before)
    with full_disk(limit), pytest.raises(DiskFullError, match="intact"):
        run(tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "checkpoint.ckpt").read_bytes() == before
    assert run(tmp_path / "run", resume=True).num_steps == NUM_STEPS


def test_a_diverged_run_says_so_and_saves_nothing_of_it(tmp_path):
    with pytest.raises(
        NumericalError,
        match=r"^PQN diverged: the loss of a rollout is .*Begin anew with --overwrite and a lower learning rate\.$",
    ):
        run(tmp_path / "run", learning_rate=1e30)
    assert not (tmp_path / "run" / "last_policy.safetensors").exists()


# Going on from a policy file


def test_a_policy_says_nothing_of_where_it_was_made_nor_who_asked(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/home/me/train.py", "--api-key", "secret"])
    result = run(tmp_path / "run", init_from=finished[1].last_policy)
    made = load_policy(result.last_policy).spec.provenance
    assert made["config"]["init_from"] == "last_policy.safetensors"
    assert "out" not in made["config"]
    assert not any(text in json.dumps(made) for text in ("secret", str(tmp_path), "train.py"))
    assert str(tmp_path) in (tmp_path / "run" / "config.toml").read_text(), "the folder, which stays, may say it"


def test_init_from_begins_with_its_weights_and_a_fresh_optimiser(finished, tmp_path):
    source = finished[0] / "last_policy.safetensors"
    # At the very end of the schedule the learning rate is next to nothing.
    run(tmp_path / "run", init_from=source, start_step=304, learning_rate=1e-12)
    before, after = load_policy(source), load_policy(tmp_path / "run" / "last_policy.safetensors")
    for name, tensor in before.network.state_dict().items():
        assert torch.equal(tensor, after.network.state_dict()[name])
    optimizer = load_checkpoint(tmp_path / "run" / "checkpoint.ckpt")["learner"]["optimizer"]
    assert {float(entry["step"]) for entry in optimizer["state"].values()} == {4}  # of this run alone


def test_start_step_says_where_in_the_schedule_to_begin(finished, tmp_path):
    source = finished[0] / "last_policy.safetensors"
    result = run(tmp_path / "run", init_from=source, start_step=160)
    assert [planned(line) for line in records(tmp_path / "run")] == [
        planned(line) for line in records(finished[0]) if line["step"] > 160
    ]
    assert result.num_steps == NUM_STEPS


def test_init_from_alone_begins_the_schedule_at_its_start(finished, tmp_path):
    run_until(tmp_path / "run", 1, init_from=finished[0] / "last_policy.safetensors")
    assert planned(records(tmp_path / "run")[0]) == (16, 1.0)


def test_a_run_that_began_from_a_policy_file_is_resumed_from_its_own_checkpoint(finished, tmp_path):
    source = finished[0] / "last_policy.safetensors"
    run_until(tmp_path / "run", 3, init_from=source, start_step=160)
    messages = Messages()
    run(tmp_path / "run", messages, init_from=source, start_step=160, resume=True)
    assert messages.texts[0] == "going on from step 208; the emulators begin new episodes"
    assert [line["step"] for line in records(tmp_path / "run")] == list(range(176, NUM_STEPS + 1, 16))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start_step": 16}, "start_step belongs with init_from: it says where in the schedule those weights stand."),
        ({"start_step": 320}, "start_step must lie in [0, num_steps), got 320 of 320."),
        ({"start_step": -1}, "start_step must lie in [0, num_steps), got -1 of 320."),
        ({"algorithm": "a3c"}, "algorithm: got 'a3c', expected pqn or dqn."),
        ({"num_steps": 0}, "num_steps must be 1 or more, got 0."),
        ({"checkpoint_period": 0}, "checkpoint_period must be 1 or more, got 0."),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(tmp_path, changes, message):
    with pytest.raises(UsageError) as caught:
        config_for(tmp_path / "run", **changes)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "NoSuchTask-v0"}, "Task 'NoSuchTask-v0' cannot be made"),
        ({"network": "net9"}, "Unknown network: got 'net9'"),
        ({"gamma": 2.0}, "gamma must lie in [0, 1], got 2.0."),
        ({"num_minibatches": 5}, "num_minibatches must divide num_envs × rollout_length, got 5 and 16."),
        ({"precision": "half"}, "precision: got 'half'"),
        ({"device": "tpu"}, "device: got 'tpu'"),
        ({"env_kwargs": "{}"}, "env_kwargs: got '{}', expected a mapping"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(UsageError) as caught:
        run(tmp_path / "run", **changes)
    assert str(caught.value).startswith(message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("network", ["gru:4", "mlp:4+lstm:4", "stack:2+mlp:4"])
def test_a_network_that_remembers_is_refused_since_it_would_learn_with_an_empty_memory(tmp_path, network):
    with pytest.raises(
        UsageError, match=rf"^network: got '{re.escape(network)}', which remembers, and pqn learns from"
    ):
        run(tmp_path / "run", network=network)
    assert list(tmp_path.iterdir()) == []


def test_init_from_another_network_is_refused(finished, tmp_path):
    source = finished[0] / "last_policy.safetensors"
    with pytest.raises(UsageError) as caught:
        run(tmp_path / "run", init_from=source, network="mlp:9", layer_norm=False)
    assert str(caught.value) == (
        f"--init-from {source} holds mlp:8 with layer norm, --network says mlp:9 without layer norm. Say the same: "
        "--network mlp:8 --layer-norm."
    )


def test_init_from_layers_that_have_no_name_says_so(finished, tmp_path):
    policy = load_policy(finished[0] / "last_policy.safetensors")
    for name, network in (("tanh", {"activation": "tanh"}), ("odd", {"name": "linear"})):
        policy.with_spec(architecture=replace(policy.spec.architecture, **network)).save(
            tmp_path / f"{name}.safetensors"
        )
        with pytest.raises(UsageError, match=r"No --network makes its layers: name another file\.$"):
            run(tmp_path / "run", init_from=tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"network": "net3"}, "takes images"), ({"init_from": "no-file"}, "found nothing there")],
)
def test_what_does_not_fit_leaves_no_folder_and_deletes_no_earlier_run(tmp_path, changes, message):
    with pytest.raises(RldistillError, match=message):
        run(tmp_path / "run", **changes)
    assert list(tmp_path.iterdir()) == []
    run(tmp_path / "run", num_steps=16)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(RldistillError, match=message):
        run(tmp_path / "run", overwrite=True, **changes)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_init_from_another_task_is_refused(tmp_path):
    small_policy(layer_norm=True).save(tmp_path / "p.safetensors")
    with pytest.raises(MismatchError, match=r"does not fit .*TinyChain-v0: observation_shape: \[4\] against \[5\]"):
        run(tmp_path / "run", init_from=tmp_path / "p.safetensors")


def test_init_from_a_policy_of_another_kind_is_refused(finished, tmp_path):
    policy = load_policy(finished[0] / "last_policy.safetensors").with_spec(output_kind="logits")
    policy.save(tmp_path / "p.safetensors")
    with pytest.raises(MismatchError, match=r"p\.safetensors gives logits, pqn goes on from q_values\.$"):
        run(tmp_path / "run", init_from=tmp_path / "p.safetensors")


def test_init_from_a_policy_that_sees_a_part_is_refused(tmp_path):
    task = make_task(CHAIN_TASK).task
    sight = choose_parts("student_sees", "first", {"first": (0, 1)}, task)
    policy = TorchPolicy.create(parse_architecture("mlp:8", layer_norm=True), [task], sight=sight)
    policy.save(tmp_path / "p.safetensors")
    with pytest.raises(MismatchError, match=r"p\.safetensors sees first alone, pqn shows a network the whole"):
        run(tmp_path / "run", init_from=tmp_path / "p.safetensors")


def test_init_from_nothing_is_refused(tmp_path):
    with pytest.raises(PolicyFileError, match="found nothing there"):
        run(tmp_path / "run", init_from=tmp_path / "p.safetensors")


# Whose folder


def test_an_existing_run_is_neither_continued_nor_deleted_unless_told(tmp_path):
    run(tmp_path / "run", num_steps=16)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(OutputExistsError) as caught:
        run(tmp_path / "run", num_steps=16)
    assert str(caught.value) == (
        f"--out {tmp_path / 'run'} already holds a run. Add --resume to go on, --overwrite to delete it (in Python "
        "resume=True, overwrite=True), or choose another."
    )
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_of_something_else_is_refused(tmp_path, flags):
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(OutputExistsError) as caught:
        run(tmp_path, **flags)
    assert str(caught.value) == (
        f"--out {tmp_path} exists and is not an rldistill run: found thesis.tex, expected config.toml. "
        "Choose another --out."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_overwriting_begins_anew_with_another_configuration(tmp_path):
    run(tmp_path / "run")
    assert run(tmp_path / "run", overwrite=True, num_steps=32, seed=5).num_steps == 32
    assert [line["step"] for line in records(tmp_path / "run")] == [16, 32]
    assert not (tmp_path / "run" / "best_policy.safetensors").exists()


def test_overwriting_never_deletes_what_no_run_wrote(tmp_path):
    run(tmp_path / "run", num_steps=16)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(
        OutputExistsError, match=r"--overwrite would delete notes\.txt in .*, which no run of rldistill"
    ):
        run(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "last_policy.safetensors").is_file()


def test_going_on_and_deleting_exclude_each_other(tmp_path):
    with pytest.raises(UsageError, match=r"^--resume and --overwrite exclude each other"):
        run(tmp_path / "run", resume=True, overwrite=True)


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(OutputExistsError, match=r"run is a file, expected a folder\. Choose another --out\.$"):
        run(tmp_path / "run")


def test_a_folder_in_which_another_process_writes_is_refused(tmp_path):
    with folder_lock(tmp_path / "run"), pytest.raises(LockedError, match="is being written by another process"):
        run(tmp_path / "run")


def test_an_empty_folder_is_taken(tmp_path):
    assert run(tmp_path, num_steps=16).num_steps == 16


# Tasks of other kinds


def test_it_trains_on_cart_pole(tmp_path):
    result = run(tmp_path / "run", task="CartPole-v1", num_steps=64)
    assert load_policy(result.last_policy).tasks[0].name == "CartPole-v1"


@pytest.mark.parametrize(("shows", "network"), [("Parts", "mlp:64x64"), ("Camera", "combined:32-64-64:256:64x64")])
def test_auto_is_a_network_that_suits_the_parts_of_an_observation(tmp_path, shows, network):
    result = run(tmp_path / "run", task=shown_task(shows), network="auto", num_steps=32)
    assert load_policy(result.last_policy).spec.architecture.name == network


def test_it_trains_on_atari_and_reports_whole_games(tmp_path):
    options = {"max_frames": 48, "height": 42, "width": 42}
    changes = {"network": "conv:4-4:8", "env_kwargs": options, "num_envs": 1, "rollout_length": 16, "num_steps": 32}
    result = run(tmp_path / "run", task="atari:pong", **changes)
    policy = load_policy(result.last_policy)
    assert policy.name == "pong"
    assert policy.spec.observation_shape == (4, 42, 42)
    assert policy.tasks[0].protocol.max_frames == 48
    assert sum(len(line["scores"]) for line in records(tmp_path / "run")) == 2  # of 12 decisions each


def test_the_configuration_is_not_changed_by_a_run(tmp_path):
    config = config_for(tmp_path / "run", num_steps=16, num_threads=0, precision="auto", device="auto")
    kept = replace(config)
    train_teacher.of(replace(config, resume=False, overwrite=False))
    assert config == kept
    written = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert written["device"] in ("cpu", "cuda")
    assert written["precision"] in ("float32", "bfloat16")
    assert written["num_threads"] >= 1


def test_the_chain_pays_what_its_docstring_says():
    env = TinyChain()
    env.reset(seed=0)
    steps = [env.step(TinyChain.RIGHT) for _ in range(5)]
    assert [step[1] for step in steps] == [0.0, 0.0, 0.0, 0.0, 1.0]
    assert [step[2] for step in steps] == [False] * 4 + [True]
    env.reset(seed=0)
    assert env.step(TinyChain.LEFT)[1:3] == (0.3, True)


@pytest.mark.parametrize("task", [TinyChain, 3, ["CartPole-v1", TinyChain]])
def test_a_task_that_is_no_id_is_refused_with_the_way_to_register_it(tmp_path, task):
    with pytest.raises(UsageError) as caught:
        train_teacher(task, num_steps=100, out=tmp_path / "t")
    assert str(caught.value) == (
        f"task: got a {type(task).__name__}, expected an id, or a list of ids: a run writes down what it plays, to go "
        'on with it. Register yours with gymnasium.register(id="Mine-v0", entry_point=…) in a module of your own, and '
        "pass 'module:Mine-v0'."
    )
    assert not (tmp_path / "t").exists()
