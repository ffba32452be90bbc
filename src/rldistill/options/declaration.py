"""Options of verbs: declared once, as the fields of a frozen record, for Python, the command line and TOML alike.

A verb is a function of one record of options, and `verb` gives it the record's own arguments:

    @dataclass(frozen=True)
    class CollectOptions(Machine):
        teacher: PolicyLike
        _: KW_ONLY
        num_steps: Annotated[int, AtLeast(1)] = 50_000
        '''Decisions to store in all.'''

    @verb(CollectOptions)
    def collect(options: CollectOptions) -> CollectionSummary: ...

    collect("pong.zip", num_steps=1_000)

The name, the type with its range, the default and the docstring of a field stand there and nowhere else: the record
checks its values when it is made, editors complete `collect` from it, `cli/options.py` makes the command line of it,
and `config.toml` holds its values. Options that several verbs share are records of their own, which verbs' records
extend. Nothing heavy is imported here: the command line comes here first.
"""

import ast
import functools
import inspect
import math
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from itertools import pairwise
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, ParamSpec, Protocol, TypeVar, Union, cast, get_args, get_origin
from typing import get_type_hints as type_hints

from rldistill.checks import check_path
from rldistill.errors import UsageError

Arguments = ParamSpec("Arguments")
Record = TypeVar("Record")
Taken = TypeVar("Taken", contravariant=True)
Result = TypeVar("Result", covariant=True)

_IN_WORDS: Mapping[object, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "True or False",
    Path: "a path",
    Mapping: "a mapping",
    Sequence: "a list",
}


@dataclass(frozen=True)
class AtLeast:
    """Finite numbers from `least` on."""

    least: float

    def problem(self, value: float) -> str | None:
        """Return what is wrong with a value, None if nothing is."""
        if value == math.inf:
            return f"must be a finite number, {self.least:g} or more"
        return None if self.least <= value else f"must be {self.least:g} or more"


@dataclass(frozen=True)
class Above:
    """Finite numbers greater than `bound`."""

    bound: float

    def problem(self, value: float) -> str | None:
        """Return what is wrong with a value, None if nothing is."""
        if value == math.inf:
            return f"must be a finite number > {self.bound:g}"
        return None if value > self.bound else f"must be > {self.bound:g}"


@dataclass(frozen=True)
class Between:
    """Numbers in [low, high]."""

    low: float
    high: float

    def problem(self, value: float) -> str | None:
        """Return what is wrong with a value, None if nothing is."""
        return None if self.low <= value <= self.high else f"must lie in [{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class PythonOnly:
    """Marks a type that has values besides those that the annotation names: objects, which its user checks."""


PathLike = str | Path
Share = Annotated[float, Between(0, 1)]
Count = Annotated[int, AtLeast(1)]


class Options:
    """Base of all records of options; subclasses are frozen dataclasses.

    `help_title` of a group that verbs share is its heading in the command line's help.
    """

    def __post_init__(self) -> None:
        """Check every value against its declaration; a record with conditions of its own adds them to this.

        Raises:
            UsageError: names the option, its value and what was expected.
        """
        check_types(self)


def check_types(record: object) -> None:
    """Check that the fields of a frozen record are what their annotations say: from Python anything may come.

    Whole numbers such as 1e4 become integers, texts become paths where a path is expected, NumPy's numbers Python's.

    Raises:
        UsageError: names the field, its value and what was expected.
    """
    for name in _hints(type(record)):
        object.__setattr__(record, name, check_option(type(record), name, getattr(record, name)))


def check_option(record: type[Any], name: str, value: object) -> object:
    """Return a value of one of a record's options as its annotation has it.

    Raises:
        UsageError: names the option, its value and what was expected.
    """
    hint, marks = _without_marks(_hints(record)[name])
    if any(isinstance(mark, PythonOnly) for mark in marks):
        return _converted(value, (int if isinstance(value, Integral) else float,))
    value = _checked(value, hint, name)
    for allowed in [mark for mark in marks if isinstance(mark, AtLeast | Above | Between)]:
        problem = None if value is None else allowed.problem(cast(float, value))
        if problem is not None:
            raise UsageError(f"{name} {problem}, got {value}.")
    return value


