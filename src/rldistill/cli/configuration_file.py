"""`--config FILE`: a TOML file whose keys are options; with sections named like verbs one file serves several."""

import difflib
import json
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast, get_args, get_origin, get_type_hints

import tyro

from rldistill.cli.main import VERBS
from rldistill.errors import UsageError


def toml_values(verb: str, argv: Sequence[str], config_type: type[Any]) -> tuple[list[str], dict[str, Any]]:
    """Return what the `--config` file says: options as if typed before all others, and positionals by name.

    Args:
        verb: that is called.
        argv: its command line.
        config_type: its options.

    Raises:
        UsageError: the file cannot be read, or names something that the verb does not have.
    """
    paths = [following for option, following in pairwise(argv) if option == "--config"]
    paths += [option.removeprefix("--config=") for option in argv if option.startswith("--config=")]
    if not paths:
        return [], {}
    place = f"Configuration {paths[-1]}"
    hints = get_type_hints(config_type, include_extras=True)
    options: list[str] = []
    positionals: dict[str, Any] = {}
    for key, value in values_for_verb(verb, Path(paths[-1]), hints).items():
        marks, values = getattr(hints[key], "__metadata__", ()), _several(value)
        takes_several = get_origin(get_args(hints[key])[0] if marks else hints[key]) is tuple
        if not takes_several and len(values) != 1:
            raise UsageError(f"{place}: {key} is {value!r}, expected one value.")
        if tyro.conf.Positional in marks:
            is_text = str in get_args(get_args(hints[key])[0])
            given = tuple(str(item) if is_text else Path(str(item)) for item in values)
            positionals[key] = given if takes_several else given[0]
        # Repeated on the command line it would add to the file's values instead of replacing them.
        elif not (takes_several and _is_given(key, argv)):
            options += [word for item in values for word in _as_option(flag(key), item)]
    return options, positionals


def values_for_verb(verb: str, path: Path, known: Collection[str]) -> dict[str, Any]:
    """Return what a file says to one verb: its keys at the top, and over them those in the section of its name.

    Args:
        verb: that is called.
        path: of the file.
        known: names of the verb's options.

    Raises:
        UsageError: the file cannot be read, or names something that the verb does not have.
    """
    from rldistill.session.run_folder import read_config  # here: --help reads no file

    place, data = f"Configuration {path}", read_config(path)
    sections = {key: value for key, value in data.items() if isinstance(value, dict) and key not in known}
    for key in sections:
        if _verb(key) not in VERBS:
            raise UsageError(f"{place}: unknown section {key!r}{_nearest(_verb(key), VERBS)}")
    values = _checked({key: value for key, value in data.items() if key not in sections}, known, place)
    for key, section in sections.items():
        if _verb(key) == verb:
            values |= _checked(cast(dict[str, Any], section), known, f"{place}, section {key}")
    return values


def flag(key: str) -> str:
    """Return a field's name as an option."""
    return "--" + key.replace("_", "-")


def _checked(values: Mapping[str, Any], known: Collection[str], place: str) -> dict[str, Any]:
    named = {key.replace("-", "_"): value for key, value in values.items()}
    for key, name in zip(values, named, strict=True):
        if name not in known:
            raise UsageError(f"{place}: unknown key {key!r}{_nearest(name, known)}")
    return named


def _verb(section: str) -> str:
    return section.replace("_", "-")


def _nearest(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f". Did you mean {near[0]!r}?" if near else f", expected one of {', '.join(sorted(known))}."


def _several(value: object) -> list[object]:
    """Return the values that a TOML value stands for: those of a list, else itself; a table is an option's JSON."""
    if isinstance(value, dict):
        return [json.dumps(value)]
    return cast(list[object], value) if isinstance(value, list) else [value]


def _is_given(key: str, argv: Sequence[str]) -> bool:
    return any(word == flag(key) or word.startswith(f"{flag(key)}=") for word in argv)


def _as_option(name: str, value: object) -> list[str]:
    if isinstance(value, bool):
        return [name if value else f"--no-{name[2:]}"]
    # Joined by "=": a value such as -1 would look like an option of its own.
    return [f"{name}={value}"]
