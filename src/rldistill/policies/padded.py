"""Inference in batches of one fixed size, and the checks of what enters and leaves them.

Matrix products differ in their last bits between batch sizes, between places in a small batch, and
with where rows lie in memory: enough to change a chaotic episode. All inference therefore runs in
batches of exactly one size, the last one padded, in memory of one layout: an observation's output
depends on neither its neighbours nor the array that it was cut from.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rldistill.errors import MismatchError, NumericalError, shortened, shown
from rldistill.networks.memory import aligned
from rldistill.observations import Tensors
from rldistill.tasks import ObservationFingerprint
from rldistill.types import OutputKind

# 16 is within 10 % of the fastest size on the CPU for every preset; a GPU wants more.
ROWS_PER_BATCH = {"cpu": 16, "cuda": 256}

# Below, a row's place in the batch changes its last bits.
_FEWEST_ROWS = 16
# Of a network that takes several: more would share no more overhead, and take memory.
_BATCHES_AT_ONCE = 64

Column = Tensor | None
Forward = Callable[[Any], tuple[Column, ...]] | Callable[[Any, *tuple[Tensor, ...]], tuple[Column, ...]]
"""(rows, and each part of a state) → columns, `[batch_size, ...]` each."""


def run_padded(
    rows: Tensors, batch_size: int, forward: Forward, *state: Tensor, takes_blocks: bool = False
) -> tuple[Column, ...]:
    """Call a function with exactly `batch_size` rows at a time, and join what it says of the real ones.

    Args:
        rows: `[B, ...]`, or several parts of them by name; none give one batch of padding, so that the shapes of the
            outputs are known.
        batch_size: rows of every call, 1 or more; of fewer than 16 only the first is filled.
        forward: `[batch_size, ...]` of the rows and of each part of the state, contiguous and aligned, to columns
            `[batch_size, ...]`; None where it has no such column.
        *state: `[B, ...]` each, what a network remembers of the rows' environments.
        takes_blocks: whether `forward` takes several batches at once, and computes each as it does one.

    Returns:
        The columns, `[B, ...]` each.
    """
    num_filled = 1 if batch_size < _FEWEST_ROWS else batch_size * (_BATCHES_AT_ONCE if takes_blocks else 1)
    if not isinstance(rows, Tensor):
        forward = _of_parts(forward, tuple(rows))
    columns = (rows, *state) if isinstance(rows, Tensor) else (*rows.values(), *state)
    if len(columns[0]) <= num_filled:
        return _run_part(columns, batch_size, forward)
    pieces = zip(*(each.split(num_filled) for each in columns), strict=True)
    parts = [_run_part(piece, batch_size, forward) for piece in pieces]
    return tuple(
        None if column[0] is None else torch.cat([part for part in column if part is not None])
        for column in zip(*parts, strict=True)
    )


def _of_parts(forward: Forward, names: tuple[str, ...]) -> Forward:
    """Return a function of one column for each part, as padding has them, that calls `forward` with the parts."""

    def run(*columns: Tensor) -> tuple[Column, ...]:
        return forward(dict(zip(names, columns, strict=False)), *columns[len(names) :])

    return run


def _run_part(piece: tuple[Tensor, ...], batch_size: int, forward: Forward) -> tuple[Column, ...]:
    num_rows = len(piece[0])
    missing = max(-(-num_rows // batch_size), 1) * batch_size - num_rows
    if not missing:
        return forward(*map(aligned, piece))
    padded = [aligned(functional.pad(part, [0] * (2 * part.dim() - 1) + [missing])) for part in piece]
    return tuple(None if column is None else column[:num_rows] for column in forward(*padded))


def probe_rows(fingerprint: ObservationFingerprint, batch_size: int) -> Tensor:
    """Return a batch of observations, the same at each call, by whose answers a memory or a draw can be told.

    To zeros a memory adds nothing, and a layer without a bias hides a draw. Between 0 and 1 they are what the fewest
    programs take for impossible: logarithms, roots, and indices are defined there.

    Returns:
        `[B, *observation_shape]`, bytes from 0 to 255 or float32 from 0 to 1.
    """
    rng, shape = np.random.default_rng(0), (batch_size, *fingerprint.observation_shape)
    if fingerprint.observation_dtype == "uint8":
        return torch.from_numpy(rng.integers(0, 256, shape, np.uint8))
    return torch.from_numpy(rng.random(shape, np.float32))


def check_observations(name: str, rows: Tensors, fingerprint: ObservationFingerprint) -> None:
    """Check that rows, `[B, *observation_shape]` or their parts by name, are what a policy takes to play a task.

    Raises:
        MismatchError: another shape, a part that is missing, or no integers where the policy takes bytes.
    """
    if not isinstance(rows, Tensor):
        expected = {part.name: part.shape for part in fingerprint.separate_parts}
        got = {name: tuple(part.shape[1:]) for name, part in rows.items()}
        if got != expected or len({len(part) for part in rows.values()}) != 1:
            shown = ", ".join(f"{name} {list(part.shape)}" for name, part in rows.items()) or "none of them"
            wanted = ", ".join(f"{name} [{', '.join(map(str, ('B', *shape)))}]" for name, shape in expected.items())
            raise MismatchError(f"Policy {name!r} takes observations of the parts {wanted}, got {shown}.")
        return
    if tuple(rows.shape[1:]) != fingerprint.observation_shape or rows.dim() == 0:
        raise MismatchError(
            f"Policy {name!r} takes observations [B, {', '.join(map(str, fingerprint.observation_shape))}], "
            f"got {list(rows.shape)}."
        )
    takes_bytes = fingerprint.observation_dtype == "uint8"
    if takes_bytes and (rows.is_floating_point() or rows.is_complex() or rows.dtype == torch.bool):
        raise MismatchError(
            f"Policy {name!r} takes uint8 observations, 0 to 255, and scales them itself; got "
            f"{str(rows.dtype).removeprefix('torch.')}. They were probably scaled before. "
            "Pass them as the environment gives them."
        )


def check_state(name: str, state: object, initial: tuple[Tensor, ...]) -> None:
    """Check that the state that a policy was given has the parts and the shapes of the one it would begin with.

    Raises:
        MismatchError: other shapes, or no tensors.
    """
    parts = cast(Sequence[object], state) if isinstance(state, tuple | list) else ()
    got = [list(part.shape) if isinstance(part, Tensor) else shown(part) for part in parts]
    expected = [list(part.shape) for part in initial]
    if got != expected:
        num_rows = expected[0][0]
        given = shortened(str(got), 120) if isinstance(state, tuple | list) else shown(state)
        raise MismatchError(
            f"Policy {name!r} got {num_rows} observations and the state {given}, expected a tuple of tensors "
            f"{expected}. Give what it returned for the same environments, or initial_state({num_rows})."
        )


def check_answers(name: str, kind: OutputKind, rows: Tensors, raw: Tensor) -> None:
    """Check that a policy's answers to rows, `[B, O]`, are numbers: an argmax would take NaN for the best action.

    Raises:
        NumericalError: an answer is NaN or infinite; says whether its observation was, too.
    """
    if math.isfinite(raw.sum()):  # a sum that overflows is looked at closely
        return
    is_finite = raw.isfinite()
    if is_finite.all():
        return
    row = int((~is_finite.all(dim=1)).nonzero()[0])
    shown = ", ".join(f"{value:g}" for value in raw[row, :6].tolist()) + (", …" if raw.shape[1] > 6 else "")
    parts = [rows] if isinstance(rows, Tensor) else list(rows.values())
    if all(part[row].isfinite().all() for part in parts):
        cause = (
            "The observation is finite, so the policy makes them: by an overflow, a division by zero, or a mask of "
            "-inf, for which -1e9 does as well. Check the policy."
        )
    else:
        cause = "The observation holds NaN or infinity itself. Check the environment."
    raise NumericalError(
        f"Policy {name!r} answered {kind} [{shown}] to an observation, expected finite numbers. {cause}"
    )
