"""An experiment's jobs, and what does them: this process, one after the other, or several processes at once.

A job is a module-level function, plain arguments, and the record whose existence means done. A record is JSON:
`{"job", "settings", "seconds", "num_threads", "made", "result"}`. It is written whole the moment the function returns;
a job whose record is there is not done again. Settings decide the result and are compared; places (paths, device,
number of environments) are not, so a folder of results may be moved, and finished on another machine.

Processes are started anew (spawned): nothing is shared but plain data, so a backend for many machines needs no more. A
worker does one job after the other and tells events and outcomes through its pipe. Ctrl-C reaches every process of a
terminal, so workers never take it: the parent's callbacks decide. Whatever comes through the pipe of a worker at work
asks it to stop at its next event, and so does the end of the pipe, where the parent is gone.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path
from typing import Any

from rldistill.errors import RldistillError
from rldistill.events import Callback, Event, ProgressEvent, StopRequestedError, notify, renamed, tell
from rldistill.limits import JSON, read_file
from rldistill.paper.made import made_here
from rldistill.session.run_folder import changed_settings
from rldistill.storage import canonical_json, write_json


@dataclass(frozen=True)
class Job:
    """One piece of work that needs no other of its stage."""

    name: str  # for people, unique within its stage
    # Importable by name; called with settings, places, `num_threads` and `callbacks`, returns JSON data. It goes on
    # with what an earlier call of it left behind.
    function: Callable[..., Mapping[str, Any]]
    settings: Mapping[str, Any]  # JSON data that decide the result
    places: Mapping[str, Any]  # keyword arguments that do not: where things lie, and on what they are computed
    record: Path


@dataclass(frozen=True)
class Outcome:
    """How a job ended: with a result, with an error in one line, or stopped (neither)."""

    name: str
    result: Mapping[str, Any] | None = None
    error: str | None = None
    seconds: float = field(default=0.0, compare=False)  # it took, in this call


def finished_result(job: Job) -> Mapping[str, Any] | None:
    """Return what a finished job gave, else None. Raises RldistillError: other settings, or an unreadable record."""
    try:
        record = json.loads(read_file(job.record, JSON.num_bytes))
        before, result = _flat(record["settings"]), record["result"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RldistillError(f"{job.record} is no record of a job. Delete it, and the job is done again.") from error
    now = _flat(json.loads(canonical_json(job.settings)))
    if changed := changed_settings(before, now, keys=before.keys() | now.keys()):
        raise RldistillError(
            f"{job.name} was done with other settings: {'; '.join(changed)}. "
            "Use the same, choose another --out, or add --overwrite."
        )
    return result


def _perform(job: Job, *, num_threads: int, callbacks: Sequence[Callback]) -> Outcome:
    """Do a job and write its record; only a stop (`KeyboardInterrupt`) is raised, all else is told."""
    started = time.monotonic()
    named = [renamed(each, phase=f"{job.name}: {{}}", text=f"{job.name}: {{}}") for each in callbacks]
    try:
        result = job.function(**job.settings, **job.places, num_threads=num_threads, callbacks=named)
        seconds = time.monotonic() - started
        record = {"job": job.name, "settings": job.settings, "seconds": seconds, "num_threads": num_threads}
        record |= {"made": made_here(str(job.places.get("device", "cpu")))}
        write_json(job.record, record | {"result": result})
    except StopRequestedError:
        raise KeyboardInterrupt(_STOPPED) from None
    except RldistillError as error:
        return Outcome(job.name, error=" ".join(str(error).split()), seconds=time.monotonic() - started)
    except Exception as error:
        # The trace would be lost in another process: the last place says most of it.
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = f"unexpected {type(error).__name__} in {place.name}, line {place.lineno}: {' '.join(str(error).split())}"
        return Outcome(job.name, error=text, seconds=time.monotonic() - started)
    return Outcome(job.name, result=result, seconds=seconds)


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with those of a table as `table.key`, so that a difference can be named."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        is_table = isinstance(value, dict) and value
        flat |= {f"{key}.{name}": item for name, item in value.items()} if is_table else {key: value}
    return flat


_SECONDS_BETWEEN_EVENTS = 0.25
_SECONDS_BETWEEN_LOOKS = 0.5
_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # that the parent takes for all
_STOPPED = "stopped; the jobs that are done are kept. The next call goes on."


class Backend:
    """Does jobs: with one worker one after the other in this process, else several at once, each in a process.

    A script that makes one of several workers needs the usual `if __name__ == "__main__":`: its processes import it.
    """

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers
        self._context = multiprocessing.get_context("spawn")
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []

    def run(self, jobs: Sequence[Job], *, num_threads: int, callbacks: Sequence[Callback]) -> Iterator[Outcome]:
        """Yield how each job ended, as it ends; a failure stops no other.

        KeyboardInterrupt where a callback asked to stop: jobs under way have saved their state.
        """
        if self.num_workers == 1:
            yield from (_perform(job, num_threads=num_threads, callbacks=callbacks) for job in jobs)
            return
        waiting = deque(jobs)
        try:
            while waiting or self._busy:
                while waiting and len(self._busy) < self.num_workers:
                    worker = self._free_worker()
                    worker.begin(waiting.popleft(), num_threads)
                    self._busy.append(worker)
                yield from self._look(callbacks)
                # Also while nobody tells anything, a callback is asked whether to stop.
                done = len(jobs) - len(waiting) - len(self._busy)
                notify(callbacks, ProgressEvent("all", done, len(jobs), "jobs"))
        except StopRequestedError:
            for worker in self._busy:
                worker.ask_to_stop()
            while self._busy:
                for _ in self._look(()):
                    pass
            self.close()  # one that had just finished has not read that it was asked
            raise KeyboardInterrupt(_STOPPED) from None

    def close(self) -> None:
        """End every process: at once if it is still at work."""
        for worker in [*self._idle, *self._busy]:
            worker.close(at_once=worker in self._busy)
        self._idle, self._busy = [], []

    def _free_worker(self) -> "_Worker":
        """Return an idle worker, or a new one where none is left; one that died meanwhile is replaced."""
        while self._idle:
            worker = self._idle.pop()
            if worker.answers():
                return worker
            worker.close(at_once=True)
        return _Worker(self._context)

    def _look(self, callbacks: Sequence[Callback]) -> Iterator[Outcome]:
        """Pass on what busy workers tell; waits a moment for it."""
        by_pipe = {worker.pipe: worker for worker in self._busy}
        for pipe in wait(list(by_pipe), timeout=_SECONDS_BETWEEN_LOOKS):
            assert isinstance(pipe, Connection)
            worker = by_pipe[pipe]
            told = worker.receive()
            if not isinstance(told, Outcome):
                notify(callbacks, told)
                continue
            self._busy.remove(worker)
            if not worker.pipe.closed:  # its process did not die
                self._idle.append(worker)
            if told.result is not None or told.error is not None:
                yield told


class _Worker:
    """A process and our end of its pipe."""

    def __init__(self, context: SpawnContext) -> None:
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_be_worker, args=(theirs,), daemon=True)
        ensure_running()  # lets signals through when it begins
        # A signal that comes while the process imports what it needs waits until it ignores it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # Ours alone is left open here: the pipe ends when the process does.
        theirs.close()
        self._job_name = ""

    def answers(self) -> bool:
        """Return whether the process, which has nothing to do, is still there."""
        try:
            self.pipe.send(None)
            self.pipe.recv()
        except (EOFError, OSError):
            return False
        return True

    def begin(self, job: Job, num_threads: int) -> None:
        self._job_name = job.name
        self.pipe.send((job, num_threads))

    def ask_to_stop(self) -> None:
        with contextlib.suppress(OSError):  # it died: that will be its outcome
            self.pipe.send(None)

    def receive(self) -> Event | Outcome:
        """Return what the process tells next; its death is an outcome."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.close(at_once=False)
            code = self._process.exitcode or 0
            how = f"was killed by signal {-code}; was memory short?" if code < 0 else f"ended with code {code}."
            return Outcome(self._job_name, error=f"its process {how}")

    def close(self, *, at_once: bool) -> None:
        self.pipe.close()
        if at_once:
            self._process.kill()
        self._process.join()


