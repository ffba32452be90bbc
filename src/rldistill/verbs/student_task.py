"""What a student is, as its options name it, and what it is taught."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from rldistill.adapters.in_process import check_module_state
from rldistill.errors import UsageError
from rldistill.networks import Architecture, InputNormalization, module_name, parse_architecture
from rldistill.options.distill import AUTO, DistillOptions
from rldistill.policies import Behaviour
from rldistill.sight import Sight, shown_to
from rldistill.tasks import ObservationFingerprint, Task
from rldistill.types import OutputKind
from rldistill.verbs.sizes import gets_cells

_MODULE_PREFIX = "module:"


@dataclass(frozen=True)
class StudentTask:
    """A task that is taught."""

    task: Task  # with the layout of its teacher's actions
    samples: bool  # whether the student is to sample its actions
    normalization: InputNormalization | None = None  # of what the student sees, as its teacher has it
    is_measured: bool = False  # whether its source is to measure that
    sight: Sight | None = None  # which parts of the observations the student sees; None: all
    output_kind: OutputKind = "q_values"  # of its head
    remembers: bool = False  # whether its teacher has a memory, as far as is known

    @property
    def seen(self) -> ObservationFingerprint:
        """What the student sees of the task."""
        return shown_to(self.task, self.sight).fingerprint

    @property
    def behaviour(self) -> Behaviour:
        """How its head acts."""
        return "sample" if self.samples else "greedy"


def kinds_of_observation(tasks: Sequence[StudentTask]) -> list[list[StudentTask]]:
    """Return the tasks by what the student sees of them: those of one kind share a stem, or the whole network."""
    kinds: dict[str, list[StudentTask]] = {}
    for task in tasks:
        kinds.setdefault(task.seen.observation_description, []).append(task)
    return list(kinds.values())


@dataclass(frozen=True)
class NamedStudent:
    """A student as its options name it."""

    name: str  # as a configuration has it
    network: Architecture | None  # that the name means; None: it is chosen when the data are known, or a module

    @property
    def remembers(self) -> bool:
        """Whether it is known by its name to remember."""
        return self.network is not None and self.network.remembers

    def has_cells(self, options: DistillOptions, task: Task, *, teacher_remembers: bool) -> bool:
        """Return whether it has cells that remember, also where it is chosen later.

        Args:
            options: of the distillation.
            task: the first that is taught, as the student sees it.
            teacher_remembers: whether its teacher does; the student that is chosen for it does likewise.

        Raises:
            UsageError: something is said of windows, and the student that is chosen needs none.
        """
        if self.name != AUTO:
            return self.network is not None and self.network.memory is not None
        found = gets_cells(task.fingerprint, remembers=teacher_remembers)
        if not found:
            _refuse_window(options, self.name)
        return found

    def with_windows(self, options: DistillOptions) -> DistillOptions:
        """Return options that say on which windows it is trained, if its name says that it remembers."""
        if self.network is None or not self.remembers:
            return options
        # What is stacked is a few steps old: these come before each window, and nothing older matters.
        least = max(self.network.stack - 1, 0)
        return replace(options, window=options.window or 1, burn_in=max(options.burn_in or 0, least))


def named_student(options: DistillOptions) -> NamedStudent:
    """Return what the options name.

    Raises:
        UsageError: an unknown network, no name and no module, or a module with a memory: it is trained on single steps
            and would learn nothing from it; or something is said that this student does not take.
    """
    student = options.student
    if isinstance(student, nn.Module):
        check_module_state(student)
        named = NamedStudent(f"{_MODULE_PREFIX}{module_name(student)}", None)
        if options.init_from is not None:
            raise UsageError("init_from does not go with a module of your own: load its weights before you pass it.")
    elif not isinstance(student, str):  # pyright: ignore[reportUnnecessaryIsInstance] Python lets anything in
        raise UsageError(
            f"student: got {student!r}, expected a network's name such as mlp:64x64, or a torch.nn.Module."
        )
    elif student.startswith(_MODULE_PREFIX):
        raise UsageError(f"student: got {student!r}, a Python module that its name cannot bring back.")
    else:
        named = NamedStudent(student, None if student == AUTO else parse_architecture(student))
    if not (named.remembers or student == AUTO):
        _refuse_window(options, named.name)
    return named


def _refuse_window(options: DistillOptions, name: str) -> None:
    """Refuse what is said of windows, for a student that remembers nothing."""
    said = [option for option in ("window", "burn_in") if getattr(options, option) is not None]
    if said:
        raise UsageError(
            f"{said[0]} belongs with a student that remembers, such as gru:16 or stack:4+mlp:32, got {name}. Leave it "
            "out."
        )
