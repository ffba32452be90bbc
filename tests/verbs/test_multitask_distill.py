"""Several tasks, one student: what each head learns, what is recorded, and what is refused."""

import re
import tomllib

import pytest
import torch

from rldistill.data import StepStore
from rldistill.errors import MismatchError, RldistillError, UsageError
from rldistill.events import MessageEvent
from rldistill.networks import parse_architecture
from rldistill.policies import TorchPolicy, load_policy
from rldistill.session.metrics import read_metrics
from rldistill.verbs.collect import collect
from rldistill.verbs.evaluate import evaluate
from tests.kit.cart_pole import (
    MIRRORED_TASK,
    collect_cart_pole,
    hand_made_teacher,
    mirrored_teacher,
    short_cart_pole,
    short_mirrored_cart_pole,
)
from tests.kit.flat import distill
from tests.kit.interruptions import StopAfter

CART_POLE = "CartPole-v1"
TINY = {"student": "mlp:8:4", "num_updates": 20, "batch_size": 16, "evaluate_period": 10, "precision": "float32"}


def tiny(data, out, **settings) -> TorchPolicy:
    return distill(data, out=out, **(TINY | settings))


@pytest.mark.learning
@pytest.mark.parametrize("order", ["in_turn", "mixed"])
def test_one_student_plays_two_tasks_that_look_alike_and_want_the_opposite(tmp_path, order):
    tasks = [short_cart_pole(200), short_mirrored_cart_pole(200)]
    teachers = [hand_made_teacher(tasks[0]), mirrored_teacher(tasks[1])]
    data = [collect_cart_pole(tmp_path / str(index), teacher, num_steps=6000) for index, teacher in enumerate(teachers)]
    student = distill(
        data,
        student="mlp:16:8",
        out=tmp_path / "run",
        num_updates=1500,
        batch_size=64,
        learning_rate="one_cycle:5e-3",
        precision="float32",
        task_order=order,
    )
    assert list(student.spec.head_sizes.items()) == [(CART_POLE, 2), (MIRRORED_TASK, 3)]
    for task, teacher in zip(tasks, teachers, strict=True):
        result = evaluate(student, task, teacher=teacher, num_episodes=20, seed=100, exploration_epsilon=0.1)
        assert result.students[0].retention_lower_bound > 0.9
        assert result.students[0].agreement > 0.85


def test_the_file_says_who_taught_which_head(tmp_path, q_data, mirrored_data, teacher_file):
    student = tiny([q_data, mirrored_data], tmp_path / "r")
    saved = load_policy(tmp_path / "r" / "student.safetensors")
    assert saved.hash == student.hash
    made = saved.spec.provenance
    assert [record["task"] for record in made["teachers"]] == [CART_POLE, MIRRORED_TASK]
    assert [record["hash"] for record in made["teachers"]] == [hand_made_teacher().hash, mirrored_teacher().hash]
    assert [record["path"] for record in made["teachers"]] == [str(teacher_file), None]
    assert set(made["tasks"]) == {CART_POLE, MIRRORED_TASK}
    agreements = [record["held_out_agreement"] for record in made["tasks"].values()]
    assert made["held_out_agreement"] == pytest.approx(sum(agreements) / 2)
    assert "teacher" not in made
    assert (saved.for_task(MIRRORED_TASK).tasks[0].name, saved.tasks[0].name) == (MIRRORED_TASK, CART_POLE)


@pytest.mark.parametrize("order", ["in_turn", "mixed", "random"])
def test_data_beyond_memory_are_decoded_no_oftener_than_they_are_drawn(
    tmp_path, q_data, mirrored_data, monkeypatch, order
):
    decoded, keep = [], StepStore.keep_decoded

    def counted(store, steps):
        decoded.append(len(steps))
        keep(store, steps)

    monkeypatch.setattr(StepStore, "keep_decoded", counted)
    # Two pools of about 128 steps at a time.
    monkeypatch.setattr("rldistill.data.store._MOST_BYTES_DECODED", 2 * 128 * 16)
    tiny([q_data, mirrored_data], tmp_path / "r", num_updates=200, batch_size=32, task_order=order)
    assert 0.5 * 200 * 32 < sum(decoded) < 1.2 * 200 * 32


