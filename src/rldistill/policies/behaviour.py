"""From a policy's outputs to actions: greedy, sampled, and ε-random in between.

Every decision that may draw anything draws the same number of uniforms, whatever becomes of them, so that an
episode's generator can be wound forward to step t without playing it. They are: one for whether the action is
random, then one for each dimension of a random action, then one for each of a sampled one.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rldistill.errors import UsageError
from rldistill.types import ActionLayout, Actions, OutputKind, PolicyOutput

Behaviour = Literal["greedy", "sample", "random"]
LearnedBehaviour = Literal["greedy", "sample"]
LEARNED_BEHAVIOURS: tuple[LearnedBehaviour, ...] = ("greedy", "sample")
"""What a policy with weights may do; random play has none."""
# Weights may give any: beyond this a standard deviation is no float64, and infinity times 0 is no action.
_LARGEST_LOG_STD = 700.0
Generators = np.random.Generator | Sequence[np.random.Generator]


def check_behaviour(name: str | None) -> LearnedBehaviour | None:
    """Return how a user says that a policy acts; None: as its file says.

    Raises:
        UsageError: nobody knows it.
    """
    for known in (None, *LEARNED_BEHAVIOURS):
        if name == known:
            return known
    raise UsageError(f"behaviour: got {name!r}, expected {' or '.join(LEARNED_BEHAVIOURS)}.")


def check_can_sample(name: str, kind: OutputKind) -> None:
    """Check that a policy with outputs of a kind has something to draw from.

    Raises:
        UsageError: they are the actions themselves.
    """
    if kind == "actions":
        raise UsageError(
            f"behaviour: got 'sample' for policy {name!r}, whose answers are its actions: there is nothing to draw "
            "from. Leave it out."
        )


def draws_per_decision(layout: ActionLayout) -> int:
    """Return how many uniforms a decision draws that may draw any."""
    return 1 + 2 * layout.action_size


def choose_actions(
    output: PolicyOutput, behaviour: Behaviour, *, rng: Generators | None = None, exploration_epsilon: float = 0.0
) -> Actions:
    """Choose one action per row, in the environment's format.

    Args:
        output: B rows of any kind.
        behaviour: `greedy` takes the best, the mode or the mean; `sample` draws: from softmax(logits), from
            softmax(q_values) at temperature 1, from the Gaussian; a deterministic policy's action stays what it is.
            `random` ignores the output.
        rng: one generator for all rows, or one per row; may be None only where nothing is drawn.
        exploration_epsilon: chance of a uniformly random action instead, in [0, 1]. Of a box without bounds a
            random action is normal, with a standard deviation of 1.

    Returns:
        `[B, *action_shape]`, int64, or float32 inside the box.

    Raises:
        ValueError: something must be drawn and there is no generator, or not one per row; or ε is no chance.
    """
    if not 0 <= exploration_epsilon <= 1:
        raise ValueError(f"exploration_epsilon must lie in [0, 1], got {exploration_epsilon}.")
    layout, raw = output.action_layout, output.raw.float().cpu().numpy()
    if behaviour == "greedy" and exploration_epsilon == 0:
        return _greedy(layout, raw, output.kind)
    draws = _draw(layout, len(raw), output.kind, behaviour, rng, exploration_epsilon)
    size = layout.action_size
    is_random, uniform, noise = draws[:, 0] < exploration_epsilon, draws[:, 1 : 1 + size], draws[:, 1 + size :]
    match behaviour:
        case "greedy":
            chosen = _greedy(layout, raw, output.kind)
        case "sample":
            chosen = _sample(layout, raw, output.kind, noise)
        case "random":
            chosen = random_actions(layout, noise)
    if not is_random.any():
        return chosen
    mask = is_random.reshape(-1, *(1,) * (chosen.ndim - 1))
    return np.where(mask, random_actions(layout, uniform), chosen)


def random_actions(layout: ActionLayout, uniforms: NDArray[np.float64]) -> Actions:
    """Return uniformly random actions `[B, *action_shape]` of uniforms `[B, K or D]` in [0, 1)."""
    if layout.kind == "box":
        return _in_box(layout, uniforms)
    sizes = np.full(layout.sizes[0], 2) if layout.kind == "multi_binary" else np.array(layout.sizes)
    chosen = np.minimum((uniforms * sizes).astype(np.int64), sizes - 1)
    return chosen[:, 0] if layout.kind == "discrete" else chosen


def to_box(layout: ActionLayout, raw: NDArray[Any]) -> NDArray[np.float32]:
    """Return what a Gaussian's draws or means `[B, D]` are in the environment's units, by the layout's mapping."""
    low, high = np.array(layout.low), np.array(layout.high)
    if layout.mapping == "tanh_rescale":
        raw = low + 0.5 * (np.tanh(raw) + 1) * (high - low)
    return np.clip(raw, low, high).astype(np.float32)


