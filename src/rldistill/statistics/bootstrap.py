"""How far a number may be off: percentile bootstrap intervals.

Episodes are the unit that is resampled. Every function draws from the generator it is given:
the same seed, the same interval. Resampling goes in blocks of bounded memory.

Source: Efron 1979, "Bootstrap Methods: Another Look at the Jackknife" (percentile intervals).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rldistill.statistics.aggregate import FloatArray, Statistic, as_sample, mean

Role = Literal["student", "teacher", "random"]

MIN_VALUES = 5
"""Below this a bootstrap's spread says more about luck than about the policy."""

# 8 MiB of resampled values at a time, and as much for their indices. Part of what a seed
# means, so it is a constant and not a matter of the machine.
_BLOCK_VALUES = 2**20


@dataclass(frozen=True)
class Interval:
    """A two-sided interval.

    Attributes:
        low: lower end, finite.
        high: upper end, finite.
        degenerate: the data showed no spread; the interval then says nothing about precision.
    """

    low: float
    high: float
    degenerate: bool = False

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
    confidence: float = 0.95,
) -> Interval | None:
    """Return the percentile bootstrap interval of a statistic.

    Args:
        values: `[n]`, one independent value each, such as episode returns. Copies of one
            deterministic episode are not: play each distinct start once and give no interval.
        statistic: reduces the last axis of `[R, n]`, such as `iqm`.
        rng: source of the resamples.
        num_resamples: ≥ 1.
        confidence: share of repetitions whose interval is to hold the true value, in (0, 1).

    Returns:
        None for fewer than 5 values; both ends equal and `degenerate` for constant ones.

    Raises:
        ValueError: more than one axis, or a number out of range.
        NumericalError: a value is NaN or infinite.
    """
    sample = as_sample(values)
    _check_settings(num_resamples, confidence)
    if sample.size < MIN_VALUES:
        return None
    if sample.min() == sample.max():
        point = float(statistic(sample))
        return Interval(point, point, degenerate=True)
    low, high = np.quantile(_resample(sample, statistic, rng, num_resamples), _tails(confidence))
    return Interval(float(low), float(high), degenerate=bool(low == high))


def retention_samples(
    student: ArrayLike,
    teacher: ArrayLike,
    random: ArrayLike,
    *,
    rng: np.random.Generator,
    num_resamples: int = 10_000,
    fixed: Collection[Role] = (),
) -> FloatArray | None:
    """Return bootstrap samples of retention, (student − random) ÷ (teacher − random) of means.

    The three sets of episodes are resampled independently. Where a resampled teacher is no better than random play the
    ratio means nothing, and its sign would even flatter a bad student; such samples are −∞, so that they count against
    every lower bound instead of dropping out. A random score too close to the teacher's thus shows as doubt.

    Args:
        student: `[n]`, episode returns; the three lengths may differ.
        teacher: `[n]`, episode returns.
        random: `[n]`, episode returns of random play.
        rng: source of the resamples.
        num_resamples: R ≥ 1.
        fixed: which of the three are known exactly, such as a census of all distinct starts or
            a published mean; they enter with their mean and are not resampled.

    Returns:
        `[R]`, finite or −∞; None if an array that is to be resampled has fewer than 5 values, or any has none.

    Raises:
        ValueError: more than one axis, an unknown role in `fixed`, or a number out of range.
        NumericalError: a value is NaN or infinite.
    """
    means = _resampled_means({"student": student, "teacher": teacher, "random": random}, fixed, rng, num_resamples)
    if means is None:
        return None
    return _ratios(means["student"] - means["random"], means["teacher"] - means["random"])


def relative_score_samples(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    rng: np.random.Generator,
    num_resamples: int = 10_000,
    fixed: Collection[Role] = (),
) -> FloatArray | None:
    """Return bootstrap samples of the relative score, student ÷ teacher of means.

    Where a resampled teacher's mean is 0 or less, the ratio means nothing: such samples are −∞. Arguments, result and
    errors are those of `retention_samples`, without random play.
    """
    means = _resampled_means({"student": student, "teacher": teacher}, fixed, rng, num_resamples)
    return None if means is None else _ratios(means["student"], means["teacher"])