def test_each_task_is_measured_by_itself(tmp_path, q_data, mirrored_data):
    tiny([q_data, mirrored_data], tmp_path / "r", num_updates=100, evaluate_episodes=2, num_envs=2)
    records = read_metrics(tmp_path / "r" / "metrics.jsonl")
    assert [record["update"] for record in records] == list(range(10, 101, 10))
    last = records[-1]
    assert set(last["tasks"]) == {CART_POLE, MIRRORED_TASK}
    for values in last["tasks"].values():
        assert set(values) == {
            "loss",
            "held_out_loss",
            "held_out_agreement",
            "majority_share",
            "temperature",
            "scores",
        }
    assert last["held_out_agreement"] == pytest.approx(
        sum(values["held_out_agreement"] for values in last["tasks"].values()) / 2
    )


def test_the_loss_that_is_told_is_the_one_that_is_minimised(tmp_path, q_data, mirrored_data):
    said = {"task_order": "mixed", "task_weights": {CART_POLE: 7, MIRRORED_TASK: 1}, "evaluate_period": 1}
    tiny([q_data, mirrored_data], tmp_path / "r", num_updates=2, **said)
    for record in read_metrics(tmp_path / "r" / "metrics.jsonl"):
        own = [record["tasks"][task]["loss"] for task in (CART_POLE, MIRRORED_TASK)]
        assert record["loss"] == pytest.approx((14 * own[0] + 2 * own[1]) / 16)
        assert own[0] != pytest.approx(own[1])


def test_losses_and_temperatures_differ_by_task_where_they_are_told_to(tmp_path, q_data, mirrored_data):
    tiny(
        [q_data, mirrored_data],
        tmp_path / "r",
        loss={CART_POLE: "nll", MIRRORED_TASK: "sharpened_kl"},
        temperature={MIRRORED_TASK: "linear:0.2->0.1"},
    )
    config = tomllib.loads((tmp_path / "r" / "config.toml").read_text())
    assert config["loss"] == {CART_POLE: "nll", MIRRORED_TASK: "sharpened_kl"}
    assert config["temperature"] == {MIRRORED_TASK: "linear:0.2->0.1"}
    values = read_metrics(tmp_path / "r" / "metrics.jsonl")[-1]["tasks"]
    assert "temperature" not in values[CART_POLE]
    assert values[MIRRORED_TASK]["temperature"] == pytest.approx(0.1)


def test_the_written_configuration_gives_the_same_run(tmp_path, q_data, mirrored_data):
    first = tiny([q_data, mirrored_data], tmp_path / "a", temperature={CART_POLE: 0.1}, task_order="mixed")
    config = tomllib.loads((tmp_path / "a" / "config.toml").read_text())
    assert config["temperature"] == {CART_POLE: 0.1, MIRRORED_TASK: 0.01}
    config |= {"out": tmp_path / "b"}
    data = config.pop("data")
    assert distill(data, **config).stored_weights().keys() == first.stored_weights().keys()
    assert load_policy(tmp_path / "b" / "student.safetensors").hash == first.hash


def test_a_run_of_several_tasks_that_stops_and_goes_on_is_bit_equal_to_one_that_did_not(
    tmp_path, q_data, mirrored_data
):
    whole = tiny([q_data, mirrored_data], tmp_path / "a", num_updates=30, task_order="random")
    with pytest.raises(KeyboardInterrupt):
        tiny(
            [q_data, mirrored_data],
            tmp_path / "b",
            num_updates=30,
            task_order="random",
            callbacks=[lambda event: not isinstance(event, MessageEvent) and event.done == 17],
        )
    resumed = tiny([q_data, mirrored_data], tmp_path / "b", num_updates=30, task_order="random", resume=True)
    assert resumed.hash == whole.hash
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in "ab"]
    assert metrics[0] == metrics[1]


def test_heads_of_teachers_that_act_differently_act_differently(tmp_path, logit_data, mirrored_data):
    student = tiny([logit_data, mirrored_data], tmp_path / "r")
    saved = load_policy(tmp_path / "r" / "student.safetensors")
    for policy in (student, saved):
        assert policy.for_task(CART_POLE).behaviour == "sample"
        assert policy.for_task(MIRRORED_TASK).behaviour == "greedy"


