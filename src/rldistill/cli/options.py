"""A command line and a TOML file become records of options.

tyro finds the words that belong to each option and writes the help; `text` says what they mean. A TOML file holds
native values, and text in it is read as on the command line, which stands above the file.
"""

import contextlib
import difflib
import io
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, ClassVar, TypeVar, cast, get_args, get_origin

import tyro

from rldistill.cli.configuration_file import values_for_verb
from rldistill.cli.stdout import write_out
from rldistill.cli.text import flag, held_by, members_of, read_text
from rldistill.errors import UsageError
from rldistill.options.declaration import check_option, option_help, option_types

Record = TypeVar("Record")

# Options of one call: a file that gives the same result again does not hold them.
_OF_THE_CALL = frozenset({"config", "resume", "overwrite", "dry_run", "quiet", "json"})
# Given in Python alone.
_NEVER_TYPED = frozenset({"callbacks"})


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What every verb takes."""

    help_title: ClassVar[str] = "general"
    config: Path | None = None
    """TOML file with options; those on the command line override it."""
    dry_run: bool = False
    """Check what can be checked without playing or training, print the resolved configuration and stop."""
    quiet: bool = False
    """Print no progress and no notes: only warnings, errors, and the results of evaluate, inspect and shrink."""
    json: bool = False
    """Print the result as JSON on stdout."""


@dataclass(frozen=True)
class Given:
    """What a command line and its TOML file say."""

    values: Mapping[str, Any]  # of the options that were given, by name
    flags: Flags  # of the call

    @property
    def teacher(self) -> Any:  # noqa: ANN401 as the options of a verb take it
        """The teacher's file where one is named, else the files of several; None: none is."""
        files = self.values.get("teacher", ())
        return files[0] if len(files) == 1 else files or None

    def make(self, record: type[Record], **others: object) -> Record:
        """Return a record of the options that were given, with values of one's own over them.

        Raises UsageError: a value is not what its option takes.
        """
        own = {name: self.values[name] for name in option_types(record) if name in self.values} | others
        for name, value in own.items():
            check_option(cast(type[Any], record), name, value)
        for item in fields(cast(Any, record)):
            if item.default is MISSING and item.name not in own:
                raise UsageError(f"{flag(item.name)} is missing: {option_help(record)[item.name]}")
        made = record(**own)
        out = getattr(made, "out", None)
        if self.flags.config is not None and out is not None:
            from rldistill.session.run_folder import keep_inputs  # here: --help reads no file

            keep_inputs(Path(out), [self.flags.config], overwrite=getattr(made, "overwrite", False))
        return made


@dataclass(frozen=True)
class _Option:
    """An option as it is declared."""

    name: str  # of the field
    members: tuple[Any, ...]  # the types of its values, without None
    help: str  # the docstring of the field
    default: Any  # in Python; None also where there is none
    is_required: bool  # whether there is no default
    is_positional: bool  # whether it is written without its name

    @property
    def is_switch(self) -> bool:
        """Whether it is written without a value."""
        return self.members == (bool,)

    @property
    def takes_several(self) -> bool:
        """Whether it may be given several times: a list of files."""
        return any(get_origin(member) in (tuple, Sequence) and Path in held_by(member) for member in self.members)

    @property
    def metavar(self) -> str | None:
        """What the help shows in place of a value."""
        kinds = [get_origin(member) or member for member in self.members]
        if self.is_switch:
            return None
        if self.takes_several or Path in kinds:
            return "PATH"
        is_json = kinds == [Mapping] and get_args(self.members[0])[1] is Any
        known = {int: "INT", float: "FLOAT", Mapping: "JSON" if is_json else "TEXT"}
        return known.get(kinds[0], "TEXT") if len(kinds) == 1 else "TEXT"

    def as_field(self) -> tuple[str, Any, Any]:
        """Return it as tyro reads it: a truth value, or text."""
        says_nothing = self.default is None or self.default is False or self.default == ()
        default = "" if says_nothing else f"(default: {self.default})"
        shown = "(required)" if self.is_required and not self.is_positional else default
        details = tyro.conf.arg(help=self.help, metavar=self.metavar, help_behavior_hint=shown, prefix_name=False)
        if self.is_switch:
            # Only what may already be on needs a way to turn it off.
            marks = () if self.default is None or self.default else (tyro.conf.FlagCreatePairsOff,)
            return self.name, Annotated[(bool, details, *marks)], field(default=bool(self.default))
        place: tuple[Any, ...] = (tyro.conf.Positional,) if self.is_positional else ()
        if not self.takes_several:
            return self.name, Annotated[(str | None, details, *place)], field(default=None)
        place = place or (tyro.conf.UseAppendAction,)
        return self.name, Annotated[(tuple[str, ...], details, *place)], field(default=())

    def value(self, said: object) -> object:
        """Return what text stands for; whatever else a TOML file holds stays what it is.

        Raises UsageError: the text has not the form of such a value.
        """
        if self.takes_several:
            items = cast(Sequence[Any], said if isinstance(said, list | tuple) else (said,))
            if "" in items:  # a shell's variable that is not set; as a path it would be the current folder
                raise UsageError(f"{self.name}: got '', expected a path.")
            return tuple(Path(str(item)) for item in items)
        return read_text(self.name, said, self.members) if isinstance(said, str) else said


