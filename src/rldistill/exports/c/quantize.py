"""Whole numbers of 8 bits for weights and activations, and exactly what the C computes with them.

Conventions, with q an unsigned number and w a signed byte:

- A number that a layer takes stands for `scale · q + offset`. What layers give are bytes. In an observation of floats
  each number has a scale and an offset of its own, and 12 bits, which cost next to nothing: `q = round((x - low) ÷
  step)`, half upwards, computed in float32 and kept in [0, 4095]. The range is that of the data and half as much on
  both sides; running statistics are folded into it.
- Weights are symmetric, `w` in [-127, 127], with one scale for each output channel.
- A layer sums `w · q` and its bias in int32: no rounding. The bias holds what the offsets of its inputs add.
- The sum becomes the next byte by `(sum · multiplier + addend) >> shift` in int64, kept in [0, top]: rounded once, half
  upwards. Where the activation is piecewise linear, `top` is 255 and its ends are the activation's; else the result, of
  1024 steps, is looked up in a table of bytes.
- The last layer gives `(float)sum * scale`, rounded by each of the two operations.
- What a GRU or an LSTM remembers stays in floats, and so do its gates: `(float)sum * scale` of each of its two layers.
  Layers that take its state, in [-1, 1], get 12 bits of it. A stack keeps the whole numbers of earlier observations.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rldistill.exports.c.plan import Plan, PlannedLayer, UnplannedError, activated, pass_layers, run_plan
from rldistill.exports.c.steps import LARGEST_BYTE, STATE_STEPS, ObservationSteps, Steps, observation_steps
from rldistill.networks.architecture import Activation

TABLE_SIZE = 1024
_LARGEST_WEIGHT = 127
_LARGEST_SUM = _LARGEST_INT32 = 2**31 - 1
# Products of sums and multipliers are below it, and with an addend below it they stay within int64.
_LARGEST_ADDEND = 2**62
# Of the multiplier 30 bits are used, and the product with a sum stays within int64.
_MULTIPLIER_BITS, _LARGEST_SHIFT = 30, 50
# Their ends are the activation's own, so a byte's clamp computes it.
_CLAMPED: frozenset[Activation] = frozenset({"relu", "relu6", "hardtanh", "identity"})
# Beyond these an activation is flat, whatever sums the data make.
_STEEP: Mapping[Activation, float] = {"tanh": 4.0, "sigmoid": 8.0}


@dataclass(frozen=True)
class Rescaling:
    """From a layer's sums to bytes."""

    multiplier: Tensor  # `[O]`, int64 below 2^31
    shift: int  # of the product, to the right
    addend: int  # to the product: half a step, and the place of 0
    table: Tensor | None  # bytes by the result, `[1024]`; None: the result is the byte

    @property
    def top(self) -> int:
        """The largest result."""
        return LARGEST_BYTE if self.table is None else TABLE_SIZE - 1

    def apply(self, sums: Tensor) -> Tensor:
        """Return bytes `[B, O, ...]` of sums `[B, O, ...]`, both as float64."""
        multiplier = self.multiplier.view(-1, *(1,) * (sums.dim() - 2))
        result = ((sums.long() * multiplier + self.addend) >> self.shift).clamp(0, self.top)
        return (result if self.table is None else self.table.long()[result]).double()


@dataclass(frozen=True)
class QuantizedLayer:
    """The numbers of one layer."""

    layer: PlannedLayer  # its sizes, and the weights that these stand for
    taken: Steps  # what the numbers stand for that it takes
    mean: Tensor  # of each input in real observations: there the rounding of the weights is made up for
    weight: Tensor  # whole numbers in [-127, 127], float64
    bias: Tensor  # whole numbers within int32, float64
    rescaling: Rescaling | None  # to bytes; None where the layer gives outputs
    scale: Tensor  # `[O]`, float32, of a layer that gives outputs
    given: Steps | None  # what its bytes stand for

    def forward(self, numbers: Tensor) -> Tensor:
        """Return bytes as float64, or outputs as float32, of bytes `[B, *input_shape]`; exactly as the C does.

        float64 holds all sums exactly: they are whole and below 2^31.
        """
        sums = self.layer.linear(numbers, self.weight, self.bias)
        return sums.float() * self.scale if self.rescaling is None else self.rescaling.apply(sums)


