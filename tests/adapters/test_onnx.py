"""ONNX files: the same answers whatever the batch, identified by their bytes, told once how they are to be read."""

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("onnx", reason="needs the extra `onnx`")
pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")

from onnx import TensorProto, helper, numpy_helper

from rldistill.adapters.load import load_policy
from rldistill.errors import MismatchError, NumericalError, PolicyFileError, UsageError
from tests.kit.onnx_files import BYTES, DOUBLE, FLOAT, HALF, expected, layers, mlp_model, model_of, saved
from tests.kit.small_policies import box_task, image_task, vector_task

ROWS = np.random.default_rng(1).normal(size=(1000, 4)).astype(np.float32)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def onnx_path(tmp_path):
    return tmp_path / "policy.onnx"


def refusal(path, error=PolicyFileError, **options):
    options = {"task": vector_task(), "outputs": "q_values", **options}
    with pytest.raises(error) as caught:
        load_policy(path, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line.replace(str(path), "FILE")


def test_its_answers_are_those_of_its_layers(onnx_path):
    policy = load_policy(saved(mlp_model(), onnx_path), task=vector_task(), outputs="q_values")
    output, _ = policy(ROWS)
    np.testing.assert_allclose(output.q_values, expected(layers(), ROWS), **CLOSE)
    np.testing.assert_array_equal(policy.act(ROWS)[0], output.q_values.argmax(dim=1))
    assert (policy.name, policy.output_kind, policy.behaviour) == ("policy", "q_values", "greedy")


@pytest.mark.parametrize("batch", ["batch", -1, 1, 5, 16, 40])
def test_an_observations_answer_does_not_depend_on_its_batch_whether_the_files_batch_is_fixed_or_not(onnx_path, batch):
    policy = load_policy(saved(mlp_model(batch=batch), onnx_path), task=vector_task(), outputs="logits")
    whole = policy(ROWS[:50])[0].logits
    assert torch.equal(policy(ROWS[7:14])[0].logits, whole[7:14])
    assert torch.equal(policy(ROWS[:50])[0].logits, whole)
    np.testing.assert_allclose(whole, expected(layers(), ROWS[:50]), **CLOSE)


@pytest.mark.parametrize(
    ("batch", "observation"), [(2**31, (4,)), (4097, (4,)), (1, (2**40,))], ids=["memory", "rows", "observation"]
)
def test_batches_that_no_policy_could_take_are_refused_before_they_are_made(onnx_path, batch, observation):
    node = helper.make_node("Identity", ["obs"], ["q"])
    values = [helper.make_tensor_value_info(name, FLOAT, [batch, *observation]) for name in ("obs", "q")]
    saved(model_of([node], values[:1], values[1:]), onnx_path)
    assert refusal(onnx_path, task=None) == (
        f"ONNX file FILE takes {batch:,} observations of shape {list(observation)} in one call, the most are 4,096, "
        "and 33,554,432 numbers. Export it with a batch of any size, or of 1."
    )


def test_a_batch_that_the_file_runs_together_is_refused(onnx_path):
    model = mlp_model(outputs=("q",))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, -1]), "shape"))
    model.graph.node.append(helper.make_node("Reshape", ["q", "shape"], ["together"]))
    model.graph.output[0].name = "together"
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert refusal(saved(model, onnx_path), MismatchError) == (
        "ONNX file FILE: q_values=together is [1, 48] for 16 observations, expected [16, 3] (discrete [3]). Was it "
        "made for another task?"
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(DOUBLE, 1e-6), (HALF, 2e-2)])
def test_float64_and_float16_files_are_fed_what_they_take(onnx_path, dtype, tolerance):
    policy = load_policy(saved(mlp_model(dtype=dtype), onnx_path), task=vector_task(), outputs="q_values")
    output, _ = policy(ROWS)
    assert output.q_values.dtype == torch.float32
    np.testing.assert_allclose(output.q_values, expected(layers(dtype), ROWS), atol=tolerance)


def test_without_a_task_the_file_says_what_it_can(onnx_path):
    task = load_policy(saved(mlp_model(), onnx_path), outputs="q_values").tasks[0]
    assert (task.name, task.fingerprint.observation_shape) == ("unnamed", (4,))
    assert task.fingerprint.action_layout.sizes == (3,)


