"""What a run tells while it runs: frozen records, given to callbacks.

The library never prints. The command line's progress bar is one callback; a notebook, a test or a tracker is another. A
callback that answers `True` to a `ProgressEvent` asks the run to stop: it saves its state and ends as after Ctrl-C.
Messages only tell; how far a stopped run came stands in its KeyboardInterrupt.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rldistill.errors import UsageError


@dataclass(frozen=True)
class ProgressEvent:
    """How far a phase is.

    Attributes:
        phase: `collect`, `train`, `distill`, `evaluate NAME`.
        done: units done.
        total: units in all.
        unit: what is counted: `steps`, `updates`, `episodes`.
        metrics: figures of the moment, by name.
    """

    phase: str
    done: int
    total: int
    unit: str
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])


Level = Literal["info", "warning"]


@dataclass(frozen=True)
class MessageEvent:
    """One line for people: a choice that was made, or a surprise."""

    text: str
    level: Level = "info"


Event = ProgressEvent | MessageEvent
Callback = Callable[[Event], bool | None]


class StopRequestedError(Exception):
    """A callback asked the run to stop."""


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """Check that callbacks are functions in a list, before a run begins that would call them.

    Raises UsageError: one function without a list, or something that cannot be called.
    """
    if callable(callbacks) or not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        raise UsageError(f"callbacks: got {callbacks!r}, expected a list of functions: callbacks=[f].")
    for callback in callbacks:
        if isinstance(callback, type):
            name = callback.__name__
            raise UsageError(f"callbacks: got the class {name}, expected one of it: callbacks=[{name}()].")


def notify(callbacks: Sequence[Callback], event: Event) -> None:
    """Give an event to every callback.

    Raises:
        StopRequestedError: one of them answered `True` to a `ProgressEvent`.
    """
    answers = [_is_true(callback(event)) for callback in callbacks]
    if isinstance(event, ProgressEvent) and any(answers):
        raise StopRequestedError


def _is_true(answer: object) -> bool:
    """Return whether an answer is True, of whatever library; others, such as what `write` returns, mean nothing."""
    is_scalar = str(getattr(answer, "dtype", "")).endswith("bool") and getattr(answer, "shape", None) == ()
    return answer is True or (is_scalar and bool(answer))


def renamed(callback: Callback, *, phase: str, text: str) -> Callback:
    """Return a callback that hears events by other names: `phase` and `text` have `{}` where the event's own stand."""

    def told(event: Event) -> bool | None:
        if isinstance(event, ProgressEvent):
            return callback(replace(event, phase=phase.replace("{}", event.phase)))
        return callback(replace(event, text=text.replace("{}", event.text)))

    return told


def tell(callbacks: Sequence[Callback], text: str, level: Level = "info") -> None:
    """Give every callback a line for people."""
    notify(callbacks, MessageEvent(text, level))
