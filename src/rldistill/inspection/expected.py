"""What a file says of its policy: how it was read where mistakes are usual, and the score that was recorded with it.

None of the usual mistakes raises an error by itself; each may turn a good policy into one that plays at random.

Two means agree where they are at most as far apart as three combined standard errors allow. Few episodes estimate their
own standard error badly, hence Student's t instead of the normal distribution, with Welch's degrees of freedom. A
recorded mean without a standard error is taken to be as uncertain as the one that is compared with it.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import gymnasium
import torch
from scipy.special import ndtr, stdtrit

from rldistill.adapters.program import ProgramPolicy
from rldistill.adapters.sb3.beside import find_normalizer
from rldistill.checks import is_finite
from rldistill.envs import PlayableTask
from rldistill.errors import RldistillError
from rldistill.policies import Policy, TorchPolicy
from rldistill.policies.padded import probe_rows
from rldistill.types import ActionLayout

_HIDDEN_INSIDE = "inside the program, not to be seen"
_OFF_POLICY = frozenset({"sac", "td3", "ddpg", "td3/ddpg", "tqc", "crossq", "dqn", "qrdqn"})
_VERSION = re.compile(r"-v\d+$")


@dataclass(frozen=True)
class Finding:
    """How a file was read where one of the usual mistakes is made, and what the files say against it."""

    mistake: str
    as_played: str
    note: str | None = None


def findings(policy: Policy, playable: PlayableTask, path: Path | None) -> Iterator[Finding]:
    """Yield how a policy was read (from `path`) and played, in the order of how often mistakes are made there."""
    fingerprint, source, played = policy.tasks[0].fingerprint, source_of(policy), playable.task.name
    yield _normalizer(policy, path)
    if (activation := _activation(policy)) is not None:
        yield Finding("activation", activation)
    if fingerprint.action_layout.is_continuous:
        yield _action_scaling(policy, fingerprint.action_layout)
    if source.get("algorithm") == "qrdqn":
        yield Finding("quantile order", "averaged for each action, quantiles outermost")
    length = fingerprint.time_feature
    yield Finding("time feature", "none" if length is None else f"1 − t / {length}")
    made_for = source.get("environment") or policy.tasks[0].name
    yield Finding("environment version", played if made_for == played else f"{played}, made for {made_for}")
    yield Finding("greedy or sampling", "deterministic" if policy.output_kind == "actions" else policy.behaviour)


def _normalizer(policy: Policy, path: Path | None) -> Finding:
    if not isinstance(policy, TorchPolicy):
        return Finding("normaliser", _HIDDEN_INSIDE)
    if (statistics := policy.normalization) is not None:
        clipped = f"clipped to ±{statistics.clip:g}" if statistics.clips else "not clipped"
        return Finding("normaliser", f"applied, {clipped}")
    source = source_of(policy)
    beside = None if path is None or source.get("format") != "stable-baselines3" else find_normalizer(path)
    if beside is not None:
        return Finding("normaliser", "none", f"{beside.name} lies beside it and is not used")
    notes = source.get("notes")
    is_missing = isinstance(notes, list) and any("missing" in str(note) for note in notes)
    return Finding("normaliser", "none", "missing" if is_missing else None)


def _activation(policy: Policy) -> str | None:
    architecture = policy.spec.architecture if isinstance(policy, TorchPolicy) else None
    if architecture is None:
        return _HIDDEN_INSIDE
    has_any = architecture.hidden or architecture.channels or architecture.head_hidden
    return architecture.activation if has_any else None


def _action_scaling(policy: Policy, layout: ActionLayout) -> Finding:
    bounds = f"[{min(layout.low):g}, {max(layout.high):g}]"
    if _has_own_units(policy):
        return Finding("action scaling", f"clipped to {bounds}", "scaled inside the program, if at all")
    if _is_declared_scaled(policy):
        return Finding("action scaling", f"rescaled from [-1, 1] to {bounds}, as declared")
    squashes = layout.mapping == "tanh_rescale"
    return Finding("action scaling", f"tanh, then rescaled to {bounds}" if squashes else f"clipped to {bounds}")


def _is_declared_scaled(policy: Policy) -> bool:
    if isinstance(policy, ProgramPolicy):
        return policy.outputs.is_scaled
    declared = policy.spec.declared_outputs if isinstance(policy, TorchPolicy) else None
    return declared is not None and declared.is_scaled


def _has_own_units(policy: Policy) -> bool:
    """Return whether a policy that is not ours gives actions of a box in units that nothing declares."""
    is_ours = isinstance(policy, TorchPolicy) and policy.spec.architecture is not None
    is_box = policy.tasks[0].fingerprint.action_layout.is_continuous and policy.output_kind == "actions"
    return is_box and not is_ours and not _is_declared_scaled(policy)


def likely_causes(policy: Policy, playable: PlayableTask) -> tuple[str, ...]:
    """Return what its file and its outputs say for a policy that scores otherwise than it is said to."""
    causes = [_other_version(policy, playable), _unknown_statistics(policy), _unscaled(policy)]
    return tuple(cause for cause in causes if cause is not None)


def _unknown_statistics(policy: Policy) -> str | None:
    source = source_of(policy)
    is_silent = source.get("algorithm") in _OFF_POLICY and source.get("environment") is None
    if not is_silent or not isinstance(policy, TorchPolicy) or policy.normalization is not None:
        return None
    return (
        "statistics of its observations: the file of an off-policy algorithm does not say whether there were any "
        "(name them with --normalizer)"
    )


def _other_version(policy: Policy, playable: PlayableTask) -> str | None:
    """Return what speaks for another version of the environment than the one that was played."""
    source, played = source_of(policy), playable.task.name
    made_for, version = source.get("environment") or policy.tasks[0].name, source.get("library_version")
    here = f"gymnasium {gymnasium.__version__}"
    if isinstance(made_for, str) and made_for != played and _VERSION.sub("", made_for) == _VERSION.sub("", played):
        why = f"it was made for {made_for}, {played} was played"
    elif isinstance(version, str) and version.startswith(("0.", "1.")):
        why = f"Stable-Baselines3 {version} trained on gym's {made_for}, that of {here} was played"
    elif source.get("recorded_return") is not None:
        why = f"the file does not say with which release its return was recorded, {here} was played"
    else:
        return None
    return f"another version of the environment: {why}"


def _unscaled(policy: Policy) -> str | None:
    """Return the evidence that outputs of ±1 mean the bounds of the box: they stay within, whatever is observed."""
    fingerprint = policy.tasks[0].fingerprint
    layout = fingerprint.action_layout
    ends = [abs(bound) for bound in (*layout.low, *layout.high)]
    if not _has_own_units(policy) or not layout.is_bounded or set(ends) == {1.0}:
        return None
    rows = probe_rows(fingerprint, 64)
    if rows.is_floating_point():
        rows = (rows - 0.5) * torch.logspace(0, 1, len(rows)).reshape(-1, *[1] * (rows.dim() - 1))
    try:
        largest = float(policy(rows)[0].raw.abs().max())
    except RldistillError:
        return None  # it takes only what its environment shows
    if largest > 1 or (max(ends) <= 1 and largest <= min(ends)):
        return None
    return (
        f"its actions stay within ±1, and the box is [{min(layout.low):g}, {max(layout.high):g}]. If ±1 stands for the "
        "box's bounds, as in exports of Stable-Baselines3's actors, say --outputs actions=rescale, or --outputs "
        "'actions=rescale(NAME)'"
    )


def source_of(policy: Policy) -> dict[str, Any]:
    """Return what a policy's file says of the file that it was converted from; a stranger's may say anything."""
    source = policy.spec.provenance.get("source") if isinstance(policy, TorchPolicy) else None
    return dict(source) if isinstance(source, dict) else {}


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
    mean, deviation, episodes = (
        own if is_finite(own := values.get(name)) else None for name in ("mean", "standard_deviation", "episodes")
    )
    if mean is None:
        return None
    if not isinstance(episodes, int):
        episodes = None
    source = f"{values.get('file')}, {values.get('chosen')}{'' if episodes is None else f', {episodes} episodes'}"
    if deviation is None or deviation < 0 or episodes is None or episodes < 2:
        return ExpectedReturn(float(mean), None, source)
    # The deviation of the file is that of these episodes, not an estimate for all: hence the − 1.
    return ExpectedReturn(float(mean), deviation / math.sqrt(episodes - 1), source, episodes)


def _degrees_of_freedom(*means: tuple[float, int | None]) -> float:
    """Return Welch's degrees of freedom of a difference of means, each with its standard error and its episodes."""
    parts = [error**4 / (episodes - 1) for error, episodes in means if episodes is not None and episodes > 1]
    return sum(error**2 for error, _ in means) ** 2 / sum(parts) if any(parts) else _MANY
