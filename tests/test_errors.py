"""What is told of a stranger's file is one line of bounded length, whatever the file says."""

import pytest

from rldistill.errors import (
    MAX_MESSAGE,
    DatasetError,
    PolicyFileError,
    first_line,
    printable,
    reading_file,
    shortened,
    shown,
)
from tests.fuzz.fuzz_files import UNFORESEEN


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("as it is: ×, ü, 日本", "as it is: ×, ü, 日本"),
        ("two\nlines\r\n\tand a tab", "two lines and a tab"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("bell\a, nul\0", "bell\\x07, nul\\x00"),
        ("turned \u202eround", "turned \\u202eround"),
        ("half a character \udcff", "half a character \\udcff"),
        ("\x9b31m, of one byte", "\\x9b31m, of one byte"),
    ],
)
def test_text_is_told_as_a_terminal_can_show_it(text, line):
    assert printable(text) == line


def test_of_a_long_text_its_beginning_and_its_end_are_told():
    line = printable("a" * 1000 + " Do this.", 100)
    assert len(line) == 100
    assert line.startswith("aaa")
    assert line.endswith("a Do this.")
    assert " … " in line


@pytest.mark.parametrize(
    ("most", "text"), [(10, "0123456789"), (9, "0123…6789"), (8, "012…6789"), (3, "0…9"), (0, "0…9"), (-4, "0…9")]
)
def test_in_a_narrow_column_both_ends_of_a_text_are_told(most, text):
    assert shortened("0123456789", most) == text


@pytest.mark.parametrize("text", ["x" * 10**7, "\x1b" * 10**6, "a\n" * 10**6, "\udcff" * 1000])
def test_an_error_is_one_line_of_bounded_length(text):
    line = str(PolicyFileError(f"Policy file {text} is refused. Fetch it again."))
    assert len(line) <= MAX_MESSAGE
    assert line.isprintable()
    assert line.startswith("Policy file ")
    assert line.endswith(" Fetch it again.")


def test_a_short_error_is_told_as_it_was_written():
    assert str(DatasetError("Dataset d is empty: it lists no step.")) == "Dataset d is empty: it lists no step."
    assert str(DatasetError()) == ""


def nested(depth):
    value = ()
    for _ in range(depth):
        value = (value, value)
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\nb", "'a b'"),
        ("x" * 100, f"'{'x' * 21} … {'x' * 36}'"),
        (7, "7"),
        (True, "True"),
        (None, "None"),
        (0.5, "0.5"),
        (10**5000, "a number of too many digits"),
        (nested(60), "a tuple"),
        ({"a": 1}, "a dict"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_is_quoted_without_printing_what_may_never_end(value, text):
    assert shown(value) == text


def test_an_errors_first_line_is_what_it_says_first():
    assert first_line(ValueError("one.\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(13, "Permission denied", "p"), "File p cannot be read: Permission denied."),
        (MemoryError(), "File p cannot be read: it does not fit into the memory."),
        (
            OverflowError("too\nlarge"),
            f"File p cannot be read: {UNFORESEEN} (OverflowError: too). It is "
            "damaged, or another program wrote it. If it is sound, report it with what RLDISTILL_TRACEBACK=1 shows.",
        ),
    ],
)
def test_what_a_reader_raises_becomes_one_line_and_keeps_its_cause(error, line):
    with pytest.raises(PolicyFileError) as caught, reading_file("File p", PolicyFileError):
        raise error
    assert str(caught.value) == line
    assert caught.value.__cause__ is error


def test_errors_of_ours_and_mistakes_of_ours_pass_a_reader_as_they_are():
    for error in (DatasetError("Said already."), AssertionError("a mistake"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, reading_file("File p", PolicyFileError):
            raise error
        assert caught.value is error
