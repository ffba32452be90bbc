"""What passes between floors: outputs with exactly one action field, layouts, and shapes with letters."""

import json

import numpy as np
import pytest
import torch

from rldistill.errors import UsageError
from rldistill.types import ActionLayout, PolicyOutput, check_shapes, resolve_device

LAYOUT = ActionLayout.discrete(3)
ROWS = torch.zeros(2, 3)
BOX = ActionLayout("box", (2,), (-1.0, 0.0), (1.0, 2.0), "tanh_rescale")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"q_values": ROWS}, "q_values"),
        ({"logits": ROWS}, "logits"),
        ({"mean": ROWS, "log_std": ROWS}, "gaussian"),
        ({"actions": ROWS}, "actions"),
    ],
)
def test_an_output_is_named_after_its_one_action_field(values, kind):
    assert PolicyOutput(LAYOUT, **values).kind == kind


@pytest.mark.parametrize(
    ("values", "given"),
    [
        ({}, "[]"),
        ({"value": torch.zeros(2)}, "[]"),
        ({"q_values": ROWS, "logits": ROWS}, "['q_values', 'logits']"),
        ({"mean": ROWS, "log_std": ROWS, "actions": ROWS}, "['mean', 'actions']"),
    ],
)
def test_an_output_has_exactly_one_action_field(values, given):
    with pytest.raises(ValueError) as caught:
        PolicyOutput(LAYOUT, **values)
    assert str(caught.value) == f"exactly one of q_values, logits, mean, actions must be given, got {given}."


@pytest.mark.parametrize("values", [{"mean": ROWS}, {"q_values": ROWS, "log_std": ROWS}])
def test_mean_and_deviation_come_together(values):
    with pytest.raises(ValueError, match=r"^mean and log_std must be given together\.$"):
        PolicyOutput(LAYOUT, **values)


def test_scores_are_the_action_field_of_a_discrete_policy():
    q_values, logits = torch.ones(1, 3), torch.zeros(1, 3)
    assert PolicyOutput(LAYOUT, q_values=q_values).scores is q_values
    assert PolicyOutput(LAYOUT, logits=logits).scores is logits
    with pytest.raises(AssertionError, match="this one is actions"):
        _ = PolicyOutput(LAYOUT, actions=ROWS).scores


@pytest.mark.parametrize(
    ("layout", "num_outputs"),
    [
        (LAYOUT, 3),
        (ActionLayout("multi_discrete", (2, 3, 4)), 9),
        (ActionLayout("multi_binary", (5,)), 5),
        (BOX, 2),
    ],
)
def test_a_layout_counts_its_outputs_and_survives_json(layout, num_outputs):
    assert layout.num_outputs == num_outputs
    assert ActionLayout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("discrete", ()), "sizes must hold positive integers, got ()."),
        (("discrete", (0,)), "sizes must hold positive integers, got (0,)."),
        (("discrete", (2, 3)), "discrete actions have one size, got (2, 3)."),
        (
            ("text", (2,)),
            "kind must be one of discrete, multi_discrete, multi_binary, box, got 'text'.",
        ),
        (
            ("box", (2,), (0.0,), (1.0, 1.0), "clip"),
            "a box of 2 dimensions needs as many bounds, got low (0.0,), high (1.0, 1.0).",
        ),
        (
            ("box", (1,), (0.0,), (1.0,)),
            "mapping belongs to box actions and to them alone, got kind 'box', mapping None.",
        ),
        (
            ("discrete", (2,), (), (), "clip"),
            "mapping belongs to box actions and to them alone, got kind 'discrete', mapping 'clip'.",
        ),
    ],
)
def test_a_layout_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError) as caught:
        ActionLayout(*arguments)
    assert str(caught.value) == message


def test_letters_stand_for_one_size_each():
    check_shapes("B A", student=torch.zeros(2, 3), teacher=np.zeros((2, 3)))
    check_shapes("B", loss=torch.zeros(5))
    check_shapes("", scalar=torch.zeros(()))


@pytest.mark.parametrize(
    ("expected", "shapes", "message"),
    [
        ("B A", {"a": (2, 3), "b": (2, 4)}, "b must be [B, A], got a [2, 3], b [2, 4]."),
        ("B A", {"a": (2,)}, "a must be [B, A], got a [2]."),
        ("B B", {"a": (2, 3)}, "a must be [B, B], got a [2, 3]."),
        ("T N", {"a": (2, 3, 1)}, "a must be [T, N], got a [2, 3, 1]."),
    ],
)
def test_another_shape_is_refused_with_all_names_and_sizes(expected, shapes, message):
    with pytest.raises(ValueError) as caught:
        check_shapes(expected, **{name: torch.zeros(shape) for name, shape in shapes.items()})
    assert str(caught.value) == message


@pytest.mark.parametrize(("has_cuda", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_the_gpu_where_there_is_one(monkeypatch, has_cuda, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    assert resolve_device("auto").type == expected
    assert resolve_device("cpu").type == "cpu"


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError) as caught:
        resolve_device("cuda")
    assert str(caught.value) == ("device: got 'cuda', but torch finds no CUDA device here. Use --device auto or cpu.")


@pytest.mark.parametrize("name", ["tpu", "cuda:0", ""])
def test_another_device_is_refused(name):
    with pytest.raises(UsageError) as caught:
        resolve_device(name)
    assert str(caught.value) == f"device: got {name!r}, expected auto, cpu or cuda."
