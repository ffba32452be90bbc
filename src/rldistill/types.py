"""What passes between floors: the output of a policy and the layout of its actions.

Shape letters, fixed everywhere: B batch, T time, N environments, A actions, D action dimensions, K tasks, C H W image.
"""

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rldistill.checks import is_whole
from rldistill.errors import UsageError, shown

ActionKind = Literal["discrete", "multi_discrete", "multi_binary", "box"]
OutputKind = Literal["q_values", "logits", "gaussian", "actions"]
BoxMapping = Literal["clip", "tanh_rescale"]

State = tuple[Tensor, ...] | None
"""What a network or a policy remembers: tensors `[B, ...]`, a row for each environment; None: it remembers nothing."""

Actions = NDArray[Any]
"""One per row: discrete `[B]`, multi_discrete `[B, K]` and multi_binary `[B, D]` int64, box `[B, D]` float32."""

OUTPUT_KINDS_OF_ACTIONS: Mapping[ActionKind, tuple[OutputKind, ...]] = {
    "discrete": ("q_values", "logits"),
    "multi_discrete": ("logits",),
    "multi_binary": ("logits",),
    "box": ("gaussian", "actions"),
}
"""What a policy can give for each kind of actions."""

OUTPUT_FIELDS: Mapping[OutputKind, tuple[str, ...]] = {
    "q_values": ("q_values",),
    "logits": ("logits",),
    "gaussian": ("mean", "log_std"),
    "actions": ("actions",),
}
"""The fields of a `PolicyOutput`, of a dataset and of a batch that hold outputs of a kind, in the order of a row."""

FURTHER_FIELDS = ("value", "features")
"""The fields of a `PolicyOutput`, of a dataset and of a batch that a teacher may give besides its outputs."""

# Many environments write float32's largest number where they mean infinity.
_UNBOUNDED = 1e30
# Whole numbers beyond these are none that a float holds exactly.
_LARGEST_WHOLE = 2**53


