from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from rldistill.errors import RldistillError
from rldistill.exports.onnx_graph import OPSET, make_model
from rldistill.networks import Architecture, GaussianOptions, InputNormalization, ValueAtoms
from rldistill.networks.torsos import ACTIVATIONS
from rldistill.policies import TorchPolicy, choose_actions
from rldistill.policies.padded import probe_rows
from rldistill.tasks import ObservationFingerprint, ObservationPart, Task
from rldistill.types import ActionLayout
from tests.kit.small_policies import beta_policy, box_task, image_task, small_policy, vector_task


def answers(policy, rows, **options):
    model = make_model(onnx, policy, **{"half": False, "gives_probabilities": False} | options)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"observation": np.asarray(rows)}), strict=True))


def agrees(policy, *, rows=None):
    """Compare outputs and action of a policy with those of its graph on 33 observations, and on one."""
    rows = probe_rows(policy.tasks[0].fingerprint, 33) if rows is None else rows
    output, _ = policy(rows)
    for batch in (slice(None), slice(0, 1)):
        given = answers(policy, rows[batch])
        raw = np.concatenate([part for name, part in given.items() if name != "action"], axis=1)
        np.testing.assert_allclose(raw, output.raw[batch], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(given["action"], choose_actions(output, "greedy")[batch], atol=1e-5)
    return True


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_graph_of_every_activation_answers_as_the_policy_does(activation):
    rows = torch.randn(33, 4, generator=torch.Generator().manual_seed(0)) * 4
    assert agrees(small_policy(network=Architecture("made-up", "mlp", (8, 8), activation=activation)), rows=rows)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("network", ["mlp:8", "mlp:8x6:4"])
def test_the_graph_of_an_mlp_answers_as_the_policy_does(network, layer_norm):
    assert agrees(small_policy(network=network, layer_norm=layer_norm, output_kind="logits"))


@pytest.mark.parametrize("layer_norm", [False, True])
def test_the_graph_of_convolutions_takes_bytes_and_answers_as_the_policy_does(layer_norm):
    assert agrees(small_policy(image_task(), network="conv:4-4-4:8", layer_norm=layer_norm))


def test_norms_with_a_weight_for_each_pixel_keep_their_weights():
    sizes = {"channels": (4, 4), "kernel_sizes": (8, 4), "strides": (4, 2)}
    made = Architecture("made-up", "conv", (8,), layer_norm=True, elementwise_norm=True, **sizes)
    policy = small_policy(image_task(), network=made)
    with torch.no_grad():
        policy.network.torso[1].weight.normal_(generator=torch.Generator().manual_seed(0))
    assert agrees(policy)


def test_residual_stages_answer_as_the_policy_does():
    sizes = {"channels": (4, 6), "kernel_sizes": (3, 3), "strides": (2, 2)}
    assert agrees(small_policy(image_task(), network=Architecture("made-up", "impala", (8,), **sizes)))


@pytest.mark.parametrize("shape", [(20, 24, 3), (2, 20, 24, 3), (4, 20, 24)])
def test_images_are_turned_as_the_policy_turns_them(shape):
    task = Task("made-up", ObservationFingerprint(shape, "uint8", ActionLayout.discrete(3)))
    sizes = {"channels": (4,), "kernel_sizes": (4,), "strides": (2,)}
    assert agrees(small_policy(task, network=Architecture("made-up", "conv", (8,), **sizes)))


def test_observations_of_several_parts_go_to_the_torso_of_each_image():
    parts = (ObservationPart("camera", (3, 36, 36), "uint8"), ObservationPart("speed", (2,)))
    size = sum(part.size for part in parts) + 1
    fingerprint = ObservationFingerprint(
        (size,), "float32", ActionLayout.discrete(3), observation_parts=parts, time_feature=100
    )
    policy = small_policy(Task("made-up", fingerprint), network="combined:4-4:8:8")
    assert agrees(policy, rows=torch.rand(33, size, generator=torch.Generator().manual_seed(0)) * 255)


def test_running_statistics_are_inside_and_leave_untouched_spans_alone():
    normalization = InputNormalization((1000.0, 1, 2, 3), (1e-4, 4, 9, 1), clip=1.5, untouched=((2, 4),))
    rows = torch.randn(33, 4, generator=torch.Generator().manual_seed(0)) + torch.tensor([1000.0, 1, 2, 3])
    assert agrees(small_policy(normalization=normalization), rows=rows)


@pytest.mark.parametrize("std", ["state", "state_tanh", "parameter", "fixed", "gsde"])
@pytest.mark.parametrize("mapping", ["clip", "tanh_rescale"])
def test_a_gaussian_gives_mean_spread_and_the_action_in_the_units_of_the_box(std, mapping):
    task = box_task(mapping=mapping, low=-0.5, high=2.0)
    policy = small_policy(task, output_kind="gaussian", gaussian=GaussianOptions(std, mean_limit=1.0))
    assert agrees(policy)


@pytest.mark.parametrize("mapping", ["clip", "tanh_rescale"])
def test_a_deterministic_policy_gives_its_actions_and_their_clipped_form(mapping):
    assert agrees(small_policy(box_task(mapping=mapping, low=-0.5, high=0.4), output_kind="actions"))


def test_a_box_without_bounds_is_not_clipped():
    layout = ActionLayout("box", (2,), (-np.inf, -1.0), (np.inf, 1.0), "clip")
    task = Task("made-up", ObservationFingerprint((4,), "float32", layout))
    assert agrees(small_policy(task, output_kind="actions"), rows=torch.ones(33, 4) * 100)


@pytest.mark.parametrize(("kind", "sizes"), [("multi_discrete", (2, 4, 3)), ("multi_binary", (3,))])
def test_several_choices_come_out_as_the_environment_takes_them(kind, sizes):
    task = Task("made-up", ObservationFingerprint((4,), "float32", ActionLayout(kind, sizes)))
    assert agrees(small_policy(task, output_kind="logits"))


def test_q_values_are_the_expectations_of_their_distributions():
    spec = replace(small_policy().spec, atoms=ValueAtoms(-10.0, 10.0, 11))
    generator = torch.Generator().manual_seed(0)
    assert agrees(TorchPolicy.from_spec(spec, [None], zero_output=False, generator=generator))


def test_actions_are_the_means_of_beta_distributions():
    assert agrees(beta_policy())


@pytest.mark.parametrize(("kind", "sizes"), [("discrete", (3,)), ("multi_discrete", (2, 3)), ("multi_binary", (3,))])
def test_probabilities_are_those_of_each_choice(kind, sizes):
    task = Task("made-up", ObservationFingerprint((4,), "float32", ActionLayout(kind, sizes)))
    policy = small_policy(task, output_kind="logits")
    rows = probe_rows(task.fingerprint, 5)
    given = answers(policy, rows, gives_probabilities=True)["probabilities"]
    logits = policy(rows)[0].raw
    expected = (
        logits.sigmoid() if kind == "multi_binary" else torch.cat([p.softmax(1) for p in logits.split(sizes, 1)], 1)
    )
    np.testing.assert_allclose(given, expected, atol=1e-6)


def test_a_file_of_float16_weights_is_half_as_large_and_computes_in_float32():
    policy = small_policy(network="mlp:64x64")
    full, half = (make_model(onnx, policy, half=half, gives_probabilities=False) for half in (False, True))
    assert len(half.SerializeToString()) < 0.65 * len(full.SerializeToString())
    rows = probe_rows(policy.tasks[0].fingerprint, 33)
    given = answers(policy, rows, half=True)["q_values"]
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, policy(rows)[0].raw, atol=2e-3)


