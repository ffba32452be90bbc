"""The layers of an `nn.Sequential`, from the names and shapes of its tensors.

Activations have no tensors: they leave gaps in the numbering. The gaps must be where an activation after every layer
leaves them, or the layers are others than they seem.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

from torch import Tensor

from rldistill.errors import listed
from rldistill.networks.layers import Layer

# The convolutions of Mnih et al. 2015; strides leave no trace in the weights.
KERNELS, STRIDES = (8, 4, 3), (4, 2, 1)


class UnknownLayersError(Exception):
    """The tensors are not those of the layers that were expected."""


def take_layer(tensors: dict[str, Tensor], name: str) -> Layer:
    """Remove `NAME.weight` and `NAME.bias` from tensors. Raises UnknownLayersError: one of them is missing."""
    try:
        return Layer(tensors.pop(f"{name}.weight"), tensors.pop(f"{name}.bias"))
    except KeyError as error:
        raise UnknownLayersError(f"{error.args[0]} is missing") from error


def take_layers(tensors: dict[str, Tensor], prefix: str, *, has_output: bool = True) -> list[Layer]:
    """Remove the layers `PREFIX<i>` from tensors: convolutions, then fully connected layers, each with its norm.

    `has_output` says whether the last layer is an output, behind which there is no norm and no activation.

    Raises:
        UnknownLayersError: other layers, layers elsewhere, or one without bias.
    """
    found = _take_numbered(tensors, prefix)
    norms = [layer for layer in found.values() if layer.weight.dim() in (1, 3)]
    convolutions = [layer for layer in found.values() if layer.is_convolution]
    dense = [layer for layer in found.values() if layer.weight.dim() == 2]
    kernels = tuple(layer.weight.shape[2] for layer in convolutions)
    if kernels not in ((), KERNELS):
        raise UnknownLayersError(f"convolutions of kernels {kernels}, whose strides leave no trace in the weights")
    expected = _positions(len(convolutions), len(dense), has_norms=bool(norms), has_output=has_output)
    if list(found) != expected or not dense:
        raise UnknownLayersError(f"layers at {list(found)}, expected at {expected}")
    for left, right in pairwise(dense):
        if len(left.weight) != right.weight.shape[1]:
            raise UnknownLayersError(f"{len(left.weight)} outputs before {right.weight.shape[1]} inputs")
    strides = iter(STRIDES)
    layers: list[Layer] = []
    for position, layer in found.items():
        if layer.weight.dim() in (1, 3):
            if not layers or layers[-1].norm is not None:
                raise UnknownLayersError(f"a norm at {position}, expected it behind a layer")
            layers[-1] = replace(layers[-1], norm=(layer.weight, layer.bias))
        else:
            layers.append(replace(layer, stride=next(strides)) if layer.is_convolution else layer)
    return layers


def _take_numbered(tensors: dict[str, Tensor], prefix: str) -> dict[int, Layer]:
    pattern = re.compile(rf"{re.escape(prefix)}(\d+)\.weight")
    layers: dict[int, Layer] = {}
    for position in sorted(int(found[1]) for name in tensors if (found := pattern.fullmatch(name))):
        if f"{prefix}{position}.bias" not in tensors:
            raise UnknownLayersError(f"{prefix}{position} has no bias")
        layers[position] = take_layer(tensors, f"{prefix}{position}")
    return layers


def _positions(num_convolutions: int, num_dense: int, *, has_norms: bool, has_output: bool) -> list[int]:
    """Return where layers and norms stand if an activation follows each, and one flattening the convolutions."""
    positions: list[int] = []
    place = 0
    for index in range(num_convolutions + num_dense):
        if index == num_convolutions and num_convolutions:
            place += 1
        is_output = has_output and index == num_convolutions + num_dense - 1
        size = 2 if has_norms and not is_output else 1
        positions += range(place, place + size)
        place += size + 1
    return positions


def shown_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return names and shapes as messages list them."""
    return listed(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
