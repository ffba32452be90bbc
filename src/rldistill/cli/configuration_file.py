"""`--config FILE`: a TOML file whose keys are options; with sections named like verbs one file serves several."""

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

from rldistill.cli.main import VERBS
from rldistill.errors import UsageError


def values_for_verb(verb: str, path: Path, known: Collection[str]) -> dict[str, Any]:
    """Return what a file says to one verb: its keys at the top, and over them those in the section of its name.

    Raises UsageError: the file cannot be read, or names something that is not among the verb's options, `known`.
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


def _checked(values: Mapping[str, Any], known: Collection[str], place: str) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            raise UsageError(f"{place}: unknown key {key!r}{_nearest(name, known)}")
        if name in named:
            raise UsageError(f"{place}: {name} stands there twice, once as {key!r}. Leave one out.")
        named[name] = value
    return named


def _verb(section: str) -> str:
    return section.replace("_", "-")


def _nearest(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f". Did you mean {near[0]!r}?" if near else f", expected one of {', '.join(sorted(known))}."
