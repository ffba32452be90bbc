"""The C of a policy, compiled on this machine and called: how its file is verified."""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rldistill.errors import RldistillError

FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
"""What the C compiles under without a word."""
_COMPILERS = ("cc", "gcc", "clang")
_SECONDS = 600

Function = Callable[[NDArray[np.generic]], NDArray[np.float32]]
"""One observation, as the environment gives it, to numbers."""


def find_compiler() -> str | None:
    """Return the path of a C compiler on this machine; None where there is none."""
    return next(filter(None, map(shutil.which, _COMPILERS)), None)


def compile_c(source: Path, target: Path, *flags: str, compiler: str) -> None:
    """Compile a C file.

    Raises:
        RldistillError: the compiler fails, and quotes what it says first; or it does not end.
    """
    command = [compiler, *FLAGS, "-O2", *flags, str(source), "-o", str(target), "-lm"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise RldistillError(
            f"C file {source} did not compile with {compiler} within {_SECONDS} seconds. The network may be too large "
            "for it: export a smaller one."
        ) from error
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:200])
        raise RldistillError(f"C file {source} does not compile with {compiler}: {said.strip()}.")


class Library:
    """The two functions of a compiled policy.

    Args:
        path: of the shared library.
        name: what its functions begin with.
        is_bytes: whether it takes bytes, else floats.
        num_outputs: numbers that `outputs` gives.
        action_size: numbers that `act` gives.
    """

    def __init__(self, path: Path, name: str, *, is_bytes: bool, num_outputs: int, action_size: int) -> None:
        loaded = ctypes.CDLL(str(path.resolve()))
        self._dtype = np.uint8 if is_bytes else np.float32
        self.outputs = self._function(loaded[f"{name}_outputs"], num_outputs)
        self.act = self._function(loaded[f"{name}_act"], action_size)

    def _function(self, function: Callable[..., object], size: int) -> Function:
        def call(observation: NDArray[np.generic]) -> NDArray[np.float32]:
            given, result = np.ascontiguousarray(observation, self._dtype), np.empty(size, np.float32)
            function(ctypes.c_void_p(given.ctypes.data), ctypes.c_void_p(result.ctypes.data))
            return result

        return call
