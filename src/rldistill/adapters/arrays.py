"""Numpy arrays and numbers out of pickles of strangers: built here, from checked parts.

Pickles are read by `unpickle`, whose records say what to build, or, where they hold tensors, by torch's own reader
of data. To that one `NUMPY_AS_DATA` gives classes of ours under numpy's names: numpy's own constructors, to which a
pickle could pass anything, are never called.
"""

import io
import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rldistill.adapters.unpickle import Record, Symbol
from rldistill.errors import shown

# numpy moved its core between versions 1 and 2; pickles of both are about.
_CORES = ("numpy.core.", "numpy._core.")
_A_RECONSTRUCT = "numpy._core.multiarray._reconstruct"
_RECONSTRUCT = frozenset(f"{core}multiarray._reconstruct" for core in _CORES)
_SCALAR = frozenset(f"{core}multiarray.scalar" for core in _CORES)
_FROM_BUFFER = frozenset(f"{core}numeric._frombuffer" for core in _CORES)
ARRAY_GLOBALS = _RECONSTRUCT | _SCALAR | _FROM_BUFFER | {"numpy.ndarray", "numpy.dtype"}

# Numbers and truth values; no objects, texts, dates or structures.
_KINDS = frozenset("biuf")


def array_from(value: object) -> NDArray[Any]:
    """Return the array that a record describes. Raises ValueError: it is none, of numbers that are all there."""
    if isinstance(value, Record) and value.name in _RECONSTRUCT:
        match value.state:
            case (int(), tuple() as shape, dtype, bool() as fortran, bytes() | bytearray() as content):
                return build_array(cast(tuple[Any, ...], shape), _dtype_from(dtype), content, fortran=fortran)
            case _:
                raise ValueError("an array without shape, type and bytes")
    if isinstance(value, Record) and value.name in _FROM_BUFFER:
        match value.arguments:
            case (bytes() | bytearray() as content, dtype, tuple() as shape, "C" | "F" as order):
                return build_array(cast(tuple[Any, ...], shape), _dtype_from(dtype), content, fortran=order == "F")
            case _:
                raise ValueError("an array without bytes, type and shape")
    raise ValueError(f"expected an array, got {_kind(value)}")


def number_from(value: object, *, may_be_infinite: bool = False) -> float:
    """Return the number that a value or a record describes; ∞ only where it may mean "no limit". Raises ValueError."""
    if isinstance(value, Record) and value.name in _SCALAR:
        match value.arguments:
            case (dtype, bytes() | bytearray() as content):
                value = build_array((), _dtype_from(dtype), content, fortran=False).item()
            case _:
                raise ValueError("a number without type and bytes")
    elif isinstance(value, Record):
        array = array_from(value)
        if array.ndim > 0:
            raise ValueError(f"expected a number, got an array of shape {list(array.shape)}")
        value = array.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, got {_kind(value)}")
    try:
        number = float(value)
    except OverflowError as error:
        raise ValueError("expected a finite number, got one beyond all floats") from error
    if math.isnan(number) or (math.isinf(number) and not may_be_infinite):
        raise ValueError(f"expected a finite number, got {number}")
    return number


def read_npy(data: bytes) -> NDArray[Any]:
    """Read an array of NumPy's own format, if its declared size is that of its bytes, else raises ValueError."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise ValueError(f"version {version} of NumPy's format, expected 1.0 or 2.0")
    shape, fortran, dtype = read_header[version](file)
    if dtype.hasobject:
        raise ValueError("an array of objects, which would have to be executed")
    content = data[file.tell() :]
    return build_array(shape, dtype, content, fortran=fortran)


def build_array(
    shape: tuple[Any, ...], dtype: np.dtype[Any], content: bytes | bytearray, *, fortran: bool
) -> NDArray[Any]:
    """Return the array of a declared shape and type that bytes hold. Raises ValueError: they are of another size."""
    if not all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in shape) or len(shape) > 8:
        raise ValueError(f"an array of shape ({', '.join(map(shown, shape[:8]))})")
    if math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"an array {list(shape)} of {dtype.name} in {len(content)} bytes")
    array = np.frombuffer(bytes(content), dtype=dtype).reshape(shape, order="F" if fortran else "C")
    # The machine's own byte order, contiguous, and not a view of the file's bytes.
    return array.astype(dtype.newbyteorder("="), order="C")


def _dtype_from(value: object) -> np.dtype[Any]:
    """Return a type of plain numbers from `numpy.dtype('f8', False, True)` and its state."""
    if not (isinstance(value, Record) and value.name == "numpy.dtype" and value.arguments):
        raise ValueError(f"an array whose type is {_kind(value)}")
    code = value.arguments[0]
    match value.state:
        case None:
            order = "="
        case (int(), "<" | ">" | "|" | "=" as order, None, None, None, *_):
            pass
        case _:
            raise ValueError("an array of structures")
    if not (isinstance(code, str) and len(code) <= 3 and code[:1] in _KINDS and code[1:].isdecimal()):
        raise ValueError(f"an array of type {shown(code, 20)}")
    try:
        return np.dtype(code).newbyteorder(order)
    except TypeError as error:
        raise ValueError(f"an array of type {code!r}") from error


def _kind(value: object) -> str:
    return value.name if isinstance(value, Record | Symbol) else type(value).__name__


class NumpyArray:
    """An array in a file of `torch.save`."""

    tensor: Tensor = torch.zeros(0)  # its values; empty where the file makes an array and never says them

    def __init__(self, *_: object) -> None:
        """Take what numpy's constructor would be given: a class and an empty shape, which say nothing."""

    def __setstate__(self, state: object) -> None:
        self.tensor = torch.from_numpy(array_from(Record(_A_RECONSTRUCT, (), state)))


class _NumpyType(Record):
    """The type of an array's or a number's values, as a file of `torch.save` describes it."""

    def __init__(self, *arguments: object) -> None:
        super().__init__("numpy.dtype", arguments)

    def __setstate__(self, state: object) -> None:
        self.state = state


class _ArrayClass:
    """Stands where a pickle names `numpy.ndarray`."""


def _plain_number(dtype: object, content: object) -> float:
    """Return a NumPy number as a Python number; of infinity and NaN too: a checkpoint may count with them."""
    if not isinstance(content, bytes):
        raise ValueError("a number without type and bytes")
    return build_array((), _dtype_from(dtype), content, fortran=False).item()


NUMPY_AS_DATA: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_NumpyType, "numpy.dtype"),
    (_ArrayClass, "numpy.ndarray"),
    *((NumpyArray, name) for name in _RECONSTRUCT),
    *((_plain_number, name) for name in _SCALAR),
]
"""What stands for numpy's globals while torch reads a file."""
