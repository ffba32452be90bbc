"""What the C of a policy computes, layer by layer, with every size known.

A *piece* of the observation (all of it, or one image or span of several) passes layers of its own; what comes of all
pieces lies side by side and passes the head. Images are `[C, H, W]` throughout.
"""

import itertools
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from rldistill.errors import MismatchError
from rldistill.exports.states import names_of_cell
from rldistill.networks import InputNormalization, NormalizeInput, OutputLayer, PolicyNetwork
from rldistill.networks.architecture import Activation, MemoryKind
from rldistill.networks.combined_torso import CombinedTorso
from rldistill.networks.input_layer import ScaleInput
from rldistill.networks.layers import plain_layers
from rldistill.networks.output_layer import OutputRows
from rldistill.networks.recurrent import RecurrentCell, Stack, next_state
from rldistill.networks.torsos import ACTIVATIONS, image_shape, to_images
from rldistill.policies import TorchPolicy
from rldistill.policies.input_statistics import observed_statistics

_NAMES: dict[type[nn.Module], Activation] = {module: name for name, module in ACTIVATIONS.items()}
_LAYERS = (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.GroupNorm, nn.Flatten, Stack, RecurrentCell)


class UnplannedError(MismatchError):
    """What cannot be planned, as the end of a sentence; `refusals_of` says of what, and the way out."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy


@contextmanager
def refusals_of(what: str, instead: str) -> Generator[None]:
    """Let refusals of plans name what they were asked for, and begin their advice with another way to have it.

    Raises:
        MismatchError: in place of `UnplannedError`.
    """
    try:
        yield
    except UnplannedError as error:
        raise MismatchError(f"{what}{error.problem}. {instead}{error.remedy}.") from None


@dataclass(frozen=True)
class PlannedLayer:
    """A fully connected layer or a convolution, with all that follows up to the next one."""

    name: str  # of its function and its constants
    weight: Tensor  # `[O, I]`, or `[O, C, k, k]`
    bias: Tensor  # `[O]`
    input_shape: tuple[int, ...]  # `(I,)`, or `(C, H, W)`
    stride: int = 1  # of a convolution
    # Before the activation, over all outputs; weights are one for each of them, or one for each channel.
    norm: nn.LayerNorm | nn.GroupNorm | None = None
    activation: Activation = "identity"  # of every output

    @property
    def is_convolution(self) -> bool:
        """Whether it takes images."""
        return self.weight.dim() == 4

    @property
    def output_shape(self) -> tuple[int, ...]:
        """`(O,)`, or `(O, H, W)`."""
        if not self.is_convolution:
            return (len(self.weight),)
        kernel = self.weight.shape[2]
        return len(self.weight), *((size - kernel) // self.stride + 1 for size in self.input_shape[1:])

    @property
    def num_outputs(self) -> int:
        """Numbers that it gives."""
        return math.prod(self.output_shape)

    @property
    def num_macs(self) -> int:
        """Multiply-adds of one observation, without biases."""
        return self.num_outputs * self.weight[0].numel()

    def linear(self, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return what it gives before norm and activation, with these weights: `[B, *output_shape]`."""
        if self.is_convolution:
            return functional.conv2d(rows.view(-1, *self.input_shape), weight, bias, self.stride)
        return functional.linear(rows.flatten(1), weight, bias)

    def forward(self, rows: Tensor) -> Tensor:
        """Return `[B, *output_shape]` of `[B, *input_shape]`, in float32."""
        linear = self.linear(rows, self.weight, self.bias)
        if self.norm is not None:
            size, per_weight = self.num_outputs, self.num_outputs // self.norm.weight.numel()
            flat = functional.layer_norm(linear.flatten(1), [size], eps=self.norm.eps)
            weight, bias = (part.flatten().repeat_interleave(per_weight) for part in (self.norm.weight, self.norm.bias))
            linear = (flat * weight + bias).view(linear.shape)
        return activated(self.activation, linear)


@dataclass(frozen=True)
class Piece:
    """A part of the observation, and its own layers."""

    first: int  # its first number in the observation
    shape: tuple[int, ...]  # as the environment gives it
    scale: float  # factor on its numbers
    layers: tuple[PlannedLayer, ...]  # of its own; none where its numbers go on as they are

    @property
    def size(self) -> int:
        """Numbers of the observation that it takes."""
        return math.prod(self.shape)

    @property
    def num_features(self) -> int:
        """Numbers that it gives to the head."""
        return self.layers[-1].num_outputs if self.layers else self.size

    def cut(self, observations: Tensor) -> Tensor:
        """Return its numbers of flat observations `[B, P]`, as its first layer takes them."""
        own = observations[:, self.first : self.first + self.size]
        if not self.layers or not self.layers[0].is_convolution:
            return own
        return to_images(own.reshape(-1, *self.shape))


