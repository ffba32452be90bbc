"""An ONNX file in a process of its own, within limits of memory and of processor time.

Operators of the ONNX standard alone can repeat for ever, and make 8 GB out of 300 bytes. A look at a file does not tell
whether it does so. A stranger's file is therefore read and run here: the process that asks gets an answer or an error,
or sees this process end. `onnx_program` starts it and asks; it ends when its connection is closed.
"""

import json
import math
import re
import resource
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rldistill.adapters.onnx_file import OnnxModel, read_onnx
from rldistill.errors import PolicyFileError, RldistillError, optional_import
from rldistill.storage import sha256_bytes

# Parsing, checking, optimising and packing weights hold several copies of them for a moment, and take their time.
_COPIES_OF_WEIGHTS, _COPIES_OF_INPUTS = 8, 4
_BYTES_PER_SECOND = 32 * 2**20
_MOST_ANSWER_BYTES = 64 * 2**20
_MOST_INPUT_BYTES = 256 * 2**20
_MOST_SAID = 300
_TOO_LARGE = re.compile(r"requested buffer of size (\d+)")


@dataclass(frozen=True)
class _Limits:
    """Of this process; a file that its user trusts has none."""

    seconds: float  # of processor time, for reading a small file, and for each batch of observations
    free_bytes: int  # what reading and running may take, in whatever shapes, beside copies of weights and inputs
    own_bytes: int  # address space of the interpreter and its libraries

    @property
    def apply(self) -> bool:
        """Whether there are any."""
        return self.seconds > 0

    def set_memory(self, weight_bytes: int, input_bytes: int = 0) -> None:
        """Let this process take what weights and inputs of this size need, and no more."""
        if not self.apply:
            return
        limit = self.own_bytes + self.free_bytes + _COPIES_OF_WEIGHTS * weight_bytes + _COPIES_OF_INPUTS * input_bytes
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))

    def start_clock(self) -> None:
        """End this process after so much processor time from now on: SIGPROF ends a process without a handler."""
        if self.apply:
            signal.setitimer(signal.ITIMER_PROF, self.seconds)

    def allow_reading(self, num_bytes: int, total: int) -> None:
        """Let this process take the memory for `total` bytes, and the clock run on for what so many of them take."""
        self.set_memory(total)
        if self.apply:
            left, _ = signal.getitimer(signal.ITIMER_PROF)
            signal.setitimer(signal.ITIMER_PROF, left + num_bytes / _BYTES_PER_SECOND)

    def stop_clock(self) -> None:
        """Let the next call have its own time."""
        signal.setitimer(signal.ITIMER_PROF, 0)


def serve(descriptor: int, path: str, *, rows_per_batch: int, seconds: float, free_bytes: int) -> None:
    """Read a file, say what it is, and answer batches of observations until the connection is closed.

    Each reply is a header in JSON and a block of bytes. A batch comes as bytes, in the shape and type of the header,
    and so does each part of the state, `[B, *shape]`. `rows_per_batch` counts where the file fixes no batch; `seconds`
    and `free_bytes` are those of `_Limits`.
    """
    # Ctrl-C and a scheduler's SIGTERM are for the process that asks: this one ends with its connection.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # a parent that ignores it hands that down
    connection = Connection(descriptor)
    try:
        # What reads and runs files is imported before any limit holds.
        libraries = ("onnx", "onnx.numpy_helper", "onnxruntime")
        *_, onnxruntime = [optional_import(name, what=f"ONNX file {path}", extra="onnx") for name in libraries]
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits = _Limits(seconds, free_bytes, pages * resource.getpagesize())
        limits.start_clock()
        model = read_onnx(Path(path), before_reading=limits.allow_reading)
        num_rows = model.batch_size or rows_per_batch
        inputs = [((num_rows, *model.observation_shape), model.input_dtype)]
        inputs += [((num_rows, *state.shape), state.dtype) for state in model.states]
        # The process that asks refuses larger ones.
        num_bytes = sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in inputs)
        limits.set_memory(len(model.content), min(num_bytes, _MOST_INPUT_BYTES))
        session = _session(onnxruntime, path, model)
    except Exception as error:  # whatever a parser says of a stranger's bytes
        _reply(connection, _error(f"ONNX file {path} cannot be read", error))
        return
    description = {
        "content_hash": sha256_bytes(model.content),
        "num_bytes": len(model.content),
        "num_parameters": model.num_parameters,
        "inputs": inputs,
        "states": [state.output_name for state in model.states],
        "blind": dict(model.blind),
    }
    model = replace(model, content=b"")  # the session has them
    limits.stop_clock()
    _reply(connection, description)
    _answer_all(connection, path, model, session, inputs, limits)


