"""Distil trained reinforcement-learning policies and prove that the result still plays as well.

`load_policy`, `train_teacher`, `collect`, `distill`, `distill_several`, `shrink`, `evaluate`, `export` and `reproduce`
are the public face, with the sources `Stored`, `Live` and `Online` that `distill` learns from and `ProgressBar`, a
callback that shows how far a verb is. docs/concepts.md names what else is supported; the rest may move. Importing this
package imports nothing heavy: torch comes with the first use of a name.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rldistill.adapters.load import load_policy as load_policy
    from rldistill.cli.progress import ProgressBar as ProgressBar
    from rldistill.options.distill import Live as Live
    from rldistill.options.distill import Online as Online
    from rldistill.options.distill import Stored as Stored
    from rldistill.paper.reproduce import reproduce as reproduce
    from rldistill.verbs.collect import collect as collect
    from rldistill.verbs.distill import distill as distill
    from rldistill.verbs.distill_several import distill_several as distill_several
    from rldistill.verbs.evaluate import evaluate as evaluate
    from rldistill.verbs.export import export as export
    from rldistill.verbs.shrink import shrink as shrink
    from rldistill.verbs.train_teacher import train_teacher as train_teacher

_HOMES = {
    "Live": "rldistill.options.distill",
    "Online": "rldistill.options.distill",
    "Stored": "rldistill.options.distill",
    "ProgressBar": "rldistill.cli.progress",
    "load_policy": "rldistill.adapters.load",
    "train_teacher": "rldistill.verbs.train_teacher",
    "collect": "rldistill.verbs.collect",
    "distill": "rldistill.verbs.distill",
    "distill_several": "rldistill.verbs.distill_several",
    "evaluate": "rldistill.verbs.evaluate",
    "export": "rldistill.verbs.export",
    "reproduce": "rldistill.paper.reproduce",
    "shrink": "rldistill.verbs.shrink",
}

__all__ = [
    "Live",
    "Online",
    "ProgressBar",
    "Stored",
    "collect",
    "distill",
    "distill_several",
    "evaluate",
    "export",
    "load_policy",
    "reproduce",
    "shrink",
    "train_teacher",
]


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
