"""Several teachers of one task as a user names them, and what says which of them labels a row."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from rldistill.errors import UsageError, shortened
from rldistill.policies.switched import Choice
from rldistill.sight import choose_parts, part_names
from rldistill.tasks import Task

Choose = str | Callable[[Any], Any]
"""A part of the observation, an entry of `info`, `module:function`, or a function of observations."""
_FEWEST = 2


@dataclass(frozen=True)
class SeveralTeachers:
    """The teachers of one task, by name."""

    teachers: Mapping[str, Any]  # policies, or their files with what is said of them
    choose: Choose  # what says whose a row is


def several_by_name(given: object, choose: Choose | None) -> dict[str, Any] | None:
    """Return the teachers of one task by name, as a mapping or as `NAME=FILE` texts give them; None: it is one teacher.

    Raises:
        UsageError: names are missing, or nothing says which teacher labels a row, or there is only one.
    """
    if choose is None and isinstance(given, Mapping | list | tuple) and len(given) < _FEWEST:
        if not given:
            raise UsageError(f"teacher: got an empty {type(given).__name__}, expected a teacher.")
        raise UsageError(
            f"teacher: got a {type(given).__name__} of {len(given)}, expected one teacher by itself, or several with "
            "choose, which says whose a row is. Pass the one itself."
        )
    if isinstance(given, Mapping):
        named = {str(name): own for name, own in cast(Mapping[Any, Any], given).items()}
    elif choose is None:
        if isinstance(given, list | tuple):
            files = " ".join(map(str, cast(Sequence[Any], given)))
            raise UsageError(
                f"choose is missing: got several teachers, {files}, and nothing says which labels a row. To record or "
                "play each by itself, give the command one at a time."
            )
        return None
    else:
        items = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
        pairs = [str(item).partition("=") for item in items if not hasattr(item, "tasks")]
        named = {name: file for name, equals, file in pairs if name and equals and file}
        if len(named) < len(items):
            raise UsageError(
                f"choose is for several teachers of one task, each with a name of its own: got "
                f"{', '.join(map(str, items))}, expected such as walk=a.zip climb=b.zip."
            )
    if choose is None:
        raise UsageError(
            f"choose is missing: of {', '.join(named)}, what says which teacher labels a row? Name a part of the "
            "observation, an entry of info, or a function."
        )
    if len(named) < _FEWEST:
        raise UsageError(f"choose is for several teachers of one task, got {', '.join(named) or 'none'}. Leave it out.")
    return named


def choose_text(choose: Choose | None) -> str | None:
    """Return what says whose a row is as a configuration names it."""
    return choose if choose is None or isinstance(choose, str) else Choice(function=choose).text


def make_choice(choose: Choose, names: Mapping[str, Sequence[int]] | None, task: Task) -> Choice:
    """Return what says whose a row is: a part where the observations have one of that name, else an entry of `info`.

    Raises:
        UsageError: spans that are none of the vector, or no function of that name.
    """
    if not isinstance(choose, str):
        return Choice(function=_function(choose, repr(choose)))
    parts = tuple(names or part_names(task.fingerprint, {}))
    if choose in parts:
        return Choice(sight=choose_parts("choose", choose, names, task))
    module, colon, name = choose.partition(":")
    if not colon:
        return Choice(entry=choose, parts=parts)
    try:  # what the user typed may run code; no file's record comes here
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # the user's code raises what it likes
        said = f"{type(error).__name__}: {error}"
        raise UsageError(f"choose: {choose!r} is no function that can be imported ({said}).") from error
    return Choice(function=_function(function, f"{choose!r}, a {type(function).__name__}"))


def _function(given: object, text: str) -> Callable[[Any], Any]:
    if not callable(given):
        raise UsageError(
            f"choose: got {shortened(text, 80)}, expected a part of the observation, an entry of info, or a function "
            "of observations."
        )
    return given
