"""Policies with a memory, which are refused by name: told by the names of their tensors."""

import re
from collections.abc import Iterable

from rldistill.errors import PolicyFileError, RldistillError

# What torch calls the weights of all its recurrent layers and cells, whatever the module around them is called.
_RECURRENT_WEIGHT = re.compile(r"(^|\.)weight_[ih]h(_l\d+)?(_reverse)?($|\.)")


def memory_among(names: Iterable[str]) -> str | None:
    """Return the first name that a weight of an LSTM, a GRU or another recurrent layer has; None: there is none."""
    return next((name for name in names if _RECURRENT_WEIGHT.search(name)), None)


def refuse_memory(what: str, names: Iterable[str], error: type[RldistillError] = PolicyFileError) -> None:
    """Check that no weight is one of a recurrent layer; raises an error of the type given, which names it."""
    if memory := memory_among(names):
        raise error(recurrent(what, memory))


def recurrent(what: str, memory: str) -> str:
    """Return the line with which a policy with a memory is refused."""
    return f"{what} is recurrent: it has {memory}. Policies with a memory are not supported."
