"""Losses by name: which there are, what each fits, and how a name becomes a function.

A user names a loss and perhaps a temperature; the teacher's kind of output decides what fits
and fills in what was left open. The result is recorded as a `LossSpec` and applied as a
`LossFunction`, to rows `[..., O]` that the layout of the actions says how to read.
"""

import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rldistill.errors import MismatchError, UsageError
from rldistill.losses.continuous import diag_gaussian_kl, mean_huber, mean_mse, reverse_diag_gaussian_kl
from rldistill.losses.discrete import nll, q_mse, reverse_kl, sharpened_kl, softened_kl
from rldistill.losses.rows import RowLoss, action_loss, choice_loss, gaussian_loss
from rldistill.types import ActionLayout, OutputKind

CustomLoss = Callable[[Tensor, Tensor], Tensor]
"""A user's own loss: (student rows, target rows) → `[...]`, in Python only."""

_LEAST_TEMPERATURE = 1e-20
# At this temperature a teacher whose logits differ by 0.25 is 99.3 % sure of one action.
_SHARP_TEMPERATURE = 0.05
_CUSTOM_PREFIX = "custom:"


@dataclass(frozen=True)
class _Entry:
    """One row of the table of losses.

    Attributes:
        function: called with student, target and, where the loss takes one, `temperature=`; its
            `student_kind` says with which parts of the rows.
        student_kind: the kind of output that the loss makes of a student.
        default_temperatures: the kinds of teacher output that fit, each with its default
            temperature, None where the loss takes none.
    """

    function: Callable[..., Tensor]
    student_kind: OutputKind
    default_temperatures: Mapping[OutputKind, float | None]

    @property
    def takes_temperature(self) -> bool:
        return None not in self.default_temperatures.values()

    def on_rows(self, output_kind: OutputKind, layout: ActionLayout | None) -> RowLoss:
        """Return the function as a loss on rows."""
        if self.student_kind == "gaussian":
            return gaussian_loss(self.function)
        if self.student_kind == "actions":
            assert layout is not None, "checked by make_loss"
            return action_loss(self.function, output_kind, layout)
        return choice_loss(self.function, layout)


_LOSSES: Mapping[str, _Entry] = {
    "nll": _Entry(nll, "logits", {"q_values": None, "logits": None}),
    "q_mse": _Entry(q_mse, "q_values", {"q_values": None}),
    "sharpened_kl": _Entry(sharpened_kl, "logits", {"q_values": 0.01, "logits": 1.0}),
    "softened_kl": _Entry(softened_kl, "logits", {"q_values": 1.0, "logits": 1.0}),
    "reverse_kl": _Entry(reverse_kl, "logits", {"q_values": 0.01, "logits": 1.0}),
    "diag_gaussian_kl": _Entry(diag_gaussian_kl, "gaussian", {"gaussian": None}),
    "reverse_diag_gaussian_kl": _Entry(reverse_diag_gaussian_kl, "gaussian", {"gaussian": None}),
    "mean_mse": _Entry(mean_mse, "actions", {"gaussian": None, "actions": None}),
    "mean_huber": _Entry(mean_huber, "actions", {"gaussian": None, "actions": None}),
}
# By what the teacher gives: the paper's choice for Q-values, the plain KL for a policy.
_DEFAULT_LOSSES: Mapping[OutputKind, str] = {
    "q_values": "sharpened_kl",
    "logits": "sharpened_kl",
    "gaussian": "diag_gaussian_kl",
    "actions": "mean_mse",
}
# A user's own loss makes a policy of a student of Q-values; otherwise the student gives what the teacher gives.
_CUSTOM_STUDENT_KINDS: Mapping[OutputKind, OutputKind] = {
    "q_values": "logits",
    "logits": "logits",
    "gaussian": "gaussian",
    "actions": "actions",
}

LOSS_NAMES: tuple[str, ...] = tuple(_LOSSES)
TEMPERED_LOSS_NAMES: tuple[str, ...] = tuple(name for name, entry in _LOSSES.items() if entry.takes_temperature)


