"""What a student minimises: pure functions per row, their mean, and losses by name."""

from rldistill.losses.continuous import diag_gaussian_kl, mean_huber, mean_mse, reverse_diag_gaussian_kl
from rldistill.losses.discrete import nll, q_mse, reverse_kl, sharpened_kl, softened_kl
from rldistill.losses.factored import multi_binary_loss, multi_discrete_loss
from rldistill.losses.reduce import mean_over_batch
from rldistill.losses.spec import (
    LOSS_NAMES,
    TEMPERED_LOSS_NAMES,
    CustomLoss,
    LossFunction,
    LossSpec,
    check_loss,
    make_loss,
    pairing_warning,
    resolve_loss,
)
from rldistill.losses.temperature import auto_temperature

__all__ = [
    "LOSS_NAMES",
    "TEMPERED_LOSS_NAMES",
    "CustomLoss",
    "LossFunction",
    "LossSpec",
    "auto_temperature",
    "check_loss",
    "diag_gaussian_kl",
    "make_loss",
    "mean_huber",
    "mean_mse",
    "mean_over_batch",
    "multi_binary_loss",
    "multi_discrete_loss",
    "nll",
    "pairing_warning",
    "q_mse",
    "resolve_loss",
    "reverse_diag_gaussian_kl",
    "reverse_kl",
    "sharpened_kl",
    "softened_kl",
]