# A head that is added later.


@pytest.fixture
def trained(tmp_path, q_data) -> TorchPolicy:
    tiny(q_data, tmp_path / "first")
    return load_policy(tmp_path / "first" / "student.safetensors")


def added(tmp_path, data, **settings) -> TorchPolicy:
    path = tmp_path / "first" / "student.safetensors"
    return tiny(data, tmp_path / "r", init_from=path, add_head=True, **settings)


def test_an_added_head_leaves_torso_and_old_heads_bit_for_bit(tmp_path, trained, mirrored_data):
    student = added(tmp_path, mirrored_data)
    assert list(student.spec.head_sizes) == [CART_POLE, MIRRORED_TASK]
    before, after = trained.network.state_dict(), student.network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert after["heads.1.output.weight"].abs().max() > 0, "the new head began at zero and was trained"
    observations = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(student(observations)[0].raw, trained(observations)[0].raw)
    made = student.spec.provenance
    assert [record["task"] for record in made["teachers"]] == [CART_POLE, MIRRORED_TASK]


def test_the_torso_is_trained_with_it_where_that_is_asked_for(tmp_path, trained, q_data, mirrored_data):
    student = added(tmp_path, [q_data, mirrored_data], train_torso=True)
    before, after = trained.network.state_dict(), student.network.state_dict()
    assert not torch.equal(after["torso.1.weight"], before["torso.1.weight"])
    assert not torch.equal(after["heads.0.output.weight"], before["heads.0.output.weight"])


def test_old_heads_over_a_torso_that_moves_are_warned_of_unless_they_are_taught_too(
    tmp_path, trained, q_data, mirrored_data
):
    for data, expected in ((mirrored_data, 1), ([q_data, mirrored_data], 0)):
        told = []
        added(tmp_path, data, train_torso=True, overwrite=True, callbacks=[told.append])
        warnings = [event.text for event in told if isinstance(event, MessageEvent) and event.level == "warning"]
        spoilt = f"--train-torso changes what the heads of {CART_POLE} see, and nothing teaches these"
        assert sum(text.startswith(spoilt) for text in warnings) == expected


def test_a_stopped_run_of_an_added_head_goes_on(tmp_path, trained, mirrored_data):
    whole = added(tmp_path, mirrored_data)
    path = tmp_path / "first" / "student.safetensors"
    with pytest.raises(KeyboardInterrupt):
        tiny(
            mirrored_data,
            tmp_path / "s",
            init_from=path,
            add_head=True,
            callbacks=[lambda event: not isinstance(event, MessageEvent) and event.done == 12],
        )
    assert tiny(mirrored_data, tmp_path / "s", init_from=path, add_head=True, resume=True).hash == whole.hash


def test_an_unrecorded_teacher_of_the_first_head_stays_unrecorded(tmp_path, mirrored_data):
    initial = TorchPolicy.create(parse_architecture("mlp:8:4"), [short_cart_pole().task], name="untaught")
    initial.with_spec(output_kind="logits").save(tmp_path / "initial.safetensors")
    student = tiny(mirrored_data, tmp_path / "r", init_from=tmp_path / "initial.safetensors", add_head=True)
    assert [record["task"] for record in student.spec.provenance["teachers"]] == [MIRRORED_TASK]
    assert "teacher" not in student.spec.provenance


def test_a_head_that_samples_is_not_added_to_a_student_of_q_values(tmp_path, mirrored_data, logit_data):
    tiny(mirrored_data, tmp_path / "first", loss="q_mse")
    with pytest.raises(MismatchError, match="gives q_values, and CartPole-v1 has a teacher that samples from logits"):
        added(tmp_path, logit_data)


# What is refused.


def test_datasets_of_one_task_and_one_teacher_teach_one_head(tmp_path, q_data, teacher_file, mirrored_data):
    more = tmp_path / "more"
    collect(teacher_file, num_steps=1000, out=more, exploration_epsilon=0.5, seed=1)
    student = tiny([q_data, mirrored_data, more], tmp_path / "r")
    assert list(student.spec.head_sizes) == [CART_POLE, MIRRORED_TASK]
    records = {task: record["dataset"] for task, record in student.spec.provenance["tasks"].items()}
    assert records[CART_POLE] == {"num_steps": 3000, "seed": [0, 1]}
    assert records[MIRRORED_TASK] == {"num_steps": 2000, "seed": 0}


