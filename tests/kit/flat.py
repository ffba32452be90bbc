"""`distill` with the options of its sources beside its own, as the command line has them: for tests that vary both."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rldistill.options.declaration import option_types
from rldistill.options.distill import DistillOptions, Live, Online, Stored
from rldistill.policies import TorchPolicy
from rldistill.verbs import distill as module


def flat_options(data: Any = None, *, teacher: Any = None, task: Any = None, online: bool = False, **settings: Any):
    """Return the options of a run on datasets, on teachers that play, or on one that learns."""
    kind = Online if online else Live if teacher is not None else Stored
    of_source = {name: settings.pop(name) for name in list(settings) if name in option_types(kind)}
    if online:
        return DistillOptions(Online(task, **of_source), **settings)
    tasks = _listed(task)
    if teacher is None:
        return DistillOptions([Stored(item, task=tasks[0] if tasks else None) for item in _listed(data)], **settings)
    teachers = _listed(teacher) * (max(len(tasks), 1) if len(_listed(teacher)) == 1 else 1)
    return DistillOptions(
        [Live(each, tasks[number] if tasks else None, **of_source) for number, each in enumerate(teachers)], **settings
    )


def distill(data: Any = None, **settings: Any) -> TorchPolicy:
    """Distil; see `flat_options`."""
    return module.distill.of(flat_options(data, **settings))


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str | Path) else [value]
