"""Who sees what: the parts of an observation that a policy sees, by name and in order.

The environment names the parts itself where its observations are a Dict or a Tuple. The numbers of a vector have no
names; a user gives some to spans of it.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from rldistill.checks import is_whole
from rldistill.errors import UsageError, shown
from rldistill.observations import Tensors, alone
from rldistill.tasks import ObservationFingerprint, ObservationPart, Task

Spans = Mapping[str, tuple[int, int]]
"""By name, the first number of a span of a vector and the one behind its last."""
_WHOLE = "observation"


@dataclass(frozen=True)
class Sight:
    """Which parts a policy sees, in order."""

    parts: tuple[str, ...]  # their names
    # Of a vector whose numbers the user named; empty: the names are the environment's.
    spans: Spans = field(default_factory=dict[str, tuple[int, int]])

    def __post_init__(self) -> None:
        # Also what a stranger's file declares comes this way.
        names = [*self.parts, *self.spans]
        if not self.parts or not all(isinstance(name, str) and name for name in names):
            raise ValueError(f"parts must be one or more names, got {shown(self.parts)}.")
        if len(set(self.parts)) != len(self.parts):
            raise ValueError(f"parts must be different, got {shown(self.parts)}.")
        for span in self.spans.values():
            if not all(is_whole(place, least=0) for place in span) or len(span) != 2 or not span[0] < span[1]:
                raise ValueError(f"spans must be pairs of increasing whole numbers, got {shown(span)}.")
        if self.spans and not set(self.parts) <= set(self.spans):
            raise ValueError(f"parts must be among {', '.join(self.spans)}, got {shown(self.parts)}.")

    def seen(self, whole: ObservationFingerprint) -> ObservationFingerprint:
        """Return what is left of a task's observations: one part as it is, several with their names.

        Raises:
            UsageError: the observations have no such part.
        """
        there = _parts_of(whole, self.spans)
        unknown = [name for name in self.parts if name not in there]
        if unknown:
            raise UsageError(f"parts: got {unknown[0]!r}, expected some of {_listed(there)}.")
        chosen = tuple(there[name] for name in self.parts)
        if len(chosen) == 1:
            shape, dtype = chosen[0].shape or (1,), chosen[0].dtype
            # Bytes are scaled on their way into a network, which is right for images, and for vectors of bytes alone.
            dtype = dtype if chosen[0].is_image or whole.observation_dtype == dtype else "float32"
        else:
            all_images = all(part.is_image for part in chosen)
            shape = (sum(part.size for part in chosen),)
            dtype = "uint8" if all_images or (self.spans and whole.observation_dtype == "uint8") else "float32"
        return replace(
            whole,
            observation_shape=shape,
            observation_dtype=dtype,
            observation_parts=chosen if len(chosen) > 1 else (),
            zero_padding=0,
            time_feature=None,
        )

    def choose(self, observations: Tensors) -> Tensors:
        """Return the seen ones of all parts `[..., *part_shape]`; of a vector, its spans."""
        return alone({name: self.part(name, observations) for name in self.parts})

    def part(self, name: str, observations: Tensors) -> Tensor:
        """Return one of all parts; of a vector, a view of its span."""
        if not self.spans:
            assert not isinstance(observations, Tensor), "observations of several parts have names"
            return observations[name]
        vector = observations if isinstance(observations, Tensor) else observations[_WHOLE]
        return vector[..., slice(*self.spans[name])]

    def places(self, whole: ObservationFingerprint) -> list[int]:
        """Return where the numbers that are seen lie in the vector of all parts."""
        spans = self.spans or _own_spans(whole)
        return [place for name in self.parts for place in range(*spans[name])]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        spans = {name: list(span) for name, span in self.spans.items()}
        return {"parts": list(self.parts), **({"names": spans} if spans else {})}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Sight":
        """Read what `to_dict` wrote; raises ValueError, KeyError or TypeError: it did not."""
        spans = {name: tuple(span) for name, span in dict(data.get("names", {})).items()}
        return cls(tuple(data["parts"]), spans)


def choose_parts(
    option: str,
    chosen: str | Sequence[str] | None,
    names: Mapping[str, Sequence[int]] | None,
    task: Task,
) -> Sight | None:
    """Return what a user chose by name; None: the policy sees everything.

    Args:
        option: that names the parts, for messages.
        chosen: names, in order.
        names: spans of a vector, `[first, end]`, or `[first]` to the end.
        task: whose observations they are.

    Raises:
        UsageError: lists what there is.
    """
    spans = checked_spans(names or {}, task)
    if chosen is None:
        return None
    there = _parts_of(task.fingerprint, spans)
    if not there:
        raise UsageError(
            f"{option}: the observations of task {task.name!r} have no parts with names, "
            f"{task.fingerprint.observation_description}. Name spans of a vector: --names velocity=0:3,rest=3:."
        )
    wanted = [chosen] if isinstance(chosen, str) else list(chosen)
    wanted = [name for name in wanted if name != ""]
    if not wanted:
        raise UsageError(f"{option}: got no part, expected one or more of {_listed(there)}.")
    for name in wanted:
        if name not in there:
            near = difflib.get_close_matches(str(name), there, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            if "," in str(name):  # as the command line takes them
                hint = f" In Python give several as a tuple: {option}={tuple(str(name).split(','))!r}."
            raise UsageError(
                f"{option}: task {task.name!r} has no part {name!r}, expected some of {_listed(there)}.{hint}"
            )
        if wanted.count(name) > 1:
            raise UsageError(f"{option}: got {name!r} twice, expected each part once.")
    return Sight(tuple(wanted), spans)


def recorded_sight(reading: object) -> Sight | None:
    """Return what the record of a teacher says that it sees (`policies.entry`); a stranger's may say anything."""
    said = reading.get("sight") if isinstance(reading, Mapping) else None
    try:
        return None if said is None else Sight.from_dict(said)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def part_names(fingerprint: ObservationFingerprint, spans: Spans) -> tuple[str, ...]:
    """Return the names of all parts."""
    return tuple(_parts_of(fingerprint, spans))


