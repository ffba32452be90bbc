"""An ONNX file as data: read, checked for everything that reaches beyond it, and its interface described.

Only operators of the ONNX standard are accepted, and weights that lie in the file or beside it in
the same folder. What is given on is one block of bytes that refers to nothing else.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from rldistill.adapters.onnx_states import Dimension, OnnxState, Value, roles, state_layout
from rldistill.errors import PolicyFileError, RldistillError, first_line, listed, optional_import

CONTRACT_KEY = "rldistill.contract"
"""Of the contract of an export (`exports.contract`) in a file's metadata."""
CONSTANT = "constant"
"""What the names of numbers that are no weights begin with in an export."""
MAX_BYTES = 512 * 2**20
"""Of the file and its external weights together: a policy of 128 million float32 weights."""
_STANDARD_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
# With all below them: onnxruntime runs operators of its own of these names, whatever a file says that they are.
_RUNTIME_DOMAINS = ("ai.onnx", "com.microsoft", "com.ms", "org.pytorch")
_MOST_NAME_BYTES = 256
_RECURRENT_OPERATORS = frozenset({"GRU", "LSTM", "RNN"})
# Whose inputs are what training made, also of layers that were quantised.
_NORMS = frozenset({f"{kind}Normalization" for kind in ("Batch", "Layer", "Instance", "Group")})
_ROUNDING = frozenset({"QuantizeLinear", "DequantizeLinear"})
_LAYERS = _NORMS | {"Gemm", "MatMul", "Conv", "ConvTranspose", "DequantizeLinear"}
_OBSERVATION_TYPES = {"FLOAT": np.float32, "DOUBLE": np.float64, "FLOAT16": np.float16, "UINT8": np.uint8}
_STATE_TYPES = _OBSERVATION_TYPES | {"INT64": np.int64, "INT32": np.int32}
_UNUSED_TYPES = _STATE_TYPES | {"BOOL": np.bool_}


@dataclass(frozen=True)
class OnnxModel:
    """A checked model."""

    content: bytes  # its bytes, external weights included
    input_name: str  # of the observations
    input_dtype: str  # NumPy's name of its type
    observation_shape: tuple[int, ...]  # of the input without its batch dimension
    batch_size: int | None  # fixed in the file; None: any
    output_names: tuple[str, ...]  # in order, without those of the memory
    states: tuple[OnnxState, ...]  # what it remembers; a file whose states hold one environment has a batch of 1
    # Inputs that nothing depends on, with their type; a size that is not fixed is that of the batch.
    unused: tuple[tuple[str, str, tuple[Dimension, ...]], ...]
    blind: Mapping[str, str]  # outputs that depend on such an input, by name, and it
    num_parameters: int  # elements of all stored weights


def read_onnx(path: Path, *, before_reading: Callable[[int, int], None] = lambda num_bytes, total: None) -> OnnxModel:
    """Read and check an ONNX file; nothing in it is run.

    `before_reading` gets the number of bytes that come next, and of all with those before them.

    Raises:
        PolicyFileError: unreadable, too large, with operators beyond the standard, weights outside its folder, weights
            that are no numbers, inputs that are not one batch of observations and what is remembered, or recurrent
            without giving its state.
        RldistillError: the package `onnx` is missing.
    """
    what = f"ONNX file {path}"
    onnx = optional_import("onnx", what=what, extra="onnx")
    try:
        return _Reader(path, what, onnx, before_reading).read()
    except RldistillError:
        raise
    except Exception as error:  # protobuf's errors have no public base class, and damaged files bring others
        raise PolicyFileError(
            f"{what} cannot be read: {first_line(error)[:200]}. It is not an ONNX model, or its download or copy is "
            "incomplete. Fetch it again."
        ) from error


