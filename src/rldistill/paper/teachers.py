"""Which teacher a game has: a file that was named, one of the zoo, or one that has yet to be trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rldistill.envs import make_task
from rldistill.errors import MismatchError, UsageError
from rldistill.loading.bundled import find_bundled_teacher
from rldistill.policies import fit_policy, load_policy
from rldistill.tasks import ATARI_PREFIX
from rldistill.types import OutputKind


@dataclass(frozen=True)
class TeacherSource:
    """Where a game's teacher comes from."""

    game: str  # ale-py's name
    origin: Literal["file", "zoo", "trained"]  # `file`: named by the user; `zoo`: bundled; `trained`: here
    path: Path | None = None  # of the file, None if trained
    policy_hash: str | None = None  # identity, None if trained
    output_kind: OutputKind = "q_values"  # what it gives; the learners here give Q-values


def find_teachers(games: Sequence[str], files: Sequence[Path], *, use_zoo: bool = True) -> dict[str, TeacherSource]:
    """Return every game's teacher: a file that was named, else the zoo's if those may be used, else one to be trained.

    Raises:
        UsageError: a game is not known, or named twice.
        PolicyFileError: a file is not there, or cannot be trusted.
        MismatchError: a file is for none of the games, or two are for one.
    """
    if twice := sorted({game for game in games if games.count(game) > 1}):
        raise UsageError(f"games: got {', '.join(twice)} more than once.")
    for game in games:
        make_task(f"{ATARI_PREFIX}{game}")
    found: dict[str, TeacherSource] = {}
    for path in files:
        named = [task.name.removeprefix(ATARI_PREFIX) for task in load_policy(path).tasks if task.is_atari]
        fitting = [game for game in games if game in named]
        if not fitting:
            raise MismatchError(
                f"--teacher {path} is for {', '.join(named) or 'no game'}, expected {', '.join(games)}."
            )
        for game in fitting:
            if game in found:
                raise MismatchError(f"Two teachers for {game}: {found[game].path} and {path}. Leave one out.")
            found[game] = _source(game, path, "file")
    for game in games:
        bundled = find_bundled_teacher(game) if use_zoo else None
        if game not in found:
            found[game] = TeacherSource(game, "trained") if bundled is None else _source(game, bundled, "zoo")
    return {game: found[game] for game in games}


def _source(game: str, path: Path, origin: Literal["file", "zoo"]) -> TeacherSource:
    policy = load_policy(path)
    fit_policy(policy, make_task(f"{ATARI_PREFIX}{game}").task)
    return TeacherSource(game, origin, path, policy.hash, policy.output_kind)
