"""What a distillation makes of a dataset, and what it leaves in its folder."""

import dataclasses
import json
import tomllib

import numpy as np
import pytest
import torch

import rldistill
from rldistill.data import Dataset, DatasetWriter
from rldistill.errors import (
    DatasetError,
    LockedError,
    MismatchError,
    NumericalError,
    OutputExistsError,
    PolicyFileError,
    RldistillError,
    UsageError,
)
from rldistill.events import MessageEvent, ProgressEvent
from rldistill.networks import parse_architecture
from rldistill.options.distill import DistillOptions
from rldistill.policies import TorchPolicy, load_policy
from rldistill.session.metrics import read_metrics
from rldistill.storage import folder_lock
from rldistill.verbs import distillation_run
from rldistill.verbs.distill import set_up
from rldistill.verbs.evaluate import evaluate
from tests.kit.cart_pole import collect_cart_pole, hand_made_teacher, short_cart_pole
from tests.kit.flat import distill
from tests.kit.small_policies import image_task, small_policy

TINY = {"student": "mlp:8", "num_updates": 20, "batch_size": 16, "evaluate_period": 10, "precision": "float32"}


def tiny(data, out, **settings) -> TorchPolicy:
    """Distil for 20 updates."""
    return distill(data, out=out, **(TINY | settings))


def warnings_of(data, out, **settings) -> list[str]:
    told: list[MessageEvent] = []
    tiny(data, out, callbacks=[lambda event: isinstance(event, MessageEvent) and told.append(event)], **settings)
    return [event.text for event in told if event.level == "warning"]


@pytest.mark.learning
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_students_play_as_well_as_their_teacher(tmp_path, optimizer):
    task = short_cart_pole(200)
    teacher = hand_made_teacher(task)
    collect_cart_pole(tmp_path / "d", teacher, num_steps=6000)
    for seed in range(3):
        student = distill(
            tmp_path / "d",
            student="mlp:16",
            out=tmp_path / f"run {seed}",
            num_updates=600,
            batch_size=64,
            optimizer=optimizer,
            learning_rate="one_cycle:5e-3",
            precision="float32",
            seed=seed,
        )
        result = evaluate(student, teacher=teacher, num_episodes=30, seed=100 + seed, exploration_epsilon=0.1)
        row = result.students[0]
        # Always naming the commonest action agrees in some 55 %; random play keeps the pole up for 22 of 200 steps.
        assert student.spec.provenance["held_out_agreement"] > 0.85
        assert row.agreement > 0.85
        assert row.retention_lower_bound > 0.95


def test_a_divergence_gives_a_student_of_logits_and_q_mse_one_of_q_values(tmp_path, q_data):
    student = tiny(q_data, tmp_path / "kl")
    assert (student.output_kind, student.behaviour) == ("logits", "greedy")
    student = tiny(q_data, tmp_path / "mse", loss="q_mse")
    assert (student.output_kind, student.behaviour) == ("q_values", "greedy")


def test_the_student_of_a_sampling_teacher_samples(tmp_path, logit_data):
    student = tiny(logit_data, tmp_path / "r")
    assert (student.output_kind, student.behaviour) == ("logits", "sample")
    assert load_policy(tmp_path / "r" / "student.safetensors").behaviour == "sample"


def test_what_is_returned_is_what_the_file_holds(tmp_path, q_data, teacher_file):
    student = tiny(q_data, tmp_path / "r", seed=3)
    saved = load_policy(tmp_path / "r" / "student.safetensors")
    assert student.hash == saved.hash
    made = saved.spec.provenance
    assert made["verb"] == "distill"
    assert made["num_updates"] == 20
    assert made["chosen_by"] == "last update"
    assert made["teacher"] == {"name": "hand-made", "hash": hand_made_teacher().hash, "path": str(teacher_file)}
    assert made["dataset"] == {"num_steps": 2000, "seed": 0}
    assert made["config"]["loss"] == "sharpened_kl"
    assert (made["config"]["temperature"], made["config"]["seed"]) == (0.01, 3)
    assert saved.tasks == (Dataset.open(q_data).provenance.task,)
    assert 0 <= made["held_out_agreement"] <= 1


