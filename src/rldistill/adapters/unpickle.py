"""Pickles of strangers, read as a tree of plain data: no class, no function is ever looked up.

A pickle is a small program. Here its instructions are carried out by a machine that knows
containers, numbers, texts and bytes, and nothing else: a global is a `Symbol` (a name), a call or
an object is a `Record` (a symbol with what it was given). So nothing that a file names can run,
and which names it may hold at all is the caller's list. Instructions that only hostile or ancient
pickles have (INST, OBJ, EXT, persistent ids, out-of-band buffers) are refused.

Source: the instruction set of `pickletools` (pickle protocols 0 to 5).
"""

import io
import pickletools
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, cast

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
    """A call or an object in a pickle, as data.

    Attributes:
        name: of the global that would have been called.
        arguments: what it would have been given.
        state: what the object's attributes would have been set to; None where it has no state.
        entries: key and value pairs that were added to it, as to a dict.
    """

    name: str
    arguments: tuple[Any, ...]
    state: Any = None
    entries: list[tuple[Any, Any]] = field(default_factory=list[tuple[Any, Any]])


class _Refused(Exception):
    """Why a pickle is not read; the end of the sentence "its pickle …"."""


def read_pickle(data: bytes, *, allowed: Set[str], source: str) -> object:
    """Return what a pickle describes, as data; as a tree it keeps the budget of running statistics.

    Args:
        data: the file's bytes.
        allowed: globals that it may name, as `module.name`; they become `Symbol`s and `Record`s.
        source: what messages call the file.

    Raises:
        PolicyFileError: empty, damaged, or it wants more than allowed (names the global).
    """
    if not data:
        raise PolicyFileError(f"{source} is empty: got 0 bytes. Its download or copy was cut off. Fetch it again.")
    return _run(_Machine(allowed, STATISTICS), io.BytesIO(data), source)