def test_without_a_task_the_range_of_actions_is_unknown(onnx_path):
    saved(mlp_model(), onnx_path)
    assert refusal(onnx_path, UsageError, task=None, outputs="actions") == (
        "ONNX file FILE does not say in which range its actions lie. Name its task: --task ID."
    )


def test_an_output_that_bears_the_name_of_a_kind_needs_no_declaration(onnx_path):
    assert load_policy(saved(mlp_model(outputs=("logits",)), onnx_path), task=vector_task()).output_kind == "logits"


def test_what_the_outputs_are_must_be_said_and_the_choices_are_listed(onnx_path):
    saved(mlp_model(), onnx_path)
    assert refusal(onnx_path, UsageError, outputs=None) == (
        "ONNX file FILE does not say what its outputs are: got q [B, 3], expected --outputs q_values|logits: "
        "discrete [3] actions have q_values (3 values), logits (3 values)."
    )
    assert refusal(onnx_path, UsageError, outputs="scores") == (
        "outputs: got 'scores', expected q_values|logits|gaussian|actions, with the outputs' names where there are "
        "several, such as logits=policy or gaussian=mu,log_std."
    )


def test_of_several_outputs_the_user_chooses(onnx_path):
    saved(mlp_model(outputs=("value", "policy")), onnx_path)
    assert refusal(onnx_path, UsageError, outputs="logits") == (
        "ONNX file FILE has 2 outputs: value [B, 3], policy [B, 3]. Say which of them are its logits: "
        "--outputs logits=NAME."
    )
    assert refusal(onnx_path, MismatchError, outputs="logits=pi") == (
        "ONNX file FILE has no output 'pi', only value [B, 3], policy [B, 3]."
    )
    chosen = load_policy(onnx_path, task=vector_task(), outputs="logits=policy")
    (w0, b0), (w1, b1) = layers()
    doubled = expected([(w0, b0), (2 * w1, b1)], ROWS[:3])
    np.testing.assert_allclose(chosen(ROWS[:3])[0].logits, doubled, **CLOSE)


@pytest.mark.parametrize(
    ("outputs", "log_std"), [("gaussian=mu,s", lambda s: s), ("gaussian=mu,log(s)", np.log)], ids=["log std", "std"]
)
def test_a_gaussian_may_come_in_two_outputs(onnx_path, outputs, log_std):
    weights = [(w, abs(b) + 20) for w, b in layers()]  # a standard deviation above 0
    saved(mlp_model(outputs=("mu", "s"), weights=weights), onnx_path)
    output, _ = load_policy(onnx_path, task=box_task(3), outputs=outputs)(ROWS[:3])
    np.testing.assert_allclose(output.mean, expected(weights, ROWS[:3]), rtol=1e-5)
    (w0, b0), (w1, b1) = weights
    np.testing.assert_allclose(output.log_std, log_std(expected([(w0, b0), (2 * w1, b1)], ROWS[:3])), rtol=1e-5)


def test_a_spread_that_is_the_same_in_all_states_may_be_one_row(onnx_path):
    model = mlp_model(outputs=("mu",))
    model.graph.initializer.append(numpy_helper.from_array(np.array([[1.0, 2.0, 3.0]], np.float32), "log_std"))
    model.graph.node.append(helper.make_node("Identity", ["log_std"], ["spread"]))
    model.graph.output.append(helper.make_tensor_value_info("spread", FLOAT, [1, 3]))
    policy = load_policy(saved(model, onnx_path), task=box_task(3), outputs="gaussian=mu,spread")
    assert policy(ROWS[:2])[0].log_std.tolist() == [[1, 2, 3]] * 2


def test_actions_of_a_box_are_clipped_when_acting(onnx_path):
    policy = load_policy(saved(mlp_model(), onnx_path), task=box_task(3), outputs="actions")
    raw = policy(ROWS[:9])[0].actions
    np.testing.assert_allclose(raw, expected(layers(), ROWS[:9]), **CLOSE)
    np.testing.assert_allclose(policy.act(ROWS[:9])[0], raw.clamp(-1, 1))