def test_the_student_fits_what_it_was_measured_on(tmp_path, q_data):
    student = tiny(q_data, tmp_path / "r", num_updates=100)
    records = read_metrics(tmp_path / "r" / "metrics.jsonl")
    assert [record["update"] for record in records] == list(range(10, 101, 10))
    assert student.spec.provenance["held_out_agreement"] == records[-1]["held_out_agreement"] > 0.6
    assert records[-1]["loss"] < records[0]["loss"]
    expected_keys = {"update", "loss", "gradient_norm", "learning_rate", "temperature"}
    assert set(records[0]) == expected_keys | {"held_out_loss", "held_out_agreement", "majority_share"}


def test_a_last_stretch_shorter_than_the_period_is_measured_too(tmp_path, q_data):
    tiny(q_data, tmp_path / "r", num_updates=23)
    assert [record["update"] for record in read_metrics(tmp_path / "r" / "metrics.jsonl")] == [10, 20, 23]


def test_schedules_are_recorded_as_they_were_used(tmp_path, q_data):
    tiny(
        q_data,
        tmp_path / "r",
        temperature="linear:0.2->0.1@0.5",
        learning_rate="cosine:1e-2->0",
        loss="softened_kl",
        num_updates=40,
    )
    records = read_metrics(tmp_path / "r" / "metrics.jsonl")
    # The temperature is the measurement's own, after 10 of 40 updates, 20, and so on; the rate is the last update's.
    assert [r["temperature"] for r in records] == pytest.approx([0.15, 0.1, 0.1, 0.1])
    rates = [1e-2 * (1 + np.cos(np.pi * update / 40)) / 2 for update in (9, 19, 29, 39)]
    assert [r["learning_rate"] for r in records] == pytest.approx(rates)
    config = tomllib.loads((tmp_path / "r" / "config.toml").read_text())
    assert config["temperature"] == "linear:0.2->0.1@0.5"


def test_the_configuration_is_written_with_every_choice_made(tmp_path, q_data, logit_data):
    tiny(q_data, tmp_path / "q", precision="auto")
    config = tomllib.loads((tmp_path / "q" / "config.toml").read_text())
    assert (config["loss"], config["temperature"], config["optimizer"]) == ("sharpened_kl", 0.01, "adam")
    assert config["device"] in ("cpu", "cuda")
    assert config["precision"] in ("float32", "bfloat16")
    assert config["num_threads"] >= 1
    tiny(logit_data, tmp_path / "l", loss="nll")
    config = tomllib.loads((tmp_path / "l" / "config.toml").read_text())
    assert config["loss"] == "nll"
    assert "temperature" not in config
    tiny(logit_data, tmp_path / "d")
    assert tomllib.loads((tmp_path / "d" / "config.toml").read_text())["temperature"] == 1.0


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_the_same_call_gives_the_same_student_bit_for_bit(tmp_path, q_data, optimizer):
    for name in ("a", "b"):
        tiny(q_data, tmp_path / name, optimizer=optimizer, seed=5)
    tiny(q_data, tmp_path / "c", optimizer=optimizer, seed=6)
    students = [(tmp_path / name / "student.safetensors").read_bytes() for name in "abc"]
    assert students[0] == students[1] != students[2]
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in "abc"]
    assert metrics[0] == metrics[1] != metrics[2]


def test_an_open_dataset_and_a_callable_loss_serve_from_python(tmp_path, q_data):
    rows = []

    def squared_error(student, target):
        rows.append(len(student))
        return ((student - target) ** 2).sum(dim=1)

    student = rldistill.distill(Dataset.open(q_data), out=tmp_path / "r", loss=squared_error, **TINY)
    assert rows.count(16) == 20
    assert student.output_kind == "logits"
    loss = tomllib.loads((tmp_path / "r" / "config.toml").read_text())["loss"]
    assert loss.startswith("custom:")
    assert loss.endswith("squared_error")
    assert student.spec.provenance["config"]["loss"] == loss


def test_a_callable_loss_that_reduces_is_told_what_to_return(tmp_path, q_data):
    with pytest.raises(UsageError, match=r"returned shape \[\], expected a tensor of shape \[16\], one value per row"):
        tiny(q_data, tmp_path / "r", loss=lambda student, target: ((student - target) ** 2).mean())


