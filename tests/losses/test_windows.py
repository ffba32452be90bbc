"""Every loss takes windows of time, `[T, B, …]` → `[T, B]`, and gives each step what it would give it alone."""

import pytest
import torch

from rldistill.losses import LOSS_NAMES, make_loss, mean_over_batch
from rldistill.losses.spec import _LOSSES
from rldistill.types import ActionLayout

TIME, BATCH = 4, 3
BOX = ActionLayout("box", (2,), (-1.0, 0.0), (1.0, 2.0), "clip")
LAYOUTS = {
    "discrete": ActionLayout.discrete(5),
    "multi_discrete": ActionLayout("multi_discrete", (2, 3)),
    "multi_binary": ActionLayout("multi_binary", (4,)),
}
CASES = [
    pytest.param(name, kind, layout, id=f"{name}-{kind}-{layout.kind}")
    for name in LOSS_NAMES
    for kind in _LOSSES[name].teacher_kinds
    for layout in ([BOX] if kind in ("gaussian", "actions") else LAYOUTS.values())
    if kind != "q_values" or layout.kind == "discrete"
]


@pytest.mark.parametrize(("name", "kind", "layout"), CASES)
def test_a_window_gives_each_step_its_own_loss(name, kind, layout):
    loss = make_loss(name, kind, layout)
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(TIME, BATCH, layout.num_outputs(loss.student_kind), generator=generator)
    target = torch.randn(TIME, BATCH, layout.num_outputs(kind), generator=generator)
    of_window = loss(student, target)
    assert of_window.shape == (TIME, BATCH)
    torch.testing.assert_close(of_window, torch.stack([loss(student[t], target[t]) for t in range(TIME)]))


def test_a_custom_loss_sees_windows_and_returns_one_value_for_each_step():
    loss = make_loss(lambda student, target: (student - target).abs().sum(dim=-1), "logits")
    assert loss(torch.zeros(TIME, BATCH, 2), torch.ones(TIME, BATCH, 2)).tolist() == [[2.0] * BATCH] * TIME


def test_a_mask_leaves_padded_steps_out_of_the_mean():
    losses = torch.tensor([[1.0, 2.0], [3.0, 100.0]])
    assert mean_over_batch(losses, torch.tensor([[True, True], [True, False]])).item() == 2.0
