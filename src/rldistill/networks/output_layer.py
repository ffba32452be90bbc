"""What the last layer of a head gives: one row of numbers per observation, by the kind of output."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from rldistill.checks import is_finite, is_whole
from rldistill.errors import shown
from rldistill.networks.memory import AlignedLinear
from rldistill.types import ActionLayout, OutputKind

StdKind = Literal["state", "state_tanh", "parameter", "fixed", "gsde"]

# Beyond these a standard deviation is as good as 0, or as noise: e^-20 and e^2 (Haarnoja et al. 2018, SAC).
LOG_STD_BOUNDS = (-20.0, 2.0)
# Between which `state_tanh` moves: those of Spinning Up's and CleanRL's SAC.
SMOOTH_LOG_STD_BOUNDS = (-5.0, 2.0)
# Keeps the logarithm of a generalised state-dependent variance finite (Raffin et al. 2020, gSDE).
GSDE_EPSILON = 1e-6


@dataclass(frozen=True)
class GaussianOptions:
    """How a Gaussian policy gets its spread."""

    # `state`: a linear function of the features; `state_tanh`: the same, bounded by a tanh; `parameter`: learned, the
    # same in all states; `fixed`: not learned; `gsde`: exploration noise that depends on the features (Raffin et al.
    # 2020).
    std: StdKind = "state"
    mean_limit: float | None = None  # the mean is clipped to ± this; None: it is not

    def __post_init__(self) -> None:
        # Also what a file declares comes this way.
        if self.std not in get_args(StdKind):
            raise ValueError(f"std must be {' or '.join(get_args(StdKind))}, got {self.std!r}.")
        limit = self.mean_limit
        if limit is not None and not (is_finite(limit) and 0 < limit <= torch.finfo(torch.float32).max):
            raise ValueError(f"mean_limit must be a number > 0, got {shown(limit)}.")


DEFAULT_GAUSSIAN = GaussianOptions()


@dataclass(frozen=True)
class ValueAtoms:
    """Returns between which a categorical value distribution spreads its mass (Bellemare et al. 2017, C51)."""

    low: float  # the least of them
    high: float  # the greatest of them
    count: int  # how many there are, at equal distances

    def __post_init__(self) -> None:
        # Also what a file declares comes this way.
        are_numbers = is_finite(self.low) and is_finite(self.high) and is_whole(self.count, least=2)
        if not (are_numbers and self.low < self.high):
            raise ValueError(f"atoms must be two or more between finite bounds, got {self}.")

    def support(self, device: torch.device | None = None) -> Tensor:
        """Return these returns, `[count]`, computed on a device; None: on torch's default one."""
        return torch.linspace(float(self.low), float(self.high), self.count, device=device)


@dataclass(frozen=True)
class OutputLayer:
    """The kind of a head's output."""

    kind: OutputKind  # which action field its rows are
    layout: ActionLayout  # of the actions
    gaussian: GaussianOptions = DEFAULT_GAUSSIAN  # of the spread, where the kind is `gaussian`
    # Of the distribution whose expectation the Q-values are; None: the layer gives them itself.
    atoms: ValueAtoms | None = None
    # Whether actions are the means of Beta distributions on [-1, 1], with two linear outputs for each.
    is_beta: bool = False

    def __post_init__(self) -> None:
        self.layout.num_outputs(self.kind)  # refuses what does not belong together
        if self.atoms is not None and self.kind != "q_values":
            raise ValueError(f"atoms belong to q_values, got {self.kind}.")
        if self.is_beta and (self.kind != "actions" or self.squashes):
            raise ValueError(f"the means of Beta distributions are actions that are clipped, got {self.kind}.")
        if self.kind in ("actions", "gaussian") and self.squashes and not self.layout.is_bounded:
            raise ValueError(f"tanh_rescale needs finite bounds, got {self.layout.low} to {self.layout.high}.")

    @classmethod
    def choice(cls, num_actions: int, kind: OutputKind = "q_values") -> "OutputLayer":
        """Return the layer of one choice among `num_actions`."""
        return cls(kind, ActionLayout.discrete(num_actions))

    @property
    def num_outputs(self) -> int:
        """O, length of a row."""
        return self.layout.num_outputs(self.kind)

    @property
    def num_linear(self) -> int:
        """Outputs of the linear layer: without a Gaussian's log std, which has a layer of its own."""
        if self.kind == "gaussian":
            return self.layout.sizes[0]
        each = 2 if self.is_beta else 1 if self.atoms is None else self.atoms.count
        return self.num_outputs * each

    @property
    def squashes(self) -> bool:
        """Whether outputs reach their box by tanh and rescaling."""
        return self.layout.mapping == "tanh_rescale"