def test_the_students_scores_are_recorded_where_it_is_to_play(tmp_path, q_data):
    tiny(q_data, tmp_path / "r", num_updates=110, evaluate_episodes=3, num_envs=2)
    records = read_metrics(tmp_path / "r" / "metrics.jsonl")
    assert [record["update"] for record in records if "scores" in record] == [50, 100, 110]
    assert all(len(record["scores"]) == 3 for record in records if "scores" in record)
    assert all(0 < score <= 40 for record in records for score in record.get("scores", []))


def test_progress_reaches_callbacks(tmp_path, q_data):
    events = []
    tiny(q_data, tmp_path / "r", callbacks=[events.append], evaluate_episodes=0)
    progress = [event for event in events if isinstance(event, ProgressEvent)]
    assert [event.done for event in progress] == list(range(1, 21))
    assert {(event.phase, event.total, event.unit) for event in progress} == {("distill", 20, "updates")}
    assert {"loss", "updates_per_second", "held_out_agreement"} == progress[-1].metrics.keys()


# What says loudly that nothing is learned.


def test_a_student_that_learned_nothing_is_named_at_the_first_measurement_and_at_the_last(tmp_path, q_data):
    # A learning rate that moves no weight: the student still names the first action always, and that is the rarer one.
    warnings = warnings_of(q_data, tmp_path / "r", learning_rate=1e-46, num_updates=40)
    record = read_metrics(tmp_path / "r" / "metrics.jsonl")[0]
    assert record["held_out_agreement"] <= record["majority_share"]
    assert warnings == [
        f"after {update} updates the student agrees with the teacher in {record['held_out_agreement']:.1%} of held-out "
        f"steps, always naming the commonest action in {record['majority_share']:.1%}: it has learned nothing so "
        "far. If this lasts, raise the updates or the temperature (0.01 is meant for Q-values of order 1), or change "
        "the learning rate: networks as large as dqn may need 3e-4."
        for update in (10, 40)
    ]


def test_a_student_that_learns_is_not_warned_about(tmp_path, q_data):
    assert warnings_of(q_data, tmp_path / "r", num_updates=200, evaluate_period=100, learning_rate=1e-2) == []


def test_a_temperature_meant_for_q_values_is_warned_about_for_logits(tmp_path, logit_data):
    settings = {"num_updates": 200, "evaluate_period": 100, "learning_rate": 1e-2}
    warnings = warnings_of(logit_data, tmp_path / "r", temperature=0.01, **settings)
    assert [text.partition(":")[0] for text in warnings] == ["temperature"]
    assert "1 keeps the teacher's own policy" in warnings[0]
    assert warnings_of(logit_data, tmp_path / "s", temperature=1.0, **settings) == []


