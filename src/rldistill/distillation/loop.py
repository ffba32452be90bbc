"""The one training loop: batch → student → loss → update → record.

Single-task, multi-task, offline and live distillation differ in the source that feeds it, in
the loss, and in the schedules; none of them in the loop.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from rldistill.distillation.balance import GradientBalance
from rldistill.distillation.batch import Minibatch, Window
from rldistill.distillation.likeness import Likeness, likeness
from rldistill.distillation.randomness import drawn_for_update
from rldistill.distillation.sources import HeldOut
from rldistill.errors import NumericalError
from rldistill.losses import LossFunction, mean_over_batch
from rldistill.losses.further import FurtherLoss
from rldistill.losses.on_policy import score_term
from rldistill.networks import ModuleNetwork, Network, network_of
from rldistill.networks.memory import aligned
from rldistill.networks.policy_network import NetworkOutput, PolicyNetwork
from rldistill.networks.precision import Precision, autocast
from rldistill.observations import Tensors, alone, moved
from rldistill.policies.padded import run_padded
from rldistill.schedules import Schedule
from rldistill.sight import Sight

_MEASURE_ROWS = 256
CLIPPING_EPSILON = 1e-6
"""Added to a norm that gradients are divided by, as torch's clipping has it."""
# Below the largest norm the factor is 1: then nothing is multiplied.
_SAFELY_BELOW = 0.999
# A run that goes on keeps its learning rate.
_WHAT_TO_DO = "Begin anew with --overwrite and a lower --learning-rate, or check the dataset's targets."


@dataclass(frozen=True)
class UpdateRecord:
    """One gradient step."""

    update: int  # its number; the first is 0
    heads: tuple[int, ...]  # which tasks it taught
    losses: tuple[float, ...]  # of each of them, mean over its rows, in the order of `heads`
    loss: float  # mean over all rows
    gradient_norm: float  # before clipping
    learning_rate: float  # used
    parameters: tuple[Mapping[str, float], ...]  # of the loss of each of them, by name, as they were used


@dataclass(frozen=True)
class HeldOutRecord:
    """A student on steps it never trained on."""

    loss: float  # mean over the sample, at the parameters of the moment
    likeness: Likeness  # of its greedy actions and the teacher's
    parameters: Mapping[str, float]  # of the loss, of the moment, by name


class UpdateDivergedError(NumericalError):
    """The student's loss or gradient was no number; the update was not taken, the weights are those before it."""


