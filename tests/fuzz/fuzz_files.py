"""Damages thousands of files and reads them: `python -m tests.fuzz.fuzz_files --count 20000 --seed 0` (or `make fuzz`).

A case is a function of (seed, number) alone. It is clean where what was read works, or where one of our own errors says
in one line of at most 500 printable characters why not, within 5 seconds of CPU and 1 GB. Cases run in forked children
with limits; those that are not clean are kept, and printed with what repeats them: `--only NUMBER`. Exit code 0: all
clean; 1: some are not.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from rldistill.errors import RldistillError
from tests.fuzz import seeds
from tests.fuzz.kinds import KINDS, Files

MOST_SECONDS = 5
MOST_BYTES = 1 << 30
MOST_CHARACTERS = 500
# Of the error by which `reading_file` tells what no reader foresaw: one line, but not one that helps.
UNFORESEEN = "its content does not have the expected structure"
# Cases of one child: its memory is measured over all of them, and a death costs the fork of another.
CASES_PER_CHILD = 250


@dataclass(frozen=True)
class Case:
    """One damaged file."""

    seed: int
    number: int

    @property
    def rng(self) -> random.Random:
        return random.Random(f"{self.seed} {self.number}")

    @property
    def kind(self) -> str:
        names = sorted(KINDS)
        return self.rng.choices(names, [KINDS[name].weight for name in names])[0]

    def write(self, folder: Path, honest: seeds.Seeds) -> None:
        rng = random.Random(f"{self.seed} {self.number} {self.kind}")
        for name, content in _made(rng, KINDS[self.kind].make, honest).items():
            (folder / name).write_bytes(content)


def _made(rng: random.Random, make: Callable[[random.Random, seeds.Seeds], Files], honest: seeds.Seeds) -> Files:
    """Return the files of a case; of damage that no library can write, such as NaN in JSON, another is drawn."""
    for _ in range(100):
        try:
            return make(rng, honest)
        except Exception:
            continue
    return make(rng, honest)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000, help="cases")
    parser.add_argument("--seed", type=int, default=0, help="of the cases")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of files, with commas between")
    parser.add_argument("--only", type=int, help="one case, by its number, in this process: its error is raised")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"), help="folder for cases that are not clean")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    for name in KINDS.keys() - set(arguments.kinds.split(",")):
        del KINDS[name]  # what a number stands for changes with it
    with tempfile.TemporaryDirectory() as folder:
        (honest := Path(folder) / "honest").mkdir()
        made = seeds.make(honest)
        if arguments.only is not None:
            return _only(Case(arguments.seed, arguments.only), made, arguments.keep)
        return _all(arguments, made, Path(folder))


def _only(case: Case, honest: seeds.Seeds, keep: Path) -> int:
    folder = keep / f"{case.seed}-{case.number}-{case.kind}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    case.write(folder, honest)
    print(f"{folder}:", *sorted(path.name for path in folder.iterdir()))
    KINDS[case.kind].read(folder)
    return 0


def _all(arguments: argparse.Namespace, honest: seeds.Seeds, folder: Path) -> int:
    started, verdicts, faults = time.monotonic(), collections.Counter[tuple[str, str]](), 0
    pending = [
        range(first, min(first + CASES_PER_CHILD, arguments.count))
        for first in range(0, arguments.count, CASES_PER_CHILD)
    ]
    running: dict[int, tuple[range, Path]] = {}
    while pending or running:
        while pending and len(running) < arguments.workers:
            numbers = pending.pop(0)
            report = folder / f"report-{numbers.start}"
            running[_start(arguments.seed, numbers, honest, folder, report)] = numbers, report
        pid, status, _usage = os.wait3(0)
        numbers, report = running.pop(pid)
        lines = [json.loads(line) for line in report.read_text().splitlines() if line.endswith("}")]
        done = [line for line in lines if "verdict" in line]
        if len(done) < len(numbers):  # it died: the case that it had begun is the reason, the rest go on
            number = numbers[len(done)]
            cause = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {status >> 8}"
            message = f"the process died of {cause} (SIGPROF: more than {MOST_SECONDS} s of CPU)"
            done.append({"number": number, "verdict": "fault", "message": message})
            pending.insert(0, range(number + 1, numbers.stop)) if number + 1 < numbers.stop else None
        for line in done:
            case = Case(arguments.seed, line["number"])
            verdicts[case.kind, line["verdict"]] += 1
            if line["verdict"] == "fault":
                faults += 1
                _tell(case, line["message"], honest, arguments.keep)
        total = sum(verdicts.values())
        if total % 5000 < CASES_PER_CHILD:
            print(f"{total:,} cases, {faults} faults, {time.monotonic() - started:.0f} s", flush=True)
    for (kind, verdict), count in sorted(verdicts.items()):
        print(f"{kind:<12} {verdict:<8} {count:>7,}")
    print(f"{sum(verdicts.values()):,} cases in {time.monotonic() - started:.0f} s: {faults} faults")
    return 1 if faults else 0


def _tell(case: Case, message: str, honest: seeds.Seeds, keep: Path) -> None:
    folder = keep / f"{case.seed}-{case.number}-{case.kind}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with contextlib.suppress(Exception):  # what killed the child while it was written kills nobody twice
        case.write(folder, honest)
    print(f"FAULT --seed {case.seed} --only {case.number} ({case.kind}), kept in {folder}: {message}", flush=True)


def _start(seed: int, numbers: range, honest: seeds.Seeds, folder: Path, report: Path) -> int:
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    code = 3
    try:
        _run(seed, numbers, honest, folder, report)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _run(seed: int, numbers: range, honest: seeds.Seeds, folder: Path, report: Path) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * MOST_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    scratch = folder / f"case-{numbers.start}"
    with report.open("w") as file:
        for number in numbers:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            case = Case(seed, number)
            case.write(scratch, honest)
            print(json.dumps({"number": number}), file=file, flush=True)
            with _time_limit():
                verdict, message = _verdict(case, scratch)
            print(json.dumps({"number": number, "verdict": verdict, "message": message}), file=file, flush=True)
    shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    """End the process after some seconds of CPU: by the system's default, whatever C code runs."""
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _verdict(case: Case, folder: Path) -> tuple[str, str]:
    before = _peak_bytes()
    try:
        KINDS[case.kind].read(folder)
        verdict, message = "works", ""
    except RldistillError as error:
        verdict, message = "refused", str(error)
        if len(message) > MOST_CHARACTERS or not message.isprintable():
            verdict, message = "fault", f"{len(message)} characters, or some that are not printable: {message!r:.300}"
        elif "fit into the memory" in message or UNFORESEEN in message:
            verdict = "fault"
    except BaseException as error:
        verdict = "fault"
        message = f"{type(error).__name__}: {error!s:.200} at {_place(error)}"
    grown = _peak_bytes() - before
    return ("fault", f"took {grown / 1e9:.2f} GB") if grown > MOST_BYTES else (verdict, message)


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "rldistill" in frame.filename] or frames
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}"


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


if __name__ == "__main__":
    sys.exit(main())
