"""Observations on their way from an environment to a network.

An observation of one part is an array, `[N, ...]` of N slots, and stays one. Observations of several parts, such as
those of a Dict, are a structured array `[N]` with a field for each part: slots are chosen and copied as those of any
array are, and each part keeps its own type and shape. Networks get the parts as tensors by name, and lay side by side
what they see (`networks.input_layer.join_parts`).
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rldistill.tasks import ObservationFingerprint, ObservationPart

Tensors = Tensor | Mapping[str, Tensor]
"""What a network is given: rows of one part `[B, ...]`, or those of several by name."""


def structured_dtype(parts: tuple[ObservationPart, ...]) -> "np.dtype[Any]":
    """Return the type of one observation of several parts."""
    return np.dtype([(part.name, part.dtype, part.shape) for part in parts])


def no_rows(fingerprint: ObservationFingerprint, num_rows: int) -> NDArray[Any]:
    """Return zeros in the form of so many observations of a task."""
    parts = fingerprint.separate_parts
    if parts:
        return np.zeros(num_rows, structured_dtype(parts))
    return np.zeros((num_rows, *fingerprint.observation_shape), fingerprint.observation_dtype)


def fields(observations: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return a structured array `[N]` by the name of the part, `[N, ...]` each; nothing of an array of one part."""
    return {name: observations[name] for name in observations.dtype.names or ()}


def flat(observations: NDArray[Any], dtype: str | None = None) -> NDArray[Any]:
    """Return the parts of observations `[N]` side by side, `[N, P]`; an array of one part as it is.

    Args:
        observations: as an environment gives them.
        dtype: of the vectors; None: the one that holds the values of all parts.
    """
    parts = fields(observations)
    if not parts:
        return observations
    return np.concatenate([part.reshape(len(part), -1) for part in parts.values()], axis=1, dtype=dtype)


def split(rows: Any, parts: tuple[ObservationPart, ...]) -> dict[str, Any]:  # noqa: ANN401 (an array or a tensor)
    """Return what `flat` undoes, of an array or a tensor `[..., P]`: views by the name of the part."""
    pieces: dict[str, Any] = {}
    first = 0
    for part in parts:
        piece = rows[..., first : first + part.size]
        pieces[part.name] = piece.reshape(*rows.shape[:-1], *part.shape)
        first += part.size
    return pieces


def as_tensors(observations: Any, fingerprint: ObservationFingerprint) -> Tensors:  # noqa: ANN401 (checked by its user)
    """Return observations as networks take them.

    Those of several parts may be a structured array, a mapping by the name of the part, or vectors with the parts side
    by side; a part that is missing is left out.
    """
    parts = fingerprint.separate_parts
    if not parts:
        return torch.as_tensor(observations)
    if isinstance(observations, np.ndarray) and observations.dtype.names:
        observations = fields(observations)
    if isinstance(observations, Mapping):
        given: Mapping[str, Any] = observations
        return {part.name: _tensor(given[part.name]) for part in parts if part.name in given}
    rows = torch.as_tensor(observations)
    size = math.prod(fingerprint.observation_shape)
    return split(rows, parts) if rows.dim() == 2 and rows.shape[1] == size else rows


def alone(parts: Mapping[str, Tensor]) -> Tensors:
    """Return observations as networks take them: the only part by itself, a single number as a vector of one."""
    if len(parts) > 1:
        return parts
    (part,) = parts.values()
    return part if part.dim() > 1 else part[:, None]


def moved(observations: Tensors, device: torch.device) -> Tensors:
    """Return observations on a device."""
    if isinstance(observations, Tensor):
        return observations.to(device, non_blocking=True)
    return {name: part.to(device, non_blocking=True) for name, part in observations.items()}


def num_rows(observations: Any) -> int:  # noqa: ANN401 (arrays, tensors, or a mapping of them)
    """Return N."""
    return len(next(iter(observations.values()), ()) if isinstance(observations, Mapping) else observations)


def _tensor(values: Any) -> Tensor:  # noqa: ANN401 (an array, a tensor or a list)
    # A field of a structured array does not lie as torch has it.
    return values if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))
