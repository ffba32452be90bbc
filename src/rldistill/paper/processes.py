"""Jobs in processes of this machine, started anew (spawned): nothing is shared but plain data.

A worker does one job after the other and tells events and outcomes through its pipe. Ctrl-C reaches every
process of a terminal, so workers ignore it: the parent's callbacks decide, and workers are asked to stop at
their next event. A worker whose parent is gone stops at its next event too.
"""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.synchronize import Event as StopFlag

from rldistill.events import Callback, Event, ProgressEvent, StopRequestedError, notify
from rldistill.paper.jobs import Job, Outcome, perform

_SECONDS_BETWEEN_EVENTS = 0.25
_SECONDS_BETWEEN_LOOKS = 0.5


class ProcessBackend:
    """Several jobs at once, each in a process.

    A script that makes one needs the usual `if __name__ == "__main__":`, since its processes import it.

    Args:
        num_workers: processes, 1 or more; each starts with its first job.
    """

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers
        self._context = multiprocessing.get_context("spawn")
        self._stop = self._context.Event()
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []

    def run(self, jobs: Sequence[Job], *, num_threads: int, callbacks: Sequence[Callback]) -> Iterator[Outcome]:
        """Yield how each job ended, as it ends; a failure stops no other.

        KeyboardInterrupt where a callback asked to stop: jobs under way have saved their state.
        """
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
            self._stop.set()
            while self._busy:
                for _ in self._look(()):
                    pass
            self._stop.clear()
            raise KeyboardInterrupt from None

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
        return _Worker(self._context, self._stop)

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

    def __init__(self, context: SpawnContext, stop: StopFlag) -> None:
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, stop), daemon=True)
        self._process.start()
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


def _relay(pipe: Connection, stop: StopFlag) -> Callback:
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
        return stop.is_set()

    return relay


def _work(pipe: Connection, stop: StopFlag) -> None:
    """Be a worker: one job after the other, until the parent's end of the pipe closes."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch loads, with the first job
    relay = _relay(pipe, stop)
    try:
        while True:
            asked = pipe.recv()
            if asked is None:
                pipe.send(None)
                continue
            job, num_threads = asked
            try:
                outcome = perform(job, num_threads=num_threads, callbacks=[relay])
            except KeyboardInterrupt:
                outcome = Outcome(job.name)
            pipe.send(outcome)
    except (EOFError, OSError):
        return
