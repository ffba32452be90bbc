"""Events as people see them: a live bar in a terminal, a line now and then in a log or a notebook."""

import atexit
import contextlib
import math
import sys
import time
from collections.abc import Generator
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from rldistill.errors import printable, shortened
from rldistill.events import Callback, Event, MessageEvent, ProgressEvent
from rldistill.session.interrupts import stop_on_interrupt

_SECONDS_BETWEEN_LOG_LINES = 15.0
# A reproduction has more phases than a terminal has lines: of those that are finished the newest stay.
_NUM_FINISHED_BARS = 8
_BAR_WIDTH, _NARROW_BAR_WIDTH, _NARROW = 24, 12, 120
_TIME_WIDTH = len("0:00:00")


@contextlib.contextmanager
def callbacks(*, quiet: bool) -> Generator[list[Callback]]:
    """Give the callbacks of a command: what shows progress, and what Ctrl-C stops between two phases."""
    with ProgressBar(quiet=quiet) as display, stop_on_interrupt([display]) as listeners:
        yield listeners


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Say nothing any more; rich would end the process."""
        self.quiet = True


class ProgressBar:
    """A callback that shows how far a run is, on stderr: `distill(…, callbacks=[ProgressBar()])`.

    In a terminal there is a bar for each phase, elsewhere (logs, notebooks) a line every 15 seconds.

    Args:
        quiet: show nothing but warnings.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = _Console(stderr=True, highlight=False)
        self._is_live = self._console.is_terminal and not quiet
        self._keeps_open = False
        self._bar_width = _BAR_WIDTH if self._console.width >= _NARROW else _NARROW_BAR_WIDTH
        self._bars = self._make_bars()
        self._tasks: dict[str, TaskID] = {}
        self._shown_at: dict[str, float] = {}
        self._unfinished: set[str] = set()  # phases of which a line is written, but not the last

    def _make_bars(self) -> Progress:
        return Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=self._bar_width),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}", markup=False),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}", markup=False, table_column=Column(no_wrap=True)),
            console=self._console,
        )

    def __call__(self, event: Event) -> None:
        """Show one event; where nothing can be shown any more, the run goes on."""
        with contextlib.suppress(OSError):  # the reader left, or the disk behind the log is full
            self._show(event)

    def _show(self, event: Event) -> None:
        if isinstance(event, MessageEvent):
            self._say(event)
        elif self._is_live:
            self._draw(event)
        elif not self._quiet and self._is_due(event.phase, event.done >= event.total):
            count = f"{printable(event.phase)} {event.done:,}/{event.total:,} {event.unit}"
            sys.stderr.write("  ".join([count, *_metrics(event)]) + "\n")
            sys.stderr.flush()

    def _say(self, event: MessageEvent) -> None:
        if self._quiet and event.level != "warning":
            return
        style = "yellow" if event.level == "warning" else None
        prefix = "warning: " if event.level == "warning" else ""
        self._console.print(
            f"{prefix}{printable(event.text)}", style=style, markup=False, soft_wrap=not self._console.is_terminal
        )

    def _draw(self, event: ProgressEvent) -> None:
        self._open()
        if event.phase not in self._tasks:
            self._tasks[event.phase] = self._bars.add_task("", phase=event.phase, unit=event.unit, metrics="", all=[])
        self._bars.update(
            self._tasks[event.phase], total=event.total, completed=event.done, all=_metrics(event), metrics=""
        )
        finished = [task for task in self._bars.tasks if task.finished and task.visible]
        for task in finished[:-_NUM_FINISHED_BARS]:
            self._bars.update(task.id, visible=False)
        self._fit()
        if not self._keeps_open and all(task.finished for task in self._bars.tasks):
            self._close()

    def _fit(self) -> None:
        """Share out the columns that bar, count, unit and time leave: to the names first, then to the metrics."""
        shown = [task for task in self._bars.tasks if task.visible]
        count = max(2 * len(f"{task.total or 0:.0f}") + 1 for task in shown)
        unit = max(len(str(task.fields["unit"])) for task in shown)
        # A blank stands after each column.
        room = self._console.width - self._bar_width - count - unit - _TIME_WIDTH - 6
        names = [shortened(printable(str(task.fields["phase"])), room) for task in shown]
        room -= max(map(len, names))
        for task, name in zip(shown, names, strict=True):
            self._bars.update(task.id, description=name, metrics=_fitting(task.fields["all"], room))

    def _is_due(self, phase: str, is_last: bool) -> bool:
        """Return whether a line is written; the last of a phase is, if one before it was: short ones come by often."""
        now = time.monotonic()
        waited = now - self._shown_at.get(phase, -math.inf) >= _SECONDS_BETWEEN_LOG_LINES
        due = waited or (is_last and phase in self._unfinished)
        if due:
            self._shown_at[phase] = now
            self._unfinished.add(phase)
        if is_last:
            self._unfinished.discard(phase)
        return due

    def _open(self) -> None:
        if not self._bars.live.is_started:
            self._bars.start()
            # A script that is stopped must not leave the terminal without its cursor.
            atexit.register(self._bars.stop)

    def _close(self) -> None:
        """Leave the bars on the screen; the next phase begins new ones."""
        self._bars.stop()
        atexit.unregister(self._bars.stop)
        self._bars = self._make_bars()
        self._tasks = {}

    def __enter__(self) -> "ProgressBar":
        """Keep the bars together until the end of the block, whatever lies between two phases."""
        self._keeps_open = True
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Leave the last state on the screen; of what was interrupted nothing, its message says how far it was."""
        self._keeps_open = False
        if self._bars.live.is_started:
            if _type is not None and issubclass(_type, KeyboardInterrupt):
                for task in self._bars.tasks:
                    self._bars.update(task.id, visible=task.finished and task.visible)
            self._close()


def _metrics(event: ProgressEvent) -> list[str]:
    return [printable(f"{name.replace('_', ' ')} {value:.4g}") for name, value in event.metrics.items()]


def _fitting(metrics: list[str], room: int) -> str:
    """Return as many metrics as there is room for; half a number would be another number."""
    text = ""
    for metric in metrics:
        longer = f"{text}  {metric}" if text else metric
        if len(longer) > room:
            break
        text = longer
    return text
