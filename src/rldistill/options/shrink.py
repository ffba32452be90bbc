"""Options of `shrink`."""

from dataclasses import KW_ONLY, dataclass
from typing import Annotated

from rldistill.errors import UsageError
from rldistill.options.declaration import Above, AtLeast, PathLike, PythonOnly
from rldistill.options.reading import Reading
from rldistill.options.shared import Folder, Machine, ManyEnvironments, Played, TaskLike, TeacherLike, Told, WhoSees


@dataclass(frozen=True)
class ShrinkOptions(Reading, WhoSees, Played, ManyEnvironments, Machine, Folder, Told):
    """Find the smallest student that keeps a teacher's skill, prove it, and write it."""

    teacher: Annotated[TeacherLike, PythonOnly()]
    """Teacher: a policy, a file of any library, or a run folder. With --choose several, by name: in Python a mapping,
    on the command line NAME=FILE for each."""
    task: Annotated[TaskLike | None, PythonOnly()] = None
    """Task to play. Default: the teacher's own."""
    _: KW_ONLY
    out: PathLike | None = None
    """Folder of the students and their records. Default: runs/<the teacher's name>."""
    keep: Annotated[float, Above(0)] = 0.95
    """Share of the teacher's skill above random play that the student must keep, with 95 % confidence; at most 1."""
    within: Annotated[float, Above(0)] = 600.0
    """Time for all of it, in seconds; on the command line also 90s, 10m or 2h."""
    num_episodes: Annotated[int, AtLeast(20)] = 100
    """Fresh episodes of the first proof, or as many as could prove --keep of a student that never fails, if these are
    more; up to four times as many where fewer are unlikely to prove it. Twice as many others follow while the bound is
    open and there is time for them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep > 1:
            raise UsageError(
                f"keep must lie in (0, 1], got {self.keep:g}: it is a share of the teacher's skill, 0.95 for 95 %."
            )
