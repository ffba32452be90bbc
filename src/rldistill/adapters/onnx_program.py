"""An ONNX file as a program, run by onnxruntime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rldistill.adapters.extras import optional_import
from rldistill.adapters.onnx_file import OnnxModel, read_onnx
from rldistill.adapters.program import Program
from rldistill.errors import PolicyFileError
from rldistill.policies.padded import ROWS_PER_BATCH
from rldistill.storage import sha256_bytes


def load_onnx(path: Path) -> Program:
    """Return the program of an ONNX file.

    Raises:
        PolicyFileError: the file cannot be trusted, or run.
        RldistillError: `onnx` or `onnxruntime` is missing.
    """
    what = f"ONNX file {path}"
    model = read_onnx(path)
    onnxruntime = optional_import("onnxruntime", what=what, extra="export")
    session = _session(onnxruntime, path, model)

    def run(rows: Tensor) -> Mapping[str, Tensor]:
        try:
            answers = session.run(model.output_names, {model.input_name: rows.numpy()})
        except Exception as error:  # onnxruntime's errors have no public base class
            raise PolicyFileError(
                f"{what} cannot be run on observations {list(rows.shape)}: {_one_line(error)}"
            ) from error
        return {
            name: torch.from_numpy(answer)
            for name, answer in zip(model.output_names, answers, strict=True)
            if isinstance(answer, np.ndarray)
        }

    return Program(
        name=path.stem,
        what=what,
        format="onnx",
        run=run,
        # Of the bytes that are run, so that external weights are part of the policy's identity.
        content_hash=sha256_bytes(model.content),
        observation_shape=model.observation_shape,
        input_dtype=torch.from_numpy(np.empty(0, model.input_dtype)).dtype,
        batch_size=model.batch_size or ROWS_PER_BATCH["cpu"],
        num_parameters=model.num_parameters,
        num_bytes=len(model.content),
    )


def _session(onnxruntime: Any, path: Path, model: OnnxModel) -> Any:  # noqa: ANN401 (no public types)
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
        raise PolicyFileError(f"ONNX file {path} cannot be run: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
