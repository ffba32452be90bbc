"""Small ONNX files, built node by node: what an exporter would write, and what none should."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, DOUBLE, HALF, BYTES = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.UINT8
NUMPY = {FLOAT: np.float32, DOUBLE: np.float64, HALF: np.float16, BYTES: np.uint8}


def layers(dtype=FLOAT, *, seed=0, sizes=(4, 8, 3)):
    """Return weights and biases of an MLP."""
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=(inputs, outputs)).astype(NUMPY[dtype]), rng.normal(size=outputs).astype(NUMPY[dtype]))
        for inputs, outputs in pairwise(sizes)
    ]


def mlp_model(*, outputs=("q",), batch="batch", dtype=FLOAT, weights=None, observation=(4,), seed=0) -> onnx.ModelProto:
    """Return an MLP with tanh; output i is the last layer with weights times i + 1."""
    weights = weights if weights is not None else layers(dtype, seed=seed)
    (w0, b0), (w1, b1) = weights
    nodes = [
        helper.make_node("Flatten", ["obs"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w0", "b0"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["features"]),
    ]
    stored = [numpy_helper.from_array(array, name) for name, array in (("w0", w0), ("b0", b0))]
    for index, name in enumerate(outputs):
        stored += [numpy_helper.from_array(w1 * (index + 1), f"w{name}"), numpy_helper.from_array(b1, f"b{name}")]
        nodes.append(helper.make_node("Gemm", ["features", f"w{name}", f"b{name}"], [name]))
    inputs = [helper.make_tensor_value_info("obs", dtype, [batch, *observation])]
    values = [helper.make_tensor_value_info(name, dtype, [batch, w1.shape[1]]) for name in outputs]
    return model_of(nodes, inputs, values, stored)


def model_of(nodes, inputs, outputs, stored=(), *, domains=(), functions=()) -> onnx.ModelProto:
    """Return a model of the standard's version 18, and of further domains."""
    graph = helper.make_graph(nodes, "policy", inputs, outputs, list(stored))
    opsets = [helper.make_opsetid(domain, version) for domain, version in (("", 18), *((name, 1) for name in domains))]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=list(functions))


def expected(weights, rows: np.ndarray) -> np.ndarray:
    """Return what `mlp_model` answers, computed by numpy."""
    (w0, b0), (w1, b1) = weights
    return np.tanh(rows.reshape(len(rows), -1) @ w0 + b0) @ w1 + b1


def saved(model: onnx.ModelProto, path: Path) -> Path:
    """Write a model."""
    path.write_bytes(model.SerializeToString())
    return path
