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

State = NDArray[np.uint8]
"""The bytes of the struct in which a policy remembers; a decision changes them."""


Function = Callable[[NDArray[np.generic], State | None], NDArray[np.float32]]
"""One observation, as the environment gives it, to numbers; the state is changed, and needed where there is one."""


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
    """The functions of a compiled policy.

    Args:
        path: of the shared library.
        name: what its functions begin with.
        is_bytes: whether it takes bytes, else floats.
        num_outputs: numbers that `outputs` gives.
        action_size: numbers that `act` gives.
        num_state_bytes: of its state; 0: it has none.
    """

    def __init__(
        self, path: Path, name: str, *, is_bytes: bool, num_outputs: int, action_size: int, num_state_bytes: int = 0
    ) -> None:
        loaded = ctypes.CDLL(str(path.resolve()))
        self._dtype = np.uint8 if is_bytes else np.float32
        self._num_state_bytes = num_state_bytes
        self._reset = loaded[f"{name}_reset"] if num_state_bytes else None
        self.outputs = self._function(loaded[f"{name}_outputs"], num_outputs)
        self.act = self._function(loaded[f"{name}_act"], action_size)

    def begun(self) -> State:
        """Return the state with which an episode begins, whatever lay there before."""
        state = np.full(self._num_state_bytes, 0xA5, np.uint8)
        if self._reset is not None:
            self._reset(ctypes.c_void_p(state.ctypes.data))
        return state

    def _function(self, function: Callable[..., object], size: int) -> Function:
        def call(observation: NDArray[np.generic], state: State | None) -> NDArray[np.float32]:
            given, result = np.ascontiguousarray(observation, self._dtype), np.empty(size, np.float32)
            pointers = [ctypes.c_void_p(array.ctypes.data) for array in (given, result)]
            if self._num_state_bytes:
                assert state is not None, "given by whoever plays"
                pointers.insert(0, ctypes.c_void_p(state.ctypes.data))
            function(*pointers)
            return result

        return call
