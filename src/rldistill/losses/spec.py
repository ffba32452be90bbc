"""Losses by name: what each takes, and how a name becomes a function.

To add a loss, write a function of tensors in `discrete.py` or `continuous.py` and an entry in `_LOSSES`. Parameters of
its own stand in the entry alone: users set them by `loss_params`, as numbers or schedules, and nothing between that
option and the function knows their names. A temperature has an option of its own, because data can choose it.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rldistill.checks import is_finite
from rldistill.errors import MismatchError, UsageError
from rldistill.losses.continuous import diag_gaussian_kl, mean_huber, mean_mse, reverse_diag_gaussian_kl
from rldistill.losses.discrete import nll, q_mse, reverse_kl, sharpened_kl, softened_kl
from rldistill.losses.rows import RowLoss, action_loss, choice_loss, gaussian_loss
from rldistill.types import ActionLayout, OutputKind

CustomLoss = Callable[[Tensor, Tensor], Tensor]
"""A user's own loss: (student rows, target rows) → `[...]`, in Python only."""

# The teacher's outputs, divided by less, leave the range of float32, and so does the square of more.
_LEAST_TEMPERATURE, _MOST_TEMPERATURE = 1e-20, 1e18
# At this temperature a teacher whose logits differ by 0.25 is 99.3 % sure of one action.
_SHARP_TEMPERATURE = 0.05
_CUSTOM_PREFIX = "custom:"


@dataclass(frozen=True)
class _Entry:
    """What a loss takes."""

    function: Callable[..., Tensor]  # takes the student's tensors, the teacher's, and the parameters by name
    student_kind: OutputKind  # what it takes from the student's output; this makes the student
    # What it takes from the batch: each kind of teacher output that fits, with the defaults of the loss's own
    # parameters, all of them numbers > 0.
    teacher_kinds: Mapping[OutputKind, Mapping[str, float]]

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(next(iter(self.teacher_kinds.values())))

    def on_rows(self, output_kind: OutputKind, layout: ActionLayout | None) -> RowLoss:
        """Return the function as a loss on rows."""
        if self.student_kind == "gaussian":
            return gaussian_loss(self.function)
        if self.student_kind == "actions":
            assert layout is not None, "checked by make_loss"
            return action_loss(self.function, output_kind, layout)
        return choice_loss(self.function, layout)


_LOSSES: Mapping[str, _Entry] = {
    "nll": _Entry(nll, "logits", {"q_values": {}, "logits": {}}),
    "q_mse": _Entry(q_mse, "q_values", {"q_values": {}}),
    "sharpened_kl": _Entry(sharpened_kl, "logits", {"q_values": {"temperature": 0.01}, "logits": {"temperature": 1.0}}),
    "softened_kl": _Entry(softened_kl, "logits", {"q_values": {"temperature": 1.0}, "logits": {"temperature": 1.0}}),
    "reverse_kl": _Entry(reverse_kl, "logits", {"q_values": {"temperature": 0.01}, "logits": {"temperature": 1.0}}),
    "diag_gaussian_kl": _Entry(diag_gaussian_kl, "gaussian", {"gaussian": {}}),
    "reverse_diag_gaussian_kl": _Entry(reverse_diag_gaussian_kl, "gaussian", {"gaussian": {}}),
    "mean_mse": _Entry(mean_mse, "actions", {"gaussian": {}, "actions": {}}),
    "mean_huber": _Entry(mean_huber, "actions", {"gaussian": {"delta": 1.0}, "actions": {"delta": 1.0}}),
}
# By what the teacher gives: the paper's choice for Q-values, the plain KL for a policy.
_DEFAULT_LOSSES: Mapping[OutputKind, str] = {
    "q_values": "sharpened_kl",
    "logits": "sharpened_kl",
    "gaussian": "diag_gaussian_kl",
    "actions": "mean_mse",
}
# What a value that is refused should have been, for parameters that have more to say than their range.
_HINTS: Mapping[str, str] = {"temperature": " Use 0.01 for Q-values of reward-clipped Atari, 1 for logits."}

LOSS_NAMES: tuple[str, ...] = tuple(_LOSSES)


def losses_with(parameter: str) -> tuple[str, ...]:
    """Return the names of the losses that take a parameter."""
    return tuple(name for name, entry in _LOSSES.items() if parameter in entry.parameters)


TEMPERED_LOSS_NAMES: tuple[str, ...] = losses_with("temperature")


