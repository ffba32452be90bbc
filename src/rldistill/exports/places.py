"""Where an export goes: a staging folder, then the places beside `--out`, without deleting what is no export."""

import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

from rldistill.errors import LockedError, OutputExistsError, RldistillError
from rldistill.exports.formats import ExportFormat
from rldistill.storage import folder_lock


@contextlib.contextmanager
def _reaching(out: Path) -> Generator[None]:
    """Tell an error of the places around `out`, such as a name that is too long, in a line; raises RldistillError."""
    try:
        yield
    except OSError as error:
        raise RldistillError(f"--out {out} cannot be written: {error.strerror}. Choose another --out.") from error


@contextlib.contextmanager
def staging(out: Path) -> Generator[Path]:
    """Give a folder beside `out`, on the same disk, that is gone afterwards; one that a kill left is emptied.

    Raises:
        LockedError: another process exports to `out`.
        RldistillError: nothing can be written there.
    """
    place = out.with_name(f".{out.name}.export")
    folder = place / "files"
    with _reaching(out):
        place.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(folder_lock(place))
        except LockedError as error:
            raise LockedError(f"--out {out}: another process exports there. Wait for it, or choose another.") from error
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                (place / ".lock").unlink()
                place.rmdir()


def places(out: Path, chosen: ExportFormat) -> list[Path]:
    """Return the paths that an export takes: its own, those of its companions, the contract's and the report's."""
    return [out, *_companions(out, chosen), beside(out, "contract"), beside(out, "report")]


def _companions(out: Path, chosen: ExportFormat) -> list[Path]:
    return [out.with_suffix(suffix) for suffix in chosen.companions]


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()  # also a link to nothing


def check_free(out: Path, chosen: ExportFormat, *, overwrite: bool) -> None:
    """Check that an export may take its places: nothing is there, or an earlier export that is to be overwritten.

    Raises:
        OutputExistsError: something is there.
        RldistillError: a name is too long, or a folder of it cannot be seen.
    """
    with _reaching(out):
        taken = [path for path in places(out, chosen) if _is_there(path)]
    for path in taken:
        if not overwrite:
            raise OutputExistsError(f"--out {path} is there already. Choose another --out, or add --overwrite.")
        is_folder = path == out and not chosen.suffix
        if is_folder and path.is_dir() and not path.is_symlink():
            foreign = sorted(item.name for item in path.iterdir() if item.name not in chosen.contents or item.is_dir())
            if foreign:
                more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
                raise OutputExistsError(
                    f"--overwrite would delete {path / foreign[0]}{more}: an export --to {chosen.name} holds only "
                    f"{', '.join(chosen.contents)}. Choose another --out, or move it away."
                )
        elif is_folder or path.is_dir():
            kinds = ("a file", "a folder") if is_folder else ("a folder", "a file")
            raise OutputExistsError(
                f"--out {path}: got {kinds[0]} or a link, expected {kinds[1]} of an earlier export to overwrite. "
                "Choose another --out."
            )


def beside(out: Path, what: str) -> Path:
    """Return the path of the contract (`contract`) or the report (`report`) beside an export."""
    return out.with_name(f"{out.name}.{what}.json")


def free_name(out: Path, chosen: ExportFormat) -> Path:
    """Return where an export that failed is kept: `NAME.failed.onnx`, else `NAME.failed-2.onnx`, and so on."""
    endings = itertools.chain(["failed"], (f"failed-{number}" for number in itertools.count(2)))
    names = (out.with_name(f"{out.stem}.{ending}{out.suffix}") for ending in endings)
    with _reaching(out):
        return next(name for name in names if not any(map(_is_there, places(name, chosen))))


def move_in(folder: Path, written_as: Path, out: Path, chosen: ExportFormat, *, overwrite: bool) -> None:
    """Move what lies in a staging folder as `written_as` to `out`, then delete what was there of an earlier export.

    Raises:
        OutputExistsError: something came into its place while it was made.
    """
    check_free(out, chosen, overwrite=overwrite)
    # The export itself comes last: where it lies, all that belongs to it does.
    items = sorted(folder.iterdir(), key=lambda item: (item.name == written_as.name, item.name))
    # Companions of the file, such as a header, go by its name.
    targets = [out.with_name(item.name.replace(written_as.stem, out.stem, 1)) for item in items]
    replaced = Path(tempfile.mkdtemp(dir=folder))  # deleted with the staging folder, once all is in its place
    for item, target in zip(items, targets, strict=True):
        if target.is_dir():
            target.replace(replaced / target.name)
        item.replace(target)
    # A companion of an earlier export would be taken for a part of this one.
    for stale in set(_companions(out, chosen)) - set(targets):
        stale.unlink(missing_ok=True)