@dataclass(frozen=True)
class PlannedCell:
    """A GRU or an LSTM, whose gates are sums of what two fully connected layers give."""

    name: str  # of its function
    state: tuple[str, ...]  # names of what it remembers
    kind: MemoryKind  # which of the two
    input: PlannedLayer  # of the features, `[3 H, F]` or `[4 H, F]`
    recurrent: PlannedLayer  # of the state, `[3 H, H]` or `[4 H, H]`

    @property
    def size(self) -> int:
        """H, its units."""
        return self.recurrent.input_shape[0]


@dataclass(frozen=True)
class Plan:
    """All that the C of a policy computes."""

    observation_shape: tuple[int, ...]  # of one observation
    takes_bytes: bool  # whether its numbers are bytes, else floats
    normalization: InputNormalization | None  # of the whole observation by running statistics, in its own order
    pieces: tuple[Piece, ...]  # of the observation, in order; of a stack one piece, of all observations in it
    hidden: tuple[PlannedLayer, ...]  # layers of the head above the features of all pieces, or above what it remembers
    last: PlannedLayer  # gives the outputs, of a Gaussian its means
    output: OutputLayer  # what the outputs are, and the actions
    # Of a Gaussian: a layer beside the last, a vector `[D]`, or the matrix `[F, D]` of gSDE; else None.
    log_std: PlannedLayer | Tensor | None
    stack: int = 0  # k, how many observations the first layer sees side by side, oldest first; 0: the newest alone
    cells: tuple[PlannedCell, ...] = ()  # that remember, above the features of all pieces

    @property
    def observation_size(self) -> int:
        """Numbers of one observation."""
        return math.prod(self.observation_shape)

    @property
    def layers(self) -> tuple[PlannedLayer, ...]:
        """Every layer, in the order in which they are computed."""
        below = (layer for piece in self.pieces for layer in piece.layers)
        recurrent = (layer for cell in self.cells for layer in (cell.input, cell.recurrent))
        return (*below, *recurrent, *self.hidden, *self.last_layers)

    @property
    def remembers(self) -> bool:
        """Whether it has a state."""
        return self.stack > 0 or bool(self.cells)

    @property
    def last_layers(self) -> tuple[PlannedLayer, ...]:
        """The last layer, and a Gaussian's layer of log std beside it."""
        return (self.last, self.log_std) if isinstance(self.log_std, PlannedLayer) else (self.last,)

    @property
    def num_macs(self) -> int:
        """Multiply-adds of one decision, without biases."""
        return sum(layer.num_macs for layer in self.layers)


def activated(name: Activation, values: Tensor) -> Tensor:
    """Return what an activation makes of values."""
    return ACTIVATIONS[name]()(values)


def make_plan(policy: TorchPolicy) -> Plan:
    """Return what the C of a policy computes for the task that it plays.

    Raises:
        UnplannedError: a layer that C is not written for.
    """
    fingerprint = policy.tasks[0].fingerprint
    assert isinstance(policy.network, PolicyNetwork), "a module was refused before"
    first, *between, last, rows = plain_layers(policy.network, policy.head)
    _check_kinds(between)
    assert isinstance(first, ScaleInput | NormalizeInput) and isinstance(rows, OutputRows)
    names = (f"layer_{number}" for number in itertools.count(1))
    shape, stack = fingerprint.observation_shape, 0
    scale = first.scale if isinstance(first, ScaleInput) else 1.0
    if between and isinstance(between[0], Stack):
        stack = between[0].width // between[0].num_inputs
        shape, between = (between[0].width,), between[1:]
    remembering = [place for place, layer in enumerate(between) if isinstance(layer, RecurrentCell)]
    # Without a memory all layers up to the head are the piece's: where those of the head begin makes no difference.
    below, hidden = (between[: remembering[0]], between[remembering[-1] + 1 :]) if remembering else (between, [])
    if below and isinstance(below[0], CombinedTorso):
        pieces, hidden = _pieces_of_parts(below[0], names), [*below[1:], *hidden]
    else:
        pieces = (Piece(0, shape, scale, tuple(_planned(below, _input_shape(below, shape), names))),)
    num_features = sum(piece.num_features for piece in pieces)
    cells = tuple(_cells([layer for layer in between if isinstance(layer, RecurrentCell)]))
    num_features = cells[-1].size if cells else num_features
    above = tuple(_planned(hidden, (num_features,), names))
    features = (above[-1].num_outputs if above else num_features,)
    (linear,) = _planned([last], features, iter(["last_layer"]))
    return Plan(
        observation_shape=fingerprint.observation_shape,
        takes_bytes=fingerprint.observation_dtype == "uint8",
        normalization=observed_statistics(policy),
        pieces=pieces,
        hidden=above,
        last=linear,
        output=rows.layer,
        log_std=_log_std(rows, features),
        stack=stack,
        cells=cells,
    )


def _check_kinds(modules: Sequence[nn.Module]) -> None:
    for module in modules:
        if isinstance(module, CombinedTorso):
            for image in module.images:
                _check_kinds(list(image.children()))
        elif not isinstance(module, _LAYERS) and type(module) not in _NAMES:
            raise UnplannedError(
                f" is not written for layers of kind {type(module).__name__}: got a network with one",
                ", or distil it into a network of convolutions and fully connected layers",
            )


