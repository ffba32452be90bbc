"""What is printed to be pasted is one line, and a shell takes it as it was."""

import shlex

import pytest

from rldistill.cli.output import quoted


@pytest.mark.parametrize("path", ["runs/a", "a folder/two  blanks", "ünï", "it's", "$(x)"])
def test_a_shell_takes_a_path_as_it_is(path):
    assert shlex.split(quoted(path)) == [path]


@pytest.mark.parametrize("path", ["a\nb", "a\x1b[31mb", "a\r\n\nnext: rm b", "a\u202eb"])
def test_a_path_that_a_stranger_recorded_stays_in_its_line(path):
    assert quoted(path).isprintable()
    assert len(shlex.split(quoted(path))) == 1
