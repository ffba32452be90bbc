"""Ranges of settings, checked where they are declared; nothing heavy is imported: the command line comes here first."""

import math

from rldistill.errors import UsageError


def check_positive(record: object, *names: str) -> None:
    """Check that fields are 1 or more.

    Raises:
        UsageError: names the field and its value.
    """
    for name in names:
        if getattr(record, name) < 1:
            raise UsageError(f"{name} must be 1 or more, got {getattr(record, name)}.")


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
