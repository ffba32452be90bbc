"""The C of policies that remember keeps the state of an episode, and forgets it where one begins."""

import numpy as np
import pytest

from rldistill.exports.c.footprint import Footprint
from rldistill.exports.c.plan import make_plan
from rldistill.networks import Architecture, InputNormalization
from rldistill.tasks import ObservationFingerprint, ObservationPart, Task
from rldistill.types import ActionLayout
from tests.kit.c_programs import BEGIN, SANITIZERS, written
from tests.kit.small_policies import box_task, small_policy, vector_task
from tests.kit.states import played

STATISTICS = InputNormalization((0.5, -1.0, 30.0, 0.0), (4.0, 0.25, 9.0, 1.0))
NETWORKS = ["gru:5", "lstm:4", "mlp:6+gru:5", "mlp:7x6:5+lstm:3", "stack:3+mlp:6", "stack:2+gru:4"]


def episodes(policy, lengths=(7, 5), scale=1.0):
    """Return observations of several episodes, one after the other, and where each of them begins."""
    fingerprint, rng = policy.tasks[0].fingerprint, np.random.default_rng(3)
    shape = (sum(lengths), *fingerprint.observation_shape)
    is_bytes = fingerprint.observation_dtype == "uint8"
    rows = rng.integers(0, 256, shape, np.uint8) if is_bytes else rng.normal(size=shape).astype(np.float32) * scale
    return rows, np.cumsum((0, *lengths[:-1]))


def with_resets(rows, begins):
    mark = np.full_like(rows[:1], BEGIN)
    parts = np.split(rows, begins[1:])
    return np.concatenate([piece for part in parts for piece in (mark, part)])


@pytest.mark.parametrize("network", NETWORKS)
def test_decisions_of_several_episodes_are_the_policys(network):
    policy = small_policy(network=network, normalization=STATISTICS)
    rows, begins = episodes(policy, scale=4.0)
    expected, actions, _ = played(policy, rows, begins)
    got, done = written(policy).run(with_resets(rows, begins), *SANITIZERS)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-5)
    np.testing.assert_array_equal(done, actions)


@pytest.mark.parametrize("network", NETWORKS)
def test_int8_remembers_nearly_what_the_policy_does(network):
    task = box_task(mapping="tanh_rescale")
    policy = small_policy(task, network=network, output_kind="gaussian", normalization=STATISTICS)
    rows, begins = episodes(policy, (40, 30, 30), scale=2.0)
    expected, _, before = played(policy, rows, begins)
    made = written(policy, calibration=rows, state=before)
    got, _ = made.run(with_resets(rows, begins))
    assert np.abs(got - expected).max() < 0.08 * np.abs(expected).max()


@pytest.mark.parametrize("is_int8", [False, True])
def test_a_stack_of_bytes_keeps_bytes(is_int8):
    task = Task("ram", ObservationFingerprint((6,), "uint8", ActionLayout.discrete(3)))
    policy = small_policy(task, network="stack:3+mlp:6")
    rows, begins = episodes(policy, (12,))
    expected, _, before = played(policy, rows, begins)
    made = written(policy, calibration=rows, state=before) if is_int8 else written(policy)
    assert "uint8_t observations[18];" in made.source.header
    assert made.source.num_state_bytes == 20  # in a struct that may be followed by floats
    got, _ = made.run(rows, *SANITIZERS)
    np.testing.assert_allclose(got, expected, atol=(0.08 if is_int8 else 1e-5) * np.abs(expected).max())


def test_a_camera_with_a_memory_above_its_torso_is_written():
    parts = (ObservationPart("camera", (1, 12, 12), "uint8"), ObservationPart("speed", (3,)))
    fingerprint = ObservationFingerprint((147,), "float32", ActionLayout.discrete(3), observation_parts=parts)
    made = Architecture("made-up", "combined", (6,), (4,), (4,), (2,), memory="gru", memory_size=4, head_hidden=(5,))
    policy = small_policy(Task("parts", fingerprint), network=made)
    rows, begins = episodes(policy)
    expected, _, _ = played(policy, rows, begins)
    got, _ = written(policy).run(with_resets(rows, begins))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(("network", "floats"), [("gru:16", 16), ("lstm:16", 32), ("stack:4+mlp:8", 16)])
def test_the_state_is_counted_as_ram_and_stands_in_a_struct_without_the_scratch_memory(network, floats):
    policy = small_policy(vector_task(), network=network)
    made = written(policy)
    assert made.source.num_state_bytes == 4 * floats
    assert "void policy_reset(policy_state *state);" in made.source.header
    assert "malloc" not in made.source.source
    footprint = Footprint.of(make_plan(policy), made.source)
    assert footprint.ram_bytes > made.source.num_memory_bytes + made.source.num_state_bytes


def test_a_policy_that_remembers_nothing_has_no_state():
    made = written(small_policy())
    assert "state" not in made.source.header
    assert "state" not in made.source.source
