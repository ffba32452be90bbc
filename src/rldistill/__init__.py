"""Distil trained reinforcement-learning policies and prove that the result still plays as well.

`load_policy`, `train_teacher`, `collect`, `distill`, `evaluate` and `inspect` are the whole
public face; everything else may move. Importing this package imports nothing heavy: torch
comes with the first use of a name.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rldistill.runs.train_teacher import train_teacher as train_teacher

_HOMES = {
    "train_teacher": "rldistill.runs.train_teacher",
}

__all__ = ["train_teacher"]  # noqa: RUF022 (the order of use)


def __getattr__(name: str) -> object:
    """Import a public name from its home at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'rldistill' has no attribute {name!r}; it has {', '.join(__all__)}.")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
