"""From a discrete policy's scores to actions: greedy, sampled, and ε-random in between."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rldistill.types import OutputKind

Behaviour = Literal["greedy", "sample"]

# Every decision that may draw anything draws this many uniforms, whatever becomes of them, so
# that an episode's generator can be wound forward to step t without playing it.
DRAWS_PER_DECISION = 3


def choose_actions(
    scores: NDArray[np.float32],
    kind: OutputKind,
    behaviour: Behaviour,
    *,
    rng: np.random.Generator | Sequence[np.random.Generator] | None = None,
    exploration_epsilon: float = 0.0,
) -> NDArray[np.int64]:
    """Choose one action per row.

    Args:
        scores: `[B, A]`, Q-values or logits.
        kind: which of the two.
        behaviour: `greedy` takes the best; `sample` draws from softmax(logits), or from
            softmax(q_values) at temperature 1.
        rng: one generator for all rows, or one per row; may be None only where nothing is drawn.
        exploration_epsilon: chance of a uniformly random action instead, in [0, 1].

    Returns:
        `[B]`, int64.

    Raises:
        ValueError: something must be drawn and there is no generator, or not one per row.
    """
    num_rows, num_actions = scores.shape
    greedy = scores.argmax(axis=1).astype(np.int64)
    if behaviour == "greedy" and exploration_epsilon == 0:
        return greedy
    if rng is None:
        raise ValueError(
            f"acting with behaviour {behaviour!r} of {kind} and ε {exploration_epsilon} draws random numbers: pass rng."
        )
    rows = [rng] * num_rows if isinstance(rng, np.random.Generator) else rng
    if len(rows) != num_rows:
        raise ValueError(f"rng must be one generator or one per row: got {len(rows)} for {num_rows} rows.")
    draws = np.stack([row.random(DRAWS_PER_DECISION) for row in rows])
    chosen = greedy if behaviour == "greedy" else _sample(scores, draws[:, 2])
    uniform = np.minimum((draws[:, 1] * num_actions).astype(np.int64), num_actions - 1)
    return np.where(draws[:, 0] < exploration_epsilon, uniform, chosen)


def _sample(scores: NDArray[np.float32], uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
    """Draw from softmax(scores) by inverting the distribution function."""
    shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
    cumulative = np.exp(shifted).cumsum(axis=1)
    index = (cumulative <= uniforms[:, None] * cumulative[:, -1:]).sum(axis=1)
    return np.minimum(index, scores.shape[1] - 1).astype(np.int64)