@dataclass(frozen=True)
class ActionLayout:
    """How the action field of a `PolicyOutput` is to be read.

    Attributes:
        kind: the kind of action space.
        sizes: discrete: `(A,)`; multi_discrete: one size per dimension; multi_binary and box: `(D,)`.
        low: box only, lower bounds `[D]`.
        high: box only, upper bounds `[D]`.
        mapping: box only: how a raw output reaches the box, by clipping or by tanh and rescaling.
        start: discrete and multi_discrete only: the environment's number of choice 0, of each dimension; none: 0. Play
            adds it, and policies are as good for one as for the other.
    """

    kind: ActionKind
    sizes: tuple[int, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    mapping: BoxMapping | None = None
    start: tuple[int, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if self.kind not in get_args(ActionKind):
            raise ValueError(f"kind must be one of {', '.join(get_args(ActionKind))}, got {self.kind!r}.")
        if self.kind != "multi_discrete" and len(self.sizes) > 1:
            raise ValueError(f"{self.kind} actions have one size, got {self.sizes}.")
        if not self.sizes or not all(map(is_whole, self.sizes)):
            raise ValueError(f"sizes must hold positive integers, got {self.sizes}.")
        is_box = self.kind == "box"
        if is_box and not (len(self.low) == len(self.high) == self.sizes[0]):
            raise ValueError(
                f"a box of {self.sizes[0]} dimensions needs as many bounds, got low {self.low}, high {self.high}."
            )
        if not all(map(_is_bound, (*self.low, *self.high))):
            raise ValueError(f"bounds must be numbers, got low {self.low}, high {self.high}.")
        if not all(low <= high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"a box needs lower bounds below its upper ones, got low {self.low}, high {self.high}.")
        if is_box != (self.mapping is not None):
            raise ValueError(
                f"mapping belongs to box actions and to them alone, got kind {self.kind!r}, mapping {self.mapping!r}."
            )
        if self.mapping not in (None, *get_args(BoxMapping)):
            raise ValueError(f"mapping must be {' or '.join(get_args(BoxMapping))}, got {shown(self.mapping)}.")
        if self.start and not (self.kind in ("discrete", "multi_discrete") and len(self.start) == len(self.sizes)):
            raise ValueError(f"start must hold one number for each of {self.sizes}, got {self.start} for {self.kind}.")
        if not all(isinstance(first, int) and _is_bound(first) for first in self.start):
            raise ValueError(f"start must hold whole numbers, got {self.start}.")

    @classmethod
    def discrete(cls, num_actions: int) -> "ActionLayout":
        """Return the layout of one choice among `num_actions`."""
        return cls("discrete", (num_actions,))

    def num_outputs(self, kind: OutputKind) -> int:
        """Return how many values a network gives for one row: of a Gaussian, a mean and a log std for each dimension.

        Raises ValueError: such actions have no outputs of this kind.
        """
        fitting = OUTPUT_KINDS_OF_ACTIONS[self.kind]
        if kind not in fitting:
            raise ValueError(f"{self.kind} actions have {' or '.join(fitting)}, got {kind}.")
        return 2 * self.sizes[0] if kind == "gaussian" else sum(self.sizes)

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Shape of one action: `()` for one choice, else `(K,)` or `(D,)`."""
        return {"discrete": (), "multi_discrete": (len(self.sizes),)}.get(self.kind, self.sizes)

    @property
    def action_size(self) -> int:
        """How many numbers one action has."""
        return math.prod(self.action_shape)

    @property
    def is_continuous(self) -> bool:
        """Whether an action is a point in a box, not a choice."""
        return self.kind == "box"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        data: dict[str, Any] = {"kind": self.kind, "sizes": list(self.sizes)}
        if self.kind == "box":
            # JSON has no infinity: null stands for no bound.
            low, high = ([bound if math.isfinite(bound) else None for bound in side] for side in (self.low, self.high))
            data |= {"low": low, "high": high, "mapping": self.mapping}
        return data | ({"start": list(self.start)} if any(self.start) else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ActionLayout":
        """Read what `to_dict` wrote."""
        return cls(
            data["kind"],
            tuple(data["sizes"]),
            tuple(-math.inf if bound is None else bound for bound in data.get("low", ())),
            tuple(math.inf if bound is None else bound for bound in data.get("high", ())),
            data.get("mapping"),
            tuple(data.get("start", ())),
        )

    @property
    def widths(self) -> tuple[float, ...]:
        """Of a box, `[D]`: high − low, in the environment's units; infinite where a dimension has no bounds."""
        return tuple(
            high - low if max(abs(low), abs(high)) < _UNBOUNDED else math.inf
            for low, high in zip(self.low, self.high, strict=True)
        )

    @property
    def is_bounded(self) -> bool:
        """Whether each dimension of a box has bounds."""
        return self.is_continuous and all(map(math.isfinite, self.widths))


def _is_bound(value: object) -> bool:
    """Whether a value is a number, infinite perhaps; whole ones of JSON may have any size, which arrays do not take."""
    if isinstance(value, int):
        return -_LARGEST_WHOLE <= value <= _LARGEST_WHOLE
    return isinstance(value, Real)


@dataclass(frozen=True)
class PolicyOutput:
    """What a policy says about a batch of observations; exactly one action field is set.

    Attributes:
        action_layout: how to read the action field.
        q_values: `[B, A]`, expected returns, any scale.
        logits: `[B, A]`, unnormalised log-probabilities; multi_discrete: those of all choices side by side,
            `[B, ΣA]`; multi_binary: log-odds, `[B, D]`.
        mean: `[B, D]`, mean of a Gaussian before it is mapped to the box; needs `log_std`.
        log_std: `[B, D]`, nats.
        actions: `[B, D]`, of a deterministic policy, in the environment's units; clipped only when acting.
        value: `[B]`, state value, where the policy has one.
        features: `[B, F]`, last hidden layer, where the policy has one.
        teacher: `[B]`, int64, which of several policies answered, by its place; None: it is one policy.
    """

    action_layout: ActionLayout
    q_values: Tensor | None = None
    logits: Tensor | None = None
    mean: Tensor | None = None
    log_std: Tensor | None = None
    actions: Tensor | None = None
    value: Tensor | None = None
    features: Tensor | None = field(default=None, repr=False)
    teacher: Tensor | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("q_values", "logits", "mean", "actions") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of q_values, logits, mean, actions must be given, got {given}.")
        if (self.mean is None) != (self.log_std is None):
            raise ValueError("mean and log_std must be given together.")

    @classmethod
    def from_raw(
        cls,
        layout: ActionLayout,
        kind: OutputKind,
        raw: Tensor,
        *,
        value: Tensor | None = None,
        features: Tensor | None = None,
    ) -> "PolicyOutput":
        """Return the output of which `raw` `[B, O]` are the rows, as networks, losses and datasets have them."""
        if kind == "gaussian":
            mean, log_std = raw.chunk(2, dim=-1)
            return cls(layout, mean=mean, log_std=log_std, value=value, features=features)
        return cls(layout, **{kind: raw}, value=value, features=features)

    @property
    def raw(self) -> Tensor:
        """The action field as one row per observation, `[B, O]`: a Gaussian's mean, then its log std."""
        if self.mean is not None and self.log_std is not None:
            return torch.cat([self.mean, self.log_std], dim=-1)
        raw = self.q_values if self.q_values is not None else self.logits if self.logits is not None else self.actions
        assert raw is not None, "exactly one action field is set"
        return raw

    def rows(self, mask: NDArray[np.bool_]) -> "PolicyOutput":
        """Return the output of the observations that a mask `[B]` chooses; of all of them, itself."""
        if mask.all():
            return self
        index = torch.from_numpy(np.flatnonzero(mask))
        return PolicyOutput(self.action_layout, **{name: tensor[index] for name, tensor in self._tensors().items()})

    def followed_by(self, other: "PolicyOutput", order: NDArray[np.intp]) -> "PolicyOutput":
        """Return the rows of this output and then of another one of the same policy, in a new order of all of them.

        Of several policies the one that answered decides which further fields there are: those of both stay.
        """
        index, others = torch.from_numpy(order), other._tensors()
        both = {
            name: torch.cat([tensor, others[name]])[index]
            for name, tensor in self._tensors().items()
            if name in others and tensor.shape[1:] == others[name].shape[1:]
        }
        return PolicyOutput(self.action_layout, **both)

    def _tensors(self) -> dict[str, Tensor]:
        """Return what is given, by the name of its field."""
        given = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "action_layout"}
        return {name: tensor for name, tensor in given.items() if tensor is not None}

    def further(self, names: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Return what is given besides the action field, of the names that are among `FURTHER_FIELDS`."""
        given = {name: getattr(self, name) for name in names if name in FURTHER_FIELDS}
        return {name: tensor.float().cpu().numpy() for name, tensor in given.items()}

    @property
    def kind(self) -> OutputKind:
        """Name of the action field that is set (`mean` with `log_std` is `gaussian`)."""
        if self.q_values is not None:
            return "q_values"
        if self.logits is not None:
            return "logits"
        return "gaussian" if self.mean is not None else "actions"


def check_shapes(expected: str, **tensors: Tensor | np.ndarray) -> None:
    """Check that tensors have the expected shape, letters meaning the same size throughout.

    Args:
        expected: letters separated by blanks, such as `"B A"`; `...` in front stands for any number of
            dimensions, of the same sizes throughout: `"... A"`.
        **tensors: the tensors by name.

    Raises:
        ValueError: names the tensor, the letters and all sizes.
    """
    letters = _letters(expected)
    is_open = expected.startswith("...")
    sizes: dict[str, int] = {}
    leading: tuple[int, ...] | None = None
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name, shape in shapes.items():
        num_leading = len(shape) - len(letters)
        fits = num_leading >= 0 if is_open else num_leading == 0
        if fits:
            leading = shape[:num_leading] if leading is None else leading
            fits = shape[:num_leading] == leading and all(
                sizes.setdefault(letter, size) == size
                for letter, size in zip(letters, shape[num_leading:], strict=True)
            )
        if not fits:
            listing = ", ".join(f"{other} {list(other_shape)}" for other, other_shape in shapes.items())
            raise ValueError(f"{name} must be [{', '.join(expected.split())}], got {listing}.")


@functools.cache
def _letters(expected: str) -> list[str]:
    return [letter for letter in expected.split() if letter != "..."]


def resolve_device(name: str) -> torch.device:
    """Return the torch device that `auto`, `cpu` or `cuda` stands for."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("device: got 'cuda', but torch finds no CUDA device here. Use --device auto or cpu.")
    if name not in ("cpu", "cuda"):
        raise UsageError(f"device: got {name!r}, expected auto, cpu or cuda.")
    return torch.device(name)
