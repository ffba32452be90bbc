"""Who does jobs: this process, one after the other, or several processes at once.

A backend for many machines needs what these two have: jobs are plain data and importable functions. A stage is jobs
that need each other's results least, done before the next stage begins.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rldistill.errors import RldistillError
from rldistill.events import Callback, MessageEvent, notify
from rldistill.paper.jobs import Job, Outcome, finished_result, perform
from rldistill.paper.processes import ProcessBackend


class SerialBackend:
    """One job after the other, in this process."""

    num_workers = 1

    def run(self, jobs: Sequence[Job], *, num_threads: int, callbacks: Sequence[Callback]) -> Iterator[Outcome]:
        """Yield how each job ended; a failure stops no other. Raises as `ProcessBackend.run`."""
        for job in jobs:
            yield perform(job, num_threads=num_threads, callbacks=callbacks)

    def close(self) -> None:
        """Nothing is left running."""


Backend = SerialBackend | ProcessBackend


def make_backend(num_workers: int) -> Backend:
    """Return a backend for so many jobs at once."""
    return SerialBackend() if num_workers == 1 else ProcessBackend(num_workers)


def run_stage(
    jobs: Sequence[Job], backend: Backend, *, num_threads: int = 0, callbacks: Sequence[Callback] = ()
) -> dict[str, Mapping[str, Any]]:
    """Do what is not yet done of a stage, whose jobs' names are unique; returns every job's result, by name.

    Args:
        jobs: of the stage.
        backend: does them.
        num_threads: of each job; 0: this machine's processors shared among the jobs under way at once. Those
            done before count too, so that a resumed stage computes with as many threads as one never stopped.
        callbacks: receive events, and may stop the stage.

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
            notify(callbacks, MessageEvent(f"failed: {failures[-1]}", "warning"))
        else:
            results[outcome.name] = outcome.result
            text = f"done: {outcome.name} in {outcome.seconds:.0f} s; {len(results)} of {len(jobs)}"
            notify(callbacks, MessageEvent(text))
    if failures:
        raise RldistillError(
            f"{len(failures)} of {len(jobs)} jobs failed: {' | '.join(failures)} "
            "What the others made is kept; the same command does only what is missing."
        )
    return results
