"""An ONNX file as a program, run by onnxruntime in a process of its own (`onnx_worker`)."""

import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence, Set
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from rldistill import errors
from rldistill.adapters.contract import Contract
from rldistill.adapters.formats import FileStart, Format
from rldistill.adapters.onnx_file import CONTRACT_KEY
from rldistill.adapters.program import Program, ProgramPolicy, ProgramState
from rldistill.errors import PolicyFileError, RldistillError, check_installed
from rldistill.limits import JSON
from rldistill.options.reading import Reading
from rldistill.policies.padded import ROWS_PER_BATCH
from rldistill.tasks import Task

SECONDS_PER_CALL = 2.0
"""Of processor time, for loading a small file, and for each batch of observations."""
# What a file may take, in whatever shapes, beside copies of its weights and inputs.
_FREE_BYTES = 512 * 2**20
# The same modules are imported as here; the current folder adds nothing.
_COMMAND = (
    "import json, sys; sys.path[:], arguments = json.loads(sys.argv[1]); "
    "from rldistill.adapters.onnx_worker import serve; serve(**arguments)"
)
# Numbers of the fields of ONNX's ModelProto, and those that every model has: the graph and its operator sets.
_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})
_NEEDED_FIELDS = frozenset({7, 8})
_METADATA_FIELD = 14
# Key and value of an entry of its metadata.
_ENTRY_FIELDS = frozenset({1, 2})
# One for each operator set, function and entry of its metadata.
_MOST_FIELDS = 100_000


def _is_onnx(file: FileStart) -> bool:
    return not file.is_zip and (file.path.suffix == ".onnx" or _has_fields_of_onnx(file.path))


def _has_fields_of_onnx(path: Path) -> bool:
    """Are the outermost fields of a protobuf message those of an ONNX model?"""
    try:
        with path.open("rb") as file:
            found = {number for number, _, _ in _outermost_fields(file, _FIELDS)}
    except ValueError:
        return False
    return found >= _NEEDED_FIELDS


def onnx_metadata(path: Path) -> dict[str, str]:
    """Return the texts that an ONNX file's metadata hold, by their keys; nothing else of the file is read.

    Raises:
        ValueError: it is no ONNX file.
    """
    entries: dict[str, str] = {}
    with path.open("rb") as file:
        for number, start, size in _outermost_fields(file, _FIELDS):
            if number == _METADATA_FIELD and size <= JSON.num_bytes:
                file.seek(start)
                entry = file.read(size)
                fields = _outermost_fields(io.BytesIO(entry), _ENTRY_FIELDS, wire_types=(2,))
                texts = {field: entry[begin : begin + length].decode() for field, begin, length in fields}
                entries[texts.get(1, "")] = texts.get(2, "")
    return entries


