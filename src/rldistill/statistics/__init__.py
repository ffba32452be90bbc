"""What scores of episodes say, and how surely: aggregates, bootstrap intervals, agreement."""

from rldistill.statistics.aggregate import (
    FloatArray,
    Statistic,
    iqm,
    mean,
    median,
    normalised_score,
    point_estimate,
    relative_score,
    retention,
)
from rldistill.statistics.agreement import agreement, majority_share
from rldistill.statistics.bootstrap import (
    Interval,
    Role,
    bootstrap_interval,
    lower_bound,
    retention_samples,
    sample_interval,
)
from rldistill.statistics.reference_scores import REFERENCE_SCORES, ReferenceScores

__all__ = [
    "REFERENCE_SCORES",
    "FloatArray",
    "Interval",
    "ReferenceScores",
    "Role",
    "Statistic",
    "agreement",
    "bootstrap_interval",
    "iqm",
    "lower_bound",
    "majority_share",
    "mean",
    "median",
    "normalised_score",
    "point_estimate",
    "relative_score",
    "retention",
    "retention_samples",
    "sample_interval",
]