def _relay(pipe: Connection) -> Callback:
    """In a worker: a callback that passes events on, not too many, and asks the parent whether to stop."""
    told_at = 0.0

    def relay(event: Event) -> bool:
        nonlocal told_at
        now = time.monotonic()
        is_one_of_many = isinstance(event, ProgressEvent) and event.done < event.total
        if not is_one_of_many or now - told_at >= _SECONDS_BETWEEN_EVENTS:
            told_at = now
            try:
                pipe.send(event)
            except OSError:
                return True  # the parent is gone
        return pipe.poll()

    return relay


def _be_worker(pipe: Connection) -> None:
    """Be a worker: one job after the other, until the parent's end of the pipe closes."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch loads, with the first job
    relay = _relay(pipe)
    try:
        while True:
            asked = pipe.recv()
            if asked is None:
                pipe.send(None)
                continue
            job, num_threads = asked
            try:
                outcome = _perform(job, num_threads=num_threads, callbacks=[relay])
            except KeyboardInterrupt:
                outcome = Outcome(job.name)
            pipe.send(outcome)
    except (EOFError, OSError):
        return


def run_stage(
    jobs: Sequence[Job], backend: Backend, *, num_threads: int = 0, callbacks: Sequence[Callback] = ()
) -> dict[str, Mapping[str, Any]]:
    """Do what is not yet done of a stage, whose jobs' names are unique; returns every job's result, by name.

    `num_threads` are those of each job; 0: this machine's processors shared among the jobs under way at once. Those
    done before count too, so that a resumed stage computes with as many threads as one never stopped.

    Raises:
        RldistillError: jobs failed, each named with its reason; the others are done and recorded.
        KeyboardInterrupt: stopped; what is recorded stays.
    """
    assert len({job.name for job in jobs}) == len(jobs)
    found = {job.name: finished_result(job) for job in jobs}
    pending = [job for job in jobs if found[job.name] is None]
    results = {name: result for name, result in found.items() if result is not None}
    num_at_once = max(1, min(backend.num_workers, len(jobs)))
    threads = num_threads or max(1, (os.cpu_count() or 1) // num_at_once)
    failures: list[str] = []
    for outcome in backend.run(pending, num_threads=threads, callbacks=callbacks):
        if outcome.result is None:
            failures.append(f"{outcome.name}: {outcome.error}")
            tell(callbacks, f"failed: {failures[-1]}", "warning")
        else:
            results[outcome.name] = outcome.result
            text = f"done: {outcome.name} in {outcome.seconds:.0f} s; {len(results)} of {len(jobs)}"
            tell(callbacks, text)
    if failures:
        raise RldistillError(
            f"{len(failures)} of {len(jobs)} jobs failed: {' | '.join(failures)} "
            "What the others made is kept; the same command does only what is missing."
        )
    return results
