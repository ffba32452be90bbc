"""A module of somebody's own as a network: what it answers becomes rows, or a refusal in one line."""

import pytest
import torch
from torch import nn

from rldistill.errors import MismatchError, UsageError
from rldistill.networks import ModuleNetwork
from rldistill.networks.outputs import parse_outputs

ROWS = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


class Twins(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, observations):
        return self.left(observations), self.right(observations)


def test_of_several_outputs_the_declared_one_learns():
    module = Twins()
    ModuleNetwork(module, (4,), 3, outputs=parse_outputs("logits=1"))(ROWS).outputs.sum().backward()
    assert module.left.weight.grad is None
    assert module.right.weight.grad is not None


def test_several_outputs_without_a_declaration_are_listed():
    with pytest.raises(MismatchError) as caught:
        ModuleNetwork(Twins(), (4,), 3)(ROWS)
    assert str(caught.value) == (
        "Module Twins returned 2 outputs: 0 [B, 3], 1 [B, 3], expected one tensor [B, 3]. Return the one "
        "that acts alone."
    )


def test_another_shape_is_shown():
    with pytest.raises(MismatchError) as caught:
        ModuleNetwork(nn.Linear(4, 2), (4,), 3)(ROWS)
    assert str(caught.value) == (
        "Module Linear returned [5, 2] for 5 observations of shape [4], expected a tensor [5, 3]."
    )


def test_what_is_told_in_one_line_already_and_a_full_memory_pass_through():
    class Raising(nn.Module):
        def forward(self, observations):
            raise self.error

    module = Raising()
    for error in (UsageError("said"), torch.OutOfMemoryError("full")):
        module.error = error
        with pytest.raises(type(error)) as caught:
            ModuleNetwork(module, (4,), 3)(ROWS)
        assert caught.value is error
