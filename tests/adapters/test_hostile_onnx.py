"""What an ONNX file may not be: nothing beyond it is reached or run, and every refusal is one line."""

import random
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("onnx", reason="needs the extra `onnx`")
pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")

from onnx import TensorProto, helper, numpy_helper

from rldistill.adapters import onnx_file
from rldistill.adapters.load import load_policy
from rldistill.errors import PolicyFileError, RldistillError
from tests.fuzz import onnx_cases
from tests.kit.onnx_files import DOUBLE, FLOAT, HALF, expected, layers, mlp_model, saved
from tests.kit.small_policies import vector_task

ROWS = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)


@pytest.fixture
def onnx_path(tmp_path):
    return tmp_path / "policy.onnx"


def load(path):
    return load_policy(path, task=vector_task(), outputs="q_values")


def refusal(path, error=PolicyFileError, *, read=onnx_file.read_onnx):
    """Return how a file is refused; most of them before anything is run."""
    with pytest.raises(error) as caught:
        read(path)
    line = str(caught.value)
    assert "\n" not in line
    return line.replace(str(path), "FILE")


def test_a_dimension_that_is_not_fixed_is_named(onnx_path):
    model = mlp_model()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "width"
    assert refusal(saved(model, onnx_path)) == (
        "ONNX file FILE: dimension 1 of its input obs is not fixed ('width'); only the batch, dimension 0, may be. "
        "Export it with the shape of the observations."
    )


def test_a_type_that_no_version_of_onnx_knows_is_told(onnx_path):
    content = saved(mlp_model(), onnx_path).read_bytes()
    # As a byte: protobuf does not write what it does not know.
    place = content.index(b"\x08\x01\x12", content.rindex(b"obs"))
    onnx_path.write_bytes(content[:place] + b"\x08\x63\x12" + content[place + 3 :])
    assert refusal(onnx_path) == (
        "ONNX file FILE: its input obs is of the unknown type 99, expected FLOAT, DOUBLE, FLOAT16, UINT8."
    )


def test_damaged_bytes_are_never_another_error_than_ours(onnx_path):
    content, rng, refused = (
        saved(with_function(helper.make_node("Neg", ["x"], ["y"])), onnx_path).read_bytes(),
        np.random.default_rng(0),
        0,
    )
    for _ in range(300):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 6)):
            damaged[place] = rng.integers(0, 256)
        onnx_path.write_bytes(damaged)
        try:
            onnx_file.read_onnx(onnx_path)
        except PolicyFileError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 500 + len(str(onnx_path))
    assert refused > 100


def test_whatever_field_is_damaged_it_is_read_or_refused_by_an_error_of_ours(onnx_path):
    (onnx_path.parent / "w.bin").write_bytes(bytes(128))
    works = 0
    for number in range(200):
        onnx_path.write_bytes(onnx_cases.cases(random.Random(number)))
        try:
            onnx_file.read_onnx(onnx_path)
            works += 1
        except PolicyFileError as error:
            assert "\n" not in str(error).replace("a\nb", "")
    assert 20 < works < 180


@pytest.mark.parametrize("name", ["goal", "h_in"])
def test_several_inputs_are_refused_unless_they_come_back(onnx_path, name):
    model = mlp_model()
    model.graph.input.append(helper.make_tensor_value_info(name, FLOAT, ["batch", 4]))
    model.graph.node.insert(0, helper.make_node("Add", ["obs", name], ["both"]))
    model.graph.node[1].input[0] = "both"
    assert refusal(saved(model, onnx_path)) == (
        f"ONNX file FILE takes 2 inputs (obs, {name}) and gives q. Policies take one, and what they remember: inputs "
        "that come back as outputs of a like name and the same shape, such as h_in and h_out."
    )


def test_an_input_of_text_is_refused(onnx_path):
    model = mlp_model()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    assert refusal(saved(model, onnx_path)) == (
        "ONNX file FILE: its input obs is STRING, expected FLOAT, DOUBLE, FLOAT16, UINT8."
    )


def nested(node):
    """Return an If whose branches hold a node."""
    outputs = [helper.make_tensor_value_info("obs2", FLOAT, None)]
    graphs = [helper.make_graph([node], name, [], outputs) for name in ("yes", "no")]
    return helper.make_node("If", ["condition"], ["nested"], then_branch=graphs[0], else_branch=graphs[1])


@pytest.mark.parametrize("wrap", [lambda node: node, nested, lambda node: nested(nested(node))], ids=range(3))
def test_operators_beyond_the_standard_are_refused_however_deep_they_lie(onnx_path, wrap):
    model = mlp_model()
    model.graph.node.insert(0, wrap(helper.make_node("Run", ["obs"], ["obs2"], domain="evil.corp")))
    assert refusal(saved(model, onnx_path)) == (
        "ONNX file FILE needs operators beyond the ONNX standard: evil.corp.Run. They would run code of another "
        "library; export it with standard operators only."
    )