def _session(onnxruntime: Any, path: str, model: OnnxModel) -> Any:  # noqa: ANN401 (no public types)
    options = onnxruntime.SessionOptions()
    # One thread: sums in another order differ in their last bits, and episodes must not depend on the machine.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # what fails is raised; what it only remarks is nothing to a user
    try:
        return onnxruntime.InferenceSession(model.content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no public base class
        raise PolicyFileError(f"ONNX file {path} cannot be run: {_said(error)}") from error


def _answer_all(
    connection: Connection,
    path: str,
    model: OnnxModel,
    session: Any,  # noqa: ANN401 (no public types)
    inputs: list[tuple[tuple[int, ...], str]],
    limits: _Limits,
) -> None:
    given: list[NDArray[Any]] = []
    while connection.poll(None):
        try:
            # Not before it is asked for: the process that asks refuses a shape beyond all reason.
            given = given or [np.empty(shape, dtype) for shape, dtype in inputs]
            for array in given:
                connection.recv_bytes_into(array.data.cast("B"))
        except EOFError:
            return
        limits.start_clock()
        try:
            answers = _run(path, model, session, given)
        except Exception as error:  # onnxruntime's errors have no public base class
            _reply(connection, _error(f"ONNX file {path} cannot be run on observations {list(inputs[0][0])}", error))
            continue
        finally:
            limits.stop_clock()
        header = {"answers": [[name, array.dtype.name, array.shape] for name, array in answers.items()]}
        _reply(connection, header, b"".join(array.tobytes() for array in answers.values()))


def _run(
    path: str,
    model: OnnxModel,
    session: Any,  # noqa: ANN401 (no public types)
    given: list[NDArray[Any]],
) -> dict[str, NDArray[Any]]:
    """Return what a model answers to rows and states `[B, …]`, by name: outputs, and the next states `[B, …]`."""
    rows, *parts = given
    feed = {model.input_name: rows}
    feed |= {state.input_name: state.stacked(part) for state, part in zip(model.states, parts, strict=True)}
    for name, dtype, dims in model.unused:
        feed[name] = np.zeros([len(rows) if isinstance(size, str) else size for size in dims], dtype)
    names = [*model.output_names, *(state.output_name for state in model.states)]
    # Arrays of numbers only: text, sequences and maps are no outputs.
    arrays: dict[str, NDArray[Any]] = {
        name: answer
        for name, answer in zip(names, session.run(names, feed), strict=True)
        if isinstance(answer, np.ndarray) and answer.dtype.kind in "biufc"
    }
    num_bytes = sum(array.nbytes for array in arrays.values())
    if num_bytes > _MOST_ANSWER_BYTES:
        raise PolicyFileError(
            f"ONNX file {path} answers {num_bytes / 2**20:,.0f} MiB to one batch of observations, expected at most "
            f"{_MOST_ANSWER_BYTES // 2**20} MiB. Is it a policy?"
        )
    return arrays | {
        state.output_name: state.unstacked(arrays[state.output_name])
        for state in model.states
        if state.output_name in arrays
    }


def _error(what: str, error: Exception) -> dict[str, Any]:
    if isinstance(error, RldistillError):
        return {"error": str(error), "kind": type(error).__name__}
    return {"error": f"{what}: {_said(error)}", "kind": PolicyFileError.__name__}


def _said(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if found := _TOO_LARGE.search(text):
        text = f"one of its results takes {int(found[1]):,} bytes"
    if found or isinstance(error, MemoryError) or "bad_alloc" in text:
        text += ", more memory than a policy should need. --trust (Python: trust=True) lifts this limit"
    return f"{text[:_MOST_SAID].rstrip('.')}."


def _reply(connection: Connection, header: Mapping[str, Any], content: bytes = b"") -> None:
    connection.send_bytes(json.dumps(header).encode())
    connection.send_bytes(content)