def _cells(modules: Sequence[RecurrentCell]) -> Iterator[PlannedCell]:
    for number, cell in enumerate(modules, start=1):
        name = f"memory_{number}"
        given, recurrent = (
            PlannedLayer(f"{name}_{role}", layer.weight, layer.bias, (layer.in_features,))
            for role, layer in (("input", cell.input), ("recurrent", cell.recurrent))
        )
        yield PlannedCell(name, names_of_cell(cell.kind, number), cell.kind, given, recurrent)


def _input_shape(layers: Sequence[nn.Module], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return what the first layer takes: an image where it is a convolution, else a vector."""
    if layers and not isinstance(layers[0], nn.Flatten):
        image = image_shape(shape)
        assert image is not None, "checked when the torso was made"
        return image
    return (math.prod(shape),)


def _pieces_of_parts(torso: CombinedTorso, names: Iterator[str]) -> tuple[Piece, ...]:
    pieces, first, images = list[Piece](), 0, iter(torso.images)
    for part in torso.parts:
        if torso.is_image(part):
            own = list(next(images).children())
            layers = tuple(_planned(own, _input_shape(own, part.shape), names))
            pieces.append(Piece(first, part.shape, torso.image_scale, layers))
        elif part.size:
            pieces.append(Piece(first, (part.size,), 1.0, ()))
        first += part.size
    return tuple(pieces)


def _planned(modules: Sequence[nn.Module], shape: tuple[int, ...], names: Iterator[str]) -> Iterator[PlannedLayer]:
    """Yield layers with the norms and activations behind each of them."""
    layer: PlannedLayer | None = None
    for module in modules:
        if isinstance(module, nn.Linear | nn.Conv2d):
            if layer is not None:
                yield layer
                shape = layer.output_shape
            stride = module.stride[0] if isinstance(module, nn.Conv2d) else 1
            bias = torch.zeros(len(module.weight)) if module.bias is None else module.bias
            given = shape if isinstance(module, nn.Conv2d) else (math.prod(shape),)
            layer = PlannedLayer(next(names), module.weight, bias, given, stride)
        elif layer is not None and isinstance(module, nn.LayerNorm | nn.GroupNorm):
            layer = replace(layer, norm=module)
        elif layer is not None and type(module) in _NAMES:
            layer = replace(layer, activation=_NAMES[type(module)])
        else:
            assert isinstance(module, nn.Flatten), "all other kinds were refused before"
    if layer is not None:
        yield layer


def _log_std(rows: OutputRows, features: tuple[int, ...]) -> PlannedLayer | Tensor | None:
    if rows.layer.kind != "gaussian":
        return None
    if rows.layer.gaussian.std in ("state", "state_tanh"):
        (layer,) = _planned([rows.log_std_layer], features, iter(["log_std_layer"]))
        return layer
    assert isinstance(rows.log_std, Tensor)
    return rows.log_std


Seen = Callable[[PlannedLayer, Tensor], None]


def run_plan(plan: Plan, observations: Tensor, seen: Seen | None = None, state: tuple[Tensor, ...] = ()) -> Tensor:
    """Return what the last layers give, side by side, for observations `[B, *observation_shape]`: `[B, …]` float32.

    Args:
        plan: of a policy.
        observations: as the environment gives them.
        seen: hears each layer and what it takes, `[B, *input_shape]`.
        state: of a plan that remembers, as the policy has it before these observations.
    """
    rows = observations.reshape(len(observations), -1)
    rows = NormalizeInput(plan.normalization)(rows) if plan.normalization is not None else rows.float()
    if plan.stack:
        # What was scaled once is scaled again with the newest, by the piece.
        rows, state = torch.cat([state[0] / plan.pieces[0].scale, rows], dim=1), state[1:]

    def given(layer: PlannedLayer, values: Tensor) -> Tensor:
        if seen is not None:
            seen(layer, values)
        return layer.forward(values)

    return pass_layers(plan, [piece.cut(rows) * piece.scale for piece in plan.pieces], given, state)


def pass_layers(
    plan: Plan,
    pieces: Sequence[Tensor],
    forward: Callable[[PlannedLayer, Tensor], Tensor],
    state: tuple[Tensor, ...] = (),
) -> Tensor:
    """Return what the last layers give, side by side, `[B, …]`.

    Args:
        plan: of a policy.
        pieces: what each piece of the observation takes.
        forward: what one layer does.
        state: of a plan that remembers, as the policy has it before these observations.
    """

    def through(layers: Sequence[PlannedLayer], values: Tensor) -> Tensor:
        for layer in layers:
            values = forward(layer, values)
        return values.flatten(1)

    own = [through(piece.layers, values) for piece, values in zip(plan.pieces, pieces, strict=True)]
    features = torch.cat(own, dim=1)
    for cell in plan.cells:
        gates = forward(cell.input, features), forward(cell.recurrent, state[0])
        features, following = next_state(cell.kind, *gates, state)
        state = state[len(following) :]
    features = through(plan.hidden, features)
    return torch.cat([forward(layer, features) for layer in plan.last_layers], dim=1)
