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


def take_place_of_closed() -> None:
    """Open what the caller has closed (`>&-`): the next file to be opened would get its number, and what is printed."""
    for number, name, mode in ((1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            # A result that cannot be written is an error, as on a full disk.
            os.dup2(os.open(os.devnull, mode), number)
            setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115 it stays open


@contextlib.contextmanager
def results_alone() -> Generator[None]:
    """Send to stderr what is printed, from C too, and print the results at the end."""
    stdout, held, copy = sys.stdout, io.StringIO(), -1
    if stdout is sys.__stdout__:  # else a Python program reads it
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
        stdout.write(held.getvalue())
