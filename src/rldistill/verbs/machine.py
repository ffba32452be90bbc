"""What `auto` and 0 stand for on this machine."""

from dataclasses import replace
from typing import TypeVar

import torch

from rldistill.networks.precision import resolve_precision
from rldistill.session.run_folder import begun_precision
from rldistill.types import resolve_device
from rldistill.verbs.distill_config import DistillConfig
from rldistill.verbs.teacher_config import TrainTeacherConfig

Trained = TypeVar("Trained", DistillConfig, TrainTeacherConfig)


def resolve_training_machine(config: Trained, *, resume: bool) -> Trained:
    """Return a configuration with the device, threads and precision that its training uses here.

    Raises:
        UsageError: the device or the precision cannot be.
    """
    device = resolve_device(config.device)
    # What `auto` stands for may differ on this processor: a run goes on as it began.
    precision = resolve_precision(begun_precision(config.out, config.precision) if resume else config.precision, device)
    num_threads = config.num_threads or torch.get_num_threads()
    return replace(config, device=device.type, precision=precision, num_threads=num_threads)
