"""What changes while a run proceeds: temperature, learning rate, ε, and which task comes next.

A schedule maps progress, the share of the run that is done, in [0, 1], to a value. It knows neither updates nor steps,
so one text serves runs of any length. As text, in TOML and on the command line:

    0.01                     always 0.01
    linear:0.2->0.01         in a straight line from 0.2 to 0.01
    linear:0.2->0.01@0.5     the same within the first half of the run, 0.01 from then on
    linear:1->0.5@0.2->0     in straight lines, to 0.5 at a fifth of the run and to 0 at its end; any number of places
    cosine:1e-3->0           half a cosine wave from 1e-3 to 0; takes @ as well
    one_cycle:1e-3           up to 1e-3 within the first 30 % of the run, then down; @0.1 for 10 %

On a command line the arrow needs quotes, for a shell takes `>` as a redirection.

A *task schedule* says how many rows of an update's batch each task gives.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from rldistill.errors import UsageError
from rldistill.seeding import stream_generator

_ONE_CYCLE_WARMUP = 0.3
_ONE_CYCLE_START_DIVISOR = 25.0
_ONE_CYCLE_END_DIVISOR = 1e4

Shape = Literal["constant", "linear", "cosine", "one_cycle"]


@dataclass(frozen=True)
class Schedule:
    """A value as a function of progress; `constant`, `linear`, `one_cycle` and `parse_schedule` make it.

    Attributes:
        shape: of the way from one knot to the next: a straight line, or half a cosine wave, flat at both ends.
        knots: (progress, value), the first at progress 0; each value is met exactly, and the last one stays.
    """

    shape: Shape
    knots: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        for _, value in self.knots:
            _check_finite(value=value)
        places = [place for place, _ in self.knots]
        if places[:1] != [0] or not all(before < after <= 1 for before, after in pairwise(places)):
            raise ValueError(f"knots must begin at progress 0 and rise to at most 1, got {places}.")

    def __call__(self, progress: float) -> float:
        """Return the value at a share of the run, in [0, 1]."""
        if not 0 <= progress <= 1:
            raise ValueError(f"progress must be in [0, 1], got {progress}.")
        for (begin, start), (until, end) in pairwise(self.knots):
            if progress < until:
                share = (progress - begin) / (until - begin)
                return _between(start, end, share if self.shape == "linear" else _half_wave(share))
        return self.knots[-1][1]

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest value of the whole run."""
        values = [value for _, value in self.knots]
        return min(values), max(values)

    def to_value(self) -> float | str:
        """Return the number or the text from which `as_schedule` makes an equal schedule."""
        if self.shape == "constant":
            return float(self.knots[0][1])
        if self.shape == "one_cycle":
            fraction, peak = self.knots[1]
            return f"one_cycle:{_number_text(peak)}" + _place_text(fraction, default=_ONE_CYCLE_WARMUP)
        first, *others = self.knots
        steps = [_number_text(value) + _place_text(place, default=1.0) for place, value in others]
        return f"{self.shape}:{'->'.join([_number_text(first[1]), *steps])}"


def constant(value: float) -> Schedule:
    """Return the same finite value throughout."""
    _check_finite(value=value)
    return Schedule("constant", ((0.0, value),))


def linear(start: float, end: float, fraction: float = 1.0) -> Schedule:
    """Return a straight line from `start` to `end`, reached after a share of the run in (0, 1]."""
    return _way("linear", start, end, fraction)


def one_cycle(peak: float, warmup_fraction: float = _ONE_CYCLE_WARMUP) -> Schedule:
    """Return half a cosine wave from `peak` ÷ 25 up to `peak`, and another down to `peak` ÷ 10,000.

    Args:
        peak: highest value, > 0.
        warmup_fraction: share of the run before the peak, in (0, 1).

    Source: Smith and Topin 2017, "Super-Convergence". PyTorch's `OneCycleLR` ends 25 times lower: there the last value
    is a share of the first, here of the peak.
    """
    _check_finite(peak=peak)
    if not peak > 0:
        raise ValueError(f"peak must be > 0, got {peak}.")
    if not 0 < warmup_fraction < 1:
        raise ValueError(f"warmup_fraction must be in (0, 1), got {warmup_fraction}.")
    first, last = peak / _ONE_CYCLE_START_DIVISOR, peak / _ONE_CYCLE_END_DIVISOR
    return Schedule("one_cycle", ((0.0, first), (warmup_fraction, peak), (1.0, last)))


def as_schedule(value: float | str | Schedule, name: str) -> Schedule:
    """Return a schedule itself, or the one that a number or a text stands for.

    Raises UsageError: it is none of them, or the text has none of the forms at the head of this file.
    """
    if isinstance(value, Schedule):
        return value
    if isinstance(value, bool) or not isinstance(value, str | float | int):
        raise UsageError(f"{name}: got {value!r}, expected a number, a text such as 'linear:0.2->0.01', or a schedule.")
    return parse_schedule(value, name)


