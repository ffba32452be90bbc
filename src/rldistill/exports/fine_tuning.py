"""Fine-tuning with quantisation in the loop: the policy learns to act as it did with int8 weights and activations.

The loss compares outputs computed from rounded weights and rounded activations with those of the policy as it was;
gradients pass through the rounding as if it were not there (straight-through, Bengio et al. 2013). Ranges stay those of
the calibration. After: quantisation-aware policy distillation (Avé et al. 2022); here the teacher is the policy itself.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rldistill.errors import NumericalError
from rldistill.exports.c.plan import Plan, activated, make_plan, refusals_of, run_plan
from rldistill.exports.c.quantize import QuantizedLayer, QuantizedPlan, quantize, whole_weights
from rldistill.policies import TorchPolicy
from rldistill.seeding import stream_generator

NUM_UPDATES = 2000
_BATCH_SIZE = 128
_LEARNING_RATE = 3e-4


def tunable(policy: TorchPolicy, calibration: Tensor) -> tuple[Plan, QuantizedPlan]:
    """Return what is computed while a policy is fine-tuned, in floats, and in whole numbers of calibrated ranges.

    Raises:
        MismatchError: its network cannot be had in int8.
    """
    with refusals_of("--quantization-aware", "Leave it out"):
        plan = make_plan(policy)
        return plan, quantize(plan, calibration)


def fine_tune(
    policy: TorchPolicy,
    observe: Callable[[NDArray[np.int64]], NDArray[np.generic]],
    num_steps: int,
    calibration: Tensor,
    *,
    seed: int,
    progress: Callable[[int], None],
) -> TorchPolicy:
    """Return a copy of a policy that acts as it does with int8 weights and activations, too.

    Args:
        policy: the teacher, and the start.
        observe: gives what the policy sees at steps of a dataset, on which it is taught.
        num_steps: of the dataset.
        calibration: observations `[N, *observation_shape]` from which the ranges come.
        seed: of the rows that are drawn.
        progress: hears the number of updates so far.

    Raises:
        MismatchError: its network cannot be had in int8.
        NumericalError: the loss became NaN or infinite.
    """
    tuned = policy.copy()
    (plan, quantized), teacher = tunable(tuned, calibration), make_plan(policy)
    weights = [tensor for layer in plan.layers for tensor in (layer.weight, layer.bias)]
    optimizer = torch.optim.Adam(weights, lr=_LEARNING_RATE, fused=True)
    rng = stream_generator(seed, "quantisation")
    with torch.no_grad():
        spread = _compared(run_plan(teacher, calibration), plan.output.kind).square().mean(dim=0).clamp(min=1e-12)
    for update in range(NUM_UPDATES):
        optimizer.param_groups[0]["lr"] = _LEARNING_RATE * (1 - update / NUM_UPDATES)
        rows = torch.as_tensor(observe(np.sort(rng.integers(num_steps, size=_BATCH_SIZE))))
        with torch.no_grad():
            targets = run_plan(teacher, rows)
        error = _compared(quantized.outputs(rows, _forward), plan.output.kind) - _compared(targets, plan.output.kind)
        loss = (error.square() / spread).mean()
        if not loss.isfinite():
            raise NumericalError(f"--quantization-aware: update {update} diverged. The policy is left as it was.")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        progress(update + 1)
    return tuned


def _compared(outputs: Tensor, kind: str) -> Tensor:
    """Return what is compared of outputs `[B, O]`; of scores also how far each lies above their mean, which decides."""
    if kind not in ("q_values", "logits"):
        return outputs
    return torch.cat([outputs, outputs - outputs.mean(dim=1, keepdim=True)], dim=1)


def _forward(own: QuantizedLayer, numbers: Tensor) -> Tensor:
    """Do what `QuantizedLayer.forward` does, but for the last rounding of a sum, with gradients for its weights."""
    layer, taken = own.layer, own.taken
    with torch.no_grad():
        at_mean = layer.bias.double() + (layer.weight.double() * own.mean).flatten(1).sum(dim=1)
        whole, scale = whole_weights(layer.weight, taken, at_mean)
        step = scale.view(-1, *(1,) * (whole.dim() - 1))
        rounded = torch.where(taken.scale > 0, whole * step / taken.scale, 0.0)
        change = (rounded - layer.weight).float()
        made_up = (change * own.mean.float()).flatten(1).sum(dim=1)
    values = numbers.float() * taken.scale.float() + taken.offset.float()
    sums = layer.linear(values, layer.weight + change, layer.bias - made_up)
    if own.given is None:
        return sums
    steps = (activated(layer.activation, sums) - own.given.offset.float()) / own.given.scale.float()
    return steps + (steps.detach() + 0.5).floor().clamp(0, own.given.top) - steps.detach()
