"""What a student minimises: pure functions per row, their mean, and losses by name."""

from rldistill.losses.discrete import nll, q_mse, reverse_kl, sharpened_kl, softened_kl
from rldistill.losses.reduce import mean_over_batch
from rldistill.losses.spec import (
    LOSS_NAMES,
    TEMPERED_LOSS_NAMES,
    CustomLoss,
    LossFunction,
    LossSpec,
    make_loss,
    pairing_warning,
    resolve_loss,
)

__all__ = [
    "LOSS_NAMES",
    "TEMPERED_LOSS_NAMES",
    "CustomLoss",
    "LossFunction",
    "LossSpec",
    "make_loss",
    "mean_over_batch",
    "nll",
    "pairing_warning",
    "q_mse",
    "resolve_loss",
    "reverse_kl",
    "sharpened_kl",
    "softened_kl",
]