def parse_schedule(text: str | float, name: str) -> Schedule:
    """Return the schedule that a TOML value or an option's text describes.

    Args:
        text: a number, or one of the forms at the head of this file.
        name: of the key or option, for error messages.

    Raises:
        UsageError: the text has none of the forms, or a number is out of range.
    """
    kind, colon, body = str(text).rpartition(":")
    parts = [part.partition("@") for part in body.split("->")]
    try:
        numbers = [float(value) for value, _, _ in parts]
        fractions = [float(fraction) if at else None for _, at, fraction in parts]
    except ValueError:
        raise UsageError(_malformed(text, name)) from None
    if not all(map(math.isfinite, numbers)):
        raise UsageError(f"{name}: got {text!r}, expected finite numbers.")
    try:
        match kind.strip(), numbers, fractions:
            case "", [value], [None] if not colon:
                return constant(value)
            case ("linear" | "cosine") as shape, [_, _, *_], [None, *between, last] if None not in between:
                places = [0.0, *(place for place in between if place is not None), 1.0 if last is None else last]
                if len(numbers) == 2:
                    return _way(shape, *numbers, fraction=places[-1])
                return Schedule(shape, tuple(zip(places, numbers, strict=True)))
            case "one_cycle", [peak], [fraction]:
                return one_cycle(peak) if fraction is None else one_cycle(peak, fraction)
            case _:
                raise UsageError(_malformed(text, name))
    except ValueError as error:
        raise UsageError(f"{name}: got {text!r}, but {error}") from None


TaskOrder = Literal["in_turn", "mixed", "random"]


@dataclass(frozen=True)
class TaskSchedule:
    """Which task's rows make up the batch of an update; a function of the update alone."""

    # `in_turn`: each batch is one task's, one after the other (Rusu et al. 2015); `mixed`: each batch has rows of every
    # task; `random`: each batch is one task's, drawn by weight.
    order: TaskOrder
    weights: tuple[float, ...]  # `[K]`, > 0, only their ratio counts; `in_turn` gives all tasks the same share
    seed: int = 0  # of `random`

    def __post_init__(self) -> None:
        if self.order not in get_args(TaskOrder):
            raise UsageError(f"task_order: got {self.order!r}, expected {', '.join(get_args(TaskOrder))}.")
        if not self.weights or not all(weight > 0 for weight in self.weights) or not sum(self.weights) < math.inf:
            raise UsageError(f"task_weights must be > 0 with a finite sum, got {', '.join(map(str, self.weights))}.")
        if self.order == "in_turn" and len(set(self.weights)) > 1:
            raise UsageError("task_weights do not go with task_order in_turn, where every task has the same share.")

    def rows(self, update: int, batch_size: int) -> tuple[int, ...]:
        """Return how many of the batch's rows each task gives, `[K]`; their sum is `batch_size`."""
        num_tasks = len(self.weights)
        if self.order == "mixed":
            return _mixed_rows(self.weights, update, batch_size)
        task = update % num_tasks
        if self.order == "random":
            shares = [weight / sum(self.weights) for weight in self.weights]
            task = int(stream_generator(self.seed, "task", update).choice(num_tasks, p=shares))
        return tuple(batch_size if index == task else 0 for index in range(num_tasks))

    def mean_rows(self, batch_size: int) -> tuple[float, ...]:
        """Return how many rows each task gives for an update, `[K]`, on average over many."""
        return tuple(batch_size * weight / sum(self.weights) for weight in self.weights)


def _mixed_rows(weights: Sequence[float], update: int, batch_size: int) -> tuple[int, ...]:
    """Share a batch out by weight; what does not divide goes round, so that over many updates the shares are right."""
    total, before, rows = sum(weights), 0, list[int]()
    for index in range(len(weights)):
        border = sum(weights[: index + 1]) / total * batch_size
        # A place in [0, 1) that moves on by the golden ratio rounds each border up as often as it should be.
        until = batch_size if index == len(weights) - 1 else math.floor(border + (update * 0.618033988749895) % 1.0)
        rows.append(until - before)
        before = until
    return tuple(rows)


def _malformed(text: str | float, name: str) -> str:
    # `linear:0.2->0.01` without quotes reaches us as `linear:0.2-`, and a file named 0.01 is born.
    hint = " The shell took '>' as a redirection: put the value in quotes." if str(text).endswith("-") else ""
    return (
        f"{name}: got {text!r}, expected a number, linear:START->END, cosine:START->END (either may end in @FRACTION, "
        f"and go on with ->VALUE) or one_cycle:PEAK.{hint}"
    )


def _way(shape: Shape, start: float, end: float, fraction: float) -> Schedule:
    _check_finite(start=start, end=end)
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], got {fraction}.")
    return Schedule(shape, ((0.0, start), (fraction, end)))


def _between(start: float, end: float, share: float) -> float:
    """Return the value at a share of the way, exact at both ends and for equal ends."""
    if share < 0.5:
        return start + (end - start) * share
    return end - (end - start) * (1 - share)


def _half_wave(share: float) -> float:
    """Return the share of the way after a share of the time: slow, fast, slow.

    Source: Loshchilov and Hutter 2016, "SGDR", equation 5, without restarts.
    """
    return (1 - math.cos(math.pi * share)) / 2


def _number_text(number: float) -> str:
    # The shortest text that reads back as the same number; float() undresses NumPy's scalars.
    return repr(float(number))


def _place_text(place: float, *, default: float) -> str:
    return "" if place == default else f"@{_number_text(place)}"


def _check_finite(**values: float) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}.")
