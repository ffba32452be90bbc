"""A job: a module-level function, plain arguments, and the record whose existence means done.

A record is JSON: `{"job", "settings", "seconds", "num_threads", "result"}`. It is written whole, by
whoever did the job, the moment the function returns; a job whose record is there is not done again.
Settings decide the result and are compared; places (paths, device, number of environments) are not, so
a folder of results may be moved, and finished on another machine.
"""

import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rldistill.errors import RldistillError
from rldistill.events import Callback, Event, ProgressEvent, StopRequestedError
from rldistill.limits import JSON, read_file
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
    changed = [
        f"{key} was {before.get(key, 'unset')}, is {now.get(key, 'unset')}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if changed:
        raise RldistillError(
            f"{job.name} was done with other settings: {'; '.join(changed)}. "
            "Use the same, choose another --out, or add --overwrite."
        )
    return result


def perform(job: Job, *, num_threads: int, callbacks: Sequence[Callback]) -> Outcome:
    """Do a job and write its record; only a stop (`KeyboardInterrupt`) is raised, all else is told."""
    started = time.monotonic()
    named = [_naming(job.name, callback) for callback in callbacks]
    try:
        result = job.function(**job.settings, **job.places, num_threads=num_threads, callbacks=named)
        seconds = time.monotonic() - started
        record = {"job": job.name, "settings": job.settings, "seconds": seconds, "num_threads": num_threads}
        write_json(job.record, record | {"result": result})
    except StopRequestedError:
        raise KeyboardInterrupt from None
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


def _naming(name: str, callback: Callback) -> Callback:
    """Return a callback that is told which of many jobs an event is about."""

    def told(event: Event) -> bool | None:
        if isinstance(event, ProgressEvent):
            return callback(replace(event, phase=f"{name}: {event.phase}"))
        return callback(replace(event, text=f"{name}: {event.text}"))

    return told
