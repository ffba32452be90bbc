"""What the outputs of a program or a module mean: declared by the user where they cannot say it.

A declaration is written `q_values`, `logits`, `gaussian` or `actions`, and where a program has
several outputs also which of them: `logits=policy`, `gaussian=mu,log_std`, `gaussian=mu,log(std)`. Of a box whose
bounds -1 and 1 stand for, it is `actions=rescale` or `actions=rescale(NAME)`. Of a checkpoint of rsl_rl `actions=beta`
means the means of Beta distributions; of a plain state dict `actions=tanh` means outputs that pass through tanh, whose
-1 and 1 stand for the bounds.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast, get_args

import torch
from torch import Tensor

from rldistill.errors import MismatchError, PolicyFileError, UsageError, listed
from rldistill.types import OUTPUT_FIELDS, OUTPUT_KINDS_OF_ACTIONS, ActionLayout, OutputKind

_LOG = re.compile(r"log\((.+)\)")
_RESCALE = re.compile(r"rescale(?:\((.+)\))?")
_ONE_HOT = (
    "Return logits that choose them, with A actions: 10.0 * torch.nn.functional.one_hot(torch.as_tensor(chosen), A), "
    "where chosen is [B], int64."
)


@dataclass(frozen=True)
class OutputDeclaration:
    """Which of a program's outputs are its policy, and as what they are to be read."""

    kind: OutputKind  # the action field
    # Of the outputs, in the order of the raw row; empty: the only one, or those that `kind` names.
    names: tuple[str, ...] = ()
    is_std: bool = False  # gaussian from two outputs: whether the second is a standard deviation, not its logarithm
    is_scaled: bool = False  # of a box: whether -1 and 1 stand for its bounds, whatever those are

    @property
    def text(self) -> str:
        """As a user would write it."""
        names = list(self.names)
        if self.is_std:
            names[-1] = f"log({names[-1]})"
        text = ",".join(names)
        if self.is_scaled:
            text = f"rescale({text})" if names else "rescale"
        return f"{self.kind}={text}" if text else self.kind


# The mean of a Beta distribution for each action, from two outputs for each.
BETA_MEANS = OutputDeclaration("actions", ("beta",))
# Actions that pass through tanh, which leaves no trace in a state dict.
TANH_ACTIONS = OutputDeclaration("actions", ("tanh",))


