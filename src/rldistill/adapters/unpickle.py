"""Pickles of strangers, read as a tree of plain data: no class, no function is ever looked up.

A pickle is a small program. Here its instructions are carried out by a machine that knows containers, numbers, texts
and bytes, and nothing else: a global is a `Symbol` (a name), a call or an object is a `Record` (a symbol with what it
was given). So nothing that a file names can run, and which names it may hold at all is the caller's list. Instructions
that only hostile or ancient pickles have (INST, OBJ, EXT, persistent ids, out-of-band buffers) are refused.

Source: the instruction set of `pickletools` (pickle protocols 0 to 5).
"""

import io
import pickletools
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import Any, Final, cast

from rldistill.errors import PolicyFileError, first_line, printable
from rldistill.limits import STATISTICS, TENSORS, TOO_MUCH, BeyondLimitsError, Budget, check_tree, plain_children

_MARK: Final = object()
# Keys of a dict that differ by multiples of 2^61 - 1 collide: a few hundred thousand of them keep it busy for ever.
_KEY_BITS = 60
_LARGE_BITS = 64
_MOST_BITS = 2048  # generators of random numbers have states of 128
_MOST_LARGE_INTEGERS = 1000
# What torch.save wrote before 2020 is five pickles, then the tensors.
_MOST_PICKLES = 5
STORAGE = "storage"
"""Name of the record that stands for the bytes of a tensor."""


@dataclass(frozen=True)
class Symbol:
    """A global that a pickle names; nothing stands behind it."""

    name: str


@dataclass(eq=False)
class Record:
    """A call or an object in a pickle, as data."""

    name: str  # of the global that would have been called
    arguments: tuple[Any, ...]  # what it would have been given
    state: Any = None  # what the object's attributes would have been set to; None where it has no state
    # Key and value pairs that were added to it, as to a dict.
    entries: list[tuple[Any, Any]] = field(default_factory=list[tuple[Any, Any]])


class _Refused(Exception):
    """Why a pickle is not read; the end of the sentence "its pickle …"."""


def read_pickle(data: bytes, *, allowed: Set[str], source: str) -> object:
    """Return what a pickle describes, as data; as a tree it keeps the budget of running statistics.

    The globals that it may name (`module.name`) become `Symbol`s and `Record`s.

    Raises:
        PolicyFileError: empty, damaged, or it wants more than allowed (names the global).
    """
    if not data:
        raise PolicyFileError(f"{source} is empty: got 0 bytes. Its download or copy was cut off. Fetch it again.")
    return _run(_Machine(allowed, STATISTICS), io.BytesIO(data), source)


def read_torch_pickles(file: io.BytesIO, *, source: str) -> list[object]:
    """Return what the pickles of `torch.save` describe, as data: for checks, before torch reads them itself.

    Any global may be named, since torch decides which it looks up; tensors' bytes are `Record`s named `STORAGE`. The
    format before 2020 begins with five pickles.

    Raises:
        PolicyFileError: damaged, or one of them asks more of its reader than a policy needs.
    """
    machine = _Machine(None, TENSORS)
    contents: list[object] = []
    size = len(file.getbuffer())
    # The old format begins with a magic number.
    while not contents or (isinstance(contents[0], int) and file.tell() < size and len(contents) < _MOST_PICKLES):
        contents.append(_run(machine, file, source))
    return contents


def children(value: object) -> list[Any]:
    """Return what a value of a pickle holds."""
    if isinstance(value, Record):
        pairs = [part for pair in value.entries for part in pair]
        return [*value.arguments, value.state, *pairs]
    return plain_children(value)


def _run(machine: "_Machine", file: io.BytesIO, source: str) -> object:
    try:
        for opcode, argument, _ in pickletools.genops(file):
            machine.execute(opcode.name, argument)
        return machine.result()
    except BeyondLimitsError as error:
        raise PolicyFileError(f"{source} is refused: its pickle {error}. {TOO_MUCH}") from error
    except _Refused as refusal:
        raise PolicyFileError(f"{source} is refused: its pickle {refusal}. Nothing of it was executed.") from None
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        reason = first_line(error)
        raise PolicyFileError(
            f"{source} cannot be read: it is no whole pickle ({reason}). Its download or copy is incomplete, or "
            "another program wrote it."
        ) from error