def test_datasets_of_one_task_that_do_not_add_up_are_refused(tmp_path, q_data):
    with pytest.raises(MismatchError, match=r"are both of task 'CartPole-v1' and of seed 0: their episodes are the"):
        tiny([q_data, q_data], tmp_path / "r")
    other = collect_cart_pole(tmp_path / "d", hand_made_teacher(scale=2.0))
    with pytest.raises(MismatchError, match=r"are both of task 'CartPole-v1', but with teachers hand-made "):
        tiny([q_data, other], tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("settings", "error", "line"),
    [
        (
            {"loss": {"Pong": "nll"}},
            MismatchError,
            "loss: got a value for task 'Pong', this run has CartPole-v1, tests",
        ),
        ({"temperature": {"a": 1}}, MismatchError, "temperature: got a value for task 'a', this run has"),
        (
            {"temperature": "CartPole-v1=1,0.1"},
            UsageError,
            "temperature: got 'CartPole-v1=1,0.1', expected a number",
        ),
        ({"task_weights": {"no": 1}, "task_order": "mixed"}, MismatchError, "task_weights: got a value for task 'no'"),
        ({"temperature": {CART_POLE: 0}}, UsageError, "temperature must stay > 0, got 0"),
        ({"loss": {CART_POLE: "kl"}}, UsageError, "loss: got 'kl', expected one of nll"),
        ({"task_order": "shuffled"}, UsageError, "task_order: got 'shuffled', expected in_turn, mixed or random"),
        ({"task_weights": {CART_POLE: 2}}, UsageError, "task_weights do not go with task_order in_turn"),
        ({"task_weights": {CART_POLE: 0}, "task_order": "mixed"}, UsageError, "task_weights must be > 0"),
        ({"add_head": True}, UsageError, "add_head belongs with init_from"),
        ({"train_torso": True}, UsageError, "train_torso belongs with add_head"),
        ({"student": torch.nn.Linear(4, 2)}, UsageError, "a module of your own plays one task, got 2"),
    ],
)
def test_settings_that_cannot_be_say_why(tmp_path, q_data, mirrored_data, settings, error, line):
    with pytest.raises(error, match=line):
        tiny([q_data, mirrored_data], tmp_path / "r", **settings)
    assert not (tmp_path / "r").exists()


def test_a_resume_with_another_number_of_datasets_is_told_so(tmp_path, q_data, mirrored_data):
    both = [q_data, mirrored_data]
    for begun, resumed, counts in ((both, q_data, (2, 1)), (q_data, both, (1, 2))):
        out = tmp_path / str(counts[0])
        with pytest.raises(KeyboardInterrupt):
            tiny(begun, out, callbacks=[StopAfter(5)])
        noun = "dataset" if counts[0] == 1 else "datasets"
        line = f"{out}: the run was started with {counts[0]} {noun}, this command gives {counts[1]}. "
        with pytest.raises(RldistillError, match=f"^{re.escape(line)}Give the same number, or --overwrite\\.$"):
            tiny(resumed, out, resume=True)


def test_heads_that_do_not_match_are_refused(tmp_path, trained, q_data, mirrored_data):
    path = tmp_path / "first" / "student.safetensors"
    with pytest.raises(
        MismatchError, match=r"has heads for CartPole-v1, the data are of CartPole-v1, tests.*--add-head"
    ):
        tiny([q_data, mirrored_data], tmp_path / "r", init_from=path)
    with pytest.raises(MismatchError, match="has a head for each of CartPole-v1 already"):
        added(tmp_path, q_data)
    with pytest.raises(UsageError, match="--add-head leaves the head of CartPole-v1 as it is"):
        added(tmp_path, [q_data, mirrored_data])
    with pytest.raises(MismatchError, match="holds mlp:8:4 without layer norm, --student says mlp:16 without"):
        added(tmp_path, mirrored_data, student="mlp:16")
