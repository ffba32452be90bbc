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
from rldistill.exports.c.quantize import QuantizedPlan
from rldistill.exports.c.source import CSource, write_c
from rldistill.exports.c_format import planned
from rldistill.exports.formats import Export, Sample
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
    {begin}
    while (fread(observation, sizeof observation, 1, stdin) == 1) {{
        {outputs}observation, outputs);
        {act}observation, action);
        fwrite(outputs, sizeof outputs, 1, stdout);
        fwrite(action, sizeof action, 1, stdout);
    }}
    return 0;
}}
"""
# What the same state knows of an episode is the same for both functions: one of them gets a copy. An observation that
# begins with a number above 1e6 begins an episode, and is no observation.
_FORGETFUL = {"begin": "", "outputs": "policy_outputs(", "act": "policy_act("}
_REMEMBERING = {
    "begin": "policy_state state, copy; policy_reset(&state);",
    "outputs": "if (observation[0] > 1e6f) { policy_reset(&state); continue; } copy = state; policy_outputs(&copy, ",
    "act": "policy_act(&state, ",
}


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
        numbers = np.frombuffer(done.stdout, np.float32).reshape(self._num_answers(rows), -1)
        num_outputs = int(self.source.header.partition("_NUM_OUTPUTS ")[2].partition("\n")[0])
        return numbers[:, :num_outputs], numbers[:, num_outputs:]

    @staticmethod
    def _num_answers(rows: np.ndarray) -> int:
        return len(rows) - int((rows.reshape(len(rows), -1)[:, 0] == BEGIN).sum())


BEGIN = 2e6
"""As the first number of an observation: an episode begins with the next."""


def compile_with(compiler: str, folder: Path, *arguments: str) -> None:
    """Compile files of a folder into `program`, all warnings as errors; skip where the compiler is missing."""
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    command = [compiler, *FLAGS, *arguments, "-o", "program", "-lm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def written(
    policy: TorchPolicy,
    *,
    calibration: np.ndarray | None = None,
    state: tuple[torch.Tensor, ...] = (),
    contract: tuple[str, ...] = (),
) -> Written:
    """Write the C of a policy; in int8 where there are observations to calibrate it with, and what was remembered."""
    sample = None if calibration is None else Sample(calibration, state)
    made = planned(Export(policy, {}, precision="int8" if sample else "float32", calibration=sample))
    quantized, plan = (made, made.plan) if isinstance(made, QuantizedPlan) else (None, made)
    source = write_c("policy", made, contract)
    folder = Path(tempfile.mkdtemp(prefix="rldistill-c-"))
    kind = "uint8_t" if plan.takes_bytes else "float"
    main = _MAIN.format(kind=kind, **(_REMEMBERING if plan.remembers else _FORGETFUL))
    for name, text in {"policy.c": source.source, "policy.h": source.header, "main.c": main}.items():
        (folder / name).write_text(text)
    return Written(folder, source, quantized)
