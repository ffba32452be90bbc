"""A pickle is read as a tree of data: whatever it names, nothing of it runs."""

import collections
import copyreg
import os
import pickle
import struct

import numpy as np
import pytest

from rldistill.adapters.arrays import ARRAY_GLOBALS, array_from, number_from
from rldistill.adapters.unpickle import Record, Symbol, read_pickle
from rldistill.errors import PolicyFileError
from rldistill.limits import TOO_MUCH

ALLOWED = ARRAY_GLOBALS | {"collections.OrderedDict", "builtins.set"}
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def read(data, allowed=ALLOWED):
    return read_pickle(data, allowed=allowed, source="FILE")


def refusal(data, allowed=ALLOWED):
    with pytest.raises(PolicyFileError) as caught:
        read(data, allowed)
    line = str(caught.value)
    assert "\n" not in line
    return line


# Data come out as they went in


PLAIN = {
    "none": None,
    "truth": [True, False],
    "numbers": (0, 1, -1, 255, 70_000, 2**31, -(2**40), 2**200, 0.5, -1e300),
    "texts": ["", "a", "Grüße", "x" * 300],
    "nested": {"a": {"b": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]}},
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_containers_numbers_and_texts(protocol):
    assert read(pickle.dumps(PLAIN, protocol)) == PLAIN


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_bytes_and_what_is_shared(protocol):
    shared = [b"\x00\xff", b"y" * 300]
    content = read(pickle.dumps({"a": shared, "b": shared}, protocol))
    assert content == {"a": shared, "b": shared}
    assert content["a"] is content["b"]


def test_sets():
    assert read(pickle.dumps({"a", "b"}, 4)) == {"a", "b"}
    assert read(pickle.dumps(frozenset({"a", 1}), 4)) == frozenset({"a", 1})
    assert read(pickle.dumps({"a"}, 3)).name == "builtins.set"


def test_a_mapping_that_keeps_its_order_is_a_record():
    record = read(pickle.dumps(collections.OrderedDict([("b", 1), ("a", 2)]), 3))
    assert (record.name, record.entries) == ("collections.OrderedDict", [("b", 1), ("a", 2)])


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize(
    "array",
    [
        np.linspace(-1, 1, 7),
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(6.0).reshape(2, 3).T,
        np.arange(5.0)[::2],
        np.array([True, False]),
        np.array(3, dtype=np.int64),
        np.zeros((0, 3)),
        np.arange(4, dtype=">f8"),
        np.arange(4, dtype=np.float16),
    ],
    ids=lambda array: f"{array.dtype.str}-{'x'.join(map(str, array.shape))}",
)
def test_arrays(protocol, array):
    rebuilt = array_from(read(pickle.dumps(array, protocol)))
    np.testing.assert_array_equal(rebuilt, array)
    assert rebuilt.dtype == array.dtype.newbyteorder("=")
    assert rebuilt.flags.owndata
    assert rebuilt.flags.writeable


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_numbers_of_numpy(protocol):
    assert number_from(read(pickle.dumps(np.float64(0.1), protocol))) == 0.1
    assert number_from(read(pickle.dumps(np.float32(0.5), protocol))) == 0.5
    assert number_from(read(pickle.dumps(np.int64(7), protocol))) == 7
    assert number_from(read(pickle.dumps(np.array(2.5), protocol))) == 2.5
    assert number_from(read(pickle.dumps(3, protocol))) == 3


# Hostile


class Call:
    """A pickle of it calls a function when it is loaded."""

    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("function", [open, eval, exec, os.system, getattr, __import__, os.mkdir])
def test_a_pickle_that_would_write_a_file_is_refused_and_writes_none(tmp_path, protocol, function):
    target = tmp_path / "broken in"
    arguments = {
        open: (str(target), "w"),
        eval: (f"open({str(target)!r}, 'w')",),
        exec: (f"open({str(target)!r}, 'w')",),
        os.system: (f"touch '{target}'",),
        getattr: ("", "join"),
        __import__: ("this",),
        os.mkdir: (str(target),),
    }[function]
    line = refusal(pickle.dumps(Call(function, *arguments), protocol))
    assert line.startswith("FILE is refused: its pickle wants ")
    assert line.endswith(f".{function.__name__}, which is not allowed there. Nothing of it was executed.")
    assert list(tmp_path.iterdir()) == []


def test_the_same_pickles_do_write_a_file_where_they_are_executed(tmp_path):
    target = tmp_path / "broken in"
    pickle.loads(pickle.dumps(Call(os.mkdir, str(target))))
    assert target.exists(), "else the tests above would prove nothing"


def assemble(*parts):
    return b"\x80\x04" + b"".join(parts) + b"."


