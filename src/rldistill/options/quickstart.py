"""Options of `quickstart`."""

from dataclasses import dataclass

from rldistill.errors import UsageError
from rldistill.options.declaration import Count, PathLike
from rldistill.options.reading import Reading
from rldistill.options.shared import Environments, Folder, Machine, Told


@dataclass(frozen=True, kw_only=True)
class QuickstartOptions(Reading, Environments, Machine, Folder, Told):
    """Make a smaller student of a teacher: collect, distil, evaluate and film. A second call goes on."""

    teacher: PathLike | None = None
    """Policy file of a teacher, of any library. Default: the bundled Pong teacher."""
    task: str | None = None
    """Task to play. Default: the teacher's own."""
    student: str = "auto"
    """Network of the student, such as mlp:32x32; auto: what distill chooses."""
    out: PathLike = "quickstart"
    """Folder for data, student, figure and film."""
    num_steps: Count = 60_000
    """Decisions to store."""
    num_updates: Count = 12_000
    """Gradient steps."""
    num_episodes: Count = 30
    """Episodes of each policy in the evaluation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume:
            raise UsageError("quickstart always goes on where it stopped: --resume does not apply.")
