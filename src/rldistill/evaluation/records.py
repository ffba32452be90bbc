"""What an evaluation found, as frozen records and as the documented JSON.

An evaluation of one task is that of several with one: a row for each policy and task, and each student over all tasks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rldistill import statistics
from rldistill.errors import UsageError
from rldistill.evaluation.parts import PartUse
from rldistill.evaluation.table import evaluation_table
from rldistill.networks import NetworkSize
from rldistill.rollout.evaluate import PlayedEpisodes
from rldistill.rollout.speed import DecisionSpeed
from rldistill.seeding import stream_generator
from rldistill.statistics import FloatArray, Interval, Role, Stratum
from rldistill.tasks import Task

# Attributes of an evaluation that are no plain data.
_RECORDS = frozenset({"task", "played", "size", "speed", "parts"})
_KEYS = (
    *("name", "role", "policy_hash", "behaviour", "exploration_epsilon", "episodes", "num_distinct", "census"),
    *("mean", "median", "iqm", "interval", "iqm_interval", "degenerate"),
    *("relative_score", "relative_score_interval", "retention", "retention_interval", "retention_lower_bound"),
    *("normalised_score", "agreement", "agreement_interval", "action_gap", "action_gap_interval"),
    *("network", "num_parameters", "num_bytes", "num_macs", "latency_seconds", "decisions_per_second"),
)


@dataclass(frozen=True)
class PolicyEvaluation:
    """One policy's episodes of one task and what follows from them; `to_dict` gives the documented JSON."""

    task: Task  # that was played, with the protocol
    name: str  # of its run folder or its file, else its own
    role: Role  # teacher, student or random
    policy_hash: str  # identity
    behaviour: str  # greedy or sample
    exploration_epsilon: float  # chance of a uniformly random action
    played: PlayedEpisodes  # the episodes
    mean: float  # of the episodes' returns
    interval: Interval | None  # 95 %, of the mean; None for a census and for fewer than 5 episodes
    iqm_interval: Interval | None  # 95 %, of the interquartile mean; None likewise
    relative_score: float | None = None  # mean ÷ teacher's mean, None where that is ≤ 0 or there is no teacher
    relative_score_interval: Interval | None = None  # 95 %
    retention: float | None = None  # (student − random) ÷ (teacher − random)
    retention_interval: Interval | None = None  # 95 %, two-sided
    retention_lower_bound: float | None = None  # 95 %, one-sided: what `--require-retention` asks for
    normalised_score: float | None = None  # 0 random play, 1 a human tester; for the paper's ten games
    agreement: float | None = None  # of choices: share of the teacher's states with the same greedy action
    # 95 %, of other episodes of the teacher; None for its census and fewer than 5 of them
    agreement_interval: Interval | None = None
    # of continuous actions: mean distance of the greedy ones on the teacher's states, in widths of the box
    action_gap: float | None = None
    action_gap_interval: Interval | None = None  # as that of agreement
    network: str | None = None  # what it computes with: `mlp:64x64`, a module's class, or a program's format
    size: NetworkSize | None = None  # of the network, where there is one
    speed: DecisionSpeed | None = None  # of decisions, where there is a network
    parts: tuple[PartUse, ...] = ()  # of a student that records which parts it sees: how it fares without each

    @property
    def standard_error(self) -> float:
        """Of the mean; 0 for a census, whose mean is known."""
        return 0.0 if self.played.is_census else statistics.standard_error(self.played.scores) or 0.0

    def __repr__(self) -> str:
        """Return the score, and what was kept, in a line."""
        kept = "" if self.retention is None else f", retention {self.retention:.3f}"
        who = self.name if self.name == self.role else f"{self.role} {self.name}"
        return f"<{who}: mean {self.mean:.4g} of {len(self.played.episodes)} episodes{kept}>"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data, its keys in the documented order."""
        played, size, speed = self.played, self.size, self.speed
        own = {name: _plain(value) for name, value in vars(self).items() if name not in _RECORDS}
        found = own | {
            "episodes": [episode.to_dict() for episode in played.episodes],
            "num_distinct": played.num_distinct,
            "census": played.is_census,
            "median": statistics.point_estimate(played.scores, statistics.median),
            "iqm": statistics.point_estimate(played.scores, statistics.iqm),
            "degenerate": self.interval is not None and self.interval.degenerate,
            "num_parameters": size.num_parameters if size else None,
            "num_bytes": size.num_bytes if size else None,
            "num_macs": size.num_macs if size else None,
            "latency_seconds": speed.latency_seconds if speed else None,
            "decisions_per_second": speed.decisions_per_second if speed else None,
        }
        parts = {"parts": [part.to_dict() for part in self.parts]} if self.parts else {}
        return {key: found[key] for key in _KEYS} | parts


@dataclass(frozen=True)
class StudentOverTasks:
    """One student over all tasks; `to_dict` gives the documented JSON."""

    name: str  # for tables
    policy_hash: str  # identity
    num_tasks: int  # that it played
    geometric_mean: float | None  # of its relative scores; None unless every task has one, and it is positive
    geometric_mean_interval: Interval | None  # 95 %, by the stratified bootstrap
    num_relative_scores: int  # tasks with a relative score that is positive
    mean_retention: float | None  # over the tasks; None unless every task has one
    mean_retention_interval: Interval | None  # 95 %, two-sided, by the stratified bootstrap
    mean_retention_lower_bound: float | None  # 95 %, one-sided: what `--require-retention` asks for
    num_retentions: int  # tasks with a retention

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data: the attributes, in their order."""
        return {name: _plain(value) for name, value in vars(self).items()}