def read_options(
    verb: str,
    records: Sequence[type[Any]],
    argv: Sequence[str],
    *,
    example: str,
    positional: str | None = None,
    expected: str = "",
    left_out: Collection[str] = (),
    text_values: Mapping[str, Callable[[str], object]] | None = None,
) -> Given:
    """Read one verb's options.

    Args:
        verb: its name.
        records: that declare its options, the verb's own first; of two of the same name the first counts.
        argv: what follows the verb.
        example: a command that works, for the help.
        positional: name of the option that is written without `--`.
        expected: what it names, for the error of a command line without it; empty where it may be left out.
        left_out: names of options that no command line gives.
        text_values: by option, what its text stands for, where the type does not say it: a time such as 10m.

    Raises:
        UsageError: one line, whatever tyro's boxes say.
    """
    groups = _groups([*records, Flags], positional, {*left_out, *_NEVER_TYPED})
    options = {option.name: option for group in groups.values() for option in group}
    if positional is not None and _is_given(positional, argv):
        raise UsageError(f"{flag(positional)} is no option of {verb}: its value stands alone, as in `{example}`.")
    _check_known(verb, argv, [name for name in options if name != positional])
    # First: the help needs no file, and all that a file says needs the names of the options.
    words = _parse(verb, groups, argv, f"{(records[0].__doc__ or '').strip()}\n\nExample: {example}")
    typed = {name: word for name, word in words.items() if _is_given(name, argv) or (name == positional and word)}
    path = None if "config" not in typed else Path(typed.pop("config"))
    said = {} if path is None else values_for_verb(verb, path, options.keys() - _OF_THE_CALL)
    special = text_values or {}
    values: dict[str, Any] = {
        name: special[name](value) if name in special and isinstance(value, str) else options[name].value(value)
        for name, value in (said | typed).items()
    }
    if expected and positional not in values:
        raise UsageError(f"missing argument: expected {expected}, such as in `{example}`.")
    flags = Flags(config=path, **{item.name: values.pop(item.name) for item in fields(Flags) if item.name in values})
    return Given(values, flags)


def _check_known(verb: str, argv: Sequence[str], names: Sequence[str]) -> None:
    """Check that the options of a command line exist; tyro answers a misspelt one with whole help texts."""
    known = {"--help", *(word for name in names for word in (flag(name), f"--no-{flag(name)[2:]}"))}
    for word in argv:
        option = word.partition("=")[0].replace("_", "-")
        if not option.startswith("--") or option in known:
            continue
        near = difflib.get_close_matches(option[2:], sorted(flag(name)[2:] for name in names), n=2)
        hint = f" Did you mean --{' or --'.join(near)}?" if near else ""
        raise UsageError(f"unknown option {option}.{hint} `rldistill {verb} --help` lists them all.")


