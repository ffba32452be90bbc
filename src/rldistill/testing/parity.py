"""What the original library computes, and how far a policy is from it: row by row, or with a memory step by step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rldistill.policies import Policy, choose_actions
from rldistill.types import ActionLayout, PolicyOutput

Array = NDArray[np.generic]

PARITY_TOLERANCE = 1e-5
"""Of outputs: relative, and in parts of the largest output."""


@dataclass(frozen=True)
class Reference:
    """What the original library computes.

    Attributes:
        observations: `[B, *observation_shape]`, as the environment gives them; a thousand are a good number. Of a
            policy with a memory `[T, B, *observation_shape]`: T steps of B environments.
        outputs: `[B, O]` or `[T, B, O]`, the rows that `PolicyOutput.raw` is to have (of a Gaussian the means, then the
            logarithms of the standard deviations), computed in one batch; None: only actions are compared.
        actions: `[B, *action_shape]` or `[T, B, *action_shape]`, greedy; None: not compared.
        starts: `[T, B]`, of a policy with a memory, bool: an episode begins with this step; let some begin in the
            middle. None: rows that have nothing to do with one another.
    """

    observations: Array
    outputs: Array | None = None
    actions: Array | None = None
    starts: NDArray[np.bool_] | None = None


def play(policy: Policy, observations: Array, starts: NDArray[np.bool_]) -> Tensor:
    """Return the outputs `[T, B, O]` for T steps of B environments, whose memory is empty where `starts` `[T, B]`."""
    initial = policy.initial_state(observations.shape[1])
    state, answers = initial, list[Tensor]()
    for rows, begins in zip(observations, torch.from_numpy(starts), strict=True):
        if initial is not None and state is not None:
            masks = [begins.reshape(-1, *[1] * (part.dim() - 1)).to(part.device) for part in initial]
            state = tuple(map(torch.where, masks, initial, state))
        output, state = policy(rows, state)
        answers.append(output.raw.detach().cpu())
    return torch.stack(answers)


def parity_findings(policy: Policy, reference: Reference) -> Iterator[str]:
    """Yield how a policy, asked for all rows of a step in one call, differs from the original, one line each."""
    if not reference.observations.size or (reference.outputs is None and reference.actions is None):
        yield "parity: the reference has nothing to compare, expected observations, and their outputs or actions."
        return
    seen, starts = reference.observations, reference.starts
    raw = policy(seen)[0].raw.detach().cpu() if starts is None else play(policy, seen, starts).flatten(0, 1)
    if has_nan := raw.isnan().any(dim=1).sum():
        yield f"parity: {has_nan / len(raw):.1%} of the rows are answered with NaN, expected numbers."
        return
    steps = 1 if starts is None else 2
    if reference.outputs is not None:
        expected = np.asarray(reference.outputs, np.float64)
        yield from _output_parity(raw.numpy(), expected.reshape(-1, *expected.shape[steps:]))
    if reference.actions is not None:
        output = PolicyOutput.from_raw(policy.tasks[0].fingerprint.action_layout, policy.output_kind, raw)
        yield from _action_parity(output, reference.actions.reshape(-1, *reference.actions.shape[steps:]))


def _output_parity(ours: NDArray[np.float32], theirs: NDArray[np.float64]) -> Iterator[str]:
    if ours.shape != theirs.shape:
        yield f"parity: got outputs {list(ours.shape)}, expected {list(theirs.shape)}."
        return
    if np.isnan(theirs).any():
        yield "parity: the reference's outputs hold NaN, expected numbers."
        return
    is_beyond = _is_beyond(ours, theirs)
    if is_beyond.any():
        gap, largest = np.abs(ours - theirs)[is_beyond].max(), _largest(theirs)
        yield (
            f"parity: {is_beyond.any(axis=1).mean():.1%} of the rows differ from the reference, by up to "
            f"{gap:.2g} where the largest output is {largest:.2g}; expected at most {PARITY_TOLERANCE:g} of it."
        )


def _is_beyond(ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which numbers differ by more than rounding does; infinite ones must be equal."""
    allowed = PARITY_TOLERANCE * np.where(np.isfinite(theirs), np.abs(theirs), 0.0) + PARITY_TOLERANCE * _largest(
        theirs
    )
    with np.errstate(invalid="ignore"):  # ∞ − ∞
        return (ours != theirs) & ~(np.abs(ours - theirs) <= allowed)


def _largest(values: Array) -> float:
    """Return the largest of the finite numbers, without their signs: −∞, of what is masked, is no measure of them."""
    return float(np.abs(values[np.isfinite(values)]).max(initial=1e-12))


def _action_parity(output: PolicyOutput, theirs: Array) -> Iterator[str]:
    """Compare greedy actions wherever the best two choices differ by more than rounding does."""
    ours = choose_actions(output, "greedy")
    if ours.shape != theirs.shape:
        yield f"parity: got actions {list(ours.shape)}, expected {list(theirs.shape)}."
        return
    layout, raw = output.action_layout, output.raw.detach().cpu().numpy()
    if layout.is_continuous:
        differs = _is_beyond(ours, theirs)
    else:
        slack = 2 * PARITY_TOLERANCE * _largest(raw)
        differs = (ours != theirs) & _is_clear(layout, raw, slack).reshape(ours.shape)
    if differs.any():
        share = differs.reshape(len(differs), -1).any(axis=1).mean()
        yield f"parity: {share:.1%} of the greedy actions are not those of the reference, expected all."


def _is_clear(layout: ActionLayout, raw: NDArray[np.float32], slack: float) -> NDArray[np.bool_]:
    """Return, for each choice, whether its best value stands out."""
    if layout.kind == "multi_binary":
        return np.abs(raw) > slack
    parts: Sequence[NDArray[np.float32]] = np.split(raw, np.cumsum(layout.sizes)[:-1], axis=1)
    margins = [np.sort(part, axis=1)[:, -1] - np.sort(part, axis=1)[:, -2:][:, 0] for part in parts]
    return np.stack(margins, axis=1) > slack
