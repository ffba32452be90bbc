"""What `inspect --verify` says, for people."""

import math

from rldistill.cli.description import aligned
from rldistill.evaluation.records import PolicyEvaluation
from rldistill.inspection.expected_return import ALLOWED_STANDARD_ERRORS
from rldistill.verbs.verification import Verification, figure


def verification_text(verification: Verification) -> str:
    """Return the scores, the verdict and the usual mistakes as aligned lines."""
    played, expected = verification.played, verification.expected
    kind = "starts, a census" if played.played.is_census else "episodes"
    how = f"{len(played.played.episodes)} {kind}, {played.behaviour}, seed {verification.evaluation.seed}"
    lines = [
        ("played", f"{played.name} on {played.task.name}, {how}"),
        ("score", _score(played)),
        ("random play", _score(verification.random)),
    ]
    if expected is not None:
        error = "" if expected.standard_error is not None else "; its standard error is not known: as that of the score"
        lines.append(("expected", f"{figure(expected.mean, expected.standard_error)} ({expected.source}{error})"))
    lines.append(("verdict", _verdict(verification)))
    if verification.verdict != "agrees":
        name = "likely cause" if verification.verdict == "differs" else "to check"
        lines += [(name, cause) for cause in verification.likely_causes]
    for finding in verification.findings:
        note = "" if finding.note is None else f" ({finding.note})"
        lines.append((finding.mistake, f"{finding.as_played}{note}"))
    return aligned(lines)


def _score(row: PolicyEvaluation) -> str:
    text = figure(row.mean, row.standard_error)
    if row.interval is None:
        return text
    return f"{text} (standard error), 95 % interval {figure(row.interval.low)} to {figure(row.interval.high)}"


def _verdict(verification: Verification) -> str:
    difference, allowed = verification.difference, verification.allowed_difference
    beside = f"it {_beside_random(verification)} random play"
    if difference is None or allowed is None:
        return (
            "not compared: no return is recorded beside it, and none was given (--expected-return R). Only that "
            f"{beside} was seen"
        )
    text = f"{verification.verdict}: {figure(abs(difference))} apart, at most {figure(allowed)} allowed"
    return text if verification.verdict == "agrees" else f"{text}; {beside}"


def _beside_random(verification: Verification) -> str:
    played, random = verification.played, verification.random
    gap = played.mean - random.mean
    if abs(gap) <= ALLOWED_STANDARD_ERRORS * math.hypot(played.standard_error, random.standard_error):
        return "is not to be told from"
    return "is better than" if gap > 0 else "is worse than"
