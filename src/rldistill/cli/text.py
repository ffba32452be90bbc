"""What text on a command line or in a TOML file stands for: read here and nowhere else.

It follows from the type with which the option is declared (`rldistill.options.declaration`): numbers, JSON for
settings, `TASK=VALUE,…` for values by task, commas in lists of names.
"""

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast, get_args, get_origin

from rldistill.errors import UsageError


def flag(name: str) -> str:
    """Return how an option is written."""
    return "--" + name.replace("_", "-")


def members_of(hint: object) -> tuple[Any, ...]:
    """Return the types of a union, or the only one."""
    return (hint,) if get_origin(hint) in (None, tuple, Sequence, Mapping) else get_args(hint)


def held_by(hint: object) -> tuple[Any, ...]:
    """Return what a list holds."""
    return tuple(item for argument in get_args(hint) for item in members_of(argument))


def read_text(name: str, text: str, members: Collection[Any]) -> object:
    """Return what text stands for as a value of one of these types."""
    kinds = [get_origin(member) or member for member in members]
    for member in members:
        if get_origin(member) is Mapping:
            held = get_args(member)[1]
            if get_origin(held) is Sequence:
                # Where a file may be named, too, the verb reads more of it than spans.
                return text if Path in kinds and _is_file(text) else _spans(name, text)
            return _settings(name, text) if held is Any else _by_key(name, text, has_numbers=held is float)
    if Sequence in kinds and "," in text:
        inside = [kind for member in members if get_origin(member) is Sequence for kind in held_by(member)]
        return [read_text(name, item.strip(), inside) for item in text.split(",")]
    if not {int, float} & {*kinds} or str in kinds:
        return text
    return _number(name, text, is_whole=float not in kinds)


def _number(name: str, text: str, *, is_whole: bool) -> float:
    """Return a number; whole ones may be written as 1e4, others as 1/255."""
    try:
        number = Fraction(text.replace(" ", "")) if "/" in text else float(text)
        if not is_whole or float(number).is_integer():
            return int(text) if re.fullmatch(r"[+-]?\d[\d_]*", text) else int(number) if is_whole else float(number)
    except (ValueError, OverflowError, ZeroDivisionError):
        pass  # told below
    raise UsageError(f"{flag(name)}: got {text!r}, expected a {'whole number' if is_whole else 'number'}.")


_EXAMPLES = {"env_kwargs": "'{\"frame_skip\": 4}'", "learner": "'{\"learning_rate\": 1e-4}'"}
# What stands before each value, and an example.
_KEYS = {"loss_params": ("parameter", "delta=0.5")}
_TASKS = ("task", "atari:pong=0.01")


def _settings(name: str, text: str) -> dict[str, Any]:
    """Return settings that are written as a JSON object."""
    try:
        settings = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UsageError(
            f"{name} is not JSON: got {text!r} ({error}), expected an object such as {_EXAMPLES[name]}."
        ) from error
    if not isinstance(settings, dict):
        raise UsageError(f"{name}: got {text!r}, expected a JSON object such as {_EXAMPLES[name]}.")
    return cast(dict[str, Any], settings)


def _by_key(name: str, text: str, *, has_numbers: bool) -> object:
    """Return one value for all tasks, or values by task; parameters of a loss by their name."""
    if "=" not in text and not has_numbers and name not in _KEYS:
        return text
    values: dict[str, str | float] = {}
    noun, example = _KEYS.get(name, _TASKS)
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (equals and key and value):
            raise UsageError(
                f"{name}: got {part!r} in {text!r}, expected {noun.upper()}=VALUE pairs such as {example}."
            )
        if key in values:
            raise UsageError(f"{name}: {noun} {key!r} occurs twice in {text!r}.")
        values[key] = _number(name, value, is_whole=False) if has_numbers else value
    return values


def _is_file(text: str) -> bool:
    """Return whether names of parts are a file's, whose own name may have a `=`, and not spans."""
    return "=" not in text or os.path.isfile(text)


def _spans(name: str, text: str) -> object:
    """Return spans of a vector by name, `[first, end]` or `[first]` to the end: as text, or in a file of `export`."""
    if _is_file(text):
        from rldistill.exports.names import read_names  # here: --help reads no file

        ends = [0]
        terms = read_names(Path(text)).observation
        for term in terms:
            ends.append(ends[-1] + term.size)
        return {term.name: [first, end] for term, first, end in zip(terms, ends, ends[1:], strict=False)}
    spans: dict[str, list[int]] = {}
    for piece in text.split(","):
        part, _, places = (word.strip() for word in piece.partition("="))
        found = re.fullmatch(r"(\d*):(\d*)", places)
        if not part or found is None or places == ":":
            raise UsageError(f"{flag(name)}: got {piece.strip()!r}, expected NAME=FIRST:END such as velocity=0:3.")
        if part in spans:
            raise UsageError(f"{flag(name)}: {part!r} occurs twice in {text!r}.")
        spans[part] = [int(found[1] or 0), *([int(found[2])] if found[2] else [])]
    return spans