@dataclass(frozen=True)
class Evaluation:
    """Policies on the same episodes of one task, or of each of several; `print` shows the tables."""

    seed: int  # of the episodes and of the bootstrap
    policies: tuple[PolicyEvaluation, ...]  # task by task: the teacher (if there is one), the students, random play

    @property
    def tasks(self) -> dict[str, "Evaluation"]:
        """The evaluation of each task alone, by its name, in the order they were played."""
        rows: dict[str, list[PolicyEvaluation]] = {}
        for row in self.policies:
            rows.setdefault(row.task.name, []).append(row)
        return {name: Evaluation(self.seed, tuple(own)) for name, own in rows.items()}

    @property
    def task(self) -> Task:
        """What was played, where that is one task."""
        return self._of_one_task()[0].task

    @property
    def teacher(self) -> PolicyEvaluation | None:
        """The reference, if there is one, of one task."""
        return next((row for row in self._of_one_task() if row.role == "teacher"), None)

    @property
    def random(self) -> PolicyEvaluation:
        """Random play of one task."""
        return self._of_one_task()[-1]

    @property
    def students(self) -> tuple[PolicyEvaluation, ...]:
        """The policies that were asked about, task by task."""
        return tuple(row for row in self.policies if row.role == "student")

    @cached_property
    def overall(self) -> tuple[StudentOverTasks, ...]:
        """The students over all tasks. A policy that is the teacher of one task is none."""
        tasks = list(self.tasks.values())
        return tuple(_over_tasks(rows, tasks, self.seed) for rows in _students_of_all(tasks))

    def __repr__(self) -> str:
        """Return the scores of one task, or the names of several, in a line."""
        tasks = list(self.tasks)
        if len(tasks) > 1:
            return f"<Evaluation of {len(tasks)} tasks, seed {self.seed}: {', '.join(tasks)}>"
        return f"<Evaluation of {tasks[0]}, seed {self.seed}: {', '.join(map(repr, self.policies))}>"

    def __str__(self) -> str:
        """Return the tables that `rldistill evaluate` prints."""
        return evaluation_table(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON: that of one task, or of several with the students over all of them."""
        if len(self.tasks) > 1:
            return {
                "schema_version": 1,
                "seed": self.seed,
                "tasks": {name: evaluation.to_dict() for name, evaluation in self.tasks.items()},
                "policies": [policy.to_dict() for policy in self.overall],
            }
        return {
            "schema_version": 1,
            "task": self.task.name,
            "fingerprint": self.task.fingerprint.to_dict(),
            "protocol": self.task.protocol.to_dict(),
            "environment_kwargs": dict(self.task.environment_kwargs),
            "seed": self.seed,
            "policies": [row.to_dict() for row in self.policies],
        }

    def _of_one_task(self) -> tuple[PolicyEvaluation, ...]:
        """Return the rows, after checking that they are of one task."""
        names = list(self.tasks)
        if len(names) > 1:
            raise UsageError(f"This evaluation is of {len(names)} tasks: take one of them: .tasks[{names[0]!r}].")
        return self.policies


def finite_lower_bound(samples: FloatArray | None) -> float | None:
    """Return the one-sided 95 % bound of resampled values; None where the data set none."""
    bound = -math.inf if samples is None else statistics.lower_bound(samples)
    return bound if math.isfinite(bound) else None


def _students_of_all(tasks: Sequence[Evaluation]) -> list[tuple[PolicyEvaluation, ...]]:
    """Return the rows of each policy that is a student everywhere, one row per task."""
    # One policy may be named twice, so its hash alone does not tell its rows apart.
    tables: list[dict[tuple[str, int], PolicyEvaluation]] = []
    for evaluation in tasks:
        hashes = [row.policy_hash for row in evaluation.students]
        keys = [(own, hashes[:index].count(own)) for index, own in enumerate(hashes)]
        tables.append(dict(zip(keys, evaluation.students, strict=True)))
    return [tuple(table[key] for table in tables) for key in tables[0] if all(key in table for table in tables)]


def _over_tasks(rows: Sequence[PolicyEvaluation], tasks: Sequence[Evaluation], seed: int) -> StudentOverTasks:
    # Leaving out the tasks where a number means nothing would flatter: they are counted instead.
    ratios = [row.relative_score for row in rows if row.relative_score is not None and row.relative_score > 0]
    shares = [row.retention for row in rows if row.retention is not None]
    has_ratios, has_shares = len(ratios) == len(rows), len(shares) == len(rows)
    strata = [
        stratum(row, evaluation.teacher, evaluation.random)
        for row, evaluation in zip(rows, tasks, strict=True)
        if evaluation.teacher is not None
    ]
    # Of one task the samples are those of its own row, so that both bounds are the same number.
    ratios_of, shares_of = ("relative score", "retention") if len(rows) == 1 else ("geometric mean", "mean retention")
    ratio_rng, share_rng = (stream_generator(seed, f"bootstrap {purpose}") for purpose in (ratios_of, shares_of))
    ratio_samples = statistics.geometric_mean_samples(strata, rng=ratio_rng) if has_ratios else None
    share_samples = statistics.mean_retention_samples(strata, rng=share_rng) if has_shares else None
    return StudentOverTasks(
        name=rows[0].name,
        policy_hash=rows[0].policy_hash,
        num_tasks=len(rows),
        geometric_mean=statistics.geometric_mean(ratios) if has_ratios else None,
        geometric_mean_interval=statistics.sample_interval(ratio_samples),
        num_relative_scores=len(ratios),
        mean_retention=statistics.point_estimate(shares) if has_shares else None,
        mean_retention_interval=statistics.sample_interval(share_samples),
        mean_retention_lower_bound=finite_lower_bound(share_samples),
        num_retentions=len(shares),
    )


def stratum(student: PolicyEvaluation, teacher: PolicyEvaluation, random: PolicyEvaluation) -> Stratum:
    """Return one task's returns, to be resampled: those of the same episodes together, a census by its mean."""
    arms = (student, teacher, random)
    fixed: list[Role] = [arm.role for arm in arms if arm.played.is_census]
    # A policy that plays a sample of the distinct starts meets other episodes than random play.
    seeds = [tuple(episode.seed for episode in arm.played.episodes) for arm in arms]
    together: list[Role] = [arm.role for arm, own in zip(arms, seeds, strict=True) if seeds.count(own) > 1]
    return Stratum(*(arm.played.scores for arm in arms), fixed=fixed, together=together)


def _plain(value: object) -> object:
    return value.to_list() if isinstance(value, Interval) else value
