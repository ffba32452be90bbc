"""Options of `load_policy`."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rldistill.options.declaration import PythonOnly
from rldistill.options.reading import Reading

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rldistill.envs import TaskLike

    PolicySource = str | Path | nn.Module | Callable[[Tensor], Any]
    Module = nn.Module
else:  # Importing this file must not wait for torch.
    PolicySource, Module, TaskLike = Path, object, str


@dataclass(frozen=True)
class LoadOptions(Reading):
    """Load a policy from whatever holds one."""

    source: Annotated[PolicySource, PythonOnly()]
    """A policy file, a run folder (its student, else its last policy), a file of another library, an `nn.Module`, or a
    function from observations to outputs."""
    _: KW_ONLY
    task: Annotated[TaskLike | None, PythonOnly()] = None
    """Task that the policy plays, if its file does not name one."""
    env_kwargs: Mapping[str, Any] | None = None
    """Settings of the environment."""
    module: Annotated[Module | None, PythonOnly()] = None
    """For weights whose network is a module of your own: that module. Its weights are replaced in place."""
    device: str = "cpu"
    """cpu, cuda, or auto: cuda if there is a GPU. Programs run on the CPU."""
