"""What a file asks of its reader is checked before the work."""

import os
from collections import UserDict

import pytest

from rldistill.limits import BeyondLimitsError, Budget, check_tree, is_file, read_file, read_json

BUDGET = Budget(num_bytes=100, num_items=50, depth=5)


def shared(depth):
    value = [0]
    for _ in range(depth):
        value = [value, value]
    return value


def within_itself():
    value = [[]]
    value[0].append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [
        7,
        [],
        [[[[[]]]]],
        list(range(48)),
        {"a": [1, 2], "b": (3, {4})},
        shared(3),  # 15 lists and 8 numbers
        {"same": (same := [1, 2, 3]), "again": same},
    ],
    ids=str,
)
def test_a_tree_within_its_budget_passes(value):
    check_tree(value, BUDGET)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([[[[[[0]]]]]], "is nested more than 5 deep"),
        (list(range(51)), "holds more than 50 values"),
        ({number: number for number in range(30)}, "holds more than 50 values"),
        (shared(4), "is nested more than 5 deep"),
        ([shared(2)] * 8, "holds more than 50 values"),
        (within_itself(), "holds itself"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_tree_beyond_its_budget_is_refused(value, reason):
    with pytest.raises(BeyondLimitsError, match=f"^{reason}$"):
        check_tree(value, BUDGET)


def test_what_is_shared_counts_each_time_and_is_looked_at_once():
    looked_at = []

    def children(value):
        looked_at.append(value)
        return value if isinstance(value, list) else []

    with pytest.raises(BeyondLimitsError, match="holds more than 1,000,000 values"):
        check_tree(shared(60), Budget(0, 1_000_000), children)
    assert len(looked_at) < 200


def test_a_shared_part_may_lie_deeper_the_second_time():
    part = [[[0]]]
    with pytest.raises(BeyondLimitsError, match="nested more than 5 deep"):
        check_tree([part, [[[part]]]], BUDGET)


def test_mappings_of_any_kind_are_looked_into():
    with pytest.raises(BeyondLimitsError, match="holds more than 50 values"):
        check_tree(UserDict({"a": list(range(60))}), BUDGET)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 99, None),
        ("[" * 101, "takes 101 bytes, at most 100 are read"),
        ("1" * 99, None),
        ("NaN", "holds NaN, which is no number"),
        ("-Infinity", "holds -Infinity, which is no number"),
        ("[1e999]", "holds the number 1e999, which is none"),
    ],
)
def test_json_is_read_within_its_budget(text, reason):
    if text == "1" * 99:
        assert read_json(text, BUDGET) == int(text)
        return
    with pytest.raises(ValueError, match=reason):
        read_json(text, BUDGET)


def test_numbers_that_no_float_can_hold_and_deep_json_are_refused():
    with pytest.raises(BeyondLimitsError, match=r"holds a number of 400 digits"):
        read_json("1" * 400)
    with pytest.raises(BeyondLimitsError, match="is nested too deeply"):
        read_json("[" * 100_000)
    assert read_json(b'{"a": NaN}', finite=False)["a"] != 0


def test_a_file_is_read_within_its_budget(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    assert read_file(path, 5) == b"12345"
    with pytest.raises(BeyondLimitsError, match="takes 5 bytes, at most 4 are read"):
        read_file(path, 4)


def test_what_might_never_end_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(BeyondLimitsError, match="is no regular file"):
            read_file(path, 5)
    with pytest.raises(BeyondLimitsError, match="has a name that no file can have"):
        read_file(tmp_path / "a\0b", 5)


def test_a_path_out_of_a_file_may_say_anything(tmp_path):
    (tmp_path / "f").write_bytes(b"")
    assert is_file(str(tmp_path / "f"))
    assert not any(map(is_file, ("a" * 5000, "a\0b", "\udcff", "", str(tmp_path))))
