"""Nodes and weights of an ONNX graph, and activations as nodes."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from rldistill.adapters.onnx_file import CONSTANT
from rldistill.errors import RldistillError

_LARGEST_HALF = float(np.finfo(np.float16).max)


class Graph:
    """Nodes and weights, in the order in which they are written.

    Attributes:
        state: inputs that layers which remember have not taken yet, in the order of the layers.
        next_state: what these layers gave in their place.
    """

    def __init__(self, onnx: Any, *, half: bool) -> None:  # noqa: ANN401 (protobuf has no public types)
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.state: list[str] = []
        self.next_state: list[str] = []
        self._half = half

    def node(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:  # noqa: ANN401
        """Add an operator of one output and return that output's name."""
        name = name or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:  # noqa: ANN401 (numbers of any shape)
        """Add numbers that are no weights: factors, bounds, sizes."""
        return self._store(np.asarray(value, dtype), CONSTANT)

    def weight(self, tensor: Tensor, role: str) -> str:
        """Add a weight; one of a float16 file becomes float32 again as the file is loaded.

        Raises:
            RldistillError: it is too large for float16.
        """
        values = tensor.detach().cpu().float().numpy()
        if not self._half:
            return self._store(values, role)
        largest = float(np.abs(values).max(initial=0.0))
        if largest > _LARGEST_HALF:
            raise RldistillError(
                f"--precision float16: the largest weight of a layer is {largest:.6g}, and float16 ends at "
                f"{_LARGEST_HALF:,.0f}. Use --precision float32."
            )
        stored = self._store(values.astype(np.float16), role)
        return self.node("Cast", stored, to=self.onnx.TensorProto.FLOAT)

    def _store(self, values: NDArray[Any], role: str) -> str:
        name = f"{role}_{len(self.weights)}"
        self.weights.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def clip(self, value: str, low: float, high: float, dtype: Any = np.float32) -> str:  # noqa: ANN401
        """Keep numbers between two."""
        return self.node("Clip", value, self.constant(low, dtype), self.constant(high, dtype))

    def times(self, value: str, factor: Any) -> str:  # noqa: ANN401 (numbers of any shape)
        """Multiply by numbers that are no weights."""
        return self.node("Mul", value, self.constant(factor))

    def plus(self, value: str, summand: Any) -> str:  # noqa: ANN401 (numbers of any shape)
        """Add numbers that are no weights."""
        return self.node("Add", value, self.constant(summand))

    def columns(self, value: str, first: int, end: int) -> str:
        """Take what lies from `first` to before `end` along axis 1."""
        return self.node("Slice", value, *(self.constant([bound], np.int64) for bound in (first, end, 1)))


def _gelu(graph: Graph, value: str) -> str:
    normal = graph.plus(graph.node("Erf", graph.times(value, 1 / math.sqrt(2))), 1)
    return graph.times(graph.node("Mul", value, normal), 0.5)


def _mish(graph: Graph, value: str) -> str:
    return graph.node("Mul", value, graph.node("Tanh", graph.node("Softplus", value)))


Write = Callable[[Graph, Any, str], str]
"""A layer and the name of what it takes, to the name of what it gives."""
# Those of `torsos.ACTIVATIONS`, all with torch's defaults.
ACTIVATIONS: Mapping[type[nn.Module], Write] = {
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
