"""Commands as users call them: in this process, to be quick, or in a process of their own, to be killed.

A process of its own is forked from a server that has imported everything: it begins to work after some 20 ms instead
of torch's two seconds, and is otherwise what `rldistill …` is, with its own signals, exit code and output.
"""

import atexit
import contextlib
import ctypes
import functools
import importlib
import io
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from rldistill.events import Callback, Event, ProgressEvent

REPOSITORY = Path(__file__).resolve().parents[2]
_SECONDS_TO_WAIT = 60.0


@dataclass(frozen=True)
class Result:
    """How a command ended and what it said."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one JSON object on stdout."""
        assert self.stdout.endswith("\n") and self.stdout.count("\n") == 1, f"not one line on stdout: {self.stdout!r}"
        return json.loads(self.stdout)

    @property
    def line(self) -> str:
        """The one line on stderr."""
        assert self.stderr.endswith("\n") and self.stderr.count("\n") == 1, f"not one line on stderr: {self.stderr!r}"
        return self.stderr.removesuffix("\n")


def run(*argv: object) -> Result:
    """Run one command in this process."""
    from rldistill.cli.main import main

    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            main([str(argument) for argument in argv])
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return Result(code, stdout.getvalue(), stderr.getvalue())


def run_well(*argv: object) -> Result:
    """Run one command in this process that must succeed."""
    result = run(*argv)
    assert result.code == 0, f"rldistill {shlex.join(map(str, argv))} ended with {result.code}: {result.stderr}"
    return result


class Command:
    """A command at work in a process of its own; made by `start`."""

    def __init__(self, pid: int, stdout: Path, stderr: Path) -> None:
        self.pid = pid
        self._stdout = stdout
        self._stderr = stderr

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        """What it has said so far."""
        return self._stderr.read_text()

    def kill(self) -> None:
        """End it at once, as the system does when memory runs out."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def interrupt(self, number: int = signal.SIGINT) -> Result:
        """Press Ctrl-C (or send another signal) and wait."""
        os.kill(self.pid, number)
        return self.wait()

    def wait(self) -> Result:
        """Wait for its end; killed by signal n it gives −n."""
        code = _server().ask({"wait": self.pid})
        return Result(code, self.stdout, self.stderr)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true; it is an error if that takes a minute or the command ends before."""
        deadline = time.monotonic() + _SECONDS_TO_WAIT
        while not condition():
            assert time.monotonic() < deadline, "waited for a minute"
            assert not self._has_ended() or condition(), f"ended: {self.stderr}"
            time.sleep(0.002)

    def _has_ended(self) -> bool:
        # Not yet waited for: until then the system keeps its entry. The name, in brackets, may hold blanks.
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def start(*argv: object, prepare: str | None = None, max_file_bytes: int | None = None) -> Command:
    """Start one command in a process of its own.

    Args:
        *argv: what follows `rldistill`.
        prepare: `module:function` to be called in that process first.
        max_file_bytes: how large a file it may write: a full disk, for one process.
    """
    return _fork([str(argument) for argument in argv], prepare=prepare, max_file_bytes=max_file_bytes)


def _fork(argv: list[str] | None, *, prepare: str | None, max_file_bytes: int | None) -> Command:
    folder = Path(tempfile.mkdtemp(dir=_server().folder))
    for name in ("stdout", "stderr"):
        (folder / name).touch()  # a kill may come before the process has opened them
    request = {
        "argv": argv,
        "cwd": os.getcwd(),
        "stdout": str(folder / "stdout"),
        "stderr": str(folder / "stderr"),
        "prepare": prepare,
        "max_file_bytes": max_file_bytes,
    }
    return Command(_server().ask(request), folder / "stdout", folder / "stderr")


def start_function(name: str) -> Command:
    """Start a function `module:name` in a process of its own; it exits with 0 or, after a traceback, with 1."""
    return _fork(None, prepare=name, max_file_bytes=None)


def run_alone(*argv: object, prepare: str | None = None, max_file_bytes: int | None = None) -> Result:
    """Run one command in a process of its own."""
    return start(*argv, prepare=prepare, max_file_bytes=max_file_bytes).wait()


