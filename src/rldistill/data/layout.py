"""What every step holds, and how rows become observations: the same for files and for memory."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rldistill.checks import check_name, check_shape
from rldistill.observations import fields as fields_of
from rldistill.observations import flat
from rldistill.tasks import ObservationFingerprint
from rldistill.types import OUTPUT_FIELDS, ActionLayout, OutputKind

FieldRole = Literal["observation", "action", "reward", "terminated", "truncated", "target", "discount", "teacher"]


@dataclass(frozen=True)
class FieldSpec:
    """One value that every step has."""

    dtype: str  # numpy name, such as `float32`
    shape: tuple[int, ...]  # of one step's value; of the observation: one row as stored, without the stack
    role: FieldRole  # what the value is to a distillation

    def __post_init__(self) -> None:
        if self.role not in get_args(FieldRole):
            raise ValueError(f"role must be one of {', '.join(get_args(FieldRole))}, got {self.role!r}.")
        check_name(self, "dtype")
        if np.dtype(self.dtype).kind not in "biuf":
            raise ValueError(f"dtype must be a boolean or a number, got {self.dtype!r}.")
        check_shape(self, "shape")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "FieldSpec":
        """Read what `dataclasses.asdict` wrote."""
        return cls(data["dtype"], tuple(data["shape"]), data["role"])


OBSERVATION = "observation"
"""The field of observations of one part; those of several lie in `observation.NAME`."""
TEACHER = "teacher"
"""The field that says which of several teachers labelled a step, by its place in `teacher.several` of the manifest."""


def observation_fields(fingerprint: ObservationFingerprint) -> dict[str, FieldSpec]:
    """Return the fields of a task's rows: one for each part; of frames that are stacked, one frame is a row."""
    parts = fingerprint.separate_parts
    if parts:
        return {f"{OBSERVATION}.{part.name}": FieldSpec(part.dtype, part.shape, "observation") for part in parts}
    return whole_observation_field(fingerprint)


def whole_observation_field(fingerprint: ObservationFingerprint) -> dict[str, FieldSpec]:
    """Return the one field of a task's rows, as version 1 of the format has it whatever they are made of."""
    shape = fingerprint.observation_shape[1:] if fingerprint.frame_stack > 1 else fingerprint.observation_shape
    return {OBSERVATION: FieldSpec(fingerprint.observation_dtype, shape, "observation")}


def step_fields(
    fingerprint: ObservationFingerprint,
    output_kind: OutputKind,
    further: Mapping[str, tuple[int, ...]] | None = None,
    *,
    has_several: bool = False,
) -> dict[str, FieldSpec]:
    """Return the fields of a dataset in which a discrete, a Gaussian or a deterministic teacher plays.

    Rewards are float64, as environments give them: sums of what is stored equal the
    returns that were seen. Targets are float32.

    Args:
        fingerprint: of the task, with the teacher's actions.
        output_kind: of the teacher.
        further: shapes of what it gives besides its outputs, by name, as far as that is stored.
        has_several: whether it is several policies: which of them labelled a step is stored as its place.
    """
    layout = fingerprint.action_layout
    action_dtype = "float32" if layout.is_continuous else "int32"
    return {
        **observation_fields(fingerprint),
        "action": FieldSpec(action_dtype, layout.action_shape, "action"),
        "reward": FieldSpec("float64", (), "reward"),
        "terminated": FieldSpec("bool", (), "terminated"),
        "truncated": FieldSpec("bool", (), "truncated"),
        **{name: FieldSpec("float32", (size,), "target") for name, size in target_sizes(layout, output_kind).items()},
        **further_fields(further or {}),
        **({TEACHER: FieldSpec("int32", (), "teacher")} if has_several else {}),
    }


def further_fields(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, FieldSpec]:
    """Return the fields of what a teacher gives besides its outputs."""
    return {name: FieldSpec("float32", shape, "target") for name, shape in shapes.items()}


def target_sizes(layout: ActionLayout, output_kind: OutputKind) -> dict[str, int]:
    """Return the fields in which a teacher's rows `[B, O]` lie, in order, with the width of each."""
    names = OUTPUT_FIELDS[output_kind]
    return dict.fromkeys(names, layout.num_outputs(output_kind) // len(names))


def as_targets(
    raw: NDArray[np.float32], layout: ActionLayout, output_kind: OutputKind
) -> dict[str, NDArray[np.float32]]:
    """Return a teacher's rows `[B, O]` as the fields of a dataset."""
    sizes = target_sizes(layout, output_kind)
    width = raw.shape[1] // len(sizes)
    return {name: raw[:, index * width : (index + 1) * width] for index, name in enumerate(sizes)}


@dataclass(frozen=True)
class StepLayout:
    """What a store needs to know of its steps."""

    observation_shape: tuple[int, ...]  # of one observation as a network sees it, the stack included
    frame_stack: int  # rows that make one observation
    observation_fields: Mapping[str, FieldSpec]  # dtype and shape of the rows of each part
    step_fields: Mapping[str, FieldSpec]  # the fields that lie in arrays, one value per step

    @classmethod
    def of_task(cls, fingerprint: ObservationFingerprint, step_fields: Mapping[str, FieldSpec]) -> "StepLayout":
        """Return the layout of a task's observations with fields of one's own."""
        fields = observation_fields(fingerprint)
        return cls(fingerprint.observation_shape, fingerprint.frame_stack, fields, dict(step_fields))

    @property
    def row_spec(self) -> FieldSpec:
        """Dtype and shape of a row as players give it, its parts side by side."""
        shape = self.observation_shape[1:] if self.frame_stack > 1 else self.observation_shape
        dtype = np.result_type(*(spec.dtype for spec in self.observation_fields.values()))
        return FieldSpec(str(dtype), shape, "observation")

    def rows(self, observations: NDArray[Any]) -> NDArray[Any]:
        """Return what is stored of observations `[N, *observation_shape]`: the newest frame of a stack, else all."""
        return observations[:, -1] if self.frame_stack > 1 else observations

    def split(self, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return rows `[N, ...]` by field, as players give them or side by side; each part in its type and shape."""
        return split_parts(rows, self.observation_fields)

    def joined(self, parts: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return what `split` undoes: parts `[N, ...]` side by side, observations of one as they are."""
        if OBSERVATION in parts:
            return parts[OBSERVATION]
        return np.concatenate([part.reshape(len(part), -1) for part in parts.values()], axis=1)


def split_parts(rows: NDArray[Any], fields: Mapping[str, FieldSpec]) -> dict[str, NDArray[Any]]:
    """Return rows `[N]` of several parts, or `[N, P]`, as their parts `[N, ...]`.

    Nothing is lost, for parts of bytes hold bytes.
    """
    if rows.dtype.names:
        if OBSERVATION not in fields:
            return dict(zip(fields, fields_of(rows).values(), strict=True))
        rows = flat(rows)  # version 1 of the format has one field for all parts
    if len(fields) == 1:
        return {name: rows.reshape(len(rows), *spec.shape) for name, spec in fields.items()}
    borders = np.cumsum([math.prod(spec.shape) for spec in fields.values()])[:-1]
    pieces = zip(fields.items(), np.split(rows, borders, axis=1), strict=True)
    return {name: piece.reshape(-1, *spec.shape).astype(spec.dtype) for (name, spec), piece in pieces}