@dataclass(frozen=True)
class LossSpec:
    """A loss as configuration files and run records name it.

    Attributes:
        name: one of `LOSS_NAMES`, or `custom:` and the qualified name of a user's function,
            which records what was used and cannot be made again from the name.
        temperature: > 0 and finite; None where the loss takes none, or to leave the choice to
            the teacher's kind of output.
    """

    name: str
    temperature: float | None = None

    def __post_init__(self) -> None:
        is_custom = self.name.startswith(_CUSTOM_PREFIX)
        if not is_custom and self.name not in _LOSSES:
            raise UsageError(_unknown_loss(self.name))
        if self.temperature is not None:
            if is_custom or not _LOSSES[self.name].takes_temperature:
                raise UsageError(takes_no_temperature(self.name, self.temperature))
            _check_temperature(self.temperature)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON or TOML; no temperature, no key."""
        data: dict[str, Any] = {"name": self.name}
        if self.temperature is not None:
            data["temperature"] = self.temperature
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "LossSpec":
        """Read what `to_dict` wrote.

        Raises:
            UsageError: a key is unknown or missing, or a value is of the wrong type or range.
        """
        if "name" not in data or not data.keys() <= {"name", "temperature"}:
            raise UsageError(f"loss: got the keys {sorted(data)}, expected name and, where it is set, temperature.")
        name, temperature = data["name"], data.get("temperature")
        if not isinstance(name, str):
            raise UsageError(_unknown_loss(name))
        if temperature is not None and (isinstance(temperature, bool) or not isinstance(temperature, int | float)):
            raise UsageError(_bad_temperature(temperature))
        return cls(name, temperature)


@dataclass(frozen=True)
class LossFunction:
    """A loss with its temperature, ready for a training loop; made by `make_loss`.

    Attributes:
        spec: name and temperature with every default filled in, as they are to be recorded.
        function: the maths, called with student, target and, where `spec` has one, `temperature=`.
        student_kind: what kind of output the student's rows must be.
    """

    spec: LossSpec
    function: RowLoss = field(repr=False)
    student_kind: OutputKind

    def __call__(self, student: Tensor, target: Tensor, *, temperature: float | None = None) -> Tensor:
        """Return one loss per row.

        Args:
            student: `[..., S]`, the student's rows, of `student_kind`.
            target: `[..., O]`, the teacher's; they get no gradient.
            temperature: > 0; overrides the spec's, for a schedule. None keeps it.

        Returns:
            `[...]`, float32.

        Raises:
            UsageError: the loss takes no temperature, or the temperature is not a finite number > 0.
        """
        if temperature is None:
            temperature = self.spec.temperature
        elif self.spec.temperature is None:
            raise UsageError(takes_no_temperature(self.spec.name, temperature))
        else:
            _check_temperature(temperature)
        if temperature is None:
            return self.function(student, target)
        return self.function(student, target, temperature=temperature)


def check_loss(name: str, temperature: float | None = None) -> LossSpec:
    """Check a name and a temperature before the teacher's outputs are known.

    Raises:
        UsageError: no such loss, a temperature out of range, or one for a loss that takes none.
    """
    spec = LossSpec(name, temperature)
    if spec.name not in _LOSSES:
        raise UsageError(
            f"loss: got {spec.name!r}, a Python function that its name cannot bring back. "
            "Pass the function itself, in Python."
        )
    return spec


def resolve_loss(name: str | None, output_kind: OutputKind, *, temperature: float | None = None) -> LossSpec:
    """Fill in what the user left open, by what the teacher gives.

    Args:
        name: one of `LOSS_NAMES`; None takes the default for the teacher's outputs.
        output_kind: which action field the teacher's outputs have.
        temperature: > 0; None takes the loss's default for the teacher's outputs.

    Returns:
        The spec, with a temperature if the loss takes one.

    Raises:
        UsageError: no such loss, a temperature out of range, or one for a loss that takes none.
        MismatchError: the loss does not fit what the teacher gives.
    """
    spec = check_loss(_DEFAULT_LOSSES[output_kind] if name is None else name, temperature)
    fits = _LOSSES[spec.name].default_temperatures
    if output_kind not in fits:
        raise MismatchError(_does_not_fit(spec.name, fitting_output_kinds(spec.name), output_kind))
    return spec if spec.temperature is not None else LossSpec(spec.name, fits[output_kind])


def make_loss(
    name: str | CustomLoss | None,
    output_kind: OutputKind,
    layout: ActionLayout | None = None,
    *,
    temperature: float | None = None,
) -> LossFunction:
    """Return the loss of a name, or a user's own function, for what a teacher gives.

    Args:
        name: one of `LOSS_NAMES`; None takes the default for the teacher's outputs: `sharpened_kl`
            at temperature 0.01 for Q-values, at 1 for logits, `diag_gaussian_kl` for a Gaussian,
            `mean_mse` for actions. A callable `(student, target) → [B]` is taken as it is: it
            receives float32 rows and its result's shape is checked.
        output_kind: which action field the teacher's outputs have.
        layout: how the teacher's outputs are to be read; None: scores of one choice.
        temperature: > 0; None takes the loss's default for the teacher's outputs.

    Returns:
        The loss; its `spec` says what was chosen, its `student_kind` what the student must give.

    Raises:
        UsageError: no such loss, a temperature out of range, or one for a loss that takes none; no
            layout for actions in a box.
        MismatchError: the loss does not fit what the teacher gives.
    """
    if callable(name):
        _check_arguments(name)
        spec = LossSpec(_CUSTOM_PREFIX + _qualified_name(name), temperature)
        return LossFunction(spec, _checked(name), _CUSTOM_STUDENT_KINDS[output_kind])
    spec = resolve_loss(name, output_kind, temperature=temperature)
    entry = _LOSSES[spec.name]
    _check_layout(output_kind, layout)
    return LossFunction(spec, entry.on_rows(output_kind, layout), entry.student_kind)


def fitting_output_kinds(name: str) -> tuple[OutputKind, ...]:
    """Return the kinds of teacher output that a loss of `LOSS_NAMES` fits."""
    return tuple(_LOSSES[name].default_temperatures)


def pairing_warning(
    name: str | CustomLoss | None, output_kind: OutputKind, temperature: float | None = None
) -> str | None:
    """Return one line on a choice that is allowed and probably not meant, None if there is none.

    The arguments are those of `make_loss`; for a schedule pass its lowest temperature.
    """
    takes_temperature = name is None or name in TEMPERED_LOSS_NAMES
    if output_kind != "logits" or not takes_temperature or temperature is None or temperature > _SHARP_TEMPERATURE:
        return None
    return (
        f"temperature: got {temperature} for a teacher that gives logits, which all but leaves its greedy action. "
        "Such values are meant for Q-values; 1 keeps the teacher's own policy."
    )


def _check_layout(output_kind: OutputKind, layout: ActionLayout | None) -> None:
    is_box, needs_box = layout is not None and layout.kind == "box", output_kind in ("gaussian", "actions")
    if is_box != needs_box:
        got, expected = "none" if layout is None else layout.kind, "box" if needs_box else "that of a choice"
        raise UsageError(f"layout: got {got} for a teacher that gives {output_kind}, expected {expected}.")


def _check_arguments(loss: CustomLoss) -> None:
    try:
        inspect.signature(loss).bind(None, None)
    except ValueError:
        return  # a function of another language does not say what it takes
    except TypeError as error:
        raise UsageError(
            f"loss: {_qualified_name(loss)} cannot be called as loss(student, target): {error}. "
            "Expected a function of two tensors."
        ) from error


def _checked(loss: CustomLoss) -> CustomLoss:
    """Wrap a user's loss: inputs as the losses here see them, result one value per row."""

    def checked(student: Tensor, target: Tensor) -> Tensor:
        losses = loss(student.float(), target.detach().float())
        if not isinstance(losses, torch.Tensor) or losses.shape != student.shape[:-1]:
            got = f"shape {list(losses.shape)}" if isinstance(losses, torch.Tensor) else type(losses).__name__
            raise UsageError(
                f"loss: {_qualified_name(loss)} returned {got}, expected a tensor of shape {list(student.shape[:-1])}, "
                "one value per row. Sum over actions and leave the mean over the batch to the training loop."
            )
        return losses

    return checked


