"""A run folder: whose it is, whether to go on in it, and what made it.

`config.toml` (resolved; `--config` on it gives the same run) is written first and marks the
folder as ours; results follow.
"""

import contextlib
import functools
import json
import os
import platform
import shutil
import subprocess
import tomllib
from collections.abc import Generator, Iterable, Mapping
from collections.abc import Set as AbstractSet
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import tomli_w

from rldistill.errors import OutputExistsError, RldistillError, UsageError, first_line
from rldistill.limits import BeyondLimitsError, read_file
from rldistill.options.declaration import default_values
from rldistill.options.shared import Folder
from rldistill.session.own_files import CONFIG_FILE, HEADER, OWN_FILES, PART_FOLDERS, foreign_items, is_ours
from rldistill.storage import folder_lock, is_temporary, temporary_files, write_atomically

_MOST_CONFIG_BYTES = 1 << 20
# Written by `evaluate`, which holds no lock: a half-written one may be under way.
_UNLOCKED_FILE = "evaluation.json"
# Keys of records, wherever they stand, that name a file, and those that tell where the one was written who wrote them.
_FILES = frozenset({"path", "normalizer", "init_from"})
_OF_THE_WRITER = frozenset({"out", "command"})
# What messages call the values of an option.
_NOUNS: Mapping[str, str] = {"data": "dataset"}


def write_config(folder: Path, verb: str, values: Mapping[str, Any], *, name: str = CONFIG_FILE) -> None:
    """Write the resolved configuration, the command to repeat it in its first line."""
    text = toml_text(values)
    header = f"{HEADER}{verb} --config {name}\n"
    write_atomically(folder / name, (header + text).encode())


