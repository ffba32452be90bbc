"""What a verb prints: its result, its configuration, and commands to be pasted."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from rldistill.cli.options import Flags
from rldistill.errors import printable
from rldistill.options.declaration import Options
from rldistill.options.shared import Folder, recorded


def write_result(flags: Flags, result: dict[str, Any], text: str) -> None:
    """Print a result: JSON on stdout for programs, else words on stderr for people."""
    if flags.json:
        sys.stdout.write(json.dumps(result, allow_nan=False) + "\n")
    elif not flags.quiet:
        # Names in it may come from a stranger's file.
        sys.stderr.write("".join(f"{plain_line(line)}\n" for line in text.rstrip("\n").split("\n")))


def write_options(options: Options | dict[str, Any], flags: Flags) -> None:
    """Print a resolved configuration, as TOML or as JSON."""
    import tomli_w

    from rldistill.session.run_folder import plain

    named = options if isinstance(options, dict) else recorded(options)
    values = {key: plain(value) for key, value in named.items() if value is not None}
    sys.stdout.write(json.dumps(values) + "\n" if flags.json else tomli_w.dumps(values))


def tell_if_new(options: Folder, out: Path, flags: Flags) -> None:
    """Say that there is nothing to go on with where `--resume` begins anew."""
    is_new = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    if options.resume and not flags.quiet and is_new:
        sys.stderr.write(f"--resume: nothing in {out} yet, beginning anew\n")


def quoted(value: object) -> str:
    """Return a path or a value as a shell takes it, in one line: what is printed to be pasted must survive a space."""
    text = str(value)
    return shlex.quote(text if text.isprintable() else printable(text))


def plain_line(line: str) -> str:
    """Return one line of a result as a terminal shows it, its columns kept: controls and bidi marks are spelt out."""
    return " ".join(printable(part) for part in line.split(" "))
