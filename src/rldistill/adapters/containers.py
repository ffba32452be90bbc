"""What a checkpoint holds: state dicts, one of them the actor's, and running statistics beside them."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from rldistill.adapters.arrays import NumpyArray
from rldistill.adapters.weights import read_weights, unwrapped_names
from rldistill.errors import PolicyFileError, UsageError, docs_page

# Under which a state dict lies in the files of several libraries.
_CONTAINERS = ("model_weights", "state_dict", "model_state_dict", "actor_state_dict", "model", "actor")
_MOST_NAMES = 8
# How the second half of a pair is called whose first ends in "mean"; what is a variance comes first.
_SPREADS = ("var", "variance", "std")
# Statistics of returns and values are no concern of what acts.
_NOT_OBSERVED = re.compile(r"(^|[_.])(ret|return|returns|rew|reward|rewards|value|values|critic)([_.]|$)")
_OF_SKRL = re.compile(r"value|.*_preprocessor|critic_.*")
_SKRL_WAY = (
    "whose policy is a module of your own. Save the state dict in its 'policy' and the statistics in its preprocessor, "
    "and load both with module= and normalizer=: the lines of Python stand in "
    f"{docs_page('other-libraries.md')}."
)


def checked_content(
    content: object, source: str, *, may_be_infinite: Collection[str] = ()
) -> tuple[object, tuple[str, ...]]:
    """Return what a file holds, each state dict checked and in float32, and the types that it was converted from.

    Tensors of the names in `may_be_infinite` may be masks.

    Raises:
        PolicyFileError: a tensor that `read_weights` refuses.
    """
    converted: set[str] = set()

    def check(value: object, name: str) -> object:
        if _is_state_dict(value):
            tensors = {key: _without_numpy(item) for key, item in cast(Mapping[Any, Any], value).items()}
            weights = read_weights(tensors, source=f"{source}{name}", may_be_infinite=may_be_infinite)
            converted.update(weights.converted_from)
            return dict(zip(unwrapped_names(weights.tensors), weights.tensors.values(), strict=True))
        if isinstance(value, Mapping):
            return {key: check(item, f", {key}") for key, item in value.items() if "optimizer" not in str(key)}
        if isinstance(value, list | tuple):
            return [check(item, f", {index}") for index, item in enumerate(value)]
        return _without_numpy(value)

    return check(content, ""), tuple(sorted(converted))


def state_dicts(content: object) -> Sequence[Mapping[str, Tensor]]:
    """Return the state dicts of checked content, in the order in which one of them may be the actor's."""
    if _is_state_dict(content):
        return [cast(Mapping[str, Tensor], content)]
    if isinstance(content, list):
        return [item for item in content if _is_state_dict(item)]
    if isinstance(content, Mapping):
        return [content[name] for name in _CONTAINERS if _is_state_dict(content.get(name))]
    return []


def refuse_skrl(content: object, source: str) -> None:
    """Refuse an agent of skrl with the way on, whatever its tensors hold. Raises PolicyFileError: it is one."""
    names = _names_of_state_dicts(content)
    if "policy" in names and any(map(_OF_SKRL.fullmatch, names)):
        raise PolicyFileError(f"{source} is an agent of skrl ({_listed(names)}), {_SKRL_WAY}")


def no_known_state_dict(source: str, content: object) -> PolicyFileError:
    """Return the error for a file in which no state dict stands where a known library puts it."""
    names = _names_of_state_dicts(content)
    if not names:
        keys = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        return PolicyFileError(f"{source} holds no state dict: got {keys or 'nothing'}, expected tensors by name.")
    return PolicyFileError(
        f"{source} holds the state dicts {_listed(names)}, and does not say which one is the policy. Save that one "
        f"alone, such as torch.save(torch.load(path, weights_only=True)[{names[0]!r}], 'policy.pt'), and load it into "
        "its module: rd.load_policy('policy.pt', module=…, task=…, outputs=…)."
    )


def _names_of_state_dicts(content: object) -> list[str]:
    return [str(name) for name, part in content.items() if _is_state_dict(part)] if isinstance(content, Mapping) else []


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")


def _is_state_dict(value: object) -> bool:
    """Are these tensors by name? Tensors beside a state dict, such as a count of steps, make none."""
    if not _has_tensors(value):
        return False
    items = cast(Mapping[Any, Any], value)
    has_numbers = any(isinstance(item, int | float) for item in items.values())
    # Running statistics come with numbers about them.
    is_statistics = has_numbers and _statistics_in("", items) is not None
    return not is_statistics and not any(map(_has_tensors, items.values()))


def _has_tensors(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(item, Tensor | NumpyArray) for item in value.values())


def _without_numpy(value: object) -> object:
    return value.tensor if isinstance(value, NumpyArray) else value


@dataclass(frozen=True)
class StatisticsBeside:
    """Running statistics in a checkpoint: names and values of the mean and of the spread, as the file holds them."""

    names: tuple[str, str]
    values: tuple[object, object]

    def numbers(self, source: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Return mean and variance, flat; None where they are none of one size. Raises as `read_weights`."""
        tensors = dict(zip(self.names, map(_as_tensor, self.values), strict=True))
        if self.names[1].endswith("std") or any(tensor is None for tensor in tensors.values()):
            return None
        mean, variance = (tensor.double().flatten() for tensor in read_weights(tensors, source=source).tensors.values())
        if mean.shape != variance.shape or (variance < 0).any():
            return None
        return tuple(mean.tolist()), tuple(variance.tolist())


def statistics_beside(content: object) -> list[StatisticsBeside]:
    """Return the running statistics of observations in a checkpoint: in it or one level below, in no state dict."""
    if not isinstance(content, Mapping):
        return []
    parts = cast(Mapping[Any, Any], content)
    places = {"": parts} | {f"{name}.": part for name, part in parts.items() if isinstance(part, Mapping)}
    found = [_statistics_in(prefix, cast(Mapping[Any, Any], place)) for prefix, place in places.items()]
    return [each for each in found if each is not None]


def unused_statistics(source: str, beside: Sequence[StatisticsBeside]) -> UsageError:
    """Return the error for statistics whose use is not known."""
    return UsageError(
        f"{source} holds running statistics beside its weights ({names_of(beside)}), and does not say how they are "
        "used. If they are those of its observations, save them as mean and var (and clip) to an .npz and name it with "
        "--normalizer (in Python normalizer=); else say --normalizer none."
    )


def names_of(statistics: Sequence[StatisticsBeside]) -> str:
    """Return the names of statistics as messages list them."""
    return ", ".join(name for each in statistics for name in each.names)


def _statistics_in(prefix: str, place: Mapping[Any, Any]) -> StatisticsBeside | None:
    for name, mean in place.items():
        is_mean = isinstance(name, str) and name.endswith("mean")
        if not (is_mean and isinstance(mean, Tensor | NumpyArray | list | tuple)):
            continue
        if _NOT_OBSERVED.search(f"{prefix}{name}"):
            continue
        for ending in _SPREADS:
            other = name.removesuffix("mean") + ending
            if other in place:
                return StatisticsBeside((f"{prefix}{name}", f"{prefix}{other}"), (mean, place[other]))
    return None


def _as_tensor(value: object) -> Tensor | None:
    if isinstance(value, list | tuple):
        numbers = cast(Sequence[object], value)
        is_plain = all(isinstance(number, int | float) for number in numbers)
        return torch.tensor(numbers, dtype=torch.float64) if is_plain and numbers else None
    tensor = _without_numpy(value)
    return tensor if isinstance(tensor, Tensor) else None
