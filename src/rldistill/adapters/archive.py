"""Zip archives of strangers, read in memory and within stated limits; nothing is ever extracted.

An archive holds at most `MAX_MEMBERS` members. One of them may unpack to at most
`MAX_MEMBER_BYTES`, and, beyond its first MiB, to at most `MAX_RATIO` times what it takes in the
archive; all together to what `limits` allows for its size. The sizes that the archive declares are
checked first; what really comes out is counted while it is read, because a declaration can lie.
"""

import contextlib
import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rldistill.errors import PolicyFileError, first_line, listed, printable, shown
from rldistill.limits import FREE_UNPACKED_BYTES, MAX_UNPACKED_RATIO

MAX_MEMBERS = 10_000
MAX_MEMBER_BYTES = 1 << 30
MAX_RATIO = 200
_CHUNK_BYTES = 1 << 20

# What zipfile raises for damaged, encrypted or unknown content.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError)


@dataclass(frozen=True)
class Archive:
    """An open zip archive whose declared sizes were checked."""

    zip_file: zipfile.ZipFile
    source: str  # what messages call it
    num_bytes: int  # of the whole file, by which its unpacked size is measured

    @property
    def names(self) -> frozenset[str]:
        """Names of its members."""
        return frozenset(self.zip_file.namelist())

    @property
    def unpacked_bytes(self) -> int:
        """What all members together unpack to, as the archive declares; none of them is read beyond its part."""
        return sum(member.file_size for member in self.zip_file.infolist())

    def read(self, name: str, *, most: int = MAX_MEMBER_BYTES) -> bytes:
        """Return a member's bytes, at most so many. Raises PolicyFileError: missing, damaged, or beyond the limits."""
        if name not in self.names:
            found = listed(printable(member, 60) for member in sorted(self.names)) or "nothing"
            raise PolicyFileError(f"{self.source} holds no {name!r}, only {found}. Was it written by another library?")
        if self.zip_file.getinfo(name).file_size > most:
            raise PolicyFileError(
                f"{self.source} is refused: {printable(name, 60)} unpacks to more than {most >> 20:,} MiB, the most "
                "that is read of it."
            )
        chunks: list[bytes] = []
        num_bytes = 0
        try:
            with self.zip_file.open(name) as member:
                packed = min(self.zip_file.getinfo(name).compress_size, self.num_bytes)
                while chunk := member.read(_CHUNK_BYTES):
                    num_bytes += len(chunk)
                    _check_size(self.source, name, num_bytes, packed)
                    chunks.append(chunk)
        except _DAMAGE as error:
            raise PolicyFileError(_unreadable(self.source, f"{name} in it: {first_line(error)}")) from error
        return b"".join(chunks)


@contextlib.contextmanager
def open_archive(path: Path, *, kind: str = "Policy file") -> Generator[Archive]:
    """Open a zip file, which messages call by its kind and its path.

    Raises:
        PolicyFileError: missing, empty, truncated, not a zip, or it declares more than the limits.
    """
    source = f"{kind} {path}"
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise PolicyFileError(f"{source}: found {found} there, expected a zip file. Is the path right?")
    try:
        with path.open("rb") as file, _opened(file, source, path.stat().st_size) as archive:
            yield archive
    except OSError as error:
        raise PolicyFileError(f"{source} cannot be read: {error.strerror or error}.") from error


@contextlib.contextmanager
def opened_archive(data: bytes, *, source: str, num_bytes: int | None = None) -> Generator[Archive]:
    """Open an archive in memory, before another library unpacks it; raises as `open_archive`.

    `num_bytes` is the size of a file that it is a part of, by which its unpacked size is measured.
    """
    with _opened(io.BytesIO(data), source, len(data) if num_bytes is None else num_bytes) as archive:
        yield archive


@contextlib.contextmanager
def _opened(file: BinaryIO, source: str, num_bytes: int) -> Generator[Archive]:
    if num_bytes == 0:
        raise PolicyFileError(f"{source} is empty: got 0 bytes. Its download or copy was cut off. Fetch it again.")
    try:
        zip_file = zipfile.ZipFile(file)
    except _DAMAGE as error:
        raise PolicyFileError(_unreadable(source, first_line(error))) from error
    with zip_file:
        _check_declared(zip_file, source, num_bytes)
        yield Archive(zip_file, source, num_bytes)


def _check_declared(zip_file: zipfile.ZipFile, source: str, num_bytes: int) -> None:
    members = zip_file.infolist()
    # The end of a zip can lie inside a longer one that was cut off, when a member of it is a zip itself.
    if min((member.header_offset for member in members), default=0) > 0:
        raise PolicyFileError(_unreadable(source, "its archive does not begin where the file does"))
    if len(members) > MAX_MEMBERS:
        raise PolicyFileError(
            f"{source} is refused: got {len(members):,} members, expected at most {MAX_MEMBERS:,}. No policy needs "
            "so many: it was made to exhaust its reader."
        )
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise PolicyFileError(
            f"{source} is refused: it holds {shown(twice)} twice, and readers differ in which one they take."
        )
    for member in members:
        _check_size(source, member.filename, member.file_size, min(member.compress_size, num_bytes))
    unpacked, most = sum(member.file_size for member in members), FREE_UNPACKED_BYTES + MAX_UNPACKED_RATIO * num_bytes
    if unpacked > most:
        raise PolicyFileError(
            f"{source} is refused: its members unpack to {unpacked >> 20:,} MiB, expected at most {most >> 20:,} MiB "
            f"for {num_bytes:,} bytes. Weights do not compress like that: it was made to exhaust its reader. Save it "
            "uncompressed if it is yours."
        )


def _check_size(source: str, name: str, num_bytes: int, packed_bytes: int) -> None:
    """Refuse what unpacks to too much, absolutely or for the room that it takes in the archive."""
    if num_bytes > MAX_MEMBER_BYTES:
        raise PolicyFileError(
            f"{source} is refused: {printable(name, 60)} unpacks to more than {MAX_MEMBER_BYTES >> 20:,} MiB, the most "
            "that is read."
        )
    if num_bytes > _CHUNK_BYTES and num_bytes > MAX_RATIO * packed_bytes:
        raise PolicyFileError(
            f"{source} is refused: {printable(name, 60)} unpacks to more than {MAX_RATIO} times its "
            f"{packed_bytes:,} bytes. Weights do not compress like that: it was made to exhaust its reader."
        )


def _unreadable(source: str, reason: str) -> str:
    return (
        f"{source} cannot be read: {reason}. It is not a zip archive, or its download or copy is incomplete. "
        "Fetch it again."
    )
