"""A verb that fills a folder, called from the command line."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from rldistill.cli.options import Flags
from rldistill.cli.output import write_options
from rldistill.options.declaration import Options, Verb
from rldistill.options.shared import Folder

FolderT = TypeVar("FolderT", bound=Folder)
ResultT = TypeVar("ResultT")


def run_verb(
    verb: Verb[..., FolderT, ResultT],
    check: Callable[[FolderT], Options | dict[str, Any]],
    options: FolderT,
    out: Path,
    flags: Flags,
) -> ResultT | None:
    """Do a verb's work; None: a dry run, which prints what `check` makes of its options."""
    if flags.dry_run:
        write_options(check(options), flags)
        return None
    from rldistill.cli.progress import callbacks

    _tell_if_new(options, out, flags)
    with callbacks(quiet=flags.quiet) as listeners:
        return verb.of(replace(options, callbacks=listeners))


def _tell_if_new(options: Folder, out: Path, flags: Flags) -> None:
    """Say that there is nothing to go on with where `--resume` begins anew."""
    is_new = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    if options.resume and not flags.quiet and is_new:
        sys.stderr.write(f"--resume: nothing in {out} yet, beginning anew\n")
