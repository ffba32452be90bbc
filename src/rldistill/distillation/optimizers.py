"""Optimisers by name, with the constants each is known to work with."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn


def _adam(parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)


def _rmsprop(parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    # Rusu et al. do not give the constants; these are Nature DQN's (Mnih et al. 2015).
    return torch.optim.RMSprop(
        parameters, lr=learning_rate, alpha=0.95, eps=0.01, centered=True, weight_decay=weight_decay
    )


OPTIMIZERS: Mapping[str, Callable[[Iterable[nn.Parameter], float, float], torch.optim.Optimizer]] = {
    "adam": _adam,
    "rmsprop": _rmsprop,
}
"""Name to maker of (parameters, learning rate, weight decay)."""
