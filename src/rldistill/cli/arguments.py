"""Options to configurations: tyro reads dataclasses, a TOML file stands below the command line."""

import contextlib
import io
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro

from rldistill.checks import check_path
from rldistill.errors import UsageError, printable
from rldistill.runs.config import CollectConfig, EvaluateConfig, InspectConfig, QuickstartConfig

Config = TypeVar("Config")
Value = TypeVar("Value")
Machine = TypeVar("Machine", CollectConfig, EvaluateConfig, InspectConfig, QuickstartConfig)


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Options of every verb that works."""

    config: Path | None = None
    """TOML file with options; those on the command line override it."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with an earlier run in --out."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Delete an earlier run in --out first."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the resolved configuration and stop."""
    quiet: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """No progress, no words but warnings and errors."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the result as JSON on stdout."""


def parse(verb: str, config_type: type[Config], argv: Sequence[str], *, example: str) -> tuple[Config, Flags]:
    """Read one verb's options.

    Args:
        verb: its name.
        config_type: a frozen dataclass; the docstrings of its fields are the help.
        argv: what follows the verb.
        example: a command that works, for the help.

    Raises:
        UsageError: one line, whatever tyro's boxes say.
    """

    @dataclass(frozen=True)
    class Arguments:
        run: Annotated[config_type, tyro.conf.arg(name="")]  # pyright: ignore[reportInvalidTypeForm]
        flags: Annotated[Flags, tyro.conf.arg(name="")]

    options, positionals = _toml_values(argv, config_type)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parsed: Any = tyro.cli(
                Arguments,
                prog=f"rldistill {verb}",
                description=f"{(config_type.__doc__ or '').strip()}\n\nExample: {example}",
                args=_spelled_out([*options, *argv], config_type),
                config=(tyro.conf.OmitSubcommandPrefixes,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UsageError(_one_line(errors.getvalue())) from None
    if parsed.flags.resume and parsed.flags.overwrite:
        raise UsageError("--resume and --overwrite exclude each other: one goes on with a run, the other deletes it.")
    # A dataset named on the command line replaces the file's; two positionals would add up.
    missing = {name: value for name, value in positionals.items() if not getattr(parsed.run, name)}
    config = replace(parsed.run, **missing)
    _check_paths(config)
    return config, parsed.flags


def _check_paths(config: object) -> None:
    """Check every path of a configuration before anything is opened or made there."""
    for name, value in vars(config).items():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Path):
                check_path(name, item)


def _toml_values(argv: Sequence[str], config_type: type[Any]) -> tuple[list[str], dict[str, Any]]:
    """Return what the `--config` file says: options as if typed before all others, and positionals by name."""
    paths = [following for option, following in pairwise(argv) if option == "--config"]
    paths += [option.removeprefix("--config=") for option in argv if option.startswith("--config=")]
    if not paths:
        return [], {}
    from rldistill.runs.run_folder import read_config

    hints = get_type_hints(config_type, include_extras=True)
    options: list[str] = []
    positionals: dict[str, Any] = {}
    for key, value in read_config(Path(paths[-1])).items():
        if key not in hints:
            known = ", ".join(sorted(hints))
            raise UsageError(f"Configuration {paths[-1]}: unknown key {key!r}, expected one of {known}.")
        if tyro.conf.Positional in getattr(hints[key], "__metadata__", ()):
            positionals[key] = tuple(map(Path, value)) if isinstance(value, list) else Path(value)
        elif tyro.conf.UseAppendAction in getattr(hints[key], "__metadata__", ()):
            # Repeated on the command line it would add to the file's values instead of replacing them.
            if not any(word == _flag(key) or word.startswith(f"{_flag(key)}=") for word in argv):
                values = value if isinstance(value, list) else [value]
                options += [word for item in values for word in _as_option(_flag(key), item)]
        else:
            options += _as_option(_flag(key), value)
    return options, positionals


def repeated(argv: Sequence[str], option: str) -> list[str]:
    """Return a command line in which an option stands before each of its values: `-o a b` is `-o a -o b`.

    Only after a positional argument: before it, the second value may be one.
    """
    if not argv or argv[0].startswith("-"):
        return list(argv)
    words: list[str] = []
    for word in argv:
        if words[-2:-1] == [option] and not word.startswith("-"):
            words.append(option)
        words.append(word)
    return words


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")


def _spelled_out(argv: Sequence[str], config_type: type[Any]) -> list[str]:
    """Let `--layer-norm` and `--no-layer-norm` be written also where a third choice is to say nothing."""
    optional = {name.replace("_", "-") for name, hint in get_type_hints(config_type).items() if hint == bool | None}
    words: list[str] = []
    for word, following in zip(argv, [*argv[1:], ""], strict=False):
        name = word.removeprefix("--").removeprefix("no-").replace("_", "-")
        if word.startswith("--") and name in optional and following not in ("True", "False", "None"):
            words += [f"--{name}", str(not word.startswith("--no-"))]
        else:
            words.append(word)
    return words


def _as_option(name: str, value: object) -> list[str]:
    if isinstance(value, bool):
        return [name if value else f"--no-{name[2:]}"]
    # Joined by "=": a value such as -1 would look like an option of its own.
    return [f"{name}={value}"]


def _one_line(text: str) -> str:
    """Return what tyro's box says before it turns to help texts."""
    parts: list[str] = []
    for line in text.splitlines():
        words = line.strip(" │╭╮╰╯─|")
        if re.match(r"(For full helptext|Argument helptext)", words):
            break
        if words and not re.fullmatch(r"[-─╭╮╰╯ ]+", words):
            parts.append(words.strip())
    # The first part is the box's title, such as "Value error".
    return " ".join(parts[1:] if len(parts) > 1 else parts) or "wrong usage. See --help."


def require(value: Value | None, what: str, example: str) -> Value:
    """Return a positional argument that may also come from a TOML file.

    Raises:
        UsageError: neither gave it.
    """
    if value is None:
        raise UsageError(f"missing argument: expected {what}, such as in `{example}`.")
    return value


def resolve_machine(config: Machine) -> Machine:
    """Return a configuration with device and threads as they will be used here.

    Raises:
        UsageError: there is no such device.
    """
    import torch

    from rldistill.types import resolve_device

    device = resolve_device(config.device).type
    return replace(config, device=device, num_threads=config.num_threads or torch.get_num_threads())


def quoted(value: object) -> str:
    """Return a path or a value as a shell takes it: what is printed to be pasted must survive a space."""
    return shlex.quote(str(value))


def write_result(flags: Flags, result: dict[str, Any], text: str) -> None:
    """Print a result: JSON on stdout for programs, else words on stderr for people."""
    if flags.json:
        import json

        sys.stdout.write(json.dumps(result, allow_nan=False) + "\n")
    elif not flags.quiet:
        # Names in it may come from a stranger's file.
        sys.stderr.write("".join(f"{plain_line(line)}\n" for line in text.rstrip("\n").split("\n")))


def plain_line(line: str) -> str:
    """Return one line of a result as a terminal shows it, its columns kept: controls and bidi marks are spelt out."""
    return " ".join(printable(part) for part in line.split(" "))


def write_configuration(config: object) -> None:
    """Print a resolved configuration as TOML."""
    import tomli_w

    from rldistill.runs.config import config_values
    from rldistill.runs.run_folder import plain

    values = {key: plain(value) for key, value in config_values(config).items() if value is not None}
    sys.stdout.write(tomli_w.dumps(values))