# What is refused.


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"temperature": 0}, r"temperature must stay > 0, got 0, whose lowest value is 0\."),
        ({"temperature": -1.5}, "temperature must stay > 0, got -1.5"),
        ({"temperature": "linear:1->0"}, "temperature must stay > 0, got 'linear:1->0', whose lowest value is 0"),
        ({"temperature": "linear:1->1e-25"}, "temperature: got 1e-25, expected 1e-20 or more"),
        ({"temperature": "nan"}, "temperature: got 'nan', expected finite numbers"),
        ({"temperature": "hot"}, "temperature: got 'hot', expected a number, linear:START->END"),
        ({"loss": "nll", "temperature": 0.01}, "temperature: got 0.01 for the loss 'nll', which takes none"),
        ({"loss": "q_mse", "temperature": 1}, "temperature: got 1.0 for the loss 'q_mse', which takes none"),
        ({"loss": "kl_divergence"}, "loss: got 'kl_divergence', expected one of nll, q_mse, sharpened_kl"),
        ({"loss": "sharpend_kl"}, "Did you mean 'sharpened_kl'?"),
        ({"learning_rate": -1e-3}, "learning_rate must be > 0 and may fall to 0: got -0.001"),
        ({"learning_rate": "linear:1e-3->-1e-3"}, "learning_rate must be > 0 and may fall to 0: got 'linear:1e-3"),
        ({"learning_rate": 0}, "learning_rate must be > 0 and may fall to 0: got 0"),
        ({"held_out_fraction": 0.09}, r"held_out_fraction must be at least 0\.1 and less than 1, got 0\.09"),
        ({"held_out_fraction": 1.0}, "held_out_fraction must be at least 0.1 and less than 1, got 1.0"),
        ({"optimizer": "sgd"}, "optimizer: got 'sgd', expected adam or rmsprop"),
        ({"precision": "float8"}, "precision: got 'float8', expected auto, float32 or bfloat16"),
        ({"device": "tpu"}, "device: got 'tpu', expected auto, cpu or cuda"),
        ({"student": "net4"}, "Unknown network: got 'net4', expected one of dqn, net1, net2, net3"),
        (
            {"student": "rnn:64"},
            "Unknown network: got 'rnn:64', expected gru:16, lstm:32",
        ),
        (
            {"student": torch.nn.ModuleDict({"memory": torch.nn.GRU(4, 2)})},
            "Module ModuleDict is recurrent: it has memory.weight_ih_l0. Let a teacher take and return its state",
        ),
        ({"num_updates": 0}, "num_updates must be 1 or more, got 0"),
        ({"batch_size": 0}, "batch_size must be 1 or more, got 0"),
        ({"evaluate_period": 0}, "evaluate_period must be 1 or more, got 0"),
        ({"evaluate_episodes": -1}, "evaluate_episodes must be 0 or more, got -1"),
        ({"weight_decay": -0.1}, "weight_decay must be 0 or more, got -0.1"),
        ({"weight_decay": float("nan")}, "weight_decay must be 0 or more, got nan"),
        ({"max_gradient_norm": 0.0}, "max_gradient_norm must be > 0, got 0.0"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"num_threads": -2}, r"num_threads must lie in \[0, 1024\], got -2"),
    ],
)
def test_a_value_out_of_range_is_wrong_usage_before_anything_is_read_or_written(tmp_path, settings, line):
    with pytest.raises(UsageError, match=line):
        distill(tmp_path / "no dataset", out=tmp_path / "r", **(TINY | settings))
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_does_not_fit_the_teachers_outputs_says_which_do(tmp_path, logit_data):
    with pytest.raises(MismatchError) as caught:
        tiny(logit_data, tmp_path / "r", loss="q_mse")
    assert str(caught.value) == (
        "loss: 'q_mse' fits q_values, the teacher gives logits. Use one of nll, sharpened_kl, softened_kl, reverse_kl."
    )
    assert not (tmp_path / "r").exists()


def test_a_student_that_does_not_fit_the_observations_is_refused(tmp_path, q_data):
    with pytest.raises(
        MismatchError, match=r"Network 'net3' takes images \[C, H, W\], got observations of shape \[4\]"
    ):
        tiny(q_data, tmp_path / "r", student="net3")


def test_fewer_than_six_episodes_are_too_few(tmp_path):
    collect_cart_pole(tmp_path / "d", num_steps=50)
    assert len(Dataset.open(tmp_path / "d").episode_numbers) == 16
    teacher = hand_made_teacher()
    rldistill.collect(teacher, num_steps=50, num_envs=5, out=tmp_path / "five", exploration_epsilon=0.0)
    with pytest.raises(DatasetError) as caught:
        tiny(tmp_path / "five", tmp_path / "r")
    assert str(caught.value) == (
        f"Dataset {tmp_path / 'five'} holds 5 episodes, but 5 are held out to measure the student and at least 1 must "
        "be left to train on. Collect more steps."
    )
    rldistill.collect(teacher, num_steps=60, num_envs=6, out=tmp_path / "six", exploration_epsilon=0.0)
    tiny(tmp_path / "six", tmp_path / "r")