def read_torch_pickles(file: io.BytesIO, *, source: str) -> list[object]:
    """Return what the pickles of `torch.save` describe, as data: for checks, before torch reads them itself.

    Any global may be named, since torch decides which it looks up; tensors' bytes are `Record`s named `STORAGE`.

    Args:
        file: one pickle, or at its beginning the five of the format before 2020.
        source: what messages call the file.

    Raises:
        PolicyFileError: damaged, or one of them asks more of its reader than a policy needs.
    """
    machine = _Machine(None, TENSORS)
    contents: list[object] = []
    size = len(file.getbuffer())
    while not contents or (file.tell() < size and len(contents) < _MOST_PICKLES):
        contents.append(_run(machine.restarted(), file, source))
        if len(contents) == 1 and not isinstance(contents[0], int):  # the old format begins with a magic number
            break
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
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def restarted(self) -> "_Machine":
        """Return itself, ready for another pickle out of the same budget."""
        self._stack, self._memo = [], {}
        return self

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
            self._stack.append(argument if name not in _CONSTANTS else _CONSTANTS[name]())
        elif name in self._steps:
            self._steps[name](self, argument)
        elif name not in _IGNORED:
            wanted = f" for {str(argument).replace(' ', '.')}" if name == "INST" else ""
            raise _Refused(f"has the instruction {name}{wanted}, which data do not need")

    def result(self) -> object:
        """Return the one value that is left."""
        if len(self._stack) != 1:
            raise ValueError(f"{len(self._stack)} values are left, expected 1")
        check_tree(self._stack[0], self._budget, children)
        return self._stack[0]

    def _pop_to_mark(self) -> list[Any]:
        for position in range(len(self._stack) - 1, -1, -1):
            if self._stack[position] is _MARK:
                items = self._stack[position + 1 :]
                del self._stack[position:]
                return items
        raise ValueError("there is no mark")

    def _take(self) -> Any:  # noqa: ANN401 (whatever the file put there)
        if not self._stack or self._stack[-1] is _MARK:
            raise ValueError("a value is missing")
        return self._stack.pop()

    def _push(self, value: object) -> None:
        self._stack.append(value)

    # Containers

    def _mark(self, _: object) -> None:
        self._stack.append(_MARK)

    def _pop(self, _: object) -> None:
        self._stack.pop()

    def _pop_mark(self, _: object) -> None:
        self._pop_to_mark()

    def _duplicate(self, _: object) -> None:
        self._stack.append(self._stack[-1])

    def _tuple_of_marked(self, _: object) -> None:
        self._push(tuple(self._pop_to_mark()))

    def _short_tuple(self, size: int) -> None:
        items = [self._take() for _ in range(size)]
        self._push(tuple(reversed(items)))

    def _list_of_marked(self, _: object) -> None:
        self._push(self._pop_to_mark())

    def _frozen_set(self, _: object) -> None:
        self._push(frozenset(_checked_keys(self._pop_to_mark())))

    def _dict_of_marked(self, _: object) -> None:
        items = self._pop_to_mark()
        self._push(dict(zip(_checked_keys(items[::2]), items[1::2], strict=True)))

    def _append(self, _: object) -> None:
        item = self._take()
        self._extend([item])

    def _append_marked(self, _: object) -> None:
        self._extend(self._pop_to_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise _Refused(f"appends to a {_kind(target)}")
        cast(list[Any], target).extend(items)

    def _add_marked(self, _: object) -> None:
        items = self._pop_to_mark()
        target = self._stack[-1]
        if not isinstance(target, set):
            raise _Refused(f"adds members to a {_kind(target)}")
        cast(set[Any], target).update(_checked_keys(items))

    def _set_item(self, _: object) -> None:
        value, key = self._take(), self._take()
        self._set_items([(key, value)])

    def _set_marked(self, _: object) -> None:
        items = self._pop_to_mark()
        self._set_items(list(zip(items[::2], items[1::2], strict=True)))

    def _set_items(self, pairs: list[tuple[Any, Any]]) -> None:
        target = self._stack[-1]
        if isinstance(target, dict):
            _checked_keys([key for key, _ in pairs])
            cast(dict[Any, Any], target).update(pairs)
        elif isinstance(target, Record):
            target.entries.extend(pairs)
        else:
            raise _Refused(f"sets items of a {_kind(target)}")

    # The memo

    def _remember(self, index: int | str | None) -> None:
        key = len(self._memo) if index is None else int(index)
        self._memo[key] = self._stack[-1]

    def _recall(self, index: int | str) -> None:
        self._push(self._memo[int(index)])

    # Globals, calls and objects

    def _name_global(self, argument: str) -> None:
        self._push_symbol(*argument.split(" ", 1))

    def _name_global_from_stack(self, _: object) -> None:
        name, module = self._take(), self._take()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise _Refused(f"names a global by a {_kind(module)} and a {_kind(name)}")
        self._push_symbol(module, name)

    def _push_symbol(self, module: str, name: str) -> None:
        full_name = f"{module}.{name}"
        if self._allowed is not None and full_name not in self._allowed:
            raise _Refused(f"wants {_shown(full_name)}, which is not allowed there")
        self._push(Symbol(full_name))

    def _name_storage(self, _: object) -> None:
        if self._allowed is not None:
            raise _Refused("has the instruction BINPERSID, which data do not need")
        key = self._take()
        # An old file names by a number the storage that it described before.
        self._push(Record(STORAGE, cast(tuple[Any, ...], key) if isinstance(key, tuple) else ()))

    def _call(self, _: object) -> None:
        arguments, target = self._take(), self._take()
        if not isinstance(target, Symbol):
            raise _Refused(f"calls a {_kind(target)}")
        if not isinstance(arguments, tuple):
            raise _Refused(f"calls {target.name} with a {_kind(arguments)}")
        self._push(Record(target.name, cast(tuple[Any, ...], arguments)))

    def _call_with_keywords(self, _: object) -> None:
        if keywords := self._take():
            raise _Refused(f"makes an object with keywords, a {_kind(keywords)}, which data do not need")
        self._call(None)

    def _set_state(self, _: object) -> None:
        state, target = self._take(), self._stack[-1]
        if not isinstance(target, Record):
            raise _Refused(f"sets the state of a {_kind(target)}")
        if target.state is not None:
            raise _Refused(f"sets the state of {target.name} twice")
        target.state = state

    _steps: ClassVar[dict[str, Callable[["_Machine", Any], None]]] = {
        "MARK": _mark,
        "POP": _pop,
        "POP_MARK": _pop_mark,
        "DUP": _duplicate,
        "TUPLE": _tuple_of_marked,
        "TUPLE1": lambda machine, _: machine._short_tuple(1),
        "TUPLE2": lambda machine, _: machine._short_tuple(2),
        "TUPLE3": lambda machine, _: machine._short_tuple(3),
        "LIST": _list_of_marked,
        "FROZENSET": _frozen_set,
        "DICT": _dict_of_marked,
        "APPEND": _append,
        "APPENDS": _append_marked,
        "ADDITEMS": _add_marked,
        "SETITEM": _set_item,
        "SETITEMS": _set_marked,
        "PUT": _remember,
        "BINPUT": _remember,
        "LONG_BINPUT": _remember,
        "MEMOIZE": _remember,
        "GET": _recall,
        "BINGET": _recall,
        "LONG_BINGET": _recall,
        "GLOBAL": _name_global,
        "STACK_GLOBAL": _name_global_from_stack,
        "REDUCE": _call,
        "NEWOBJ": _call,
        "NEWOBJ_EX": _call_with_keywords,
        "BUILD": _set_state,
        "BINPERSID": _name_storage,
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


def _shown(name: str) -> str:
    return printable(name, 100)


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
