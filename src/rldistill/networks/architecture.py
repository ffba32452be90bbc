"""What a network is made of, as plain data: presets by name, free sizes by a short text.

Sources: Mnih et al. 2015 (`dqn`); Rusu et al. 2015, "Policy Distillation", tables of
networks (`net1`, `net2`, `net3`; `multitask3` and `multitask10`, whose heads have a hidden
layer of their own). All convolutions are unpadded.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from rldistill.checks import check_kind, check_name, is_whole
from rldistill.errors import UsageError, shown

TorsoKind = Literal["conv", "impala", "mlp", "combined"]
Activation = Literal[
    "relu",
    "tanh",
    "elu",
    "leaky_relu",
    "sigmoid",
    "silu",
    "gelu",
    "selu",
    "softplus",
    "identity",
    "mish",
    "hardtanh",
    "hardsigmoid",
    "hardswish",
    "softsign",
    "celu",
    "relu6",
]

MemoryKind = Literal["gru", "lstm"]

_LATER_FIELDS = frozenset(
    {"head_activation", "elementwise_norm", "float_images", "memory", "memory_size", "memory_layers", "stack"}
)
# Kernel size and stride of the first, second and every later convolution (Mnih et al. 2015).
_CONVOLUTIONS = ((8, 4), (4, 2), (3, 1))


@dataclass(frozen=True)
class Architecture:
    """The layers of a policy network, without the sizes of its input and its heads."""

    name: str  # how a user names it: `net3`, `mlp:64x64`
    # `conv` on images `[C, H, W]`, `impala` (the same with residual stages); `mlp` on flat vectors; `combined` on
    # vectors made of several parts: each image has a torso of its own, the other parts go on as they are beside its
    # features.
    kind: TorsoKind
    hidden: tuple[int, ...]  # widths of the fully connected layers of the torso; combined: of each image's
    channels: tuple[int, ...] = ()  # output channels of each convolution or stage
    kernel_sizes: tuple[int, ...] = ()  # of each convolution, in pixels
    strides: tuple[int, ...] = ()  # of each convolution, or of each stage's pooling, in pixels
    head_hidden: tuple[int, ...] = ()  # widths of the hidden layers of each head
    activation: Activation = "relu"  # after every layer but the output
    # Normalise every layer of the torso before its activation. Convolutions are normalised over channels and space
    # together, with one weight per channel.
    layer_norm: bool = False
    value_head: bool = False  # whether each head also gives a state value
    head_activation: Activation | None = None  # after the hidden layers of the heads; None: as in the torso
    # The norms of convolutions have a weight for each pixel of each channel, as PyTorch's LayerNorm has.
    elementwise_norm: bool = False
    float_images: bool = False  # combined: every part of three dimensions is an image, also where it is not of bytes
    memory: MemoryKind | None = None  # the recurrent layer between torso and heads; None: there is none
    memory_size: int = 0  # its units; 0 without it
    memory_layers: int = 1  # how many such layers stand above one another, of the same size
    stack: int = 0  # of vectors: the network sees the newest so many observations; 0: only the newest

    def __post_init__(self) -> None:
        # Also what a file declares comes this way.
        for key, choices in (("kind", get_args(TorsoKind)), ("activation", get_args(Activation))):
            if getattr(self, key) not in choices:
                raise UsageError(
                    f"Architecture {self.name!r}: {key} must be {' or '.join(choices)}, got {getattr(self, key)!r}."
                )
        if self.kind == "impala" and (self.layer_norm or not all(size % 2 for size in self.kernel_sizes)):
            raise UsageError(f"Architecture {self.name!r}: residual stages have odd kernels and no layer norm.")
        if self.float_images and self.kind != "combined":
            raise UsageError(f"Architecture {self.name!r}: float_images is for observations of several parts.")
        if self.head_activation not in (None, *get_args(Activation)):
            raise UsageError(f"Architecture {self.name!r}: head_activation is unknown: {self.head_activation!r}.")
        if self.memory not in (None, *get_args(MemoryKind)) or (self.memory is None) != (self.memory_size == 0):
            raise UsageError(f"Architecture {self.name!r}: memory is gru or lstm with a size, got {self.memory!r}.")
        if self.memory is None and self.memory_layers != 1:
            raise UsageError(f"Architecture {self.name!r}: got layers of a memory, and no memory.")
        if self.stack and (self.kind != "mlp" or not is_whole(self.stack, least=2)):
            raise UsageError(
                f"Architecture {self.name!r}: a stack is of 2 or more observations that are vectors, and goes with an "
                f"mlp: stack:4+mlp:32; got {shown(self.stack)} with {self.kind}."
            )
        if not len(self.channels) == len(self.kernel_sizes) == len(self.strides):
            raise UsageError(
                f"Architecture {self.name!r}: got {len(self.channels)} channels, {len(self.kernel_sizes)} kernel sizes "
                f"and {len(self.strides)} strides, expected as many of each."
            )
        check_name(self, "name")
        sizes = (*self.channels, *self.kernel_sizes, *self.strides, *self.hidden, *self.head_hidden)
        sizes += (self.memory_layers, *((self.memory_size,) if self.memory else ()))
        if not all(map(is_whole, sizes)):
            raise UsageError(f"Architecture {self.name!r}: sizes must be positive.")
        check_kind(self, bool, "layer_norm", "value_head", "elementwise_norm", "float_images")

    @property
    def takes_images(self) -> bool:
        """Whether all that its network sees is one image, turned to `[C, H, W]` before the first layer."""
        return self.kind not in ("mlp", "combined")

    @property
    def remembers(self) -> bool:
        """Whether what it says depends on earlier observations."""
        return self.memory is not None or self.stack > 0

    @property
    def description(self) -> str:
        """Its name, and what its name does not say."""
        return f"{self.name} {'with' if self.layer_norm else 'without'} layer norm"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        data = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        # A field that came later stands in a description only where it says something: old hashes stay.
        return {
            key: value for key, value in data.items() if key not in _LATER_FIELDS or value != getattr(Architecture, key)
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Architecture":
        """Read what `to_dict` wrote."""
        values: dict[str, Any] = dict(data)
        for key in ("hidden", "channels", "kernel_sizes", "strides", "head_hidden"):
            values[key] = tuple(values[key])
        return cls(**values)


def _conv(
    name: str,
    channels: tuple[int, ...],
    hidden: tuple[int, ...],
    head_hidden: tuple[int, ...] = (),
    *,
    kind: TorsoKind = "conv",
) -> Architecture:
    layers = [_CONVOLUTIONS[min(index, len(_CONVOLUTIONS) - 1)] for index in range(len(channels))]
    return Architecture(
        name,
        kind,
        hidden,
        channels,
        kernel_sizes=tuple(kernel for kernel, _ in layers),
        strides=tuple(stride for _, stride in layers),
        head_hidden=head_hidden,
    )


PRESETS: Mapping[str, Architecture] = {
    "dqn": _conv("dqn", (32, 64, 64), (512,)),
    "net1": _conv("net1", (16, 32, 32), (256,)),
    "net2": _conv("net2", (16, 16, 16), (128,)),
    "net3": _conv("net3", (16, 16, 16), (64,)),
    "multitask3": _conv("multitask3", (32, 64, 64), (512,), (128,)),
    "multitask10": _conv("multitask10", (64, 64, 64), (1500,), (128,)),
}

_MEMORY = re.compile(r"(gru|lstm):([1-9]\d*)")
_STACK = re.compile(r"stack:([1-9]\d*)")
_MOST_STACKED = 256
_WIDTHS = r"([1-9]\d*(?:x[1-9]\d*)*)"
_LARGEST_WIDTH = 1_000_000
_MLP = re.compile(rf"mlp:{_WIDTHS}(?::{_WIDTHS})?")
_EXAMPLES = {"mlp": "mlp:64x64", "conv": "conv:8-8-8:32", "combined": "combined:8-8-8:32:64"}
_CONV = re.compile(rf"(conv|combined):([1-9]\d*(?:-[1-9]\d*)*):{_WIDTHS}(?::{_WIDTHS})?")


def parse_architecture(text: str, *, layer_norm: bool = False) -> Architecture:
    """Read a preset's name, `mlp:64x64`, or `conv:8-8-8:32` (channels, then hidden widths).

    `combined:8-8-8:32:64` is for observations of several parts: convolutions and hidden widths for each
    image, then the layers of the head above its features and all other parts. A last part, as in
    `mlp:64x64:32` and `conv:8-8-8:32:16`, gives every head hidden layers of its own. Free convolutions use
    the kernel sizes and strides of `dqn`: 8/4, 4/2, then 3/1.

    `gru:16`, `lstm:32` and `mlp:32+gru:16` remember: a recurrent layer stands above the torso, which may be
    missing. `stack:4+mlp:32` sees the last four observations.

    Args:
        text: the name.
        layer_norm: normalise every layer of the torso before its activation.

    Raises:
        UsageError: lists what there is, with the nearest preset.
    """
    return replace(_parse(text), layer_norm=layer_norm)


def _parse(text: str) -> Architecture:
    if "+" in text or _MEMORY.fullmatch(text):
        return _parse_memory(text)
    if text in PRESETS:
        return PRESETS[text]
    if found := _MLP.fullmatch(text):
        return Architecture(text, "mlp", _sizes(found[1]), head_hidden=_sizes(found[2]))
    if found := _CONV.fullmatch(text):
        kind = "conv" if found[1] == "conv" else "combined"
        return _conv(text, _sizes(found[2]), _sizes(found[3]), _sizes(found[4]), kind=kind)
    kind = text.partition(":")[0].lower()
    if kind in ("gru", "lstm", "rnn", "stack"):
        raise UsageError(f"Unknown network: got {text!r}, expected {_MEMORIES}.")
    raise UsageError(
        f"Unknown network: got {text!r}, expected one of {', '.join(PRESETS)}, or layers: mlp:64x64, conv:8-8-8:32, "
        f"combined:8-8-8:32:64.{did_you_mean(text)}"
    )


_MEMORIES = "gru:16, lstm:32, mlp:32+gru:16, conv:8-8-8:32+lstm:32 or stack:4+mlp:32"


def _parse_memory(text: str) -> Architecture:
    """Read `torso+gru:16`, `gru:16` or `stack:4+mlp:32`."""
    first, *others = text.split("+")
    if (stack := _STACK.fullmatch(first)) and len(others) == 1:
        (size,) = _sizes(stack[1])
        if not 2 <= size <= _MOST_STACKED:
            raise UsageError(f"Network {text!r}: a stack is of 2 to {_MOST_STACKED} observations, got {size}.")
        return replace(_parse(others[0]), name=text, stack=size)
    found = _MEMORY.fullmatch(others[0] if others else first)
    if found is None or len(others) > 1 or (others and ":" not in first and first not in PRESETS):
        raise UsageError(f"Unknown network: got {text!r}, expected {_MEMORIES}.")
    torso = _parse(first) if others else Architecture(text, "mlp", ())
    kind: MemoryKind = "gru" if found[1] == "gru" else "lstm"
    return replace(torso, name=text, memory=kind, memory_size=_sizes(found[2])[0])


def did_you_mean(text: str) -> str:
    """Return a question about the nearest name there is; empty where none is near."""
    kind, colon, sizes = text.partition(":")
    if not colon:
        near = difflib.get_close_matches(text.lower(), PRESETS, n=1)
    else:
        kinds = difflib.get_close_matches(kind.lower(), _EXAMPLES, n=1)
        corrected = [f"{known}:{sizes}" for known in kinds]
        # Sizes that are wrong too are shown as they should be.
        near = [name if _MLP.fullmatch(name) or _CONV.fullmatch(name) else _EXAMPLES[kinds[0]] for name in corrected]
    return f" Did you mean {near[0]!r}?" if near else ""


def _sizes(text: str | None) -> tuple[int, ...]:
    sizes = re.split("[-x]", text) if text else []
    for size in sizes:
        if len(size) > 9 or int(size) > _LARGEST_WIDTH:
            raise UsageError(f"network: got a layer of {size[:20]}, expected at most {_LARGEST_WIDTH:,}.")
    return tuple(map(int, sizes))