def parse_outputs(text: str) -> OutputDeclaration:
    """Read `KIND` or `KIND=NAME`, for a Gaussian also `gaussian=MEAN,LOG_STD` or `gaussian=MEAN,log(STD)`.

    What is named may stand in `rescale(…)`, alone where it need not be named: a box's bounds are -1 and 1 in it.

    Raises:
        UsageError: another kind, or more names than it has parts.
    """
    kind, equals, rest = text.partition("=")
    if kind not in get_args(OutputKind):
        raise UsageError(
            f"outputs: got {text!r}, expected {'|'.join(get_args(OutputKind))}, with the outputs' names where there "
            "are several, such as logits=policy or gaussian=mu,log_std."
        )
    scaled = _RESCALE.fullmatch(rest.strip()) if kind in OUTPUT_KINDS_OF_ACTIONS["box"] else None
    if scaled is not None:
        equals, rest = (equals, scaled[1]) if scaled[1] else ("", "")
    names: tuple[str, ...] = tuple(name.strip() for name in rest.split(",")) if equals else ()
    most = 2 if kind == "gaussian" else 1
    if len(names) > most or not all(names):
        raise UsageError(
            f"outputs: got {text!r}, expected {kind}= and {'one or two names' if most == 2 else 'one name'}."
        )
    output_kind, is_scaled = cast(OutputKind, kind), scaled is not None
    if len(names) == 2 and (std := _LOG.fullmatch(names[1])):
        return OutputDeclaration(output_kind, (names[0], std[1]), is_std=True, is_scaled=is_scaled)
    return OutputDeclaration(output_kind, names, is_scaled=is_scaled)


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
    if declared.is_scaled and not layout.is_bounded:
        raise MismatchError(
            f"{what}: its outputs were declared as {declared.text}, but the box of the task's actions has no bounds. "
            f"Leave rescale out: --outputs {replace(declared, is_scaled=False).text}."
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
        # Outputs of these names say themselves what they are.
        telling = [OutputDeclaration(kind, OUTPUT_FIELDS[kind]) for kind in _kinds(layout) if _tells(kind, outputs)]
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
        return replace(declared, names=tuple(outputs))
    if _tells(declared.kind, outputs):
        return replace(declared, names=OUTPUT_FIELDS[declared.kind])
    example = (
        "gaussian=MEAN,LOG_STD or gaussian=MEAN,log(STD)" if declared.kind == "gaussian" else f"{declared.kind}=NAME"
    )
    raise UsageError(
        f"{what} has {len(outputs)} outputs: {shown_outputs(outputs)}. Say which of them are its {declared.kind}: "
        f"--outputs {example}."
    )


def raw_rows(
    what: str, declared: OutputDeclaration, outputs: Mapping[str, Tensor], layout: ActionLayout | None
) -> Tensor:
    """Return the outputs that a resolved declaration names as raw rows `[B, O]`, float32, in the environment's units.

    Args:
        what: the program, as messages call it.
        declared: names every output it takes.
        outputs: what the program returned, by name.
        layout: of the task's actions, to whose bounds declared outputs are rescaled; None where no task was named.

    Raises:
        MismatchError: an output is missing, or mean and spread have different sizes.
    """
    if missing := [name for name in declared.names if name not in outputs]:
        # A program that answers otherwise than it did when it was loaded.
        raise MismatchError(_missing(what, missing[0], outputs))
    rows = _joined(what, declared, outputs)
    if not declared.is_scaled or layout is None:
        return rows
    # Rows of another width are refused by `check_raw`.
    if rows.dim() != 2 or rows.shape[1] % layout.sizes[0]:
        return rows
    return rescaled(rows, rows.new_tensor(layout.low), rows.new_tensor(layout.high))


def rescaled(rows: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return actions, or means and logarithms of standard deviations, `[B, O]`, from [-1, 1] to [low, high], `[D]`."""
    half_width = 0.5 * (high - low)
    actions, *log_std = rows.split(len(low), dim=1)
    return torch.cat([low + half_width * (actions + 1), *(part + half_width.log() for part in log_std)], dim=1)


def _joined(what: str, declared: OutputDeclaration, outputs: Mapping[str, Tensor]) -> Tensor:
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
            "numbers. Let it take and return what it remembers; actions are drawn from what a policy answers."
        )


def check_kinds_of_values(
    what: str, declared: OutputDeclaration, outputs: Mapping[str, Tensor], *, is_python: bool
) -> None:
    """Refuse whole numbers, an action already chosen, which says nothing of the others; and complex ones.

    Args:
        what: the program, as messages call it.
        declared: names every output it takes.
        outputs: what the program returned, by name.
        is_python: whether it is the user's own code, which can be told otherwise, not a file.

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
            way_on = "Return floats." if declared.kind in OUTPUT_KINDS_OF_ACTIONS["box"] else _ONE_HOT
            raise PolicyFileError(
                f"{what}: output {name!r} is {dtype}: the actions it has chosen, not scores of all of them. "
                + (way_on if is_python else "Export it again with its Q-values or logits.")
            )


def shown_outputs(outputs: Mapping[str, Tensor]) -> str:
    """Return names and sizes as messages list them; B stands for the batch."""
    shown = [f"{name} {['B', *tensor.shape[1:]]}".replace("'", "") for name, tensor in outputs.items()]
    return listed(shown)


def shown_actions(layout: ActionLayout) -> str:
    """Return an action space as messages call it."""
    return f"{layout.kind} {list(layout.sizes)}"


def _missing(what: str, name: str, outputs: Mapping[str, Tensor]) -> str:
    return f"{what} has no output {name!r}, only {shown_outputs(outputs)}."


def _tells(kind: OutputKind, outputs: Mapping[str, Tensor]) -> bool:
    return set(OUTPUT_FIELDS[kind]) <= outputs.keys()


def _kinds(layout: ActionLayout | None) -> tuple[OutputKind, ...]:
    return get_args(OutputKind) if layout is None else OUTPUT_KINDS_OF_ACTIONS[layout.kind]


def _undeclared(what: str, outputs: Mapping[str, Tensor], layout: ActionLayout | None) -> str:
    if layout is None:
        fits = f"expected --outputs {'|'.join(get_args(OutputKind))}"
    else:
        kinds = ", ".join(f"{kind} ({layout.num_outputs(kind)} values)" for kind in _kinds(layout))
        fits = f"expected --outputs {'|'.join(_kinds(layout))}: {shown_actions(layout)} actions have {kinds}"
    return f"{what} does not say what its outputs are: got {shown_outputs(outputs)}, {fits}."
