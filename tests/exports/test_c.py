"""The C of a policy, compiled by gcc with every warning an error and run, also under sanitizers, acts as the policy."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rldistill.errors import MismatchError, RldistillError
from rldistill.exports.c import library, quantize
from rldistill.exports.c.plan import refusals_of
from rldistill.exports.c.text import comment, identifier
from rldistill.networks import Architecture, GaussianOptions, InputNormalization, ValueAtoms
from rldistill.networks.torsos import ACTIVATIONS, to_images
from rldistill.policies import TorchPolicy, choose_actions
from rldistill.tasks import ObservationFingerprint, ObservationPart, Task
from rldistill.types import ActionLayout
from tests.kit.c_programs import SANITIZERS, written
from tests.kit.small_policies import beta_policy, box_task, image_task, small_policy, vector_task


def observations(policy, count=20, scale=2.0):
    """Return observations of a policy's task, the same each time."""
    fingerprint, rng = policy.tasks[0].fingerprint, np.random.default_rng(0)
    shape = (count, *fingerprint.observation_shape)
    if fingerprint.observation_dtype == "uint8":
        return rng.integers(0, 256, shape, np.uint8)
    return (scale * rng.normal(size=shape)).astype(np.float32)


def answers_as(policy, rows=None, *flags):
    """Compare outputs and actions of float32 C with the policy's."""
    rows = observations(policy) if rows is None else rows
    outputs, actions = written(policy).run(rows, *flags)
    expected = policy(rows)[0]
    np.testing.assert_allclose(outputs, expected.raw, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(actions, choose_actions(expected, "greedy").reshape(len(rows), -1), atol=1e-5)
    return True


def answers_exactly(policy, rows=None, *flags):
    """Compare int8 C with its arithmetic in Python bit for bit, and with the policy roughly; returns the latter."""
    rows = observations(policy) if rows is None else rows
    made = written(policy, calibration=rows)
    outputs, actions = made.run(rows, *flags)
    exact = made.quantized.outputs(torch.as_tensor(rows)).numpy()[:, : made.quantized.plan.last.num_outputs]
    np.testing.assert_array_equal(outputs[:, : exact.shape[1]], exact)
    expected = policy(rows)[0].raw.numpy()
    # Of a random network nearly all of whose units are silent, steps of int8 are larger than what it says.
    np.testing.assert_allclose(outputs, expected, atol=max(0.08 * np.abs(expected).max(), 0.01))
    return actions


@settings(max_examples=6, deadline=None)
@given(
    st.integers(1, 9),
    st.lists(st.integers(1, 12), max_size=3),
    st.sampled_from(["relu", "tanh", "silu"]),
    st.integers(2, 5),
    st.integers(0, 1000),
)
def test_random_small_networks_answer_as_in_pytorch(num_inputs, hidden, activation, num_actions, seed):
    made = Architecture("random", "mlp", tuple(hidden), activation=activation)
    policy = small_policy(vector_task(num_actions, num_inputs), network=made, seed=seed)
    assert answers_as(policy)


@settings(max_examples=4, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 2)), min_size=1, max_size=3),
    st.tuples(st.integers(1, 3), st.integers(9, 14), st.integers(9, 14)),
    st.integers(0, 1000),
)
def test_random_small_convolutions_answer_as_in_pytorch_and_in_int8_exactly(layers, shape, seed):
    channels, kernels, strides = zip(*layers, strict=True)
    made = Architecture("random", "conv", (4,), channels, kernels, strides)
    try:
        task = Task("images", ObservationFingerprint(shape, "uint8", ActionLayout.discrete(3)))
        policy = small_policy(task, network=made, seed=seed)
    except MismatchError:
        assume(False)  # the image is smaller than the kernels need
    assert answers_as(policy)
    answers_exactly(policy)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_computed_as_in_pytorch_and_in_int8_exactly(activation):
    policy = small_policy(network=Architecture("made-up", "mlp", (8, 8), activation=activation))
    assert answers_as(policy)
    answers_exactly(policy)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_convolutions_on_bytes_answer_as_in_pytorch(layer_norm):
    policy = small_policy(image_task(), network="net3", layer_norm=layer_norm)
    assert answers_as(policy, observations(policy, 3), "-O1", *SANITIZERS)


def test_convolutions_in_int8_choose_nearly_as_the_policy_does():
    policy = small_policy(image_task(), network="net3")
    rows = observations(policy, 8)
    actions = answers_exactly(policy, rows, "-O1", *SANITIZERS)
    assert (actions[:, 0] == policy.act(rows)[0]).mean() >= 0.75


