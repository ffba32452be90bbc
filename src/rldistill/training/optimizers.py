"""Optimisers of DQN by name, with the constants each is known to work with."""

import torch
from torch import nn

from rldistill.errors import UsageError

LEARNING_RATES = {"rmsprop": 2.5e-4, "adam": 6.25e-5}
"""Nature DQN's (Mnih et al. 2015) and Dopamine's (Castro et al. 2018)."""

_RMSPROP_DECAY = 0.95
_RMSPROP_EPSILON = 0.01
_ADAM_EPSILON = 1.5e-4


class CentredRMSProp(torch.optim.Optimizer):
    """RMSProp of Nature DQN: the step is divided by the gradient's deviation, with ε *under* the root.

    p ← p − lr · g ÷ √(E[g²] − E[g]² + ε). torch's own adds ε after the root, which for the small
    gradients of clipped rewards is another optimiser: √0.01 is 0.1.

    Args:
        parameters: to be optimised.
        learning_rate: > 0.
        decay: of both averages, in [0, 1).
        epsilon: > 0, in squared units of the gradient.

    Source: the published code of Mnih et al. 2015 (`NeuralQLearner.lua`), after Graves 2013, equations 38 to 45.
    """

    def __init__(self, parameters: list[nn.Parameter], *, learning_rate: float, decay: float, epsilon: float) -> None:
        super().__init__(parameters, {"lr": learning_rate, "decay": decay, "epsilon": epsilon})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step with the gradients that are there; a parameter without one stays as it is."""
        assert closure is None, "gradients come from backward()"
        for group in self.param_groups:
            decay = group["decay"]
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["mean"] = torch.zeros_like(parameter)
                    state["mean_square"] = torch.zeros_like(parameter)
                mean = state["mean"].mul_(decay).add_(gradient, alpha=1 - decay)
                mean_square = state["mean_square"].mul_(decay).addcmul_(gradient, gradient, value=1 - decay)
                # Rounding may leave a variance just below zero.
                variance = mean_square.addcmul(mean, mean, value=-1).clamp_(min=0)
                parameter.addcdiv_(gradient, variance.add_(group["epsilon"]).sqrt_(), value=-group["lr"])


def make_optimizer(
    name: str, parameters: list[nn.Parameter], *, learning_rate: float, batch_size: int
) -> torch.optim.Optimizer:
    """Return the optimiser of a loss that is a *mean* over the batch.

    Nature DQN sums gradients over its batch. To divide them by B and ε by B² gives the same
    steps, so RMSProp's ε is 0.01 ÷ B². Adam's is Dopamine's, for a mean.

    Raises:
        UsageError: no such optimiser.
    """
    if name == "rmsprop":
        epsilon = _RMSPROP_EPSILON / batch_size**2
        return CentredRMSProp(parameters, learning_rate=learning_rate, decay=_RMSPROP_DECAY, epsilon=epsilon)
    if name == "adam":
        return torch.optim.Adam(parameters, lr=learning_rate, eps=_ADAM_EPSILON, fused=True)
    raise UsageError(f"optimizer: got {name!r}, expected {' or '.join(LEARNING_RATES)}.")
