"""How far a number may be off: percentile bootstrap intervals.

Episodes are the unit that is resampled. Every function draws from the generator it is given:
the same seed, the same interval. Resampling goes in blocks of bounded memory.

Source: Efron 1979, "Bootstrap Methods: Another Look at the Jackknife" (percentile intervals).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rldistill.statistics.aggregate import FloatArray, Statistic, as_sample

MIN_VALUES = 5
"""Below this a bootstrap's spread says more about luck than about the policy."""
FEW_VALUES = 30
"""Fewer of them may all be of one kind, and then seem surer than they are."""

_TAILS = (0.025, 0.975)
# 8 MiB of resampled values at a time, and as much for their indices. Part of what a seed
# means, so it is a constant and not a matter of the machine.
_BLOCK_VALUES = 2**20


@dataclass(frozen=True)
class Interval:
    """A two-sided interval."""

    low: float  # lower end, finite
    high: float  # upper end, finite
    degenerate: bool = False  # the data showed no spread; the interval then says nothing about precision

    def __post_init__(self) -> None:
        if not -np.inf < self.low <= self.high < np.inf:
            raise ValueError(f"an interval needs finite low <= high, got low {self.low}, high {self.high}.")

    def to_list(self) -> list[float]:
        """Return `[low, high]` for JSON."""
        return [self.low, self.high]


def bootstrap_interval(
    values: ArrayLike,
    statistic: Statistic,
    *,
    rng: np.random.Generator,
    num_resamples: int = 10_000,
) -> Interval | None:
    """Return the 95 % percentile bootstrap interval of a statistic.

    Args:
        values: `[n]`, one independent value each, such as episode returns. Copies of one
            deterministic episode are not: play each distinct start once and give no interval.
        statistic: reduces the last axis of `[R, n]`, such as `iqm`.
        rng: source of the resamples.
        num_resamples: ≥ 1.

    Returns:
        None for fewer than 5 values; both ends equal and `degenerate` for constant ones.

    Raises:
        ValueError: more than one axis, or a number out of range.
        NumericalError: a value is NaN or infinite.
    """
    sample = as_sample(values)
    if sample.size < MIN_VALUES:
        return None
    if sample.min() == sample.max():
        point = float(statistic(sample))
        return Interval(point, point, degenerate=True)
    (samples,) = resample(sample[None], statistic, rng, num_resamples)
    low, high = np.quantile(samples, _TAILS)
    return Interval(float(low), float(high), degenerate=bool(low == high))


def lower_bound(samples: FloatArray, confidence: float = 0.95) -> float:
    """Return the one-sided lower confidence bound of bootstrap samples.

    Args:
        samples: `[R]`, such as those of `ratios.retention_samples`; −∞ marks failures.
        confidence: share of repetitions whose bound is to lie below the true value, in (0, 1).

    Returns:
        A sample that at most a share 1 − confidence of the others lies below: never more than an interpolated quantile,
        and −∞ when the share of failures is larger than that. −∞ is below any threshold; it is not JSON.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}.")
    # Interpolation between −∞ and a number would give NaN; taking the lower sample is cautious too.
    return float(np.quantile(samples, 1 - confidence, method="lower"))


def sample_interval(samples: FloatArray | None) -> Interval | None:
    """Return the two-sided 95 % percentile interval of bootstrap samples.

    Samples of −∞ mean "undefined", and the interval must hold whatever they would have been:
    they count as −∞ for the lower end and as +∞ for the upper.

    Args:
        samples: `[R]`, such as those of `ratios.retention_samples`; None: there were too few values.

    Returns:
        None without samples, and when failures reach beyond either tail: the data set no bound.
    """
    if samples is None:
        return None
    low = float(np.quantile(samples, _TAILS[0], method="lower"))
    high = float(np.quantile(np.where(np.isneginf(samples), np.inf, samples), _TAILS[1], method="higher"))
    if np.isinf(low) or np.isinf(high):
        return None
    return Interval(low, high, degenerate=low == high)


def resample(values: FloatArray, statistic: Statistic, rng: np.random.Generator, num_resamples: int) -> FloatArray:
    """Return a statistic of resamples of paired values `[K, n]`, drawn with replacement, `[K, R]`.

    Entry i of all K goes into a resample together.
    """
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be >= 1, got {num_resamples}.")
    num_rows, size = values.shape
    statistics = np.empty((num_rows, num_resamples))
    block = max(1, _BLOCK_VALUES // size)
    for start in range(0, num_resamples, block):
        stop = min(start + block, num_resamples)
        indices = rng.integers(size, size=(stop - start, size))
        for row in range(num_rows):
            statistics[row, start:stop] = statistic(values[row, indices])
    return statistics
