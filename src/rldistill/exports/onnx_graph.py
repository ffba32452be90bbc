"""A policy as an ONNX graph: its plain layers as operators of the standard, from raw observations to actions.

The observation goes in as the environment gives it: `[B, *observation_shape]`, bytes or float32. What comes out has the
names of `PolicyOutput`, so that every reader of the file, our own loader too, knows what they are; beside them `action`
is what the policy does when it acts greedily, in the environment's units.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from rldistill.errors import RldistillError
from rldistill.exports.formats import ACTION
from rldistill.exports.onnx_nodes import ACTIVATIONS, Graph, Write
from rldistill.exports.states import StatePart, state_parts
from rldistill.networks import NormalizeInput, PolicyNetwork
from rldistill.networks.combined_torso import CombinedTorso
from rldistill.networks.impala import ImpalaStage, ResidualBlock
from rldistill.networks.layers import plain_layers
from rldistill.networks.output_layer import GSDE_EPSILON, LOG_STD_BOUNDS, SMOOTH_LOG_STD_BOUNDS, OutputLayer, OutputRows
from rldistill.networks.recurrent import RecurrentCell, Stack
from rldistill.networks.torsos import image_shape
from rldistill.policies import TorchPolicy
from rldistill.types import OUTPUT_FIELDS, ActionLayout

OPSET = 17
"""The newest whose layer norm and all else is run by onnxruntime 1.12 of 2022 and later."""
IR_VERSION = 8
INPUT, PROBABILITIES = "observation", "probabilities"


def state_input(part: StatePart) -> str:
    """Return the name of the input that takes a part of the state: `h_in`."""
    return f"{part.name}_in"


def state_output(part: StatePart) -> str:
    """Return the name of the output that gives its next: `h_out`."""
    return f"{part.name}_out"


def make_model(onnx: Any, policy: TorchPolicy, *, half: bool, gives_probabilities: bool) -> Any:  # noqa: ANN401
    """Return the ONNX model of the head that a policy plays.

    Args:
        onnx: the package.
        policy: its network is one of ours.
        half: whether weights are kept in float16; what is computed is float32 in any case.
        gives_probabilities: whether choices come with their probabilities.
    """
    network = policy.network
    assert isinstance(network, PolicyNetwork), "checked before"
    fingerprint, types = policy.tasks[0].fingerprint, onnx.TensorProto
    layout = fingerprint.action_layout
    graph = Graph(onnx, half=half)
    _, *below, output, rows = plain_layers(network, policy.head)
    assert isinstance(rows, OutputRows), "the last layer"
    parts = state_parts(policy)
    graph.state = [state_input(part) for part in parts]
    features = _run(graph, below, _first_layer(graph, network))
    raw = _rows(graph, rows, _linear(graph, output, features), features)
    fields = dict(zip(OUTPUT_FIELDS[policy.output_kind], raw, strict=True))
    outputs = {name: graph.node("Identity", value, name=name) for name, value in fields.items()}
    action = _action(graph, rows.layer, raw[0])
    outputs[ACTION] = graph.node("Identity", action, name=ACTION)
    if gives_probabilities:
        outputs[PROBABILITIES] = graph.node("Identity", _probabilities(graph, layout, raw[0]), name=PROBABILITIES)
    for part, following in zip(parts, graph.next_state, strict=True):
        outputs[state_output(part)] = graph.node("Identity", following, name=state_output(part))
    observation_type = types.UINT8 if fingerprint.observation_dtype == "uint8" else types.FLOAT
    info = onnx.helper.make_tensor_value_info
    widths = {name: [layout.num_outputs(policy.output_kind) // len(fields)] for name in fields}
    widths |= {ACTION: list(layout.action_shape), PROBABILITIES: [sum(layout.sizes)]}
    widths |= {state_output(part): list(part.shape) for part in parts}
    action_type = types.FLOAT if layout.is_continuous else types.INT64
    made = onnx.helper.make_graph(
        graph.nodes,
        "policy",
        [
            info(INPUT, observation_type, ["batch", *fingerprint.observation_shape]),
            *(info(state_input(part), types.FLOAT, ["batch", *part.shape]) for part in parts),
        ],
        [info(name, action_type if name == ACTION else types.FLOAT, ["batch", *widths[name]]) for name in outputs],
        graph.weights,
    )
    opset = [onnx.helper.make_opsetid("", OPSET)]
    return onnx.helper.make_model(made, opset_imports=opset, ir_version=IR_VERSION, producer_name="rldistill")


def _first_layer(graph: Graph, network: PolicyNetwork) -> str:
    """Write what observations pass before the torso: images are turned, and all numbers scaled or normalised."""
    value, shape = INPUT, network.observation_shape
    if network.architecture.takes_images:
        value, shape = _images(graph, value, shape), image_shape(shape) or shape
    if isinstance(network.scale, NormalizeInput):
        return _normalised(graph, network.scale, value, shape)
    floats = graph.node("Cast", value, to=graph.onnx.TensorProto.FLOAT)
    return floats if network.scale.scale == 1 else graph.times(floats, network.scale.scale)


def _images(graph: Graph, value: str, shape: tuple[int, ...]) -> str:
    """Turn observations into `[B, C, H, W]`, as `torsos.to_images` does."""
    images = image_shape(shape)
    assert images is not None, "checked when the torso was made"
    if len(shape) == 4:
        turned = graph.node("Transpose", value, perm=[0, 1, 4, 2, 3])
        return graph.node("Reshape", turned, graph.constant([-1, *images], np.int64))
    return value if images == shape else graph.node("Transpose", value, perm=[0, 3, 1, 2])


def _run(graph: Graph, layers: Iterable[nn.Module], value: str) -> str:
    """Write plain layers one after the other, of which the first takes a value."""
    for layer in layers:
        writer = next((_LAYERS[kind] for kind in type(layer).__mro__ if kind in _LAYERS), None)
        if writer is None:
            raise RldistillError(f"--to onnx: a {type(layer).__name__} has no description as an ONNX operator.")
        value = writer(graph, layer, value)
    return value


def _normalised(graph: Graph, layer: NormalizeInput, value: str, shape: tuple[int, ...]) -> str:
    """(o − mean) ÷ √(variance + ε) in float64, as the policy computes it, clipped, but for spans left untouched."""
    double = graph.onnx.TensorProto.DOUBLE
    flat = graph.node("Cast", graph.node("Flatten", value), to=double)
    std = (layer.variance + layer.epsilon).sqrt().cpu().numpy()
    centred = graph.node("Sub", flat, graph.constant(layer.mean.cpu().numpy(), np.float64))
    result = graph.node("Div", centred, graph.constant(std, np.float64))
    result = graph.clip(result, -layer.clip, layer.clip, np.float64)
    if layer.untouched:
        result = graph.node("Where", graph.constant([layer.statistics().is_applied], bool), result, flat)
    result = graph.node("Cast", result, to=graph.onnx.TensorProto.FLOAT)
    return graph.node("Reshape", result, graph.constant([-1, *shape], np.int64)) if len(shape) > 1 else result


def _linear(graph: Graph, layer: Any, value: str) -> str:  # noqa: ANN401 (an nn.Linear)
    return graph.node("Gemm", value, graph.weight(layer.weight, "weight"), graph.weight(layer.bias, "bias"), transB=1)


def _convolution(graph: Graph, layer: Any, value: str) -> str:  # noqa: ANN401 (an nn.Conv2d)
    weights = graph.weight(layer.weight, "weight"), graph.weight(layer.bias, "bias")
    shape = {"kernel_shape": list(layer.kernel_size), "strides": list(layer.stride), "pads": [*layer.padding] * 2}
    return graph.node("Conv", value, *weights, name=None, **shape)


def _group_norm(graph: Graph, layer: Any, value: str) -> str:  # noqa: ANN401 (an nn.GroupNorm of one group)
    """Normalise over channels and space together: the operator of that name came with a later opset."""
    channels = layer.num_channels
    rows = graph.node("Reshape", value, graph.constant([0, 1, -1], np.int64))
    normalised = graph.node("InstanceNormalization", rows, graph.constant([1]), graph.constant([0]), epsilon=layer.eps)
    images = graph.node("Reshape", normalised, graph.node("Shape", value))
    scaled = graph.node("Mul", images, graph.weight(layer.weight.view(channels, 1, 1), "norm"))
    return graph.node("Add", scaled, graph.weight(layer.bias.view(channels, 1, 1), "norm_bias"))


def _layer_norm(graph: Graph, layer: Any, value: str) -> str:  # noqa: ANN401 (an nn.LayerNorm)
    weights = graph.weight(layer.weight, "norm"), graph.weight(layer.bias, "norm_bias")
    return graph.node("LayerNormalization", value, *weights, axis=-layer.weight.dim(), epsilon=layer.eps)


def _stage(graph: Graph, stage: ImpalaStage, value: str) -> str:
    pooling = {"kernel_shape": [3, 3], "strides": [stage.stride] * 2, "pads": [1, 1, 1, 1]}
    value = graph.node("MaxPool", _convolution(graph, stage.convolution, value), name=None, **pooling)
    for block in stage.blocks:
        assert isinstance(block, ResidualBlock), "a stage is made of these"
        inner = _convolution(graph, block.first, graph.node("Relu", value))
        value = graph.node("Add", value, _convolution(graph, block.second, graph.node("Relu", inner)))
    return value


def _combined(graph: Graph, torso: CombinedTorso, value: str) -> str:
    """Features of each image beside all other parts, in the order of the parts."""
    images, features, start = iter(torso.images), list[str](), 0
    for part in torso.parts:
        if not part.size:
            continue
        own = graph.columns(value, start, start + part.size)
        if torso.is_image(part):
            own = graph.node("Reshape", own, graph.constant([-1, *part.shape], np.int64))
            own = _images(graph, own if torso.image_scale == 1 else graph.times(own, torso.image_scale), part.shape)
            own = _run(graph, next(images).children(), own)
        features.append(own)
        start += part.size
    return graph.node("Concat", *features, axis=1)


def _stack(graph: Graph, layer: Stack, value: str) -> str:
    rows = graph.node("Concat", graph.state.pop(0), graph.node("Flatten", value), axis=1)
    graph.next_state.append(graph.columns(rows, layer.num_inputs, layer.width))
    return rows


def _cell(graph: Graph, cell: RecurrentCell, value: str) -> str:
    """The next state as `recurrent.next_state` has it: of operators that every runtime has, and int8 may round."""
    before = graph.state.pop(0)
    given, recalled = _linear(graph, cell.input, value), _linear(graph, cell.recurrent, before)

    def part(gates: str, number: int) -> str:
        return graph.columns(gates, number * cell.size, (number + 1) * cell.size)

    def sigmoid(gates: str, number: int) -> str:
        return graph.node("Sigmoid", part(gates, number))

    both = graph.node("Add", given, recalled)
    if cell.kind == "gru":
        own = graph.node("Mul", sigmoid(both, 0), part(recalled, 2))
        candidate = graph.node("Tanh", graph.node("Add", part(given, 2), own))
        update = sigmoid(both, 1)
        kept = graph.node("Mul", update, before)
        hidden = graph.node("Add", graph.node("Mul", graph.node("Sub", graph.constant(1), update), candidate), kept)
        graph.next_state.append(hidden)
        return hidden
    kept = graph.node("Mul", sigmoid(both, 1), graph.state.pop(0))
    content = graph.node("Add", kept, graph.node("Mul", sigmoid(both, 0), graph.node("Tanh", part(both, 2))))
    hidden = graph.node("Mul", sigmoid(both, 3), graph.node("Tanh", content))
    graph.next_state += [hidden, content]
    return hidden


def _rows(graph: Graph, rows: OutputRows, linear: str, features: str) -> list[str]:
    """Return the fields of the output: what `OutputRows` computes."""
    layer = rows.layer
    if layer.kind == "gaussian":
        limit = layer.gaussian.mean_limit
        mean = linear if limit is None else graph.clip(linear, -float(limit), float(limit))
        return [mean, _log_std(graph, rows, mean, features)]
    if layer.kind == "actions" and layer.squashes:
        return [_rescaled(graph, layer.layout, linear)]
    if layer.is_beta:
        return [_beta_mean(graph, layer, linear)]
    if layer.atoms is None:
        return [linear]
    shape = graph.constant([0, layer.num_outputs, layer.atoms.count], np.int64)
    chances = graph.node("Softmax", graph.node("Reshape", linear, shape), axis=-1)
    return [graph.node("MatMul", chances, graph.constant(layer.atoms.support().numpy()))]


def _beta_mean(graph: Graph, layer: OutputLayer, linear: str) -> str:
    parameters = graph.plus(graph.node("Softplus", linear), 1)
    alpha = graph.columns(parameters, 0, layer.num_outputs)
    beta = graph.columns(parameters, layer.num_outputs, 2 * layer.num_outputs)
    share = graph.node("Div", alpha, graph.node("Add", alpha, beta))
    return graph.plus(graph.times(share, 2), -1)


def _log_std(graph: Graph, rows: OutputRows, mean: str, features: str) -> str:
    std = rows.layer.gaussian.std
    if std in ("state", "state_tanh"):
        value = _linear(graph, rows.log_std_layer, features)
        if std == "state":
            return graph.clip(value, *LOG_STD_BOUNDS)
        low, high = SMOOTH_LOG_STD_BOUNDS
        half = 0.5 * (high - low)
        return graph.plus(graph.times(graph.node("Tanh", value), half), low + half)
    own = rows.log_std
    assert isinstance(own, Tensor), "all other kinds hold it themselves"
    if std != "gsde":
        return graph.node("Expand", graph.weight(own, "log_std"), graph.node("Shape", mean))
    squares = graph.node("Mul", features, features)
    variance = graph.node("MatMul", squares, graph.weight(own.exp().square(), "variance"))
    return graph.times(graph.node("Log", graph.plus(variance, GSDE_EPSILON)), 0.5)


def _rescaled(graph: Graph, layout: ActionLayout, value: str) -> str:
    """From tanh's [-1, 1] to [low, high]."""
    low, high = np.array(layout.low), np.array(layout.high)
    return graph.plus(graph.times(graph.node("Tanh", value), 0.5 * (high - low)), 0.5 * (high + low))


