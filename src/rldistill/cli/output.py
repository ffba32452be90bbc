"""What a verb prints: its result, its configuration, and commands to be pasted."""

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from rldistill.cli.options import Flags
from rldistill.cli.stdout import write_out
from rldistill.errors import RldistillError, printable
from rldistill.options.declaration import Options
from rldistill.options.quickstart import QuickstartOptions
from rldistill.options.shared import recorded
from rldistill.options.shrink import ShrinkOptions


def write_result(flags: Flags, result: dict[str, Any], text: str) -> None:
    """Print a result: JSON on stdout for programs, else words on stderr for people."""
    if flags.json:
        write_out(json.dumps(result, allow_nan=False) + "\n")
    elif not flags.quiet:
        # Names in it may come from a stranger's file.
        sys.stderr.write("".join(f"{plain_line(line)}\n" for line in text.rstrip("\n").split("\n")))


def write_options(options: Options | dict[str, Any], flags: Flags) -> None:
    """Print a resolved configuration, as TOML or as JSON."""
    from rldistill.session.run_folder import plain, toml_text

    named = options if isinstance(options, dict) else recorded(options)
    if not flags.json:
        write_out(toml_text(named))
        return
    values = {key: plain(value) for key, value in named.items() if value is not None}
    write_out(json.dumps(values, allow_nan=False) + "\n")


def quoted(value: object) -> str:
    """Return a path or a value as a shell takes it, in one line: what is printed to be pasted must survive a space."""
    text = str(value)
    return shlex.quote(text if text.isprintable() else printable(text))


def teacher_words(options: ShrinkOptions | QuickstartOptions) -> str:
    """Return the options that name a teacher, or several of a task, and say how it is read and what it sees."""
    given = options.teacher
    files: list[object] = [*given] if isinstance(given, tuple) else [given]
    sees = {"choose": options.choose, "teacher_sees": options.teacher_sees}
    said = {**options.as_reading().to_dict(), **sees, "names": options.names if any(sees.values()) else None}
    words = words_of([*(("teacher", file) for file in files), *said.items()])
    return f"{words} --trust" if options.trust else words


def task_words(tasks: Sequence[object], settings: Mapping[str, Any] | None = None) -> str:
    """Return the options that name tasks which a file may not choose: of a module, or with settings of the user's.

    Nothing of a module that was not imported: the user named none, and a record may be a stranger's.
    """
    from rldistill.envs.task_modules import module_of  # here: --help needs no environments

    names = [task for task in tasks if isinstance(task, str)]  # on the command line all that are given
    modules = {module for name in names if (module := module_of(name)) is not None}
    if not modules <= sys.modules.keys() or not (modules or settings):
        return ""
    return words_of([("task", names), ("env_kwargs", json.dumps(dict(settings)) if settings else None)])


def words_of(said: Iterable[tuple[str, object]]) -> str:
    """Return options as a command line gives them; None is left out."""
    return " ".join(f"--{name.replace('_', '-')} {quoted(_typed(value))}" for name, value in said if value is not None)


def _typed(value: object) -> object:
    """Return a value as it is typed: names with commas between, spans of a vector as `name=0:3`."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, cast(Sequence[object], value)))
    if not isinstance(value, Mapping):
        return value
    spans = cast(Mapping[str, Sequence[int]], value).items()
    return ",".join(f"{name}={':'.join(map(str, span))}{':' * (len(span) == 1)}" for name, span in spans)


def drawn(draw: Callable[[], Path], *, otherwise: str = "") -> str:
    """Return where a figure was drawn, or why it was not: the work itself is done and kept."""
    try:
        return str(draw())
    except RldistillError as error:
        return f"{otherwise}not drawn: {error}"


def plain_line(line: str) -> str:
    """Return one line of a result as a terminal shows it, its columns kept: controls and bidi marks are spelt out."""
    return " ".join(printable(part) for part in line.split(" "))
