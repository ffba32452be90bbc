"""Is it really that policy? Its score beside random play and beside the return that was recorded with it.

Where the two returns do not agree, it says how the file was read where the usual silent mistakes are made
(`mistakes`), and which of them its file or its outputs speak for.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rldistill import statistics
from rldistill.envs import PlayableTask, TaskLike
from rldistill.errors import GateError, MismatchError, UsageError
from rldistill.evaluation.names import NamedPolicy
from rldistill.evaluation.pairing import Pairing, tasks_to_play
from rldistill.evaluation.records import Evaluation, PolicyEvaluation
from rldistill.events import tell
from rldistill.inspection.expected import (
    ALLOWED_STANDARD_ERRORS,
    ExpectedReturn,
    Finding,
    findings,
    likely_causes,
    recorded_return,
)
from rldistill.loading.named import as_policy, path_of
from rldistill.options.declaration import values, verb
from rldistill.options.evaluate import EvaluateOptions
from rldistill.options.inspect import VerifyOptions
from rldistill.policies import Policy, fit_policy
from rldistill.policies.sighted import SightedPolicy
from rldistill.statistics.bootstrap import FEW_VALUES
from rldistill.tasks import UNNAMED_TASK, Task
from rldistill.verbs.evaluate import evaluate_pairing

_SHARED = ("num_episodes", "seed", "num_envs", "num_threads", "device", "callbacks")
_NO_CAUSE = (
    "Its file speaks for no cause: compare how it was read (normaliser, activation, scaling of actions, version of the "
    "environment, behaviour) with how it was trained."
)


@dataclass(frozen=True)
class Verification:
    """What playing a policy says about whether it is the one it is said to be; `to_dict` gives the JSON."""

    evaluation: Evaluation  # the policy and random play, on the same episodes
    expected: ExpectedReturn | None  # what it is said to score; None: nothing says it
    findings: tuple[Finding, ...]  # how it was read, where the usual mistakes are made
    likely_causes: tuple[str, ...]  # of a gap, as far as the file and the outputs tell

    @property
    def played(self) -> PolicyEvaluation:
        """The policy's episodes."""
        return self.evaluation.students[0]

    @property
    def random(self) -> PolicyEvaluation:
        """Random play on the same episodes."""
        return self.evaluation.random

    @property
    def difference(self) -> float | None:
        """Mean − expected, in points."""
        return None if self.expected is None else self.played.mean - self.expected.mean

    @property
    def standard_error(self) -> float:
        """Of the played mean. A census's is 0, unless it has to stand for that of the expected return, too."""
        error = self.played.standard_error
        if error or self.expected is None or self.expected.standard_error is not None:
            return error
        return statistics.standard_error(self.played.played.scores) or 0.0

    @property
    def allowed_difference(self) -> float | None:
        """How many points mean and expected return may lie apart."""
        num_episodes = len(self.played.played.episodes)
        return None if self.expected is None else self.expected.allowed(self.standard_error, num_episodes)

    @property
    def verdict(self) -> Literal["agrees", "differs", "not compared"]:
        """Whether the policy scores what it is said to score."""
        if self.expected is None or self.difference is None or self.allowed_difference is None:
            return "not compared"
        if abs(self.difference) <= self.allowed_difference:
            return "agrees"
        # Scores without any spread do not tell how uncertain the expected return is.
        return "differs" if self.standard_error or self.expected.standard_error is not None else "not compared"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        expected, error = self.expected, self.standard_error
        return {
            "verdict": self.verdict,
            "expected": None if expected is None else asdict(expected),
            "difference": self.difference,
            "standard_error": error,
            "combined_standard_error": None if expected is None else expected.combined(error),
            "allowed_standard_errors": ALLOWED_STANDARD_ERRORS,
            "allowed_difference": self.allowed_difference,
            "likely_causes": list(self.likely_causes),
            "mistakes": [asdict(finding) for finding in self.findings],
            "evaluation": self.evaluation.to_dict(),
        }


