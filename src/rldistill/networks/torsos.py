"""Torsos: shared features of an observation. Inputs are already normalised floats."""

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from rldistill.errors import MismatchError
from rldistill.limits import MAX_FEATURE_MAP
from rldistill.networks.architecture import Activation, Architecture
from rldistill.networks.impala import ImpalaStage
from rldistill.networks.memory import AlignedLinear, evenly

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "selu": nn.SELU,
    "softplus": nn.Softplus,
    "identity": nn.Identity,
    "mish": nn.Mish,
    "hardtanh": nn.Hardtanh,
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish,
    "softsign": nn.Softsign,
    "celu": nn.CELU,
    "relu6": nn.ReLU6,
}
# These only choose between products, and are exact wherever they are computed. All others round by place.
_EXACT = (nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Hardtanh, nn.ReLU6)
_ROW_BY_ROW = (nn.Flatten, *_EXACT)
_CURVED = tuple(kind for kind in ACTIVATIONS.values() if kind not in _EXACT)
# What torch calls the gain of an activation's first weights; all others are close to a ReLU.
INITIAL_GAINS: dict[Activation, Literal["relu", "tanh", "sigmoid", "selu", "linear"]] = {
    "relu": "relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "selu": "selu",
    "identity": "linear",
}


_MUCH_SMALLER = 4


def run_layers(layers: Iterable[nn.Module], rows: Tensor, block: int | None = None) -> Tensor:
    """Return what layers compute one after the other; those that depend on the number of rows, block by block."""
    for layer in layers:
        if isinstance(layer, _CURVED):
            rows = evenly(layer.forward, rows)
        elif block is None or isinstance(layer, _ROW_BY_ROW):
            rows = layer.forward(rows)
        elif isinstance(layer, AlignedLinear):
            rows = layer.of_blocks(rows, block)
        else:
            rows = torch.cat([layer.forward(part) for part in rows.split(block)])
    return rows


def dense_layers(sizes: tuple[int, ...], *, activation: Activation, layer_norm: bool) -> list[nn.Module]:
    """Return fully connected layers, each with its norm (if any) and activation."""
    layers: list[nn.Module] = []
    for num_inputs, num_outputs in pairwise(sizes):
        layers.append(AlignedLinear(num_inputs, num_outputs))
        if layer_norm:
            layers.append(nn.LayerNorm(num_outputs))
        layers.append(ACTIVATIONS[activation]())
    return layers


