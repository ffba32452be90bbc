"""What a checkpoint holds: state dicts, one of them the actor's, the layers in it, and running statistics beside them.

Activations have no tensors: they leave gaps in the numbering of an `nn.Sequential`. The gaps must be where an
activation after every layer leaves them, or the layers are others than they seem. Recurrent layers are told by what
PyTorch calls their tensors.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from typing import Any, cast

import torch
from torch import Tensor

from rldistill.adapters.arrays import NumpyArray
from rldistill.adapters.weights import read_weights, unwrapped_names
from rldistill.errors import PolicyFileError, RldistillError, UsageError, listed
from rldistill.networks import InputNormalization
from rldistill.networks.layers import Cell, Layer

# What torch calls the weights of all its recurrent layers and cells, whatever the module around them is called.
_RECURRENT_WEIGHT = re.compile(r"(^|\.)weight_[ih]h(_l\d+)?(_reverse)?($|\.)")


_WITH_ITS_STATE = "No memory is read from such a file: export the policy to ONNX or TorchScript with its state."


def refuse_memory(
    what: str, names: Iterable[str], way_on: str = _WITH_ITS_STATE, error: type[RldistillError] = PolicyFileError
) -> None:
    """Check that no weight is one of a recurrent layer; raises an error of the type given, which names it."""
    if memory := next(filter(_RECURRENT_WEIGHT.search, names), None):
        raise error(f"{what} is recurrent: it has {memory}. {way_on}")


# The convolutions of Mnih et al. 2015; strides leave no trace in the weights.
KERNELS, STRIDES = (8, 4, 3), (4, 2, 1)


class UnknownLayersError(ValueError):
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
    if not dense:
        raise UnknownLayersError(f"no fully connected layer is called {prefix}0, {prefix}2, …")
    if prefix and not prefix.endswith(".") and len(found) > 1 and list(found) != expected:
        raise UnknownLayersError(
            f"{prefix}{next(iter(found))}, … are numbered without gaps for activations: names of a module of its "
            "maker's own, which do not say what lies between its layers"
        )
    if list(found) != expected:
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


def take_cells(tensors: dict[str, Tensor], prefix: str) -> tuple[Cell, ...]:
    """Remove the layers of an `nn.GRU` or `nn.LSTM`, `PREFIXweight_ih_l<i>` and so on, from tensors; () without any.

    Raises:
        UnknownLayersError: one of its weights is missing, or its gates are those of another kind of layer.
    """
    cells: list[Cell] = []
    while f"{prefix}weight_ih_l{len(cells)}" in tensors:
        given, own = names = [f"{prefix}weight_{part}_l{len(cells)}" for part in ("ih", "hh")]
        if own not in tensors:
            raise UnknownLayersError(f"{given} without {own}")
        gates, size = tensors[own].shape[0], tensors[own].shape[-1]
        if tensors[own].dim() != 2 or gates not in (3 * size, 4 * size) or tensors[given].shape[:1] != (gates,):
            shapes = f"{list(tensors[given].shape)} and {list(tensors[own].shape)}"
            raise UnknownLayersError(f"{given} and {own} of {shapes}, expected those of a GRU or an LSTM")
        no_bias = torch.zeros(gates)  # bias=False leaves them out
        biases = [tensors.pop(f"{prefix}bias_{part}_l{len(cells)}", no_bias) for part in ("ih", "hh")]
        cells.append(Cell(*(Layer(tensors.pop(name), bias) for name, bias in zip(names, biases, strict=True))))
    return tuple(cells)


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


_TINY = 1e-12
# Under which a state dict lies in the files of several libraries.
_CONTAINERS = (
    "model_weights",
    "state_dict",
    "model_state_dict",
    "actor_state_dict",
    "student_state_dict",
    "model",
    "actor",
)
# How the second half of a pair is called whose first ends in "mean"; what is a variance comes first.
_SPREADS = ("var", "variance", "std")
# Statistics of returns and values are no concern of what acts.
_NOT_OBSERVED = re.compile(
    r"(^|[_.])(ret|returns?|rew|rewards?|values?|critics?|qf|vf|baseline|discriminator)\d*([_.]|$)"
)


def checked_content(
    content: object, source: str, *, may_be_infinite: Collection[str] = ()
) -> tuple[object, tuple[str, ...]]:
    """Return what a file holds, each state dict checked and in float32, and the types that it was converted from.

    Tensors of the names in `may_be_infinite` may be masks.

    Raises:
        PolicyFileError: a tensor that `read_weights` refuses.
    """
    converted: set[str] = set()

    def check(value: object, name: str) -> object:
        if _is_state_dict(value):
            tensors = {key: _without_numpy(item) for key, item in cast(Mapping[Any, Any], value).items()}
            weights = read_weights(tensors, source=f"{source}{name}", may_be_infinite=may_be_infinite)
            converted.update(weights.converted_from)
            return dict(zip(unwrapped_names(weights.tensors), weights.tensors.values(), strict=True))
        if isinstance(value, Mapping):
            return {key: check(item, f", {key}") for key, item in value.items() if "optimizer" not in str(key)}
        if isinstance(value, list | tuple):
            return [check(item, f", {index}") for index, item in enumerate(value)]
        return _without_numpy(value)

    return check(content, ""), tuple(sorted(converted))


def state_dicts(content: object) -> Sequence[Mapping[str, Tensor]]:
    """Return the state dicts of checked content, in the order in which one of them may be the actor's."""
    if _is_state_dict(content):
        return [cast(Mapping[str, Tensor], content)]
    if isinstance(content, list):
        return [item for item in content if _is_state_dict(item)]
    named = named_state_dicts(content)
    known = [named[name] for name in _CONTAINERS if name in named]
    # The only one is the policy's, whatever it is called, unless its name says that it judges.
    return known or [part for name, part in named.items() if len(named) == 1 and not _NOT_OBSERVED.search(name)]


