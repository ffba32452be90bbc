"""What passes between floors: outputs with exactly one action field, layouts, and shapes with letters."""

import json
import math

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


@pytest.mark.parametrize(
    ("layout", "kind"), [(LAYOUT, "q_values"), (LAYOUT, "logits"), (BOX, "gaussian"), (BOX, "actions")]
)
def test_the_rows_of_an_output_make_it_again(layout, kind):
    raw = torch.arange(2.0 * layout.num_outputs(kind)).view(2, -1)
    output = PolicyOutput.from_raw(layout, kind, raw)
    assert output.kind == kind
    assert torch.equal(output.raw, raw)


def test_a_gaussians_row_is_its_mean_and_then_its_log_std():
    output = PolicyOutput.from_raw(BOX, "gaussian", torch.tensor([[1.0, 2.0, -3.0, -4.0]]))
    assert output.mean is not None
    assert output.log_std is not None
    assert (output.mean.tolist(), output.log_std.tolist()) == ([[1.0, 2.0]], [[-3.0, -4.0]])


@pytest.mark.parametrize(
    ("layout", "kind", "num_outputs", "action_shape"),
    [
        (LAYOUT, "q_values", 3, ()),
        (ActionLayout("multi_discrete", (2, 3, 4)), "logits", 9, (3,)),
        (ActionLayout("multi_binary", (5,)), "logits", 5, (5,)),
        (BOX, "actions", 2, (2,)),
        (BOX, "gaussian", 4, (2,)),
    ],
)
def test_a_layout_counts_its_outputs_and_survives_json(layout, kind, num_outputs, action_shape):
    assert layout.num_outputs(kind) == num_outputs
    assert layout.action_shape == action_shape
    assert ActionLayout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout


def test_where_an_environment_begins_to_count_is_recorded_where_it_is_not_0_and_changes_no_layout():
    layout = ActionLayout("multi_discrete", (2, 3), start=(0, 5))
    assert layout == ActionLayout("multi_discrete", (2, 3))
    assert ActionLayout.from_dict(json.loads(json.dumps(layout.to_dict()))).start == (0, 5)
    assert "start" not in ActionLayout("discrete", (2,), start=(0,)).to_dict()
    for kind, start in (("discrete", (1, 2)), ("multi_binary", (1,)), ("discrete", (0.5,)), ("discrete", ("1",))):
        with pytest.raises(ValueError, match=r"^start must hold "):
            ActionLayout(kind, (2,), start=start)


def test_outputs_that_such_actions_do_not_have_are_refused():
    with pytest.raises(ValueError, match=r"^multi_discrete actions have logits, got q_values\.$"):
        ActionLayout("multi_discrete", (2, 2)).num_outputs("q_values")


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


def test_three_dots_stand_for_the_same_leading_sizes_everywhere():
    check_shapes("... A", rows=torch.zeros(4, 2, 3), others=torch.zeros(4, 2, 3))
    check_shapes("... A", row=torch.zeros(3))
    with pytest.raises(ValueError, match=r"^others must be \[\.\.\., A\], got rows \[4, 2, 3\], others \[2, 4, 3\]\.$"):
        check_shapes("... A", rows=torch.zeros(4, 2, 3), others=torch.zeros(2, 4, 3))
    with pytest.raises(ValueError, match=r"^rows must be \[\.\.\., B, A\], got rows \[3\]\.$"):
        check_shapes("... B A", rows=torch.zeros(3))


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


def test_a_box_without_bounds_survives_json_which_knows_no_infinity():
    layout = ActionLayout("box", (3,), (-math.inf, 0.0, -1.0), (math.inf, math.inf, 1.0), "clip")
    data = layout.to_dict()
    assert (data["low"], data["high"]) == ([None, 0.0, -1.0], [None, None, 1.0])
    assert ActionLayout.from_dict(json.loads(json.dumps(data, allow_nan=False))) == layout


def test_a_dimension_without_bounds_is_infinitely_wide():
    layout = ActionLayout("box", (4,), (-1.0, -math.inf, 0.0, -3.4e38), (1.0, 0.0, 200.0, 3.4e38), "clip")
    assert layout.widths == (2.0, math.inf, 200.0, math.inf)
    assert ActionLayout.discrete(3).widths == ()


@pytest.mark.parametrize(
    ("layout", "is_bounded"),
    [
        (ActionLayout("box", (2,), (-1.0, 0.0), (1.0, 5.0), "clip"), True),
        (ActionLayout("box", (2,), (-1.0, -np.inf), (1.0, 5.0), "clip"), False),
        (ActionLayout("box", (1,), (-3.4e38,), (3.4e38,), "clip"), False),
        (ActionLayout.discrete(3), False),
    ],
)
def test_a_box_is_bounded_where_each_dimension_is(layout, is_bounded):
    assert layout.is_bounded == is_bounded
