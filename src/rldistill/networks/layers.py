"""A policy network as plain layers, in the order in which an observation passes them: normalise, torso, head, action.

Checkpoints of other libraries are read into this form. `Architecture` describes the same network without its weights,
as policy files keep it. `plain_layers` gives the layers of a network that is made: what it computes, one module after
the other, for exports.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from rldistill.networks.architecture import Activation, Architecture, MemoryKind
from rldistill.networks.input_layer import InputNormalization
from rldistill.networks.output_layer import DEFAULT_GAUSSIAN, GaussianOptions, ValueAtoms
from rldistill.networks.policy_network import Head, PolicyNetwork
from rldistill.types import OutputKind


@dataclass(frozen=True)
class Layer:
    """One fully connected layer or convolution."""

    weight: Tensor  # fully connected `[O, I]`; convolution `[O, C, k, k]`
    bias: Tensor  # `[O]`
    norm: tuple[Tensor, Tensor] | None = None  # weight and bias of a layer norm before the activation
    stride: int = 1  # of a convolution; of a stage, of its pooling
    # Convolutions of residual blocks, two each, which make an IMPALA stage of a convolution.
    blocks: tuple["Layer", ...] = ()

    @property
    def is_convolution(self) -> bool:
        """Whether it takes images."""
        return self.weight.dim() == 4

    @property
    def tensors(self) -> list[Tensor]:
        """Everything it holds, in the order of our modules."""
        return [self.weight, self.bias, *(self.norm or ()), *chain(*(block.tensors for block in self.blocks))]


@dataclass(frozen=True)
class Cell:
    """One recurrent layer, a GRU or an LSTM with the gates in PyTorch's order."""

    input: Layer  # from the features to the gates, `[3 H, F]` or `[4 H, F]`
    recurrent: Layer  # from the state to the gates, `[3 H, H]` or `[4 H, H]`

    @property
    def size(self) -> int:
        """H, its units."""
        return self.recurrent.weight.shape[1]

    @property
    def kind(self) -> MemoryKind:
        """Which of the two it is, by the number of its gates."""
        return "gru" if len(self.recurrent.weight) == 3 * self.size else "lstm"

    @property
    def tensors(self) -> list[Tensor]:
        """Everything it holds, in the order of our modules."""
        return [*self.input.tensors, *self.recurrent.tensors]


@dataclass(frozen=True)
class NetworkLayers:
    """A policy network of one head."""

    torso: tuple[Layer, ...]  # layers below the head; those of one image end in fully connected ones
    output: Layer  # the last layer: Q-values, logits, means or actions
    kind: OutputKind  # which of these
    memory: tuple[Cell, ...] = ()  # recurrent layers above the torso, from below, all of one kind and size
    head: tuple[Layer, ...] = ()  # hidden layers between torso, or memory, and output
    # Of an observation of several parts the torso of each image, in the order of the parts; `torso` is empty then, and
    # the head sees their features beside the other parts.
    images: tuple[tuple[Layer, ...], ...] = ()
    activation: Activation = "relu"  # after each layer of the torso
    head_activation: Activation | None = None  # after each hidden layer of the head; None: as in the torso
    normalization: InputNormalization | None = None  # of the observations by running statistics
    input_scale: float = 1.0  # factor on the observations; of several parts, on the images alone
    value: Layer | None = None  # the layer of a state value on the same features
    log_std: Layer | Tensor | None = None  # of a Gaussian: a layer, a vector `[D]`, or the matrix `[F, D]` of gSDE
    gaussian: GaussianOptions = DEFAULT_GAUSSIAN  # how `log_std` is read
    atoms: ValueAtoms | None = None  # of a value distribution, whose expectations are the Q-values
    is_beta: bool = False  # whether actions are the means of Beta distributions
    float_images: bool = False  # whether every part of three dimensions is an image, also where it is not of bytes
    name: str = ""  # of its architecture; empty: named by its sizes

    @property
    def first(self) -> Layer:
        """The layer that sees the observation; of several parts, their first image."""
        return (*chain(*self.images), *self.torso, *(cell.input for cell in self.memory), *self.head, self.output)[0]

    @property
    def architecture(self) -> Architecture:
        """The same network without its weights."""
        torso = self.images[0] if self.images else self.torso
        convolutions = [layer for layer in torso if layer.is_convolution]
        norms = [layer.norm[0] for layer in torso if layer.norm is not None]
        kind = "impala" if self.first.blocks else "conv" if convolutions else "mlp"
        kind = "combined" if self.images else kind
        channels = tuple(len(layer.weight) for layer in convolutions)
        hidden = tuple(len(layer.weight) for layer in torso if not layer.is_convolution)
        head_hidden = tuple(len(layer.weight) for layer in self.head)
        memory = self.memory[0] if self.memory else None
        sizes = ("-".join(map(str, channels)), "x".join(map(str, hidden)), "x".join(map(str, head_hidden)))
        return Architecture(
            self.name or self._name_by_sizes(kind, *sizes),
            kind,
            hidden,
            channels,
            kernel_sizes=tuple(layer.weight.shape[2] for layer in convolutions),
            strides=tuple(layer.stride for layer in convolutions),
            head_hidden=head_hidden,
            activation=self.activation,
            head_activation=self.head_activation,
            layer_norm=bool(norms),
            elementwise_norm=any(norm.dim() == 3 for norm in norms),
            value_head=self.value is not None,
            float_images=self.float_images,
            memory=None if memory is None else memory.kind,
            memory_size=0 if memory is None else memory.size,
            memory_layers=max(len(self.memory), 1),
        )

    def _name_by_sizes(self, kind: str, channels: str, hidden: str, head_hidden: str) -> str:
        """Return `mlp:64x64`, or with a memory `mlp:64+lstm:32x32:16`: the torso, the recurrent layers, the head."""
        torso = ":".join(filter(None, (channels, hidden)))
        if not self.memory:
            sizes = ":".join(filter(None, (torso, head_hidden)))
            return f"{kind}:{sizes}" if sizes else "linear"
        below = f"{kind}:{torso}+" if torso else ""
        cells = f"{self.memory[0].kind}:{'x'.join(str(cell.size) for cell in self.memory)}"
        return ":".join(filter(None, (below + cells, head_hidden)))