@pytest.mark.parametrize(("factor", "fits"), [(65504, True), (-65504, True), (65536, False), (-1e6, False)])
def test_a_weight_that_float16_does_not_reach_is_refused(factor, fits):
    policy = small_policy()
    with torch.no_grad():
        policy.network.heads[0].output.weight[0, 0] = factor
    assert agrees(policy)
    if fits:
        assert np.isfinite(answers(policy, probe_rows(policy.tasks[0].fingerprint, 3), half=True)["q_values"]).all()
        return
    with pytest.raises(RldistillError) as refused:
        make_model(onnx, policy, half=True, gives_probabilities=False)
    assert str(refused.value) == (
        f"--precision float16: the largest weight of a layer is {abs(factor):.6g}, and float16 ends at 65,504. "
        "Use --precision float32."
    )


def test_the_graph_says_its_opset_its_names_and_a_batch_of_any_size():
    model = make_model(onnx, small_policy(vector_task(3, 4)), half=False, gives_probabilities=False)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    (observation,) = model.graph.input
    assert observation.name == "observation"
    dims = observation.type.tensor_type.shape.dim
    assert (dims[0].dim_param, dims[1].dim_value) == ("batch", 4)
    assert [output.name for output in model.graph.output] == ["q_values", "action"]


def test_only_the_head_that_is_exported_is_in_the_file():
    policy = small_policy(vector_task(3, name="first"), vector_task(5, name="second")).for_task("second")
    assert answers(policy, np.zeros((1, 4), np.float32))["q_values"].shape == (1, 5)
    assert agrees(policy)