def image_shape(observation_shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Return `(C, H, W)` of observations that are images; None if they are not.

    Stacked colour frames `(S, H, W, 3)` become S · 3 channels; single images with their
    channels last, `(H, W, 1 | 3 | 4)`, are turned, and so are several side by side, `(84, 96, 12)`:
    the last axis is a quarter of both others or less. Everything else of rank 3 is `(C, H, W)`.
    """
    match observation_shape:
        case (stack, height, width, colours):
            return stack * colours, height, width
        case (height, width, (1 | 3 | 4) as colours) if min(height, width) > 4:
            return colours, height, width
        case (height, width, colours) if _MUCH_SMALLER * colours <= min(height, width) and colours not in (1, 3, 4):
            return colours, height, width
        case (channels, height, width):
            return channels, height, width
        case _:
            return None


def to_images(observations: Tensor) -> Tensor:
    """Return observations `[B, *observation_shape]` as `[B, C, H, W]`, as `image_shape` says."""
    shape = image_shape(tuple(observations.shape[1:]))
    assert shape is not None, "checked when the torso was made"
    if observations.dim() == 5:
        return observations.movedim(4, 2).reshape(-1, *shape)
    return observations if tuple(observations.shape[1:]) == shape else observations.movedim(3, 1)


def make_torso(architecture: Architecture, observation_shape: tuple[int, ...]) -> tuple[nn.Sequential, int]:
    """Return the torso of one image or vector, and the width of its features.

    Args:
        architecture: the layers.
        observation_shape: images (see `image_shape`) for `conv` and `impala`; any shape for `mlp`, which flattens it.

    Raises:
        MismatchError: the observations do not suit the kind of torso.
    """
    if architecture.kind == "mlp":
        layers, num_features = list[nn.Module](), math.prod(observation_shape)
    else:
        image = image_shape(observation_shape)
        if image is None:
            raise MismatchError(
                f"Network {architecture.name!r} takes images [C, H, W], got observations of shape "
                f"{list(observation_shape)}. Choose mlp:64x64 or another mlp."
            )
        layers, num_features = (_convolutions if architecture.kind == "conv" else _stages)(architecture, image)
    layers.append(nn.Flatten())
    sizes = (num_features, *architecture.hidden)
    layers += dense_layers(sizes, activation=architecture.activation, layer_norm=architecture.layer_norm)
    return nn.Sequential(*layers), sizes[-1]


def _convolutions(architecture: Architecture, image: tuple[int, int, int]) -> tuple[list[nn.Module], int]:
    """Return unpadded convolutions, each with its norm (if any) and activation, and the number of their outputs."""
    num_channels, sizes = image[0], _image_sizes(architecture, image)
    layers: list[nn.Module] = []
    for num_outputs, kernel, stride, size in zip(
        architecture.channels, architecture.kernel_sizes, architecture.strides, sizes[1:], strict=True
    ):
        layers.append(nn.Conv2d(num_channels, num_outputs, kernel, stride))
        if architecture.layer_norm and architecture.elementwise_norm:
            layers.append(nn.LayerNorm([num_outputs, *size]))
        elif architecture.layer_norm:
            layers.append(nn.GroupNorm(1, num_outputs))
        layers.append(ACTIVATIONS[architecture.activation]())
        num_channels = num_outputs
    return layers, num_channels * math.prod(sizes[-1])


def _image_sizes(architecture: Architecture, image: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Return height and width before the first convolution and after each.

    Raises:
        MismatchError: the image is smaller than the kernels need, or makes feature maps that are too large.
    """
    _, height, width = image
    sizes = [(height, width)]
    for num_channels, kernel, stride in zip(
        architecture.channels, architecture.kernel_sizes, architecture.strides, strict=True
    ):
        left = sizes[-1]
        if min(left) < kernel:
            raise MismatchError(
                f"Network {architecture.name!r} does not fit: got images of {height}x{width}, of which "
                f"{left[0]}x{left[1]} is left before a kernel of {kernel}x{kernel}. "
                "Choose fewer convolutions or larger images."
            )
        sizes.append(((left[0] - kernel) // stride + 1, (left[1] - kernel) // stride + 1))
        _check_feature_maps(architecture, num_channels * math.prod(sizes[-1]))
    return sizes


def _check_feature_maps(architecture: Architecture, size: int) -> None:
    """Check that one observation's feature maps fit into the memory: those of a tiny file may not."""
    if size > MAX_FEATURE_MAP:
        raise MismatchError(
            f"Network {architecture.name!r} makes feature maps of {size:,} numbers of each observation, at most "
            f"{MAX_FEATURE_MAP:,} are supported. Choose fewer channels, larger strides or smaller images."
        )


def _stages(architecture: Architecture, image: tuple[int, int, int]) -> tuple[list[nn.Module], int]:
    """Return residual stages with an activation after the last, and the number of their outputs."""
    num_channels, height, width = image
    layers: list[nn.Module] = []
    for num_outputs, kernel, stride in zip(
        architecture.channels, architecture.kernel_sizes, architecture.strides, strict=True
    ):
        _check_feature_maps(architecture, num_outputs * height * width)
        layers.append(ImpalaStage(num_channels, num_outputs, kernel, stride))
        num_channels, height, width = num_outputs, -(-height // stride), -(-width // stride)
    return [*layers, ACTIVATIONS[architecture.activation]()], num_channels * height * width