def _groups(
    records: Sequence[type[Any]], positional: str | None, left_out: Collection[str]
) -> dict[type[Any], list[_Option]]:
    """Return the options by the class that declares them; help shows those of one class together."""
    groups: dict[type[Any], list[_Option]] = {}
    seen: set[str] = {*left_out}
    for record in records:
        helps, types = option_help(record), option_types(record)
        defaults = {item.name: item.default for item in fields(record)}
        for owner in record.__mro__:
            for name in [name for name in vars(owner).get("__annotations__", {}) if name in types and name not in seen]:
                seen.add(name)
                default = defaults[name]
                option = _Option(
                    name,
                    tuple(member for member in members_of(types[name]) if member is not NoneType),
                    helps.get(name, ""),
                    None if default is MISSING else default,
                    default is MISSING,
                    name == positional,
                )
                groups.setdefault(owner, []).append(option)
    return groups


def _parse(
    verb: str, groups: Mapping[type[Any], Sequence[_Option]], argv: Sequence[str], description: str
) -> dict[str, Any]:
    """Return the words of each option: text, lists of text, or truth values."""
    parts: list[tuple[str, Any]] = []
    for owner, options in groups.items():
        part = make_dataclass(owner.__name__, [option.as_field() for option in options])
        # The verb's own options have its whole description above them.
        part.__doc__ = "" if not parts else owner.__doc__
        title = vars(owner).get("help_title", owner.__name__.lower())
        parts.append((title, Annotated[part, tyro.conf.arg(name="" if not parts else title)]))
    command = make_dataclass("Command", [(title.replace(" ", "_"), part) for title, part in parts])
    errors, shown = io.StringIO(), _Page()
    switches = {flag(option.name) for options in groups.values() for option in options if option.is_switch}
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(shown):
            words = _as_switches(argv, switches)
            parsed = tyro.cli(command, prog=f"rldistill {verb}", description=description, args=words)
    except SystemExit as stop:
        if stop.code in (0, None):
            write_out(shown.getvalue())
            raise
        raise UsageError(_one_line(verb, errors.getvalue())) from None
    return {name: value for part in vars(parsed).values() for name, value in vars(part).items()}


def _as_switches(argv: Sequence[str], switches: Collection[str]) -> list[str]:
    """Return a command line in which `--option True` is `--option`, and `--option False` is `--no-option`."""
    words: list[str] = []
    for word in argv:
        option = words[-1].replace("_", "-") if words else ""
        if word in ("True", "False") and option in switches:
            words[-1] = option if word == "True" else f"--no-{option[2:]}"
        else:
            words.append(word)
    return words


class _Page(io.StringIO):
    """Text that may hold anything: without an encoding its writer would draw boxes of plain dashes."""

    encoding = "utf-8"  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]


def _one_line(verb: str, text: str) -> str:
    """Return what tyro's box says before it turns to help texts."""
    parts: list[str] = []
    for line in text.splitlines():
        words = line.strip(" │╭╮╰╯─|")
        if re.match(r"(For full helptext|Argument helptext|Perhaps you meant)", words):
            break
        if words and not re.fullmatch(r"[-─╭╮╰╯ ]+", words):
            parts.append(words.strip())
    # The first part is the box's title, such as "Value error".
    said = " ".join(parts[1:] if len(parts) > 1 else parts) or "wrong usage. See --help."
    said = re.sub(
        r"Missing value for argument '(.+?)'\. Expected 1 values\.", r"\1: got nothing, expected a value.", said
    )
    return re.sub(
        r"Unrecognized options: (.+)",
        rf"got \1, which no option takes. `rldistill {verb} --help` lists them all.",
        said,
    )


def _is_given(name: str, argv: Sequence[str]) -> bool:
    words = {word.partition("=")[0].replace("_", "-") for word in argv if word.startswith("--")}
    return not words.isdisjoint((flag(name), f"--no-{flag(name)[2:]}"))


def repeated_teachers(argv: Sequence[str]) -> list[str]:
    """Return a command line in which `--teacher a b` is `--teacher a --teacher b`.

    Only after a positional argument: before it, the second value may be one.
    """
    if not argv or argv[0].startswith("-"):
        return list(argv)
    words: list[str] = []
    for word in argv:
        if words[-2:-1] == ["--teacher"] and not word.startswith("-"):
            words.append("--teacher")
        words.append(word)
    return words
