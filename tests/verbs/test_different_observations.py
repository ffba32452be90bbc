"""Tasks of different observations and kinds of action in one student: a stem for each kind, a shared torso, heads."""

import json
import tomllib

import pytest
import torch

import rldistill as rd
from rldistill.envs import make_task
from rldistill.errors import MismatchError, UsageError
from rldistill.networks import Architecture, StemmedNetwork
from rldistill.policies import TorchPolicy, load_policy
from tests.kit.cart_pole import hand_made_teacher
from tests.kit.small_policies import small_policy, vector_task

CART_POLE, BOX, WIDE = "CartPole-v1", "tests.kit.targets:Targets-box-v0", "tests.kit.targets:Wide-v0"
SWITCHES = "tests.kit.targets:Targets-multi_binary-v0"
SMALL = {"num_updates": 20, "batch_size": 16, "evaluate_period": 10, "precision": "float32", "evaluate_episodes": 0}


def middle_of_the_box(task):
    """Return a teacher that always does what is in the middle: better than chance."""
    policy = TorchPolicy.create(Architecture("linear", "mlp", ()), [make_task(task).task], output_kind="gaussian")
    policy.network.get_parameter("heads.0.output.bias").data[:2] = torch.tensor([0.0, 5.0])
    return policy


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A dataset of choices with 4 numbers, and two of continuous actions with 2 and 4."""
    folder = tmp_path_factory.mktemp("tasks")
    rd.collect(hand_made_teacher(), CART_POLE, env_kwargs={"max_episode_steps": 40}, num_steps=300, num_envs=8,
               out=folder / "cart")  # fmt: skip
    for name, task in (("box", BOX), ("wide", WIDE)):
        rd.collect(middle_of_the_box(task), task, num_steps=300, num_envs=8, out=folder / name)
    return folder


def distilled(data, out, *names, **settings):
    return rd.distill([data / name for name in names], out=out, **{"student": "mlp:8x6"} | SMALL | settings)


def test_each_kind_of_observation_has_a_stem_and_all_share_what_is_above(data, tmp_path):
    student = distilled(data, tmp_path / "r", "cart", "box", "wide")
    network = student.network
    assert isinstance(network, StemmedNetwork)
    # CartPole's 4 numbers, 2, and 4 numbers of two parts; 8 units each, then 6; two actions, and two of a box twice.
    assert [tuple(stem[1].weight.shape) for stem in network.stems] == [(8, 4), (8, 2), (8, 4)]
    assert student.num_parameters == (4 + 1) * 8 + (2 + 1) * 8 + (4 + 1) * 8 + 9 * 6 + 7 * 2 + 2 * 7 * 2
    assert student.output_kind in ("q_values", "logits")
    assert [student.for_task(name).output_kind for name in (BOX, WIDE)] == ["actions", "actions"]
    assert set(student.spec.provenance["tasks"]) == {CART_POLE, BOX, WIDE}


def test_each_head_keeps_what_its_outputs_are_when_all_are_to_act_in_one_way(data, tmp_path):
    student = distilled(data, tmp_path / "r", "cart", "box", normalize_inputs=True)
    greedy = rd.load_policy(tmp_path / "r" / "student.safetensors", behaviour="greedy")
    sampling = greedy.acting("sample")
    assert [head.behaviour for head in sampling.spec.heads] == [None, None] and sampling.behaviour == "sample"
    for name in (CART_POLE, BOX):
        assert sampling.for_task(name).output_kind == student.for_task(name).output_kind
        assert sampling.for_task(name).normalization == student.for_task(name).normalization
    sampling.save(tmp_path / "sampling.safetensors")
    assert load_policy(tmp_path / "sampling.safetensors").hash == sampling.hash


def test_a_parameter_goes_to_the_losses_that_take_it(data, tmp_path):
    losses = {"loss": {BOX: "mean_huber", WIDE: "mean_mse"}, "loss_params": {"delta": 0.5}}
    distilled(data, tmp_path / "r", "box", "wide", **losses)
    config = tomllib.loads((tmp_path / "r" / "config.toml").read_text())
    assert config["loss_params"] == {"delta": 0.5}
    again = distilled(data, tmp_path / "s", "box", "wide", loss=config["loss"], loss_params=config["loss_params"])
    assert again.hash == load_policy(tmp_path / "s" / "student.safetensors").hash
    with pytest.raises(UsageError, match=r"margin: got 1\.0? for the loss"):
        distilled(data, tmp_path / "t", "box", "wide", loss=losses["loss"], loss_params={"margin": 1.0})


def test_a_spread_that_is_fixed_goes_to_heads_that_have_one(data, tmp_path):
    losses = {BOX: "diag_gaussian_kl", WIDE: "mean_mse"}
    student = distilled(data, tmp_path / "r", "box", "wide", loss=losses, std="fixed")
    assert [student.for_task(name).output_kind for name in (BOX, WIDE)] == ["gaussian", "actions"]


def test_the_task_of_a_dataset_is_its_own(data, tmp_path):
    sources = [rd.Stored(data / "box", task=WIDE), rd.Stored(data / "wide", task=BOX)]
    with pytest.raises(UsageError, match=r"task: got .*Wide-v0', expected .*Targets-box-v0'"):
        rd.distill(sources, out=tmp_path / "r", student="mlp:8x6", **SMALL)


def test_the_same_call_with_a_module_gives_the_same_student_again(data, tmp_path):
    module = torch.nn.Linear(4, 2)
    before = module.weight.detach().clone()
    students = [rd.distill(data / "cart", out=tmp_path / name, student=module, **SMALL) for name in ("a", "b")]
    assert students[0].hash == students[1].hash
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("said", [{"task_order": "mixed"}, {"task_weights": {CART_POLE: 2.0}}])
def test_an_order_of_several_tasks_is_refused_with_one(data, tmp_path, said):
    with pytest.raises(UsageError, match=r"^task_(order|weights) is for several tasks, got CartPole-v1 alone\."):
        distilled(data, tmp_path / "r", "cart", **said)


def test_a_module_with_nothing_to_train_is_refused(data, tmp_path):
    frozen = torch.nn.Linear(4, 2).requires_grad_(False)
    with pytest.raises(UsageError, match=r"^student: .* has no parameters that are trained\.$"):
        rd.distill(data / "cart", out=tmp_path / "r", student=frozen, **SMALL)


def test_a_file_brings_back_the_student_and_each_task_alone_is_an_ordinary_one(data, tmp_path):
    student = distilled(data, tmp_path / "r", "cart", "box", normalize_inputs=True)
    loaded = load_policy(tmp_path / "r" / "student.safetensors")
    assert loaded.hash == student.hash
    for name, width in ((CART_POLE, 4), (BOX, 2)):
        rows = torch.rand(5, width, generator=torch.Generator().manual_seed(0))
        expected = student.for_task(name)(rows)[0].raw
        assert torch.equal(loaded.for_task(name)(rows)[0].raw, expected)
        alone = student.single_task(name)
        assert not isinstance(alone.network, StemmedNetwork)
        alone.save(tmp_path / "alone.safetensors")
        assert torch.equal(load_policy(tmp_path / "alone.safetensors")(rows)[0].raw, expected)


def test_copies_and_files_keep_what_is_shared_shared(data, tmp_path):
    student = distilled(data, tmp_path / "r", "cart", "box")
    for policy in (student.copy(), load_policy(tmp_path / "r" / "student.safetensors")):
        with torch.no_grad():
            next(policy.network.torso.parameters()).add_(1)
        for name, width in ((CART_POLE, 4), (BOX, 2)):
            rows = torch.rand(5, width)
            assert not torch.equal(policy.for_task(name)(rows)[0].features, student.for_task(name)(rows)[0].features)


def test_an_evaluation_has_retention_of_each_task_and_over_all(data, tmp_path):
    student = distilled(data, tmp_path / "r", "cart", "box")
    teachers = [hand_made_teacher(), middle_of_the_box(BOX)]
    result = rd.evaluate(student, teacher=teachers, num_episodes=5)
    assert {row.task.name for row in result.policies} == {CART_POLE, BOX}
    assert all(row.retention is not None for row in result.policies if row.role == "student")
    assert result.overall[0].mean_retention is not None


def test_a_run_goes_on_where_it_stopped_bit_for_bit(data, tmp_path):
    settings = {"task_order": "mixed", "task_balance": "gradient_norms", "student": "mlp:6+gru:4", "window": 4}
    whole = distilled(data, tmp_path / "whole", "cart", "box", **settings)
    with pytest.raises(KeyboardInterrupt):
        distilled(data, tmp_path / "cut", "cart", "box", callbacks=[lambda event: getattr(event, "done", 0) == 12],
                  **settings)  # fmt: skip
    assert distilled(data, tmp_path / "cut", "cart", "box", resume=True, **settings).hash == whole.hash
    assert json.loads((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()[-1])["tasks"].keys() == {
        CART_POLE, BOX}  # fmt: skip


def test_a_file_of_such_a_student_is_where_another_run_begins(data, tmp_path):
    first = distilled(data, tmp_path / "a", "cart", "box")
    begun = tmp_path / "a" / "student.safetensors"
    again = distilled(data, tmp_path / "b", "box", "cart", init_from=begun, learning_rate=1e-9, num_updates=2)
    rows = torch.rand(4, 2)
    torch.testing.assert_close(again.for_task(BOX)(rows)[0].raw, first.for_task(BOX)(rows)[0].raw)


def test_a_head_is_added_for_any_kind_of_observation_that_the_file_sees(data, tmp_path):
    first = distilled(data, tmp_path / "a", "cart", "box")
    settings = SMALL | {"init_from": tmp_path / "a" / "student.safetensors", "add_head": True}
    switches = small_policy(make_task(SWITCHES).task, output_kind="logits")
    more = rd.distill(rd.Live(switches, collect_steps=200, collect_period=20), out=tmp_path / "b", **settings)
    assert more.spec.stems == (0, 1, 1)
    rows = torch.rand(4, 2)
    assert torch.equal(more.for_task(BOX)(rows)[0].raw, first.for_task(BOX)(rows)[0].raw)
    with pytest.raises(MismatchError, match=r"sees float32 \[4\]; float32 \[2\]; .* gives float32 \[4\] \(.*its torso"):
        rd.distill(data / "wide", out=tmp_path / "c", **settings)


@pytest.mark.parametrize(
    ("student", "why"),
    [
        ("mlp:8", "its only layer would be a stem of each, and nothing shared"),
        ("gru:8", "its only layer would be a stem of each, and nothing shared"),
        ("stack:2+mlp:8x8", "a stack holds observations of one length"),
        ("conv:4:8", "images go through convolutions that see one kind of them"),
    ],
)
def test_a_network_that_cannot_see_both_is_refused_with_the_way_on(data, tmp_path, student, why):
    with pytest.raises(MismatchError, match=rf"cannot see float32 \[4\] of CartPole-v1 and float32 \[2\] of .*: {why}"):
        distilled(data, tmp_path / "r", "cart", "box", student=student)


def test_parts_are_not_chosen_of_different_observations(data, tmp_path):
    with pytest.raises(UsageError, match="student_sees chooses parts of one kind of observation, got tasks of several"):
        distilled(data, tmp_path / "r", "box", "wide", student_sees="left")


def test_one_loss_for_both_kinds_of_action_is_refused_in_one_line(data, tmp_path):
    with pytest.raises(MismatchError, match=r"CartPole-v1.*mean_mse.*By task: --loss TASK=LOSS,TASK=LOSS"):
        distilled(data, tmp_path / "r", "cart", "box", loss="mean_mse")


def test_no_description_of_different_observations_shares_a_normalization():
    tasks = vector_task(2, 3, "a"), vector_task(2, 5, "b")
    policy = small_policy(*tasks, network="mlp:4x4")
    with pytest.raises(ValueError, match="one kind of observation: sight and normalization are of one"):
        policy.with_spec(normalization={"epsilon": 1e-8, "clip": 10.0})


def test_an_export_is_of_one_task_alone(data, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    student = distilled(data, tmp_path / "r", "cart", "box")
    with pytest.raises(UsageError, match=r"has heads for CartPole-v1, .* name one of them with --task"):
        rd.export(student, tmp_path / "x.onnx", num_episodes=2)
    result = rd.export(student, tmp_path / "x.onnx", task=CART_POLE, num_episodes=2)
    assert (tmp_path / "x.onnx").is_file(), result


@pytest.mark.parametrize("network", ["mlp:8", "mlp:8x8"])
def test_several_students_of_tasks_that_look_different_are_refused_with_the_reason(data, tmp_path, network):
    with pytest.raises(UsageError, match=r"^students: got tasks of different observations, which a single student"):
        rd.distill_several([data / "cart", data / "box"], students=[network, "mlp:4x4"], out=tmp_path / "r")
    assert not (tmp_path / "r").exists()
