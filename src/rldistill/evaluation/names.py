"""How tables and JSON call policies: by run folder or file, so that four runs of one network can be told apart."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rldistill.loading.named import PolicyLike, path_of
from rldistill.policies import Policy
from rldistill.session.run_folder import CONFIG_FILE

_STUDENT = "student"


@dataclass(frozen=True)
class NamedPolicy:
    """A policy, and how tables call it."""

    name: str
    policy: Policy


def names_of(given: Sequence[PolicyLike], policies: Sequence[Policy]) -> list[str]:
    """Return a short name for each policy: of its run folder or its file, else its own.

    Paths that end alike are told apart by the folders above them: `seed0/run` and `seed1/run`.

    Args:
        given: as the user named them.
        policies: what was loaded.
    """
    parts = [_parts(item, policy) for item, policy in zip(given, policies, strict=True)]
    lengths = [1] * len(parts)
    while True:
        names = ["/".join(own[-length:]) for own, length in zip(parts, lengths, strict=True)]
        unclear = [
            index
            for index, own in enumerate(parts)
            if any(name == names[index] and other != own for name, other in zip(names, parts, strict=True))
            and lengths[index] < len(own)
        ]
        if not unclear:
            return names
        for index in unclear:
            lengths[index] += 1


def _parts(given: PolicyLike, policy: Policy) -> tuple[str, ...]:
    """Return a name with what may stand before it, its last part being the shortest name."""
    path = path_of(given)
    if path is None:
        return (policy.name,)
    path = Path(os.path.abspath(path))  # `.` is a run folder, too
    folder = path.parent
    if path.is_dir():
        return path.parts[1:]
    if not (folder / CONFIG_FILE).is_file():
        return (*folder.parts[1:], path.stem)
    return folder.parts[1:] if path.stem == _STUDENT else (*folder.parts[1:-1], f"{folder.name}/{path.stem}")
