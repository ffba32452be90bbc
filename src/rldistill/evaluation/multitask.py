"""What an evaluation on several tasks found: each task's evaluation, and each student over all of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rldistill.evaluation.records import Evaluation, PolicyEvaluation
from rldistill.seeding import stream_generator
from rldistill.statistics import (
    Interval,
    Role,
    Stratum,
    geometric_mean,
    geometric_mean_samples,
    lower_bound,
    mean_retention_samples,
    point_estimate,
    sample_interval,
)


@dataclass(frozen=True)
class PolicyAggregate:
    """One student over all tasks; `to_dict` gives the documented JSON.

    Attributes:
        name: for tables.
        policy_hash: identity.
        num_tasks: that it played.
        geometric_mean: of its relative scores; None unless every task has one, and it is positive.
        geometric_mean_interval: 95 %, by the stratified bootstrap.
        num_relative_scores: tasks with a relative score that is positive.
        mean_retention: over the tasks; None unless every task has one.
        mean_retention_interval: 95 %, two-sided, by the stratified bootstrap.
        mean_retention_lower_bound: 95 %, one-sided: what `--require-retention` asks for.
        num_retentions: tasks with a retention.
    """

    name: str
    policy_hash: str
    num_tasks: int
    geometric_mean: float | None
    geometric_mean_interval: Interval | None
    num_relative_scores: int
    mean_retention: float | None
    mean_retention_interval: Interval | None
    mean_retention_lower_bound: float | None
    num_retentions: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        ratios, shares = self.geometric_mean_interval, self.mean_retention_interval
        return {
            "name": self.name,
            "policy_hash": self.policy_hash,
            "num_tasks": self.num_tasks,
            "geometric_mean": self.geometric_mean,
            "geometric_mean_interval": None if ratios is None else ratios.to_list(),
            "num_relative_scores": self.num_relative_scores,
            "mean_retention": self.mean_retention,
            "mean_retention_interval": None if shares is None else shares.to_list(),
            "mean_retention_lower_bound": self.mean_retention_lower_bound,
            "num_retentions": self.num_retentions,
        }


@dataclass(frozen=True)
class MultiTaskEvaluation:
    """Several policies on the same episodes of each of several tasks; `print` shows the tables.

    Attributes:
        seed: of the episodes and of the bootstrap.
        tasks: by name, in the order they were played; each is what an evaluation of it alone gives.
        policies: the students over all tasks. A policy that is the teacher of one task is none.
    """

    seed: int
    tasks: Mapping[str, Evaluation]
    policies: tuple[PolicyAggregate, ...]

    def __repr__(self) -> str:
        """Return the tasks in a line."""
        return f"<Evaluation of {len(self.tasks)} tasks, seed {self.seed}: {', '.join(self.tasks)}>"

    def __str__(self) -> str:
        """Return the tables that `rldistill evaluate` prints."""
        from rldistill.evaluation.table import evaluation_table  # it needs the records defined here

        return evaluation_table(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON."""
        return {
            "schema_version": 1,
            "seed": self.seed,
            "tasks": {name: evaluation.to_dict() for name, evaluation in self.tasks.items()},
            "policies": [policy.to_dict() for policy in self.policies],
        }


def combine(evaluations: Sequence[Evaluation], *, seed: int) -> MultiTaskEvaluation:
    """Put the evaluations of the same policies on several tasks together.

    Args:
        evaluations: one per task.
        seed: of the bootstrap.
    """
    return MultiTaskEvaluation(
        seed,
        {evaluation.task.name: evaluation for evaluation in evaluations},
        tuple(_aggregate(rows, evaluations, seed) for rows in _students(evaluations)),
    )


def _students(evaluations: Sequence[Evaluation]) -> list[tuple[PolicyEvaluation, ...]]:
    """Return the rows of each policy that is a student everywhere, one row per task."""
    # One policy may be named twice, so its hash alone does not tell its rows apart.
    tables: list[dict[tuple[str, int], PolicyEvaluation]] = []
    for evaluation in evaluations:
        hashes = [row.policy_hash for row in evaluation.students]
        keys = [(own, hashes[:index].count(own)) for index, own in enumerate(hashes)]
        tables.append(dict(zip(keys, evaluation.students, strict=True)))
    return [tuple(table[key] for table in tables) for key in tables[0] if all(key in table for table in tables)]


def _aggregate(rows: Sequence[PolicyEvaluation], evaluations: Sequence[Evaluation], seed: int) -> PolicyAggregate:
    # Leaving out the tasks where a number means nothing would flatter: they are counted instead.
    ratios = [row.relative_score for row in rows if row.relative_score is not None and row.relative_score > 0]
    shares = [row.retention for row in rows if row.retention is not None]
    strata = _strata(rows, evaluations)
    has_all_ratios, has_all_shares = len(ratios) == len(rows), len(shares) == len(rows)
    ratio_samples = share_samples = None
    if has_all_ratios:
        ratio_samples = geometric_mean_samples(strata, rng=stream_generator(seed, "bootstrap geometric mean"))
    if has_all_shares:
        share_samples = mean_retention_samples(strata, rng=stream_generator(seed, "bootstrap mean retention"))
    bound = None if share_samples is None else lower_bound(share_samples)
    return PolicyAggregate(
        name=rows[0].name,
        policy_hash=rows[0].policy_hash,
        num_tasks=len(rows),
        geometric_mean=geometric_mean(ratios) if has_all_ratios else None,
        geometric_mean_interval=None if ratio_samples is None else sample_interval(ratio_samples),
        num_relative_scores=len(ratios),
        mean_retention=point_estimate(shares) if has_all_shares else None,
        mean_retention_interval=None if share_samples is None else sample_interval(share_samples),
        mean_retention_lower_bound=None if bound is None or not math.isfinite(bound) else bound,
        num_retentions=len(shares),
    )


def _strata(rows: Sequence[PolicyEvaluation], evaluations: Sequence[Evaluation]) -> list[Stratum]:
    """Return one stratum per task that has a teacher."""
    strata: list[Stratum] = []
    for row, evaluation in zip(rows, evaluations, strict=True):
        if evaluation.teacher is None:
            continue
        arms: dict[Role, PolicyEvaluation] = {
            "student": row,
            "teacher": evaluation.teacher,
            "random": evaluation.policies[-1],
        }
        fixed: list[Role] = [role for role, arm in arms.items() if arm.played.is_census]
        strata.append(Stratum(*(arm.played.scores for arm in arms.values()), fixed=fixed))
    return strata