@dataclass(frozen=True)
class QuantizedPlan:
    """A plan in whole numbers."""

    plan: Plan  # that it stands for
    observation: ObservationSteps | None  # how floats become whole numbers; None where bytes are taken as they are
    layers: Mapping[str, QuantizedLayer]  # by name
    features: Steps  # what the numbers stand for that the last layer takes

    def outputs(self, observations: Tensor, forward: "Forward" = QuantizedLayer.forward) -> Tensor:
        """Return what the last layers give, side by side, for observations `[B, *observation_shape]`: `[B, …]` float32.

        Of a plan without a memory: what a recurrent layer computes in floats is not repeated here.

        Args:
            observations: as the environment gives them.
            forward: what one layer does.
        """
        assert not self.plan.remembers, "no caller asks"
        flat = observations.reshape(len(observations), -1)
        numbers = flat.double() if self.observation is None else self.observation.encode(flat)
        pieces = [piece.cut(numbers) for piece in self.plan.pieces]
        return pass_layers(self.plan, pieces, lambda layer, values: forward(self.layers[layer.name], values))


Forward = Callable[[QuantizedLayer, Tensor], Tensor]
"""A layer, and the whole numbers that it takes, to those that it gives, or to outputs."""


@torch.no_grad()
def quantize(plan: Plan, observations: Tensor, state: tuple[Tensor, ...] = ()) -> QuantizedPlan:
    """Choose all whole numbers of a plan.

    Args:
        plan: in float32.
        observations: real ones, `[B, *observation_shape]`: ranges are those that they make.
        state: of a plan that remembers, what the policy had before each of them, `[B, …]` each.

    Raises:
        UnplannedError: a layer whose sums have no room in 32 bits, or with a layer norm.
    """
    if any(layer.norm is not None for layer in plan.layers):
        raise UnplannedError(
            " is not written for layer norms: got a network with them", ", or distil it into a network without"
        )
    known = dict[str, Calibration]()
    run_plan(plan, observations, lambda layer, taken: known.update({layer.name: Calibration.of(layer, taken)}), state)
    observation, taken = observation_steps(plan, observations)
    layers: dict[str, QuantizedLayer] = {}

    def through(chain: tuple[PlannedLayer, ...], given: Steps) -> Steps:
        for layer in chain:
            layers[layer.name] = _quantized(layer, given, known[layer.name], gives_outputs=False)
            given = layers[layer.name].given or given
        return given

    joined: list[Steps] = []
    if plan.stack:
        taken = Steps(taken.scale.repeat(plan.stack), taken.offset.repeat(plan.stack), taken.top)
    for piece in plan.pieces:
        own = slice(piece.first, piece.first + piece.size)
        given = Steps(taken.scale[own] * piece.scale, taken.offset[own] * piece.scale, taken.top)
        if piece.layers and piece.layers[0].is_convolution:
            given = Steps(given.scale[0], given.offset[0], given.top)  # the same for a whole image
        given = through(piece.layers, given)
        scale, offset = (part.expand(piece.num_features) for part in (given.scale, given.offset))
        joined.append(Steps(scale, offset, given.top))
    features = Steps(
        torch.cat([each.scale for each in joined]),
        torch.cat([each.offset for each in joined]),
        max(each.top for each in joined),
    )
    for cell in plan.cells:
        for layer, given in ((cell.input, features), (cell.recurrent, STATE_STEPS)):
            layers[layer.name] = _quantized(layer, given, known[layer.name], gives_outputs=True)
        features = STATE_STEPS
    features = through(plan.hidden, features)
    for layer in plan.last_layers:
        layers[layer.name] = _quantized(layer, features, known[layer.name], gives_outputs=True)
    return QuantizedPlan(plan, observation, layers, features)


@dataclass(frozen=True)
class Calibration:
    """What real observations make of a layer."""

    mean: Tensor  # of each input, `[I]`, or of each channel, `[C, 1, 1]`; float64
    low: float  # least sum before the activation
    high: float  # largest

    @classmethod
    def of(cls, layer: PlannedLayer, taken: Tensor) -> "Calibration":
        """Return it for a layer that takes `[B, *input_shape]`."""
        sums = layer.linear(taken, layer.weight, layer.bias)
        low, high = _range(sums)
        taken = taken.double()
        mean = taken.mean(dim=(0, 2, 3), keepdim=True)[0] if layer.is_convolution else taken.flatten(1).mean(dim=0)
        return cls(mean, low, high)


