"""Values that may differ between tasks: one for all, or a mapping by task, in which `pong` stands for `atari:pong`."""

from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

from rldistill.errors import MismatchError
from rldistill.tasks import ATARI_PREFIX

Value = TypeVar("Value")


def value_for(values: Value | Mapping[str, Value] | None, task: str) -> Value | None:
    """Return a task's own value, or the one for all; None where there is none."""
    if not isinstance(values, Mapping):
        return values
    by_task = cast(Mapping[str, Value], values)
    return by_task.get(task, by_task.get(task.removeprefix(ATARI_PREFIX)))


def check_tasks(values: object, tasks: Sequence[str], name: str) -> None:
    """Check that every task that has a value of its own takes part.

    Raises:
        MismatchError: names the first that does not, and lists those that do.
    """
    if not isinstance(values, Mapping):
        return
    named = cast(Mapping[str, object], values)
    for task in tasks:
        short = task.removeprefix(ATARI_PREFIX)
        if short != task and short in named and task in named:
            raise MismatchError(f"{name}: got values for {short!r} and for {task!r}, which are the same task.")
    known = {*tasks, *(task.removeprefix(ATARI_PREFIX) for task in tasks)}
    for task in named:
        if task not in known:
            raise MismatchError(f"{name}: got a value for task {task!r}, this run has {', '.join(tasks)}.")


def shortest(values: Mapping[str, Value], num_tasks: int) -> Value | dict[str, Value]:
    """Return values by task as a record keeps them: one where all tasks have the same."""
    different = [*values.values()]
    is_one = len(values) == num_tasks and all(value == different[0] for value in different)
    return different[0] if is_one else dict(values)
