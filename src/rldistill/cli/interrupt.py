"""Ctrl-C: the first asks a run to stop at its next step, the second stops it at once."""

import contextlib
import signal
from collections.abc import Generator
from types import FrameType

from rldistill.events import Event


class StopOnInterrupt:
    """A callback that asks the run to stop once a signal has come."""

    def __init__(self) -> None:
        self._asked = False

    def __call__(self, _event: Event) -> bool:
        """Return whether the run is to stop."""
        return self._asked

    @contextlib.contextmanager
    def listening(self) -> Generator[None]:
        """Take SIGINT and SIGTERM (a scheduler's Ctrl-C) while a run works."""

        def ask(_signal: int, _frame: FrameType | None) -> None:
            if self._asked:
                raise KeyboardInterrupt
            self._asked = True

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
            if self._asked:
                # It came where nothing was reported any more: in the last moments of a run.
                raise KeyboardInterrupt
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