def _draw(
    layout: ActionLayout,
    num_rows: int,
    kind: str,
    behaviour: Behaviour,
    rng: Generators | None,
    exploration_epsilon: float,
) -> NDArray[np.float64]:
    if rng is None:
        raise ValueError(
            f"acting with behaviour {behaviour!r} of {kind} and ε {exploration_epsilon} draws random numbers: pass rng."
        )
    rows = [rng] * num_rows if isinstance(rng, np.random.Generator) else rng
    if len(rows) != num_rows:
        raise ValueError(f"rng must be one generator or one per row: got {len(rows)} for {num_rows} rows.")
    count = draws_per_decision(layout)
    draws = np.empty((num_rows, count))
    for row, generator in enumerate(rows):
        draws[row] = generator.random(count)
    return draws


def _greedy(layout: ActionLayout, raw: NDArray[np.float32], kind: str) -> Actions:
    if layout.kind == "box":
        return _deterministic(layout, raw, kind)
    if layout.kind == "multi_binary":
        return (raw > 0).astype(np.int64)
    if layout.kind == "discrete":
        return raw.argmax(axis=1)
    return np.stack([part.argmax(axis=1) for part in _choices(layout, raw)], axis=1)


def _deterministic(layout: ActionLayout, raw: NDArray[np.float32], kind: str) -> Actions:
    if kind == "gaussian":
        return to_box(layout, raw[:, : layout.sizes[0]])
    return np.clip(raw, np.array(layout.low), np.array(layout.high)).astype(np.float32)


def _sample(layout: ActionLayout, raw: NDArray[np.float32], kind: str, uniforms: NDArray[np.float64]) -> Actions:
    if kind == "actions":
        return _deterministic(layout, raw, kind)
    if layout.kind == "box":
        mean, log_std = np.split(raw.astype(np.float64), 2, axis=1)
        return to_box(layout, mean + np.exp(np.minimum(log_std, _LARGEST_LOG_STD)) * _normal(uniforms))
    if layout.kind == "multi_binary":
        from scipy.special import expit  # here and below: importing it takes longer than loading a policy

        return (uniforms < expit(raw.astype(np.float64))).astype(np.int64)
    if layout.kind == "discrete":
        return _sample_choice(raw, uniforms[:, 0])
    drawn = [_sample_choice(part, uniforms[:, index]) for index, part in enumerate(_choices(layout, raw))]
    return np.stack(drawn, axis=1)


def _choices(layout: ActionLayout, raw: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return the scores of each choice, `[B, A]`."""
    return np.split(raw, np.cumsum(layout.sizes)[:-1], axis=1)


def _sample_choice(scores: NDArray[np.float32], uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
    """Draw from softmax(scores) by inverting the distribution function."""
    shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
    cumulative = np.exp(shifted).cumsum(axis=1)
    index = (cumulative <= uniforms[:, None] * cumulative[:, -1:]).sum(axis=1)
    return np.minimum(index, scores.shape[1] - 1).astype(np.int64)


def _in_box(layout: ActionLayout, uniforms: NDArray[np.float64]) -> NDArray[np.float32]:
    low, high = np.array(layout.low), np.array(layout.high)
    if layout.is_bounded:
        return np.clip(low + uniforms * (high - low), low, high).astype(np.float32)
    is_bounded = np.isfinite(layout.widths)
    inside = np.where(is_bounded, low, 0.0) + uniforms * np.where(is_bounded, high - low, 1.0)
    return np.clip(np.where(is_bounded, inside, _normal(uniforms)), low, high).astype(np.float32)


def _normal(uniforms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return standard normal numbers by inverting the distribution function; 0 would be minus infinity."""
    from scipy.special import ndtri

    return ndtri(np.maximum(uniforms, np.finfo(np.float64).tiny))
