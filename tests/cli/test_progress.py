"""What people see while a command works."""

import io
import re
from collections.abc import Callable

import pytest

import rldistill
from rldistill.cli import progress
from rldistill.cli.progress import ProgressBar
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
    with ProgressBar(quiet=quiet) as display:
        for event in events:
            display(event)
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_a_log_gets_the_first_and_the_last_event_and_one_in_fifteen_seconds(capsys, clock):
    with ProgressBar(quiet=False) as display:
        for done in range(1, 101):
            clock[0] += 1.0
            display(step(done, steps_per_second=1234.5678))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "collect 1/100 steps  steps per second 1235"
    assert [int(line.split()[1].split("/")[0]) for line in lines] == [1, 16, 31, 46, 61, 76, 91, 100]


def test_a_short_phase_that_comes_again_and_again_gets_a_line_in_fifteen_seconds(capsys, clock):
    lines = show(capsys, step(1), step(100), step(1), step(100)).splitlines()
    assert [line.split("/")[0] for line in lines] == ["collect 1", "collect 100"]


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


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of any width; a call gives the lines that it showed last."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def of_width(columns: int) -> Callable[[], list[str]]:
        stream = Terminal()
        monkeypatch.setattr("sys.stderr", stream)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", str(columns))
        return lambda: re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).replace("\r", "\n").splitlines()

    return of_width


def test_a_terminal_gets_one_bar_a_phase(terminal):
    lines = terminal(120)
    with ProgressBar() as display:
        for done in (1, 50, 100):
            display(step(done, loss=0.25))
        display(step(100, "distill"))
    *_, first, second = [line for line in lines() if line.strip()]
    assert first.split()[0::2] == ["collect", "100/100", "0:00:00", "0.25"]
    assert second.split()[0] == "distill"


METRICS = {"loss": 0.002483, "updates_per_second": 359.2, "held_out_agreement": 0.8612}


@pytest.mark.parametrize(
    ("columns", "metrics"),
    [
        (200, "loss 0.002483  updates per second 359.2  held out agreement 0.8612"),
        (100, "loss 0.002483  updates per second 359.2"),
        (80, "loss 0.002483"),
        (60, ""),
    ],
)
def test_a_narrow_terminal_loses_metrics_first_and_never_half_a_number(terminal, columns, metrics):
    lines = terminal(columns)
    with ProgressBar() as display:
        display(ProgressEvent("distill", 12, 12_000, "updates", METRICS))
        display(ProgressEvent("distill", 12_000, 12_000, "updates", METRICS))
    shown = [line for line in lines() if line.strip()]
    assert max(map(len, shown)) <= columns
    last = shown[-1].rstrip()
    assert "12000/12000 updates 0:00:00" in last
    assert "━━━━━━━━━━━━" in last
    assert last.endswith(f"0:00:00 {metrics}".rstrip())


@pytest.mark.parametrize("columns", [80, 60])
def test_a_long_name_is_cut_in_the_middle_and_the_count_stays(terminal, columns):
    lines = terminal(columns)
    with ProgressBar() as display:
        phase = "evaluate a-run-folder-of-a-long-name on LunarLander-v3"
        display(ProgressEvent(phase, 30, 30, "episodes"))
        display(ProgressEvent("play LunarLander-v3", 54_000, 54_000, "steps"))
    shown = [line.rstrip() for line in lines() if line.strip()]
    assert max(map(len, shown)) <= columns
    first, second = shown[-2:]
    assert re.match(r"evaluat.*….*-v3 +━━━━━━━━━━━━ ", first)
    assert "30/30 episodes 0:00:00" in " ".join(first.split())
    assert "54000/54000 steps" in " ".join(second.split())


def test_without_a_block_bars_are_closed_when_all_is_done(terminal):
    """As a script or a notebook uses it: nobody says when the last event has come."""
    lines = terminal(80)
    display = ProgressBar()
    for phase in ("collect", "distill"):
        for done in (1, 100):
            display(step(done, phase))
    shown = [line.split()[0] for line in lines() if "100/100" in line]
    assert (shown[0], shown[-1]) == ("collect", "distill")
    display(MessageEvent("done"))
    assert lines()[-1] == "done"


def test_it_is_a_public_callback(capsys):
    assert rldistill.ProgressBar is ProgressBar
    rldistill.ProgressBar()(step(100))
    assert capsys.readouterr().err == "collect 100/100 steps\n"


def test_text_of_a_file_does_not_reach_the_terminal_raw(capsys):
    text = show(capsys, MessageEvent("name \x1b[2J\rend"), step(100, "evaluate \x1b]0;title"))
    assert text == "name \\x1b[2J end\nevaluate \\x1b]0;title 100/100 steps\n"


def test_an_interrupted_bar_is_not_left_behind(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    with pytest.raises(KeyboardInterrupt), ProgressBar() as display:
        display(step(100, "done"))
        display(step(50, "dead"))
        screen.truncate(0)
        raise KeyboardInterrupt
    assert "done" in screen.getvalue() and "dead" not in screen.getvalue()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), BrokenPipeError(32, "Broken pipe")])
@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_run_goes_on_where_nothing_can_be_shown(monkeypatch, error, is_terminal):
    class Unwritable(io.StringIO):
        def isatty(self) -> bool:
            return is_terminal

        def write(self, _text: str) -> int:
            raise error

    monkeypatch.setattr("sys.stderr", Unwritable())
    monkeypatch.setenv("TERM", "xterm-256color")
    display = ProgressBar()
    for event in (MessageEvent("a note"), step(1), step(2), MessageEvent("a warning", "warning")):
        display(event)
