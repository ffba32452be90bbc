"""What a module of the user's own draws while it trains depends on seed and update alone."""

import pytest
import torch
from torch import nn

from rldistill.distillation.randomness import drawn_for_update
from rldistill.networks import ModuleNetwork
from tests.kit.small_policies import small_policy


def network(device: str = "cpu") -> ModuleNetwork:
    return ModuleNetwork(nn.Linear(4, 2), (4,), 2).to(device)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_numbers_are_a_function_of_seed_and_update_and_the_callers_go_on_as_before(device):
    student = network(device)

    def draw() -> list[float]:
        return torch.rand(3, device=device).tolist()

    def drawn(update: int, seed: int = 0) -> list[float]:
        with drawn_for_update(student, seed, update):
            return draw()

    torch.manual_seed(5)
    expected = [draw(), draw()]
    torch.manual_seed(5)
    before, first, after = draw(), drawn(3), draw()
    assert [before, after] == expected
    assert drawn(3) == first
    assert len({tuple(numbers) for numbers in (first, drawn(4), drawn(3, seed=1))}) == 3


def test_for_our_own_networks_which_draw_nothing_nothing_is_done():
    own = small_policy().network
    assert drawn_for_update(own, 0, 1) is drawn_for_update(own, 0, 2)
