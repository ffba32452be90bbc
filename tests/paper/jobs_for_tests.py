"""Functions that jobs of these tests call, by name, also from other processes."""

import os
import signal
import time
from pathlib import Path

from rldistill.errors import UsageError
from rldistill.events import MessageEvent, ProgressEvent, StopRequestedError, notify


def square(*, number, folder, num_threads, callbacks):
    notify(callbacks, ProgressEvent("square", 1, 1, "numbers"))
    with (Path(folder) / "calls").open("a") as file:
        file.write(f"{number}\n")
    return {"square": number**2, "num_threads": num_threads, "process": os.getpid()}


def refuse(*, num_threads, callbacks):
    raise UsageError("got this,\nexpected that.")


def break_down(*, num_threads, callbacks):
    raise KeyError("x")


def die(*, num_threads, callbacks):
    os.kill(os.getpid(), signal.SIGKILL)


def work_until_stopped(*, folder, num_threads, callbacks):
    notify(callbacks, MessageEvent("begins", "warning"))
    try:
        for step in range(2000):
            notify(callbacks, ProgressEvent("work", step, 2000, "steps"))
            time.sleep(0.01)
    except StopRequestedError:
        (Path(folder) / f"saved-{os.getpid()}").touch()
        raise
    return {}
