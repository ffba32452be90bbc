"""Options to configurations: tyro reads dataclasses, a TOML file stands below the command line."""

import contextlib
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from rldistill.errors import UsageError

Config = TypeVar("Config")


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
    """No progress, no words."""
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

    below = _toml_options(argv, config_type)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parsed: Any = tyro.cli(
                Arguments,
                prog=f"rldistill {verb}",
                description=f"{(config_type.__doc__ or '').strip()}\n\nExample: {example}",
                args=[*below, *argv],
                config=(tyro.conf.OmitSubcommandPrefixes,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UsageError(_one_line(errors.getvalue())) from None
    if parsed.flags.resume and parsed.flags.overwrite:
        raise UsageError("--resume and --overwrite exclude each other: one goes on with a run, the other deletes it.")
    return parsed.run, parsed.flags


def _toml_options(argv: Sequence[str], config_type: type[Any]) -> list[str]:
    """Return the options of the `--config` file as if they had been typed before all others."""
    paths = [following for option, following in zip(argv, argv[1:], strict=False) if option == "--config"]
    paths += [option.removeprefix("--config=") for option in argv if option.startswith("--config=")]
    if not paths:
        return []
    from rldistill.runs.run_folder import read_config

    known = {item.name for item in fields(config_type)}
    options: list[str] = []
    for key, value in read_config(Path(paths[-1])).items():
        if key not in known:
            raise UsageError(
                f"Configuration {paths[-1]}: unknown key {key!r}, expected one of {', '.join(sorted(known))}."
            )
        name = "--" + key.replace("_", "-")
        if isinstance(value, bool):
            options.append(name if value else f"--no-{name[2:]}")
        elif isinstance(value, list):
            items: list[object] = value  # pyright: ignore[reportUnknownVariableType]
            options += [name, *map(str, items)]
        else:
            options += [name, str(value)]
    return options


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


def write_result(flags: Flags, result: dict[str, Any], text: str) -> None:
    """Print a result: JSON on stdout for programs, else words on stderr for people."""
    if flags.json:
        import json

        sys.stdout.write(json.dumps(result, allow_nan=False) + "\n")
    elif not flags.quiet:
        sys.stderr.write(text.rstrip("\n") + "\n")


def write_configuration(config: Any) -> None:
    """Print a resolved configuration as TOML."""
    import tomli_w

    from rldistill.runs.config import config_values
    from rldistill.runs.run_folder import plain

    values = {key: plain(value) for key, value in config_values(config).items() if value is not None}
    sys.stdout.write(tomli_w.dumps(values))
