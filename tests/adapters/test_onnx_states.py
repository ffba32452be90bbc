"""What an ONNX model remembers: pairs of an input and an output, told by name, shape and what depends on them."""

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")

from onnx import helper, numpy_helper

from rldistill.adapters.load import load_policy
from rldistill.adapters.onnx_file import read_onnx
from rldistill.adapters.onnx_states import Value, roles, state_layout
from rldistill.errors import MismatchError, PolicyFileError
from rldistill.testing import Reference, check_policy
from tests.kit.onnx_files import FLOAT, model_of, saved
from tests.kit.small_policies import vector_task


def floats(*named):
    return [Value(name, "FLOAT", dims) for name, dims in named]


@pytest.mark.parametrize(
    ("given", "back"),
    [
        ("h_in", "h_out"),
        ("state_ins", "state_outs"),
        ("state_in_1", "state_out_1"),
        ("h0", "hn"),
        ("c_0", "c_n"),
        ("hidden", "next_hidden"),
        ("prev_hidden", "hidden"),
        ("hx", "hx_out"),
        ("actor.lstm.h_in", "actor.lstm.h_out"),
        ("recurrent_in", "recurrent_out"),
        ("hin", "hout"),
    ],
)
def test_pairs_are_told_by_their_names_whatever_stands_first(given, back):
    for inputs in (floats(("obs", ("b", 4)), (given, (1, "b", 3))), floats((given, (1, "b", 3)), ("obs", ("b", 4)))):
        outputs = floats((back, (1, "b", 3)), ("actions", ("b", 2)))
        found = roles("it", inputs, outputs, {"actions": ["obs", given], back: ["obs", given]})
        assert found.observation.name == "obs"
        assert [(one.name, other.name) for one, other in found.states] == [(given, back)]


def test_of_two_pairs_each_has_its_own():
    inputs = floats(("c_in", (1, "b", 3)), ("obs", ("b", 4)), ("h_in", (1, "b", 3)))
    outputs = floats(("actions", ("b", 2)), ("h_out", (1, "b", 3)), ("c_out", (1, "b", 3)))
    reads = {"actions": ["h_out"], "h_out": ["obs", "h_in", "c_in"], "c_out": ["obs", "h_in", "c_in"]}
    found = roles("it", inputs, outputs, reads)
    assert {one.name: other.name for one, other in found.states} == {"h_in": "h_out", "c_in": "c_out"}


def test_a_state_that_only_reaches_an_action_through_another_is_one():
    inputs = floats(("obs", ("b", 4)), ("h_in", ("b", 3)), ("c_in", ("b", 3)), ("t_in", ("b", 1)))
    outputs = floats(("actions", ("b", 2)), ("h_out", ("b", 3)), ("c_out", ("b", 3)), ("t_out", ("b", 1)))
    found = roles("it", inputs, outputs, {"actions": ["obs", "h_in"], "h_out": ["c_in"], "c_out": ["obs"]})
    assert [one.name for one, _ in found.states] == ["h_in", "c_in"]
    assert [value.name for value in found.unused] == ["t_in"]


@pytest.mark.parametrize(
    "outputs",
    [
        floats(("actions", ("b", 2)), ("h_out", ("b", 5))),
        [*floats(("actions", ("b", 2))), Value("h_out", "DOUBLE", ("b", 3))],
        floats(("h_out", ("b", 3))),
    ],
    ids=["another shape", "another type", "nothing else"],
)
def test_what_is_no_pair_is_refused(outputs):
    inputs = floats(("obs", ("b", 4)), ("h_in", ("b", 3)))
    with pytest.raises(
        PolicyFileError, match=r"^it takes 2 inputs \(obs, h_in\) and gives .* such as h_in and h_out\."
    ):
        roles("it", inputs, outputs, {"actions": ["obs", "h_in"], "h_out": ["obs", "h_in"]})


@pytest.mark.parametrize(
    ("dims", "batch", "shape", "axis"),
    [
        ((2, "b", 5), "b", (2, 5), 1),
        (("b", 5), "batch", (5,), 0),
        ((2, 1, 5), "b", (2, 1, 5), None),  # made for one environment, whatever the observations are
        ((2, 1, 5), 1, (2, 1, 5), None),
        ((8, 8, 8), 8, (8, 8), 1),
        ((8, 5), 8, (5,), 0),
        ((), 1, (), None),
    ],
)
def test_where_the_environments_stand(dims, batch, shape, axis):
    (given, back) = floats(("h_in", dims), ("h_out", dims))
    state = state_layout("it", (given, back), "float32", batch)
    assert (state.shape, state.axis) == (shape, axis)
    parts = np.arange(3 * np.prod(shape, dtype=int), dtype=np.float32).reshape(3, *shape)
    if axis is not None:
        np.testing.assert_array_equal(state.unstacked(state.stacked(parts)), parts)


