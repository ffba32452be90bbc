"""Which module a task's name imports: one that the user typed may run code, one that stands in a file may not."""

import importlib
import os
import shlex
import sys

from rldistill.errors import TaskError, first_line
from rldistill.tasks import ATARI_PREFIX

PYTHON_PREFIX = "python:"
"""How tasks that were given as objects in Python are called."""
# Ids of Gymnasium that take another library's id among their settings, and import its module.
_BRIDGES = ("GymV21Environment", "GymV26Environment")


def import_task_module(name: str) -> None:
    """Import the module of `module:EnvId`, which registers the environment; of other names do nothing.

    Only for names that the user typed: this runs code. Raises TaskError: there is no such module.
    """
    module = module_of(name)
    if module is None:
        return
    # `python -m` finds modules of the current folder, and a command that pip installed does not. Last: nothing that is
    # installed is hidden by a file that happens to lie there.
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())
    try:
        importlib.import_module(module)
    except Exception as error:  # the user's code raises what it likes
        said = first_line(error) if isinstance(error, ImportError | ValueError) else f"{type(error).__name__}: {error}"
        raise TaskError(
            f"Task {name!r}: module {module!r} cannot be imported ({said}). Is it installed, or in this folder, or "
            "misspelt?"
        ) from error


def check_imports_nothing(name: str) -> None:
    """Check that playing a recorded task imports no module: a stranger's file must not choose code to run."""
    module = module_of(name)
    if name.startswith(_BRIDGES):
        raise TaskError(
            f"Task {name!r} stands in a file, and makes an environment of another library that its settings name. If "
            f"you trust its code, name it yourself: --task {shlex.quote(name)} with its --env-kwargs."
        )
    if module is not None and module not in sys.modules:
        raise TaskError(
            f"Task {name!r} stands in a file, and playing it would import the module {module!r}, which runs its code. "
            f"If you trust that module, name it yourself: --task {shlex.quote(name)} (Python: task={name!r})."
        )


def module_of(name: str) -> str | None:
    """Return the module that a task's name has before its colon; None where it has none."""
    module, colon, _ = name.rpartition(":")
    return module if colon and not name.startswith((ATARI_PREFIX, PYTHON_PREFIX)) else None
