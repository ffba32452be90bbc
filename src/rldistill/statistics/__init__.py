"""What scores of episodes say, and how surely: aggregates, bootstrap intervals, agreement."""

from rldistill.statistics.aggregate import (
    FloatArray,
    Statistic,
    geometric_mean,
    iqm,
    mean,
    median,
    normalised_score,
    point_estimate,
    relative_score,
    retention,
    standard_error,
)
from rldistill.statistics.agreement import action_gap, agreement, greedy_choices, majority_share
from rldistill.statistics.bootstrap import (
    Interval,
    Role,
    bootstrap_interval,
    lower_bound,
    relative_score_samples,
    retention_samples,
    sample_interval,
)
from rldistill.statistics.reference_scores import REFERENCE_SCORES, ReferenceScores
from rldistill.statistics.stratified import Stratum, geometric_mean_samples, mean_retention_samples

__all__ = [
    "REFERENCE_SCORES",
    "FloatArray",
    "Interval",
    "ReferenceScores",
    "Role",
    "Statistic",
    "Stratum",
    "action_gap",
    "agreement",
    "bootstrap_interval",
    "geometric_mean",
    "geometric_mean_samples",
    "greedy_choices",
    "iqm",
    "lower_bound",
    "majority_share",
    "mean",
    "mean_retention_samples",
    "median",
    "normalised_score",
    "point_estimate",
    "relative_score",
    "relative_score_samples",
    "retention",
    "retention_samples",
    "sample_interval",
    "standard_error",
]
