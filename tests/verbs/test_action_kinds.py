"""Collect, distil and evaluate with teachers of every kind of action, from the environment's format to the report."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from rldistill.data import Dataset
from rldistill.data.manifest import DATASET_REMEDY
from rldistill.envs import make_task
from rldistill.errors import DatasetError, MismatchError, RldistillError, UsageError
from rldistill.events import MessageEvent
from rldistill.networks import Architecture, GaussianOptions, InputNormalization, parse_architecture
from rldistill.policies import TorchPolicy, load_policy
from rldistill.storage import with_checksum
from rldistill.types import ActionLayout
from rldistill.verbs.collect import collect
from rldistill.verbs.evaluate import evaluate
from rldistill.verbs.train_teacher import train_teacher
from tests.kit.flat import distill
from tests.kit.small_policies import small_policy
from tests.kit.targets import EPISODE_LENGTH, HIGH, LOW, targets_task

FAST = {
    "num_threads": 1,
    "student": "mlp:32",
    "num_updates": 400,
    "evaluate_period": 100,
    "batch_size": 64,
    "learning_rate": "one_cycle:1e-2",
    "precision": "float32",
}
SQUASHED = ActionLayout("box", (2,), tuple(LOW.tolist()), tuple(HIGH.tolist()), "tanh_rescale")
STATISTICS = InputNormalization((0.1, -0.1), (0.25, 0.5), clip=5.0)


def linear_teacher(kind, output_kind, *, mapping="clip", as_dict=False, **options) -> TorchPolicy:
    """Return a teacher that knows the best actions: its outputs are linear in the two numbers."""
    task = make_task(targets_task(kind, as_dict=as_dict)).task
    if mapping == "tanh_rescale":
        task = replace(task, fingerprint=replace(task.fingerprint, action_layout=SQUASHED))
    policy = TorchPolicy.create(Architecture("linear", "mlp", ()), [task], output_kind=output_kind, **options)
    head = policy.network.heads[0]
    weight, bias = {
        # Scores of two and of three choices; the middle one of three wins near 0.
        "multi_discrete": ([[0, 0], [9, 0], [0, -9], [0, 0], [0, 9]], [0, 0, -3, 0, -3]),
        "multi_binary": ([[9, 0], [0, 9]], [0, 0]),
        "box": ([[1, 0], [0, 5]], [0, 5]) if mapping == "clip" else ([[1, 0], [0, 1]], [0, 0]),
    }[kind]
    with torch.no_grad():
        head.output.weight.copy_(torch.tensor(weight))
        head.output.bias.copy_(torch.tensor(bias))
    return policy


def made(tmp_path, teacher, task, **settings):
    collect(teacher, task, num_steps=2000, out=tmp_path / "data", num_threads=1)
    return distill(tmp_path / "data", out=tmp_path / "run", **(FAST | settings))


@pytest.mark.parametrize("as_dict", [False, True])
@pytest.mark.parametrize(
    ("kind", "output_kind", "mapping", "loss"),
    [
        ("multi_discrete", "logits", "clip", None),
        ("multi_discrete", "logits", "clip", "nll"),
        ("multi_binary", "logits", "clip", None),
        ("box", "actions", "clip", None),
        ("box", "actions", "tanh_rescale", "mean_huber"),
        ("box", "gaussian", "clip", None),
        ("box", "gaussian", "clip", "diag_gaussian_kl"),
        ("box", "gaussian", "tanh_rescale", "reverse_diag_gaussian_kl"),
        ("box", "gaussian", "tanh_rescale", "mean_mse"),
    ],
)
def test_a_student_learns_what_its_teacher_does(tmp_path, kind, output_kind, mapping, loss, as_dict):
    task = targets_task(kind, as_dict=as_dict)
    teacher = linear_teacher(kind, output_kind, mapping=mapping, as_dict=as_dict)
    student = made(tmp_path, teacher, task, loss=loss)
    result = evaluate(student, task, teacher=teacher, num_episodes=30, num_threads=1)
    taught, learned, random = result.policies
    # tanh bends the line: that teacher is not perfect.
    assert taught.mean > EPISODE_LENGTH * (0.99 if mapping == "clip" else 0.85)
    assert learned.retention > 0.95
    assert random.mean < 0.7 * EPISODE_LENGTH
    alike = learned.action_gap if kind == "box" else learned.agreement
    assert alike < 0.04 if kind == "box" else alike > 0.9
    assert (learned.agreement is None) == (kind == "box")
    reloaded = load_policy(tmp_path / "run" / "student.safetensors")
    assert reloaded.output_kind == ("actions" if kind == "box" and loss in (None, "mean_mse") else output_kind)
    assert reloaded.tasks[0].fingerprint.action_layout == teacher.tasks[0].fingerprint.action_layout


def test_a_dataset_keeps_actions_and_outputs_of_a_gaussian_as_they_were(tmp_path):
    teacher = linear_teacher("box", "gaussian", mapping="tanh_rescale", behaviour="sample")
    collect(teacher, targets_task("box"), num_steps=300, out=tmp_path / "data", num_threads=1)
    dataset = Dataset.open(tmp_path / "data")
    actions, targets = dataset.field("action")[:], dataset.targets(np.arange(300)).values()
    assert actions.dtype == np.float32
    assert ((actions >= LOW) & (actions <= HIGH)).all()
    output, _ = teacher(dataset.observations(np.arange(300)))
    np.testing.assert_array_equal(np.concatenate(list(targets), axis=1), output.raw.numpy())
    np.testing.assert_array_equal(dataset.field("mean")[:], output.mean.numpy())
    # Sampled, with a standard deviation of 1 before tanh.
    noise = np.arctanh(np.clip(2 * (actions - LOW) / (HIGH - LOW) - 1, -0.9999, 0.9999)) - output.mean.numpy()
    assert 0.85 < noise[np.abs(noise) < 3].std() < 1.1


def test_a_student_that_gives_actions_draws_nothing_though_its_teacher_does(tmp_path):
    teacher = linear_teacher("box", "gaussian", behaviour="sample")
    student = made(tmp_path, teacher, targets_task("box"), loss="mean_mse", num_updates=5)
    assert student.behaviour == load_policy(tmp_path / "run" / "student.safetensors").behaviour == "greedy"
    actions, _ = student.act(np.zeros((1, 2), np.float32))  # without a generator
    assert actions.shape == (1, 2)


@pytest.mark.parametrize("resumed", [False, True])
def test_a_collection_of_continuous_actions_goes_on_as_if_it_had_not_stopped(tmp_path, resumed):
    teacher = linear_teacher("box", "gaussian", behaviour="sample")
    settings = {"num_threads": 1, "exploration_epsilon": 0.2, "seed": 3, "num_envs": 3}
    collect(teacher, targets_task("box"), num_steps=200, out=tmp_path / "whole", **settings)
    if resumed:
        collect(teacher, targets_task("box"), num_steps=80, out=tmp_path / "part", **settings)
    collect(teacher, targets_task("box"), num_steps=200, out=tmp_path / "part", resume=True, **settings)
    whole, part = (Dataset.open(tmp_path / name) for name in ("whole", "part"))
    for episode in whole.episode_numbers[:10]:
        mine, theirs = whole.episode_steps(episode), part.episode_steps(episode)
        np.testing.assert_array_equal(whole.field("action")[mine], part.field("action")[theirs])


def test_the_teachers_normalisation_travels_into_the_student(tmp_path):
    teacher = small_policy(
        make_task(targets_task("box")).task, output_kind="gaussian", normalization=STATISTICS, network="mlp:8"
    )
    student = made(tmp_path, teacher, targets_task("box"))
    assert student.normalization == STATISTICS
    assert load_policy(tmp_path / "run" / "student.safetensors").normalization == STATISTICS
    again = distill(tmp_path / "data", out=tmp_path / "again", init_from=tmp_path / "run/student.safetensors", **FAST)
    assert again.normalization == STATISTICS
    collect(linear_teacher("box", "gaussian"), targets_task("box"), num_steps=500, out=tmp_path / "plain")
    begun = FAST | {"init_from": tmp_path / "run/student.safetensors"}
    kept = distill(tmp_path / "plain", out=tmp_path / "kept", **begun)
    assert kept.normalization == STATISTICS, "whatever the teacher sees, its weights see what they saw"
    with pytest.raises(MismatchError, match="normalises its inputs: without that its weights would see something else"):
        distill(tmp_path / "plain", out=tmp_path / "r", normalize_inputs=False, **begun)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ersilon": 1.0}, "InputNormalization.__init__() got an unexpected keyword argument 'ersilon'"),
        ({"mean": None}, "'mean' is missing"),
        ({"mean": [1.0]}, "mean and variance must be of one length, got 1 and 2"),
        ({"variance": ["a", "b"]}, "'>=' not supported between instances of 'str' and 'int'"),
    ],
)
def test_a_normalisation_that_a_stranger_altered_is_told_in_one_line(tmp_path, change, reason):
    task = targets_task("box")
    teacher = small_policy(make_task(task).task, output_kind="gaussian", normalization=STATISTICS, network="mlp:8")
    collect(teacher, task, num_steps=200, out=tmp_path / "data", num_threads=1)
    path = tmp_path / "data" / "manifest.json"
    manifest = json.loads(path.read_text())
    said = manifest["teacher"]["normalization"] | change
    manifest["teacher"]["normalization"] = {name: value for name, value in said.items() if value is not None}
    path.write_text(json.dumps(with_checksum(manifest)))
    with pytest.raises(DatasetError) as caught:
        distill(tmp_path / "data", out=tmp_path / "r", **FAST)
    line = f"Dataset {tmp_path / 'data'}: the normalization of its teacher cannot be used: {reason}. {DATASET_REMEDY}"
    assert str(caught.value) == line
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("std", ["state", "parameter", "fixed"])
def test_the_spread_of_a_gaussian_student(tmp_path, std):
    teacher = linear_teacher("box", "gaussian", gaussian=GaussianOptions("parameter"))
    teacher.network.heads[0].rows.log_std.data = torch.tensor([-1.0, 0.5])
    student = made(tmp_path, teacher, targets_task("box"), std=std, loss="diag_gaussian_kl", num_updates=600)
    output, _ = student(torch.rand(50, 2))
    tolerance = 1e-6 if std == "fixed" else 0.1
    torch.testing.assert_close(output.log_std.mean(dim=0), torch.tensor([-1.0, 0.5]), atol=tolerance, rtol=0)
    assert student.spec.gaussian.std == std


def test_temperature_auto_is_said_and_kept(tmp_path):
    # Its two best choices are 9 · |number| apart in the median, halves of it in the second choice.
    messages = []
    teacher = linear_teacher("multi_binary", "logits")
    made(tmp_path, teacher, targets_task("multi_binary"), temperature="auto", callbacks=[messages.append])
    texts = [event.text for event in messages if isinstance(event, MessageEvent)]
    note = next(text for text in texts if text.startswith("temperature of tests.kit.targets:Targets-multi_binary-v0: "))
    value = float(note.split(": ")[1].split(",")[0])
    assert value == pytest.approx(4.5 / 7, rel=0.1)  # |logit| is uniform in [0, 9]
    assert f"temperature = {value:.3f}" in (tmp_path / "run" / "config.toml").read_text()


@pytest.mark.parametrize(
    ("source", "who"),
    [({"teacher": "no-file.zip"}, "one that plays live"), ({"online": True}, "one that still learns")],
)
def test_temperature_auto_needs_data(tmp_path, source, who):
    for said in ("auto", {"CartPole-v1": "auto"}):
        with pytest.raises(UsageError) as caught:
            distill(task="CartPole-v1", out=tmp_path / "r", temperature=said, **source, **FAST)
        assert str(caught.value) == (
            f"temperature: auto is taken from the teacher's answers in a dataset, and {who} has not said anything yet. "
            "Collect first, or give a number."
        )
    assert list(tmp_path.iterdir()) == []


def test_a_fixed_spread_needs_data(tmp_path):
    with pytest.raises(UsageError) as caught:
        distill(teacher="no-file.zip", task="Pendulum-v1", out=tmp_path / "r", std="fixed", **FAST)
    assert str(caught.value) == (
        "std: fixed is the teacher's own spread in a dataset, and a teacher that plays live has not said anything yet. "
        "Collect first, or choose state or parameter."
    )


@pytest.mark.parametrize("source", ["dataset", "live", "online"])
def test_a_spread_for_a_student_that_has_none_is_not_ignored(tmp_path, source):
    teacher, task = linear_teacher("multi_binary", "logits"), targets_task("multi_binary")
    if source == "dataset":
        collect(teacher, task, num_steps=500, out=tmp_path / "data")
    given = {
        "dataset": {"data": tmp_path / "data"},
        "live": {"teacher": teacher, "task": task},
        "online": {"online": True, "task": "CartPole-v1"},
    }[source]
    with pytest.raises(UsageError) as caught:
        distill(**given, out=tmp_path / "r", std="parameter", **FAST)
    assert str(caught.value) == (
        "std: got 'parameter' for a student of logits, which has no spread. Leave it out, or use a loss of Gaussians: "
        "diag_gaussian_kl."
    )
    assert not (tmp_path / "r").exists()


def test_a_module_of_ones_own_says_its_spread_itself(tmp_path):
    collect(linear_teacher("box", "gaussian"), targets_task("box"), num_steps=500, out=tmp_path / "data")
    with pytest.raises(UsageError, match=r"^std: got 'parameter' for a module of your own, whose outputs say it all\."):
        distill(tmp_path / "data", out=tmp_path / "r", std="parameter", **(FAST | {"student": torch.nn.Linear(2, 4)}))


def test_an_added_head_has_the_spread_of_the_others(tmp_path):
    task = make_task(targets_task("box")).task
    another = replace(task, name="another")
    for own, said in (("fixed", "state"), ("parameter", "fixed")):
        TorchPolicy.create(
            parse_architecture("mlp:32"), [another], output_kind="gaussian", gaussian=GaussianOptions(own)
        ).save(tmp_path / "old.safetensors")
        made_of = linear_teacher("box", "gaussian")
        collect(made_of, targets_task("box"), num_steps=500, out=tmp_path / "data", overwrite=True)
        settings = FAST | {"init_from": tmp_path / "old.safetensors", "add_head": True, "num_updates": 20}
        with pytest.raises(MismatchError) as caught:
            distill(tmp_path / "data", out=tmp_path / "r", std=said, **settings)
        assert str(caught.value) == (
            f"--add-head: {tmp_path / 'old.safetensors'} gives Gaussians of std {own}, --std says {said}: all heads of "
            f"a policy have the same. Say --std {own}, or train a new student of all tasks."
        )
    student = distill(tmp_path / "data", out=tmp_path / "r", std="parameter", **settings)
    assert list(student.spec.head_sizes) == ["another", task.name]


@pytest.mark.parametrize("std", ["state", "parameter"])
def test_a_teacher_of_a_box_plays_live(tmp_path, std):
    teacher = linear_teacher("box", "gaussian")
    live = {"collect_steps": 400, "collect_period": 150, "replay_capacity": 600}
    student = distill(teacher=teacher, task=targets_task("box"), out=tmp_path / "r", std=std, **(FAST | live))
    assert student.spec.gaussian.std == std
    assert student.spec.provenance["held_out_action_gap"] < 0.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "sharpened_kl"}, "'sharpened_kl' fits q_values or logits, the teacher gives gaussian"),
        ({"loss": "mean_mse", "temperature": 1.0}, "for the loss 'mean_mse', which takes none"),
        ({"loss": "mean_mse", "temperature": "auto"}, "got auto for the loss 'mean_mse', which takes none"),
        ({"std": "free"}, "std: got 'free', expected state, parameter or fixed"),
        (
            {"loss": "diag_gaussian_kl", "loss_params": {"delta": 0.5}},
            "delta: got 0.5 for the loss 'diag_gaussian_kl', which takes none. Leave it out, or use a loss that takes "
            "one: mean_huber.",
        ),
        ({"loss": "mean_mse", "loss_params": {"delta": 1}}, "delta: got 1.0 for the loss 'mean_mse', which takes none"),
        ({"loss": "mean_huber", "loss_params": {"delta": "linear:1->0"}}, "delta must stay > 0, got 'linear:1->0', w"),
        ({"loss": "mean_huber", "loss_params": 0.5}, "loss_params: got 0.5, expected values by the parameter's name"),
        ({"loss_params": {"temperature": 1}}, "loss_params: got a temperature, which has an option of its own"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, settings, message):
    collect(linear_teacher("box", "gaussian"), targets_task("box"), num_steps=500, out=tmp_path / "data")
    with pytest.raises((UsageError, MismatchError), match=message):
        distill(tmp_path / "data", out=tmp_path / "r", **(FAST | settings))


def test_a_parameter_of_a_loss_is_a_number_or_a_schedule_that_trains_and_is_recorded(tmp_path):
    collect(linear_teacher("box", "gaussian"), targets_task("box"), num_steps=500, out=tmp_path / "data")
    settings = FAST | {"loss": "mean_huber", "num_updates": 10, "evaluate_period": 5}
    students = [
        distill(tmp_path / "data", out=tmp_path / str(number), loss_params=params, **settings)
        for number, params in enumerate((None, {"delta": 1.0}, {"delta": "linear:0.02->0.01"}))
    ]
    default, same, narrow = (student.network.state_dict()["heads.0.output.weight"] for student in students)
    assert torch.equal(default, same)
    assert not torch.equal(default, narrow)
    assert [student.spec.provenance["config"]["loss_params"] for student in students[1:]] == [
        {"delta": 1.0},
        {"delta": "linear:0.02->0.01"},
    ]
    lines = (tmp_path / "2" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["delta"] for line in lines] == pytest.approx([0.015, 0.01])


@pytest.mark.parametrize("kind", ["box", "multi_binary"])
def test_learners_here_learn_one_choice(tmp_path, kind):
    with pytest.raises(UsageError, match=rf"has {kind} actions, pqn learns one discrete choice"):
        train_teacher(targets_task(kind), out=tmp_path / "r", num_steps=64)


def test_an_added_head_leaves_what_the_file_says_of_its_inputs_and_outputs(tmp_path):
    limited = GaussianOptions("parameter", mean_limit=0.01)
    another = replace(make_task(targets_task("box")).task, name="another")
    old = small_policy(another, output_kind="gaussian", gaussian=limited, network="mlp:8")
    old.with_spec(input_scale=0.5).save(tmp_path / "old.safetensors")
    before = load_policy(tmp_path / "old.safetensors")
    collect(linear_teacher("box", "gaussian"), targets_task("box"), num_steps=500, out=tmp_path / "data")
    settings = FAST | {
        "student": "mlp:8",
        "num_updates": 20,
        "add_head": True,
        "init_from": tmp_path / "old.safetensors",
    }
    student = distill(tmp_path / "data", out=tmp_path / "run", **settings)
    assert (student.spec.input_scale, student.spec.gaussian) == (0.5, limited)
    rows = torch.rand(20, 2)
    assert torch.equal(student.for_task("another")(rows)[0].raw, before(rows)[0].raw)
    with pytest.raises(MismatchError, match="gives gaussian, this loss makes a head of actions: heads are added of"):
        distill(tmp_path / "data", out=tmp_path / "other", loss="mean_mse", **settings)


def test_a_file_that_scales_its_inputs_otherwise_is_no_beginning(tmp_path):
    old = small_policy(make_task(targets_task("box")).task, output_kind="gaussian", network="mlp:32")
    old.with_spec(input_scale=0.5).save(tmp_path / "old.safetensors")
    collect(linear_teacher("box", "gaussian"), targets_task("box"), num_steps=500, out=tmp_path / "data")
    with pytest.raises(MismatchError, match=r"multiplies observations by 0\.5, a student of these data by 1: "):
        distill(tmp_path / "data", out=tmp_path / "r", init_from=tmp_path / "old.safetensors", **FAST)


def test_a_run_of_a_version_without_an_option_goes_on(tmp_path):
    collect(linear_teacher("box", "gaussian"), targets_task("box"), num_steps=500, out=tmp_path / "data")
    settings = FAST | {"num_updates": 20, "loss": "diag_gaussian_kl"}
    distill(tmp_path / "data", out=tmp_path / "r", **settings)
    config = tmp_path / "r" / "config.toml"
    old = [line for line in config.read_text().splitlines() if not line.startswith(("std", "trust"))]
    config.write_text("\n".join(old))
    assert distill(tmp_path / "data", out=tmp_path / "r", resume=True, **settings).output_kind == "gaussian"
    with pytest.raises(RldistillError, match="std was state, is fixed"):
        distill(tmp_path / "data", out=tmp_path / "r", resume=True, std="fixed", **settings)
