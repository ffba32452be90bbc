"""A policy as an ONNX graph: its plain layers as operators of the standard, from raw observations to actions.

The observation goes in as the environment gives it: `[B, *observation_shape]`, bytes or float32. What comes out has the
names of `PolicyOutput`, so that every reader of the file, our own loader too, knows what they are; beside them `action`
is what the policy does when it acts greedily, in the environment's units.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rldistill.errors import RldistillError
from rldistill.exports.formats import ACTION
from rldistill.networks import NormalizeInput, PolicyNetwork
from rldistill.networks.combined_torso import CombinedTorso
from rldistill.networks.impala import ImpalaStage, ResidualBlock
from rldistill.networks.input_layer import ScaleInput
from rldistill.networks.layers import plain_layers
from rldistill.networks.output_layer import GSDE_EPSILON, LOG_STD_BOUNDS, SMOOTH_LOG_STD_BOUNDS, OutputLayer, OutputRows
from rldistill.networks.torsos import image_shape
from rldistill.policies import TorchPolicy
from rldistill.types import OUTPUT_FIELDS, ActionLayout

OPSET = 17
"""The newest whose layer norm and all else is run by onnxruntime 1.12 of 2022 and later."""
IR_VERSION = 8
INPUT, PROBABILITIES = "observation", "probabilities"


class _Graph:
    """Nodes and weights, in the order in which they are written."""

    def __init__(self, onnx: Any, *, half: bool) -> None:  # noqa: ANN401 (protobuf has no public types)
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._half = half

    def node(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:  # noqa: ANN401
        """Add an operator of one output and return that output's name."""
        name = name or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:  # noqa: ANN401 (numbers of any shape)
        """Add numbers that are no weights: factors, bounds, sizes."""
        return self._store(np.asarray(value, dtype), "constant")

    def weight(self, tensor: Tensor, role: str) -> str:
        """Add a weight; one of a float16 file becomes float32 again as the file is loaded."""
        values = tensor.detach().cpu().float().numpy()
        if not self._half:
            return self._store(values, role)
        stored = self._store(values.astype(np.float16), role)
        return self.node("Cast", stored, to=self.onnx.TensorProto.FLOAT)

    def _store(self, values: NDArray[Any], role: str) -> str:
        name = f"{role}_{len(self.weights)}"
        self.weights.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def clip(self, value: str, low: float, high: float, dtype: Any = np.float32) -> str:  # noqa: ANN401
        return self.node("Clip", value, self.constant(low, dtype), self.constant(high, dtype))

    def times(self, value: str, factor: Any) -> str:  # noqa: ANN401 (numbers of any shape)
        return self.node("Mul", value, self.constant(factor))

    def plus(self, value: str, summand: Any) -> str:  # noqa: ANN401 (numbers of any shape)
        return self.node("Add", value, self.constant(summand))


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
    graph = _Graph(onnx, half=half)
    *below, output, rows = plain_layers(network, policy.head)
    assert isinstance(rows, OutputRows), "the last layer"
    value = _images(graph, INPUT, fingerprint.observation_shape) if _takes_images(network) else INPUT
    features = _run(graph, below, value, _shape(network))
    raw = _rows(graph, rows, _run(graph, [output], features, ()), features)
    fields = dict(zip(OUTPUT_FIELDS[policy.output_kind], raw, strict=True))
    outputs = {name: graph.node("Identity", value, name=name) for name, value in fields.items()}
    action = _action(graph, rows.layer, raw[0])
    outputs[ACTION] = graph.node("Identity", action, name=ACTION)
    if gives_probabilities:
        outputs[PROBABILITIES] = graph.node("Identity", _probabilities(graph, layout, raw[0]), name=PROBABILITIES)
    observation_type = types.UINT8 if fingerprint.observation_dtype == "uint8" else types.FLOAT
    info = onnx.helper.make_tensor_value_info
    widths = {name: [layout.num_outputs(policy.output_kind) // len(fields)] for name in fields}
    widths |= {ACTION: list(layout.action_shape), PROBABILITIES: [sum(layout.sizes)]}
    action_type = types.FLOAT if layout.is_continuous else types.INT64
    made = onnx.helper.make_graph(
        graph.nodes,
        "policy",
        [info(INPUT, observation_type, ["batch", *fingerprint.observation_shape])],
        [info(name, action_type if name == ACTION else types.FLOAT, ["batch", *widths[name]]) for name in outputs],
        graph.weights,
    )
    opset = [onnx.helper.make_opsetid("", OPSET)]
    return onnx.helper.make_model(made, opset_imports=opset, ir_version=IR_VERSION, producer_name="rldistill")


def _takes_images(network: PolicyNetwork) -> bool:
    return network.architecture.kind not in ("mlp", "combined")


def _shape(network: PolicyNetwork) -> tuple[int, ...]:
    """Return the shape of one observation as the first layer sees it."""
    shape = image_shape(network.observation_shape) if _takes_images(network) else None
    return shape or network.observation_shape


def _images(graph: _Graph, value: str, shape: tuple[int, ...]) -> str:
    """Turn observations into `[B, C, H, W]`, as `torsos.to_images` does."""
    images = image_shape(shape)
    assert images is not None, "checked when the torso was made"
    if len(shape) == 4:
        turned = graph.node("Transpose", value, perm=[0, 1, 4, 2, 3])
        return graph.node("Reshape", turned, graph.constant([-1, *images], np.int64))
    return value if images == shape else graph.node("Transpose", value, perm=[0, 3, 1, 2])


def _run(graph: _Graph, layers: Sequence[nn.Module], value: str, shape: tuple[int, ...]) -> str:
    """Write layers one after the other.

    Args:
        graph: to which they are added.
        layers: plain ones, in order.
        value: what the first of them takes.
        shape: of one observation as the first layer sees it; where that is no input layer, of no matter.
    """
    for layer in layers:
        if isinstance(layer, NormalizeInput):
            value = _normalised(graph, layer, value, shape)
        elif isinstance(layer, CombinedTorso):
            value = _combined(graph, layer, value)
        elif isinstance(layer, ImpalaStage):
            value = _stage(graph, layer, value)
        elif type(layer) in _ACTIVATIONS:
            value = _ACTIVATIONS[type(layer)](graph, layer, value)
        else:
            writer = next((write for kind, write in _LAYERS.items() if isinstance(layer, kind)), None)
            if writer is None:
                raise RldistillError(f"--to onnx: a {type(layer).__name__} has no description as an ONNX operator.")
            value = writer(graph, layer, value)
    return value


def _scaled(graph: _Graph, layer: Any, value: str) -> str:  # noqa: ANN401 (a ScaleInput)
    floats = graph.node("Cast", value, to=graph.onnx.TensorProto.FLOAT)
    return floats if layer.scale == 1 else graph.times(floats, layer.scale)


def _normalised(graph: _Graph, layer: NormalizeInput, value: str, shape: tuple[int, ...]) -> str:
    """(o − mean) ÷ √(variance + ε) in float64, as the policy computes it, clipped, but for spans left untouched."""
    double = graph.onnx.TensorProto.DOUBLE
    flat = graph.node("Cast", graph.node("Flatten", value), to=double)
    std = (layer.variance + layer.epsilon).sqrt().cpu().numpy()
    centred = graph.node("Sub", flat, graph.constant(layer.mean.cpu().numpy(), np.float64))
    result = graph.node("Div", centred, graph.constant(std, np.float64))
    result = graph.clip(result, -layer.clip, layer.clip, np.float64)
    if layer.untouched:
        touched = np.ones((1, len(layer.mean)), bool)
        for first, end in layer.untouched:
            touched[:, first:end] = False
        result = graph.node("Where", graph.constant(touched, bool), result, flat)
    result = graph.node("Cast", result, to=graph.onnx.TensorProto.FLOAT)
    return graph.node("Reshape", result, graph.constant([-1, *shape], np.int64)) if len(shape) > 1 else result


def _linear(graph: _Graph, layer: Any, value: str) -> str:  # noqa: ANN401 (an nn.Linear)
    return graph.node("Gemm", value, graph.weight(layer.weight, "weight"), graph.weight(layer.bias, "bias"), transB=1)


def _convolution(graph: _Graph, layer: Any, value: str) -> str:  # noqa: ANN401 (an nn.Conv2d)
    weights = graph.weight(layer.weight, "weight"), graph.weight(layer.bias, "bias")
    shape = {"kernel_shape": list(layer.kernel_size), "strides": list(layer.stride), "pads": [*layer.padding] * 2}
    return graph.node("Conv", value, *weights, name=None, **shape)


def _group_norm(graph: _Graph, layer: Any, value: str) -> str:  # noqa: ANN401 (an nn.GroupNorm of one group)
    """Normalise over channels and space together: the operator of that name came with a later opset."""
    channels = layer.num_channels
    rows = graph.node("Reshape", value, graph.constant([0, 1, -1], np.int64))
    normalised = graph.node("InstanceNormalization", rows, graph.constant([1]), graph.constant([0]), epsilon=layer.eps)
    images = graph.node("Reshape", normalised, graph.node("Shape", value))
    scaled = graph.node("Mul", images, graph.weight(layer.weight.view(channels, 1, 1), "norm"))
    return graph.node("Add", scaled, graph.weight(layer.bias.view(channels, 1, 1), "norm_bias"))


def _layer_norm(graph: _Graph, layer: Any, value: str) -> str:  # noqa: ANN401 (an nn.LayerNorm)
    weights = graph.weight(layer.weight, "norm"), graph.weight(layer.bias, "norm_bias")
    return graph.node("LayerNormalization", value, *weights, axis=-layer.weight.dim(), epsilon=layer.eps)


def _stage(graph: _Graph, stage: ImpalaStage, value: str) -> str:
    pooling = {"kernel_shape": [3, 3], "strides": [stage.stride] * 2, "pads": [1, 1, 1, 1]}
    value = graph.node("MaxPool", _convolution(graph, stage.convolution, value), name=None, **pooling)
    for block in stage.blocks:
        assert isinstance(block, ResidualBlock), "a stage is made of these"
        inner = _convolution(graph, block.first, graph.node("Relu", value))
        value = graph.node("Add", value, _convolution(graph, block.second, graph.node("Relu", inner)))
    return value


def _combined(graph: _Graph, torso: CombinedTorso, value: str) -> str:
    """Features of each image beside all other parts, in the order of the parts."""
    images, features, start = iter(torso.images), list[str](), 0
    for part in torso.parts:
        if not part.size:
            continue
        bounds = (graph.constant([bound], np.int64) for bound in (start, start + part.size, 1))
        own = graph.node("Slice", value, *bounds)
        if torso.is_image(part):
            own = graph.node("Reshape", own, graph.constant([-1, *part.shape], np.int64))
            own = _images(graph, own if torso.image_scale == 1 else graph.times(own, torso.image_scale), part.shape)
            layers = next(images)
            assert isinstance(layers, nn.Sequential), "a torso of its own"
            own = _run(graph, list(layers), own, ())
        features.append(own)
        start += part.size
    return graph.node("Concat", *features, axis=1)


def _rows(graph: _Graph, rows: OutputRows, linear: str, features: str) -> list[str]:
    """Return the fields of the output: what `OutputRows` computes."""
    layer = rows.layer
    if layer.kind == "gaussian":
        limit = layer.gaussian.mean_limit
        mean = linear if limit is None else graph.clip(linear, -float(limit), float(limit))
        return [mean, _log_std(graph, rows, mean, features)]
    if layer.kind == "actions" and layer.squashes:
        return [_rescaled(graph, layer.layout, linear)]
    if layer.atoms is None:
        return [linear]
    shape = graph.constant([0, layer.num_outputs, layer.atoms.count], np.int64)
    chances = graph.node("Softmax", graph.node("Reshape", linear, shape), axis=-1)
    support = torch.linspace(float(layer.atoms.low), float(layer.atoms.high), layer.atoms.count).numpy()
    return [graph.node("MatMul", chances, graph.constant(support))]


def _log_std(graph: _Graph, rows: OutputRows, mean: str, features: str) -> str:
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


def _rescaled(graph: _Graph, layout: ActionLayout, value: str) -> str:
    """From tanh's [-1, 1] to [low, high]."""
    low, high = np.array(layout.low), np.array(layout.high)
    return graph.plus(graph.times(graph.node("Tanh", value), 0.5 * (high - low)), 0.5 * (high + low))


def _action(graph: _Graph, layer: OutputLayer, raw: str) -> str:
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


def _probabilities(graph: _Graph, layout: ActionLayout, raw: str) -> str:
    if layout.kind == "multi_binary":
        return graph.node("Sigmoid", raw)
    if layout.kind == "discrete":
        return graph.node("Softmax", raw, axis=1)
    parts = [graph.node("Softmax", part, axis=1) for part in _choices(graph, layout, raw)]
    return graph.node("Concat", *parts, axis=1)


def _choices(graph: _Graph, layout: ActionLayout, raw: str) -> list[str]:
    """Return the scores of each choice by itself."""
    parts, start = list[str](), 0
    for size in layout.sizes:
        bounds = (graph.constant([bound], np.int64) for bound in (start, start + size, 1))
        parts.append(graph.node("Slice", raw, *bounds))
        start += size
    return parts


def _gelu(graph: _Graph, value: str) -> str:
    normal = graph.plus(graph.node("Erf", graph.times(value, 1 / math.sqrt(2))), 1)
    return graph.times(graph.node("Mul", value, normal), 0.5)


def _mish(graph: _Graph, value: str) -> str:
    return graph.node("Mul", value, graph.node("Tanh", graph.node("Softplus", value)))


_Write = Callable[[_Graph, Any, str], str]
_LAYERS: Mapping[type[nn.Module], _Write] = {
    ScaleInput: _scaled,
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
    nn.Flatten: lambda graph, _, value: graph.node("Flatten", value),
}
# Those of `torsos.ACTIVATIONS`, all with torch's defaults.
_ACTIVATIONS: Mapping[type[nn.Module], _Write] = {
    nn.ReLU: lambda graph, _, value: graph.node("Relu", value),
    nn.Tanh: lambda graph, _, value: graph.node("Tanh", value),
    nn.ELU: lambda graph, _, value: graph.node("Elu", value, alpha=1.0),
    nn.LeakyReLU: lambda graph, _, value: graph.node("LeakyRelu", value, alpha=0.01),
    nn.Sigmoid: lambda graph, _, value: graph.node("Sigmoid", value),
    nn.SiLU: lambda graph, _, value: graph.node("Mul", value, graph.node("Sigmoid", value)),
    nn.GELU: lambda graph, _, value: _gelu(graph, value),
    nn.SELU: lambda graph, _, value: graph.node("Selu", value),
    nn.Softplus: lambda graph, _, value: graph.node("Softplus", value),
    nn.Identity: lambda graph, _, value: value,
    nn.Mish: lambda graph, _, value: _mish(graph, value),
    nn.Hardtanh: lambda graph, _, value: graph.clip(value, -1, 1),
    nn.Hardsigmoid: lambda graph, _, value: graph.node("HardSigmoid", value, alpha=1 / 6, beta=0.5),
    nn.Hardswish: lambda graph, _, value: graph.node("HardSwish", value),
    nn.Softsign: lambda graph, _, value: graph.node("Softsign", value),
    nn.CELU: lambda graph, _, value: graph.node("Celu", value, alpha=1.0),
    nn.ReLU6: lambda graph, _, value: graph.clip(value, 0, 6),
}
