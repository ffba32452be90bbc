"""The first layer: observations as an environment gives them become what the layers above compute with."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rldistill.checks import is_finite
from rldistill.observations import Tensors, alone

# A number whose standard deviation is smaller beside its mean is taken for one that never changes, but for the rounding
# of float32, and so is one that is as small by itself.
_LEAST_RELATIVE_STD, _LEAST_STD = 1e-6, 1e-9


@dataclass(frozen=True)
class InputNormalization:
    """Running statistics of observations, and what is done with them."""

    mean: Sequence[float]  # of every element of an observation, flattened, `[P]`
    variance: Sequence[float]  # likewise, `[P]`, 0 or more
    epsilon: float = 1e-8  # added to the variance
    clip: float = 10.0  # normalised values are clipped to ± this; infinite: they are not
    # Spans of the vector, each from its first element to the one behind its last, that are neither normalised nor
    # clipped.
    untouched: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        # Also what a file declares comes this way.
        if len(self.mean) != len(self.variance) or not self.mean:
            raise ValueError(f"mean and variance must be of one length, got {len(self.mean)} and {len(self.variance)}.")
        if not (is_finite(self.epsilon) and self.epsilon > 0 and self.clip > 0 and min(self.variance) >= 0):
            raise ValueError("epsilon and clip must be > 0, variances 0 or more.")
        if not all(isinstance(place, int) for span in self.untouched for place in span):
            raise ValueError("untouched must be spans of whole numbers.")
        if not all(0 <= first < end <= len(self.mean) for first, end in self.untouched):
            raise ValueError(f"untouched must be spans of a vector of {len(self.mean)}, got {list(self.untouched)}.")
        # JSON, of which files are made, has no infinity; the largest number clips as little.
        object.__setattr__(self, "clip", float(min(self.clip, sys.float_info.max)))
        object.__setattr__(self, "epsilon", float(self.epsilon))

    @property
    def clips(self) -> bool:
        """Whether there are numbers that it clips."""
        return self.clip < torch.finfo(torch.float32).max

    @property
    def is_applied(self) -> list[bool]:
        """Whether it normalises each number, `[P]`: all but the untouched ones."""
        found = [True] * len(self.mean)
        for first, end in self.untouched:
            found[first:end] = [False] * (end - first)
        return found

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but the statistics, as plain JSON data; `untouched` only where there are any."""
        settings: dict[str, Any] = {"epsilon": self.epsilon, "clip": self.clip}
        return settings | ({"untouched": [list(span) for span in self.untouched]} if self.untouched else {})

    def at(self, places: Sequence[int | None]) -> "InputNormalization | None":
        """Return the statistics of some of these numbers in another order; None stands for one that has none.

        Returns:
            None where no number has any.
        """
        if not any(place is not None for place in places):
            return None
        is_applied = self.is_applied
        is_plain = [place is None or not is_applied[place] for place in places]
        untouched = tuple((index, index + 1) for index, plain_one in enumerate(is_plain) if plain_one)
        return InputNormalization(
            tuple(0.0 if place is None else self.mean[place] for place in places),
            tuple(1.0 if place is None else self.variance[place] for place in places),
            self.epsilon,
            self.clip,
            untouched,
        )

    @classmethod
    def from_settings(
        cls, mean: Sequence[float], variance: Sequence[float], settings: Mapping[str, Any]
    ) -> "InputNormalization":
        """Return statistics with what `settings` said."""
        untouched = tuple((first, end) for first, end in settings.get("untouched", ()))
        others = {name: value for name, value in settings.items() if name != "untouched"}
        return cls(tuple(mean), tuple(variance), untouched=untouched, **others)


def join_parts(observations: Tensors) -> Tensor:
    """Return what a network computes with: several parts `[N, ...]` side by side `[N, P]`, one alone as it is."""
    rows = observations if isinstance(observations, Tensor) else alone(observations)
    if isinstance(rows, Tensor):
        return rows
    return torch.cat([part.reshape(len(part), -1) for part in rows.values()], dim=1)


class ScaleInput(nn.Module):
    """Turn observations into floats, multiplied by a constant: 1/255 for bytes.

    Running statistics of vector observations are another layer, `NormalizeInput`.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = float(scale)  # a file may declare a whole number, of any size

    def forward(self, observations: Tensor) -> Tensor:
        """Return float32 observations of the same shape, in the module's memory format."""
        if self.scale == 1:
            return observations.float()
        return (
            observations.float().mul_(self.scale)
            if observations.dtype.itemsize == 1
            else observations.float() * self.scale
        )


class NormalizeInput(nn.Module):
    """Subtract the mean, divide by the standard deviation, clip: (o - mean) / sqrt(variance + epsilon).

    Computed in float64, as the statistics were, and given on in float32: features whose mean is large
    beside their spread lose their digits otherwise.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, normalization: InputNormalization) -> None:
        super().__init__()
        self.epsilon = normalization.epsilon
        self.clip = normalization.clip
        self.untouched = normalization.untouched
        self.register_buffer("mean", torch.tensor(normalization.mean, dtype=torch.float64))
        self.register_buffer("variance", torch.tensor(normalization.variance, dtype=torch.float64))

    def measure(self, observations: Tensor) -> None:
        """Take mean and variance from observations `[N, ...]`; a number that never changes is only shifted."""
        flat = observations.flatten(1).double()
        variance, mean = torch.var_mean(flat, dim=0, correction=0)
        self.mean.copy_(mean)
        least = (_LEAST_RELATIVE_STD * mean).square() + _LEAST_STD**2
        self.variance.copy_(torch.where(variance > least, variance, torch.ones_like(variance)))

    def forward(self, observations: Tensor) -> Tensor:
        """Return normalised float32 observations of the same shape, `[B, *observation_shape]`."""
        flat = observations.flatten(1).double()
        normalised = (flat - self.mean) / (self.variance + self.epsilon).sqrt()
        normalised = normalised.clamp(-self.clip, self.clip)
        for first, end in self.untouched:
            normalised[:, first:end] = flat[:, first:end]
        return normalised.float().view(observations.shape)

    def statistics(self) -> InputNormalization:
        """Return what it does, as plain data."""
        mean, variance = tuple(self.mean.tolist()), tuple(self.variance.tolist())
        return InputNormalization(mean, variance, self.epsilon, self.clip, self.untouched)