def write_small_shards() -> None:
    """For `prepare`: datasets get a shard every 100 steps, so that a kill has something to come between."""
    from rldistill.data import DatasetWriter

    for method in (DatasetWriter.create, DatasetWriter.resume):
        method.__func__.__kwdefaults__["steps_per_shard"] = 100


def collect_a_little() -> None:
    """For `prepare`: small shards, at most 5,400 steps a second, and after 400 steps it waits to be stopped."""
    from rldistill.verbs import collect

    write_small_shards()
    first: list[int] = []

    def is_enough(event: ProgressEvent) -> bool:
        first[:] = first or [event.done]
        return event.done >= first[0] + 400

    report_slowly(collect, seconds=0.003, until=is_enough)


def distill_almost_to_the_end() -> None:
    """For `prepare`: at most 500 updates a second, and ten updates before the end it waits to be stopped."""
    from rldistill.verbs import distillation_run

    report_slowly(distillation_run, seconds=0.002, until=lambda event: event.done >= event.total - 10)


def evaluate_one_episode() -> None:
    """For `prepare`: once an episode has ended, it waits to be stopped."""
    from rldistill.evaluation import play

    report_slowly(play, seconds=0.002, until=lambda event: event.done > 0)


def print_in_environments() -> None:
    """For `prepare`: CartPole prints when an episode begins, from Python, from C and to the file itself."""
    from gymnasium.envs.classic_control import CartPoleEnv

    reset = CartPoleEnv.reset

    def reset_loudly(self: CartPoleEnv, **options: Any) -> Any:
        print("from Python")
        os.write(1, b"to the file\n")
        ctypes.CDLL(None).puts(b"from C")
        return reset(self, **options)

    CartPoleEnv.reset = reset_loudly


def report_slowly(module: ModuleType, *, seconds: float, until: Callable[[ProgressEvent], bool]) -> None:
    """Let a run take its time over each report of progress, and go no further once it has come far enough.

    However slow the machine, whoever means to stop the run comes in time.
    """
    notify = module.notify

    def notify_slowly(callbacks: Sequence[Callback], event: Event) -> None:
        notify(callbacks, event)
        if isinstance(event, ProgressEvent):
            time.sleep(seconds)
            while until(event):
                time.sleep(seconds)
                notify(callbacks, event)  # Ctrl-C is heard here

    module.notify = notify_slowly


class _Server:
    """The process that others are forked from; one request and one answer a line."""

    def __init__(self) -> None:
        self._scratch = tempfile.TemporaryDirectory()
        self.folder = Path(self._scratch.name)
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", "from tests.kit.commands import _serve; _serve()"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self._close)

    def ask(self, request: dict[str, Any]) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def _close(self) -> None:
        self._process.communicate()
        self._scratch.cleanup()


@functools.cache
def _server() -> _Server:
    return _Server()


def _serve() -> None:
    for verb in ("collect", "distill", "evaluate", "train_teacher"):
        importlib.import_module(f"rldistill.cli.{verb}")
        importlib.import_module(f"rldistill.verbs.{verb}")
    for module in ("cli.progress", "evaluation.table"):
        importlib.import_module(f"rldistill.{module}")
    _warm_up()
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = os.fork()
            if not answer:
                _work(request)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def _warm_up() -> None:
    """Let torch import what it needs for a first optimiser step."""
    import torch

    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW([weight], fused=True)
    weight.sum().backward()
    optimizer.step()


def _work(request: dict[str, Any]) -> None:
    """Be one command to the end."""
    from rldistill.cli.main import main

    code = 1
    try:
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(request["cwd"])
        # A shell that started the tests in the background has had SIGINT ignored, which a child inherits.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if request["prepare"]:
            module, _, function = request["prepare"].partition(":")
            getattr(importlib.import_module(module), function)()
        if request["max_file_bytes"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["max_file_bytes"], resource.RLIM_INFINITY))
        if request["argv"] is None:
            code = 0
        else:
            main(request["argv"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def options(**values: object) -> Sequence[str]:
    """Return `--name value` for every keyword."""
    return [text for name, value in values.items() for text in (f"--{name.replace('_', '-')}", str(value))]