class Distiller:
    """A student with its losses, its optimiser and its schedules.

    Args:
        network: the student's, trained in place.
        losses: one per head that is taught.
        optimizer: over the network's parameters.
        learning_rate: as a function of progress.
        parameters: of each loss that takes any, by head and name, as functions of progress.
        num_updates: of the whole run: the unit of progress, and an attribute that may change while it trains.
        max_gradient_norm: gradients are scaled down to this norm.
        precision: of forward passes; heads and losses stay float32.
        seed: of what a module of the user's own draws, such as dropout.
        further: by head, what is learned of the teacher besides its outputs; trained with the student.
        sight: which parts of the observations the student sees; None: all.
        balance: weights the tasks' losses by their gradients; None: every real step counts alike.
    """

    def __init__(
        self,
        network: Network,
        losses: Mapping[int, LossFunction],
        optimizer: torch.optim.Optimizer,
        *,
        learning_rate: Schedule,
        parameters: Mapping[int, Mapping[str, Schedule]],
        num_updates: int,
        max_gradient_norm: float,
        precision: Precision,
        seed: int = 0,
        further: Mapping[int, FurtherLoss] | None = None,
        sight: Sight | None = None,
        balance: GradientBalance | None = None,
    ) -> None:
        self.network = network
        self._sight, self._balance = sight, balance
        self.optimizer = optimizer
        self._losses = losses
        self._learning_rate = learning_rate
        self._parameters = parameters
        self.num_updates = num_updates
        self._max_gradient_norm = max_gradient_norm
        self._seed = seed
        # Named by the head: a module's parts have texts as names.
        self._further = nn.ModuleDict({str(head): own for head, own in (further or {}).items()})
        self._weights = [*network.parameters(), *self._further.parameters()]
        self._device = self._weights[0].device
        self._autocast = autocast(precision, self._device)

    def update(self, batch: Minibatch, update: int) -> UpdateRecord:
        """Take one gradient step; every real step counts alike, whichever task it belongs to.

        Raises:
            UpdateDivergedError: loss or gradient is NaN or infinite; names update and rows.
        """
        progress = update / self.num_updates
        learning_rate = self._learning_rate(progress)
        parameters = [parameters_at(self._parameters, part.head, progress) for part in batch]
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        if not self.network.training:  # setting the mode walks over all modules
            self.network.train()
        for weight in self._weights:
            weight.grad = None
        # Running statistics, which a forward pass changes; our own networks have none that it does.
        kept = [own.clone() for own in self.network.buffers()] if isinstance(self.network, ModuleNetwork) else []
        with drawn_for_update(self.network, self._seed, update):
            losses = [self._loss(part, own) for part, own in zip(batch, parameters, strict=True)]
            loss = _mean_over_steps(losses, batch)
            if self._balance is None:
                loss.backward()
            else:
                steps = [part.num_steps for part in batch]
                shares = [own / sum(steps) for own in steps]
                self._balance.backward(losses, shares, [part.head for part in batch])
        gradients = [weight.grad for weight in self._weights if weight.grad is not None]
        norm = _total_norm(gradients)
        # One transfer: each would wait for a GPU.
        measured = torch.stack([loss.detach(), norm, *map(Tensor.detach, losses)])
        mean_loss, gradient_norm, *task_losses = measured.tolist()
        record = UpdateRecord(
            update,
            tuple(part.head for part in batch),
            tuple(task_losses),
            mean_loss,
            gradient_norm,
            learning_rate,
            tuple(parameters),
        )
        try:
            check_finite(f"Update {update}", batch, mean_loss, gradient_norm)
        except UpdateDivergedError:
            for own, before in zip(self.network.buffers(), kept, strict=False):
                own.copy_(before)
            raise
        if gradient_norm > _SAFELY_BELOW * self._max_gradient_norm:
            _scale_down(gradients, norm, self._max_gradient_norm)
        self.optimizer.step()
        return record

    @torch.no_grad()
    def measure(self, held_out: HeldOut, update: int) -> HeldOutRecord:
        """Return loss and likeness on held-out steps, in float32."""
        batch = held_out.batch
        self.network.eval()
        has_memory = self.network.initial_state(batch.num_windows) is not None
        outputs = (
            self._output(batch).outputs.float() if has_memory else measured_outputs(self.network, batch, self._sight)
        )
        parameters = parameters_at(self._parameters, batch.head, min(update / self.num_updates, 1.0))
        record = held_out_record(outputs, self._losses[batch.head], held_out, parameters, update)
        if self._balance is None:
            return record
        return replace(record, parameters={**parameters, "task_weight": self._balance.weight(batch.head)})

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes while training."""
        further = {"further": self._further.state_dict()} if self._further else {}
        further |= {"balance": self._balance.state_dict()} if self._balance is not None else {}
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(), **further}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._further.load_state_dict(state.get("further", {}))
        if self._balance is not None:
            self._balance.load_state_dict(state["balance"])

    def _loss(self, batch: Window, parameters: Mapping[str, float]) -> Tensor:
        function = self._losses[batch.head]
        with self._autocast():
            output = self._output(batch)
        targets = batch.target_rows(function.teacher_kind).to(self._device)
        losses = function(output.outputs, targets, **parameters)
        if batch.future is not None:
            assert batch.actions is not None and function.layout is not None, "a source that looks ahead keeps actions"
            actions, future = (batch.rows(part).to(self._device) for part in (batch.actions, batch.future))
            losses = losses + score_term(output.outputs, actions, future, function.layout)
        if self._further and str(batch.head) in self._further:
            given = {name: batch.rows(part).to(self._device) for name, part in batch.targets.items()}
            losses = losses + self._further[str(batch.head)](output.features, output.value, given)
        if batch.weights is not None:
            losses = losses * batch.rows(batch.weights).to(self._device)
        return mean_over_batch(losses)

    def _output(self, batch: Window) -> NetworkOutput:
        """Return what the student gives for the real steps, `[N, ...]`."""
        if self.network.initial_state(1) is None:
            # Without a memory a step is a row like any other, and padding need not be computed.
            return self.network(_aligned(moved(seen(batch, self._sight), self._device)), batch.head)
        network, head = network_of(self.network, batch.head)
        assert isinstance(network, PolicyNetwork), "a module of one's own is a student without a memory"
        steps = _chosen({name: part.flatten(0, 1) for name, part in batch.observations.items()}, self._sight)
        begins = None if batch.is_first is None else batch.is_first.to(self._device)
        output = network.over_windows(moved(steps, self._device), batch.num_windows, head, begins, batch.burn_in)
        if batch.is_real is None:
            return output
        real = batch.is_real[batch.burn_in :].flatten().to(self._device)
        features, value = (None if part is None else part[real] for part in (output.features, output.value))
        return NetworkOutput(output.outputs[real], features, value)


def distil(distiller: Distiller, batches: Generator[Minibatch], *, first_update: int = 0) -> Generator[UpdateRecord]:
    """Train, yielding a record after each update; stop by closing the iterator.

    Args:
        distiller: trained in place.
        batches: of the updates from `first_update` on, to the end of the run; closed with this iterator.
        first_update: number of the first update: 0, or where a checkpoint stands.
    """
    with closing(batches):
        for update, batch in enumerate(batches, start=first_update):
            yield distiller.update(batch, update)


def parameters_at(parameters: Mapping[int, Mapping[str, Schedule]], head: int, progress: float) -> dict[str, float]:
    """Return the parameters of a head's loss at a share of the run, by name."""
    return {name: schedule(progress) for name, schedule in parameters.get(head, {}).items()}