@functools.cache
def _hints(record: type[Any]) -> dict[str, Any]:
    """Return the annotations of a record's fields: its own, then those of its bases in their order."""
    hints, known = type_hints(record, include_extras=True), {item.name for item in fields(record)}
    declared = (name for owner in record.__mro__ for name in vars(owner).get("__annotations__", {}))
    return {name: hints[name] for name in declared if name in known}


def option_types(record: type[Any]) -> dict[str, Any]:
    """Return the annotations of a record's options by name, without ranges and marks."""
    return {name: _without_marks(hint)[0] for name, hint in _hints(record).items()}


def values(record: object) -> dict[str, Any]:
    """Return a record's options and their values: its own, then those of its bases in their order."""
    return {name: getattr(record, name) for name in _hints(type(record))}


def default_values(record: type[Any]) -> dict[str, Any]:
    """Return the defaults of a record's options, without those that have none."""
    return {item.name: item.default for item in fields(record) if item.default is not MISSING}


def option_help(record: type[Any]) -> dict[str, str]:
    """Return the docstrings of a record's options; its own replace those of its bases."""
    return {name: text for owner in reversed(record.__mro__) for name, text in _own_help(owner).items()}


@functools.cache
def _own_help(record: type[Any]) -> dict[str, str]:
    """Return the docstrings under the fields that a class declares itself."""
    if not is_dataclass(record):
        return {}
    definition = _classes_in(record.__module__)[record.__name__]
    texts: dict[str, str] = {}
    for statement, following in pairwise(definition.body):
        if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr):
            assert isinstance(statement.target, ast.Name)
            texts[statement.target.id] = " ".join(str(ast.literal_eval(following.value)).split())
    return texts


@functools.cache
def _classes_in(module: str) -> dict[str, ast.ClassDef]:
    """Return the classes of a module by name; parsed once for all of them, which takes most of the time."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


class Verb(Protocol[Arguments, Taken, Result]):
    """A function of the public face."""

    def __call__(self, *arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        """Do the work with these options."""
        ...

    def of(self, options: Taken) -> Result:
        """Do the work with a record of options."""
        ...


def verb(
    record: Callable[Arguments, Record],
) -> Callable[[Callable[[Record], Result]], Verb[Arguments, Record, Result]]:
    """Give a function of a record of options the record's own arguments.

    Args:
        record: class of the options.

    Returns:
        A decorator. The function that it returns makes the record, which checks its values, and calls the function
        with it; its signature and its `Args` are the record's.
    """

    def decorate(function: Callable[[Record], Result]) -> Verb[Arguments, Record, Result]:
        @functools.wraps(function)
        def call(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
            return function(_made(record, function.__name__, *arguments, **options))

        made = cast(Any, call)  # a plain function, for `help` and `inspect`
        made.of = function
        made.__signature__ = _signature(cast(type[Any], record), function)
        texts = option_help(cast(type[Any], record))
        ordered = {name: texts[name] for name in made.__signature__.parameters if name in texts}
        made.__doc__ = _with_arguments(function.__doc__ or "", ordered)
        return cast(Verb[Arguments, Record, Result], made)

    return decorate


def _made(
    record: Callable[Arguments, Record], name: str, *arguments: Arguments.args, **options: Arguments.kwargs
) -> Record:
    """Return a record; Python's errors about arguments name the function that was called."""
    try:
        return record(*arguments, **options)
    except TypeError as error:
        own = f"{cast(type[Any], record).__name__}.__init__()"
        if not str(error).startswith(own):
            raise
        raise TypeError(str(error).replace(own, f"{name}()", 1)) from None


def _signature(record: type[Any], function: Callable[..., Any]) -> inspect.Signature:
    """Return the arguments of a record in the order of its options, with what the function returns."""
    given, declared = inspect.signature(record).parameters, _declared_objects(record)
    parameters = [
        given[name].replace(annotation=declared.get(name, _without_marks(hint)[0]))
        for name, hint in _hints(record).items()
    ]
    parameters.sort(key=lambda parameter: parameter.kind)  # stable: positional arguments first
    return inspect.Signature(parameters, return_annotation=inspect.signature(function).return_annotation)


def _declared_objects(record: type[Any]) -> dict[str, str]:
    """Return the types, as they are written, of options that take objects besides what can be typed.

    At run time their annotations are narrower: only the types that need no import of torch.
    """
    found: dict[str, str] = {}
    for owner in reversed(record.__mro__):
        for statement in _classes_in(owner.__module__)[owner.__name__].body if is_dataclass(owner) else ():
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                head, ends_with_mark, _ = ast.unparse(statement.annotation).strip("'").partition(", PythonOnly()]")
                if ends_with_mark:
                    found[statement.target.id] = head.removeprefix("Annotated[")
    return found


