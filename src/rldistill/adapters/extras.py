"""Packages that only some adapters need, asked for by name when they are missing."""

import importlib
from typing import Any

from rldistill.errors import RldistillError, install_hint


def optional_import(module: str, *, what: str, extra: str) -> Any:  # noqa: ANN401 (a module)
    """Import an optional package.

    Args:
        module: its name.
        what: needs it, as messages call it.
        extra: of ours that installs it.

    Raises:
        RldistillError: it is not installed; says how to.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RldistillError(f"{what} needs {module}, which is not installed: {install_hint(extra)}") from error
