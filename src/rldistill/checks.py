"""Ranges of settings, checked where they are declared: each check raises a UsageError that names field and value.

Nothing heavy is imported: the command line comes here first.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard, cast

from rldistill.errors import UsageError, printable, shown

_MOST_NAME = 255  # a file may be called so
_MOST_DIMENSIONS = 8
# Of one name in a path, and of a whole path, in bytes: Linux opens no longer ones.
_MOST_NAME_BYTES, _MOST_PATH_BYTES = 255, 4095


def check_share(record: object, *names: str) -> None:
    """Check that fields are shares or chances, in [0, 1]."""
    for name in names:
        if not 0 <= getattr(record, name) <= 1:
            raise UsageError(f"{name} must lie in [0, 1], got {getattr(record, name)}.")


def check_whole(record: object, *names: str, least: int = 1) -> None:
    """Check that fields hold whole numbers, one or several: a file may declare anything."""
    for name in names:
        value = getattr(record, name)
        values = cast(Sequence[Any], value) if isinstance(value, tuple | list) else (value,)
        for item in values:
            if not is_whole(item, least=least):
                number = "" if isinstance(item, int) and not isinstance(item, bool) else "a whole number, "
                raise UsageError(f"{name} must be {number}{least} or more, got {shown(item)}.")


def check_shape(record: object, *names: str, least: int = 1) -> None:
    """Check that fields hold the sizes of an array: multiplying those of a file that lists a million takes for ever."""
    for name in names:
        if len(getattr(record, name)) > _MOST_DIMENSIONS:
            raise UsageError(f"{name} must have at most {_MOST_DIMENSIONS} sizes, got {len(getattr(record, name)):,}.")
    check_whole(record, *names, least=least)


def is_whole(value: object, *, least: int = 1) -> bool:
    """Whether a value is a whole number of at least that much; a truth value is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_finite(value: object) -> TypeGuard[float]:
    """Whether a value is a number that a float can hold; a truth value is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def check_kind(record: object, kind: type, *names: str) -> None:
    """Check that fields are of a type."""
    for name in names:
        if not isinstance(getattr(record, name), kind):
            raise UsageError(f"{name} must be a {kind.__name__}, got {shown(getattr(record, name))}.")


def check_name(record: object, *names: str) -> None:
    """Check that fields are texts that tables and messages can show."""
    for name in names:
        value = getattr(record, name)
        if not isinstance(value, str):
            raise UsageError(f"{name} must be a text, got {shown(value)}.")
        if len(value) > _MOST_NAME or not value.isprintable():
            raise UsageError(
                f"{name} must be at most {_MOST_NAME} printable characters, got {len(value)}: {printable(value, 60)}."
            )


def check_path(name: str, path: Path) -> None:
    """Check that a path is one that a file can have, and that records can hold as text.

    Raises UsageError: too long, not UTF-8, or with a NUL; names the option.
    """
    encoded = os.fsencode(path)
    longest = max(map(len, encoded.split(b"/")))
    for what, got, most in (("name", longest, _MOST_NAME_BYTES), ("path", len(encoded), _MOST_PATH_BYTES)):
        if got > most:
            raise UsageError(
                f"{name}: got a {what} of {got:,} bytes, expected at most {most:,}: {printable(str(path), 60)}. Choose "
                "a shorter one."
            )
    if b"\0" in encoded or not _is_utf8(encoded):
        raise UsageError(f"{name}: got {printable(str(path), 60)}, expected UTF-8 without NUL, as records hold it.")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
