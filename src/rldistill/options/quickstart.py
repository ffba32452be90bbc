"""Options of `quickstart`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rldistill.errors import UsageError
from rldistill.options.declaration import Above, Count, PathLike, PythonOnly
from rldistill.options.reading import Reading
from rldistill.options.shared import Environments, Machine, Told, WhoSees

if TYPE_CHECKING:
    TeacherFiles = PathLike | Sequence[PathLike]
else:  # on the command line one or several
    TeacherFiles = tuple[Path, ...]

_NETWORK_FOR_BUNDLED = "net3"


@dataclass(frozen=True, kw_only=True)
class QuickstartOptions(Reading, WhoSees, Environments, Machine, Told):
    """Take a teacher to a proven smaller student, a figure and a film. A second call goes on."""

    teacher: Annotated["TeacherFiles | None", PythonOnly()] = None
    """Policy file of a teacher, of any library. With --choose several, NAME=FILE for each. Default: the bundled Pong
    teacher."""
    task: str | None = None
    """Task to play. Default: the teacher's own."""
    student: str | None = None
    """Network of the student, such as mlp:32x32; auto: what distill chooses. Default: the smallest that keeps the
    teacher's skill, as shrink finds it; net3 for the bundled teacher."""
    within: Annotated[float, Above(0)] | None = None
    """Time to look for the smallest student, in seconds; on the command line also 90s, 10m or 2h. Default: 600."""
    out: PathLike = "quickstart"
    """Folder for data, student, figure and film."""
    num_steps: Count | None = None
    """With --student: decisions to store. Default: 60,000."""
    num_updates: Count | None = None
    """With --student: gradient steps. Default: 12,000."""
    num_episodes: Count = 30
    """Episodes of each policy in the evaluation."""
    overwrite: bool = False
    """Delete an earlier run in --out first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network is None and (self.num_steps or self.num_updates):
            name = "num_steps" if self.num_steps else "num_updates"
            raise UsageError(
                f"{name} belongs with student, which names a network; without one shrink decides how much is played "
                "and trained. Name one (--student auto), or give --within."
            )
        if self.network is not None and self.within is not None:
            raise UsageError(
                f"within is the time to look for the smallest student, and {self.network} is named. Leave one out."
            )

    @property
    def network(self) -> str | None:
        """Network of the student where it is known; None: it is looked for."""
        return _NETWORK_FOR_BUNDLED if self.student is None and self.teacher is None else self.student
