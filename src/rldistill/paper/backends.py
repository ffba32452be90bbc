"""Who does jobs: one interface, whatever stands behind it.

`SerialBackend` does them here, one after the other; `ProcessBackend` in processes of this machine. Another
one, on many machines, needs nothing but `run`: jobs are plain data and importable functions.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from rldistill.events import Callback
from rldistill.paper.jobs import Job, Outcome, perform


class Backend(Protocol):
    """Does independent jobs, in any order."""

    @property
    def num_workers(self) -> int:
        """How many jobs are under way at once."""
        ...

    def run(self, jobs: Sequence[Job], *, num_threads: int, callbacks: Sequence[Callback]) -> Iterator[Outcome]:
        """Yield how each job ended, as it ends; a failure stops no other.

        Raises:
            KeyboardInterrupt: a callback asked to stop; jobs under way have saved their state.
        """
        ...

    def close(self) -> None:
        """Leave nothing running behind."""
        ...


class SerialBackend:
    """One job after the other, in this process."""

    num_workers = 1

    def run(self, jobs: Sequence[Job], *, num_threads: int, callbacks: Sequence[Callback]) -> Iterator[Outcome]:
        """Yield how each job ended."""
        for job in jobs:
            yield perform(job, num_threads=num_threads, callbacks=callbacks)

    def close(self) -> None:
        """Nothing is left running."""


def make_backend(num_workers: int) -> Backend:
    """Return a backend for so many jobs at once: this process for one, others for more."""
    from rldistill.paper.processes import ProcessBackend

    return SerialBackend() if num_workers == 1 else ProcessBackend(num_workers)