def text(value):
    data = value.encode()
    return b"\x8c" + bytes([len(data)]) + data


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
ARRAY = b"cnumpy\nndarray\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"(Vtouch x\nios\nsystem\n.", "has the instruction INST for os.system, which data do not need"),
        (b"(cnumpy\ndtype\nVx\no.", "has the instruction OBJ, which data do not need"),
        (assemble(text("posix"), text("system"), b"\x93"), "wants posix.system, which is not allowed there"),
        (
            assemble(text("numpy"), text("dtype.mro"), b"\x93"),
            "wants numpy.dtype.mro, which is not allowed there",
        ),
        (
            b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.",
            "wants numpy.core.multiarray._reconstruct.__globals__",
        ),
        (assemble(b"K\x01K\x02\x93"), "names a global by a int and a int"),
        (b"\x80\x02\x82\x01.", "has the instruction EXT1, which data do not need"),
        (b"\x80\x02\x83\x01\x00.", "has the instruction EXT2, which data do not need"),
        (b"\x80\x02\x84\x01\x00\x00\x00.", "has the instruction EXT4, which data do not need"),
        (b"P1\n.", "has the instruction PERSID, which data do not need"),
        (b"K\x01Q.", "has the instruction BINPERSID, which data do not need"),
        (b"\x80\x05\x97.", "has the instruction NEXT_BUFFER, which data do not need"),
        (b"\x80\x05K\x01\x98.", "has the instruction READONLY_BUFFER, which data do not need"),
        (b"S'a'\n.", "has the instruction STRING, which data do not need"),
        (assemble(text("os"), b")R"), "calls a str"),
        (assemble(b"])R"), "calls a list"),
        (assemble(ARRAY, b"]R"), "calls numpy.ndarray with a list"),
        (assemble(ARRAY, b")\x81)R"), "calls a record"),
        (assemble(ARRAY, b")}", text("a"), b"K\x01s\x92"), "makes an object with keywords, a dict"),
        (assemble(ARRAY, b"}b"), "sets the state of a global numpy.ndarray"),
        (assemble(b"]}b"), "sets the state of a list"),
        (assemble(ARRAY, b")R}b}b"), "sets the state of numpy.ndarray twice"),
        (assemble(ARRAY, b"K\x01a"), "appends to a global numpy.ndarray"),
        (assemble(ARRAY, b"(K\x01e"), "appends to a global numpy.ndarray"),
        (assemble(b"](K\x01\x90"), "adds members to a list"),
        (assemble(b"]K\x01K\x02s"), "sets items of a list"),
        (assemble(b"}", b"K\x01\x85\x85", b"N", b"s"), "has a tuple as a key"),
        (assemble(b"}]K\x01s"), "has a list as a key"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_instructions_that_data_do_not_need(data, reason):
    line = refusal(data)
    assert line.startswith(f"FILE is refused: its pickle {reason}")
    assert line.endswith(". Nothing of it was executed.")


def test_a_registered_extension_is_not_looked_up():
    copyreg.add_extension("os", "system", 200)
    try:
        assert "has the instruction EXT1" in refusal(b"\x80\x02\x82\xc8.")
    finally:
        copyreg.remove_extension("os", "system", 200)


def test_allowed_globals_are_names_whatever_they_are_given():
    shown = read(assemble(RECONSTRUCT, ARRAY, b"(J\x00\x00\x00\x7fJ\x00\x00\x00\x7ft", text("f8"), b"\x87R"))
    assert isinstance(shown, Record)
    assert shown.arguments == (Symbol("numpy.ndarray"), (0x7F000000, 0x7F000000), "f8")
    with pytest.raises(ValueError, match="without shape, type and bytes"):
        array_from(shown)


def test_a_name_of_a_global_that_would_break_the_line():
    assert refusal(assemble(text("a\nb"), text("c"), b"\x93")).startswith("FILE is refused: its pickle wants a b.c,")
    assert "wants \\x1b[31ma.c," in refusal(assemble(text("\x1b[31ma"), text("c"), b"\x93"))
    assert "…" in refusal(assemble(text("a" * 200), text("c"), b"\x93"))


# Arrays that cannot be


def array_record(shape=(2,), dtype=None, fortran=False, content=b"\0" * 16, version=1):
    dtype = dtype or Record("numpy.dtype", ("f8", False, True), (3, "<", None, None, None, -1, -1, 0))
    return Record("numpy.core.multiarray._reconstruct", (), (version, shape, dtype, fortran, content))


def dtype_record(code, state=(3, "<", None, None, None, -1, -1, 0)):
    return Record("numpy.dtype", (code, False, True), state)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (array_record(shape=(3,)), r"an array \[3\] of float64 in 16 bytes"),
        (array_record(shape=(2**40, 2**40)), r"in 16 bytes"),
        (array_record(shape=(-2,)), r"an array of shape \(-2\)"),
        (array_record(shape=("2",)), r"an array of shape \('2'\)"),
        (array_record(shape=(True,) * 2), r"an array of shape"),
        (array_record(shape=(1,) * 9), r"an array of shape"),
        (array_record(shape=[2]), "without shape, type and bytes"),
        (array_record(content="\0" * 16), "without shape, type and bytes"),
        (array_record(dtype=dtype_record("O8")), "an array of type 'O8'"),
        (array_record(dtype=dtype_record("U4")), "an array of type 'U4'"),
        (array_record(dtype=dtype_record("M8")), "an array of type 'M8'"),
        (array_record(dtype=dtype_record("f9")), "an array of type 'f9'"),
        (array_record(dtype=dtype_record("f8,f8")), "an array of type 'f8,f8'"),
        (array_record(dtype=dtype_record(8)), "an array of type 8"),
        (array_record(dtype=dtype_record("f8", (3, "|", None, ("a",), {"a": 1}, 8, 1, 0))), "an array of structures"),
        (array_record(dtype="f8"), "whose type is str"),
        (Symbol("numpy.ndarray"), "expected an array, got numpy.ndarray"),
        (None, "expected an array, got NoneType"),
    ],
)
def test_arrays_that_cannot_be(value, reason):
    with pytest.raises(ValueError, match=reason):
        array_from(value)


