"""Ctrl-C: the first asks a run to stop at its next step and save, the second stops it at once."""

import contextlib
import signal
import threading
from collections.abc import Generator, Sequence
from types import FrameType

from rldistill.events import Callback, Event

# What Python does with a signal unless somebody wanted something else. SIGTERM is a scheduler's Ctrl-C.
_DEFAULTS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


class _StopWhenAsked:
    """A callback that asks the run to stop once a signal has come, and that signal's handler."""

    def __init__(self) -> None:
        self.is_asked = False

    def __call__(self, _event: Event) -> bool:
        """Return whether the run is to stop."""
        return self.is_asked

    def handle(self, _signal: int, _frame: FrameType | None) -> None:
        """Take a signal."""
        if self.is_asked:
            raise KeyboardInterrupt
        self.is_asked = True


@contextlib.contextmanager
def stop_on_interrupt(callbacks: Sequence[Callback]) -> Generator[list[Callback]]:
    """Give a run's callbacks and one more, which stops it after SIGINT or SIGTERM; handlers are put back at the end.

    Python takes signals in its main thread only, so elsewhere nothing is changed; nor is a signal taken that the
    caller handles or ignores. A run within another hears what the outer one hears.

    Raises:
        KeyboardInterrupt: a second signal came, or the first where the run reported nothing any more.
    """
    if threading.current_thread() is not threading.main_thread():
        yield list(callbacks)
        return
    handlers = {number: signal.getsignal(number) for number in _DEFAULTS}
    outer = [getattr(handler, "__self__", None) for handler in handlers.values()]
    stop = next((owner for owner in outer if isinstance(owner, _StopWhenAsked)), None) or _StopWhenAsked()
    taken = [number for number, handler in handlers.items() if handler == _DEFAULTS[number]]
    try:
        for number in taken:
            signal.signal(number, stop.handle)
        yield [*callbacks, stop]
        if stop.is_asked:
            # It came in the last moments of a run, which is complete; what was to follow is not wanted.
            raise KeyboardInterrupt
    finally:
        for number in taken:
            signal.signal(number, _DEFAULTS[number])


def interruption(text: str) -> KeyboardInterrupt:
    """Return what ends a run that was stopped and can go on; it says how far the run came."""
    return KeyboardInterrupt(f"{text}. Go on with --resume.")