def _with_arguments(text: str, options: Mapping[str, str]) -> str:
    """Return a docstring with an `Args` section before its other sections."""
    text = inspect.cleandoc(text)
    first = min((at for title in ("Returns:", "Raises:") if (at := text.find(f"\n\n{title}")) >= 0), default=len(text))
    head, rest = text[:first], text[first:]
    lines = [
        textwrap.fill(f"{name}: {said}", 120, initial_indent=" " * 4, subsequent_indent=" " * 8)
        for name, said in options.items()
    ]
    return "\n".join([head, "", "Args:", *lines]) + rest


def _without_marks(hint: object) -> tuple[Any, tuple[Any, ...]]:
    """Return an annotation without its marks, and the marks; those of a member of a union count for the whole."""
    if get_origin(hint) is Annotated:
        declared = cast(Any, hint)
        inner, marks = _without_marks(declared.__origin__)
        return inner, (*marks, *declared.__metadata__)
    if isinstance(hint, UnionType) or get_origin(hint) is Union:
        members = [_without_marks(member) for member in get_args(hint)]
        return Union[tuple(member for member, _ in members)], tuple(mark for _, marks in members for mark in marks)  # noqa: UP007 of a tuple
    return hint, ()


def _checked(value: object, hint: object, name: str) -> object:
    """Return a value as its annotation has it.

    Raises:
        UsageError: it is of no type that the annotation names.
    """
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    choices = [choice for member in members if get_origin(member) is Literal for choice in get_args(member)]
    types: tuple[Any, ...] = tuple(get_origin(item) or item for item in members if get_origin(item) is not Literal)
    if Any in types or value in [choice for choice in choices if type(choice) is type(value)]:
        return value
    if any(get_origin(member) is Sequence and get_args(member) == (int,) for member in members):
        value = _whole_numbers(value)
    value = _converted(value, types)
    if isinstance(value, str) and not value and Path in types:
        raise UsageError(f"{name}: got '', expected a path.")
    fits = isinstance(value, types) and not (isinstance(value, bool) and bool not in types)
    if fits and isinstance(value, Path):
        check_path(name, value)
    # A text is a sequence too, and a list of one character each is never meant.
    if fits and not (isinstance(value, str) and str not in types):
        for member in members:
            if get_origin(member) is Mapping and isinstance(value, Mapping):
                _check_members(cast(Mapping[object, object], value), get_args(member)[0], f"key of {name}")
                _check_members(cast(Mapping[str, object], value).values(), get_args(member)[1], name)
            elif get_origin(member) is Sequence and isinstance(value, list | tuple):
                _check_members(cast(Sequence[object], value), get_args(member)[0], name)
        return value
    words = [*map(str, choices), *(_IN_WORDS.get(item, item.__name__) for item in types if item is not NoneType)]
    raise UsageError(f"{name}: got {value!r}, expected {_one_of(words)}.")


def _check_members(items: Iterable[object], hint: object, name: str) -> None:
    """Check what a list or a mapping holds; raises as `_checked`."""
    for item in items:
        _checked(item, _without_marks(hint)[0], name)


def _one_of(words: Sequence[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _whole_numbers(value: Any) -> object:  # noqa: ANN401 (from Python anything may come)
    """Return a list or a NumPy array of whole numbers with Python's own; all else as it is."""
    # NumPy is not imported here. Its arrays are told by what they have.
    if getattr(value, "ndim", None) == 1 and getattr(getattr(value, "dtype", None), "kind", "") in ("i", "u"):
        return value.tolist()
    if isinstance(value, list | tuple):
        items = cast(Sequence[object], value)
        return [_converted(item, (int,)) if isinstance(item, Integral) else item for item in items]
    return value


def _converted(value: object, types: tuple[Any, ...]) -> object:
    if isinstance(value, str | os.PathLike) and value != "" and Path in types:
        return Path(cast(str, value))
    if isinstance(value, os.PathLike) and str in types:
        return str(cast(Path, value))
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    if float not in types and isinstance(value, Integral):
        return int(value)
    try:
        number = float(value)
    except OverflowError:
        return value
    if float in types:
        return number
    return int(number) if int in types and number.is_integer() else value
