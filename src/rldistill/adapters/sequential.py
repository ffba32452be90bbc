"""Reads the layers of an `nn.Sequential` from the names and shapes of its tensors.

Activations have no tensors: they leave gaps in the numbering, which must be where an activation
after every layer would leave them, or the layers are others than they seem.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor

from rldistill.adapters.found import Layer
from rldistill.networks.architecture import Activation, Architecture

# The convolutions of Mnih et al. 2015; strides leave no trace in the weights.
_KERNELS, _STRIDES = (8, 4, 3), (4, 2, 1)


class UnknownLayersError(Exception):
    """The tensors are not those of the layers that were expected."""


def take_layers(tensors: dict[str, Tensor], prefix: str) -> dict[int, Layer]:
    """Remove `PREFIX.<i>.weight` and `.bias` from tensors; returns them by position.

    Raises:
        UnknownLayersError: a weight without its bias, or the other way round.
    """
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.weight")
    positions = sorted(int(found[1]) for name in tensors if (found := pattern.fullmatch(name)))
    layers: dict[int, Layer] = {}
    for position in positions:
        weight = tensors.pop(f"{prefix}.{position}.weight")
        bias = tensors.pop(f"{prefix}.{position}.bias", None)
        if bias is None:
            raise UnknownLayersError(f"{prefix}.{position} has no bias")
        layers[position] = (weight, bias)
    return layers


def take_layer(tensors: dict[str, Tensor], name: str) -> Layer:
    """Remove one layer from tensors.

    Raises:
        UnknownLayersError: it is not there.
    """
    try:
        return tensors.pop(f"{name}.weight"), tensors.pop(f"{name}.bias")
    except KeyError as error:
        raise UnknownLayersError(f"{error.args[0]} is missing") from error


def describe_layers(
    layers: Mapping[int, Layer], *, activation: Activation, has_output: bool, value_head: bool = False
) -> Architecture:
    """Return the architecture of convolutions and fully connected layers, each with its norm (if any) and activation.

    Args:
        layers: by position.
        activation: after every layer but the output.
        has_output: whether the last layer is the output, which belongs to no torso.
        value_head: whether there is a state value on the same features.

    Raises:
        UnknownLayersError: other layers, or layers elsewhere.
    """
    norms = [layer for layer in layers.values() if layer[0].dim() in (1, 3)]
    convolutions = [layer for layer in layers.values() if layer[0].dim() == 4]
    dense = [layer for layer in layers.values() if layer[0].dim() == 2]
    kernels = tuple(weight.shape[2] for weight, _ in convolutions)
    if kernels not in ((), _KERNELS):
        raise UnknownLayersError(f"convolutions of kernels {kernels}, whose strides leave no trace in the weights")
    expected = _positions(len(convolutions), len(dense), has_norms=bool(norms), has_output=has_output)
    if list(layers) != expected or not dense:
        raise UnknownLayersError(f"layers at {list(layers)}, expected at {expected}")
    for (left, _), (right, _) in pairwise(dense):
        if left.shape[0] != right.shape[1]:
            raise UnknownLayersError(f"{left.shape[0]} outputs before {right.shape[1]} inputs")
    hidden = tuple(weight.shape[0] for weight, _ in (dense[:-1] if has_output else dense))
    channels = tuple(weight.shape[0] for weight, _ in convolutions)
    widths = "x".join(map(str, hidden))
    return Architecture(
        f"conv:{'-'.join(map(str, channels))}:{widths}" if channels else f"mlp:{widths}",
        "conv" if channels else "mlp",
        hidden,
        channels,
        kernel_sizes=kernels,
        strides=_STRIDES if channels else (),
        activation=activation,
        layer_norm=bool(norms),
        elementwise_norm=any(weight.dim() == 3 for weight, _ in norms),
        value_head=value_head,
    )


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


def shown_tensors(tensors: Mapping[str, Tensor], most: int = 8) -> str:
    """Return names and shapes as messages list them."""
    shown = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in list(tensors.items())[:most])
    return shown + (f" and {len(tensors) - most} more" if len(tensors) > most else "")


def flattened(layers: Mapping[int, Layer]) -> Sequence[Layer]:
    """Return layers and norms in order."""
    return list(layers.values())
