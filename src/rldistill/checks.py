"""Ranges of settings, checked where they are declared; nothing heavy is imported: the command line comes here first."""

import math

from rldistill.errors import UsageError

_MOST_ENVS = 4096


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
