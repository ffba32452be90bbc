"""Packages that only some adapters need, asked for by name when they are missing."""

import importlib
import importlib.util
from typing import Any

from rldistill.errors import RldistillError, install_hint


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
