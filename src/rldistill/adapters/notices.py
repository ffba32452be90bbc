"""What an adapter wants a person to know about a policy that it could load."""

import warnings


class TeacherWarning(UserWarning):
    """A policy loads, but something about it may make it play badly."""


def warn(message: str) -> None:
    """Warn in one line, where the adapter was called."""
    warnings.warn(message, TeacherWarning, stacklevel=3)
