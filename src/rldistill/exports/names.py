"""Names for the numbers of observations and actions, as users, files and environments give them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from rldistill.checks import is_whole
from rldistill.errors import UsageError, shown
from rldistill.limits import JSON, BeyondLimitsError, read_file, read_json
from rldistill.policies import TorchPolicy
from rldistill.sight import checked_spans
from rldistill.tasks import Task


@dataclass(frozen=True)
class Term:
    """A name for some numbers that stand side by side in an observation or an action."""

    name: str
    size: int  # how many they are
    unit: str | None = None  # such as rad/s


@dataclass(frozen=True)
class Names:
    """What the numbers of a task mean, as far as somebody says it."""

    observation: tuple[Term, ...] = ()  # in order; none: they are named by the parts of the observation
    action: tuple[Term, ...] = ()  # in order; none: one term
    control_rate_hz: float | None = None  # decisions per second


def seen_names(names: Names, policy: TorchPolicy) -> Names:
    """Return names for what a policy sees, where they were given for all that its task shows.

    Raises:
        UsageError: a term lies across the edge of a part that the policy sees, or its numbers are seen apart.
    """
    sight, whole = policy.spec.sight, policy.tasks[0].fingerprint
    num_values = sum(term.size for term in names.observation)
    if sight is None or not names.observation:
        return names
    # Where a policy sees all numbers, in another order, both counts are alike: the names are of what the task shows.
    if num_values == policy.spec.num_observed < math.prod(whole.observation_shape):
        return names
    terms: list[tuple[int, Term]] = []
    places, first = sight.places(whole), 0
    for term in names.observation:
        inside = [places.index(place) for place in range(first, first + term.size) if place in places]
        if inside and inside != list(range(inside[0], inside[0] + term.size)):
            is_part = len(inside) < term.size
            how = f"{len(inside)} of these numbers" if is_part else "these numbers apart or in another order"
            raise UsageError(
                f"--names: {term.name!r} is {first}:{first + term.size} of the observation, and policy {policy.name!r} "
                f"sees {how} ({', '.join(sight.parts)}). Name each of these parts by itself."
            )
        first += term.size
        if inside:
            terms.append((inside[0], term))
    return replace(names, observation=tuple(term for _, term in sorted(terms, key=lambda own: own[0])))


def names_of_spans(spans: Mapping[str, Sequence[int]], task: Task) -> Names:
    """Return names of spans of a vector; the numbers between them go by their places.

    Raises:
        UsageError: the observations have names of their own or are no vector, or the spans do not fit.
    """
    terms, end = list[Term](), 0
    size = math.prod(task.fingerprint.observation_shape)
    known = sorted(checked_spans(spans, task).items(), key=lambda own: own[1])
    for name, (first, behind) in [*known, ("", (size, size))]:
        if end < first:
            terms.append(Term(f"{end}:{first}", first - end))
        if name:
            terms.append(Term(name, behind - first))
        end = behind
    return Names(tuple(terms))


def read_names(path: Path) -> Names:
    """Read `--names`: JSON with `observation` and `action`, lists of names or of `{name, size, unit}`, in order.

    Raises:
        UsageError: it is none.
    """
    try:
        data = read_json(read_file(path, JSON.num_bytes))
    except OSError as error:
        raise UsageError(
            f"--names {path} cannot be read: {error.strerror}. Expected a JSON file, or NAME=FIRST:END such as "
            "velocity=0:3."
        ) from error
    except BeyondLimitsError as error:
        raise UsageError(f"--names {path} {error}.") from error
    except ValueError as error:
        raise UsageError(f"--names {path} is no JSON: {error}.") from error
    return names_from(data, f"--names {path}")


def names_from(given: object, what: str) -> Names:
    """Return names from plain JSON data.

    Raises:
        UsageError: it does not hold them; begins with `what`.
    """
    data = cast(dict[str, Any], given) if isinstance(given, dict) else None
    if data is None or set(data) - {"observation", "action", "control_rate_hz"}:
        got = f"a {type(given).__name__}" if data is None else f"the keys {', '.join(sorted(map(str, data)))}"
        raise UsageError(f"{what}: got {got}, expected observation, action and control_rate_hz, or some of them.")
    rate = data.get("control_rate_hz")
    if rate is not None and not (isinstance(rate, int | float) and 0 < rate < float("inf")):
        raise UsageError(f"{what}: control_rate_hz must be a number > 0, got {shown(rate)}.")
    observation, action = (_terms(data.get(key, []), f"{what}: {key}") for key in ("observation", "action"))
    return Names(observation, action, None if rate is None else float(rate))


def _terms(items: Any, what: str) -> tuple[Term, ...]:  # noqa: ANN401 (JSON)
    expected = 'expected a list of names, or of {"name": …, "size": …, "unit": …}'
    if not isinstance(items, list | tuple):
        raise UsageError(f"{what}: got {shown(items)}, {expected}.")
    terms: list[Term] = []
    for item in cast(Sequence[Any], items):
        data = {"name": item} if isinstance(item, str) else item
        if not isinstance(data, dict):
            raise UsageError(f"{what}: got {shown(item)} in the list, {expected}.")
        known = cast(dict[str, Any], data)
        name, size, unit = known.get("name"), known.get("size", 1), known.get("unit")
        is_right = is_whole(size) and isinstance(unit, str | None) and not known.keys() - {"name", "size", "unit"}
        if not (isinstance(name, str) and is_right):
            raise UsageError(
                f"{what}: got a term of {', '.join(f'{k}={shown(v)}' for k, v in known.items())}, {expected}."
            )
        terms.append(Term(name, size, unit))
    if twice := sorted({term.name for term in terms if [own.name for own in terms].count(term.name) > 1}):
        raise UsageError(f"{what}: got {', '.join(twice)} more than once. A name stands for one term.")
    return tuple(terms)
