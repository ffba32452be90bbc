"""Options of `evaluate`."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rldistill.errors import UsageError
from rldistill.options.declaration import Count, PathLike, PythonOnly
from rldistill.options.reading import Reading
from rldistill.options.shared import (
    Chosen,
    Machine,
    ManyEnvironments,
    PartNames,
    Played,
    TeacherSees,
    Told,
    check_names,
)

if TYPE_CHECKING:
    from rldistill.envs import TaskLike
    from rldistill.loading.named import PolicyLike

    Policies = PolicyLike | Sequence[PolicyLike]
    Tasks = TaskLike | Sequence[TaskLike]
else:  # The command line reads this file and must not wait for torch: of what may be named, it knows the texts.
    Policies, PolicyLike, Tasks = tuple[Path, ...], Path, str | Sequence[str]

# A student may be better than its teacher; a requirement beyond this is a percentage.
_MOST_RETENTION = 2.0


@dataclass(frozen=True)
class EvaluateOptions(Reading, Chosen, TeacherSees, PartNames, Played, ManyEnvironments, Machine, Told):
    """Play the same episodes with every policy and with random play, and compare."""

    policies: Annotated[Policies, PythonOnly()]
    """Policies, their files or run folders; one or several."""
    task: Annotated[Tasks | None, PythonOnly()] = None
    """Task to play, or several: in Python a list, on the command line with commas between. Default: all that the first
    policy has heads for."""
    _: KW_ONLY
    teacher: Annotated[Policies | Mapping[str, PolicyLike] | None, PythonOnly()] = None
    """Reference to compare with, one or several. With --choose several of one task by name: in Python a mapping, on the
    command line NAME=FILE for each. Default: the teachers that the first policy's file names, if they are still
    there."""
    num_episodes: Count = 30
    """Episodes of each policy."""
    require_retention: float | None = None
    """Fail (exit 1) unless the one-sided 95 % lower bound of retention reaches this share, from 0 to 2; with
    several tasks, the bound of the mean over tasks."""
    out: PathLike | None = None
    """JSON file to write. Default: none in Python. On a command line that names one run folder alone, evaluation.json
    in it, unless one of more episodes, or of another play, is there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names(self.names, self)
        names = list(self.task) if isinstance(self.task, list | tuple) else [self.task]
        if not all(name.strip() for name in names if isinstance(name, str)):
            named = ",".join(str(name) for name in names)
            raise UsageError(f"task: got {named!r}, expected names with commas between, such as atari:pong.")
        if self.require_retention is not None and not 0 <= self.require_retention <= _MOST_RETENTION:
            raise UsageError(
                f"require_retention must lie in [0, {_MOST_RETENTION:g}], got {self.require_retention:g}. It is a "
                "share of the teacher's skill: 0.95 asks for 95 %, 1 for as much as the teacher's."
            )