def test_an_empty_dataset_is_refused(tmp_path, q_data):
    provenance = Dataset.open(q_data).provenance
    with DatasetWriter.create(tmp_path / "d", provenance, target_num_steps=10):
        pass
    with pytest.raises(DatasetError, match="is empty: it lists no step"):
        tiny(tmp_path / "d", tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_target_that_is_not_finite_is_refused_at_once_and_the_place_is_named(tmp_path, q_data):
    dataset = Dataset.open(q_data)
    with DatasetWriter.create(tmp_path / "d", dataset.provenance, target_num_steps=10) as writer:
        writer._check = lambda *_: None  # the writer refuses such values, too
        values = {name: dataset.field(name)[:8] for name in dataset.provenance.step_fields}
        values["q_values"] = values["q_values"].copy()
        values["q_values"][6, 1] = np.nan
        writer.append(np.arange(8), dataset.observations(np.arange(8)), values)
    with pytest.raises(NumericalError) as caught:
        tiny(tmp_path / "d", tmp_path / "r")
    line = str(caught.value)
    assert f"Dataset {tmp_path / 'd'} holds a q_values that is not finite: [" in line
    assert "in shard shard-000000.safetensors, episode 6, step 0." in line
    assert not (tmp_path / "r").exists()


def nan_after(num_updates: int):
    """Return a loss that is fine so often, and NaN from then on."""
    calls = [0]

    def loss(student, target):
        calls[0] += len(student) == TINY["batch_size"]
        bad = torch.nan if calls[0] > num_updates else 0.0
        return ((student - target) ** 2).sum(dim=1) + bad

    return loss


def test_a_nan_while_training_names_update_and_rows_and_the_weights_before_it_are_kept(tmp_path, q_data):
    with pytest.raises(NumericalError) as caught:
        tiny(q_data, tmp_path / "r", loss=nan_after(13))
    line = str(caught.value)
    assert line.startswith("Update 13 diverged: loss nan, gradient norm ")
    assert ", on a batch of steps " in line
    assert f"… of {q_data}. The weights before it are kept." in line
    assert not (tmp_path / "r" / "student.safetensors").exists()
    # What was kept is the state after 13 good updates: going on without the fault gives what a run without it gives.
    tiny(q_data, tmp_path / "r", loss=nan_after(100), resume=True)
    tiny(q_data, tmp_path / "whole", loss=nan_after(100))
    assert (tmp_path / "r" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    students = [load_policy(tmp_path / name / "student.safetensors") for name in ("r", "whole")]
    assert students[0].hash == students[1].hash


# --init-from.


def test_a_run_can_begin_with_the_weights_of_a_policy_file(tmp_path, q_data):
    first = tiny(q_data, tmp_path / "first", num_updates=200, learning_rate=1e-2)
    begun = tmp_path / "first" / "student.safetensors"
    second = tiny(q_data, tmp_path / "second", init_from=begun, num_updates=1, learning_rate=1e-9)
    for name, weights in first.stored_weights().items():
        torch.testing.assert_close(second.stored_weights()[name], weights, atol=1e-7, rtol=0)


def test_only_the_weights_are_taken_not_what_they_meant_before(tmp_path, q_data):
    initial = small_policy(short_cart_pole().task, network="mlp:8", name="elsewhere")
    path = tmp_path / "initial.safetensors"
    initial.with_spec(weights_dtype="float16", behaviour="sample").save(path)
    assert initial.output_kind == "q_values"
    student = tiny(q_data, tmp_path / "r", init_from=path)
    assert (student.output_kind, student.behaviour, student.name) == ("logits", "greedy", "mlp:8")
    assert student.spec.weights_dtype == "float32"
    assert tiny(q_data, tmp_path / "s", init_from=path, loss="q_mse").output_kind == "q_values"


def test_initial_weights_of_another_network_or_another_task_are_refused(tmp_path, q_data):
    path = tmp_path / "initial.safetensors"
    small_policy(short_cart_pole().task, network="mlp:16").save(path)
    with pytest.raises(MismatchError, match=r"--init-from .* holds mlp:16 without layer norm, --student says mlp:8 "):
        tiny(q_data, tmp_path / "r", init_from=path)
    small_policy(image_task(), network="conv:4:8").save(path)
    with pytest.raises(
        MismatchError, match=r"does not fit the data of CartPole.*: observation_shape: \[4, 84, 84\] against \[4\]"
    ):
        tiny(q_data, tmp_path / "r", init_from=path)
    with pytest.raises(PolicyFileError, match="found nothing there"):
        tiny(q_data, tmp_path / "r", init_from=tmp_path / "no.safetensors")
    assert not (tmp_path / "r").exists()


# The run folder.


def test_a_finished_student_without_its_checkpoint_is_not_replaced_by_a_resume(tmp_path, q_data):
    tiny(q_data, tmp_path / "r")
    (tmp_path / "r" / "checkpoint.ckpt").unlink()
    before = (tmp_path / "r" / "student.safetensors").read_bytes()
    with pytest.raises(RldistillError, match=r"checkpoint\.ckpt is missing, and beginning anew would replace"):
        tiny(q_data, tmp_path / "r", resume=True)
    assert (tmp_path / "r" / "student.safetensors").read_bytes() == before


def test_an_earlier_run_is_neither_lost_nor_mixed_with_another(tmp_path, q_data):
    tiny(q_data, tmp_path / "r")
    before = (tmp_path / "r" / "student.safetensors").read_bytes()
    with pytest.raises(OutputExistsError, match=r"already holds a run\. Add --resume to go on, --overwrite to del"):
        tiny(q_data, tmp_path / "r", seed=1)
    with pytest.raises(UsageError, match="--resume and --overwrite exclude each other"):
        tiny(q_data, tmp_path / "r", resume=True, overwrite=True)
    assert (tmp_path / "r" / "student.safetensors").read_bytes() == before


def test_resuming_with_another_configuration_names_every_key_that_differs(tmp_path, q_data):
    tiny(q_data, tmp_path / "r")
    with pytest.raises(RldistillError) as caught:
        tiny(q_data, tmp_path / "r", resume=True, seed=1, batch_size=32, temperature=0.02, student="mlp:16")
    assert str(caught.value) == (
        f"{tmp_path / 'r'}: the run began with another configuration: batch_size was 16, is 32; "
        "seed was 0, is 1; student was mlp:8, is mlp:16; temperature was 0.01, is 0.02. Use the same, or --overwrite."
    )


def test_what_changes_no_result_may_change_at_a_resume(tmp_path, q_data):
    before = tiny(q_data, tmp_path / "r").hash
    moved = tmp_path / "moved"
    moved.symlink_to(q_data)
    assert tiny(moved, tmp_path / "r", resume=True, num_envs=3, num_threads=1).hash == before


def test_a_dataset_that_has_grown_is_not_the_one_a_run_began_with(tmp_path):
    data = collect_cart_pole(tmp_path / "d", num_steps=500)
    tiny(data, tmp_path / "r")
    rldistill.collect(hand_made_teacher(), num_steps=600, out=data, exploration_epsilon=0.3, resume=True)
    with pytest.raises(MismatchError, match="is not what the run began with, or has grown"):
        tiny(data, tmp_path / "r", resume=True)


def test_a_folder_that_is_not_ours_is_never_touched(tmp_path, q_data):
    (tmp_path / "thesis.tex").write_text("three years")
    for flags in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(OutputExistsError, match=r"is not an rldistill run: found thesis.tex, expected config.toml"):
            tiny(q_data, tmp_path, **flags)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(OutputExistsError, match="is a file, expected a folder"):
        tiny(q_data, tmp_path / "thesis.tex")


@pytest.mark.parametrize("foreign", ["thesis.tex", "holiday.png", "other.safetensors", "notes.json"])
def test_overwriting_deletes_nothing_that_no_run_wrote(tmp_path, q_data, foreign):
    tiny(q_data, tmp_path / "r")
    (tmp_path / "r" / foreign).write_text("mine")
    before = {path.name: path.read_bytes() for path in (tmp_path / "r").iterdir()}
    with pytest.raises(OutputExistsError, match=f"--overwrite would delete {foreign} in .*, which no run of rldistill"):
        tiny(q_data, tmp_path / "r", overwrite=True, seed=1)
    assert {path.name: path.read_bytes() for path in (tmp_path / "r").iterdir()} == before


def test_overwriting_begins_anew(tmp_path, q_data):
    tiny(q_data, tmp_path / "r", num_updates=30)
    (tmp_path / "r" / "evaluation.json").write_text("{}")
    tiny(q_data, tmp_path / "r", overwrite=True, seed=1)
    assert [record["update"] for record in read_metrics(tmp_path / "r" / "metrics.jsonl")] == [10, 20]
    names = {"config.toml", "metrics.jsonl", "checkpoint.ckpt", "student.safetensors", ".lock"}
    assert {path.name for path in (tmp_path / "r").iterdir()} == names


def test_what_a_kill_in_the_first_moment_leaves_is_no_obstacle(tmp_path, q_data):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / ".lock").write_text("1")
    (tmp_path / "r" / ".config.toml.tmp").write_text("half")
    tiny(q_data, tmp_path / "r")
    assert len(read_metrics(tmp_path / "r" / "metrics.jsonl")) == 2
    assert not (tmp_path / "r" / ".config.toml.tmp").exists()


def test_two_runs_in_one_folder_are_refused(tmp_path, q_data):
    tiny(q_data, tmp_path / "r")
    with folder_lock(tmp_path / "r"), pytest.raises(LockedError, match=r"by another process \(id \d+\)"):
        tiny(q_data, tmp_path / "r", resume=True)


def test_a_checkpoint_that_is_damaged_is_one_line(tmp_path, q_data):
    tiny(q_data, tmp_path / "r")
    path = tmp_path / "r" / "checkpoint.ckpt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        RldistillError, match=r"Checkpoint .* cannot be read: .* Start anew with --overwrite\.$"
    ) as caught:
        tiny(q_data, tmp_path / "r", resume=True)
    assert "\n" not in str(caught.value)


