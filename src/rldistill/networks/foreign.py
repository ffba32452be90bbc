"""Code that is not ours, a module or a function of somebody's own: called, and what it answered by name."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from rldistill.errors import MismatchError, RldistillError

_MOST_SHOWN = 300


def call_foreign(what: str, function: Callable[[Tensor], object], rows: Tensor) -> dict[str, Tensor]:
    """Return what a function, called `what` in messages, answers to observations `[B, *observation_shape]`, by name.

    Raises:
        MismatchError: it failed (quotes what it said), or answered something else than tensors or arrays.
    """
    return named_outputs(what, _called(what, function, rows))


def call_remembering(
    what: str, function: Callable[[Tensor, Any], object], rows: Tensor, state: tuple[Tensor, ...]
) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    """Return what `(observations, state) -> (outputs, state)` answers: outputs by name, and the next state.

    Args:
        what: the function, as messages call it.
        function: is called once; a state of one part is given as it is, of several as a tuple.
        rows: observations `[B, *observation_shape]`.
        state: what it remembers of the rows' environments, `[B, …]` each.

    Raises:
        MismatchError: as `call_foreign`; or it gave no next state, or one of other shapes.
    """
    answer = _called(what, function, rows, state[0] if len(state) == 1 else state)
    if not isinstance(answer, tuple | list) or len(cast(tuple[object, ...], answer)) != 2:
        raise MismatchError(
            f"{what} answered a {type(answer).__name__}, expected two values, (outputs, state): it was loaded with "
            "initial_state."
        )
    outputs, given = cast(tuple[object, object], answer)
    parts = cast(tuple[object, ...], given if isinstance(given, tuple | list) else (given,))
    try:
        following = tuple(map(torch.as_tensor, parts))
    except (TypeError, ValueError, RuntimeError) as error:
        raise MismatchError(f"{what} answered a {type(given).__name__} as its state, expected tensors.") from error
    before, after = ([list(part.shape) for part in tensors] for tensors in (state, following))
    if before != after:
        raise MismatchError(
            f"{what} was given a state of shapes {before} and answered one of {after}, expected the same: a state "
            "keeps its shape through an episode. Keep tensors of one size, such as the last k features."
        )
    return named_outputs(what, outputs), following


def _called(what: str, function: Callable[..., object], rows: Tensor, *state: object) -> object:
    try:
        return function(rows, *state)
    except (RldistillError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a stranger's code raises
        said = " ".join(str(error).split())[:_MOST_SHOWN].rstrip(".")
        raise MismatchError(
            f"{what} failed on observations {list(rows.shape)} of {_name(rows.dtype)}: {type(error).__name__}"
            f"{': ' if said else ''}{said}. It is called with one batch [B, …] of its task's observations and "
            f"{'what it remembers of them' if state else 'nothing else'}. Was it made for others?"
        ) from error


def named_outputs(what: str, answer: object) -> dict[str, Tensor]:
    """Return an answer by name: of a named tuple its fields, of a tuple the positions, of one tensor `output`.

    A list is read as a tuple, or as the rows of one output where none of its elements has rows itself. What is None
    is left out.

    Raises:
        MismatchError: neither dense tensors nor arrays; says what there is.
    """
    named: dict[str, Tensor] = {}
    for name, value in _parts(answer).items():
        if value is None:
            continue
        try:
            named[name] = _tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            within = "" if value is answer else f" with a {type(value).__name__} as {name!r}"
            raise MismatchError(_no_tensors(what, answer, within)) from error
        if not is_dense(named[name]):
            raise MismatchError(
                f"{what} answered {shown_kind(named[name])} as {name!r}, expected dense numbers. Return them by "
                "to_dense() or dequantize()."
            )
    if not named:
        raise MismatchError(_no_tensors(what, answer, ""))
    return named


def is_dense(tensor: Tensor) -> bool:
    """Does a tensor hold a number for each of its places: neither sparse, nor quantised, nor without values?"""
    return tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_nested or tensor.is_meta)


def holds_numbers(tensor: Tensor, *, may_be_infinite: bool = False, before: Tensor | None = None) -> bool:
    """Are all values of a tensor numbers: finite, or where it is a mask, infinite?

    Args:
        tensor: dense, of any type.
        may_be_infinite: whether infinity is one.
        before: the same values before they were converted, which made none of them infinite; None: as they are.
    """
    allowed = tensor.isfinite()
    if may_be_infinite:
        allowed = allowed | (tensor if before is None else before).isinf()
    return bool(allowed.all())


def shown_kind(tensor: Tensor) -> str:
    """Return what kind of a tensor it is, as messages call it: `float32 of layout sparse_coo on cpu`."""
    nested = "nested " if tensor.is_nested else ""
    return f"{nested}{_name(tensor.dtype)} of layout {str(tensor.layout).removeprefix('torch.')} on {tensor.device}"


def _parts(answer: object) -> Mapping[str, object]:
    if isinstance(answer, Mapping):
        return {str(name): value for name, value in cast(Mapping[object, object], answer).items()}
    if not isinstance(answer, tuple | list) or _is_rows(cast(Any, answer)):
        return {"output": answer}
    values = cast(tuple[object, ...], answer)
    names = getattr(values, "_fields", range(len(values)))
    return dict(zip(map(str, names), values, strict=True))


def _is_rows(answer: tuple[Any, ...] | list[Any]) -> bool:
    return isinstance(answer, list) and all(np.ndim(part) < 2 for part in answer)


def _tensor(value: Any) -> Tensor:  # noqa: ANN401 (somebody's own)
    if isinstance(value, list):
        return torch.stack([torch.as_tensor(row) for row in cast(list[Any], value)])
    # A tracer would take `as_tensor` of a tensor for a move to its device.
    return value if isinstance(value, Tensor) else torch.as_tensor(value)


def _no_tensors(what: str, answer: object, within: str) -> str:
    kind = "None" if answer is None else f"a {type(answer).__name__}{within}"
    return (
        f"{what} answered {kind}, expected a tensor or an array [B, O], or several in a tuple or by name. Return its "
        "scores of all actions, or its actions."
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
