"""Does an export act as the policy does? Asked over whole trajectories, decision by decision, and timed."""

import math
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rldistill.adapters.program import ProgramPolicy
from rldistill.exports.formats import ACTION, Decide, Precision
from rldistill.exports.trajectories import Decisions
from rldistill.networks.outputs import raw_rows
from rldistill.policies import Policy, choose_actions
from rldistill.policies.padded import check_answers, run_padded
from rldistill.types import ActionLayout, Actions, PolicyOutput

MIN_AGREEMENT: Mapping[Precision, float] = {"float32": 1.0, "float16": 0.99, "int8": 0.9}
"""Share of decisions that must come out the same. float16 and int8 round weights: their loss is reported, and below
these shares something is broken rather than rounded."""
MAX_ACTION_GAP: Mapping[Precision, float] = {"float32": 1e-4, "float16": 1e-2, "int8": 0.1}
"""Of boxes: how far an action may be from the policy's, in widths of the box; without bounds, in its own units."""
MAX_OUTPUT_ERROR: Mapping[Precision, float] = {"float32": 1e-3, "float16": 0.05, "int8": 0.5}
"""Largest error of any output, relative to the largest output, or to 1 where that is smaller: actions that are drawn
need outputs that are right, too."""
MAX_LOG_STD_ERROR: Mapping[Precision, float] = {"float32": 0.1, "float16": 0.1, "int8": 0.5}
"""Of Gaussians: how far the logarithm of a standard deviation may be from the policy's, absolute. Exports of int8 that
act well are within 0.2; at 0.5 a standard deviation is 1.6 times the policy's."""
# Sums in another order differ in their last bits: choices that score within this of each other, relative to the largest
# score, are equally good, and either is the same action.
_TIE = 1e-5
_NUM_WARMUPS = 20
_NUM_DECISIONS = 1000
_MOST_SECONDS = 1.0
"""After which no further decision is timed, but for the first hundred: a large network takes long for each."""
_FEWEST_DECISIONS = 100


@dataclass(frozen=True)
class Parity:
    """How alike an export and its policy were over whole trajectories."""

    num_episodes: int
    num_decisions: int
    num_equal: int  # decisions with the same action
    num_ties: int  # among the others: choices that the policy itself scores alike, but for rounding
    largest_action_gap: float | None  # of boxes, in widths of the box; None for choices
    largest_output_error: float  # of any output, absolute
    largest_output: float  # of the policy's own, to compare the error with
    largest_log_std_error: float | None = None  # of Gaussians: some libraries have one spread for all states

    @property
    def agreement(self) -> float:
        """Share of decisions with the same action; a tie counts as one."""
        return (self.num_equal + self.num_ties) / self.num_decisions

    @property
    def has_nan(self) -> bool:
        """Whether an output of the export, or of the policy, was NaN."""
        return math.isnan(self.largest_output_error) or math.isnan(self.largest_log_std_error or 0.0)

    @property
    def relative_error(self) -> float:
        """Largest error of any output, relative to the largest output, or to 1 where that is smaller."""
        return self.largest_output_error / max(self.largest_output, 1.0)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data; NaN and infinity, which JSON has not, are null."""
        known = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in vars(self).items()
        }
        return {**known, "agreement": self.agreement}


@dataclass(frozen=True)
class DecisionTime:
    """Time of one decision on one observation, on one thread."""

    median_seconds: float
    p99_seconds: float


def compare(export: Policy, trajectories: Iterable[Decisions], precision: Precision) -> Parity:
    """Ask an export what it does where its policy decided.

    What they do is what they do greedily: equal outputs make equal draws, too. Where the export gives an action of its
    own beside its outputs, that is the one that counts.

    Args:
        export: read back from its file.
        trajectories: decisions of the policy.
        precision: of the export, which says how far actions of a box may be apart.
    """
    num_episodes, num_decisions, num_equal, num_ties = 0, 0, 0, 0
    gap, error, size, spread = 0.0, 0.0, 0.0, 0.0
    layout = export.tasks[0].fingerprint.action_layout
    is_gaussian = False
    memory = _Memory(export)
    for decisions in trajectories:
        ours, mine = decisions.output.raw.cpu(), choose_actions(decisions.output, "greedy")
        theirs, other, following = _answers(export, decisions.seen, memory.before(decisions))
        memory.keep(decisions, following)
        is_gaussian = export.output_kind == decisions.output.kind == "gaussian"
        gaps = _gaps(layout, mine, other)
        is_equal = gaps <= (MAX_ACTION_GAP[precision] if layout.is_continuous else 0.0)
        num_episodes += decisions.num_ended
        num_decisions += len(gaps)
        num_equal += int(is_equal.sum())
        if not layout.is_continuous:
            num_ties += int((_is_tie(decisions.output, mine, other) & ~is_equal).sum())
        gap = _larger(gap, gaps.max())
        # Actions come of the means; a library's own kind of policy may have a spread where ours has none, or another.
        width = layout.sizes[0] if layout.is_continuous else ours.shape[1]
        error = _larger(error, (ours[:, :width] - theirs[:, :width]).abs().max())
        size = _larger(size, ours[:, :width].abs().max())
        if is_gaussian:
            spread = _larger(spread, (ours[:, width:] - theirs[:, width:]).abs().max())
    largest_gap = gap if layout.is_continuous else None
    return Parity(
        num_episodes, num_decisions, num_equal, num_ties, largest_gap, error, size, spread if is_gaussian else None
    )


def _larger(known: float, found: Tensor | np.floating[Any]) -> float:
    """Return the larger of two numbers; NaN stays, where `max` would drop it."""
    return float(np.maximum(known, float(found)))


class _Memory:
    """What an export remembers of each episode."""

    def __init__(self, export: Policy) -> None:
        self._begun = export.initial_state(1)
        self._states: dict[int, tuple[Tensor, ...]] = {}

    def before(self, decisions: Decisions) -> tuple[Tensor, ...]:
        """Return its state before decisions, `[M, …]` each; that of an episode's first is the one it begins with."""
        if self._begun is None:
            return ()
        rows = zip(decisions.episodes.tolist(), decisions.begin.tolist(), strict=True)
        states = [self._begun if begins else self._states[episode] for episode, begins in rows]
        return tuple(torch.cat(parts) for parts in zip(*states, strict=True))

    def keep(self, decisions: Decisions, following: tuple[Tensor, ...]) -> None:
        """Keep its next states."""
        if self._begun is None:
            return
        for row, episode in enumerate(decisions.episodes.tolist()):
            self._states[episode] = tuple(part[row : row + 1] for part in following)


