"""Declarations of outputs: what may be written, what it means, and rows in the environment's units."""

import math

import pytest
import torch

from rldistill.errors import MismatchError, UsageError
from rldistill.networks.outputs import OutputDeclaration, check_kind, parse_outputs, raw_rows
from rldistill.types import ActionLayout

BOX = ActionLayout("box", (2,), (-2.0, 0.0), (2.0, 10.0), "clip")


@pytest.mark.parametrize(
    ("text", "declaration"),
    [
        ("logits", OutputDeclaration("logits")),
        ("logits=pi", OutputDeclaration("logits", ("pi",))),
        ("gaussian=mu, log(std)", OutputDeclaration("gaussian", ("mu", "std"), is_std=True)),
        ("actions=rescale", OutputDeclaration("actions", is_scaled=True)),
        ("actions=rescale(25)", OutputDeclaration("actions", ("25",), is_scaled=True)),
        ("actions=rescale(rescale)", OutputDeclaration("actions", ("rescale",), is_scaled=True)),
        ("gaussian=rescale", OutputDeclaration("gaussian", is_scaled=True)),
        ("gaussian=rescale(mu,log(std))", OutputDeclaration("gaussian", ("mu", "std"), is_std=True, is_scaled=True)),
        # Of actions that have no units, a name is a name.
        ("logits=rescale", OutputDeclaration("logits", ("rescale",))),
    ],
)
def test_what_may_be_written_is_read_and_written_again(text, declaration):
    assert parse_outputs(text) == declaration
    assert declaration.text == text.replace(", ", ",")


@pytest.mark.parametrize("text", ["actions=rescale(a,b)", "actions=rescale(a),b", "gaussian=rescale(a,b,c)"])
def test_too_many_names_are_refused(text):
    with pytest.raises(
        UsageError, match=r"^outputs: got .*, expected (actions= and one name|gaussian= and one or two)"
    ):
        parse_outputs(text)


def test_rescaled_actions_are_those_of_the_box_also_beyond_its_bounds():
    answers = {"a": torch.tensor([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0], [2.0, 0.5]])}
    rows = raw_rows("it", parse_outputs("actions=rescale(a)"), answers, BOX)
    assert rows.tolist() == [[-2, 0], [0, 5], [2, 10], [4, 7.5]]
    assert raw_rows("it", parse_outputs("actions=a"), answers, BOX) is answers["a"]


@pytest.mark.parametrize(
    "outputs", ["gaussian=rescale(row)", "gaussian=rescale(mu,log_std)", "gaussian=rescale(mu,log(std))"]
)
def test_a_rescaled_gaussian_has_the_spread_of_the_box_too(outputs):
    mean, std = torch.tensor([[0.5, -1.0]]), torch.tensor([[0.1, 0.2]])
    answers = {"mu": mean, "std": std, "log_std": std.log(), "row": torch.cat([mean, std.log()], dim=1)}
    rows = raw_rows("it", parse_outputs(outputs), answers, BOX)
    torch.testing.assert_close(rows, torch.tensor([[1.0, 0.0, math.log(0.2), math.log(1.0)]]))


def test_what_has_no_bounds_cannot_be_rescaled():
    layout = ActionLayout("box", (1,), (-math.inf,), (1.0,), "clip")
    with pytest.raises(MismatchError) as caught:
        check_kind("ONNX file p", parse_outputs("actions=rescale(a)"), layout)
    assert str(caught.value) == (
        "ONNX file p: its outputs were declared as actions=rescale(a), but the box of the task's actions has no "
        "bounds. Leave rescale out: --outputs actions=a."
    )