class _Machine:
    """Carries out the instructions of a pickle on plain data."""

    def __init__(self, allowed: Set[str] | None, budget: Budget) -> None:
        self._allowed = allowed
        self._budget = budget
        self._num_instructions = 0
        self._num_large_integers = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def execute(self, name: str, argument: object) -> None:
        """Carry out one instruction."""
        self._num_instructions += 1
        if self._num_instructions > self._budget.num_items:
            raise BeyondLimitsError(f"has more than {self._budget.num_items:,} instructions")
        if isinstance(argument, int) and argument.bit_length() > _MOST_BITS:
            raise BeyondLimitsError(f"has an integer of {argument.bit_length():,} bits")
        if isinstance(argument, int) and argument.bit_length() > _LARGE_BITS:
            self._num_large_integers += 1
            if self._num_large_integers > _MOST_LARGE_INTEGERS:
                raise BeyondLimitsError(f"has more than {_MOST_LARGE_INTEGERS:,} integers beyond 64 bits")
        if name in _VALUES:
            self.stack.append(argument if name not in _CONSTANTS else _CONSTANTS[name]())
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in _IGNORED:
            wanted = f" for {str(argument).replace(' ', '.')}" if name == "INST" else ""
            raise _Refused(f"has the instruction {name}{wanted}, which data do not need")

    def result(self) -> object:
        """Remove and return the one value that is left: what comes next is another pickle out of the same budget."""
        if len(self.stack) != 1:
            raise ValueError(f"{len(self.stack)} values are left, expected 1")
        check_tree(self.stack[0], self._budget, children)
        self.memo = {}
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        """Remove and return what lies above the newest mark, which goes too."""
        for position in range(len(self.stack) - 1, -1, -1):
            if self.stack[position] is _MARK:
                items = self.stack[position + 1 :]
                del self.stack[position:]
                return items
        raise ValueError("there is no mark")

    def take(self) -> Any:  # noqa: ANN401 (whatever the file put there)
        """Remove and return the newest value."""
        if not self.stack or self.stack[-1] is _MARK:
            raise ValueError("a value is missing")
        return self.stack.pop()

    def take_pair(self) -> tuple[Any, Any]:
        """Remove and return the two newest values, the older first."""
        newer = self.take()
        return self.take(), newer

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise _Refused(f"appends to a {_kind(target)}")
        cast(list[Any], target).extend(items)

    def add(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, set):
            raise _Refused(f"adds members to a {_kind(target)}")
        cast(set[Any], target).update(_checked_keys(items))

    def set_items(self, pairs: list[tuple[Any, Any]]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            _checked_keys([key for key, _ in pairs])
            cast(dict[Any, Any], target).update(pairs)
        elif isinstance(target, Record):
            target.entries.extend(pairs)
        else:
            raise _Refused(f"sets items of a {_kind(target)}")

    def remember(self, index: int | str | None) -> None:
        self.memo[len(self.memo) if index is None else int(index)] = self.stack[-1]

    def name_global(self, module: object, name: object) -> None:
        if not (isinstance(name, str) and isinstance(module, str)):
            raise _Refused(f"names a global by a {_kind(module)} and a {_kind(name)}")
        full_name = f"{module}.{name}"
        if self._allowed is not None and full_name not in self._allowed:
            raise _Refused(f"wants {printable(full_name, 100)}, which is not allowed there")
        self.stack.append(Symbol(full_name))

    def name_storage(self) -> None:
        if self._allowed is not None:
            raise _Refused("has the instruction BINPERSID, which data do not need")
        key = self.take()
        # An old file names by a number the storage that it described before.
        self.stack.append(Record(STORAGE, cast(tuple[Any, ...], key) if isinstance(key, tuple) else ()))

    def call(self) -> None:
        target, arguments = self.take_pair()
        if not isinstance(target, Symbol):
            raise _Refused(f"calls a {_kind(target)}")
        if not isinstance(arguments, tuple):
            raise _Refused(f"calls {target.name} with a {_kind(arguments)}")
        self.stack.append(Record(target.name, cast(tuple[Any, ...], arguments)))

    def call_with_keywords(self) -> None:
        if keywords := self.take():
            raise _Refused(f"makes an object with keywords, a {_kind(keywords)}, which data do not need")
        self.call()

    def set_state(self) -> None:
        state, target = self.take(), self.stack[-1]
        if not isinstance(target, Record):
            raise _Refused(f"sets the state of a {_kind(target)}")
        if target.state is not None:
            raise _Refused(f"sets the state of {target.name} twice")
        target.state = state


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(items[::2], items[1::2], strict=True))