def test_a_reader_needs_no_lock(tmp_path, q_data):
    with folder_lock(q_data):
        tiny(q_data, tmp_path / "r")
    assert len(read_metrics(tmp_path / "r" / "metrics.jsonl")) == 2


def test_students_of_images_are_trained_from_stacked_frames(tmp_path):
    task = dataclasses.replace(image_task(), name="pong-like")
    provenance = dataclasses.replace(_image_provenance(task))
    rng = np.random.default_rng(0)
    with DatasetWriter.create(tmp_path / "d", provenance, target_num_steps=80) as writer:
        for step in range(10):
            values = {
                "action": rng.integers(0, 6, 8).astype(np.int32),
                "reward": np.zeros(8),
                "terminated": np.full(8, step == 9),
                "truncated": np.zeros(8, np.bool_),
                "q_values": rng.normal(size=(8, 6)).astype(np.float32),
            }
            writer.append(np.arange(8), rng.integers(0, 255, (8, 84, 84), np.uint8), values)
        for episode in range(8):
            writer.end_episode(episode, np.zeros((84, 84), np.uint8))
        writer.finish()
    student = tiny(tmp_path / "d", tmp_path / "r", student="net3", num_updates=3, batch_size=4)
    assert student.spec.architecture == parse_architecture("net3")
    assert student.spec.input_scale == 1 / 255
    assert json.loads((tmp_path / "r" / "metrics.jsonl").read_text())["update"] == 3