@pytest.mark.parametrize(
    ("dims", "batch", "line"),
    [
        (("b", "time", 5), "b", "has the shape .* Does it grow from step to step\\?"),
        ((2, 4, 5), 8, "has the shape"),
        (None, "b", "has the shape"),
        (("b", 1 << 20, 1 << 20), "b", "it remembers 1,099,511,627,776 numbers in past_in, the most are 16,777,216"),
    ],
)
def test_a_memory_of_no_fixed_size_is_refused_in_one_line(dims, batch, line):
    (given, back) = floats(("past_in", dims), ("past_out", dims))
    with pytest.raises(PolicyFileError, match=line) as caught:
        state_layout("it", (given, back), "float32", batch)
    assert "\n" not in str(caught.value)


def summing(*, batch="batch", grows=False):
    """Return a model whose scores are the sum of what it observed, and a state that nothing depends on."""
    inputs = [("obs", [batch, 3]), ("total_in", [1, batch, 3]), ("state_ins", [batch, 7]), ("seq_lens", ["n"])]
    outputs = [("logits", [batch, 3]), ("total_out", [1, batch, 3] if not grows else None), ("state_outs", [batch, 7])]
    nodes = [
        helper.make_node("Unsqueeze", ["obs", "axis"], ["row"]),
        helper.make_node("Add", ["total_in", "row"], ["sum"]),
        helper.make_node("Squeeze", ["sum", "axis"], ["logits"]),
        helper.make_node("Concat", ["sum"] * (2 if grows else 1), ["total_out"], axis=0),
        helper.make_node("Identity", ["state_ins"], ["state_outs"]),
    ]
    ends = [[helper.make_tensor_value_info(name, FLOAT, dims) for name, dims in each] for each in (inputs, outputs)]
    return model_of(nodes, *ends, [numpy_helper.from_array(np.array([0]), "axis")])


def test_what_nothing_depends_on_is_no_memory(tmp_path):
    model = read_onnx(saved(summing(), tmp_path / "sum.onnx"))
    assert [(state.input_name, state.shape, state.axis) for state in model.states] == [("total_in", (1, 3), 1)]
    assert [name for name, *_ in model.unused] == ["state_ins", "seq_lens"]
    assert model.output_names == ("logits", "state_outs")


@pytest.mark.parametrize("batch", ["batch", 1])
def test_each_environment_has_a_state_of_its_own(batch, tmp_path):
    path = saved(summing(batch=batch), tmp_path / "sum.onnx")
    rows = np.random.default_rng(0).normal(size=(5, 3, 3)).astype(np.float32)
    starts = np.zeros((5, 3), bool)
    starts[0], starts[2, 1] = True, True
    totals = np.zeros((3, 3))
    outputs = []
    for seen, begins in zip(rows, starts, strict=True):
        totals = np.where(begins[:, None], 0, totals) + seen
        outputs.append(totals)
    check_policy(
        lambda: load_policy(path, task=vector_task(3, 3), outputs="logits"),
        reference=Reference(rows, np.stack(outputs), starts=starts),
    )


def test_a_state_that_grows_is_told_in_a_line(tmp_path):
    path = saved(summing(grows=True), tmp_path / "sum.onnx")
    with pytest.raises(MismatchError, match=r"its next state total_out as \[1, 3\] for each .* and gave \[2, 3\]\. A"):
        load_policy(path, task=vector_task(3, 3), outputs="logits")


def feeding_back():
    """Return a model whose action depends on the last one, and whose value does not."""
    inputs = [("obs", ["batch", 3]), ("last_action", ["batch", 3])]
    outputs = [("action", ["batch", 3]), ("value", ["batch", 3])]
    nodes = [
        helper.make_node("Add", ["obs", "last_action"], ["action"]),
        helper.make_node("Identity", ["obs"], ["value"]),
    ]
    ends = [[helper.make_tensor_value_info(name, FLOAT, dims) for name, dims in each] for each in (inputs, outputs)]
    return model_of(nodes, *ends, [])


def test_a_policy_that_depends_on_what_is_fed_zeros_is_refused(tmp_path):
    path = saved(feeding_back(), tmp_path / "feed.onnx")
    with pytest.raises(PolicyFileError) as caught:
        load_policy(path, task=vector_task(3, 3), outputs="logits=action")
    assert str(caught.value) == (
        f"ONNX file {path}: its output action depends on its input last_action, and what goes in there is not known. "
        "Export it with that among its observations."
    )
    assert load_policy(path, task=vector_task(3, 3), outputs="logits=value").program.states == ()
