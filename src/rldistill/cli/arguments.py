"""Options to configurations: tyro reads dataclasses, a TOML file stands below the command line."""

import contextlib
import io
import json
import math
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import tyro

from rldistill.checks import check_path
from rldistill.cli.configuration_file import flag, toml_values
from rldistill.errors import UsageError, printable
from rldistill.verbs.config import EvaluateConfig, InspectConfig

Config = TypeVar("Config")
Value = TypeVar("Value")
Machine = TypeVar("Machine", EvaluateConfig, InspectConfig)


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
    """Check what can be checked without playing or training, print the resolved configuration and stop."""
    quiet: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """No progress and no words but warnings, errors, and the results of evaluate and inspect."""
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

    options, positionals = toml_values(verb, argv, config_type)
    errors, shown = io.StringIO(), _Page()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(shown):
            parsed: Any = tyro.cli(
                Arguments,
                prog=f"rldistill {verb}",
                description=f"{(config_type.__doc__ or '').strip()}\n\nExample: {example}",
                args=_whole_numbers(_spelled_out([*options, *argv], config_type), config_type),
                config=(tyro.conf.OmitSubcommandPrefixes,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            sys.stdout.write(_readable_help(shown.getvalue()))
            raise
        raise UsageError(_one_line(errors.getvalue())) from None
    if parsed.flags.resume and parsed.flags.overwrite:
        raise UsageError("--resume and --overwrite exclude each other: one goes on with a run, the other deletes it.")
    out = getattr(parsed.run, "out", None)
    if out is not None and parsed.flags.config is not None:
        from rldistill.session.run_folder import keep_inputs

        keep_inputs(out, [parsed.flags.config], overwrite=parsed.flags.overwrite)
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


def _readable_help(text: str) -> str:
    """Return a help text without what only says that an option may be left out, its columns as they are."""
    text = re.sub(r"\{None\}\|(\S+)", lambda found: found[1] + " " * len("{None}|"), text)
    text = re.sub(r"\{None,(\S+)\}", lambda found: "{" + found[1] + "}" + " " * len("None,"), text)
    # Also where it is broken into two lines, with the box's edge between them.
    return re.sub(r"\(default:([ │]*\n?[ │]*)None\)", lambda found: " " * 9 + found[1] + " " * 5, text)


class _Page(io.StringIO):
    """Text that may hold anything: without an encoding its writer would draw boxes of plain dashes."""

    encoding = "utf-8"  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]


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


def _whole_numbers(argv: Sequence[str], config_type: type[Any]) -> list[str]:
    """Let whole numbers be written as 1e4, and refuse others in words."""
    hints = get_type_hints(config_type).items()
    whole = {flag(name) for name, hint in hints if int in (get_args(hint) or (hint,))}
    words: list[str] = []
    for word in argv:
        option, equals, value = word.partition("=")
        if equals and option.replace("_", "-") in whole:
            words.append(f"{option}={_whole_number(option, value)}")
        elif words and words[-1].replace("_", "-") in whole and not word.startswith("--"):
            words.append(_whole_number(words[-1], word))
        else:
            words.append(word)
    return words


def _whole_number(option: str, text: str) -> str:
    if text == "None" or re.fullmatch(r"[+-]?\d[\d_]*", text):
        return text
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number.is_integer():
        raise UsageError(f"{option}: got {text!r}, expected a whole number.")
    return str(int(number))


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
    line = " ".join(parts[1:] if len(parts) > 1 else parts) or "wrong usage. See --help."
    line = re.sub(
        r"Error parsing (--\S+): no type matching \{None\}\|(INT|FLOAT) could be instantiated from \[('.*?')\].*",
        lambda found: f"{found[1]}: got {found[3]}, expected a {'whole number' if found[2] == 'INT' else 'number'}.",
        line,
    )
    return re.sub(
        r"Error parsing (--\S+): (invalid literal for int\(\) with base 10|could not convert string to float): ('.*')",
        lambda found: f"{found[1]}: got {found[3]}, expected a {'whole number' if 'int' in found[2] else 'number'}.",
        line,
    )


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


def tell_if_new(flags: Flags, out: Path) -> None:
    """Say that there is nothing to go on with where `--resume` begins anew."""
    is_new = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    if flags.resume and not flags.quiet and is_new:
        sys.stderr.write(f"--resume: nothing in {out} yet, beginning anew\n")


def quoted(value: object) -> str:
    """Return a path or a value as a shell takes it, in one line: what is printed to be pasted must survive a space."""
    text = str(value)
    return shlex.quote(text if text.isprintable() else printable(text))


def write_result(flags: Flags, result: dict[str, Any], text: str) -> None:
    """Print a result: JSON on stdout for programs, else words on stderr for people."""
    if flags.json:
        sys.stdout.write(json.dumps(result, allow_nan=False) + "\n")
    elif not flags.quiet:
        # Names in it may come from a stranger's file.
        sys.stderr.write("".join(f"{plain_line(line)}\n" for line in text.rstrip("\n").split("\n")))


def plain_line(line: str) -> str:
    """Return one line of a result as a terminal shows it, its columns kept: controls and bidi marks are spelt out."""
    return " ".join(printable(part) for part in line.split(" "))


def write_configuration(config: object, flags: Flags) -> None:
    """Print a resolved configuration, as TOML or as JSON."""
    import tomli_w

    from rldistill.session.run_folder import plain
    from rldistill.verbs.config import config_values

    values = {key: plain(value) for key, value in config_values(config).items() if value is not None}
    sys.stdout.write(json.dumps(values) + "\n" if flags.json else tomli_w.dumps(values))
