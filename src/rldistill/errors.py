"""The errors a user can meet, each told in one line.

Grammar: *What failed: got X, expected Y. Likely cause. Do Z.* The command line turns
`exit_code` into the process's exit status: 2 for what could be decided from the command
line and the configuration alone, 1 for everything else.
"""

from collections.abc import Mapping
from typing import Any


class RldistillError(Exception):
    """Base of every error raised for a user's input, files or data.

    Attributes:
        exit_code: of a command that ends with it.
        result: plain JSON data that the command had found before; `--json` prints it with the error.
    """

    exit_code = 1
    result: Mapping[str, Any] | None = None


class UsageError(RldistillError):
    """An argument or a configuration value is wrong, whatever the files say."""

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


class UnendingEpisodeWarning(UserWarning):
    """An episode goes on for so long that its environment may never end one."""


class GateError(RldistillError):
    """A requested guarantee (such as a minimum retention) was not met."""


def install_hint(extra: str) -> str:
    """Return how to install what one of our extras brings; the package is on no index, so from a checkout."""
    return f".venv/bin/pip install -e '.[{extra}]' in the checkout of rldistill"


def first_line(error: BaseException) -> str:
    """Return what another library's error says first, without its full stop; its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
