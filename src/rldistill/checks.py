"""Ranges of settings, checked where they are declared; nothing heavy is imported: the command line comes here first."""

import math
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import get_args, get_type_hints

from rldistill.errors import UsageError

_MOST_ENVS = 4096
_IN_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "True or False", Path: "a path"}


def check_types(record: object) -> None:
    """Check that the fields of a frozen record are what their types say: from Python anything may come.

    Whole numbers such as 1e4 become integers, texts become paths where a path is expected, NumPy's numbers Python's.

    Raises:
        UsageError: names the field and its value.
    """
    for name, hint in get_type_hints(type(record)).items():
        types = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        if not all(isinstance(item, type) for item in types):
            continue  # tuples of paths, which are made and not given
        value = _converted(getattr(record, name), types)
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            expected = " or ".join(_IN_WORDS[item] for item in types if item is not NoneType)
            raise UsageError(f"{name}: got {value!r}, expected {expected}.")
        object.__setattr__(record, name, value)


def _converted(value: object, types: tuple[type, ...]) -> object:
    if isinstance(value, str) and Path in types and str not in types:
        return Path(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    if float not in types and isinstance(value, Integral):
        return int(value)
    number = float(value)
    if float in types:
        return number
    return int(number) if int in types and number.is_integer() else value


def check_positive(record: object, *names: str) -> None:
    """Check that fields are 1 or more.

    Raises:
        UsageError: names the field and its value.
    """
    for name in names:
        if getattr(record, name) < 1:
            raise UsageError(f"{name} must be 1 or more, got {getattr(record, name)}.")


def check_num_envs(num_envs: int) -> None:
    """Check a number of environments: each takes memory of its own, and a mistyped one would fill the machine's.

    Raises:
        UsageError: below 1, or above 4,096.
    """
    if num_envs < 1:
        raise UsageError(f"num_envs must be 1 or more, got {num_envs}.")
    if num_envs > _MOST_ENVS:
        raise UsageError(f"num_envs must be {_MOST_ENVS} or less, got {num_envs}.")


def check_not_negative(record: object, *names: str) -> None:
    """Check that fields are 0 or more, and numbers.

    Raises:
        UsageError: names the field and its value.
    """
    for name in names:
        if not 0 <= getattr(record, name) < math.inf:
            raise UsageError(f"{name} must be 0 or more, got {getattr(record, name)}.")


def check_share(record: object, *names: str) -> None:
    """Check that fields are shares or chances, in [0, 1].

    Raises:
        UsageError: names the field and its value.
    """
    for name in names:
        if not 0 <= getattr(record, name) <= 1:
            raise UsageError(f"{name} must lie in [0, 1], got {getattr(record, name)}.")