def test_actions_may_be_declared_as_parts_of_the_box(onnx_path):
    saved(mlp_model(), onnx_path)
    task = box_task(3, low=0.0, high=10.0)
    scaled = load_policy(onnx_path, task=task, outputs="actions=rescale")
    assert scaled.outputs.text == "actions=rescale(q)"
    np.testing.assert_allclose(scaled(ROWS[:9])[0].actions, 5 * (expected(layers(), ROWS[:9]) + 1), **CLOSE)
    np.testing.assert_allclose(scaled.act(ROWS[:9])[0], (5 * (expected(layers(), ROWS[:9]) + 1)).clip(0, 10), **CLOSE)
    named = load_policy(onnx_path, task=task, outputs="actions=rescale(q)")
    plain = load_policy(onnx_path, task=task, outputs="actions")
    assert scaled.hash == named.hash != plain.hash
    assert refusal(onnx_path, MismatchError, task=box_task(2, high=3.0), outputs="actions=rescale") == (
        "ONNX file FILE: actions=rescale(q) is [16, 3] for 16 observations, expected [16, 2] (box [2]). Was it made "
        "for another task?"
    )


def test_a_number_of_outputs_that_does_not_fit_says_what_it_could_be(onnx_path):
    saved(mlp_model(), onnx_path)
    assert refusal(onnx_path, MismatchError, task=vector_task(5)) == (
        "ONNX file FILE: q_values=q is [16, 3] for 16 observations, expected [16, 5] (discrete [5]). Was it made for "
        "another task?"
    )
    assert refusal(onnx_path, MismatchError, task=box_task(3), outputs="gaussian") == (
        "ONNX file FILE: gaussian=q is [16, 3] for 16 observations, expected [16, 6] (box [3]). It could be actions."
    )
    assert refusal(onnx_path, MismatchError, task=box_task(3)) == (
        "ONNX file FILE: its outputs were declared as q_values, but box actions have gaussian or actions. Was another "
        "task meant?"
    )


def test_another_observation_shape_is_refused(onnx_path):
    saved(mlp_model(), onnx_path)
    assert refusal(onnx_path, MismatchError, task=vector_task(num_inputs=6)) == (
        "ONNX file FILE takes observations [4], task 'made-up' gives [6]. Was it made for another task?"
    )


def test_where_bytes_meet_floats_the_scale_must_be_said(onnx_path):
    weights = layers(sizes=(4 * 84 * 84, 8, 6))
    saved(mlp_model(weights=weights, observation=(4, 84, 84)), onnx_path)
    assert refusal(onnx_path, UsageError, task=image_task()) == (
        "ONNX file FILE takes floats, task 'atari:pong' gives bytes, 0 to 255. Say whether the program scales them "
        "itself (--input-scale 1) or wants them scaled (--input-scale 1/255)."
    )
    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 84, 84), np.uint8)
    policy = load_policy(onnx_path, task=image_task(), outputs="q_values", input_scale=1 / 255)
    scaled = (frames / 255).astype(np.float32)
    np.testing.assert_allclose(policy(frames)[0].q_values, expected(weights, scaled), rtol=1e-4, atol=1e-3)
    with pytest.raises(MismatchError, match="takes uint8 observations"):
        policy(scaled)


def test_bytes_go_in_as_they_are_where_the_file_takes_bytes(onnx_path):
    weights = layers(sizes=(4 * 84 * 84, 8, 6))
    model = mlp_model(weights=weights, observation=(4, 84, 84))
    model.graph.input[0].type.tensor_type.elem_type = BYTES
    model.graph.node[0].input[0] = "floats"
    model.graph.node.insert(0, helper.make_node("Cast", ["obs"], ["floats"], to=FLOAT))
    policy = load_policy(saved(model, onnx_path), task=image_task(), outputs="q_values")
    frames = np.random.default_rng(0).integers(0, 2, (3, 4, 84, 84), np.uint8)
    np.testing.assert_allclose(policy(frames)[0].q_values, expected(weights, frames.astype(np.float32)), atol=1e-2)
    with pytest.raises(UsageError, match=r"takes its observations as they are: --input-scale does not apply\.$"):
        load_policy(onnx_path, task=image_task(), outputs="q_values", input_scale=0.5)
    frames = image_task()
    floats = replace(frames, name="floats", fingerprint=replace(frames.fingerprint, observation_dtype="float32"))
    assert "takes bytes, 0 to 255, task 'floats' gives float32. Was it made for another task?" in refusal(
        onnx_path, MismatchError, task=floats
    )


