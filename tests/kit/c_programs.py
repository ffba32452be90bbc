"""The C of policies as a program of its own, compiled with all warnings as errors, with sanitizers or without."""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from rldistill.exports.c.library import FLAGS
from rldistill.exports.c.plan import make_plan
from rldistill.exports.c.quantize import QuantizedPlan, quantize
from rldistill.exports.c.source import CSource, write_c
from rldistill.policies import TorchPolicy

SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
# Reads observations from stdin, and writes the outputs and the action of each to stdout.
_MAIN = """
#include <stdio.h>
#include <stdint.h>
#include "policy.h"
int main(void)
{{
    static {kind} observation[POLICY_OBSERVATION_SIZE];
    float outputs[POLICY_NUM_OUTPUTS], action[POLICY_ACTION_SIZE];
    while (fread(observation, sizeof observation, 1, stdin) == 1) {{
        policy_outputs(observation, outputs);
        policy_act(observation, action);
        fwrite(outputs, sizeof outputs, 1, stdout);
        fwrite(action, sizeof action, 1, stdout);
    }}
    return 0;
}}
"""


@dataclass(frozen=True)
class Written:
    """The C of a policy in a folder, `policy.c` and `policy.h`."""

    folder: Path
    source: CSource
    quantized: QuantizedPlan | None

    def run(self, rows: np.ndarray, *flags: str, compiler: str = "gcc") -> tuple[np.ndarray, np.ndarray]:
        """Compile with flags, and return outputs and actions for observations."""
        compile_with(compiler, self.folder, "main.c", "policy.c", *flags)
        done = subprocess.run(
            [self.folder / "program"], input=np.ascontiguousarray(rows).tobytes(), capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()
        numbers = np.frombuffer(done.stdout, np.float32).reshape(len(rows), -1)
        num_outputs = int(self.source.header.partition("_NUM_OUTPUTS ")[2].partition("\n")[0])
        return numbers[:, :num_outputs], numbers[:, num_outputs:]


def compile_with(compiler: str, folder: Path, *arguments: str) -> None:
    """Compile files of a folder into `program`, all warnings as errors; skip where the compiler is missing."""
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    command = [compiler, *FLAGS, *arguments, "-o", "program", "-lm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def written(policy: TorchPolicy, *, calibration: np.ndarray | None = None, contract: tuple[str, ...] = ()) -> Written:
    """Write the C of a policy; in int8 where there are observations to calibrate it with."""
    plan = make_plan(policy)
    quantized = None if calibration is None else quantize(plan, torch.as_tensor(calibration))
    source = write_c("policy", quantized or plan, contract)
    folder = Path(tempfile.mkdtemp(prefix="rldistill-c-"))
    kind = "uint8_t" if plan.takes_bytes else "float"
    for name, text in {"policy.c": source.source, "policy.h": source.header, "main.c": _MAIN.format(kind=kind)}.items():
        (folder / name).write_text(text)
    return Written(folder, source, quantized)
