"""On which windows a student that remembers is trained."""

from rldistill.errors import UsageError
from rldistill.networks import Architecture, parse_architecture
from rldistill.options.distill import AUTO, DistillOptions
from rldistill.verbs.initial_student import MODULE_PREFIX, student_name

_DEFAULT_WINDOW = 32


def window_of(options: DistillOptions) -> tuple[int, int]:
    """Return the length of the windows that a student is trained on, and the steps before them that it burns in.

    Raises:
        UsageError: they are said of a student that remembers nothing.
    """
    network = memory_of(options)
    if network is None:
        said = [name for name in ("window", "burn_in") if getattr(options, name) is not None]
        if said:
            raise UsageError(
                f"{said[0]} belongs with a student that remembers, such as gru:16 or stack:4+mlp:32, got "
                f"{student_name(options.student)}. Leave it out."
            )
        return 1, 0
    # What is stacked is a few steps old: these come before each window, and nothing older matters.
    least = max(network.stack - 1, 0)
    window = options.window or (1 if network.stack else _DEFAULT_WINDOW)
    return window, max(options.burn_in or 0, least)


def memory_of(options: DistillOptions) -> Architecture | None:
    """Return the network of a student that remembers; None: it does not, or follows from the data."""
    student = student_name(options.student)
    if student == AUTO or student.startswith(MODULE_PREFIX):
        return None
    network = parse_architecture(student)
    return network if network.remembers else None