def lower_bound(samples: FloatArray, confidence: float = 0.95) -> float:
    """Return the one-sided lower confidence bound of bootstrap samples.

    Args:
        samples: `[R]`, such as those of `retention_samples`; −∞ marks failures.
        confidence: share of repetitions whose bound is to lie below the true value, in (0, 1).

    Returns:
        A sample that at most a share 1 − confidence of the others lies below: never more than an interpolated quantile,
        and −∞ when the share of failures is larger than that. −∞ is below any threshold; it is not JSON.
    """
    _check_settings(len(samples), confidence)
    # Interpolation between −∞ and a number would give NaN; taking the lower sample is cautious too.
    return float(np.quantile(samples, 1 - confidence, method="lower"))


def sample_interval(samples: FloatArray, confidence: float = 0.95) -> Interval | None:
    """Return the two-sided percentile interval of bootstrap samples.

    Samples of −∞ mean "undefined", and the interval must hold whatever they would have been:
    they count as −∞ for the lower end and as +∞ for the upper.

    Args:
        samples: `[R]`, such as those of `retention_samples`.
        confidence: share of repetitions whose interval is to hold the true value, in (0, 1).

    Returns:
        None when failures reach beyond either tail: the data set no bound.
    """
    _check_settings(len(samples), confidence)
    low_tail, high_tail = _tails(confidence)
    low = float(np.quantile(samples, low_tail, method="lower"))
    high = float(np.quantile(np.where(np.isneginf(samples), np.inf, samples), high_tail, method="higher"))
    if np.isinf(low) or np.isinf(high):
        return None
    return Interval(low, high, degenerate=low == high)


def _resampled_means(
    arms: Mapping[str, ArrayLike], fixed: Collection[Role], rng: np.random.Generator, num_resamples: int
) -> dict[str, FloatArray] | None:
    """Return `[R]` means for each role, drawn in the order of the roles; None where there are too few values."""
    if unknown := set(fixed) - {"student", "teacher", "random"}:
        raise ValueError(f"fixed must name student, teacher or random, got {sorted(unknown)}.")
    _check_settings(num_resamples)
    samples = {role: as_sample(values) for role, values in arms.items()}
    if any(sample.size < (1 if role in fixed else MIN_VALUES) for role, sample in samples.items()):
        return None
    return {
        role: np.full(num_resamples, sample.mean()) if role in fixed else _resample(sample, mean, rng, num_resamples)
        for role, sample in samples.items()
    }


def _ratios(numerators: FloatArray, denominators: FloatArray) -> FloatArray:
    """Return `[R]` quotients, −∞ where the denominator is not positive, or so small that the quotient overflows."""
    samples = np.full(len(numerators), -np.inf)
    with np.errstate(over="ignore"):
        np.divide(numerators, denominators, out=samples, where=denominators > 0)
    samples[np.isposinf(samples)] = -np.inf
    return samples


def _resample(sample: FloatArray, statistic: Statistic, rng: np.random.Generator, num_resamples: int) -> FloatArray:
    """Return the statistic of resamples drawn with replacement, `[R]`."""
    statistics = np.empty(num_resamples)
    block = max(1, _BLOCK_VALUES // sample.size)
    for start in range(0, num_resamples, block):
        stop = min(start + block, num_resamples)
        indices = rng.integers(sample.size, size=(stop - start, sample.size))
        statistics[start:stop] = statistic(sample[indices])
    return statistics


def _tails(confidence: float) -> tuple[float, float]:
    return (1 - confidence) / 2, (1 + confidence) / 2


def _check_settings(num_resamples: int, confidence: float = 0.5) -> None:
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be >= 1, got {num_resamples}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}.")