def _dict_of(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(_checked_keys(items[::2]), items[1::2], strict=True))


_STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    # containers
    "MARK": lambda machine, _: machine.stack.append(_MARK),
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": lambda machine, _: machine.pop_to_mark(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.stack.append((machine.take(),)),
    "TUPLE2": lambda machine, _: machine.stack.append(machine.take_pair()),
    "TUPLE3": lambda machine, _: machine.stack.append(tuple(reversed([machine.take() for _ in range(3)]))),
    "LIST": lambda machine, _: machine.stack.append(machine.pop_to_mark()),
    "FROZENSET": lambda machine, _: machine.stack.append(frozenset(_checked_keys(machine.pop_to_mark()))),
    "DICT": lambda machine, _: machine.stack.append(_dict_of(machine.pop_to_mark())),
    "APPEND": lambda machine, _: machine.extend([machine.take()]),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_to_mark()),
    "ADDITEMS": lambda machine, _: machine.add(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.take_pair()]),
    "SETITEMS": lambda machine, _: machine.set_items(_pairs(machine.pop_to_mark())),
    # the memo
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.remember),
    **dict.fromkeys(
        ("GET", "BINGET", "LONG_BINGET"), lambda machine, index: machine.stack.append(machine.memo[int(index)])
    ),
    # globals, calls and objects
    "GLOBAL": lambda machine, argument: machine.name_global(*argument.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.name_global(*machine.take_pair()),
    "REDUCE": lambda machine, _: machine.call(),
    "NEWOBJ": lambda machine, _: machine.call(),
    "NEWOBJ_EX": lambda machine, _: machine.call_with_keywords(),
    "BUILD": lambda machine, _: machine.set_state(),
    "BINPERSID": lambda machine, _: machine.name_storage(),
}


def _kind(value: object) -> str:
    return f"global {value.name}" if isinstance(value, Symbol) else type(value).__name__.lower()


def _checked_keys(keys: list[Any]) -> list[Any]:
    """Return keys and members that are plain: hashing deeply nested tuples would end the interpreter itself."""
    for key in keys:
        # A pair of numbers may be a key, too: (row, column) of a table.
        parts = cast(tuple[Any, ...], key) if isinstance(key, tuple) else (key,)
        for part in parts:
            if not isinstance(part, str | bytes | int | float | None):
                raise _Refused(f"has a {_kind(key)} as a key")
            if isinstance(part, int) and part.bit_length() > _KEY_BITS:
                raise BeyondLimitsError("has keys of very large integers")
    return keys


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": lambda: (),
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_ARGUMENTS = (
    "INT LONG BININT BININT1 BININT2 LONG1 LONG4 FLOAT BINFLOAT "
    "UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 "
    "BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 SHORT_BINSTRING"
)
_VALUES = frozenset(_ARGUMENTS.split()) | _CONSTANTS.keys()
_IGNORED = frozenset({"PROTO", "FRAME", "STOP"})
