"""Who does jobs: this process, one after the other, or several processes at once.

A backend for many machines needs what these two have: jobs are plain data and importable functions.
"""

from collections.abc import Iterator, Sequence

from rldistill.events import Callback
from rldistill.paper.jobs import Job, Outcome, perform
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