@dataclass
class _Reader:
    """Reads one file."""

    path: Path
    what: str  # as messages call it
    onnx: Any  # the package; protobuf's messages have no public types
    before_reading: Callable[[int, int], None]  # as `read_onnx` takes it
    num_bytes: int = 0  # read so far, external weights included

    def read(self) -> OnnxModel:
        """Return the checked model."""
        self._announce(self.path.stat().st_size)
        model = self.onnx.load_model_from_string(self.path.read_bytes())
        if not model.graph.output:
            raise PolicyFileError(f"{self.what} holds no graph with outputs. It is not an ONNX model, or incomplete.")
        messages = list(_messages(model))
        nodes = [message for message in messages if isinstance(message, self.onnx.NodeProto)]
        tensors = [message for message in messages if isinstance(message, self.onnx.TensorProto)]
        self._check_domains(model, nodes)
        for tensor in tensors:
            if tensor.data_location == self.onnx.TensorProto.EXTERNAL:
                self._include_external(tensor)
        self._check_weights(tensors, nodes)
        # Before ONNX 1.3 weights were listed among the inputs, too.
        stored = {tensor.name for tensor in model.graph.initializer}
        inputs = [self._value(value) for value in model.graph.input if value.name not in stored]
        outputs = [self._value(value) for value in model.graph.output]
        found = roles(self.what, inputs, outputs, _reads(model.graph))
        if not found.states and (memory := sorted({node.op_type for node in nodes} & _RECURRENT_OPERATORS)):
            raise PolicyFileError(
                f"{self.what} is recurrent: it has {' and '.join(memory)}, and neither takes nor gives a state: it "
                "forgets everything between two steps. Export it with its state, such as h_in and h_out."
            )
        seen, dtype = found.observation, self._type(found.observation, _OBSERVATION_TYPES)
        dims = self._observed(seen)
        states = [state_layout(self.what, pair, self._type(pair[0], _STATE_TYPES), dims[0]) for pair in found.states]
        batch_size = dims[0] if isinstance(dims[0], int) else None
        return OnnxModel(
            content=model.SerializeToString(),
            input_name=seen.name,
            input_dtype=dtype,
            observation_shape=tuple(
                self._fixed_size(seen.name, index, size) for index, size in enumerate(dims) if index
            ),
            batch_size=1 if any(state.axis is None for state in states) else batch_size,
            output_names=tuple(value.name for value in outputs if value.name not in {s.output_name for s in states}),
            num_parameters=self._num_weights(model, tensors, nodes),
            states=tuple(states),
            unused=tuple((value.name, self._type(value, _UNUSED_TYPES), value.dims or ()) for value in found.unused),
            blind=found.blind,
        )

    def _announce(self, num_bytes: int) -> None:
        self.num_bytes += num_bytes
        if self.num_bytes > MAX_BYTES:
            raise PolicyFileError(
                f"{self.what} takes {self.num_bytes / 2**20:,.0f} MiB with its weights, the most that is read is "
                f"{MAX_BYTES // 2**20} MiB. Is it a policy?"
            )
        self.before_reading(num_bytes, self.num_bytes)

    def _check_domains(self, model: Any, nodes: Sequence[Any]) -> None:  # noqa: ANN401
        # Functions that the file itself defines are made of nodes, which are checked like all others.
        defined = {(function.domain, function.name) for function in model.functions}
        if reserved := sorted(f"{domain}.{name}" for domain, name in defined if is_of_runtime(domain)):
            raise PolicyFileError(
                f"{self.what} defines operators that have a meaning already: {listed(reserved)}. onnxruntime would run "
                "its own in their place. Export it with functions of another domain, or without."
            )
        custom = {
            f"{node.domain}.{node.op_type}"
            for node in nodes
            if node.domain not in _STANDARD_DOMAINS and (node.domain, node.op_type) not in defined
        }
        if custom:
            raise PolicyFileError(
                f"{self.what} needs operators beyond the ONNX standard: {listed(sorted(custom))}. They would run code "
                "of another library; export it with standard operators only."
            )

    def _include_external(self, tensor: Any) -> None:  # noqa: ANN401
        """Read a weight that lies in a file beside the model into it."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        file = self._file_beside(entries.get("location", ""))
        try:
            offset, available = int(entries.get("offset", 0)), file.stat().st_size
            length = int(entries.get("length", available - offset))
        except ValueError as error:
            raise PolicyFileError(f"{self.what}: weight {tensor.name} has no readable place ({error}).") from error
        if not 0 <= offset <= offset + length <= available:
            raise PolicyFileError(
                f"{self.what}: weight {tensor.name} should be bytes {offset} to {offset + length} of {file.name}, "
                f"which has {available}. Its download or copy is incomplete. Fetch both again."
            )
        self._announce(length)
        with file.open("rb") as stream:
            stream.seek(offset)
            tensor.raw_data = stream.read(length)
        del tensor.external_data[:]
        tensor.data_location = self.onnx.TensorProto.DEFAULT

    def _file_beside(self, location: str) -> Path:
        """Return the file in the model's own folder (or below it) that holds external weights."""
        # Both systems' rules: a file made elsewhere must not become dangerous here.
        posix, windows = PurePosixPath(location), PureWindowsPath(location)
        leaves = posix.is_absolute() or bool(windows.anchor) or ".." in posix.parts or ".." in windows.parts
        file = self.path.parent / location
        shown = repr(location) if len(location) <= 60 else f"{location[:60]!r}"[:-1] + " …"
        steps = [file, *list(file.parents)[: len(posix.parts) - 1]]
        # Of a name that no file may have, asking is an error.
        may_be = len(location.encode(errors="replace")) < _MOST_NAME_BYTES and "\0" not in location
        if not location or leaves or (may_be and any(step.is_symlink() for step in steps)):
            raise PolicyFileError(
                f"{self.what} wants weights from {shown}, which may lie outside its own folder: refused. External "
                "weights must be plain files beside the model."
            )
        if not (may_be and file.is_file()):
            raise PolicyFileError(f"{self.what} needs its weights from {shown} beside it: found nothing there.")
        return file

    def _is_float(self, tensor: Any) -> bool:  # noqa: ANN401
        types = self.onnx.TensorProto
        return tensor.data_type in (types.FLOAT, types.DOUBLE, types.FLOAT16, types.BFLOAT16)

    def _num_weights(self, model: Any, tensors: Sequence[Any], nodes: Sequence[Any]) -> int:  # noqa: ANN401
        """Return how many numbers training made: floats, and what stands for them in quantised layers.

        Factors and bounds of a file are not told from weights, but for an export of ours, which names them so.
        """
        rounded = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.input[:1]}
        scales = {name for node in nodes if node.op_type in _ROUNDING for name in node.input[1:] if name}
        is_ours = any(entry.key == CONTRACT_KEY for entry in model.metadata_props)
        return sum(
            math.prod(tensor.dims)
            for tensor in tensors
            if (self._is_float(tensor) or tensor.name in rounded)
            and tensor.name not in scales
            and not (is_ours and tensor.name.startswith(f"{CONSTANT}_"))
        )

    def _check_weights(self, tensors: Sequence[Any], nodes: Sequence[Any]) -> None:
        """Check that all weights are numbers, and those of layers finite."""
        of_layers = {name for node in nodes if node.op_type in _LAYERS for name in node.input}
        for tensor in filter(self._is_float, tensors):
            try:
                values = self.onnx.numpy_helper.to_array(tensor)
            except (ValueError, TypeError) as error:
                raise PolicyFileError(
                    f"{self.what}: weight {tensor.name} is damaged ({first_line(error)}). Fetch it again."
                ) from error
            numbers = values.astype(np.float64)
            # Elsewhere than in a layer an infinity is a bound or a mask.
            if np.isnan(numbers).any() or (tensor.name in of_layers and np.isinf(numbers).any()):
                raise PolicyFileError(
                    f"{self.what}: weight {tensor.name} holds NaN or infinity. Its training diverged."
                )

    def _value(self, value: Any) -> Value:  # noqa: ANN401
        """Return an input or an output in plain terms."""
        tensor = value.type.tensor_type
        # A number that no version of ONNX knows has no name.
        names_of_types = {number: name for name, number in self.onnx.TensorProto.DataType.items()}
        dtype = names_of_types.get(tensor.elem_type, f"of the unknown type {tensor.elem_type}")
        # Some exporters write -1 for a size that is not fixed.
        dims = tuple(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param or "?"
            for dim in tensor.shape.dim
        )
        return Value(value.name, dtype, dims if tensor.HasField("shape") else None)

    def _type(self, value: Value, known: Mapping[str, type[np.generic]]) -> str:
        """Return NumPy's name of a type."""
        if value.dtype not in known:
            raise PolicyFileError(f"{self.what}: its input {value.name} is {value.dtype}, expected {', '.join(known)}.")
        return np.dtype(known[value.dtype]).name

    def _observed(self, value: Value) -> tuple[Dimension, ...]:
        """Return the dimensions of the observations, after checking that they are a batch."""
        if not value.dims or value.dims[0] == 0:
            raise PolicyFileError(
                f"{self.what}: its input {value.name} has shape {list(value.dims or ())}, expected a batch of "
                "observations [B, …]."
            )
        return value.dims

    def _fixed_size(self, name: str, index: int, size: int | str) -> int:
        if isinstance(size, str) or size < 1:
            raise PolicyFileError(
                f"{self.what}: dimension {index} of its input {name} is not fixed ({size!r}); only the batch, "
                "dimension 0, may be. Export it with the shape of the observations."
            )
        return size


def _messages(message: Any) -> Iterator[Any]:  # noqa: ANN401 (protobuf)
    """Yield every message inside a message: nested graphs, functions and attributes are found whatever holds them."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in value if isinstance(value, Sequence) else (value,):
                yield item
                yield from _messages(item)


def _reads(graph: Any) -> dict[str, list[str]]:  # noqa: ANN401 (protobuf)
    """Return, for each value that a node makes, the names that this node and the graphs within it read."""
    reads: dict[str, list[str]] = {}
    for node in graph.node:
        within = list(_messages(node))
        inner = [message.input for message in within if message.DESCRIPTOR.name == "NodeProto"]
        given = [
            value.name for message in within if message.DESCRIPTOR.name == "GraphProto" for value in message.output
        ]
        names = [*node.input, *chain(*inner), *given]
        reads |= {output: names for output in node.output}
    return reads


def is_of_runtime(domain: str) -> bool:
    """Return whether onnxruntime may have operators of its own in a domain."""
    return domain == "" or any(domain == own or domain.startswith(f"{own}.") for own in _RUNTIME_DOMAINS)
