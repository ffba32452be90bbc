"""What an ONNX model remembers: pairs of an input and an output of a like name and the same shape.

`h_in` and `h_out`, `c_in` and `c_out`, `state_ins` and `state_outs`, `h0` and `hn`, `hidden` and `next_hidden`: a name
without the words that say which way it goes is the same on both sides. A pair that no other output depends on is no
memory (RLlib writes one for every policy), and neither is any other input that nothing depends on: it is fed zeros.
An output that depends on such an input after all is no policy's.
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rldistill.errors import PolicyFileError, listed
from rldistill.limits import MAX_REMEMBERED

Dimension = int | str
"""A size, or the name of one that is not fixed."""

_FORWARD = ("in", "ins", "input", "inputs", "prev", "previous", "old", "last", "init", "initial", "0")
_BACK = ("out", "outs", "output", "outputs", "next", "new", "final", "n")
_DIRECTIONS = frozenset((*_FORWARD, *_BACK))
# `h0`, `cn`, `hin` and `state_out` in one word.
_IN_ONE_WORD = re.compile(r"(h|c|state|hidden|cell|memory|recurrent)(0|n|in|out)s?")
_NOT_A_LETTER = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Value:
    """An input or an output of a model."""

    name: str
    dtype: str  # as ONNX calls it: `FLOAT`
    dims: tuple[Dimension, ...] | None  # None: the file does not say them


@dataclass(frozen=True)
class OnnxState:
    """One part of what a model remembers."""

    input_name: str  # takes it
    output_name: str  # gives the next
    dtype: str  # NumPy's name of its type
    shape: tuple[int, ...]  # of one environment
    axis: int | None  # where the environments stand in both; None: they hold one environment, in a tensor of its own

    def stacked(self, parts: NDArray[Any]) -> NDArray[Any]:
        """Return parts `[B, *shape]` as the model takes them."""
        return parts[0] if self.axis is None else np.ascontiguousarray(np.moveaxis(parts, 0, self.axis))

    def unstacked(self, answer: NDArray[Any]) -> NDArray[Any]:
        """Return what the model gave as parts `[B, …]`, whatever shape it has."""
        if self.axis is None:
            return answer[None]
        return np.moveaxis(answer, self.axis, 0) if answer.ndim > self.axis else answer


@dataclass(frozen=True)
class Roles:
    """What the inputs of a model are for."""

    observation: Value
    states: tuple[tuple[Value, Value], ...]  # pairs that the other outputs depend on
    unused: tuple[Value, ...]  # inputs that nothing depends on but the outputs that they are paired with
    blind: Mapping[str, str]  # those outputs, by name, each with the input that it depends on


def roles(what: str, inputs: Sequence[Value], outputs: Sequence[Value], reads: Mapping[str, Collection[str]]) -> Roles:
    """Tell observations, memory and what nothing depends on apart.

    `inputs` are those that are not stored in the file; `reads` names, for each value that a node makes, what it reads.

    Raises:
        PolicyFileError: not exactly one input is neither a memory nor unused.
    """
    pairs = _pairs(inputs, outputs)
    given_back = {output.name for _, output in pairs}
    needed = _needed([output.name for output in outputs if output.name not in given_back], pairs, reads)
    states = tuple((given, back) for given, back in pairs if given.name in needed)
    paired = {given.name for given, _ in pairs}
    others = [value for value in inputs if value.name not in paired]
    # A model may answer the same whatever it observes: its only input is the observation all the same.
    seen = [value for value in others if value.name in needed] if len(others) > 1 else others
    if len(seen) != 1:
        names = listed([value.name for value in inputs]) or "none"
        raise PolicyFileError(
            f"{what} takes {len(inputs)} inputs ({names}) and gives {listed([value.name for value in outputs])}. "
            "Policies take one, and what they remember: inputs that come back as outputs of a like name and the same "
            "shape, such as h_in and h_out."
        )
    used = {seen[0].name, *(given.name for given, _ in states)}
    unused = tuple(value for value in inputs if value.name not in used)
    blind = {
        output.name: given.name
        for output in outputs
        for given in unused
        if given.name in _needed([output.name], [], reads)
    }
    return Roles(seen[0], states, unused, blind)


def _pairs(inputs: Sequence[Value], outputs: Sequence[Value]) -> list[tuple[Value, Value]]:
    """Return inputs with the outputs of a like name, shape and type; of a single input none: it is the observation."""
    free = list(outputs)
    pairs: list[tuple[Value, Value]] = []
    for given in inputs if len(inputs) > 1 else ():
        key = _key(given.name)
        if back := next((value for value in free if key and _key(value.name) == key and _alike(given, value)), None):
            free.remove(back)
            pairs.append((given, back))
    # Something must be left that acts, and something that is observed.
    return pairs if free and len(pairs) < len(inputs) else []


def _key(name: str) -> str:
    """Return a name without the words that say whether it goes in or out."""
    words = [word for word in _NOT_A_LETTER.split(name.lower()) if word]
    bare = [found[1] if (found := _IN_ONE_WORD.fullmatch(word)) else word for word in words]
    return "_".join(word for word in bare if word not in _DIRECTIONS)


def _alike(given: Value, back: Value) -> bool:
    if given.dtype != back.dtype:
        return False
    if given.dims is None or back.dims is None:
        return True
    sizes = zip(given.dims, back.dims, strict=False)
    return len(given.dims) == len(back.dims) and all(
        one == other or isinstance(one, str) or isinstance(other, str) for one, other in sizes
    )


def _needed(
    outputs: Sequence[str], pairs: Sequence[tuple[Value, Value]], reads: Mapping[str, Collection[str]]
) -> set[str]:
    """Return every value that outputs depend on, in this step or by way of a state in the steps before."""
    back_of = {given.name: back.name for given, back in pairs}
    needed: set[str] = set()
    open_names = list(outputs)
    while open_names:
        name = open_names.pop()
        if name not in needed:
            needed.add(name)
            open_names += [*reads.get(name, ()), *([back_of[name]] if name in back_of else [])]
    return needed


def state_layout(what: str, pair: tuple[Value, Value], dtype: str, batch: Dimension) -> OnnxState:
    """Return how a memory, a `pair` of input and output, lies in its tensors.

    `batch` is that of the observations: how many, or the name of a number that is not fixed.

    Raises:
        PolicyFileError: a size beside that of the batch is not fixed, or none is that of the batch.
    """
    given, back = pair
    dims = ("?", "?") if given.dims is None else given.dims
    loose = [axis for axis, size in enumerate(dims) if isinstance(size, str)]
    same = [axis for axis in loose if dims[axis] == batch]
    is_several = isinstance(batch, int) and batch > 1
    if is_several and not loose:
        # Layers, environments, units, as PyTorch has them; elsewhere the environments come first.
        fitting = [axis for axis, size in enumerate(dims) if size == batch]
        axis = 1 if len(dims) == 3 and 1 in fitting else next(iter(fitting), None)
    else:
        axis = same[0] if same else loose[0] if loose else None
    sizes = [size for index, size in enumerate(dims) if index != axis]
    if any(isinstance(size, str) or size < 1 for size in sizes) or (is_several and axis is None):
        raise PolicyFileError(
            f"{what}: what it remembers, {given.name}, has the shape {list(dims)}, expected sizes that are fixed "
            "beside that of the batch. Does it grow from step to step? Export it with a memory of one size."
        )
    shape = tuple(int(size) for size in sizes)
    if math.prod(shape) > MAX_REMEMBERED:
        raise PolicyFileError(
            f"{what} remembers {math.prod(shape):,} numbers in {given.name}, the most are {MAX_REMEMBERED:,}. Is it "
            "a policy?"
        )
    return OnnxState(given.name, back.name, dtype, shape, axis)
