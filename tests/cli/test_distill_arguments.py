"""How `distill` reads its command line."""

import pytest

from rldistill.cli.arguments import parse
from rldistill.cli.distill import _several_teachers
from rldistill.verbs.distill_config import DistillConfig


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
    config, _ = parse("distill", DistillConfig, _several_teachers(argv), example="")
    assert [str(path) for path in config.teacher] == ["a", "b"]
    assert config.data == ()
