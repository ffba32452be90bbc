"""Standard output is for results alone, whatever an environment prints while a verb works."""

import contextlib
import ctypes
import io
import os
import sys
from collections.abc import Generator

_held: list[io.StringIO] = []  # of the command at work


def write_out(text: str) -> None:
    """Print a result; where a command is at work, at its end."""
    (_held[-1] if _held else sys.stdout).write(text)


@contextlib.contextmanager
def results_alone() -> Generator[None]:
    """Send to stderr what is printed, from C too, and print the results at the end."""
    stdout, held, copy = sys.stdout, io.StringIO(), -1
    if stdout is sys.__stdout__ and None not in (stdout, sys.stderr):  # else a Python program reads it
        stdout.flush()
        copy = os.dup(1)
        os.dup2(2, 1)
    _held.append(held)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _held.pop()
        if copy >= 0:
            ctypes.CDLL(None).fflush(None)  # what C has printed and not yet written
            os.dup2(copy, 1)
            os.close(copy)
        if stdout is not None:  # closed by who called
            stdout.write(held.getvalue())