def _qualified_name(loss: CustomLoss) -> str:
    # A partial or an object with __call__ has no name of its own; its class has.
    return f"{loss.__module__}.{getattr(loss, '__qualname__', type(loss).__qualname__)}"


def _check_temperature(temperature: float) -> None:
    if not (temperature > 0 and math.isfinite(temperature)):
        raise UsageError(_bad_temperature(temperature))
    if temperature < _LEAST_TEMPERATURE:
        raise UsageError(
            f"temperature: got {temperature!r}, expected {_LEAST_TEMPERATURE:g} or more: a teacher's outputs, divided "
            "by less, are beyond the range of float32."
        )


def _bad_temperature(temperature: object) -> str:
    return (
        f"temperature: got {temperature!r}, expected a finite number > 0. "
        "Use 0.01 for Q-values of reward-clipped Atari, 1 for logits."
    )


def takes_no_temperature(name: str, temperature: float | str) -> str:
    """Return what to say of a temperature for a loss that has none."""
    return (
        f"temperature: got {temperature} for the loss {name!r}, which takes none. "
        f"Leave it out, or use a loss that takes one: {', '.join(TEMPERED_LOSS_NAMES)}."
    )


def _unknown_loss(name: object) -> str:
    # What a name contains is nearer than what is spelled alike: kl is sharpened_kl, mse is q_mse.
    words = str(name).lower().replace("-", "_")
    containing = [known for known in LOSS_NAMES if words and words in known]
    nearest = containing or difflib.get_close_matches(words, LOSS_NAMES, n=1)
    hint = f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
    return f"loss: got {name!r}, expected one of {', '.join(LOSS_NAMES)}.{hint}"


def _does_not_fit(name: str, fits: tuple[OutputKind, ...], output_kind: OutputKind) -> str:
    fitting = [other for other, entry in _LOSSES.items() if output_kind in entry.default_temperatures]
    return f"loss: {name!r} fits {' or '.join(fits)}, the teacher gives {output_kind}. Use one of {', '.join(fitting)}."
