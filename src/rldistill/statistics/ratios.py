"""How surely a student keeps its teacher's skill, on one task or on many: bootstrap samples of ratios of means.

What is known is used. Policies of a task meet the same episodes: what makes an episode easy makes it easy for all, and
cancels out of a ratio whose episodes are drawn together. What is known exactly, such as a census, is not resampled.
Tasks are strata: the episodes of each are resampled among themselves, and the tasks are not resampled at all: the
numbers speak of these tasks and no others.

Where a resampled denominator is not positive the ratio means nothing, and its sign would even flatter a bad student.
Such samples are −∞, so that they count against every lower bound instead of dropping out.

Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 8.3 (paired data); Agarwal et al. 2021,
"Deep Reinforcement Learning at the Edge of the Statistical Precipice", section 4.1 (stratified bootstrap intervals;
there runs are resampled, here episodes).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rldistill.statistics.aggregate import FloatArray, as_sample, mean
from rldistill.statistics.bootstrap import MIN_VALUES, Interval, resample, sample_interval

Role = Literal["student", "teacher", "random"]
ROLES: tuple[Role, ...] = ("student", "teacher", "random")


@dataclass(frozen=True)
class Stratum:
    """One task's episode returns."""

    student: ArrayLike  # `[n]`
    teacher: ArrayLike  # `[n]`; the three lengths may differ unless they are drawn together
    random: ArrayLike  # `[n]`, of random play
    fixed: Collection[Role] = ()  # which of them are known exactly, such as a census; they enter with their mean
    # which of them met the same episodes, in the same order; the others are resampled by themselves
    together: Collection[Role] = ()
    # blocks of equal length in each, such as the episodes of several training seeds: each is resampled by itself, and
    # their means are averaged
    num_blocks: int = 1

    def __post_init__(self) -> None:
        for name, roles in (("fixed", self.fixed), ("together", self.together)):
            if unknown := set(roles) - set(ROLES):
                raise ValueError(f"{name} must name student, teacher or random, got {sorted(unknown)}.")
        sizes = [np.size(getattr(self, role)) for role in ROLES if role not in self.fixed]
        if self.num_blocks < 1 or any(size % self.num_blocks for size in sizes):
            raise ValueError(f"num_blocks must divide the numbers of values, got {self.num_blocks} for {sizes}.")


def retention_samples(stratum: Stratum, *, rng: np.random.Generator, num_resamples: int = 10_000) -> FloatArray | None:
    """Return bootstrap samples of retention, (student − random) ÷ (teacher − random) of means.

    Args:
        stratum: episodes of one task.
        rng: source of the resamples.
        num_resamples: R ≥ 1.

    Returns:
        `[R]`, finite or −∞; None if a block that is to be resampled has fewer than 5 values, or any role has none.

    Raises:
        ValueError: more than one axis, unequal lengths of what is drawn together, or a number out of range.
        NumericalError: a value is NaN or infinite.
    """
    means = _resampled_means(stratum, ROLES, rng, num_resamples)
    if means is None:
        return None
    student, teacher, random = means
    return _ratios(student - random, teacher - random)


def relative_score_samples(
    stratum: Stratum, *, rng: np.random.Generator, num_resamples: int = 10_000
) -> FloatArray | None:
    """Return bootstrap samples of the relative score, student ÷ teacher of means; else as `retention_samples`."""
    means = _resampled_means(stratum, ROLES[:2], rng, num_resamples)
    return None if means is None else _ratios(*means)


def mean_retention_samples(
    strata: Sequence[Stratum], *, rng: np.random.Generator, num_resamples: int = 10_000
) -> FloatArray | None:
    """Return bootstrap samples of the mean over tasks of retention; of one task these are its `retention_samples`.

    Args:
        strata: one per task, resampled one after the other from the same generator.
        rng: source of the resamples.
        num_resamples: R ≥ 1.

    Returns:
        `[R]`, finite or −∞; None if one task has no samples, or there is no task.
    """
    shares = _of_each(retention_samples, strata, rng, num_resamples)
    # Divided first: the sum of two ratios near the largest number would overflow, and +∞ − ∞ is NaN.
    return None if shares is None else (shares / len(shares)).sum(axis=0)


def geometric_mean_samples(
    strata: Sequence[Stratum], *, rng: np.random.Generator, num_resamples: int = 10_000
) -> FloatArray | None:
    """Return bootstrap samples of the geometric mean over tasks of student ÷ teacher; as `mean_retention_samples`.

    Undefined, and thus −∞, where in any task the resampled teacher's mean or the student's is 0 or less.
    """
    ratios = _of_each(relative_score_samples, strata, rng, num_resamples)
    if ratios is None:
        return None
    is_defined = (ratios > 0).all(axis=0)
    means = np.full(num_resamples, -np.inf)
    means[is_defined] = np.exp(np.log(ratios[:, is_defined]).mean(axis=0))
    return means


def share_interval(totals: ArrayLike, counts: ArrayLike, *, rng: np.random.Generator) -> Interval | None:
    """Return the 95 % interval of Σ totals ÷ Σ counts, with episodes as the unit.

    The states of one episode are alike: as if each were drawn by itself, an interval would be far too narrow.

    Args:
        totals: `[n]`, of each episode, such as states of equal choice.
        counts: `[n]`, positive, such as states that were asked about.
        rng: source of the resamples.

    Returns:
        None for fewer than 5 episodes.
    """
    return sample_interval(relative_score_samples(Stratum(totals, counts, [], together=ROLES[:2]), rng=rng))


def _resampled_means(
    stratum: Stratum, roles: Sequence[Role], rng: np.random.Generator, num_resamples: int
) -> list[FloatArray] | None:
    """Return `[R]` means for each role; None where there are too few values."""
    samples = {role: as_sample(getattr(stratum, role)) for role in roles}
    fewest = MIN_VALUES * stratum.num_blocks
    if any(sample.size < (1 if role in stratum.fixed else fewest) for role, sample in samples.items()):
        return None
    means = {role: np.full(num_resamples, samples[role].mean()) for role in roles if role in stratum.fixed}
    for role in roles:
        if role not in means:
            drawn = [other for other in roles if other in stratum.together and other not in stratum.fixed]
            group = drawn if role in drawn else [role]
            sizes = {other: samples[other].size for other in group}
            if len(set(sizes.values())) > 1:
                raise ValueError(f"what is drawn together must have the same episodes, got {sizes}.")
            values = np.stack([samples[other] for other in group])
            blocks = np.split(values, stratum.num_blocks, axis=1)
            resampled = np.mean([resample(block, mean, rng, num_resamples) for block in blocks], axis=0)
            means.update(zip(group, resampled, strict=True))
    return [means[role] for role in roles]


def _ratios(numerators: FloatArray, denominators: FloatArray) -> FloatArray:
    """Return `[R]` quotients, −∞ where the denominator is not positive, or so small that the quotient overflows."""
    samples = np.full(len(numerators), -np.inf)
    with np.errstate(over="ignore"):
        np.divide(numerators, denominators, out=samples, where=denominators > 0)
    samples[np.isposinf(samples)] = -np.inf
    return samples


def _of_each(
    samples_of: Callable[..., FloatArray | None], strata: Sequence[Stratum], rng: np.random.Generator, num: int
) -> FloatArray | None:
    """Return the samples of every task, `[K, R]`; None where a task has none, or there is no task."""
    rows = [samples_of(stratum, rng=rng, num_resamples=num) for stratum in strata]
    found = [row for row in rows if row is not None]
    return np.stack(found) if found and len(found) == len(rows) else None
