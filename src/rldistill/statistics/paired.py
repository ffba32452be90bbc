"""Retention of policies that met the same episodes: what an episode is worth to all of them cancels out."""

import numpy as np
from numpy.typing import ArrayLike

from rldistill.statistics.aggregate import FloatArray, as_sample
from rldistill.statistics.bootstrap import MIN_VALUES

# As many resampled values at a time as `bootstrap` takes; part of what a seed means.
_BLOCK_VALUES = 2**20


def paired_retention_samples(
    student: ArrayLike, teacher: ArrayLike, random: ArrayLike, *, rng: np.random.Generator, num_resamples: int = 10_000
) -> FloatArray | None:
    """Return bootstrap samples of retention, (student − random) ÷ (teacher − random), with episodes drawn together.

    Episode i of the three policies began in the same state with the same generator. Resampling whole episodes keeps
    what they share, and intervals are narrower than those of `retention_samples` by what they share.

    Args:
        student: `[n]`, episode returns.
        teacher: `[n]`, on the same episodes.
        random: `[n]`, on the same episodes.
        rng: source of the resamples.
        num_resamples: R ≥ 1.

    Returns:
        `[R]`, −∞ where a resampled teacher is no better than random play; None for fewer than 5 episodes.

    Raises:
        ValueError: the three have not the same number of episodes.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 8.3 (paired data).
    """
    arms = np.stack([as_sample(values) for values in (student, teacher, random)])
    size = arms.shape[1]
    if size < MIN_VALUES:
        return None
    samples = np.empty(num_resamples)
    block = max(1, _BLOCK_VALUES // size)
    for start in range(0, num_resamples, block):
        stop = min(start + block, num_resamples)
        drawn = rng.integers(size, size=(stop - start, size))
        students, teachers, randoms = arms[:, drawn].mean(axis=2)
        skill = teachers - randoms
        kept = np.full(stop - start, -np.inf)
        with np.errstate(over="ignore"):
            np.divide(students - randoms, skill, out=kept, where=skill > 0)
        kept[np.isposinf(kept)] = -np.inf  # a skill too small to divide by is none
        samples[start:stop] = kept
    return samples