def test_an_action_already_chosen_is_no_output_to_learn_from(onnx_path):
    model = mlp_model(outputs=("q",))
    model.graph.node.append(helper.make_node("ArgMax", ["q"], ["action"], axis=1, keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("action", TensorProto.INT64, ["batch"]))
    assert refusal(saved(model, onnx_path), outputs="q_values=action") == (
        "ONNX file FILE: output 'action' is int64: the actions it has chosen, not scores of all of them. Export it "
        "again with its Q-values or logits."
    )


def test_an_output_that_is_drawn_is_refused_and_one_beside_it_is_not(onnx_path):
    model = mlp_model(outputs=("logits",))
    model.graph.node.append(helper.make_node("RandomNormalLike", ["logits"], ["noise"], seed=1.0))
    model.graph.node.append(helper.make_node("Add", ["logits", "noise"], ["sampled"]))
    model.graph.output.append(helper.make_tensor_value_info("sampled", FLOAT, ["batch", 3]))
    assert load_policy(saved(model, onnx_path), task=vector_task()).outputs.names == ("logits",)
    assert refusal(onnx_path, MismatchError, outputs="logits=sampled").startswith(
        "ONNX file FILE answers the same observations differently when it is asked again: "
    )


def test_its_identity_is_its_bytes_and_how_they_are_read(onnx_path, tmp_path):
    saved(mlp_model(), onnx_path)
    policy = load_policy(onnx_path, task=vector_task(), outputs="q_values")
    again = load_policy(onnx_path, task=vector_task(name="another name"), outputs="q_values")
    read_otherwise = load_policy(onnx_path, task=vector_task(), outputs="logits")
    other = load_policy(saved(mlp_model(seed=1), tmp_path / "b.onnx"), task=vector_task(), outputs="q_values")
    assert policy.hash == again.hash
    assert len({policy.hash, read_otherwise.hash, other.hash}) == 3


def test_it_cannot_be_saved_but_distilled(onnx_path, tmp_path):
    policy = load_policy(saved(mlp_model(), onnx_path), task=vector_task(), outputs="q_values")
    with pytest.raises(UsageError) as caught:
        policy.save(tmp_path / "p.safetensors")
    assert str(caught.value).endswith(
        "Distil it into a network that can: rldistill distill --teacher FILE --task made-up --out runs/student."
    )


def test_it_plays_its_own_task_only(onnx_path):
    policy = load_policy(saved(mlp_model(), onnx_path), task=vector_task(), outputs="q_values")
    assert policy.for_task("made-up") is policy
    with pytest.raises(MismatchError, match=r"has no head for 'b', only for made-up\.$"):
        policy.for_task("b")


def test_observations_are_left_as_they_were(onnx_path):
    rows = ROWS[:20].copy()
    load_policy(saved(mlp_model(), onnx_path), task=vector_task(), outputs="q_values")(rows)
    np.testing.assert_array_equal(rows, ROWS[:20])


def test_an_observation_that_is_no_number_is_not_answered_in_silence(onnx_path):
    policy = load_policy(saved(mlp_model(), onnx_path), task=vector_task(), outputs="q_values")
    with pytest.raises(NumericalError) as caught:
        policy(np.full((1, 4), np.nan, np.float32))
    assert str(caught.value) == (
        "Policy 'policy' answered q_values [nan, nan, nan] to an observation, expected finite numbers. The observation "
        "holds NaN or infinity itself. Check the environment."
    )


def test_it_is_known_by_its_content_whatever_its_name(tmp_path):
    path = saved(mlp_model(), tmp_path / "policy.bin")
    assert load_policy(path, task=vector_task(), outputs="q_values").output_kind == "q_values"