def _action(graph: Graph, layer: OutputLayer, raw: str) -> str:
    """Return what a greedy policy does: the best choice, the mode or the mean, in the environment's units."""
    layout, int64 = layer.layout, graph.onnx.TensorProto.INT64
    if layout.kind == "box":
        if layer.kind == "gaussian" and layer.squashes:
            raw = _rescaled(graph, layout, raw)
        # Beyond float32's largest number there is no bound to clip to.
        largest = float(np.finfo(np.float32).max)
        low, high = (np.clip(side, -largest, largest) for side in (layout.low, layout.high))
        return graph.node("Min", graph.node("Max", raw, graph.constant(low)), graph.constant(high))
    if layout.kind == "multi_binary":
        return graph.node("Cast", graph.node("Greater", raw, graph.constant(0)), to=int64)
    if layout.kind == "discrete":
        return graph.node("ArgMax", raw, axis=1, keepdims=0)
    best = [graph.node("ArgMax", part, axis=1, keepdims=1) for part in _choices(graph, layout, raw)]
    return graph.node("Concat", *best, axis=1)


def _probabilities(graph: Graph, layout: ActionLayout, raw: str) -> str:
    if layout.kind == "multi_binary":
        return graph.node("Sigmoid", raw)
    if layout.kind == "discrete":
        return graph.node("Softmax", raw, axis=1)
    parts = [graph.node("Softmax", part, axis=1) for part in _choices(graph, layout, raw)]
    return graph.node("Concat", *parts, axis=1)


def _choices(graph: Graph, layout: ActionLayout, raw: str) -> list[str]:
    """Return the scores of each choice by itself."""
    parts, start = list[str](), 0
    for size in layout.sizes:
        parts.append(graph.columns(raw, start, start + size))
        start += size
    return parts


_LAYERS: Mapping[type[nn.Module], Write] = {
    **ACTIVATIONS,
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
    nn.Flatten: lambda graph, _, value: graph.node("Flatten", value),
    ImpalaStage: _stage,
    CombinedTorso: _combined,
    Stack: _stack,
    RecurrentCell: _cell,
}