def measured_outputs(network: Network, batch: Window, sight: Sight | None = None) -> Tensor:
    """Return a network's outputs `[N, O]` in float32, as play computes them: in parts of one size."""
    rows = moved(seen(batch, sight), next(network.parameters()).device)
    (outputs,) = run_padded(rows, _MEASURE_ROWS, lambda part: (network(part, batch.head).outputs.float(),))
    assert outputs is not None, "every network has outputs"
    return outputs


def held_out_record(
    outputs: Tensor, function: LossFunction, held_out: HeldOut, parameters: Mapping[str, float], update: int
) -> HeldOutRecord:
    """Return what a student's outputs `[N, O]` on held-out steps are worth after so many updates.

    Raises:
        NumericalError: its loss is NaN or infinite.
    """
    targets = held_out.batch.target_rows(held_out.teacher_kind).to(outputs.device)
    loss = float(mean_over_batch(function(outputs, targets, **parameters)))
    if not math.isfinite(loss):
        raise NumericalError(
            f"After update {update} the student diverged on steps that it is not trained on: loss {loss:g}, on "
            f"{held_out.batch.origin}. {_WHAT_TO_DO}"
        )
    alike = likeness(outputs, function.student_kind, targets, held_out.teacher_kind, held_out.layout)
    return HeldOutRecord(loss, alike, parameters)


def seen(batch: Window, sight: Sight | None = None) -> Tensors:
    """Return what a network sees of the real steps, `[N, ...]`; None: everything."""
    return _chosen({name: batch.rows(part) for name, part in batch.observations.items()}, sight)


def _chosen(parts: Mapping[str, Tensor], sight: Sight | None) -> Tensors:
    return alone(parts) if sight is None else sight.choose(parts)


def _aligned(observations: Tensors) -> Tensors:
    if isinstance(observations, Tensor):
        return aligned(observations)
    return {name: aligned(part) for name, part in observations.items()}


# `torch.nn.utils` has both, bit for bit the same, at two to three times the price for a small network.
def _total_norm(gradients: Sequence[Tensor]) -> Tensor:
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))


def _scale_down(gradients: Sequence[Tensor], norm: Tensor, max_norm: float) -> None:
    factor = (max_norm / (norm + CLIPPING_EPSILON)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor)


def _mean_over_steps(losses: Sequence[Tensor], batch: Minibatch) -> Tensor:
    if len(losses) == 1:
        return losses[0]
    num_steps = torch.tensor([part.num_steps for part in batch], device=losses[0].device)
    return mean_over_batch(torch.stack(list(losses)), num_steps)


def check_finite(what: str, batch: Minibatch, loss: float, gradient_norm: float) -> None:
    """Check an update before its step is taken, or UpdateDivergedError, which calls it `what`."""
    # One NaN in a batch makes the loss NaN and, unstopped, every weight after it.
    if math.isfinite(loss) and math.isfinite(gradient_norm):
        return
    origin = " and ".join(part.origin for part in batch)
    raise UpdateDivergedError(
        f"{what} diverged: loss {loss:g}, gradient norm {gradient_norm:g}, on a batch of {origin}. The weights before "
        f"it are kept. {_WHAT_TO_DO}"
    )