@pytest.mark.parametrize("shape", [(12, 12, 3), (2, 12, 12, 3)])
def test_pixels_are_read_where_the_environment_has_them(shape):
    task = Task("images", ObservationFingerprint(shape, "uint8", ActionLayout.discrete(3)))
    made = Architecture("made-up", "conv", (6,), (4, 3), (4, 3), (2, 1))
    policy = small_policy(task, network=made)
    assert answers_as(policy)
    answers_exactly(policy)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((4, 10, 10), "float32"), ((10, 10, 4), "float32"), ((10, 10, 3), "uint8")]
)
def test_pixels_are_normalised_each_by_its_own_statistics(shape, dtype):
    task = Task("images", ObservationFingerprint(shape, dtype, ActionLayout.discrete(3)))
    made = Architecture("made-up", "conv", (6,), (4,), (4,), (2,))
    size = int(np.prod(shape))
    mean, std = np.linspace(-2, 2, size), np.linspace(0.2, 3, size)
    if dtype == "uint8":
        mean, std = 120 + 10 * mean, 10 * std
    # Of convolutions the statistics lie in the order in which images are turned, channels first.
    turned = [to_images(torch.tensor(part).reshape(1, *shape)).flatten().tolist() for part in (mean, std**2)]
    spans = ((0, 2), (7, 8))
    statistics = InputNormalization(*turned, untouched=spans if dtype == "float32" else ())
    policy = small_policy(task, network=made, normalization=statistics)
    rows = mean + std * np.random.default_rng(0).normal(size=(40, size))
    rows = (rows.clip(0, 255) if dtype == "uint8" else rows).reshape(-1, *shape).astype(dtype)
    assert answers_as(policy, rows, *SANITIZERS)
    answers_exactly(policy, rows, *SANITIZERS)


def test_norms_with_a_weight_for_each_pixel_keep_their_weights():
    task = Task("images", ObservationFingerprint((1, 12, 12), "uint8", ActionLayout.discrete(3)))
    made = Architecture("made-up", "conv", (6,), (3,), (4,), (2,), layer_norm=True, elementwise_norm=True)
    policy = small_policy(task, network=made)
    with torch.no_grad():
        for name, weight in policy.network.named_parameters():
            if "torso.1" in name:
                weight.copy_(torch.linspace(-1, 1, weight.numel()).view(weight.shape))
    assert answers_as(policy)


def test_several_parts_of_an_observation_have_torsos_of_their_own():
    parts = (ObservationPart("camera", (1, 12, 12), "uint8"), ObservationPart("speed", (3,)))
    layout = ActionLayout("box", (2,), (-1.0, -2.0), (1.0, 2.0), "clip")
    task = Task("parts", ObservationFingerprint((147,), "float32", layout, observation_parts=parts))
    made = Architecture("made-up", "combined", (6,), (4,), (4,), (2,), head_hidden=(8,))
    policy = small_policy(task, network=made, output_kind="actions")
    rows = observations(policy)
    rows[:, :144] = np.random.default_rng(1).integers(0, 256, (len(rows), 144))
    assert answers_as(policy, rows, *SANITIZERS)
    answers_exactly(policy, rows, *SANITIZERS)


def test_images_may_have_more_layers_of_their_own_than_the_whole_network_has_modules():
    parts = (
        ObservationPart("left", (12, 12, 3), "uint8"),
        ObservationPart("speed", (3,)),
        ObservationPart("right", (1, 14, 12), "uint8"),
    )
    size = sum(part.size for part in parts)
    task = Task("parts", ObservationFingerprint((size,), "float32", ActionLayout.discrete(3), observation_parts=parts))
    made = Architecture("made-up", "combined", (6,), (4, 4), (4, 3), (2, 1), head_hidden=(8,))
    policy = small_policy(task, network=made)
    rows = np.random.default_rng(1).integers(0, 256, (20, size)).astype(np.float32)
    assert answers_as(policy, rows, *SANITIZERS)
    answers_exactly(policy, rows, *SANITIZERS)


@pytest.mark.parametrize(
    ("std", "mapping"),
    [("state", "tanh_rescale"), ("state_tanh", "clip"), ("parameter", "clip"), ("fixed", "clip"), ("gsde", "clip")],
)
def test_a_gaussian_gives_mean_and_log_std_and_acts_by_its_mean(std, mapping):
    task = box_task(mapping=mapping, low=-1.0, high=3.0)
    policy = small_policy(task, network="mlp:8", output_kind="gaussian", gaussian=GaussianOptions(std, mean_limit=20.0))
    with torch.no_grad():
        for weight in policy.network.parameters():
            weight += 0.1
    assert answers_as(policy)
    answers_exactly(policy)


def test_the_noise_of_a_policy_without_hidden_layers_depends_on_numbers_of_any_range_in_int8():
    made, gaussian = Architecture("linear", "mlp", ()), GaussianOptions("gsde")
    policy = small_policy(box_task(2, 3), network=made, output_kind="gaussian", gaussian=gaussian)
    rows = np.array([[0, 5, -100], [1, 6, 900], [0, 6, 900], [1, 5, -100], [0.5, 5.5, 400]], np.float32)
    answers_exactly(policy, rows, *SANITIZERS)
    # Ranges of equal width that begin elsewhere.
    answers_exactly(policy, rows * np.array([1, 1, 0.001], np.float32), *SANITIZERS)


def test_deterministic_actions_are_squashed_into_their_box():
    assert answers_as(small_policy(box_task(mapping="tanh_rescale", high=5.0), network="mlp:8", output_kind="actions"))