@verb(VerifyOptions)
def verify(options: VerifyOptions) -> Verification:
    """Play a policy by its own behaviour, without exploration, and compare with what it is said to score.

    Without `task` it plays what its file says, and without `expected_return` it is compared with what was recorded with
    the file.

    Returns:
        `verdict` (agrees, differs or not compared), `played`, `random`, `expected`, `difference`, `findings`.

    Raises:
        RldistillError: as `evaluate`.
    """
    loaded = as_policy(
        options.policy,
        device=options.device,
        task=options.task,
        env_kwargs=options.env_kwargs,
        sees=options.teacher_sees,
        names=options.names,
    )
    playable = _playable(loaded, options.task, options.env_kwargs)
    fitted = _fitted(loaded, playable.task)
    read = fitted.policy if isinstance(fitted, SightedPolicy) else fitted
    given = None
    if options.expected_return is not None:
        given = ExpectedReturn(options.expected_return, options.expected_standard_error, "--expected-return")
    if options.num_episodes < FEW_VALUES:
        text = (
            f"{options.num_episodes} episodes tell little of their own spread: a gap may be luck. Play {FEW_VALUES} "
            "or more."
        )
        tell(options.callbacks, text, "warning")
    shared = values(options)
    played = EvaluateOptions(fitted, **{name: shared[name] for name in _SHARED})
    return Verification(
        evaluate_pairing(Pairing([NamedPolicy(fitted.name, fitted)], [playable]), played),
        given or recorded_return(read),
        tuple(findings(read, playable, path_of(options.policy))),
        likely_causes(read, playable),
    )


def check_verified(verification: Verification) -> None:
    """Check that a policy scores what it is said to score, where something says it.

    Raises:
        GateError: it does not, and names the likely causes; or nothing says how sure either score is.
    """
    expected, played = verification.expected, verification.played
    if expected is None or verification.verdict == "agrees":
        return
    if verification.verdict == "not compared":
        raise GateError(
            f"Verification: {played.name} scores {figure(played.mean)} in all episodes of {played.task.name}, "
            f"{figure(expected.mean)} expected ({expected.source}), and nothing says how sure that is. Give "
            "--expected-standard-error (in Python expected_standard_error=)."
        )
    causes = " ".join(f"Likely cause: {cause}." for cause in verification.likely_causes)
    raise GateError(
        f"Verification failed: {played.name} scores {figure(played.mean, played.standard_error)} on "
        f"{played.task.name}, {figure(expected.mean, expected.standard_error)} expected ({expected.source}). "
        f"{causes or _NO_CAUSE}"
    )


def figure(mean: float, error: float | None = None) -> str:
    """Return a mean, with its standard error where there is one, as text."""
    text = f"{mean:,.0f}" if abs(mean) >= 10_000 else f"{mean:.1f}" if abs(mean) >= 10 else f"{mean:.3g}"
    return text if error is None else f"{text} ± {error:.2g}" if error < 100 else f"{text} ± {error:.0f}"


def _playable(policy: Policy, task: TaskLike | None, env_kwargs: Mapping[str, Any] | None) -> PlayableTask:
    names = [own.name for own in policy.tasks]
    if task is None and len(names) > 1:
        raise UsageError(
            f"Policy {policy.name!r} plays several tasks: name one of {', '.join(names)}, --task {names[0]}."
        )
    if task is None and names == [UNNAMED_TASK]:
        raise UsageError(f"Policy {policy.name!r} does not say which task it plays. Name it: --task ID.")
    (playable,) = tasks_to_play(policy, task, env_kwargs)
    return playable.with_exploration(0.0)


def _fitted(policy: Policy, task: Task) -> Policy:
    try:
        return fit_policy(policy, task)
    except MismatchError as error:
        own = policy.tasks[0].fingerprint.observation_shape
        # v4 leaves the contact forces out unless told; teachers before it had them.
        if task.name.startswith("Ant-v4") and own == (111,) and task.fingerprint.observation_shape == (27,):
            raise MismatchError(
                f"{str(error).rstrip()} Teachers of Ant-v3 saw contact forces, too: "
                "--env-kwargs '{\"use_contact_forces\": true}' brings them back."
            ) from error
        raise
