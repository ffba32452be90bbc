"""Damaged and hostile ONNX files: any field of honest ones changed, and operators that repeat or make something large.

`cases` makes one file, which may want weights from `w.bin` beside it, and `read` reads it; both need the extra `onnx`.
"""

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from rldistill.adapters.load import load_policy
from rldistill.adapters.onnx_file import read_onnx
from tests.kit.onnx_files import BYTES, DOUBLE, FLOAT, HALF, mlp_model, model_of

_NUMBERS = (0, 1, -1, 2, 3, 16, 99, 255, 2**31 - 1, 2**40, 2**62, -(2**63))
_FLOATS = (0.0, -1.0, 1e30, float("nan"), float("inf"))
_TEXTS = (
    "",
    "obs",
    "w0",
    "q",
    "x" * 5000,
    "\x1b[31m",
    "a\nb",
    "com.microsoft",
    "ai.onnx",
    "evil",
    "../w",
    "/etc/passwd",
)
_OPERATORS = (
    *("Gemm", "MatMul", "Loop", "Scan", "If", "Expand", "Tile", "Range", "Resize", "Pad", "ConstantOfShape", "OneHot"),
    *("NonZero", "Where", "Gather", "ScatterND", "Reshape", "Conv", "LSTM", "Cast", "QuantizeLinear", "StringConcat"),
    *("SequenceInsert", "Optional", "Gelu", "NoSuchOperator", "Einsum", "RandomNormal", "Unique", "CumSum", "TopK"),
)


def cases(rng: random.Random) -> bytes:
    """Return the bytes of a file that is damaged, hostile, or both."""
    model = rng.choices((_honest, _large, _endless, _doubling), (9, 3, 1, 1))[0](rng)
    for _ in range(rng.choice((0, 1, 1, 2, 4, 16))):
        with contextlib.suppress(ValueError, TypeError, DecodeError):  # protobuf writes only what it would read
            _change_a_field(rng, model)
    content = bytearray(model.SerializeToString())
    if rng.random() < 0.3 and content:
        for _ in range(rng.choice((1, 1, 4, 16))):
            content[rng.randrange(len(content))] = rng.randrange(256)
        if rng.random() < 0.2:
            del content[rng.randrange(len(content)) :]
    return bytes(content)


def read(path: Path) -> None:
    """Read a file and let it act on zeros; what is refused as it is read need not be run."""
    model = read_onnx(path)
    outputs = model.output_names
    policy = load_policy(path, outputs=f"logits={outputs[0]}" if outputs[0].isidentifier() else "logits")
    observations = np.zeros((2, *model.observation_shape), policy.tasks[0].fingerprint.observation_dtype)
    actions, _ = policy.act(observations)
    assert actions.shape == (2,)


def _honest(rng: random.Random) -> onnx.ModelProto:
    model = mlp_model(
        outputs=rng.choice((("q",), ("pi", "v"))),
        batch=rng.choice(("b", -1, 1, 16)),
        dtype=rng.choice((FLOAT, FLOAT, DOUBLE, HALF)),
    )
    match rng.randrange(5):
        case 0:
            tensor = model.graph.initializer[0]
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "w.bin"), ("offset", "0"), ("length", "128")):
                tensor.external_data.add(key=key, value=value)
        case 1:
            body = [helper.make_node("Add", ["x", "x"], ["y"])]
            model.functions.append(helper.make_function("mine", "Double", ["x"], ["y"], body, list(model.opset_import)))
            model.opset_import.append(helper.make_opsetid("mine", 1))
            model.graph.node.insert(1, helper.make_node("Double", ["flat"], ["doubled"], domain="mine"))
            model.graph.node[2].input[0] = "doubled"
        case 2:
            model.graph.input[0].type.tensor_type.elem_type = BYTES
    return model


def _policy(nodes: list[onnx.NodeProto], *stored: onnx.TensorProto, **options: Any) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, FLOAT, ["b", size]) for name, size in (("obs", 4), ("q", 3))]
    weights = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    first = helper.make_node("MatMul", ["obs", "w"], ["l"])
    return model_of([first, *nodes], values[:1], values[1:], [weights, *stored], **options)


