"""Ways to be stopped: by a callback, and by a disk that is full."""

import contextlib
import resource
from collections.abc import Generator

from rldistill.events import Event, ProgressEvent


class StopAfter:
    """A callback that asks to stop at the n-th report of progress, as Ctrl-C does."""

    def __init__(self, num_reports: int) -> None:
        self._left = num_reports

    def __call__(self, event: Event) -> bool:
        self._left -= isinstance(event, ProgressEvent)
        return self._left == 0


@contextlib.contextmanager
def full_disk(max_file_bytes: int) -> Generator[None]:
    """Let this process write no file beyond a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