@pytest.mark.parametrize("operator", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("wrap", [lambda node: node, nested, lambda node: nested(nested(node))], ids=range(3))
def test_a_memory_is_recognised_by_its_operator_however_deep_it_lies(onnx_path, operator, wrap):
    model = mlp_model()
    model.graph.node.insert(0, wrap(helper.make_node(operator, ["obs", "w", "r"], ["obs2"], hidden_size=4)))
    assert refusal(saved(model, onnx_path)) == (
        f"ONNX file FILE is recurrent: it has {operator}, and neither takes nor gives a state: it forgets everything "
        "between two steps. Export it with its state, such as h_in and h_out."
    )


def with_function(node):
    """Return a model that calls a function of its own made of one node."""
    model = mlp_model()
    model.graph.node[1].input[0] = "doubled"
    model.graph.node.insert(1, helper.make_node("Double", ["flat"], ["doubled"], domain="mine"))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("evil.corp", 1)]
    model.functions.append(helper.make_function("mine", "Double", ["x"], ["y"], [node], opsets[:1]))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    return model


def test_functions_that_the_file_defines_are_looked_into(onnx_path):
    policy = load(saved(with_function(helper.make_node("Add", ["x", "x"], ["y"])), onnx_path))
    np.testing.assert_allclose(policy(ROWS)[0].q_values, expected(layers(), 2 * ROWS), rtol=1e-5, atol=1e-5)
    hostile = with_function(helper.make_node("Run", ["x"], ["y"], domain="evil.corp"))
    assert "beyond the ONNX standard: evil.corp.Run." in refusal(saved(hostile, onnx_path))


@pytest.mark.parametrize("domain", ["", "ai.onnx", "com.microsoft", "com.microsoft.nchwc", "org.pytorch.aten"])
def test_a_function_may_not_bear_a_name_under_which_onnxruntime_has_an_operator(onnx_path, domain):
    model = with_function(helper.make_node("Neg", ["x"], ["y"]))
    model.functions[0].domain = model.graph.node[1].domain = domain
    model.functions[0].name = model.graph.node[1].op_type = "Gelu"
    assert refusal(saved(model, onnx_path)) == (
        f"ONNX file FILE defines operators that have a meaning already: {domain}.Gelu. onnxruntime would run its own "
        "in their place. Export it with functions of another domain, or without."
    )


def test_all_domains_of_onnxruntime_are_known():
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

    domains = {schema.domain for schema in get_all_operator_schema()}
    assert "com.microsoft" in domains
    assert [domain for domain in sorted(domains) if not onnx_file.is_of_runtime(domain)] == []


def external(model, location, *, offset=None, length=None):
    """Let a weight of a model lie in a file; return its bytes."""
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "w0")
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    return data


def test_external_weights_beside_the_file_are_part_of_it(onnx_path):
    inside = load(saved(mlp_model(), onnx_path))
    model = mlp_model()
    data = external(model, "weights/w.bin", offset=3, length=128)
    folder = onnx_path.parent / "weights"
    folder.mkdir()
    (folder / "w.bin").write_bytes(b"abc" + data + b"rest")
    policy = load(saved(model, onnx_path))
    assert torch.equal(policy(ROWS)[0].q_values, inside(ROWS)[0].q_values)
    (folder / "w.bin").write_bytes(b"abc" + data[64:] + data[:64] + b"rest")
    assert load(onnx_path).hash != policy.hash


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../secret.bin", "a/../../secret.bin", "C:\\secret.bin", "..\\secret.bin", ""]
)
@pytest.mark.parametrize("is_nested", [False, True])
def test_weights_outside_the_files_folder_are_refused(onnx_path, location, is_nested):
    model = mlp_model()
    external(model, location)
    if is_nested:
        tensor = model.graph.initializer[0]
        model.graph.node.append(nested(helper.make_node("Constant", [], ["c"], value=tensor)))
        del model.graph.initializer[0]
    assert refusal(saved(model, onnx_path)) == (
        f"ONNX file FILE wants weights from {location!r}, which may lie outside its own folder: refused. External "
        "weights must be plain files beside the model."
    )


@pytest.mark.parametrize("is_folder", [False, True])
def test_links_are_not_followed(tmp_path, is_folder):
    outside, folder = tmp_path / "outside", tmp_path / "model"
    outside.mkdir()
    folder.mkdir()
    model = mlp_model()
    data = external(model, "w/x.bin" if is_folder else "x.bin")
    (outside / "x.bin").write_bytes(data)
    if is_folder:
        (folder / "w").symlink_to(outside)
    else:
        (folder / "x.bin").symlink_to(outside / "x.bin")
    assert "may lie outside its own folder" in refusal(saved(model, folder / "p.onnx"))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"offset": 100, "length": 128}, "weight w0 should be bytes 100 to 228 of w.bin, which has 128."),
        ({"offset": -1}, "weight w0 should be bytes -1 to 128 of w.bin, which has 128."),
        ({"length": "many"}, "weight w0 has no readable place (invalid literal for int() with base 10: 'many')."),
        ({"length": 64}, "weight w0 is damaged"),
    ],
)
def test_external_weights_that_are_not_all_there(onnx_path, options, line):
    model = mlp_model()
    (onnx_path.parent / "w.bin").write_bytes(external(model, "w.bin", **options))
    assert f"ONNX file FILE: {line}" in refusal(saved(model, onnx_path))


