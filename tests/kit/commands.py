"""Commands as users call them: in this process, to be quick, or in a process of their own, to be killed.

A process of its own is forked from a server that has imported everything: it begins to work after some 20 ms instead
of torch's two seconds, and is otherwise what `rldistill …` is, with its own signals, exit code and output.
"""

import atexit
import contextlib
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
from typing import Any

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
        return Result(code, self._stdout.read_text(), self._stderr.read_text())

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true; it is an error if that takes a minute or the command ends before."""
        deadline = time.monotonic() + _SECONDS_TO_WAIT
        while not condition():
            assert time.monotonic() < deadline, "waited for a minute"
            assert Path(f"/proc/{self.pid}/stat").read_text().split()[2] != "Z", f"ended: {self._stderr.read_text()}"
            time.sleep(0.002)


def start(*argv: object, prepare: str | None = None, max_file_bytes: int | None = None) -> Command:
    """Start one command in a process of its own.

    Args:
        *argv: what follows `rldistill`.
        prepare: `module:function` to be called in that process first.
        max_file_bytes: how large a file it may write: a full disk, for one process.
    """
    folder = Path(tempfile.mkdtemp(dir=_server().folder))
    for name in ("stdout", "stderr"):
        (folder / name).touch()  # a kill may come before the process has opened them
    request = {
        "argv": [str(argument) for argument in argv],
        "cwd": os.getcwd(),
        "stdout": str(folder / "stdout"),
        "stderr": str(folder / "stderr"),
        "prepare": prepare,
        "max_file_bytes": max_file_bytes,
    }
    return Command(_server().ask(request), folder / "stdout", folder / "stderr")


def run_alone(*argv: object, prepare: str | None = None, max_file_bytes: int | None = None) -> Result:
    """Run one command in a process of its own."""
    return start(*argv, prepare=prepare, max_file_bytes=max_file_bytes).wait()


def write_small_shards() -> None:
    """For `prepare`: datasets get a shard every 100 steps, so that a kill has something to come between."""
    from rldistill.data import DatasetWriter

    for method in (DatasetWriter.create, DatasetWriter.resume):
        method.__func__.__kwdefaults__["steps_per_shard"] = 100


def collect_slowly() -> None:
    """For `prepare`: small shards, and at most 5,400 steps a second, so that any machine can be killed in time."""
    from rldistill.runs import collect

    write_small_shards()
    report = collect._CollectionRun._report

    def report_slowly(self, step) -> None:
        time.sleep(0.003)
        report(self, step)

    collect._CollectionRun._report = report_slowly


def play_slowly() -> None:
    """For `prepare`: at most 200 locksteps a second."""
    from rldistill.rollout.player import EpisodePlayer

    step = EpisodePlayer._step

    def step_slowly(self):
        time.sleep(0.005)
        return step(self)

    EpisodePlayer._step = step_slowly


def distill_slowly() -> None:
    """For `prepare`: at most 500 updates a second."""
    from rldistill.distillation import Distiller

    update = Distiller.update

    def update_slowly(self, *arguments):
        time.sleep(0.002)
        return update(self, *arguments)

    Distiller.update = update_slowly


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
    for verb in ("collect", "distill", "evaluate"):
        importlib.import_module(f"rldistill.cli.{verb}")
        importlib.import_module(f"rldistill.runs.{verb}")
    for module in ("progress", "table"):
        importlib.import_module(f"rldistill.cli.{module}")
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
        if request["prepare"]:
            module, _, function = request["prepare"].partition(":")
            getattr(importlib.import_module(module), function)()
        if request["max_file_bytes"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["max_file_bytes"], resource.RLIM_INFINITY))
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