class MisfitError(ValueError):
    """Layers of other sizes than the network around them has; the text lists them."""


def fill_network(network: PolicyNetwork, layers: NetworkLayers) -> None:
    """Give a network of the same architecture, on the meta device, its weights.

    Raises:
        MisfitError: layers of other sizes, or of whole numbers.
        ValueError: a torso for another number of images.
    """
    expected = {name: _kind(tensor) for name, tensor in network.state_dict().items()}
    state = _state(layers, [name for name in expected if name.startswith(("torso.", "memory", "heads.0.hidden."))])
    got = {name: _kind(tensor) for name, tensor in state.items()}
    if wrong := [name for name in expected | got if expected.get(name) != got.get(name)]:
        raise MisfitError(
            ", ".join(
                f"{name} {got.get(name, 'missing')} instead of {expected.get(name, 'nothing')}" for name in wrong[:4]
            )
        )
    # Copied: a file's tensors lie where the file has them, and where weights lie may change an answer's last bits.
    own = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    network.load_state_dict(own, assign=True)
    network.requires_grad_(True)
    network.use_channels_last()


def plain_layers(network: PolicyNetwork, head: int = 0) -> list[nn.Module]:
    """Return the layers that an observation passes on its way to one head's rows, in their order.

    Images are `[C, H, W]` (`torsos.to_images`) before the first of them. Each takes what the one before it gave. Some
    are more than one step: a `CombinedTorso` holds a list of its own for each image, a `Stack` and a `RecurrentCell`
    also take their part of the state (`PolicyNetwork.initial_state`, in this order) and give its next, and the last,
    `OutputRows`, also takes what the layer before it took. The state value is left out: no action follows from it.

    Returns:
        `ScaleInput` or `NormalizeInput`; a `Stack`; convolutions, norms, activations, `Flatten` and linear layers of
        the torso, or `ImpalaStage`s, or a `CombinedTorso`; `RecurrentCell`s; linear layers and activations of the head;
        its last linear layer; `OutputRows`.
    """
    chosen = network.heads[head]
    assert isinstance(chosen, Head), "heads are made as such"
    torso = list(network.torso) if isinstance(network.torso, nn.Sequential) else [network.torso]
    below = [layer for layer in (network.scale, network.stack) if layer is not None]
    return [*below, *torso, *network.cells, *chosen.hidden, chosen.output, chosen.rows]


def _state(layers: NetworkLayers, names: Sequence[str]) -> dict[str, Tensor]:
    """Return the tensors under the names of our modules: those below the output go by their order."""
    passed = chain(*layers.images, layers.torso, layers.memory, layers.head)
    below = [tensor for layer in passed for tensor in layer.tensors]
    if len(below) != len(names):
        raise ValueError(f"{len(below) // 2} layers below its output, where its images need {len(names) // 2}")
    state = dict(zip(names, below, strict=True))
    single = {"output": layers.output, "value": layers.value}
    if isinstance(layers.log_std, Tensor):
        state["heads.0.rows.log_std"] = layers.log_std
    else:
        single["rows.log_std_layer"] = layers.log_std
    for name, layer in single.items():
        if layer is not None:
            state |= {f"heads.0.{name}.weight": layer.weight, f"heads.0.{name}.bias": layer.bias}
    if layers.normalization is not None:
        state["scale.mean"] = torch.tensor(layers.normalization.mean, dtype=torch.float64)
        state["scale.variance"] = torch.tensor(layers.normalization.variance, dtype=torch.float64)
    return state


def _kind(tensor: Tensor) -> str:
    """Return the shape of a tensor, and its type where that is none of a weight."""
    return f"{list(tensor.shape)}{'' if tensor.is_floating_point() else ' of whole numbers'}"
