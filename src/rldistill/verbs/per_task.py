"""Settings that may differ between tasks: `0.01` for all, or `atari:pong=0.01,atari:qbert=0.1`."""

from collections.abc import Mapping, Sequence

from rldistill.errors import MismatchError, UsageError
from rldistill.tasks import ATARI_PREFIX


def per_task_text(value: float | str | Mapping[str, float | str] | None) -> str | None:
    """Return a value given in Python, one for all or one by task, as a configuration keeps it."""
    if isinstance(value, Mapping):
        return ",".join(f"{task}={single}" for task, single in value.items())
    return None if value is None else str(value)


def parse_per_task(text: str | None, name: str) -> dict[str, str]:
    """Return values by task; one for all stands under the empty name.

    Args:
        text: as on the command line, None for nothing at all.
        name: of the option, for error messages.

    Raises:
        UsageError: a part without a task, or a task named twice.
    """
    if text is None:
        return {}
    if "=" not in text:
        return {"": text}
    values: dict[str, str] = {}
    for part in text.split(","):
        task, equals, value = (piece.strip() for piece in part.partition("="))
        if not (equals and task and value):
            raise UsageError(f"{name}: got {part!r} in {text!r}, expected TASK=VALUE pairs such as atari:pong=0.01.")
        if task in values:
            raise UsageError(f"{name}: task {task!r} occurs twice in {text!r}.")
        values[task] = value
    return values


def value_for(values: Mapping[str, str], task: str) -> str | None:
    """Return a task's own value, else the one for all, else None; `pong` stands for `atari:pong`."""
    return values.get(task, values.get(task.removeprefix(ATARI_PREFIX), values.get("")))


def check_tasks(values: Mapping[str, str], tasks: Sequence[str], name: str) -> None:
    """Check that every task that has a value of its own takes part.

    Raises:
        MismatchError: names the first that does not, and lists those that do.
    """
    for task in tasks:
        short = task.removeprefix(ATARI_PREFIX)
        if short != task and short in values and task in values:
            raise MismatchError(f"{name}: got values for {short!r} and for {task!r}, which are the same task.")
    known = {*tasks, *(task.removeprefix(ATARI_PREFIX) for task in tasks), ""}
    for task in values:
        if task not in known:
            raise MismatchError(f"{name}: got a value for task {task!r}, this run has {', '.join(tasks)}.")
