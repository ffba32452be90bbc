"""Damaged contracts give one line, whether they lie in a file or in the metadata of an ONNX file."""

import copy
import json
import random

import pytest

from rldistill.errors import RldistillError
from rldistill.exports.contract import check_contract, differences, make_contract
from rldistill.exports.formats import Export
from rldistill.exports.names import Names
from rldistill.exports.table import FORMATS
from rldistill.inspection.against import contract_of
from rldistill.options.reading import Reading
from tests.kit.small_policies import box_task, small_policy

VALUES = [None, True, 0, -1, 1e300, "", "x", [], {}, [None], {"name": 1}, [[]], "\ud800", 2**70]


def honest():
    return make_contract(small_policy(box_task(), network="gru:4", output_kind="gaussian"), Names(), None)


def damaged(contract, draw):
    """Return a copy in which one value, anywhere, is gone or another."""
    contract = copy.deepcopy(contract)
    place, key = contract, draw.choice(list(contract))
    while isinstance(place[key], dict | list) and place[key] and draw.random() < 0.8:
        place = place[key]
        key = draw.choice(list(place)) if isinstance(place, dict) else draw.randrange(len(place))
    if draw.random() < 0.3:
        del place[key]
    else:
        place[key] = copy.deepcopy(draw.choice(VALUES))
    return contract


def test_a_damaged_contract_is_compared_or_refused_in_one_line():
    draw, whole, num_refused = random.Random(0), honest(), 0
    for _ in range(2000):
        other = damaged(whole, draw)
        try:
            lines = differences(whole, check_contract("Contract x.json", other))
        except RldistillError as error:
            num_refused += 1
            lines = [str(error)]
        assert all(line.isprintable() and len(line) < 500 for line in lines), (other, lines)
    assert 100 < num_refused < 1900


@pytest.mark.parametrize("kind", ["json", "onnx"])
def test_bytes_that_were_flipped_or_cut_off_are_told_in_one_line(kind, tmp_path):
    policy = small_policy(box_task(), output_kind="gaussian")
    contract = make_contract(policy, Names(), None)
    file = tmp_path / f"a.{kind}"
    if kind == "json":
        file.write_text(json.dumps(contract))
    else:
        FORMATS["onnx"].write(Export(policy, contract), file)
    whole, draw = file.read_bytes(), random.Random(1)
    begin = 0 if kind == "json" else whole.index(b"rldistill.contract") - 8
    for _ in range(300):
        content = bytearray(whole)
        place = draw.randrange(begin, len(whole))
        content[place] = draw.randrange(256)
        if draw.random() < 0.3:
            del content[place:]
        file.write_bytes(bytes(content))
        if kind == "onnx" and b"rldistill.contract" not in content:
            continue  # a file without a contract is a program, which is read in a process of its own
        try:
            differences(contract, contract_of(file, Reading(), None))
        except RldistillError as error:
            assert str(error).isprintable() and len(str(error)) < 500
