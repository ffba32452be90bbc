"""Options of `collect`."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Annotated

from rldistill.options.declaration import Count, PathLike, PythonOnly
from rldistill.options.reading import Reading
from rldistill.options.shared import (
    Chosen,
    Folder,
    Machine,
    ManyEnvironments,
    PartNames,
    Played,
    TaskLike,
    TeacherLike,
    TeacherSees,
    Told,
    check_names,
)


@dataclass(frozen=True)
class CollectOptions(Reading, Chosen, TeacherSees, PartNames, Played, ManyEnvironments, Machine, Folder, Told):
    """Let a teacher play, and store observations, its outputs, actions and rewards."""

    teacher: Annotated[TeacherLike, PythonOnly()]
    """Teacher: a policy, a file of any library, or a run folder. With --choose several, by name: in Python a mapping,
    on the command line NAME=FILE for each."""
    task: Annotated[TaskLike | None, PythonOnly()] = None
    """Task to play. Default: the teacher's own."""
    _: KW_ONLY
    out: PathLike
    """Dataset folder."""
    num_steps: Count | None = None
    """Decisions (agent steps, all environments together) to store in all. Default: 50,000, with --resume what the
    dataset was begun with."""
    store: str | Sequence[str] | None = None
    """What is stored of the teacher besides its outputs: value, features (the layer before its output), or both with a
    comma between, for --value-weight and --feature-weight of distill."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names(self.names, self)

    @property
    def further(self) -> tuple[str, ...]:
        """Names of what is stored besides outputs."""
        names = self.store.split(",") if isinstance(self.store, str) else self.store or ()
        return tuple(name.strip() for name in names)