@pytest.mark.parametrize("value", [None, True, "1", [], float("nan"), float("inf"), Symbol("numpy.ndarray")])
def test_what_is_no_number(value):
    with pytest.raises(ValueError, match=r"expected a (finite )?number"):
        number_from(value)


# Damaged


def test_an_empty_file():
    assert refusal(b"") == "FILE is empty: got 0 bytes. Its download or copy was cut off. Fetch it again."


def test_every_truncation_is_one_line():
    data = pickle.dumps({"a": np.arange(3.0), "b": [PLAIN]}, 4)
    for length in range(1, len(data)):
        assert refusal(data[:length]).startswith("FILE cannot be read: it is no whole pickle (")


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        b"PK\x03\x04",
        b"\xff\xfe",
        b".",
        b"K\x01K\x02.",  # two values
        b"0.",  # nothing to pop
        b"2.",
        b"t.",  # no mark
        b"(s.",
        b"K\x01h\x05.",  # never remembered
        b"K\x01q\x00(h\x00u.",
        b"]" + b"(e" + b"a.",
        b"\x80\x04\x8a\xff\x01.",
        b"\x8e" + struct.pack("<Q", 2**62) + b"ab.",  # claims 4 EiB of bytes
        b"\x8d" + struct.pack("<Q", 2**62) + b"ab.",
        b"\x96" + struct.pack("<Q", 2**62) + b"ab.",
        b"\x8b" + struct.pack("<i", 2**31 - 1) + b"ab.",
        b"I" + b"9" * 5000 + b"\n.",
        b"\x8c\x02\xff\xfe.",  # no UTF-8
    ],
)
def test_what_is_no_pickle(data):
    assert refusal(data).startswith("FILE cannot be read: it is no whole pickle (")


MADE_TO_EXHAUST = TOO_MUCH
P = (1 << 61) - 1


def large_integer(value):
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"(" * 70 + b"t" * 70 + b".", "is nested more than 64 deep"),
        (b"(" * 200_000 + b"t" * 200_000 + b".", "has more than 100,000 instructions"),
        (b"]" * 200_000 + b".", "has more than 100,000 instructions"),
        (b"]q\x00h\x00a.", "holds itself"),
        # Each tuple holds the one before twice: 2^45 values in 45 tuples.
        (
            b"Nq\x000" + b"".join(b"h%ch%c\x86q%c0" % (i, i, i + 1) for i in range(45)) + b"h\x2d.",
            "holds more than 100,000 values",
        ),
        # Python's hash of an integer is what is left of it by 2^61 - 1.
        (b"}(" + b"".join(large_integer(k * P) + b"N" for k in range(1, 9)) + b"u.", "has keys of very large integers"),
        (b"\x8b\x00\x02\x00\x00" + b"\x7f" * 512 + b".", "has an integer of 4,095 bits"),
        (b"](" + large_integer(1 << 65) * 1001 + b"e.", "has more than 1,000 integers beyond 64 bits"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_would_keep_its_reader_busy_for_ever_is_refused(data, reason):
    assert refusal(data) == f"FILE is refused: its pickle {reason}. {MADE_TO_EXHAUST}"
