"""What whole numbers stand for: those of an observation, those between layers, and those of a state."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rldistill.exports.c.plan import Plan

LARGEST_BYTE = 255
LARGEST_OBSERVATION = 4095
# Of what a recurrent layer gives, [-1, 1]: 12 bits of which 0 is one.
_HALF_OF_STATE = 2047
# Of the range that the data have, on both sides: a policy may be taken where its teacher never was.
_MARGIN = 0.5


@dataclass(frozen=True)
class Steps:
    """What whole numbers from 0 on stand for: `scale · q + offset`, float64; one for all, or one for each."""

    scale: Tensor  # `[]` or `[I]`
    offset: Tensor  # likewise
    top: int = LARGEST_BYTE  # the largest q

    @classmethod
    def of_range(cls, low: float, high: float) -> "Steps":
        """Return bytes for numbers between two and 0, which is kept exactly."""
        low, high = min(low, 0.0), max(high, 0.0)
        # Of a layer that is never awake any scale will do.
        scale = (high - low if high - low > 1e-6 else 1.0) / LARGEST_BYTE
        return cls(
            torch.tensor(scale, dtype=torch.float64), torch.tensor(-scale * round(-low / scale), dtype=torch.float64)
        )

    def nearest(self, values: Tensor) -> Tensor:
        """Return the bytes nearest to values, as float64."""
        return ((values.double() - self.offset) / self.scale + 0.5).floor().clamp(0, LARGEST_BYTE)


STATE_STEPS = Steps(
    torch.tensor(1 / _HALF_OF_STATE, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64), 2 * _HALF_OF_STATE
)
"""What the whole numbers stand for that layers take of a recurrent layer's state: `q = (h + 1) · 2047 + ½`, cut off."""


@dataclass(frozen=True)
class ObservationSteps:
    """How an observation of floats becomes whole numbers, `[P]` float32 each."""

    low: Tensor  # the least value of each number
    inverse_half_step: Tensor  # 2 ÷ step; 0 where a number never varied: it counts as constant

    def encode(self, observations: Tensor) -> Tensor:
        """Return whole numbers `[B, P]` as float64, computed as the C does."""
        half_steps = ((observations.float() - self.low) * self.inverse_half_step).clamp(0, 2 * LARGEST_OBSERVATION - 1)
        return ((half_steps.floor() + 1) / 2).floor().double()


def observation_steps(plan: Plan, observations: Tensor) -> tuple[ObservationSteps | None, Steps]:
    """Return how observations become whole numbers, and what those stand for once statistics are applied, `[P]`."""
    size = plan.observation_size
    if plan.takes_bytes and plan.normalization is None:
        return None, Steps(torch.ones(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64))
    flat = observations.reshape(len(observations), -1).double()
    mean, std, clip = statistics_of(plan)
    low, high = flat.min(dim=0).values, flat.max(dim=0).values
    margin = _MARGIN * (high - low)
    low, high = low - margin, high + margin
    if plan.stack:  # zeros stand for what was before an episode: of normalised numbers the mean
        low, high = torch.minimum(low, mean), torch.maximum(high, mean)
    # What lies beyond the clip need not be told apart.
    low, high = low.clamp(mean - clip * std, mean + clip * std), high.clamp(mean - clip * std, mean + clip * std)
    for piece in plan.pieces:
        own = slice(piece.first, piece.first + piece.size)
        if piece.layers and piece.layers[0].is_convolution:
            # What the numbers stand for once statistics are applied is to be the same for a whole image.
            least, most = ((low - mean) / std)[own].min(), ((high - mean) / std)[own].max()
            low[own], high[own] = (mean + std * least)[own], (mean + std * most)[own]
    low = low.float()
    inverse = torch.where(high > low, 2 * LARGEST_OBSERVATION / (high - low), 0.0).float()
    # What the rounded factor stands for, not what it was rounded from.
    step = torch.where(inverse > 0, 2 / inverse.double(), 0.0)
    return ObservationSteps(low, inverse), Steps(step / std, (low.double() - mean) / std, LARGEST_OBSERVATION)


def statistics_of(plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, standard deviation and clip of every number, `[P]` float64; 0, 1 and infinity where untouched."""
    normalization, size = plan.normalization, plan.observation_size
    mean, std = torch.zeros(size, dtype=torch.float64), torch.ones(size, dtype=torch.float64)
    clip = torch.full_like(mean, math.inf)
    if normalization is None:
        return mean, std, clip
    touched = torch.tensor(normalization.is_applied)
    own_std = (torch.tensor(normalization.variance, dtype=torch.float64) + normalization.epsilon).sqrt()
    mean[touched] = torch.tensor(normalization.mean, dtype=torch.float64)[touched]
    std[touched], clip[touched] = own_std[touched], normalization.clip
    return mean, std, clip
