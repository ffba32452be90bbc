"""What somebody's code answers, by name."""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from rldistill.errors import MismatchError
from rldistill.networks.foreign import call_foreign, named_outputs

ROWS = torch.arange(6.0).view(2, 3)


class Named(NamedTuple):
    logits: torch.Tensor
    value: torch.Tensor


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (ROWS, ["output"]),
        (ROWS.numpy(), ["output"]),
        (ROWS.tolist(), ["output"]),
        (list(ROWS), ["output"]),
        ([ROWS, ROWS[:, 0]], ["0", "1"]),
        ((ROWS, None, ROWS), ["0", "2"]),
        ((ROWS[0], ROWS[1]), ["0", "1"]),
        ({"q": ROWS, 7: ROWS}, ["q", "7"]),
        (Named(ROWS, ROWS[:, 0]), ["logits", "value"]),
    ],
    ids=["tensor", "array", "numbers", "rows", "list", "tuple", "tuple of vectors", "mapping", "named tuple"],
)
def test_outputs_go_by_name_or_position(answer, names):
    outputs = named_outputs("Function f", answer)
    assert list(outputs) == names
    if names == ["output"]:
        assert torch.equal(outputs["output"], ROWS)


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (None, "None"),
        ((), "a tuple"),
        ({}, "a dict"),
        ("no", "a str"),
        ([1, [2, 3]], "a list"),
        ((ROWS, (ROWS, ROWS)), "a tuple with a tuple as '1'"),
        (torch.distributions.Categorical(logits=ROWS), "a Categorical"),
        (np.array(["left"]), "a ndarray"),
    ],
    ids=["none", "nothing", "no names", "text", "ragged", "nested", "distribution", "texts"],
)
def test_what_is_no_tensor_is_said_to_be_what_it_is(answer, what):
    with pytest.raises(MismatchError) as caught:
        named_outputs("Function f", answer)
    assert str(caught.value) == (
        f"Function f answered {what}, expected a tensor or an array [B, O], or several in a tuple or by name. Return "
        "its scores of all actions, or its actions."
    )


def test_a_long_reason_of_many_lines_becomes_one_line():
    def failing(observations):
        raise ValueError("first\n" + "x" * 1000)

    with pytest.raises(MismatchError) as caught:
        call_foreign("Function failing", failing, ROWS)
    line = str(caught.value)
    assert line.startswith("Function failing failed on observations [2, 3] of float32: ValueError: first xxx")
    assert "\n" not in line
    assert len(line) < 500


def test_a_reason_without_words_is_its_type():
    def failing(observations):
        raise NotImplementedError

    with pytest.raises(MismatchError, match=r"of float32: NotImplementedError\. It is called with one batch"):
        call_foreign("Function failing", failing, ROWS)
