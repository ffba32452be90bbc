"""ONNX files: one file with weights and contract in it, checked by onnx, run and read back by onnxruntime."""

import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rldistill.adapters.onnx_program import CONTRACT_KEY, onnx_metadata
from rldistill.errors import PolicyFileError, RldistillError, check_installed, optional_import, reading_file
from rldistill.exports.contract import check_contract
from rldistill.exports.formats import ACTION, Export, ExportFormat, Opened, read_back
from rldistill.exports.onnx_graph import INPUT, make_model, state_input, state_output
from rldistill.exports.states import state_parts
from rldistill.limits import JSON, read_json
from rldistill.options.reading import Reading

_WHAT = "--to onnx"
# The limit of protobuf, beyond which weights would have to lie in a second file.
_MOST_BYTES = (2 << 30) - 1
# What onnxruntime's quantiser is given at once; how many do not change its ranges.
_CALIBRATION_ROWS = 64
# The layers that hold nearly all weights; everything else stays in float32.
_QUANTISED = ("Conv", "Gemm")


def check_packages() -> None:
    """Check that the packages that write and run an ONNX file can be found; raises RldistillError."""
    for package in ("onnx", "onnxruntime"):
        check_installed(package, what=_WHAT, extra="onnx")


def write(export: Export, path: Path) -> None:
    """Write a policy as an ONNX file.

    Raises:
        RldistillError: it is too large.
    """
    onnx = optional_import("onnx", what=_WHAT, extra="onnx")
    num_bytes = 4 * export.policy.num_parameters
    if num_bytes > _MOST_BYTES:
        raise RldistillError(f"{_WHAT}: the weights take {num_bytes:,} bytes, one file holds at most {_MOST_BYTES:,}.")
    is_half = export.precision == "float16"
    model = make_model(onnx, export.policy, half=is_half, gives_probabilities=export.gives_probabilities)
    if export.precision == "int8":
        model = _quantised(onnx, model, export)
    onnx.helper.set_model_props(model, {CONTRACT_KEY: json.dumps(export.contract, allow_nan=False)})
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def _quantised(onnx: Any, model: Any, export: Export) -> Any:  # noqa: ANN401 (protobuf)
    """Return the model with int8 weights, a scale for each channel, and inputs of layers rounded to their ranges.

    The ranges are the smallest and the largest value that each layer is given on observations of the dataset. What a
    layer gives is not rounded itself: neighbouring Q-values lie closer than a 256th of their range.
    """
    quantization = optional_import("onnxruntime.quantization", what=f"{_WHAT} --precision int8", extra="onnx")
    batches, logger = _batches(export), logging.getLogger()
    level = logger.level
    with tempfile.TemporaryDirectory() as folder:
        quantised = Path(folder, "quantised.onnx")
        try:
            logger.setLevel(logging.ERROR)  # it advises on a preprocessing that our graphs do not need
            quantization.quantize_static(
                model,
                quantised,
                SimpleNamespace(get_next=lambda: next(batches, None)),  # as it reads observations
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(_QUANTISED),
                nodes_to_exclude=_last_layers(model),
                per_channel=True,
                weight_type=quantization.QuantType.QInt8,
                # Processors without VNNI add products of full bytes in 16 bits, which overflow: the file would act
                # otherwise there. With weights of 7 bits it acts alike everywhere.
                reduce_range=True,
                activation_type=quantization.QuantType.QUInt8,
                extra_options={"OpTypesToExcludeOutputQuantization": list(_QUANTISED)},
            )
        finally:
            logger.setLevel(level)
        return onnx.load_model_from_string(quantised.read_bytes())


def _last_layers(model: Any) -> list[str]:  # noqa: ANN401 (protobuf)
    """Return the names of the linear layers that no other layer follows.

    They hold few of the weights, and rounding what they take costs most: of the Q-values of a teacher of Pong, 4.5 % of
    all decisions. Where there are no others, they are rounded, too.
    """
    used: set[str] = set()
    for node in reversed(model.graph.node):
        is_layer = node.op_type in _QUANTISED
        # What leads to a layer is followed by one; outputs of the graph are not.
        if is_layer or used & set(node.output):
            used |= set(node.input)
    layers = [node for node in model.graph.node if node.op_type in _QUANTISED]
    last = [node.name for node in layers if not used & set(node.output)]
    return last if len(last) < len(layers) else []


def _batches(export: Export) -> Iterator[dict[str, NDArray[np.generic]]]:
    """Yield observations, and what was remembered before them, by the names of the model's inputs."""
    assert export.calibration is not None, "int8 is exported with observations"
    names = (INPUT, *map(state_input, state_parts(export.policy)))
    inputs = (export.calibration.observations, *(part.numpy() for part in export.calibration.state))
    for start in range(0, len(inputs[0]), _CALIBRATION_ROWS):
        yield {name: rows[start : start + _CALIBRATION_ROWS] for name, rows in zip(names, inputs, strict=True)}


def open_onnx(export: Export, path: Path) -> Opened:
    """Return what our own loader reads, and decisions by onnxruntime on one thread, as a program around it makes them.

    The loader runs the file in a process of its own, as any stranger's.
    """
    onnxruntime = optional_import("onnxruntime", what=_WHAT, extra="onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session: Any = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    parts = state_parts(export.policy)
    names = [ACTION, *map(state_output, parts)]
    state = {state_input(part): np.zeros((1, *part.shape), np.float32) for part in parts}

    def decide(observation: NDArray[np.generic]) -> object:
        action, *following = session.run(names, {INPUT: observation, **state})
        state.update(zip(state, following, strict=True))
        return action

    return read_back(export, path, Reading()), decide


def contract_in(path: Path) -> dict[str, Any] | None:
    """Return the contract in an ONNX file's metadata; None where there is none.

    Raises:
        RldistillError: what is there is no contract.
    """
    with reading_file(f"ONNX file {path}", PolicyFileError):
        text = onnx_metadata(path).get(CONTRACT_KEY)
        return None if text is None else check_contract(f"ONNX file {path}", read_json(text, JSON))


ONNX = ExportFormat("onnx", ".onnx", ("float32", "float16", "int8"), write, open_onnx, check_packages=check_packages)
