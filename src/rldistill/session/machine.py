"""What `auto` and 0 stand for on this machine: fixed rules, applied once."""

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from rldistill.networks.precision import resolve_precision
from rldistill.options.shared import Machine, TrainingMachine
from rldistill.session.run_folder import begun_precision
from rldistill.types import resolve_device

Resolved = TypeVar("Resolved", bound=Machine)
ResolvedTraining = TypeVar("ResolvedTraining", bound=TrainingMachine)


def resolve_machine(options: Resolved) -> Resolved:
    """Return options with the device and the number of threads that are used here.

    Raises:
        UsageError: there is no such device.
    """
    device = resolve_device(options.device).type
    return replace(options, device=device, num_threads=options.num_threads or torch.get_num_threads())


def with_precision(options: ResolvedTraining, *, images: bool, goes_on_in: Path | None) -> ResolvedTraining:
    """Return options with the precision that is used here.

    Args:
        options: of a verb that trains; the device is resolved.
        images: whether images are among what the networks see.
        goes_on_in: folder of the run that goes on: what `auto` stands for may differ on this processor.

    Raises:
        UsageError: there is no such precision.
    """
    named = options.precision if goes_on_in is None else begun_precision(goes_on_in, options.precision)
    return replace(options, precision=resolve_precision(named, torch.device(options.device), images=images))
