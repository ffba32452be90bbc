"""From scores of many episodes to one number.

`mean`, `median` and `iqm` reduce the last axis, so that one call serves a sample `[n]` and the bootstrap's many
resamples `[R, n]`. `point_estimate`, `relative_score`, `retention`, `geometric_mean` and `normalised_score` give plain
floats for people and JSON, None where no number is honest: never NaN.

Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical
Precipice" (interquartile mean); Mnih et al. 2015 (human-normalised scores).
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rldistill.errors import NumericalError
from rldistill.statistics.reference_scores import REFERENCE_SCORES

FloatArray = NDArray[np.float64]
Statistic = Callable[[FloatArray], FloatArray]
"""`[…, n]` → `[…]`, reducing the last axis."""


def mean(values: FloatArray) -> FloatArray:
    """Return the arithmetic mean over the last axis."""
    return np.asarray(values.mean(axis=-1))


def median(values: FloatArray) -> FloatArray:
    """Return the median over the last axis, the midpoint of the two middle values if n is even."""
    return np.asarray(np.median(values, axis=-1))


def iqm(values: FloatArray) -> FloatArray:
    """Return the interquartile mean over the last axis: the mean without ⌊n / 4⌋ values at either end.

    Less noisy than the median, less moved by outliers than the mean; equal to
    `scipy.stats.trim_mean(values, 0.25)`, which rliable uses.
    """
    size = values.shape[-1]
    cut = size // 4
    ordered = np.partition(values, (cut, size - cut - 1), axis=-1)
    return np.asarray(ordered[..., cut : size - cut].mean(axis=-1))


def as_sample(values: ArrayLike) -> FloatArray:
    """Return values as a float64 array `[n]`.

    Raises:
        ValueError: the values have more than one axis.
        NumericalError: one of them is NaN or infinite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1:
        raise ValueError(f"a sample must be [n], got shape {list(sample.shape)}.")
    is_wrong = ~np.isfinite(sample)
    if is_wrong.any():
        index = int(is_wrong.argmax())
        raise NumericalError(
            f"Statistics failed: got {sample[index]} as value {index} of {sample.size}, expected finite ones."
        )
    return sample


def point_estimate(values: ArrayLike, statistic: Statistic = mean) -> float | None:
    """Return a statistic of one sample `[n]` as a plain float, None if it is empty."""
    sample = as_sample(values)
    return float(statistic(sample)) if sample.size else None


def standard_error(values: ArrayLike) -> float | None:
    """Return the standard error of the mean of one sample `[n]`, None for fewer than two values."""
    sample = as_sample(values)
    return float(sample.std(ddof=1) / math.sqrt(sample.size)) if sample.size > 1 else None


def relative_score(student: ArrayLike, teacher: ArrayLike) -> float | None:
    """Return the student's mean score ÷ the teacher's, the paper's measure.

    None where a ratio means nothing: no episodes, or a teacher's mean of 0 or less (Pong has
    negative scores). `retention` then still may.
    """
    student_mean, teacher_mean = point_estimate(student), point_estimate(teacher)
    if student_mean is None or teacher_mean is None or teacher_mean <= 0:
        return None
    return _finite_or_none(student_mean / teacher_mean)


def retention(student: ArrayLike, teacher: ArrayLike, random: ArrayLike) -> float | None:
    """Return the share of the teacher's skill that the student kept, measured from random play.

    (student − random) ÷ (teacher − random), all means. None without episodes, and where the
    teacher is no better than random play: there is nothing to retain.
    """
    means = [point_estimate(values) for values in (student, teacher, random)]
    student_mean, teacher_mean, random_mean = means
    if student_mean is None or teacher_mean is None or random_mean is None or teacher_mean <= random_mean:
        return None
    return _finite_or_none((student_mean - random_mean) / (teacher_mean - random_mean))


def geometric_mean(values: ArrayLike) -> float | None:
    """Return the geometric mean of ratios `[n]`, such as the relative scores of one student on n tasks.

    exp(mean(ln values)): half the teacher's score here and twice there make 1. None without values,
    and where one is 0 or less: a logarithm of it does not exist, and leaving it out would flatter.
    """
    ratios = as_sample(values)
    if not ratios.size or ratios.min() <= 0:
        return None
    return float(np.exp(np.log(ratios).mean()))


def normalised_score(score: float, game: str, *, of: Literal["human", "nature_dqn"] = "human") -> float | None:
    """Return a raw score on the scale from random play, 0, to a known player, 1.

    Args:
        score: raw game score, a mean or any other.
        game: ale-py's name, such as `ms_pacman`.
        of: the player: a human tester, or Nature DQN.

    Returns:
        (score − random) ÷ (player − random), None for a game without reference scores.
    """
    reference = REFERENCE_SCORES.get(game)
    if reference is None:
        return None
    player = reference.human if of == "human" else reference.nature_dqn
    return _finite_or_none((score - reference.random) / (player - reference.random))


def is_weak(score: float, game: str) -> bool:
    """Return whether a teacher of one of the paper's games has less than half of Nature DQN's skill."""
    share = normalised_score(score, game, of="nature_dqn")
    return share is not None and share < 0.5


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
