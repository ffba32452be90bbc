"""How surely one student keeps the skill of many teachers: the stratified bootstrap.

Every task is a stratum, and so is every role in it: student, teacher and random play of each
task are resampled among their own episodes, never across. A sample of the aggregate is the
aggregate of one resample of everything. Samples of −∞ mean "undefined", as in `bootstrap`: one
task where a resample has no ratio makes that sample of the aggregate undefined.

The tasks themselves are not resampled: the numbers speak of these tasks and no others.

Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical
Precipice", section 4.1 (stratified bootstrap intervals; there runs are resampled, here episodes).
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rldistill.statistics.aggregate import FloatArray
from rldistill.statistics.bootstrap import Role, relative_score_samples, retention_samples


@dataclass(frozen=True)
class Stratum:
    """One task's episode returns; the three lengths may differ.

    Attributes:
        student: `[n]`.
        teacher: `[n]`.
        random: `[n]`, of random play.
        fixed: which of them are known exactly, such as a census; they enter with their mean.
    """

    student: ArrayLike
    teacher: ArrayLike
    random: ArrayLike
    fixed: Collection[Role] = ()


def mean_retention_samples(
    strata: Sequence[Stratum], *, rng: np.random.Generator, num_resamples: int = 10_000
) -> FloatArray | None:
    """Return bootstrap samples of the mean over tasks of retention.

    With one task these are its `retention_samples`.

    Args:
        strata: one per task, K ≥ 1, resampled one after the other from the same generator.
        rng: source of the resamples.
        num_resamples: R ≥ 1.

    Returns:
        `[R]`, finite or −∞; None if one task has no samples, or there is no task.

    Raises:
        ValueError: more than one axis, an unknown role in `fixed`, or a number out of range.
        NumericalError: a value is NaN or infinite.
    """
    shares = _stacked(
        retention_samples(s.student, s.teacher, s.random, rng=rng, num_resamples=num_resamples, fixed=s.fixed)
        for s in strata
    )
    if shares is None:
        return None
    # Divided first: the sum of two ratios near the largest number would overflow, and +∞ − ∞ is NaN.
    return (shares / len(shares)).sum(axis=0)


def geometric_mean_samples(
    strata: Sequence[Stratum], *, rng: np.random.Generator, num_resamples: int = 10_000
) -> FloatArray | None:
    """Return bootstrap samples of the geometric mean over tasks of student ÷ teacher.

    Undefined, and thus −∞, where in any task the resampled teacher's mean or the student's is 0 or less.
    With one task these are its `relative_score_samples`, where positive.

    Args:
        strata: one per task, K ≥ 1, resampled one after the other from the same generator.
        rng: source of the resamples.
        num_resamples: R ≥ 1.

    Returns:
        `[R]`, positive or −∞; None if one task has no samples, or there is no task.

    Raises:
        ValueError: more than one axis, an unknown role in `fixed`, or a number out of range.
        NumericalError: a value is NaN or infinite.
    """
    ratios = _stacked(
        relative_score_samples(s.student, s.teacher, rng=rng, num_resamples=num_resamples, fixed=s.fixed)
        for s in strata
    )
    if ratios is None:
        return None
    is_defined = (ratios > 0).all(axis=0)
    means = np.full(num_resamples, -np.inf)
    means[is_defined] = np.exp(np.log(ratios[:, is_defined]).mean(axis=0))
    return means


def _stacked(samples: Iterable[FloatArray | None]) -> FloatArray | None:
    """Return `[K, R]`; None where a task has no samples."""
    rows: list[FloatArray] = []
    for of_task in samples:
        if of_task is None:
            return None
        rows.append(of_task)
    return np.stack(rows) if rows else None
