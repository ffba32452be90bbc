"""On which windows a student that remembers is trained."""

from rldistill.errors import UsageError
from rldistill.networks import Architecture, parse_architecture
from rldistill.options.distill import AUTO, DistillOptions
from rldistill.tasks import Task
from rldistill.verbs.initial_student import MODULE_PREFIX, student_name
from rldistill.verbs.sizes import gets_cells


def window_of(options: DistillOptions) -> tuple[int, int]:
    """Return the length of the windows that a student is trained on, and the steps before them that it burns in.

    Raises:
        UsageError: they are said of a student that remembers nothing.
    """
    if student_name(options.student) == AUTO:
        return options.window or 1, options.burn_in or 0
    network = memory_of(options)
    if network is None:
        refuse_window(options)
        return 1, 0
    # What is stacked is a few steps old: these come before each window, and nothing older matters.
    least = max(network.stack - 1, 0)
    return options.window or 1, max(options.burn_in or 0, least)


def refuse_window(options: DistillOptions) -> None:
    """Refuse what is said of windows, for a student that remembers nothing.

    Raises:
        UsageError: something is said.
    """
    said = [name for name in ("window", "burn_in") if getattr(options, name) is not None]
    if said:
        raise UsageError(
            f"{said[0]} belongs with a student that remembers, such as gru:16 or stack:4+mlp:32, got "
            f"{student_name(options.student)}. Leave it out."
        )


def memory_of(options: DistillOptions) -> Architecture | None:
    """Return the network of a student that remembers; None: it does not, or follows from the data."""
    student = student_name(options.student)
    if student == AUTO or student.startswith(MODULE_PREFIX):
        return None
    network = parse_architecture(student)
    return network if network.remembers else None


def has_cells(options: DistillOptions, task: Task, *, teacher_remembers: bool) -> bool:
    """Return whether the student has cells that remember, also where it is chosen later.

    Args:
        options: of the distillation.
        task: the first that is taught, as the student sees it.
        teacher_remembers: whether its teacher does; the student that is chosen for it does likewise.

    Raises:
        UsageError: something is said of windows, and the student that is chosen needs none.
    """
    if student_name(options.student) != AUTO:
        network = memory_of(options)
        return network is not None and network.memory is not None
    found = gets_cells(task.fingerprint, remembers=teacher_remembers)
    if not found:
        refuse_window(options)
    return found