def known_state_dicts(source: str, content: object) -> Sequence[Mapping[str, Tensor]]:
    """Return what `state_dicts` does. Raises PolicyFileError: none stands where a known library puts it."""
    if dicts := state_dicts(content):
        return dicts
    names = list(named_state_dicts(content))
    if not names:
        keys = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise PolicyFileError(f"{source} holds no state dict: got {keys or 'nothing'}, expected tensors by name.")
    raise PolicyFileError(
        f"{source} holds the state dicts {listed(names)}, and does not say which one is the policy. Save that one "
        f"alone, such as torch.save(torch.load(path, weights_only=True)[{names[0]!r}], 'policy.pt'), and load it into "
        "its module: rd.load_policy('policy.pt', module=…, task=…, outputs=…)."
    )


def named_state_dicts(content: object) -> dict[str, Mapping[str, Tensor]]:
    """Return the state dicts in a file by the names under which they lie there."""
    parts = cast(Mapping[Any, Any], content).items() if isinstance(content, Mapping) else ()
    return {str(name): part for name, part in parts if _is_state_dict(part)}


def _is_state_dict(value: object) -> bool:
    """Are these tensors by name? Tensors beside a state dict, such as a count of steps, make none."""
    if not _has_tensors(value):
        return False
    items = cast(Mapping[Any, Any], value)
    has_numbers = any(isinstance(item, int | float) for item in items.values())
    # Running statistics come with numbers about them.
    is_statistics = has_numbers and _statistics_in("", items) is not None
    return not is_statistics and not any(map(_has_tensors, items.values()))


def _has_tensors(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(item, Tensor | NumpyArray) for item in value.values())


def _without_numpy(value: object) -> object:
    return value.tensor if isinstance(value, NumpyArray) else value


StatisticsBeside = Mapping[str, object]
"""Running statistics in a checkpoint: the mean, then the spread, as the file holds them, by their names."""


def mean_and_variance(statistics: StatisticsBeside, source: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and variance, flat; None where they are none of one size. Raises as `read_weights`."""
    tensors = {name: _as_tensor(value) for name, value in statistics.items()}
    if any(name.endswith("std") or tensor is None for name, tensor in tensors.items()):
        return None
    mean, variance = (tensor.double().flatten() for tensor in read_weights(tensors, source=source).tensors.values())
    if mean.shape != variance.shape or (variance < 0).any():
        return None
    return tuple(mean.tolist()), tuple(variance.tolist())


def statistics_beside(content: object) -> list[StatisticsBeside]:
    """Return the running statistics of observations in a checkpoint: in it or one level below, in no state dict."""
    if not isinstance(content, Mapping):
        return []
    parts = cast(Mapping[Any, Any], content)
    places = {"": parts} | {f"{name}.": part for name, part in parts.items() if isinstance(part, Mapping)}
    found = [_statistics_in(prefix, cast(Mapping[Any, Any], place)) for prefix, place in places.items()]
    return [each for each in found if each is not None]


def unused_statistics(source: str, beside: Sequence[StatisticsBeside]) -> UsageError:
    """Return the error for statistics whose use is not known."""
    return UsageError(
        f"{source} holds running statistics beside its weights ({names_of(beside)}), and does not say how they are "
        "used. If they are those of its observations, save them as mean and var (and clip) to an .npz and name it with "
        "--normalizer (in Python normalizer=); else say --normalizer none."
    )


def names_of(statistics: Sequence[StatisticsBeside]) -> str:
    """Return the names of statistics as messages list them."""
    return ", ".join(chain(*statistics))


def _statistics_in(prefix: str, place: Mapping[Any, Any]) -> StatisticsBeside | None:
    for name, mean in place.items():
        is_mean = isinstance(name, str) and name.endswith("mean")
        if not (is_mean and isinstance(mean, Tensor | NumpyArray | list | tuple)):
            continue
        if _NOT_OBSERVED.search(f"{prefix}{name}"):
            continue
        for ending in _SPREADS:
            other = name.removesuffix("mean") + ending
            if other in place:
                return {f"{prefix}{name}": mean, f"{prefix}{other}": place[other]}
    return None


def normalization_by_std(mean: Tensor, divisor: Tensor, *, clip: float) -> InputNormalization:
    """Return running statistics by which (o - mean) / divisor is (o - mean) / √(variance + ε); float64 `[P]` each."""
    variance = (divisor.square() - _TINY).clamp(min=0)
    return InputNormalization(tuple(mean.tolist()), tuple(variance.tolist()), epsilon=_TINY, clip=clip)


def _as_tensor(value: object) -> Tensor | None:
    if isinstance(value, list | tuple):
        numbers = cast(Sequence[object], value)
        is_plain = all(isinstance(number, int | float) for number in numbers)
        return torch.tensor(numbers, dtype=torch.float64) if is_plain and numbers else None
    tensor = _without_numpy(value)
    return tensor if isinstance(tensor, Tensor) else None
