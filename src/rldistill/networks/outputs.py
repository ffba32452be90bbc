"""What the outputs of a program or a module mean: declared by the user where they cannot say it.

A declaration is written `q_values`, `logits`, `gaussian` or `actions`, and where a program has
several outputs also which of them: `logits=policy`, `gaussian=mu,log_std`, `gaussian=mu,log(std)`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast, get_args

import torch
from torch import Tensor

from rldistill.errors import MismatchError, PolicyFileError, UsageError
from rldistill.types import OUTPUT_KINDS_OF_ACTIONS, ActionLayout, OutputKind

_LOG = re.compile(r"log\((.+)\)")
# Outputs of these names say themselves what they are.
_TELLING_NAMES: Mapping[OutputKind, tuple[str, ...]] = {
    "q_values": ("q_values",),
    "logits": ("logits",),
    "gaussian": ("mean", "log_std"),
    "actions": ("actions",),
}


@dataclass(frozen=True)
class OutputDeclaration:
    """Which of a program's outputs are its policy, and as what they are to be read.

    Attributes:
        kind: the action field.
        names: of the outputs, in the order of the raw row; empty: the only one, or those that `kind` names.
        is_std: gaussian from two outputs: whether the second is a standard deviation, not its logarithm.
    """

    kind: OutputKind
    names: tuple[str, ...] = ()
    is_std: bool = False

    @property
    def text(self) -> str:
        """As a user would write it."""
        names = list(self.names)
        if self.is_std:
            names[-1] = f"log({names[-1]})"
        return f"{self.kind}={','.join(names)}" if names else self.kind


def parse_outputs(text: str) -> OutputDeclaration:
    """Read `KIND` or `KIND=NAME`, for a Gaussian also `gaussian=MEAN,LOG_STD` or `gaussian=MEAN,log(STD)`.

    Raises:
        UsageError: another kind, or more names than it has parts.
    """
    kind, equals, rest = text.partition("=")
    if kind not in get_args(OutputKind):
        raise UsageError(
            f"outputs: got {text!r}, expected {'|'.join(get_args(OutputKind))}, with the outputs' names where there "
            "are several, such as logits=policy or gaussian=mu,log_std."
        )
    names: tuple[str, ...] = tuple(name.strip() for name in rest.split(",")) if equals else ()
    most = 2 if kind == "gaussian" else 1
    if len(names) > most or not all(names):
        raise UsageError(
            f"outputs: got {text!r}, expected {kind}= and {'one or two names' if most == 2 else 'one name'}."
        )
    output_kind = cast(OutputKind, kind)
    if len(names) == 2 and (std := _LOG.fullmatch(names[1])):
        return OutputDeclaration(output_kind, (names[0], std[1]), is_std=True)
    return OutputDeclaration(output_kind, names)


def check_kind(what: str, declared: OutputDeclaration, layout: ActionLayout) -> None:
    """Check that actions of a layout have outputs of the declared kind.

    Raises:
        MismatchError: lists the kinds that they have.
    """
    kinds = _kinds(layout)
    if declared.kind not in kinds:
        raise MismatchError(
            f"{what}: its outputs were declared as {declared.kind}, but {layout.kind} actions have "
            f"{' or '.join(kinds)}. Was another task meant?"
        )


def resolve_outputs(
    what: str, declared: OutputDeclaration | None, outputs: Mapping[str, Tensor], layout: ActionLayout | None
) -> OutputDeclaration:
    """Return a declaration that names every output it takes.

    Args:
        what: the program, as messages call it.
        declared: what the user said, if anything.
        outputs: what the program returned for a batch `[B, …]`, by name.
        layout: of the task's actions; None where no task was named.

    Raises:
        UsageError: nothing says what the outputs are, or which of several is meant.
        MismatchError: the task's actions have no outputs of this kind, or the program not the output named.
    """
    if declared is None:
        telling = [OutputDeclaration(kind, _TELLING_NAMES[kind]) for kind in _kinds(layout) if _tells(kind, outputs)]
        if len(telling) != 1:
            raise UsageError(_undeclared(what, outputs, layout))
        return telling[0]
    if layout is not None:
        check_kind(what, declared, layout)
    if missing := [name for name in declared.names if name not in outputs]:
        raise MismatchError(_missing(what, missing[0], outputs))
    if declared.names:
        return declared
    if len(outputs) == 1:
        return OutputDeclaration(declared.kind, tuple(outputs))
    if _tells(declared.kind, outputs):
        return OutputDeclaration(declared.kind, _TELLING_NAMES[declared.kind])
    example = (
        "gaussian=MEAN,LOG_STD or gaussian=MEAN,log(STD)" if declared.kind == "gaussian" else f"{declared.kind}=NAME"
    )
    raise UsageError(
        f"{what} has {len(outputs)} outputs: {shown_outputs(outputs)}. Say which of them are its {declared.kind}: "
        f"--outputs {example}."
    )


def raw_rows(what: str, declared: OutputDeclaration, outputs: Mapping[str, Tensor]) -> Tensor:
    """Return the outputs that a resolved declaration names as raw rows `[B, O]`, float32.

    Raises:
        MismatchError: an output is missing, or mean and spread have different sizes.
    """
    if missing := [name for name in declared.names if name not in outputs]:
        # A program that answers otherwise than it did when it was loaded.
        raise MismatchError(_missing(what, missing[0], outputs))
    parts = [outputs[name].float() for name in declared.names]
    if len(parts) == 1:
        return parts[0]
    mean, spread = parts
    if declared.is_std:
        spread = spread.log()
    if tuple(spread.shape) in (tuple(mean.shape[1:]), (1, *mean.shape[1:])):
        # A spread that does not depend on the state may come as one row for all.
        spread = spread.expand(mean.shape)
    if mean.dim() != 2 or mean.shape != spread.shape:
        shown = shown_outputs({name: outputs[name] for name in declared.names})
        raise MismatchError(f"{what}: mean and spread must be [B, D] both, got {shown}.")
    return torch.cat([mean, spread], dim=-1)


def check_raw(what: str, declared: OutputDeclaration, raw: Tensor, layout: ActionLayout, batch_size: int) -> None:
    """Check that raw rows are as many and as wide as the task's actions need.

    Raises:
        MismatchError: shows both shapes, and what an output of this width could be.
    """
    expected = layout.num_outputs(declared.kind)
    if tuple(raw.shape) == (batch_size, expected):
        return
    width = raw.shape[-1] if raw.dim() == 2 else None
    could_be = [kind for kind in _kinds(layout) if layout.num_outputs(kind) == width]
    hint = f" It could be {' or '.join(could_be)}." if could_be else " Was it made for another task?"
    raise MismatchError(
        f"{what}: {declared.text} is {list(raw.shape)} for {batch_size} observations, expected "
        f"[{batch_size}, {expected}] ({shown_actions(layout)}).{hint}"
    )


def check_repeats(what: str, raw: Tensor, again: Tensor) -> None:
    """Check that the same observations were answered the same twice, but for rounding.

    Raises:
        MismatchError: they were not: something is remembered, or drawn.
    """
    if raw.shape != again.shape or not torch.allclose(raw, again, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise MismatchError(
            f"{what} answers the same observations differently when it is asked again: it remembers, or draws random "
            "numbers. Policies with a memory are not supported, and actions are drawn from what a policy answers."
        )


def check_kinds_of_values(what: str, declared: OutputDeclaration, outputs: Mapping[str, Tensor]) -> None:
    """Refuse whole numbers, an action already chosen, which says nothing of the others; and complex ones.

    Raises:
        PolicyFileError: names the output.
    """
    for name in declared.names:
        dtype = str(outputs[name].dtype).removeprefix("torch.")
        if outputs[name].is_complex():
            raise PolicyFileError(
                f"{what}: output {name!r} is {dtype}, expected real numbers. Return or export their real part."
            )
        if not outputs[name].is_floating_point():
            raise PolicyFileError(
                f"{what}: output {name!r} is {dtype}: the actions it has chosen, not scores of all of them. "
                "Export it again with its Q-values or logits."
            )


def shown_outputs(outputs: Mapping[str, Tensor], most: int = 8) -> str:
    """Return names and sizes as messages list them; B stands for the batch."""
    shown = [f"{name} {['B', *tensor.shape[1:]]}".replace("'", "") for name, tensor in outputs.items()]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")


def shown_actions(layout: ActionLayout) -> str:
    """Return an action space as messages call it."""
    return f"{layout.kind} {list(layout.sizes)}"


def _missing(what: str, name: str, outputs: Mapping[str, Tensor]) -> str:
    return f"{what} has no output {name!r}, only {shown_outputs(outputs)}."


def _tells(kind: OutputKind, outputs: Mapping[str, Tensor]) -> bool:
    return set(_TELLING_NAMES[kind]) <= outputs.keys()


def _kinds(layout: ActionLayout | None) -> tuple[OutputKind, ...]:
    return get_args(OutputKind) if layout is None else OUTPUT_KINDS_OF_ACTIONS[layout.kind]


def _undeclared(what: str, outputs: Mapping[str, Tensor], layout: ActionLayout | None) -> str:
    if layout is None:
        fits = f"expected --outputs {'|'.join(get_args(OutputKind))}"
    else:
        kinds = ", ".join(f"{kind} ({layout.num_outputs(kind)} values)" for kind in _kinds(layout))
        fits = f"expected --outputs {'|'.join(_kinds(layout))}: {shown_actions(layout)} actions have {kinds}"
    return f"{what} does not say what its outputs are: got {shown_outputs(outputs)}, {fits}."
