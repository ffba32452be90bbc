"""The optimisers are torch's own, to the last bit."""

import copy

import pytest
import torch
from torch import nn

from rldistill.distillation.optimizers import OPTIMIZERS


def two_alike() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    return network, copy.deepcopy(network)


def take(network: nn.Module, optimizer: torch.optim.Optimizer, update: int) -> None:
    rows = torch.randn(4, 5, generator=torch.Generator().manual_seed(update), dtype=network[0].weight.dtype)
    optimizer.param_groups[0]["lr"] = 1e-2 / (update + 1)
    optimizer.zero_grad()
    network(rows).square().mean().backward()
    if update % 3 == 1:  # as the head of a task that an update does not teach
        for weight in network[2].parameters():
            weight.grad = None
    optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_in_one_kernel_is_torchs_own_also_after_a_resume(dtype, weight_decay):
    ours, theirs = (network.to(dtype) for network in two_alike())
    adam = OPTIMIZERS["adam"](ours.parameters(), 1e-2, weight_decay)
    own = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=weight_decay, fused=True)
    for update in range(12):
        if update == 6:
            state = adam.state_dict()
            adam = OPTIMIZERS["adam"](ours.parameters(), 1e-2, weight_decay)
            adam.load_state_dict(state)
        take(ours, adam, update)
        take(theirs, own, update)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert adam.state_dict().keys() == own.state_dict().keys()
    for mine, other in zip(adam.state_dict()["state"].values(), own.state_dict()["state"].values(), strict=True):
        assert mine.keys() == other.keys()
        assert all(torch.equal(mine[name], other[name]) for name in other)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_rmsprop_is_torchs_own_also_after_a_resume(weight_decay):
    ours, theirs = two_alike()
    rmsprop = OPTIMIZERS["rmsprop"](ours.parameters(), 1e-2, weight_decay)
    constants = {"alpha": 0.95, "eps": 0.01, "centered": True}
    own = torch.optim.RMSprop(theirs.parameters(), lr=1e-2, weight_decay=weight_decay, **constants)
    for update in range(12):
        if update == 6:
            state = copy.deepcopy(own.state_dict())  # also of a run that an earlier version began
            rmsprop = OPTIMIZERS["rmsprop"](ours.parameters(), 1e-2, weight_decay)
            rmsprop.load_state_dict(state)
        take(ours, rmsprop, update)
        take(theirs, own, update)
    assert all(torch.equal(mine, other) for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True))
    for mine, other in zip(rmsprop.state_dict()["state"].values(), own.state_dict()["state"].values(), strict=True):
        assert mine.keys() == other.keys()
        assert all(torch.equal(mine[name], other[name]) for name in other)


def test_rmsprop_keeps_weights_finite_where_a_gradient_hardly_varies():
    weights = nn.Parameter(torch.zeros(1000))
    rmsprop = OPTIMIZERS["rmsprop"]([weights], 1e-3, 0.0)
    gradients = 3.0 * torch.rand(1000, generator=torch.Generator().manual_seed(0))
    for _ in range(500):
        weights.grad = gradients.clone()
        rmsprop.step()
    assert torch.isfinite(weights).all()


def test_weights_of_several_types_are_left_to_torch():
    ours, theirs = two_alike()
    for network in (ours, theirs):
        network[2].double()
        network[2].register_forward_pre_hook(lambda _module, inputs: (inputs[0].double(),))
    adam = OPTIMIZERS["adam"](ours.parameters(), 1e-2, 0.0)
    own = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.0, fused=True)
    for update in range(4):
        take(ours, adam, update)
        take(theirs, own, update)
    assert all(torch.equal(mine, other) for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True))
