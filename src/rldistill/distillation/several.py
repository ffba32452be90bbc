"""Several students trained by one loop on the same batches, each as it would have been trained alone on them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

import torch
from torch import Tensor, nn

from rldistill.distillation.batch import Minibatch, Window
from rldistill.distillation.loop import (
    CLIPPING_EPSILON,
    HeldOutRecord,
    check_finite,
    held_out_record,
    measured_outputs,
    parameters_at,
    seen,
)
from rldistill.distillation.sources import HeldOut
from rldistill.losses import LossFunction
from rldistill.networks import PolicyNetwork
from rldistill.networks.input_layer import join_parts
from rldistill.networks.memory import aligned
from rldistill.networks.precision import Precision, autocast
from rldistill.networks.stacked import StackedNetworks, depth
from rldistill.schedules import Schedule
from rldistill.sight import Sight


@dataclass(frozen=True)
class SeveralRecord:
    """One gradient step of each student."""

    update: int  # its number; the first is 0
    losses: tuple[float, ...]  # of each student, mean over all rows
    gradient_norms: tuple[float, ...]  # of each student, before clipping
    learning_rate: float  # used


class SeveralDistiller:
    """Students of vectors with their losses, one optimiser and the schedules of all.

    Students of equal depth are one stack. Each has a gradient norm of its own, by which its own gradients alone are
    scaled down; Adam and RMSProp treat every weight by itself.

    Args:
        networks: the students', which can be stacked; trained in place, their weights are parts of the stacks.
        losses: one per head that is taught.
        optimizer: makes the optimiser of the stacks' parameters.
        learning_rate: as a function of progress.
        parameters: of each loss that takes any, by head and name, as functions of progress.
        num_updates: of the whole run: the unit of progress.
        max_gradient_norm: a student's gradients are scaled down to this norm.
        precision: of forward passes; heads and losses stay float32.
        sight: which parts of the observations the students see; None: all.
    """

    def __init__(
        self,
        networks: Sequence[PolicyNetwork],
        losses: Mapping[int, LossFunction],
        optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
        *,
        learning_rate: Schedule,
        parameters: Mapping[int, Mapping[str, Schedule]],
        num_updates: int,
        max_gradient_norm: float,
        precision: Precision,
        sight: Sight | None = None,
    ) -> None:
        self._sight = sight
        # By depth: the order of the stacks' rows, of which `_place_of` tells where a student's is.
        self._networks = networks
        order = sorted(range(len(networks)), key=lambda index: depth(networks[index]))
        self._place_of = sorted(range(len(networks)), key=lambda place: order[place])
        self._groups = [list(group) for _, group in groupby([networks[index] for index in order], key=depth)]
        self._stacks = [StackedNetworks(group) for group in self._groups]
        self._weights = [list(stack.parameters()) for stack in self._stacks]
        self._device = self._weights[0][0].device
        self._optimizer = optimizer(list(chain(*self._weights)))
        self._losses, self._parameters = losses, parameters
        self._learning_rate, self._num_updates = learning_rate, num_updates
        self._max_gradient_norm = max_gradient_norm
        self._autocast = autocast(precision, self._device)

    def update(self, batch: Minibatch, update: int) -> SeveralRecord:
        """Take one gradient step with each student.

        Raises:
            UpdateDivergedError: the loss or the gradient of a student is NaN or infinite; no step was taken.
        """
        progress = update / self._num_updates
        learning_rate = self._learning_rate(progress)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        for weight in chain(*self._weights):
            weight.grad = None
        losses = _mean_over_steps([self._losses_on(part, progress) for part in batch], batch)
        losses.sum().backward()
        norms = torch.cat([_norms(weights) for weights in self._weights])
        # One transfer: each would wait for a GPU.
        measured = torch.stack([losses.detach(), norms])[:, self._place_of].tolist()
        record = SeveralRecord(update, tuple(measured[0]), tuple(measured[1]), learning_rate)
        for student, (loss, norm) in enumerate(zip(record.losses, record.gradient_norms, strict=True), start=1):
            check_finite(f"Update {update} of student {student} of {len(record.losses)}", batch, loss, norm)
        if max(record.gradient_norms) > self._max_gradient_norm:
            self._scale_down(norms)
        self._optimizer.step()
        return record

    @torch.no_grad()
    def measure(self, student: int, held_out: HeldOut, update: int) -> HeldOutRecord:
        """Return a student's loss and likeness on held-out steps, in float32."""
        head = held_out.batch.head
        parameters = parameters_at(self._parameters, head, min(update / self._num_updates, 1.0))
        outputs = measured_outputs(self._networks[student], held_out.batch, self._sight)
        return held_out_record(outputs, self._losses[head], held_out, parameters, update)

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes while training."""
        return {"stacks": [stack.state_dict() for stack in self._stacks], "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        for stack, weights in zip(self._stacks, state["stacks"], strict=True):
            stack.load_state_dict(weights)
        self._optimizer.load_state_dict(state["optimizer"])

    def _losses_on(self, batch: Window, progress: float) -> Tensor:
        """Return every student's mean loss `[S]` on the steps of one task."""
        function = self._losses[batch.head]
        rows = aligned(join_parts(seen(batch, self._sight)).to(self._device, non_blocking=True))
        with self._autocast():
            features = [stack.features(rows) for stack in self._stacks]
        heads = [stack.outputs(part, batch.head) for stack, part in zip(self._stacks, features, strict=True)]
        outputs = torch.cat(heads) if len(heads) > 1 else heads[0]
        targets = batch.target_rows(function.teacher_kind).to(self._device).expand(len(outputs), -1, -1)
        losses = function(outputs, targets, **parameters_at(self._parameters, batch.head, progress))
        if batch.weights is not None:
            losses = losses * batch.rows(batch.weights).to(self._device)
        return losses.mean(dim=-1)

    def _scale_down(self, norms: Tensor) -> None:
        factors = (self._max_gradient_norm / (norms + CLIPPING_EPSILON)).clamp(max=1.0).view(-1, 1, 1)
        sizes = [len(group) for group in self._groups]
        for weights, of_stack in zip(self._weights, factors.split(sizes), strict=True):
            for weight in weights:
                if weight.grad is not None:
                    weight.grad.mul_(of_stack)


def _mean_over_steps(losses: Sequence[Tensor], batch: Minibatch) -> Tensor:
    """Return every student's mean `[S]` over the steps of all tasks."""
    if len(losses) == 1:
        return losses[0]
    num_steps = losses[0].new_tensor([part.num_steps for part in batch]).unsqueeze(1)
    return (torch.stack(list(losses)) * num_steps).sum(dim=0) / num_steps.sum()


def _norms(weights: Sequence[nn.Parameter]) -> Tensor:
    """Return the norm of each student's gradients, `[S]`."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    of_each = torch.stack([torch.linalg.vector_norm(gradient, dim=(1, 2)) for gradient in gradients])
    return torch.linalg.vector_norm(of_each, dim=0)
