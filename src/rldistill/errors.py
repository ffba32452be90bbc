"""The errors a user can meet, each told in one line.

Grammar: *What failed: got X, expected Y. Likely cause. Do Z.* The command line turns `exit_code` into the process's
exit status: 2 where an option or a line of the configuration is wrong or missing, 1 for everything else.
"""

import contextlib
import importlib
import importlib.util
import struct
from collections.abc import Generator, Iterable, Mapping
from typing import Any

MAX_MESSAGE = 500
"""Characters of an error: it is one line, whatever the file says that it is about."""


class RldistillError(Exception):
    """Base of every error raised for a user's input, files or data.

    Its message is shown in terminals and may quote a stranger's file: it is cut to one line of at most `MAX_MESSAGE`
    printable characters.

    Attributes:
        exit_code: of a command that ends with it.
        result: plain JSON data that the command had found before; `--json` prints it with the error.
    """

    exit_code = 1
    result: Mapping[str, Any] | None = None

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message, MAX_MESSAGE))


class UsageError(RldistillError):
    """An argument or a configuration value is wrong or missing."""

    exit_code = 2


class TaskError(UsageError):
    """A task id names no environment that can be played."""


class PolicyFileError(RldistillError):
    """A file is not a policy that can be trusted: unreadable, altered or of another kind."""


class DatasetError(RldistillError):
    """A dataset folder is unreadable, altered, empty or of another version."""


class MismatchError(RldistillError):
    """Two things do not belong together: teacher and task, dataset and student."""


class LockedError(RldistillError):
    """Another process is writing to the same folder."""


class OutputExistsError(RldistillError):
    """An output path holds something that would be lost."""


class DiskFullError(RldistillError):
    """The disk, or a limit on file sizes, stopped a write; what was reported written is there."""


class NumericalError(RldistillError):
    """A NaN or an infinity appeared in data, loss or weights."""


class EnvironmentFaultError(RldistillError):
    """An environment failed in its own code, or gave what its spaces do not declare."""


class TeacherWarning(UserWarning):
    """A policy loads, but something about it may make it play badly."""


class UnendingEpisodeWarning(UserWarning):
    """An episode goes on for so long that its environment may never end one."""


class GateError(RldistillError):
    """A requested guarantee (such as a minimum retention) was not met."""


def install_hint(extra: str) -> str:
    """Return how to install what one of our extras brings; the package is on no index, so from a checkout."""
    return f".venv/bin/pip install -c constraints.txt -e '.[{extra}]' in the checkout of rldistill"


def docs_page(name: str) -> str:
    """Return where a page of our documentation is found, from whatever folder a message is read."""
    return f"docs/{name} in the checkout of rldistill"


def printable(text: str, most: int | None = None) -> str:
    """Return text as one line that a terminal shows as it is: controls, colours and bidi marks are spelt out.

    Args:
        text: from anywhere.
        most: characters to keep, of a longer text its beginning and its end; None: all.
    """
    line = text if most is None else shortened(text, 4 * most)  # spelling out a huge text takes seconds
    line = " ".join(line.split())
    if not line.isprintable():
        line = "".join(
            character if character.isprintable() else character.encode("unicode_escape", "backslashreplace").decode()
            for character in line
        )
    return line if most is None else shortened(line, most)


def shortened(text: str, most: int) -> str:
    """Return a text with its middle left out where it is longer than `most` characters.

    Messages begin with a path of any length and end with what to do. In a narrow column the two ends of a name, which
    tell phases and tasks apart, matter alike, and blanks take room.
    """
    if len(text) <= most:
        return text
    mark, end = (" … ", most * 3 // 5) if most >= _NARROW else ("…", max(most, 3) // 2)
    return f"{text[: max(most - end - len(mark), 1)]}{mark}{text[len(text) - end :]}"


def shown(value: object, most: int = 60) -> str:
    """Return what a file holds in some place as messages quote it: texts and numbers, of all else the type.

    Printing a container of a stranger may never end: it may hold the same list a thousand million times.
    """
    if isinstance(value, str):
        return repr(printable(value, most))
    if isinstance(value, int) and value.bit_length() > _PRINTED_BITS:  # Python refuses to print huge ones
        return "a number of too many digits"
    if value is None or isinstance(value, bool | int | float):
        return str(value)
    return f"a {type(value).__name__}"


def listed(items: Iterable[str], most: int = 8) -> str:
    """Return the first items as messages list them, and how many more there are."""
    names = list(items)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def first_line(error: BaseException) -> str:
    """Return what another library's error says first, without its full stop; its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


@contextlib.contextmanager
def reading_file(what: str, error_type: type[RldistillError]) -> Generator[None]:
    """Turn whatever reading a stranger's file raises into one line; our own errors pass as they are.

    Args:
        what: the file, as messages call it.
        error_type: to raise.
    """
    try:
        yield
    except RldistillError:
        raise
    except OSError as error:
        raise error_type(f"{what} cannot be read: {error.strerror or first_line(error)}.") from error
    except MemoryError as error:
        raise error_type(f"{what} cannot be read: it does not fit into the memory.") from error
    except _OF_CONTENT as error:
        raise error_type(
            f"{what} cannot be read: its content does not have the expected structure ({type(error).__name__}: "
            f"{first_line(error)}). It is damaged, or another program wrote it. If it is sound, report it with what "
            "RLDISTILL_TRACEBACK=1 shows."
        ) from error


# What Python, NumPy and torch raise for values that they did not expect; other errors are ours to see.
_OF_CONTENT = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    EOFError,
    RuntimeError,
    struct.error,
)
_PRINTED_BITS = 128
_NARROW = 40


def optional_import(module: str, *, what: str, extra: str) -> Any:  # noqa: ANN401 (a module)
    """Import a package that `what` needs; raises an `RldistillError` that says which of our extras installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RldistillError(_missing(module, what=what, extra=extra)) from error


def check_installed(module: str, *, what: str, extra: str) -> None:
    """Check that a package can be found, without importing it; raises as `optional_import`."""
    if importlib.util.find_spec(module) is None:
        raise RldistillError(_missing(module, what=what, extra=extra))


def _missing(module: str, *, what: str, extra: str) -> str:
    return f"{what} needs {module.partition('.')[0]}, which is not installed: {install_hint(extra)}"
