"""NumPy's numbers and arrays in files of `torch.save` are data; what else a pickle does with numpy's names fails."""

import io
import pickle

import numpy as np
import pytest
import torch

from rldistill.adapters.arrays import NumpyArray
from rldistill.adapters.weights import read_torch_data
from rldistill.errors import PolicyFileError
from tests.adapters.test_weights import saved


def read(content, **options):
    return read_torch_data(saved(content, **options), source="FILE")


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize(
    "number",
    [
        np.float32(123.5),
        np.float64(-0.25),
        np.float16(2),
        np.int64(7),
        np.uint8(255),
        np.bool_(True),
        np.float64("inf"),
    ],
)
def test_a_number_of_numpy_is_a_number(number, new_format):
    content = read({"w": torch.ones(2), "x": number}, _use_new_zipfile_serialization=new_format)
    assert content["x"] == number.item()
    assert type(content["x"]) is type(number.item())


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float64).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        np.array([1.5, -2.0], dtype=">f8"),
        np.array([True, False]),
    ],
)
def test_an_array_of_numpy_is_its_values(array):
    found = read({"x": array})["x"]
    assert isinstance(found, NumpyArray)
    np.testing.assert_array_equal(found.tensor.numpy(), array)


@pytest.mark.parametrize(
    "value",
    [
        np.array([object()]),
        np.array(["a"]),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.datetime64("NaT"),
    ],
)
def test_other_values_than_numbers_are_refused(value):
    with pytest.raises(PolicyFileError, match=r"^FILE (cannot be read as tensors|is refused)"):
        read({"x": value})


class Call:
    """Pickles as a call of a global of numpy with arguments of one's choice."""

    def __init__(self, function, *arguments, state=None):
        self._reduced = (function, arguments, state) if state is not None else (function, arguments)

    def __reduce__(self):
        return self._reduced


@pytest.mark.parametrize(
    "call",
    [
        Call(np.ndarray, (10**12,)),  # memory for whoever asks
        Call(np.dtype, "f8", False, False, state=(3, ">", None, None, None, -1, -1, 0)),  # would change float64 itself
        Call(np.dtype, "V8", False, True, state=(3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 27)),
        Call(np._core.multiarray.scalar, np.dtype("f8"), b"short"),
        Call(np._core.multiarray.scalar, np.dtype("O"), [1]),
    ],
)
def test_constructors_of_numpy_are_never_called(call):
    try:
        content = read({"w": torch.ones(2), "x": call})
    except PolicyFileError as error:
        assert "\n" not in str(error)
    else:
        assert type(content["x"]).__module__ == "rldistill.adapters.arrays"
    assert np.dtype("f8").byteorder == "="


def test_an_array_that_was_made_and_never_filled_is_empty():
    # As the instruction NEWOBJ of a pickle makes it.
    assert NumpyArray.__new__(NumpyArray, "anything").tensor.numel() == 0


def test_torch_itself_reads_as_before():
    data = saved({"x": np.float32(1)})
    read_torch_data(data, source="FILE")
    with pytest.raises(pickle.UnpicklingError, match="scalar"):
        torch.load(io.BytesIO(data), weights_only=True)