@dataclass(frozen=True)
class LossSpec:
    """A loss as configuration files and run records name it."""

    # One of `LOSS_NAMES`, or `custom:` and the qualified name of a user's function, which records what was used and
    # cannot be made again from the name.
    name: str
    # Of the loss's own, by name; each a finite number > 0.
    parameters: Mapping[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        name: object = self.name  # from Python anything may come
        if not isinstance(name, str):
            names = ", ".join(LOSS_NAMES)
            raise UsageError(
                f"loss: got {name!r}, expected one of {names}, or in Python a function of (student, target)."
            )
        is_custom = name.startswith(_CUSTOM_PREFIX)
        if not is_custom and name not in _LOSSES:
            raise UsageError(_unknown_loss(name))
        for parameter, value in self.parameters.items():
            if is_custom or parameter not in _LOSSES[self.name].parameters:
                raise UsageError(not_taken(parameter, value, self.name))
            check_parameter(parameter, value)

    @property
    def temperature(self) -> float | None:
        """None where the loss takes none, or where the choice is left to the teacher's kind of output."""
        return self.parameters.get("temperature")


@dataclass(frozen=True)
class LossFunction:
    """A loss with its parameters, ready for a training loop; made by `make_loss`."""

    spec: LossSpec  # name and parameters with every default filled in, as they are to be recorded
    function: RowLoss = field(repr=False)  # the maths, called with student, target and the parameters by name
    student_kind: OutputKind  # what it takes from the student's output
    teacher_kind: OutputKind  # what it takes from the batch
    layout: ActionLayout | None = None  # of the actions; None: one choice

    def __call__(self, student: Tensor, target: Tensor, **changed: float | None) -> Tensor:
        """Return one loss per row.

        Args:
            student: `[..., S]`, the student's rows, of `student_kind`.
            target: `[..., O]`, the teacher's; they get no gradient.
            **changed: parameters that override the spec's, for a schedule. None keeps it.

        Returns:
            `[...]`, float32.

        Raises:
            UsageError: the loss takes no such parameter, or the value is not a finite number > 0.
        """
        parameters = {**self.spec.parameters}
        for name, value in _given(changed).items():
            if name not in parameters:
                raise UsageError(not_taken(name, value, self.spec.name))
            check_parameter(name, value)
            parameters[name] = value
        return self.function(student, target, **parameters)


def check_loss(name: str, **parameters: float | None) -> LossSpec:
    """Check a name and parameters before the teacher's outputs are known; a parameter of None is not given.

    Raises:
        UsageError: no such loss, a parameter out of range, or one that the loss does not take.
    """
    spec = LossSpec(name, _given(parameters))
    if spec.name not in _LOSSES:
        raise UsageError(
            f"loss: got {spec.name!r}, a Python function that its name cannot bring back. "
            "Pass the function itself, in Python."
        )
    return spec


def resolve_loss(name: str | None, output_kind: OutputKind, **parameters: float | None) -> LossSpec:
    """Fill in what the user left open, by what the teacher gives.

    Args:
        name: one of `LOSS_NAMES`; None takes the default for the teacher's outputs.
        output_kind: which action field the teacher's outputs have.
        **parameters: of the loss; None takes the default for the teacher's outputs.

    Returns:
        The spec, with every parameter that the loss takes.

    Raises:
        UsageError: no such loss, a parameter out of range, or one that the loss does not take.
        MismatchError: the loss does not fit what the teacher gives.
    """
    spec = check_loss(_DEFAULT_LOSSES[output_kind] if name is None else name, **parameters)
    fits = _LOSSES[spec.name].teacher_kinds
    if output_kind not in fits:
        raise MismatchError(_does_not_fit(spec.name, output_kind))
    return LossSpec(spec.name, {**fits[output_kind], **spec.parameters})


def make_loss(
    name: str | CustomLoss | None,
    output_kind: OutputKind,
    layout: ActionLayout | None = None,
    **parameters: float | None,
) -> LossFunction:
    """Return the loss of a name, or a user's own function, for what a teacher gives.

    Args:
        name: one of `LOSS_NAMES`; None takes the default for the teacher's outputs: `sharpened_kl` at temperature 0.01
            for Q-values, at 1 for logits, `diag_gaussian_kl` for a Gaussian, `mean_mse` for actions. A callable
            `(student, target) → [B]` is taken as it is: it receives float32 rows and its result's shape is checked.
        output_kind: which action field the teacher's outputs have.
        layout: how the teacher's outputs are to be read; None: scores of one choice.
        **parameters: of the loss, such as `temperature=0.1`; None takes the default for the teacher's outputs.

    Returns:
        The loss; its `spec` says what was chosen, its `student_kind` what the student must give.

    Raises:
        UsageError: no such loss, a parameter out of range, or one that the loss does not take; no
            layout for actions in a box.
        MismatchError: the loss does not fit what the teacher gives.
    """
    if callable(name):
        _check_arguments(name)
        spec = LossSpec(_CUSTOM_PREFIX + _qualified_name(name), _given(parameters))
        # A user's own loss makes a policy of a student of Q-values; else the student gives what the teacher gives.
        student_kind = "logits" if output_kind == "q_values" else output_kind
        return LossFunction(spec, _checked(name), student_kind, output_kind, layout)
    spec = resolve_loss(name, output_kind, **parameters)
    entry = _LOSSES[spec.name]
    _check_layout(output_kind, layout)
    return LossFunction(spec, entry.on_rows(output_kind, layout), entry.student_kind, output_kind, layout)


def pairing_warning(name: str, output_kind: OutputKind, temperature: float | None) -> str | None:
    """Return one line on a choice that is allowed and probably not meant, None if there is none.

    Args:
        name: of the loss, resolved.
        output_kind: what the teacher gives.
        temperature: of a schedule the lowest; None: the loss takes none.
    """
    if output_kind != "logits" or name not in TEMPERED_LOSS_NAMES:
        return None
    if temperature is None or temperature > _SHARP_TEMPERATURE:
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
        if student.dim() > 2:  # several students: a function of rows may name its dimensions from the front
            return torch.stack([checked(*rows) for rows in zip(student, target, strict=True)])
        losses = loss(student.float(), target.detach().float())
        if not isinstance(losses, torch.Tensor) or losses.shape != student.shape[:-1]:
            got = f"shape {list(losses.shape)}" if isinstance(losses, torch.Tensor) else type(losses).__name__
            raise UsageError(
                f"loss: {_qualified_name(loss)} returned {got}, expected a tensor of shape {list(student.shape[:-1])}, "
                "one value per row. Sum over actions and leave the mean over the batch to the training loop."
            )
        if student.requires_grad and torch.is_grad_enabled() and not losses.requires_grad:
            raise UsageError(
                f"loss: {_qualified_name(loss)} returned values without a gradient, expected ones that the student's "
                "rows, its first argument, are part of: nothing can be learned. detach(), item(), numpy() and argmax() "
                "cut the gradient off."
            )
        return losses

    return checked


def _qualified_name(loss: CustomLoss) -> str:
    # A partial or an object with __call__ has no name of its own; its class has.
    return f"{loss.__module__}.{getattr(loss, '__qualname__', type(loss).__qualname__)}"


def _given(parameters: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in parameters.items() if value is not None}


def check_parameter(name: str, value: object) -> None:
    """Check a value of a loss's parameter; raises UsageError: it is out of range."""
    if not (is_finite(value) and value > 0):
        raise UsageError(f"{name}: got {value!r}, expected a finite number > 0.{_HINTS.get(name, '')}")
    if name == "temperature" and value < _LEAST_TEMPERATURE:
        raise UsageError(
            f"temperature: got {value!r}, expected {_LEAST_TEMPERATURE:g} or more: a teacher's outputs, divided "
            "by less, are beyond the range of float32."
        )
    if name == "temperature" and value > _MOST_TEMPERATURE:
        raise UsageError(
            f"temperature: got {value!r}, expected {_MOST_TEMPERATURE:g} or less: the square of more is beyond the "
            "range of float32."
        )


def not_taken(parameter: str, value: float | str, name: str) -> str:
    """Return what to say of a parameter for a loss that does not take it."""
    others = losses_with(parameter)
    way = f", or use a loss that takes one: {', '.join(others)}" if others else ""
    return f"{parameter}: got {value} for the loss {name!r}, which takes none. Leave it out{way}."


def _unknown_loss(name: object) -> str:
    # What a name contains is nearer than what is spelled alike: kl is sharpened_kl, mse is q_mse.
    words = str(name).lower().replace("-", "_")
    containing = [known for known in LOSS_NAMES if words and words in known]
    nearest = containing or difflib.get_close_matches(words, LOSS_NAMES, n=1)
    hint = f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
    return f"loss: got {name!r}, expected one of {', '.join(LOSS_NAMES)}.{hint}"


def _does_not_fit(name: str, output_kind: OutputKind) -> str:
    fitting = [other for other, entry in _LOSSES.items() if output_kind in entry.teacher_kinds]
    fits = " or ".join(_LOSSES[name].teacher_kinds)
    return f"loss: {name!r} fits {fits}, the teacher gives {output_kind}. Use one of {', '.join(fitting)}."
