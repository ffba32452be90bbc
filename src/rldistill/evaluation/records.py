"""What an evaluation found, as frozen records and as the documented JSON."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rldistill.errors import RldistillError
from rldistill.networks import NetworkSize
from rldistill.rollout.evaluate import PlayedEpisodes
from rldistill.rollout.speed import DecisionSpeed
from rldistill.statistics import Interval, iqm, median, point_estimate
from rldistill.tasks import Task

if TYPE_CHECKING:
    from rldistill.evaluation.multitask import MultiTaskEvaluation


@dataclass(frozen=True)
class PolicyEvaluation:
    """One policy's episodes and what follows from them; `to_dict` gives the documented JSON.

    Attributes:
        name: of its run folder or its file, else its own.
        role: teacher, student or random.
        policy_hash: identity.
        behaviour: greedy or sample.
        exploration_epsilon: chance of a uniformly random action.
        played: the episodes.
        mean: of the episodes' returns.
        interval: 95 %, of the mean; None for a census and for fewer than 5 episodes.
        iqm_interval: 95 %, of the interquartile mean; None likewise.
        relative_score: mean ÷ teacher's mean, None where that is ≤ 0 or there is no teacher.
        retention: (student − random) ÷ (teacher − random).
        retention_interval: 95 %, two-sided.
        retention_lower_bound: 95 %, one-sided: what `--require-retention` asks for.
        normalised_score: 0 random play, 1 a human tester; for the paper's ten games.
        agreement: of choices: share of the teacher's states with the same greedy action.
        action_gap: of continuous actions: mean distance of the greedy ones on the teacher's states, in widths of
            the box.
        network: what it computes with: `mlp:64x64`, a module's class, or a program's format.
        size: of the network, where there is one.
        speed: of decisions, where there is a network.
    """

    name: str
    role: Literal["teacher", "student", "random"]
    policy_hash: str
    behaviour: str
    exploration_epsilon: float
    played: PlayedEpisodes
    mean: float
    interval: Interval | None
    iqm_interval: Interval | None
    relative_score: float | None = None
    retention: float | None = None
    retention_interval: Interval | None = None
    retention_lower_bound: float | None = None
    normalised_score: float | None = None
    agreement: float | None = None
    action_gap: float | None = None
    network: str | None = None
    size: NetworkSize | None = None
    speed: DecisionSpeed | None = None

    def __repr__(self) -> str:
        """Return the score, and what was kept, in a line."""
        kept = "" if self.retention is None else f", retention {self.retention:.3f}"
        who = self.name if self.name == self.role else f"{self.role} {self.name}"
        return f"<{who}: mean {self.mean:.4g} of {len(self.played.episodes)} episodes{kept}>"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        scores = self.played.scores
        return {
            "name": self.name,
            "role": self.role,
            "policy_hash": self.policy_hash,
            "behaviour": self.behaviour,
            "exploration_epsilon": self.exploration_epsilon,
            "episodes": [episode.to_dict() for episode in self.played.episodes],
            "num_distinct": self.played.num_distinct,
            "census": self.played.is_census,
            "mean": self.mean,
            "median": point_estimate(scores, median),
            "iqm": point_estimate(scores, iqm),
            "interval": _ends(self.interval),
            "iqm_interval": _ends(self.iqm_interval),
            "degenerate": self.interval is not None and self.interval.degenerate,
            "relative_score": self.relative_score,
            "retention": self.retention,
            "retention_interval": _ends(self.retention_interval),
            "retention_lower_bound": self.retention_lower_bound,
            "normalised_score": self.normalised_score,
            "agreement": self.agreement,
            "action_gap": self.action_gap,
            "network": self.network,
            "num_parameters": self.size.num_parameters if self.size else None,
            "num_bytes": self.size.num_bytes if self.size else None,
            "num_macs": self.size.num_macs if self.size else None,
            "latency_seconds": self.speed.latency_seconds if self.speed else None,
            "decisions_per_second": self.speed.decisions_per_second if self.speed else None,
        }


@dataclass(frozen=True)
class Evaluation:
    """Several policies on the same episodes of one task; `print` shows the table.

    Attributes:
        task: with the protocol they were played under.
        seed: of the episodes and of the bootstrap.
        policies: teacher first (if there is one), then students, then random play.
    """

    task: Task
    seed: int
    policies: tuple[PolicyEvaluation, ...]

    def __repr__(self) -> str:
        """Return the scores in a line."""
        return f"<Evaluation of {self.task.name}, seed {self.seed}: {', '.join(map(repr, self.policies))}>"

    def __str__(self) -> str:
        """Return the table that `rldistill evaluate` prints."""
        from rldistill.evaluation.table import evaluation_table  # it needs the records defined here

        return evaluation_table(self)

    @property
    def students(self) -> tuple[PolicyEvaluation, ...]:
        """The policies that were asked about."""
        return tuple(policy for policy in self.policies if policy.role == "student")

    @property
    def teacher(self) -> PolicyEvaluation | None:
        """The reference, if there is one."""
        return next((policy for policy in self.policies if policy.role == "teacher"), None)

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON."""
        return {
            "schema_version": 1,
            "task": self.task.name,
            "fingerprint": self.task.fingerprint.to_dict(),
            "protocol": self.task.protocol.to_dict(),
            "environment_kwargs": dict(self.task.environment_kwargs),
            "seed": self.seed,
            "policies": [policy.to_dict() for policy in self.policies],
        }


class EvaluationNotWrittenError(RldistillError):
    """An evaluation was played, and its file could not be written; `evaluation` is the result."""

    def __init__(self, message: str, evaluation: "Evaluation | MultiTaskEvaluation") -> None:
        super().__init__(message)
        self.evaluation = evaluation


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else interval.to_list()
