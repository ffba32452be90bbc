"""What a record may hold is checked where it is declared; a file may declare anything."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rldistill.checks import check_kind, check_name, check_path, check_whole, is_finite, is_whole
from rldistill.errors import UsageError


@dataclass
class Record:
    value: Any


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "value must be 1 or more, got 0."),
        ((3, -1), "value must be 1 or more, got -1."),
        (1.0, "value must be a whole number, 1 or more, got 1.0."),
        (True, "value must be a whole number, 1 or more, got True."),
        (("3",), "value must be a whole number, 1 or more, got '3'."),
        (None, "value must be a whole number, 1 or more, got None."),
        (([],), "value must be a whole number, 1 or more, got a list."),
    ],
)
def test_whole_numbers(value, message):
    check_whole(Record(7), "value")
    check_whole(Record((1, 2)), "value")
    with pytest.raises(UsageError) as caught:
        check_whole(Record(value), "value")
    assert str(caught.value) == message


def test_numbers_are_neither_truth_values_nor_beyond_floats():
    assert [is_whole(value) for value in (1, 0, True, 1.0, "1")] == [True, False, False, False, False]
    values = (1, -0.5, 10**300, 10**400, float("nan"), float("inf"), True, "1")
    assert [is_finite(value) for value in values] == [True, True, True, False, False, False, False, False]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (7, "value must be a text, got 7."),
        ("a\nb", "value must be at most 255 printable characters, got 3: a b."),
        ("\x1b[2J", "value must be at most 255 printable characters, got 4: \\x1b[2J."),
        ("x" * 256, f"value must be at most 255 printable characters, got 256: {'x' * 21} … {'x' * 36}."),
    ],
)
def test_names_are_what_tables_can_show(value, message):
    check_name(Record("x" * 255), "value")
    with pytest.raises(UsageError) as caught:
        check_name(Record(value), "value")
    assert str(caught.value) == message


def test_kinds():
    check_kind(Record(True), bool, "value")
    with pytest.raises(UsageError, match=r"^value must be a bool, got 1\.$"):
        check_kind(Record(1), bool, "value")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("n" * 256, "out: got a name of 256 bytes, expected at most 255: "),
        ("a/" * 2100, "out: got a path of 4,199 bytes, expected at most 4,095: "),
        ("ü" * 128, "out: got a name of 256 bytes, expected at most 255: "),
        ("bad\udcff", "out: got bad\\udcff, expected UTF-8 without NUL"),
        ("a\0b", "out: got a\\x00b, expected UTF-8 without NUL"),
    ],
)
def test_paths_that_no_file_can_have(path, message):
    check_path("out", Path("n" * 255) / "ü" / "a b")
    with pytest.raises(UsageError) as caught:
        check_path("out", Path(path))
    assert str(caught.value).startswith(message)
