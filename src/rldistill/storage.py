"""Files that are either whole or absent: atomic writes, locks, hashes, canonical JSON.

A write is: temporary file in the same folder, flush, fsync, rename, fsync of the folder.
After a power cut a reader finds the old file or the new one, never a mixture.
"""

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import pickle
import stat
import time
import zipfile
from collections.abc import Generator, Mapping
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import Any

from rldistill.errors import DiskFullError, LockedError, RldistillError, first_line
from rldistill.limits import is_file

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TEMPORARY_SUFFIX = ".tmp"
LONGEST_WAIT = 30.0
"""Seconds in which another process must have written a file; one that was suspended would be waited for forever."""
_PAUSE = 0.005
_CHECKSUM = "sha256"


def canonical_json(data: object) -> str:
    """Return JSON with sorted keys and no blanks, refusing NaN: equal data, equal text."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_bytes(data: bytes | memoryview) -> str:
    """Return the SHA-256 of a block of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def with_checksum(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON data with one key more, `sha256`: the checksum of the others as canonical JSON."""
    others = {key: value for key, value in data.items() if key != _CHECKSUM}
    return others | {_CHECKSUM: sha256_bytes(canonical_json(others).encode())}


def check_checksum(data: Mapping[str, Any]) -> None:
    """Check JSON data against the checksum in it; data of a version that wrote none pass.

    Raises ValueError: it was altered.
    """
    if _CHECKSUM in data and with_checksum(data)[_CHECKSUM] != data[_CHECKSUM]:
        raise ValueError("its checksum is not that of its contents")


def temporary_files(folder: Path, pattern: str) -> list[Path]:
    """Return what a kill left in a folder of half-written files that were to have names such as `shard-*`."""
    return [path for path in folder.glob(f".*{_TEMPORARY_SUFFIX}") if is_temporary(path, pattern)]


def is_temporary(path: Path, pattern: str) -> bool:
    """Whether a path is what `write_atomically` writes before it renames it to a name such as `shard-*`."""
    return path.match(f".{pattern}{_TEMPORARY_SUFFIX}")


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def writing(path: Path) -> Generator[None]:
    """Turn the operating system's refusals to write `path` into one clear line.

    Raises:
        DiskFullError: no space, a quota or a limit on file sizes.
        RldistillError: any other refusal, such as missing permission.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise DiskFullError(
                f"Writing {path} failed: {error.strerror}. What was reported written before is intact. "
                "Free some space and run the same command again, with --resume if it has that option."
            ) from error
        raise RldistillError(f"Writing {path} failed: {error.strerror or error}.") from error


def sync_folder(folder: Path) -> None:
    """Make renames and new names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Replace `path` by `data`, durably and in one step; of processes that do so at once each waits for its turn.

    Raises:
        DiskFullError: no space; the old file is untouched and no temporary file stays behind.
        LockedError: another process does not come to an end with it.
        RldistillError: any other refusal, such as a link in place of the temporary file.
    """
    temporary = _temporary(path)
    with writing(path):
        with contextlib.suppress(FileExistsError):  # a file by that name: opening says so
            path.parent.mkdir(parents=True, exist_ok=True)
        with _own_turn(temporary) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        sync_folder(path.parent)


def check_temporary(path: Path) -> None:
    """Check, before an hour's work, that nothing stands in the place of `path`'s temporary file but one of ours.

    Raises RldistillError: a link, a pipe or a folder, which nothing of ours leaves there.
    """
    temporary = _temporary(path)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(temporary.lstat().st_mode):
            raise _no_file(temporary)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}{_TEMPORARY_SUFFIX}")


def _no_file(path: Path) -> RldistillError:
    return RldistillError(
        f"Writing {path} failed: got a link, a pipe or a folder there, expected a plain file or nothing. rldistill "
        "did not make it. Delete it, and run the same command again."
    )


def _open_own(path: Path) -> int:
    """Open a file of ours for reading and writing, made where there is none; returns its descriptor.

    The folder may be a stranger's: a link in it leads to any file of its user, and a pipe would be waited for.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError:
        with contextlib.suppress(OSError):
            if not stat.S_ISREG(path.lstat().st_mode):
                raise _no_file(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_file(path)
    return descriptor


@contextlib.contextmanager
def _own_turn(temporary: Path) -> Generator[BufferedWriter]:
    """Open a temporary file, empty, that no other process has open in its turn.

    One name for all processes: what a killed one left behind is written over by the next.
    """
    until = time.monotonic() + LONGEST_WAIT
    while (file := _locked(temporary)) is None:
        if time.monotonic() > until:
            raise LockedError(
                f"Writing {temporary} failed: another process has had it open for {LONGEST_WAIT:g} seconds. "
                "Was it suspended? Let it go on or end it, and run the same command again."
            )
        time.sleep(_PAUSE)
    with file:
        file.truncate(0)
        yield file


def _locked(temporary: Path) -> BufferedWriter | None:
    """Return a temporary file, opened and locked; None where it is another process's turn."""
    with contextlib.ExitStack() as closed:
        file = closed.enter_context(os.fdopen(_open_own(temporary), "wb"))
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The process that had the turn before may have renamed or deleted the file that was opened here.
            if os.path.samestat(os.fstat(file.fileno()), temporary.lstat()):
                closed.pop_all()
                return file
    return None


def write_json(path: Path, data: object) -> None:
    """Write readable JSON atomically; NaN is refused with a `ValueError`."""
    text = json.dumps(data, indent=2, sort_keys=False, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


@contextlib.contextmanager
def folder_lock(folder: Path) -> Generator[None]:
    """Hold the only writer's place of a folder; the system frees it when the process dies.

    Raises:
        LockedError: another process holds it.
        RldistillError: nothing can be written there, or nothing locked.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = FileIO(_open_own(folder / ".lock"), "r+")  # unbuffered: nothing is left to be written at its close
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().decode(errors="replace").strip() or "unknown"
            raise LockedError(
                f"{folder} is being written by another process (id {holder}). Wait for it, or choose another --out."
            ) from error
        except OSError as error:
            raise RldistillError(
                f"{folder} cannot be locked against other processes: {error.strerror}. Choose an --out on a disk with "
                "locks, such as a local one."
            ) from error
        with writing(folder):
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        yield


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write everything a run needs to go on: tensors, numbers, texts, and containers of them."""
    import torch  # here, not above: the command line reads folders without it

    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getbuffer())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint as data: nothing in it is executed.

    Raises RldistillError: unreadable, damaged, or something other than a checkpoint.
    """
    import torch

    refusal = f"Checkpoint {path} cannot be read: {{}}. Start anew with --overwrite."
    if path.exists() and not is_file(path):
        raise RldistillError(refusal.format("it is no regular file"))
    try:
        # A checkpoint is a zip archive whose checksums torch itself does not look at.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        state = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise RldistillError(
            f"Checkpoint {path} cannot be read: {error.strerror}. Check what you may do there."
        ) from error
    except pickle.UnpicklingError as error:
        raise RldistillError(refusal.format("it holds more than numbers, texts and tensors")) from error
    except Exception as error:  # zipfile and torch raise almost anything for damaged bytes
        reason = first_line(error)
        raise RldistillError(refusal.format(reason)) from error
    if not isinstance(state, dict):
        kind = f"{damaged} in it was altered" if damaged else f"it holds a {type(state).__name__}"
        raise RldistillError(refusal.format(kind))
    return state