def _image_provenance(task):
    from rldistill.data import Provenance, TeacherEntry, step_fields

    teacher = TeacherEntry("made-up", "abc", "q_values")
    return Provenance(task, teacher, "greedy", 0, 0.05, step_fields(task.fingerprint, "q_values"))


def test_the_student_is_played_under_the_exploration_of_its_task_not_of_its_data(q_data, tmp_path):
    dataset = Dataset.open(q_data)
    assert dataset.provenance.exploration_epsilon == 0.3
    options = DistillOptions(dataset, out=tmp_path / "r", evaluate_episodes=1)
    _, setup = set_up(options, ())
    (source,) = setup.sources
    assert source.playable.task.protocol.exploration_epsilon == 0


def test_scores_of_a_run_come_from_no_episode_of_an_evaluation(tmp_path, q_data, monkeypatch):
    seeds, play = [], distillation_run.play_scores
    watched = lambda *a, seed, **k: seeds.append(seed) or play(*a, seed=seed, **k)  # noqa: E731
    monkeypatch.setattr(distillation_run, "play_scores", watched)
    settings = {"student": "mlp:4", "num_updates": 50, "evaluate_period": 10, "batch_size": 16, "precision": "float32"}
    distill(q_data, out=tmp_path / "r", **settings, evaluate_episodes=2, num_envs=2, seed=3)
    assert seeds and 3 not in seeds
