"""Policies that remember leave with their state: ONNX, TorchScript, the contract, and what is compared."""

import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from rldistill.errors import RldistillError
from rldistill.exports.contract import differences, make_contract
from rldistill.exports.formats import Export, Sample
from rldistill.exports.names import Names
from rldistill.exports.parity import compare
from rldistill.exports.states import state_parts
from rldistill.exports.table import FORMATS
from rldistill.exports.trajectories import Decisions
from rldistill.networks import InputNormalization
from rldistill.types import PolicyOutput
from tests.kit.recurrent import gru_policy
from tests.kit.small_policies import box_task, small_policy
from tests.kit.states import played

STATISTICS = InputNormalization((0.5, -1.0, 30.0, 0.0), (4.0, 0.25, 9.0, 1.0))
NETWORKS = ["gru:5", "mlp:6+lstm:4", "stack:3+mlp:6", "stack:2+gru:4"]
BEGINS = np.array([0, 7])


def remembering(network, **options):
    return small_policy(box_task(), network=network, output_kind="gaussian", normalization=STATISTICS, **options)


def observations(count=12):
    return (4 * np.random.default_rng(3).normal(size=(count, 4))).astype(np.float32)


def written(policy, name, tmp_path, **options):
    path = tmp_path / f"out{FORMATS[name].suffix}"
    export = Export(policy, make_contract(policy, Names(), None), **options)
    FORMATS[name].write(export, path)
    return export, path


@pytest.mark.parametrize("network", NETWORKS)
def test_an_onnx_file_takes_and_gives_its_state_for_batches_of_any_size(network, tmp_path):
    policy, rows = remembering(network), observations()
    _, path = written(policy, "onnx", tmp_path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [own.name for own in session.get_inputs()]
    assert names == ["observation", *(f"{part.name}_in" for part in state_parts(policy))]
    expected, actions, _ = played(policy, rows, BEGINS)
    state = {own.name: np.zeros((2, own.shape[1]), np.float32) for own in session.get_inputs()[1:]}
    outputs = [own.name for own in session.get_outputs()]
    # Two episodes side by side: of the second, which is shorter, the last observation is repeated.
    for step in range(7):
        pair = rows[[step, min(7 + step, 11)]]
        answers = dict(zip(outputs, session.run(outputs, {"observation": pair, **state}), strict=True))
        places = [step, 7 + step] if step < 5 else [step]
        raw = np.concatenate([answers["mean"], answers["log_std"]], axis=1)
        np.testing.assert_allclose(raw[: len(places)], expected[places], rtol=1e-4, atol=2e-5)
        np.testing.assert_allclose(answers["action"][: len(places)], actions[places], atol=2e-5)
        state = {name: answers[name.replace("_in", "_out")] for name in state}


@pytest.mark.parametrize("network", NETWORKS)
def test_a_torchscript_module_remembers_an_episode_until_it_is_reset(network, tmp_path):
    policy, rows = remembering(network), observations()
    _, path = written(policy, "torchscript", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.load(path)
    expected, actions, _ = played(policy, rows, BEGINS)
    for step, row in enumerate(rows):
        if step in BEGINS:
            module.reset()
        with torch.no_grad():
            answers = module(torch.from_numpy(row[None]))
        raw = torch.cat([answers["mean"], answers["log_std"]], dim=1)
        np.testing.assert_allclose(raw[0], expected[step], rtol=1e-4, atol=2e-5)
        np.testing.assert_allclose(answers["action"][0], actions[step], atol=2e-5)


def test_a_torchscript_module_remembers_no_gradients_and_runs_in_any_mode(tmp_path):
    _, path = written(remembering("mlp:6+gru:4"), "torchscript", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.load(path)
    row = torch.from_numpy(observations(1))
    for _ in range(3):
        action = module(row)["action"].numpy()
    assert np.isfinite(action).all()
    assert module.hidden_state.grad_fn is None and not any(weight.requires_grad for weight in module.parameters())
    with torch.inference_mode():
        module(row)
    module(row)
    module.reset()
    module(row.clone().requires_grad_())  # of an observation that has one, its gradient ends with the step
    assert not module.hidden_state.requires_grad


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_rounded_weights_remember_nearly_the_same(precision, tmp_path):
    policy, rows = remembering("mlp:8+gru:6"), observations(60)
    expected, _, before = played(policy, rows, np.array([0]))
    export, path = written(policy, "onnx", tmp_path, precision=precision, calibration=Sample(rows, before))
    copy, state, got = FORMATS["onnx"].open(export, path)[0], None, []
    for row in rows:
        output, state = copy(row[None], state)
        got.append(output.raw[0].numpy())
    error = np.abs(np.stack(got) - expected).max() / np.abs(expected).max()
    assert 0 < error < 0.08
    assert copy.program.num_parameters == policy.num_parameters


@pytest.mark.parametrize("name", ["onnx", "c", "torchscript"])
def test_what_is_read_back_begins_with_zeros_and_keeps_a_state_for_each_environment(name, tmp_path):
    policy, rows = remembering("lstm:4"), observations()
    export, path = written(policy, name, tmp_path)
    copy = FORMATS[name].open(export, path)[0]
    expected, _, _ = played(policy, rows, BEGINS)
    state = copy.initial_state(2)
    for step in range(5):
        output, state = copy(rows[[step, 7 + step]], state)
        np.testing.assert_allclose(output.raw, expected[[step, 7 + step]], rtol=1e-4, atol=2e-5)


def decisions(policy, begin_of_second=7):
    rows = observations()
    raw, _, _ = played(policy, rows, BEGINS)
    layout = policy.tasks[0].fingerprint.action_layout
    for step in range(len(rows)):
        output = PolicyOutput.from_raw(layout, "gaussian", torch.from_numpy(raw[step : step + 1]))
        begins = np.array([step in (0, begin_of_second)])
        yield Decisions(rows[step : step + 1], rows[step : step + 1], output, np.zeros(1, np.int64), begins, 0)


def test_what_is_compared_begins_anew_with_each_episode():
    policy = remembering("gru:5")
    assert compare(policy, decisions(policy), "float32").largest_output_error == 0
    forgetful = compare(policy, decisions(policy, begin_of_second=-1), "float32")
    assert forgetful.largest_output_error > 1e-3


def test_the_contract_says_what_is_remembered_and_when_it_is_forgotten():
    policy = remembering("stack:3+lstm:4")
    contract = make_contract(policy, Names(), None)
    begins = {"initial": 0.0, "reset": "start of every episode"}
    assert contract["states"] == [
        {"name": "earlier", "shape": [8], **begins},
        {"name": "h", "shape": [4], **begins},
        {"name": "c", "shape": [4], **begins},
    ]
    other = make_contract(remembering("stack:3+gru:5"), Names(), None)
    assert differences(contract, other) == ["state h: shape [4] against [5]", "state c: in ours, not in theirs"]
    assert not make_contract(small_policy(), Names(), None)["states"]


def test_a_module_with_a_memory_of_its_makers_own_is_refused():
    with pytest.raises(RldistillError, match=r"module of its maker's own .* with a memory, and no export keeps"):
        state_parts(gru_policy())


def test_the_contract_in_an_onnx_file_names_its_states(tmp_path):
    _, path = written(remembering("gru:5"), "onnx", tmp_path)
    (entry,) = onnx.load(path).metadata_props
    assert '"states": [{"name": "h", "shape": [5]' in entry.value