def _numbers(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def _large(rng: random.Random) -> onnx.ModelProto:
    sizes = [rng.choice((1, 7, 1000, 10**6, 10**9)) for _ in range(rng.choice((1, 2, 3)))]
    operator, inputs = rng.choice(
        (("ConstantOfShape", ["size"]), ("Expand", ["one", "size"]), ("Tile", ["ones", "size"]))
    )
    nodes = [
        helper.make_node(operator, inputs, ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Add", ["l", "sum"], ["q"]),
    ]
    ones = numpy_helper.from_array(np.ones((1,) * len(sizes), np.float32), "ones")
    return _policy(nodes, _numbers("size", *sizes), ones, numpy_helper.from_array(np.ones(1, np.float32), "one"))


def _endless(rng: random.Random) -> onnx.ModelProto:
    infos = [
        helper.make_tensor_value_info(name, kind, [])
        for name, kind in (("i", TensorProto.INT64), ("go", TensorProto.BOOL))
    ]
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node(rng.choice(("Tanh", "Neg")), ["x"], ["y"])],
        "body",
        [*infos, helper.make_tensor_value_info("x", FLOAT, None)],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("y", FLOAT, None)],
    )
    trips = _numbers("trips", rng.choice((0, 3, 1000, 2**62)))
    return _policy([helper.make_node("Loop", ["trips", "", "l"], ["q"], body=body)], trips)


def _doubling(rng: random.Random) -> onnx.ModelProto:
    depth = rng.choice((1, 4, 12, 40))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    bodies = [[helper.make_node("Identity", ["x"], ["y"])]] + [
        [helper.make_node(f"f{k}", [source], [to], domain="mine") for source, to in (("x", "m"), ("m", "y"))]
        for k in range(depth)
    ]
    functions = [helper.make_function("mine", f"f{k}", ["x"], ["y"], body, opsets) for k, body in enumerate(bodies)]
    return _policy([helper.make_node(f"f{depth}", ["l"], ["q"], domain="mine")], domains=("mine",), functions=functions)


def _messages(message: Any) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in value if field.is_repeated else (value,):
                yield from _messages(item)


def _change_a_field(rng: random.Random, model: onnx.ModelProto) -> None:
    """Change any field of any message inside a model: set it, leave it out, repeat or exchange it."""
    message = rng.choice(list(_messages(model)))
    field = rng.choice(message.DESCRIPTOR.fields)
    if rng.random() < 0.1:
        message.ClearField(field.name)
    elif field.message_type is not None:
        others = [other for other in _messages(model) if other.DESCRIPTOR is field.message_type]
        if others:
            content = rng.choice(others).SerializeToString()
            target = getattr(message, field.name)
            (target.add() if field.is_repeated else target).MergeFromString(content)
    elif field.is_repeated:
        values = list(getattr(message, field.name))
        place = rng.randrange(len(values) + 1)
        values[place : place + rng.randrange(2)] = [_value(rng, field)]
        message.ClearField(field.name)
        getattr(message, field.name).extend(values)
    else:
        setattr(message, field.name, _value(rng, field))


def _value(rng: random.Random, field: Any) -> object:
    kinds: dict[Any, Callable[[], object]] = {
        field.CPPTYPE_STRING: lambda: rng.choice((*_TEXTS, *_OPERATORS)),
        field.CPPTYPE_FLOAT: lambda: rng.choice(_FLOATS),
        field.CPPTYPE_DOUBLE: lambda: rng.choice(_FLOATS),
        field.CPPTYPE_ENUM: lambda: rng.choice([value.number for value in field.enum_type.values]),
        field.CPPTYPE_UINT64: lambda: abs(rng.choice(_NUMBERS)),
    }
    if field.type == field.TYPE_BYTES:
        return rng.randbytes(rng.choice((0, 1, 16, 128)))
    # Most numbers are 32 bits wide, or 64: what does not fit is drawn again.
    return kinds.get(
        field.cpp_type, lambda: rng.choice([n for n in _NUMBERS if abs(n) < 2**31] + list(_NUMBERS)[-4:])
    )()
