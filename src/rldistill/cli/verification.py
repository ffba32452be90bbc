"""What `inspect --verify` says, for people."""

from collections.abc import Iterator

from rldistill.cli.description import aligned
from rldistill.inspection.expected_return import ALLOWED_STANDARD_ERRORS
from rldistill.statistics import Interval
from rldistill.verbs.verification import Verification, figure


def verification_text(verification: Verification) -> str:
    """Return the scores, the verdict and the usual mistakes as aligned lines."""
    return aligned(
        [
            *_scores(verification),
            ("verdict", _verdict(verification)),
            *_causes(verification),
            *_findings(verification),
        ]
    )


def _scores(verification: Verification) -> Iterator[tuple[str, str]]:
    played, random, expected = verification.played, verification.random, verification.expected
    task = verification.evaluation.task
    count = len(played.played.episodes)
    kind = "starts, a census" if played.played.is_census else "episodes"
    yield (
        "played",
        f"{played.name} on {task.name}, {count} {kind}, {played.behaviour}, seed {verification.evaluation.seed}",
    )
    yield "score", f"{figure(played.mean, verification.standard_error)}{_interval(played.interval)}"
    yield "random play", f"{figure(random.mean, verification.random_standard_error)}{_interval(random.interval)}"
    if expected is not None:
        error = "" if expected.standard_error is not None else "; its standard error is not known: as that of the score"
        yield "expected", f"{figure(expected.mean, expected.standard_error)} ({expected.source}{error})"


def _verdict(verification: Verification) -> str:
    expected, difference = verification.expected, verification.difference
    if expected is None or difference is None:
        return (
            "not compared: no return is recorded beside it, and none was given (--expected-return R). Only that it "
            f"{_beside_random(verification)} random play was seen"
        )
    allowed = figure(verification.allowed_difference or 0.0, None)
    text = f"{verification.verdict}: {figure(abs(difference), None)} apart, at most {allowed} allowed"
    if verification.verdict == "differs":
        text += f"; it {_beside_random(verification)} random play"
    return text


def _causes(verification: Verification) -> Iterator[tuple[str, str]]:
    if verification.verdict != "agrees":
        name = "likely cause" if verification.verdict == "differs" else "to check"
        yield from ((name, cause) for cause in verification.likely_causes)


def _beside_random(verification: Verification) -> str:
    gap = verification.played.mean - verification.random.mean
    error = (verification.standard_error**2 + verification.random_standard_error**2) ** 0.5
    if abs(gap) <= ALLOWED_STANDARD_ERRORS * error:
        return "is not to be told from"
    return "is better than" if gap > 0 else "is worse than"


def _findings(verification: Verification) -> Iterator[tuple[str, str]]:
    for finding in verification.findings:
        yield finding.mistake, finding.as_played + ("" if finding.note is None else f" ({finding.note})")


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f" (standard error), 95 % interval {figure(interval.low, None)} to {figure(interval.high, None)}"