def _range(values: Tensor) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def whole_weights(weight: Tensor, taken: Steps, at_mean: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights for whole numbers as whole numbers in [-127, 127], float64, and what a sum of 1 stands for, `[O]`.

    Args:
        weight: of a layer, for the values that the numbers stand for.
        taken: what these are.
        at_mean: sums at the mean of the inputs, `[O]`.
    """
    of_steps = weight.double() * taken.scale
    # A channel of weights near 0 beside a large bias: its bias must have room in 32 bits.
    scale = torch.maximum(of_steps.flatten(1).abs().amax(dim=1) / _LARGEST_WEIGHT, at_mean.abs() / 2**28)
    scale = scale.clamp(min=1e-30)
    return (of_steps / scale.view(-1, *(1,) * (of_steps.dim() - 1))).round(), scale


def _quantized(layer: PlannedLayer, taken: Steps, known: Calibration, *, gives_outputs: bool) -> QuantizedLayer:
    """Return a layer that takes such numbers."""
    # At the mean of its inputs a layer is to give what it gave: there the rounding of weights is made up for.
    at_mean = layer.bias.double() + (layer.weight.double() * known.mean).flatten(1).sum(dim=1)
    weight, scale = whole_weights(layer.weight, taken, at_mean)
    mean_step = torch.where(taken.scale > 0, (known.mean - taken.offset) / taken.scale, 0.0)
    bias = (at_mean / scale - (weight * mean_step).flatten(1).sum(dim=1)).round()
    largest = weight.flatten(1).abs().sum(dim=1) * taken.top + bias.abs()
    if not largest.max() <= _LARGEST_SUM:  # NaN, too
        raise UnplannedError(
            f": the sums of layer {layer.name} with {layer.weight[0].numel():,} inputs have no room in 32 bits",
            ", or take a network with fewer inputs to a layer",
        )
    given, rescaling = (None, None) if gives_outputs else _rescaling(layer, scale, (known.low, known.high))
    return QuantizedLayer(layer, taken, known.mean, weight, bias, rescaling, scale.float(), given)


def steps_given(activation: Activation, sums: tuple[float, float]) -> Steps:
    """Return what the bytes of a layer stand for whose sums lie between two numbers before its activation."""
    if activation == "tanh":  # 0 and both ends are bytes, whatever the data
        return Steps.of_range(-128 / 127, 1.0)
    values = activated(activation, torch.linspace(*sums, TABLE_SIZE, dtype=torch.float64))
    return Steps.of_range(*_range(values))


def _rescaling(layer: PlannedLayer, scale: Tensor, sums: tuple[float, float]) -> tuple[Steps, Rescaling]:
    activation = layer.activation
    given = steps_given(activation, sums)
    if activation in _CLAMPED:
        return given, _to_steps(layer.name, scale, float(given.offset), float(given.scale), None)
    steep = _STEEP.get(activation, math.inf)
    low, high = max(sums[0], -steep), min(sums[1], steep)
    places = torch.linspace(low, max(high, low + 1e-6), TABLE_SIZE, dtype=torch.float64)
    table = given.nearest(activated(activation, places)).to(torch.uint8)
    return given, _to_steps(layer.name, scale, low, float(places[1] - places[0]), table)


def _to_steps(name: str, scale: Tensor, low: float, step: float, table: Tensor | None) -> Rescaling:
    """Return the rescaling of a layer's sums, each worth `scale`, to steps that begin at `low`.

    Raises:
        UnplannedError: its numbers have no room in the integers of the C.
    """
    factors = scale / step
    no_room = UnplannedError(
        f": the sums of layer {name} lie too far apart, or too far from 0, for whole numbers: one is worth up to "
        f"{float(scale.max()):.3g}, a step {step:.3g}, the first {low:.3g}"
    )
    if not (factors.isfinite().all() and math.isfinite(low / step)):
        raise no_room
    shift = _MULTIPLIER_BITS - math.ceil(math.log2(float(factors.max())))
    shift = min(max(shift, 1), _LARGEST_SHIFT)
    multiplier, addend = (factors * 2.0**shift).round(), math.floor((0.5 - low / step) * 2.0**shift)
    if multiplier.max() > _LARGEST_INT32 or abs(addend) > _LARGEST_ADDEND:
        raise no_room
    return Rescaling(multiplier.long(), shift, addend, table)
