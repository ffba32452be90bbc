"""What a teacher saw of its environment: order of the inputs, statistics, dead inputs, a clock.

Order: environment → padding with zeros → time feature (1 − t/T) → statistics → network. A Dict
observation is one vector here, its keys sorted; the library concatenates them in the order of the
space, so the columns of the first layer are brought into ours. So it is with an image that goes into
fully connected layers: the library turns its channels to the front, a task may show them last.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from rldistill.adapters.normalizer_file import NormalizerRecord
from rldistill.adapters.sb3.spaces import Space
from rldistill.networks import InputNormalization
from rldistill.networks.layers import Layer, NetworkLayers
from rldistill.networks.torsos import to_images

# An input that never moved has the variance that the wrapper started with, 1, divided by the count over 0.0001:
# 1e-10 after a million steps. Inputs that moved have 1e-5 and more.
_DEAD_VARIANCE = 1e-7


@dataclass(frozen=True)
class Part:
    """One part of an observation as a vector."""

    key: str  # in a Dict observation; empty otherwise
    space: Space
    start: int  # its first input, in the order of the library
    size: int  # how many inputs it has


def parts_of(space: Space, *, image_features: Mapping[str, int] | None = None) -> list[Part]:
    """Return the parts of an observation sorted by key, with their sizes or the widths of their image features."""
    named: Mapping[str, Space] = space.parts if space.kind == "dict" else {"": space}
    parts: list[Part] = []
    start = 0
    for key, part in named.items():
        size = (image_features or {}).get(key, part.num_inputs)
        parts.append(Part(key, part, start, size))
        start += size
    return sorted(parts, key=lambda part: part.key)


def in_our_order(layers: NetworkLayers, space: Space, seen: tuple[int, ...]) -> NetworkLayers:
    """Return layers whose columns are in the order of our inputs: of the lowest, or of those above all images.

    `space` is that of the observation as the network saw it, `seen` the shape in which the task shows it: of an image,
    its channels may be last.

    Raises:
        ValueError: the layers take another number of inputs.
    """
    features = [len(torso[-1].weight) for torso in layers.images]
    keys = space.image_keys(float_images=layers.float_images) if features else []
    parts = parts_of(space, image_features=dict(zip(keys, features, strict=True)))
    above = layers.head if layers.images else layers.torso
    num_inputs = (*above, layers.output)[0].weight.shape[1]
    if num_inputs != sum(part.size for part in parts):
        raise ValueError(f"{num_inputs} inputs, and observations of {space.description}")
    order = _turned_order(space, seen) or [part.start + place for part in parts for place in range(part.size)]
    if order == sorted(order):
        return layers
    index = torch.tensor(order)

    def turned(layer: Layer) -> Layer:
        return replace(layer, weight=layer.weight[:, index])

    if above:
        lowest = (turned(above[0]), *above[1:])
        return replace(layers, head=lowest) if layers.images else replace(layers, torso=lowest)
    log_std, value = layers.log_std, layers.value
    if isinstance(log_std, Layer):
        log_std = turned(log_std)
    elif log_std is not None and log_std.dim() == 2:
        log_std = log_std[index]
    value = None if value is None else turned(value)
    return replace(layers, output=turned(layers.output), log_std=log_std, value=value)


def _turned_order(space: Space, seen: tuple[int, ...]) -> list[int]:
    """Return, for each element of an image as a task shows it, its place in that of the library; empty: the same."""
    if len(space.shape) != 3 or seen == space.shape:
        return []
    shown = torch.arange(math.prod(seen)).reshape(1, *seen)
    return to_images(shown).reshape(-1).argsort().tolist()


def observation_shape(space: Space) -> tuple[int, ...]:
    """Return the shape of an observation as our networks get it: a Dict or a choice is one vector."""
    return space.shape if space.kind == "box" else (space.num_inputs,)


def observation_dtype(space: Space) -> str:
    """Return its numpy name: float32 for all floating-point numbers, and for what is made into a vector.

    A vector of nothing but images is one of bytes.
    """
    if space.kind == "dict":
        has_images_alone = all(len(part.shape) == 3 and part.dtype == "uint8" for part in space.parts.values())
        return "uint8" if has_images_alone else "float32"
    is_whole = space.kind == "box" and space.dtype and not space.dtype.startswith("float")
    return space.dtype if is_whole else "float32"


def make_normalization(
    record: NormalizerRecord, space: Space, seen: tuple[int, ...], *, scale: float = 1.0
) -> InputNormalization | None:
    """Return the statistics for the network's inputs, in our order; parts without any are left untouched.

    Space and `seen` are those of `in_our_order`; `scale` is the factor that the library applies to the normalised
    observations of a space of images. Returns None where observations were not normalised at all.

    Raises:
        ValueError: statistics that do not fit the observations.
    """
    if not record.norm_obs:
        return None
    parts = parts_of(space)
    unknown = sorted(record.statistics.keys() - {part.key for part in parts})
    if unknown:
        raise ValueError(f"statistics of {', '.join(map(repr, unknown))}, and observations {space.description}")
    mean: list[float] = []
    variance: list[float] = []
    untouched: list[tuple[int, int]] = []
    for part in parts:
        statistics = record.statistics.get(part.key)
        if statistics is None:
            untouched.append((len(mean), len(mean) + part.size))
            mean += [0.0] * part.size
            variance += [1.0] * part.size
        else:
            if statistics.mean.shape != part.space.shape:
                raise ValueError(
                    f"statistics of shape {list(statistics.mean.shape)} for {part.key or 'observations'} of shape "
                    f"{list(part.space.shape)}"
                )
            mean += statistics.mean.reshape(-1).tolist()
            variance += statistics.variance.reshape(-1).tolist()
    if order := _turned_order(space, seen):
        mean, variance = ([values[place] for place in order] for values in (mean, variance))
    # A factor behind a division is another divisor, and another limit.
    variances = tuple(value / scale**2 for value in variance)
    epsilon = max(record.epsilon / scale**2, record.positive_epsilon)
    return InputNormalization(tuple(mean), variances, epsilon, record.clip * scale, tuple(untouched))


def dead_inputs_at_end(record: NormalizerRecord | None, *, time_feature: bool) -> int:
    """Return how many inputs at the end, before the clock, never moved from 0 while the statistics were taken."""
    statistics = record.statistics.get("") if record is not None else None
    if statistics is None or statistics.mean.ndim != 1:
        return 0
    end = len(statistics.mean) - time_feature
    dead = (statistics.variance[:end] <= _DEAD_VARIANCE) & (np.abs(statistics.mean[:end]) <= math.sqrt(_DEAD_VARIANCE))
    return 0 if dead.all() else int(np.argmin(dead[::-1]))
