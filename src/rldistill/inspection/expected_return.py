"""What a policy is said to score, and how far from it a mean may lie.

Two means agree where they are at most as far apart as three combined standard errors allow. Few episodes estimate their
own standard error badly, hence Student's t instead of the normal distribution, with Welch's degrees of freedom. A
recorded mean without a standard error is taken to be as uncertain as the one that is compared with it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from scipy.special import ndtr, stdtrit

from rldistill.inspection.mistakes import source_of
from rldistill.policies import Policy

ALLOWED_STANDARD_ERRORS = 3.0
"""How many combined standard errors two means of many episodes may lie apart; those of few, as far as is as rare."""
# The most that a whole number is taken to be rounded by, of its size: nobody knows how many of its digits were written.
_LARGEST_ROUNDING = 0.005
# Degrees of freedom from which on Student's t is the normal distribution.
_MANY = 1e9


@dataclass(frozen=True)
class ExpectedReturn:
    """What a policy is said to score."""

    mean: float  # in points
    # Of the mean; None where it is not known: it is taken to be that of what is compared with it.
    standard_error: float | None
    source: str  # who says it
    num_episodes: int | None = None  # over which mean and standard error were taken; None where that is not known

    @property
    def rounding(self) -> float:
        """Half a unit in the last digit that was given: published figures are rounded."""
        exponent = int(Decimal(repr(self.mean)).normalize().as_tuple().exponent)
        return 0.5 * 10.0**exponent if exponent < 0 else min(0.5, _LARGEST_ROUNDING * abs(self.mean))

    def agrees_with(self, mean: float, error: float, num_episodes: int | None = None) -> bool:
        """Return whether a mean with its standard error is this return, as far as both are known."""
        return abs(mean - self.mean) <= self.allowed(error, num_episodes)

    def allowed(self, error: float, num_episodes: int | None = None) -> float:
        """Return how many points a mean of so many episodes (None: very many) with a standard error may lie apart."""
        own_episodes = num_episodes if self.standard_error is None else self.num_episodes
        own = error if self.standard_error is None else self.standard_error
        rare = ndtr(-ALLOWED_STANDARD_ERRORS)
        quantile = -float(stdtrit(_degrees_of_freedom((error, num_episodes), (own, own_episodes)), rare))
        return quantile * self.combined(error) + self.rounding

    def combined(self, error: float) -> float:
        """Return the standard error of the difference to a mean that has the standard error `error`."""
        return math.hypot(error, error if self.standard_error is None else self.standard_error)


def recorded_return(policy: Policy) -> ExpectedReturn | None:
    """Return what was recorded with a policy's file; a stranger's may say anything in its place."""
    record = source_of(policy).get("recorded_return")
    if not isinstance(record, Mapping):
        return None
    values: dict[str, Any] = dict(record)
    mean, deviation, episodes = (values.get(key) for key in ("mean", "standard_deviation", "episodes"))
    if not isinstance(mean, int | float) or not math.isfinite(mean):
        return None
    count = f", {episodes} episodes" if isinstance(episodes, int) else ""
    source = f"{values.get('file')}, {values.get('chosen')}{count}"
    if not (isinstance(deviation, int | float) and isinstance(episodes, int) and episodes > 1):
        return ExpectedReturn(float(mean), None, source)
    # The deviation of the file is that of these episodes, not an estimate for all: hence the − 1.
    return ExpectedReturn(float(mean), float(deviation) / math.sqrt(episodes - 1), source, episodes)


def _degrees_of_freedom(*means: tuple[float, int | None]) -> float:
    """Return Welch's degrees of freedom of a difference of means, each with its standard error and its episodes."""
    parts = [error**4 / (episodes - 1) for error, episodes in means if episodes is not None and episodes > 1]
    return sum(error**2 for error, _ in means) ** 2 / sum(parts) if any(parts) else _MANY
