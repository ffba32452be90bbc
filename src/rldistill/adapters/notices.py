"""What an adapter wants a person to know about a policy that it could load."""

import warnings


class TeacherWarning(UserWarning):
    """A policy loads, but something about it may make it play badly."""


def warn(message: str) -> str:
    """Warn in one line; returns it, for the policy's provenance."""
    warnings.warn(message, TeacherWarning, stacklevel=3)
    return message