class OutputRows(nn.Module):
    """Turns a linear layer's outputs into rows, `[B, O]`.

    Args:
        layer: the kind.
        num_features: F, width of the features below the linear layer.

    Attributes:
        takes_blocks: whether `forward` can compute several blocks at once.
    """

    low: Tensor | None
    high: Tensor | None
    support: Tensor | None

    def __init__(self, layer: OutputLayer, num_features: int) -> None:
        super().__init__()
        self.layer = layer
        for name in ("low", "high", "support"):
            self.register_buffer(name, None, persistent=False)
        # Sums over a row may be rounded otherwise in a larger batch; what becomes of a single number is not.
        self.takes_blocks = layer.atoms is None and layer.gaussian.std != "gsde"
        num_actions = layer.num_linear
        if layer.kind == "gaussian":
            self._make_std(layer.gaussian.std, num_features, num_actions)

    def _make_std(self, std: StdKind, num_features: int, num_actions: int) -> None:
        if std in ("state", "state_tanh"):
            self.log_std_layer = AlignedLinear(num_features, num_actions)
        elif std == "fixed":
            self.register_buffer("log_std", torch.zeros(num_actions))
        else:
            shape = (num_features, num_actions) if std == "gsde" else (num_actions,)
            self.log_std = nn.Parameter(torch.zeros(shape))

    def initialise(self) -> None:
        """Start with a standard deviation of 1 in all states; draws nothing."""
        if self.layer.kind == "gaussian" and self.layer.gaussian.std in ("state", "state_tanh"):
            nn.init.zeros_(self.log_std_layer.weight)

    def keep_constants(self) -> None:
        """Make buffers of the numbers that follow from the kind; made on the CPU, they move with the network.

        A program that is traced would else keep them where it was traced, and could not be moved to another device.
        """
        like = torch.zeros(())
        if self.layer.kind == "actions" and self.layer.squashes:
            self.low, self.high = self._bounds(like)
        if self.layer.atoms is not None:
            self.support = self.layer.atoms.support()

    def _bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        if self.low is not None and self.high is not None:
            return self.low, self.high
        return like.new_tensor(self.layer.layout.low), like.new_tensor(self.layer.layout.high)

    def forward(self, linear: Tensor, features: Tensor, block: int | None = None) -> Tensor:
        """Return rows `[B, O]` of the linear layer's outputs and its features `[B, F]`; for `block`, as networks do."""
        layer = self.layer
        if layer.kind == "gaussian":
            limit = layer.gaussian.mean_limit
            mean = linear if limit is None else linear.clamp(-float(limit), float(limit))
            return torch.cat([mean, self._log_std(features, block).expand_as(mean)], dim=-1)
        if layer.kind == "actions" and layer.squashes:
            # From [-1, 1] to [low, high], as the environment takes them.
            low, high = self._bounds(linear)
            return low + 0.5 * (torch.tanh(linear) + 1) * (high - low)
        if layer.is_beta:
            return _beta_mean(linear)
        if layer.atoms is None:
            return linear
        return _expectation(linear, layer.atoms.support(linear.device) if self.support is None else self.support)

    def _log_std(self, features: Tensor, block: int | None) -> Tensor:
        if self.layer.gaussian.std in ("state", "state_tanh"):
            layer = self.log_std_layer
            log_std = layer(features) if block is None else layer.of_blocks(features, block)
            if self.layer.gaussian.std == "state":
                return log_std.clamp(*LOG_STD_BOUNDS)
            low, high = SMOOTH_LOG_STD_BOUNDS
            return low + 0.5 * (high - low) * (torch.tanh(log_std) + 1)
        if self.layer.gaussian.std == "gsde":
            variance = features.square() @ self.log_std.exp().square()
            return 0.5 * (variance + GSDE_EPSILON).log()
        return self.log_std


def _beta_mean(linear: Tensor) -> Tensor:
    """Return the means `[B, D]` of Beta distributions on [-1, 1], of all α before all β, `[B, 2 D]`.

    Softplus plus 1 gives α and β, so that each distribution has one peak, as in rsl_rl 5.
    """
    alpha, beta = (nn.functional.softplus(linear) + 1).chunk(2, dim=-1)
    return 2 * alpha / (alpha + beta) - 1


def _expectation(logits: Tensor, support: Tensor) -> Tensor:
    """Return Q-values `[B, A]` of the logits of their distributions, `[B, A · atoms]`, actions outermost."""
    probabilities = logits.unflatten(-1, (-1, len(support))).softmax(dim=-1)
    return (probabilities * support).sum(dim=-1)
