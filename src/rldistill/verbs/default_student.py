"""The student of a run that names none: it fits the observation and is smaller than its teachers.

A fixed rule, never a timing: the first network of a list that has at most half the parameters of its teachers.
"""

from collections.abc import Sequence
from pathlib import Path

from rldistill.errors import MismatchError, UsageError
from rldistill.networks import parse_architecture
from rldistill.options.distill import AUTO, DistillOptions
from rldistill.policies import load_policy
from rldistill.verbs.initial_student import new_student
from rldistill.verbs.sizes import gets_cells, kind_of_sight
from rldistill.verbs.student_task import StudentTask

# A teacher that remembers tells a student without a memory things that it cannot know: on CartPole without velocities
# `gru:16` has its teacher's 206 points, `mlp:32x32` 44.
_GRUS = ("gru:64", "gru:32", "gru:16", "gru:8", "gru:4")
_MLPS = ("mlp:64x64", "mlp:32x32", "mlp:16x16", "mlp:8x8", "mlp:4x4", "mlp:2")
_CONVS = ("net3", "conv:8-8-8:32", "conv:4-4-4:16")
_COMBINED = ("combined:16-16-16:64:64", "combined:8-8-8:32:32", "combined:4-4-4:16:16")
# Half the hidden widths of what most people train on vectors.
_MLP_OF_UNKNOWN_TEACHER = "mlp:32x32"


def choose_student(
    name: str, options: DistillOptions, tasks: Sequence[StudentTask], teacher_sizes: Sequence[int | None]
) -> tuple[str, str | None]:
    """Return the name of the student's network, and a line that says why where it was chosen here.

    Args:
        name: that the options say.
        options: of the run.
        tasks: that are taught.
        teacher_sizes: parameters of each teacher, None where nobody knows.
    """
    if name != AUTO:
        return name, None
    known = [size for size in teacher_sizes if isinstance(size, int)]
    teachers = sum(known) if len(known) == len(teacher_sizes) else None
    sizes = sizes_that_fit(_defaults_for(tasks[0]), options, tasks)
    whose = "its teacher's" if len(teacher_sizes) == 1 else "its teachers'"
    if teachers is None:
        name = _MLP_OF_UNKNOWN_TEACHER if next(iter(sizes)) == _MLPS[0] else next(iter(sizes))
        why = f"; nothing records {whose} size"
    elif small := [name for name, size in sizes.items() if 2 * size <= teachers]:
        name, why = small[0], f", at most half of {whose} {teachers:,}"
    else:
        name = min(sizes, key=lambda name: sizes[name])
        whom = "the teacher" if len(teacher_sizes) == 1 else "the teachers"
        why = f", the smallest default network; none is half the size of {whom} ({teachers:,} parameters)"
    return name, f"student: {name}, {sizes[name]:,} parameters{why}. --student names another."


def network_of_file(path: str | Path) -> str | None:
    """Return the name by which a policy file's network can be made again; None where there is none."""
    architecture = load_policy(path).spec.architecture
    try:
        return None if architecture is None else parse_architecture(architecture.name).name
    except UsageError:
        return None


def _defaults_for(task: StudentTask) -> Sequence[str]:
    """Return the networks among which one is chosen for what is seen of a task, largest of each kind first."""
    if gets_cells(task.seen, remembers=task.remembers):
        return _GRUS
    return {"vectors": _MLPS, "images": (*_CONVS, *_MLPS), "parts": (*_COMBINED, *_MLPS)}[kind_of_sight(task.seen)]


def sizes_that_fit(names: Sequence[str], options: DistillOptions, tasks: Sequence[StudentTask]) -> dict[str, int]:
    """Return the networks that can see the observations, in the order of their names, with their parameters.

    Raises:
        MismatchError: none can.
    """
    sizes: dict[str, int] = {}
    refused: MismatchError | None = None
    for name in names:
        try:
            sizes[name] = new_student(options, name, tasks).num_parameters
        except MismatchError as error:
            refused = error  # images too small for its kernels
    if refused is not None and not sizes:
        raise refused
    return sizes