def test_q_values_of_a_distribution_are_its_mean():
    policy = small_policy(vector_task(), network="mlp:8")
    spec = policy.with_spec(atoms=ValueAtoms(-2.0, 5.0, 11)).spec
    assert answers_as(TorchPolicy.from_spec(spec, [None], zero_output=False))


def test_actions_are_the_means_of_beta_distributions():
    policy = beta_policy()
    assert answers_as(policy)
    assert answers_as(policy, 100 * observations(policy))


@pytest.mark.parametrize(("kind", "sizes"), [("multi_discrete", (3, 2, 4)), ("multi_binary", (5,))])
def test_several_choices_are_made_one_by_one(kind, sizes):
    task = Task("choices", ObservationFingerprint((4,), "float32", ActionLayout(kind, sizes)))
    assert answers_as(small_policy(task, network="mlp:8", output_kind="logits"))


def test_statistics_are_applied_even_where_means_are_large_beside_the_spread():
    statistics = InputNormalization((1e4, 0.5, -3e5, 0.0), (1e-2, 4.0, 9.0, 1.0), clip=3.0, untouched=((3, 4),))
    policy = small_policy(network="mlp:8", normalization=statistics)
    mean, std = np.array(statistics.mean), np.sqrt(statistics.variance)
    rows = (mean + std * observations(policy)).astype(np.float32)
    assert answers_as(policy, rows, *SANITIZERS)
    answers_exactly(policy, rows, *SANITIZERS)


def test_an_input_that_never_varied_counts_as_constant_in_int8():
    policy = small_policy(network="mlp:8")
    rows = observations(policy)
    rows[:, 1] = 7.25
    answers_exactly(policy, rows)


def test_linear_policies_read_the_observation_itself():
    policy = small_policy(network=Architecture("linear", "mlp", ()))
    assert answers_as(policy)
    answers_exactly(policy)


def test_observations_beyond_the_data_are_kept_within_the_range_in_int8():
    policy = small_policy(network="mlp:8")
    rows = observations(policy)
    beyond = np.array([[np.inf, -np.inf, np.nan, 1e30]], np.float32)
    made = written(policy, calibration=rows)
    outputs, _ = made.run(beyond, *SANITIZERS)
    assert np.isfinite(outputs).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_observation_of_nan_reaches_the_outputs(activation):
    made = written(small_policy(network=Architecture("made-up", "mlp", (8, 8), activation=activation)))
    outputs, _ = made.run(np.array([[0.0, np.nan, 0.0, 0.0]], np.float32))
    assert np.isnan(outputs).all()


def test_a_contract_cannot_end_its_comment():
    made = written(small_policy(), contract=("*/ #error /* ??/", "???/", "name\nwith a line"))
    outputs, _ = made.run(observations(small_policy(), 1))
    assert np.isfinite(outputs).all()


@pytest.mark.parametrize(("text", "name"), [("pong-net3", "pong_net3"), ("3D", "policy_3d"), ("Ä", "policy")])
def test_a_file_name_becomes_a_name_of_c(text, name):
    assert identifier(text) == name


def test_int8_is_not_written_for_layer_norms():
    policy = small_policy(network="mlp:8", layer_norm=True)
    with pytest.raises(MismatchError, match=r"^C of precision int8 is not written for layer norms: .* float32"):
        written(policy, calibration=observations(policy))


def test_c_is_not_written_for_residual_stages():
    made = Architecture("made-up", "impala", (8,), (4,), (3,), (2,))
    with pytest.raises(MismatchError, match=r"^C is not written for layers of kind ImpalaStage: .* Export it as onnx"):
        written(small_policy(image_task(), network=made))


@pytest.mark.parametrize("text", ["??/", "???/", "????", "a??b???/"])
def test_no_trigraph_is_left_in_a_comment(text):
    assert "??" not in comment([text])


@pytest.mark.parametrize(("scale", "low"), [(2.0**31, 0.0), (1.0, -(2.0**40)), (float("inf"), 0.0)])
def test_sums_that_have_no_room_in_whole_numbers_are_refused(scale, low):
    expected = r"^C of precision int8: the sums of layer layer_1 .* --precision float32"
    with pytest.raises(MismatchError, match=expected), refusals_of("C of precision int8", "Use --precision float32"):
        quantize._to_steps("layer_1", torch.tensor([scale], dtype=torch.float64), low, 1.0, None)


def test_a_compiler_that_does_not_end_is_told(tmp_path, monkeypatch):
    compiler = tmp_path / "slow"
    compiler.write_text("#!/bin/sh\nexec sleep 60\n")
    compiler.chmod(0o755)
    monkeypatch.setattr(library, "_SECONDS", 0.05)
    with pytest.raises(RldistillError, match=r"^C file .* did not compile with .*slow within 0.05 seconds"):
        library.compile_c(tmp_path / "x.c", tmp_path / "x.so", compiler=str(compiler))


def test_the_head_that_is_played_is_written():
    policy = small_policy(vector_task(3, name="first"), vector_task(5, name="second")).for_task("second")
    assert answers_as(policy)