@pytest.mark.parametrize("length", [300, 5000])
def test_a_name_of_external_weights_that_no_file_may_have_is_one_bounded_line(onnx_path, length):
    model = mlp_model()
    external(model, "w" * length)
    assert refusal(saved(model, onnx_path)) == (
        f"ONNX file FILE needs its weights from '{'w' * 60} … beside it: found nothing there."
    )


def test_missing_external_weights_are_named(onnx_path):
    model = mlp_model()
    external(model, "w.bin")
    assert refusal(saved(model, onnx_path)) == (
        "ONNX file FILE needs its weights from 'w.bin' beside it: found nothing there."
    )


def test_a_file_over_the_limit_is_refused_before_it_is_read(onnx_path, monkeypatch):
    saved(mlp_model(), onnx_path)
    monkeypatch.setattr(onnx_file, "MAX_BYTES", 300)
    assert refusal(onnx_path) == (
        "ONNX file FILE takes 0 MiB with its weights, the most that is read is 0 MiB. Is it a policy?"
    )


def test_external_weights_count_towards_the_limit(onnx_path, monkeypatch):
    model = mlp_model()
    (onnx_path.parent / "w.bin").write_bytes(external(model, "w.bin"))
    monkeypatch.setattr(onnx_file, "MAX_BYTES", saved(model, onnx_path).stat().st_size + 100)
    assert "takes 0 MiB with its weights" in refusal(onnx_path)


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE, HALF])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_no_number(onnx_path, dtype, value):
    weights = layers(dtype)
    weights[0][0][1, 1] = value
    assert refusal(saved(mlp_model(weights=weights, dtype=dtype), onnx_path)) == (
        "ONNX file FILE: weight w0 holds NaN or infinity. Its training diverged."
    )


def test_a_bound_may_be_infinite(onnx_path):
    model = mlp_model()
    model.graph.initializer.append(numpy_helper.from_array(np.float32(np.inf), "most"))
    model.graph.node.insert(1, helper.make_node("Min", ["flat", "most"], ["bounded"]))
    model.graph.node[2].input[0] = "bounded"
    output, _ = load(saved(model, onnx_path))(ROWS)
    np.testing.assert_allclose(output.q_values, expected(layers(), ROWS), rtol=1e-5, atol=1e-5)


def test_a_mask_may_be_infinite_also_where_it_is_a_row(onnx_path):
    model = mlp_model()
    mask = numpy_helper.from_array(np.array([0, -np.inf, 0, 0], np.float32), "mask")
    model.graph.initializer.append(mask)
    model.graph.node.insert(1, helper.make_node("Max", ["flat", "mask"], ["bounded"]))
    model.graph.node[2].input[0] = "bounded"
    output, _ = load(saved(model, onnx_path))(ROWS)
    bounded = np.maximum(ROWS, [0, -np.inf, 0, 0]).astype(np.float32)
    np.testing.assert_allclose(output.q_values, expected(layers(), bounded), rtol=1e-5, atol=1e-5)


def test_a_mask_that_holds_nan_is_refused(onnx_path):
    model = mlp_model()
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, np.nan], np.float32), "mask"))
    assert refusal(saved(model, onnx_path)) == (
        "ONNX file FILE: weight mask holds NaN or infinity. Its training diverged."
    )


def test_files_that_are_no_onnx_model(onnx_path):
    onnx_path.write_bytes(b"")
    assert refusal(onnx_path, read=load) == (
        "Policy file FILE is empty (0 bytes): its download or copy is incomplete. Fetch it again."
    )
    onnx_path.write_bytes(mlp_model().SerializeToString()[:-5])
    assert refusal(onnx_path).startswith("ONNX file FILE cannot be read: ")
    onnx_path.write_bytes(b"\x08\x0a")
    assert refusal(onnx_path) == "ONNX file FILE holds no graph with outputs. It is not an ONNX model, or incomplete."


def test_a_graph_that_does_not_run_is_one_line(onnx_path):
    model = mlp_model()
    model.graph.node[2].op_type = "NoSuchOperator"
    line = refusal(saved(model, onnx_path), read=load)
    assert line.startswith("ONNX file FILE cannot be run: [ONNXRuntimeError] : 10 : INVALID_GRAPH : ")
    assert "No Op registered for NoSuchOperator" in line


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_asked_for_by_its_extra(onnx_path, monkeypatch, package):
    saved(mlp_model(), onnx_path)
    monkeypatch.setitem(sys.modules, package, None)
    assert refusal(onnx_path, RldistillError, read=load) == (
        f"ONNX file FILE needs {package}, which is not installed: .venv/bin/pip install -c constraints.txt -e "
        "'.[onnx]' in the checkout of rldistill"
    )
