"""Options of `load_policy`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rldistill.options.declaration import PythonOnly
from rldistill.options.reading import Reading
from rldistill.options.shared import PartNames, TeacherSees, check_names

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rldistill.envs import TaskLike

    PolicySource = str | Path | nn.Module | Callable[..., Any]
    Module = nn.Module
    Remembered = Tensor | Sequence[Tensor]
else:  # Importing this file must not wait for torch.
    PolicySource, Module, TaskLike, Remembered = Path, object, str, object


@dataclass(frozen=True)
class LoadOptions(Reading, TeacherSees, PartNames):
    """Load a policy from whatever holds one."""

    source: Annotated[PolicySource, PythonOnly()]
    """A policy file, a run folder (its student, else its last policy), a folder of export --to hub-folder, a file of
    another library, an `nn.Module`, or a function from observations to outputs."""
    _: KW_ONLY
    task: Annotated[TaskLike | None, PythonOnly()] = None
    """Task that the policy plays, if its file does not name one."""
    env_kwargs: Mapping[str, Any] | None = None
    """Settings of the environment."""
    module: Annotated[Module | None, PythonOnly()] = None
    """For weights whose network is a module of your own: that module. Its weights are replaced in place."""
    initial_state: Annotated[Remembered | None, PythonOnly()] = None
    """For a module or a function with a memory, (observations, state) -> (outputs, state): what it remembers of one
    environment when an episode begins, a tensor such as torch.zeros(64) or a tuple of some. It is given a row for each
    environment, [B, 64], and returns the next likewise."""
    device: str = "cpu"
    """cpu, cuda, or auto: cuda if there is a GPU. Programs run on the CPU."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names(self.names, self)