def checked_spans(names: Mapping[str, Sequence[int]], task: Task) -> Spans:
    """Return spans of a vector as a user gives them, `[first, end]`, or `[first]` to the end.

    Raises:
        UsageError: the observations have names of their own or are no vector, or the spans do not fit.
    """
    fingerprint = task.fingerprint
    if not names:
        return {}
    if fingerprint.separate_parts:
        own = _listed({part.name: part for part in fingerprint.separate_parts})
        raise UsageError(f"names: the observations of task {task.name!r} have their own: {own}. Leave --names out.")
    if len(fingerprint.observation_shape) != 1:
        raise UsageError(
            f"names: are for spans of a vector, the observations of task {task.name!r} are "
            f"{fingerprint.observation_description}. Leave --names out."
        )
    (size,) = fingerprint.observation_shape
    spans: dict[str, tuple[int, int]] = {}
    for name, given in names.items():
        # From Python anything may come, a text too.
        places: list[Any] = list(given) if isinstance(given, list | tuple) else []
        if not (1 <= len(places) <= 2 and all(is_whole(place, least=0) for place in places)):
            raise UsageError(f"names: got {name}={given!r}, expected [first, end], or [first] to the end.")
        first, end = (*places, size) if len(places) == 1 else places
        if not first < end <= size:
            raise UsageError(
                f"names: got {name}={first}:{end}, expected a span of the {size} numbers of task {task.name!r}: 0 <= "
                f"first < end <= {size}."
            )
        for other, (begin, behind) in spans.items():
            if first < behind and begin < end:
                raise UsageError(f"names: {other}={begin}:{behind} and {name}={first}:{end} overlap.")
        spans[name] = (first, end)
    return spans


def _own_spans(fingerprint: ObservationFingerprint) -> dict[str, tuple[int, int]]:
    spans: dict[str, tuple[int, int]] = {}
    first = 0
    for part in fingerprint.separate_parts:
        spans[part.name] = (first, first + part.size)
        first += part.size
    return spans


def _parts_of(fingerprint: ObservationFingerprint, spans: Spans) -> dict[str, ObservationPart]:
    """Return the parts that have names."""
    if not spans:
        return {part.name: part for part in fingerprint.separate_parts}
    size = fingerprint.observation_shape[0] if len(fingerprint.observation_shape) == 1 else 0
    dtype = "uint8" if fingerprint.observation_dtype == "uint8" else "float32"
    return {name: ObservationPart(name, (end - first,), dtype) for name, (first, end) in spans.items() if end <= size}


def _listed(parts: Mapping[str, ObservationPart]) -> str:
    return ", ".join(f"{name} {list(part.shape)}" for name, part in parts.items())


def shown_to(task: Task, sight: Sight | None) -> Task:
    """Return a task as a policy that sees some parts has it; None: as it is."""
    return task if sight is None else replace(task, fingerprint=sight.seen(task.fingerprint))
