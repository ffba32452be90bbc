"""How tables and JSON call policies: by run folder or file, so that four runs of one network can be told apart."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rldistill.loading.named import PolicyLike, path_of
from rldistill.policies import Policy
from rldistill.session.own_files import CONFIG_FILE

_STUDENT = "student"


@dataclass(frozen=True)
class NamedPolicy:
    """A policy, and how tables call it."""

    name: str
    policy: Policy
    path: tuple[str, ...] = ()  # the name with what may stand before it, of a file or a folder


def named_policies(given: Sequence[PolicyLike], policies: Sequence[Policy]) -> list[NamedPolicy]:
    """Give each loaded policy a short name: of the run folder or the file that the user gave, else its own.

    Paths that end alike are told apart by the folders above them: `seed0/run` and `seed1/run`.
    """
    paths = [_parts(item, policy) for item, policy in zip(given, policies, strict=True)]
    return told_apart([NamedPolicy(path[-1], policy, path) for path, policy in zip(paths, policies, strict=True)])


def told_apart(named: Sequence[NamedPolicy]) -> list[NamedPolicy]:
    """Return the same policies with names as long as it takes to tell one file from another."""
    paths = [each.path for each in named]
    return [replace(each, name=_shortest(each.path, [own for own in paths if own != each.path])) for each in named]


def _shortest(path: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> str:
    """Return the shortest end of a path that no other path ends in."""
    lengths = range(1, len(path))
    length = next((count for count in lengths if all(path[-count:] != other[-count:] for other in others)), len(path))
    return "/".join(path[-length:])


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
