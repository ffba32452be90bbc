"""What a checkpoint holds beside the state dict that acts: other state dicts, and running statistics."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from rldistill.adapters.arrays import NumpyArray
from rldistill.adapters.weights import read_weights
from rldistill.errors import PolicyFileError, docs_page

_MOST_NAMES = 8
# How the second half of a pair is called whose first ends in "mean"; what is a variance comes first.
_VARIANCES = ("var", "variance")
_SPREADS = (*_VARIANCES, "std")
# Statistics of returns and values are no concern of what acts.
_NOT_OBSERVED = re.compile(r"(^|[_.])(ret|return|returns|rew|reward|rewards|value|values|critic)([_.]|$)")


@dataclass(frozen=True)
class StatisticsBeside:
    """Running statistics in a checkpoint.

    Attributes:
        names: of the mean and of the spread, as the file calls them.
        mean: as the file holds it.
        variance: likewise; None where the file holds a standard deviation in its place.
    """

    names: tuple[str, str]
    mean: object
    variance: object | None

    def numbers(self, source: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Return mean and variance, flat; None where they are no statistics of one size.

        Raises:
            PolicyFileError: NaN, infinity, or a tensor that was made to exhaust its reader.
        """
        tensors = {name: _as_tensor(value) for name, value in zip(self.names, (self.mean, self.variance), strict=True)}
        if any(tensor is None for tensor in tensors.values()):
            return None
        mean, variance = (tensor.double().flatten() for tensor in read_weights(tensors, source=source).tensors.values())
        if mean.shape != variance.shape or (variance < 0).any():
            return None
        return tuple(mean.tolist()), tuple(variance.tolist())


def statistics_beside(content: object) -> list[StatisticsBeside]:
    """Return the running statistics of observations that lie in a checkpoint, outside of its state dicts.

    Args:
        content: what the file holds; statistics are looked for in it and one level below.
    """
    if not isinstance(content, Mapping):
        return []
    parts = cast(Mapping[Any, Any], content)
    places = {"": parts} | {f"{name}.": part for name, part in parts.items() if isinstance(part, Mapping)}
    found = [_statistics_in(prefix, cast(Mapping[Any, Any], place)) for prefix, place in places.items()]
    return [each for each in found if each is not None]


def is_statistics(value: object) -> bool:
    """Whether a mapping is of running statistics and numbers about them, not a network's tensors alone."""
    return (
        isinstance(value, Mapping)
        and any(isinstance(item, int | float) for item in cast(Mapping[Any, Any], value).values())
        and _statistics_in("", cast(Mapping[Any, Any], value)) is not None
    )


def names_of(statistics: Sequence[StatisticsBeside]) -> str:
    """Return the names of statistics as messages list them."""
    return ", ".join(name for each in statistics for name in each.names)


def no_known_state_dict(path: Path, content: object, state_dicts: Sequence[str]) -> PolicyFileError:
    """Return the error for a file in which no state dict stands where a known library puts it.

    Args:
        path: of the file.
        content: what it holds.
        state_dicts: names of the state dicts in it.
    """
    source = f"Policy file {path}"
    listing = ", ".join(state_dicts[:_MOST_NAMES]) + (", …" if len(state_dicts) > _MOST_NAMES else "")
    if not state_dicts:
        keys = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        return PolicyFileError(f"{source} holds no state dict: got {keys or 'nothing'}, expected tensors by name.")
    if "policy" in state_dicts and any(_is_of_skrl(name) for name in state_dicts):
        return PolicyFileError(f"{source} is an agent of skrl ({listing}), {_SKRL_WAY}")
    return PolicyFileError(
        f"{source} holds the state dicts {listing}, and does not say which one is the policy. Save that one alone, "
        f"such as torch.save(torch.load(path, weights_only=True)[{state_dicts[0]!r}], 'policy.pt'), and load it into "
        "its module: rd.load_policy('policy.pt', module=…, task=…, outputs=…)."
    )


_SKRL_WAY = (
    "whose policy is a module of your own. Save the state dict in its 'policy' and the statistics in its preprocessor, "
    "and load both with module= and normalizer=: the lines of Python stand in "
    f"{docs_page('other-libraries.md')}."
)


def _is_of_skrl(name: str) -> bool:
    return name == "value" or name.endswith("_preprocessor") or name.startswith("critic_")


def _statistics_in(prefix: str, place: Mapping[Any, Any]) -> StatisticsBeside | None:
    for name, mean in place.items():
        if not (isinstance(name, str) and name.endswith("mean") and _is_vector(mean)):
            continue
        if _NOT_OBSERVED.search(f"{prefix}{name}"):
            continue
        for ending in _SPREADS:
            other = name.removesuffix("mean") + ending
            if other in place:
                variance = place[other] if ending in _VARIANCES else None
                return StatisticsBeside((f"{prefix}{name}", f"{prefix}{other}"), mean, variance)
    return None


def _is_vector(value: object) -> bool:
    return isinstance(value, Tensor | NumpyArray | list | tuple)


def _as_tensor(value: object) -> Tensor | None:
    if isinstance(value, list | tuple):
        numbers = cast(Sequence[object], value)
        is_plain = all(isinstance(number, int | float) for number in numbers)
        return torch.tensor(numbers, dtype=torch.float64) if is_plain and numbers else None
    if isinstance(value, NumpyArray):
        return value.tensor
    return value if isinstance(value, Tensor) else None