def read_config(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        UsageError: missing, or not TOML.
    """
    try:
        return tomllib.loads(read_file(path, _MOST_CONFIG_BYTES).decode())
    except OSError as error:
        raise UsageError(f"Configuration {path} cannot be read: {error.strerror}.") from error
    except BeyondLimitsError as error:
        raise UsageError(f"Configuration {path} cannot be read: it {error}.") from error
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else first_line(error)
        raise UsageError(f"Configuration {path} is not TOML: {reason}.") from error


def recorded_data(path: Path | None) -> list[Path]:
    """Return the datasets that the run folder of a student's file says it was distilled from."""
    if path is None:
        return []
    config = (path if path.is_dir() else path.parent) / CONFIG_FILE
    try:
        data = read_config(config).get("data", [])
    except UsageError:
        return []  # a student that was moved out of its folder names none
    return [Path(each) for each in (data if isinstance(data, list) else [data]) if isinstance(each, str)]


def plain(value: object) -> object:
    """Return a value as JSON knows it: paths become texts, tuples lists, mappings dicts."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        items: list[Any] = list(value)  # pyright: ignore[reportUnknownArgumentType]
        return [plain(item) for item in items]
    if isinstance(value, Mapping):
        settings = cast(Mapping[str, Any], value)
        return {key: plain(item) for key, item in settings.items()}
    return value


def toml_text(values: Mapping[str, Any]) -> str:
    """Return options as TOML, without those that are None."""
    return tomli_w.dumps({key: _in_toml(value) for key, value in values.items() if value is not None})


def _in_toml(value: object) -> object:
    """Return a value as TOML knows it: settings with a null, which TOML has none of, as the JSON of a command line."""
    simple = plain(value)
    return json.dumps(simple, ensure_ascii=False, sort_keys=True) if _holds_none(simple) else simple


def _holds_none(value: object) -> bool:
    if isinstance(value, Mapping):
        value = list(cast(Mapping[str, object], value).values())
    return value is None or (isinstance(value, list) and any(map(_holds_none, cast(list[object], value))))


@contextlib.contextmanager
def run_folder(folder: Path, *, resume: bool, overwrite: bool) -> Generator[bool]:
    """Hold a run folder's lock; yields whether an earlier run is to be continued.

    Args:
        folder: where to.
        resume: go on with what is there, if anything is.
        overwrite: delete an earlier run first.

    Raises:
        OutputExistsError: something is there and neither flag was given, or it is not ours.
        LockedError: another process writes there.
    """
    earlier_run(folder, resume=resume, overwrite=overwrite)
    # Before the lock is taken: a process that is being started holds it too, until it has become git.
    _commit()
    with folder_lock(folder):
        # Again: another process may have made a run here meanwhile.
        contents = earlier_run(folder, resume=resume, overwrite=overwrite)
        if overwrite:
            _delete_run(contents)
        _delete_half_written(folder)
        yield bool(contents) and resume


@contextlib.contextmanager
def configured_run(
    folder: Path, options: Folder, verb: str, values: Mapping[str, Any], *, may_differ: frozenset[str]
) -> Generator[bool]:
    """Hold a run folder whose `config.toml` says what the run does; yields whether an earlier run is to be continued.

    Args:
        folder: where to.
        options: of the verb.
        verb: what the run does.
        values: its resolved configuration, which is that of an earlier run where one is continued.
        may_differ: keys that do not change the result.

    Raises:
        RldistillError: as `run_folder`, or the earlier run began with another configuration; lists what differs.
    """
    with run_folder(folder, resume=options.resume, overwrite=options.overwrite) as continues:
        if continues:
            _check_same(folder, options, values, may_differ)
        else:
            write_config(folder, verb, values)
        yield continues


def check_configured(folder: Path, options: Folder, values: Mapping[str, Any], *, may_differ: frozenset[str]) -> None:
    """Check, without taking the folder, what `configured_run` checks."""
    if earlier_run(folder, resume=options.resume, overwrite=options.overwrite) and options.resume:
        _check_same(folder, options, values, may_differ)


def keep_inputs(out: Path, inputs: Iterable[str | Path | None], *, overwrite: bool) -> None:
    """Check, before anything is touched, that `--overwrite` deletes nothing that the same command reads.

    Args:
        out: folder that is to be overwritten.
        inputs: files and folders; None for one that was not named.
        overwrite: whether it is; else nothing is checked.

    Raises:
        OutputExistsError: one lies in `out`, also by way of links, or `out` lies in one.
    """
    if not overwrite:
        return
    target = out.resolve()
    for given in (Path(path) for path in inputs if path is not None):
        places = _places(given)
        if any(place.is_relative_to(target) for place in places):
            raise OutputExistsError(
                f"--overwrite would delete {given}, which this command reads: it lies in --out {out}. "
                "Choose another --out."
            )
        if places and target.is_relative_to(places[0]):
            raise OutputExistsError(f"--out {out} lies in {given}, which this command reads. Choose another --out.")


def _places(path: Path) -> list[Path]:
    """Return where a file or a folder lies, and what lies in it; nothing where it cannot be read: a reader says why."""
    try:
        if not path.exists():
            return []
        # A link in a folder is lost with it, and so is what a link elsewhere leads to.
        inside = [item.resolve() for item in path.iterdir()] if path.is_dir() else []
        return [path.resolve(), path.parent.resolve() / path.name, *inside]
    except OSError:
        return []


def check_place(folder: Path) -> None:
    """Check, before an hour's play, that a folder is there or can be made; nothing is made.

    Raises:
        OutputExistsError: a file stands in its place, or in that of a folder above it.
        RldistillError: nothing may be written there.
    """
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        what = "is a file, expected a folder" if there == folder else f"cannot be a folder: {there} is a file"
        raise OutputExistsError(f"--out {folder} {what}. Choose another --out.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RldistillError(f"--out {folder} cannot be made: nothing may be written in {there}. Choose another --out.")


def earlier_run(folder: Path, *, resume: bool, overwrite: bool) -> list[Path]:
    """Return what an earlier run left in a folder; nothing where there was none.

    Args:
        folder: where to look.
        resume: whether it is to be gone on with.
        overwrite: whether it is to be deleted.

    Raises:
        OutputExistsError: neither, or it is not ours, or something in it is not; or no folder can be there.
    """
    check_place(folder)
    items = list(folder.iterdir()) if folder.is_dir() else []
    # What a kill in a run's first moments leaves is no run yet.
    contents = [item for item in items if item.name != ".lock" and not is_temporary(item, CONFIG_FILE)]
    if contents and not is_ours(folder / CONFIG_FILE):
        is_there = (folder / CONFIG_FILE).exists()
        raise OutputExistsError(
            f"--out {folder} exists and is not an rldistill run: found {contents[0].name}, "
            f"expected {CONFIG_FILE}{f' that begins with {HEADER.strip()!r}' * is_there}. Choose another --out."
        )
    if contents and not (resume or overwrite):
        raise OutputExistsError(
            f"--out {folder} already holds a run. Add --resume to go on, --overwrite to delete it (in Python "
            "resume=True, overwrite=True), or choose another."
        )
    if contents and overwrite and (foreign := next(foreign_items(folder), None)):
        raise OutputExistsError(
            f"--overwrite would delete {foreign.relative_to(folder)} in {folder}, which no run of rldistill wrote. "
            "Move it away, or choose another --out."
        )
    return contents


def _delete_half_written(folder: Path) -> None:
    """Delete what a kill left of the files that only the holder of the lock writes."""
    left = [path for name in OWN_FILES - {_UNLOCKED_FILE} for path in temporary_files(folder, name)]
    for name in PART_FOLDERS:
        left += [path for kind in ("*.safetensors", "*.json") for path in temporary_files(folder / name, kind)]
    for path in left:
        path.unlink()


def _delete_run(contents: list[Path]) -> None:
    # What marks a folder as ours goes last: a kill before it can be followed by another --overwrite.
    for item in sorted(contents, key=lambda item: (item.name == CONFIG_FILE, item.suffix == ".json")):
        if item.is_dir() and not item.is_symlink():
            _delete_run(list(item.iterdir()))
            item.rmdir()
        else:
            item.unlink()


def provenance(verb: str) -> dict[str, Any]:
    """Return what made a file: verb, place for its configuration, versions, commit, machine."""
    packages = ("rldistill", "torch", "numpy", "gymnasium", "ale-py", "blosc2")
    return {
        "verb": verb,
        "config": {},
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}},
        "commit": _commit(),
        "processor": platform.machine(),
        "num_processors": os.cpu_count(),
    }


def recorded_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration as a policy's file, which is passed on, holds it: without where that was written."""
    return without_folders(plain({key: value for key, value in config.items() if value is not None}))


def without_folders(record: Any) -> Any:  # noqa: ANN401 (JSON)
    """Return what a file's record says, other files by their names alone, and nothing of where it was written."""
    if isinstance(record, list):
        return [without_folders(item) for item in cast(list[object], record)]
    if not isinstance(record, Mapping):
        return record
    return {
        key: Path(value).name if key in _FILES and isinstance(value, str) else without_folders(value)
        for key, value in cast(Mapping[str, object], record).items()
        if not (key in _OF_THE_WRITER and isinstance(value, str))
    }


@functools.cache
def _commit() -> str | None:
    """Return the commit of the source tree this package runs from, with `+changes` if it was edited."""
    git = shutil.which("git")
    root = Path(__file__).resolve().parents[3]
    if git is None or not (root / ".git").exists():
        return None

    def ask(*arguments: str) -> str:
        # Looking only: without optional locks, git writes nothing, whose half a full disk or a kill would leave behind.
        command = [git, "--no-optional-locks", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = ask("status", "--porcelain", "--untracked-files=no", "--", "src")
        return ask("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (subprocess.CalledProcessError, OSError):
        return None


def _check_same(folder: Path, options: Folder, values: Mapping[str, Any], may_differ: frozenset[str]) -> None:
    """Check that a resumed run has the configuration it began with.

    Args:
        folder: of the run.
        options: of this call; a run of a version that did not have one of them yet did what its default says.
        values: the resolved configuration of this call.
        may_differ: keys that do not change the result.

    Raises:
        RldistillError: lists what differs.
    """
    before = read_config(folder / CONFIG_FILE)
    defaults = default_values(type(options))
    later = {key: _in_toml(value) for key, value in defaults.items() if key not in before and value is not None}
    before |= {key: value for key, value in later.items() if values.get(key) is not None}
    for key in sorted(may_differ & before.keys() & values.keys()):
        then, now = _number_of(before[key]), _number_of(_in_toml(values[key]))
        if then != now:
            raise RldistillError(
                f"{folder}: the run was started with {then} {_NOUNS.get(key, key)}{'' if then == 1 else 's'}, this "
                f"command gives {now}. Give the same number, or --overwrite."
            )
    changed = changed_settings(before, values, keys=(before.keys() | values.keys()) - may_differ)
    if changed:
        raise RldistillError(
            f"{folder}: the run began with another configuration: {'; '.join(changed)}. Use the same, or --overwrite."
        )


def _number_of(value: object) -> int:
    return len(cast(list[object], value)) if isinstance(value, list) else 1


def begun_precision(folder: Path, precision: str) -> str:
    """Return the precision of a run that goes on: what `auto` stands for may differ on this processor."""
    path = folder / CONFIG_FILE
    if precision != "auto" or not path.is_file():
        return precision
    return str(read_config(path).get("precision", precision))


def changed_settings(before: dict[str, Any], values: Mapping[str, Any], *, keys: AbstractSet[str]) -> list[str]:
    """Return which of these settings differ, such as `num_threads was 1, is 2`."""
    now = {key: _in_toml(value) for key, value in values.items() if value is not None}
    return [
        f"{key} was {before.get(key, 'unset')}, is {now.get(key, 'unset')}"
        for key in sorted(keys)
        if before.get(key) != now.get(key)
    ]
