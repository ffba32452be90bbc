"""What a format of policy files is: how its files are recognised and loaded, and what their user must say.

Each adapter of a file format declares one `Format`; `detect.FORMATS` is the table of all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from rldistill.adapters.program import Program, ProgramPolicy
from rldistill.options.reading import Reading
from rldistill.policies import TorchPolicy
from rldistill.tasks import Task

FileKind = str
"""What the code calls a format: `policy`, `sb3`, `onnx`, `torchscript`, `torch_export` or `weights`."""
LoadedPolicy = TorchPolicy | ProgramPolicy


@dataclass(frozen=True)
class FileStart:
    """The beginning of a file, by which its format is recognised without running anything of it."""

    path: Path
    head: bytes  # its first 64 bytes
    members: frozenset[str] = frozenset()  # names in a zip archive; empty for any other file

    @property
    def is_zip(self) -> bool:
        """Whether it is a zip archive."""
        return self.head.startswith(b"PK")

    @property
    def below_root(self) -> set[str]:
        """Names of the members without the folder of any name in which torch puts them all."""
        return {name.partition("/")[2] for name in self.members}


@dataclass(frozen=True)
class Format:
    """One format of policy files."""

    kind: FileKind  # its name in the code
    name: str  # as messages call it
    # Whether a file is of this format; formats are asked in the order of the table.
    recognises: Callable[[FileStart], bool]
    # Path, what the user says, the task, and a module to load weights into, to a policy on the CPU.
    load: Callable[[Path, Reading, Task | None, nn.Module | None], LoadedPolicy]
    # What may be said of its files beside task, outputs and behaviour; `outputs` stands among them where the files do
    # not say their outputs themselves. Other words are refused rather than ignored.
    words: frozenset[str] = frozenset()
    # Whether the files say what they were trained on: another task is then no error until they play it.
    says_task: bool = False


def program_policy(program: Program, task: Task | None, reading: Reading) -> ProgramPolicy:
    """Return a program as a policy that is read as its user says; raises as `ProgramPolicy.create`."""
    behaviour = reading.behaviour or "greedy"
    return ProgramPolicy.create(
        program, task, outputs=reading.outputs, behaviour=behaviour, input_scale=reading.input_scale
    )
