"""What people see while a command works."""

import io

import pytest

from rldistill.cli import progress
from rldistill.cli.progress import ProgressDisplay
from rldistill.events import MessageEvent, ProgressEvent


def step(done: int, phase: str = "collect", **metrics: float) -> ProgressEvent:
    return ProgressEvent(phase, done, 100, "steps", metrics)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def show(capsys, *events, quiet: bool = False) -> str:
    with ProgressDisplay(quiet=quiet) as display:
        for event in events:
            display(event)
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_a_log_gets_the_first_and_the_last_event_and_one_in_fifteen_seconds(capsys, clock):
    with ProgressDisplay(quiet=False) as display:
        for done in range(1, 101):
            clock[0] += 1.0
            display(step(done, steps_per_second=1234.5678))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "collect 1/100 steps  steps per second 1235"
    assert [int(line.split()[1].split("/")[0]) for line in lines] == [1, 16, 31, 46, 61, 76, 91, 100]


def test_phases_have_their_own_time(capsys, clock):
    lines = show(capsys, step(1), step(2), step(1, "distill"), step(2, "distill")).splitlines()
    assert [line.split("/")[0] for line in lines] == ["collect 1", "distill 1"]


def test_messages_are_shown_as_they_are_and_warnings_are_called_so(capsys):
    text = "a [bold] path/that/is/longer/than/eighty/columns/" + "x" * 100
    assert show(capsys, MessageEvent(text), MessageEvent("it has learned nothing yet", "warning")) == (
        f"{text}\nwarning: it has learned nothing yet\n"
    )


def test_quiet_shows_warnings_only(capsys, clock):
    events = [step(1), MessageEvent("going on"), MessageEvent("look out", "warning"), step(100)]
    assert show(capsys, *events, quiet=True) == "warning: look out\n"


def test_a_terminal_gets_one_bar_a_phase(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    with ProgressDisplay(quiet=False) as display:
        for done in (1, 50, 100):
            display(step(done, loss=0.25))
        display(step(100, "distill"))
    screen = terminal.getvalue()
    assert "100/100" in screen
    assert "loss 0.25" in screen
    assert "collect" in screen and "distill" in screen


def test_lines_of_a_log_have_no_blanks_at_their_end(capsys, clock):
    assert show(capsys, step(100)) == "collect 100/100 steps\n"


def test_an_interrupted_bar_is_not_left_behind(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    with pytest.raises(KeyboardInterrupt), ProgressDisplay(quiet=False) as display:
        display(step(100, "done"))
        display(step(50, "dead"))
        terminal.truncate(0)
        raise KeyboardInterrupt
    assert "done" in terminal.getvalue() and "dead" not in terminal.getvalue()
