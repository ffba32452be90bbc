"""How `distill` reads its command line."""

import pytest

from rldistill.cli.distill import read_given


@pytest.mark.parametrize(
    "argv",
    [
        ["--teacher", "a", "b", "--out", "o"],
        ["--out", "o", "--teacher", "a", "--teacher", "b"],
        ["--teacher=a", "--teacher=b", "--out", "o"],
        ["--teacher", "a", "--seed", "3", "--teacher", "b", "--out", "o"],
    ],
)
def test_teachers_are_named_one_by_one_or_in_a_row(argv):
    given = read_given(argv)
    assert [str(path) for path in given.values["teacher"]] == ["a", "b"]
    assert "data" not in given.values
