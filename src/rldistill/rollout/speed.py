"""How fast a policy decides: one observation at a time, and many at once."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from rldistill.policies import TorchPolicy

_NUM_WARMUPS = 5
_NUM_REPEATS = 50
_BATCH_SIZE = 64


@dataclass(frozen=True)
class DecisionSpeed:
    """Measured on the machine and with the threads of the moment: compare within one run only."""

    latency_seconds: float  # median time of one decision on one observation
    decisions_per_second: float  # in batches of 64


@torch.inference_mode()
def measure_speed(policy: TorchPolicy) -> DecisionSpeed:
    """Time a policy's network on zeros; unlike in play, one observation is not padded to a batch."""
    network, head, device = policy.network, policy.head, policy.device
    was_training = network.training
    network.eval()
    seen = policy.spec.seen_by(head)
    dtype = torch.uint8 if seen.observation_dtype == "uint8" else torch.float32
    batch = torch.zeros(_BATCH_SIZE, *seen.observation_shape, dtype=dtype, device=device)
    latency = _median_seconds(lambda: network(batch[:1], head).outputs.argmax().item())
    batched = _median_seconds(lambda: network(batch, head).outputs.argmax(dim=1).cpu())
    network.train(was_training)
    return DecisionSpeed(latency, _BATCH_SIZE / batched)


def _median_seconds(call: Callable[[], object]) -> float:
    seconds: list[float] = []
    for index in range(_NUM_WARMUPS + _NUM_REPEATS):
        started = time.perf_counter()
        call()
        if index >= _NUM_WARMUPS:
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