@torch.inference_mode()
def _answers(
    export: Policy, rows: NDArray[np.generic], state: tuple[Tensor, ...]
) -> tuple[Tensor, Actions, tuple[Tensor, ...]]:
    """Return raw outputs `[M, O]`, the greedy action, which a program may give itself, and the next state."""
    if not isinstance(export, ProgramPolicy):
        output, following = export(rows, state or None)
        return output.raw.cpu(), choose_actions(output, "greedy"), following or ()
    program, layout = export.program, export.tasks[0].fingerprint.action_layout

    def run(part: Tensor, *before: Tensor) -> tuple[Tensor | None, ...]:
        # A copy: the rows of a batch without padding are the caller's.
        answers, after = program.split(program.run(part.to(program.input_dtype or part.dtype, copy=True), *before))
        return raw_rows(program.what, export.outputs, answers, layout), answers.get(ACTION), *after

    raw, actions, *following = run_padded(torch.as_tensor(rows), program.batch_size, run, *state)
    assert raw is not None, "a program always answers"
    check_answers(export.name, export.output_kind, torch.as_tensor(rows), raw)
    after = tuple(part for part in following if part is not None)
    if actions is None:
        return raw, choose_actions(PolicyOutput.from_raw(layout, export.output_kind, raw), "greedy"), after
    return raw, actions.numpy(), after


def _gaps(layout: ActionLayout, ours: Actions, theirs: Actions) -> NDArray[np.float64]:
    """Return how far two actions are apart, `[M]`: of a box in widths, of choices 0 or 1."""
    apart = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).reshape(len(ours), -1)
    if not layout.is_continuous:
        return np.asarray((apart > 0).any(axis=1), np.float64)
    widths = np.array(layout.widths)
    relative = apart / np.where(np.isfinite(widths) & (widths > 0), widths, 1.0)
    return relative.max(axis=1)


def _is_tie(output: PolicyOutput, ours: Actions, theirs: Actions) -> NDArray[np.bool_]:
    """Return where two choices score alike, `[M]`, but for rounding."""
    layout, raw = output.action_layout, output.raw.double().cpu().numpy()
    scores: list[NDArray[np.float64]] = []
    for actions in (ours, theirs):
        if layout.kind == "multi_binary":
            scores.append((raw * actions).sum(axis=1))
            continue
        starts = np.cumsum([0, *layout.sizes[:-1]])
        scores.append(np.take_along_axis(raw, actions.reshape(len(raw), -1) + starts, axis=1).sum(axis=1))
    return np.abs(scores[0] - scores[1]) <= _TIE * np.maximum(np.abs(raw).max(axis=1), 1.0)


def time_decisions(decide: Decide, observations: NDArray[np.generic]) -> DecisionTime:
    """Time decisions on real observations, one at a time, in the wall clock of this machine and this moment."""
    seconds: list[float] = []
    for index in range(_NUM_WARMUPS + _NUM_DECISIONS):
        at = index % len(observations)
        row = observations[at : at + 1]
        started = time.perf_counter()
        decide(row)
        if index >= _NUM_WARMUPS:
            seconds.append(time.perf_counter() - started)
        if len(seconds) >= _FEWEST_DECISIONS and sum(seconds) > _MOST_SECONDS:
            break
    return DecisionTime(statistics.median(seconds), statistics.quantiles(seconds, n=100)[98])
