"""Optimisers by name, with the constants each is known to work with."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

_kernels: Any = torch  # those called below have no types, and are what `torch.optim` itself calls


class FusedAdamW(torch.optim.AdamW):
    """AdamW of one kernel, called directly: of a small network torch takes ten times as long to get there.

    The weights and the state are those of `torch.optim.AdamW(…, fused=True)`, to the last bit.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float) -> None:
        super().__init__(parameters, lr=lr, weight_decay=weight_decay, fused=True)
        weights = [weight for group in self.param_groups for weight in group["params"]]
        self._is_alike = len({(weight.device, weight.dtype) for weight in weights}) == 1

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Change every weight that has a gradient."""
        group = self.param_groups[0]
        weights = [weight for weight in group["params"] if weight.grad is not None]
        states: list[dict[str, Any]] = [self.state[weight] for weight in weights]
        # The first time torch makes the state.
        if closure is not None or len(self.param_groups) > 1 or not self._is_alike or not all(states):
            return super().step(closure)
        steps = [state["step"] for state in states]
        beta1, beta2 = group["betas"]
        with torch.no_grad():
            _kernels._foreach_add_(steps, 1)
            _kernels._fused_adamw_(
                weights,
                [weight.grad for weight in weights],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                steps,
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )
        return None


# Else torch wraps it in a record for its profiler, which takes longer than the kernel.
setattr(FusedAdamW.step, "hooked", True)  # noqa: B010 (a function's attribute, of which no type knows)


def _adam(parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    return FusedAdamW(parameters, lr=learning_rate, weight_decay=weight_decay)


class ClampedRMSprop(torch.optim.RMSprop):
    """torch's centred RMSProp, but for variances that rounding leaves below zero: they are 0, where their root is NaN.

    All else, the state too, is that of `torch.optim.RMSprop(…, centered=True)` without momentum, to the last bit.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Change every weight that has a gradient."""
        assert closure is None, "gradients come from backward()"
        for group in self.param_groups:
            decay, weight_decay = group["alpha"], group["weight_decay"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["step"] = torch.zeros(())
                    state |= {name: torch.zeros_like(weight) for name in ("square_avg", "grad_avg")}
                state["step"] += 1
                gradient = weight.grad.add(weight, alpha=weight_decay) if weight_decay else weight.grad
                mean_square = state["square_avg"].mul_(decay).addcmul_(gradient, gradient, value=1 - decay)
                mean = state["grad_avg"].lerp_(gradient, 1 - decay)
                deviation = mean_square.addcmul(mean, mean, value=-1).clamp_(min=0).sqrt_().add_(group["eps"])
                weight.addcdiv_(gradient, deviation, value=-group["lr"])


def _rmsprop(parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    # Rusu et al. do not give the constants; these are Nature DQN's (Mnih et al. 2015), in PyTorch's form: their 0.01
    # stands under the root, and for gradients summed over the batch.
    return ClampedRMSprop(parameters, lr=learning_rate, alpha=0.95, eps=0.01, centered=True, weight_decay=weight_decay)


OPTIMIZERS: Mapping[str, Callable[[Iterable[nn.Parameter], float, float], torch.optim.Optimizer]] = {
    "adam": _adam,
    "rmsprop": _rmsprop,
}
"""Name to maker of (parameters, learning rate, weight decay)."""
