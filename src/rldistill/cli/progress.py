"""Events as people see them: a live bar in a terminal, a line now and then in a log."""

import contextlib
import sys
import time
from collections.abc import Generator
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from rldistill.errors import printable
from rldistill.events import Callback, Event, MessageEvent
from rldistill.runs.interrupt import stop_on_interrupt

_SECONDS_BETWEEN_LOG_LINES = 15.0
# A reproduction has more phases than a terminal has lines: of those that are finished the newest stay.
_NUM_FINISHED_BARS = 8
_MOST_PHASE = 80


@contextlib.contextmanager
def callbacks(*, quiet: bool) -> Generator[list[Callback]]:
    """Give the callbacks of a command: what shows progress, and what Ctrl-C stops between two phases."""
    with ProgressDisplay(quiet=quiet) as display, stop_on_interrupt([display]) as listeners:
        yield listeners


class ProgressDisplay:
    """A callback that shows events on stderr.

    Args:
        quiet: show nothing but warnings.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False)
        self._is_live = self._console.is_terminal and not quiet
        self._bars = Progress(
            TextColumn("{task.description:<9}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
            console=self._console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._shown_at: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, MessageEvent):
            if not self._quiet or event.level == "warning":
                style = "yellow" if event.level == "warning" else None
                prefix = "warning: " if event.level == "warning" else ""
                self._console.print(f"{prefix}{printable(event.text)}", style=style, markup=False, soft_wrap=True)
            return
        phase = printable(event.phase, _MOST_PHASE)
        metrics = "  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in event.metrics.items())
        if self._is_live:
            if event.phase not in self._tasks:
                self._tasks[event.phase] = self._bars.add_task(phase, total=event.total, unit=event.unit, metrics="")
            self._bars.update(self._tasks[event.phase], completed=event.done, total=event.total, metrics=metrics)
            finished = [task for task in self._bars.tasks if task.finished and task.visible]
            for task in finished[:-_NUM_FINISHED_BARS]:
                self._bars.update(task.id, visible=False)
        elif not self._quiet and self._is_due(event.phase, event.done >= event.total):
            sys.stderr.write(f"{phase} {event.done:,}/{event.total:,} {event.unit}  {metrics}\n")
            sys.stderr.flush()

    def _is_due(self, phase: str, is_last: bool) -> bool:
        now = time.monotonic()
        due = is_last or now - self._shown_at.get(phase, 0.0) >= _SECONDS_BETWEEN_LOG_LINES
        if due:
            self._shown_at[phase] = now
        return due

    def __enter__(self) -> "ProgressDisplay":
        """Start the live display where there is a terminal."""
        if self._is_live:
            self._bars.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Leave the last state on the screen."""
        if self._is_live:
            self._bars.stop()