def _outermost_fields(
    file: BinaryIO, known: Set[int], *, wire_types: Sequence[int] = (0, 2)
) -> Iterator[tuple[int, int, int]]:
    """Yield number, place and size of the outermost fields of a protobuf message.

    Raises:
        ValueError: it is none, or has fields of other numbers than `known`, or of other wire types.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    num_fields = 0
    while (position := file.tell()) < size:
        key = _read_varint(file.read(10))
        if key is None:
            raise ValueError("no protobuf message")
        number, wire_type = key[0] >> 3, key[0] & 7
        file.seek(position + key[1])
        value = _read_varint(file.read(10))
        num_fields += 1
        if number not in known or wire_type not in wire_types or value is None or num_fields > _MOST_FIELDS:
            raise ValueError("no ONNX model")
        start, length = position + key[1] + value[1], value[0] if wire_type == 2 else 0
        yield number, start, length
        file.seek(start + length)
    if file.tell() != size:
        raise ValueError("it is cut off")


def _read_varint(data: bytes) -> tuple[int, int] | None:
    """Return the number that bytes begin with and how many bytes it takes; None if they do not."""
    value = 0
    for index, byte in enumerate(data):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, index + 1
    return None


def _load(path: Path, reading: Reading, task: Task | None, _module: nn.Module | None) -> ProgramPolicy:
    try:
        contract = Contract.read(onnx_metadata(path).get(CONTRACT_KEY))
    except ValueError:
        contract = Contract()
    return contract.policy(load_onnx(path, trust=reading.trust), task, reading)


ONNX = Format("onnx", "ONNX file", _is_onnx, _load, frozenset({"outputs", "input_scale"}))


def load_onnx(path: Path, *, trust: bool) -> Program:
    """Return the program of an ONNX file; `trust` lifts the limits of memory and time.

    Raises:
        PolicyFileError: the file cannot be read, or run within the limits.
        RldistillError: `onnx` or `onnxruntime` is missing.
    """
    what = f"ONNX file {path}"
    for module in ("onnx", "onnxruntime"):
        check_installed(module, what=what, extra="onnx")
    process = _OnnxProcess(path, what, trust=trust)
    description = process.description
    ((batch_size, *observation_shape), dtype), *states = description["inputs"]
    return Program(
        name=path.stem,
        what=what,
        format="onnx",
        run=process.run,
        # Of the bytes that are run, so that external weights are part of the policy's identity.
        content_hash=description["content_hash"],
        observation_shape=tuple(observation_shape),
        input_dtype=_torch_dtype(dtype),
        batch_size=batch_size,
        # They take no room before it is known that there are not too many.
        states=tuple(
            ProgramState(name, torch.zeros((), dtype=_torch_dtype(dtype)).expand(shape))
            for name, ((_, *shape), dtype) in zip(description["states"], states, strict=True)
        ),
        num_parameters=description["num_parameters"],
        blind=description["blind"],
        num_bytes=description["num_bytes"],
    )


def _torch_dtype(name: str) -> torch.dtype:
    return torch.from_numpy(np.empty(0, name)).dtype


class _OnnxProcess:
    """The process that reads and runs a file: started here, and ended with the last reference to it."""

    def __init__(self, path: Path, what: str, *, trust: bool) -> None:
        self._what = what
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._connection, theirs = Pipe()
        arguments = {
            "descriptor": theirs.fileno(),
            "path": str(path),
            "rows_per_batch": ROWS_PER_BATCH["cpu"],
            "seconds": 0 if trust else SECONDS_PER_CALL,
            "free_bytes": _FREE_BYTES,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _COMMAND, json.dumps([list(map(str, sys.path)), arguments])],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C in a terminal is for this process to hear
        )
        theirs.close()
        self._end = weakref.finalize(self, _end, self._owner, self._process, self._connection)
        self.description, _ = self._exchange()

    def run(self, *given: Tensor) -> Mapping[str, Tensor]:
        """Return the outputs for one batch of observations, and of each part of the state, by name."""
        header, content = self._exchange(*given)
        outputs: dict[str, Tensor] = {}
        start = 0
        for name, dtype, shape in header["answers"]:
            array = np.frombuffer(content, dtype, math.prod(shape), start).reshape(shape)
            start += array.nbytes
            outputs[name] = torch.from_numpy(array)
        return outputs

    def _exchange(self, *given: Tensor) -> tuple[dict[str, Any], bytearray]:
        """Ask, where there is something to ask, and return the reply; raises what the process refused or died of."""
        if os.getpid() != self._owner:
            raise PolicyFileError(
                f"{self._what} was loaded by the process that this one was forked from. Load it here."
            )
        with self._lock:
            if not self._end.alive:
                raise PolicyFileError(f"{self._what} was stopped while it answered. Load it again.")
            try:
                for part in given:
                    self._connection.send_bytes(part.contiguous().numpy().data.cast("B"))
                header = json.loads(self._connection.recv_bytes())
                content = bytearray(self._connection.recv_bytes())
            except (EOFError, OSError) as error:
                status = self._process.wait()
                self._end()
                raise PolicyFileError(_death(self._what, status)) from error
            except BaseException:
                # What comes next would be the answer to another question.
                self._end()
                raise
        if "error" in header:
            kind: type[RldistillError] = getattr(errors, header["kind"])
            raise kind(header["error"])
        return header, content


def _end(owner: int, process: subprocess.Popen[bytes], connection: Connection) -> None:
    connection.close()
    if os.getpid() != owner:
        return  # forked: the process is still another's
    process.kill()
    process.wait()


def _death(what: str, status: int) -> str:
    lift = "If you trust where it came from, --trust (Python: trust=True) lifts the limits of time and memory."
    if status == -signal.SIGPROF:
        return (
            f"{what} did not answer within {SECONDS_PER_CALL:g} s of processor time. It repeats something without end, "
            f"or is no policy to play with. {lift}"
        )
    reason = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    return (
        f"{what} made onnxruntime end its process ({reason}): the file is damaged, made to do so, or takes too much "
        f"memory. Fetch it again. {lift}"
    )
