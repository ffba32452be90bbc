"""A policy network: input scaling, one torso, one head per task."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor, nn

from rldistill.networks.architecture import Architecture
from rldistill.networks.combined_torso import CombinedTorso
from rldistill.networks.input_layer import InputNormalization, NormalizeInput, ScaleInput, join_parts
from rldistill.networks.memory import AlignedLinear
from rldistill.networks.output_layer import OutputLayer, OutputRows
from rldistill.networks.recurrent import RecurrentCell, Stack
from rldistill.networks.torsos import INITIAL_GAINS, dense_layers, make_torso, run_layers, to_images
from rldistill.observations import Tensors
from rldistill.tasks import ObservationPart
from rldistill.types import State


@dataclass(frozen=True)
class NetworkOutput:
    """What a network gives for one head.

    Attributes:
        outputs: `[B, O]`, rows of the head's kind of output.
        features: `[B, F]`, the layer before the output; None of a module of somebody's own.
        value: `[B]`, where the head has one.
        state: to be given with the next observations; None: the network remembers nothing.
    """

    outputs: Tensor
    features: Tensor | None = None
    value: Tensor | None = None
    state: State = None


class Head(nn.Module):
    """The part of a network that belongs to one task."""

    def __init__(self, num_features: int, layer: OutputLayer, architecture: Architecture) -> None:
        super().__init__()
        sizes = (num_features, *architecture.head_hidden)
        activation = architecture.head_activation or architecture.activation
        self.hidden = nn.Sequential(*dense_layers(sizes, activation=activation, layer_norm=False))
        self.output = AlignedLinear(sizes[-1], layer.num_linear)
        self.rows = OutputRows(layer, sizes[-1])
        self.value = AlignedLinear(sizes[-1], 1) if architecture.value_head else None

    def forward(self, features: Tensor, block: int | None = None) -> NetworkOutput:
        """Map shared features `[B, F]` to this task's outputs, in float32 whatever the torso's precision.

        Eight bits of mantissa would round Q-values to steps wider than the gap between actions.
        """
        device = features.device.type
        if not torch.is_autocast_enabled(device):  # entering and leaving autocast costs as much as a layer
            return self._forward(features.float(), block)
        with torch.autocast(device, enabled=False):
            return self._forward(features.float(), block)

    def _forward(self, features: Tensor, block: int | None) -> NetworkOutput:
        hidden = run_layers(self.hidden, features, block)
        value = run_layers((self.value,), hidden, block).squeeze(-1) if self.value is not None else None
        linear = run_layers((self.output,), hidden, block)
        if block is None or self.rows.takes_blocks:
            return NetworkOutput(self.rows.forward(linear, hidden, block), hidden, value)
        pairs = zip(linear.split(block), hidden.split(block), strict=True)
        return NetworkOutput(torch.cat([self.rows.forward(*pair) for pair in pairs]), hidden, value)


class PolicyNetwork(nn.Module):
    """Torso and heads; weights are Kaiming-normal, biases zero.

    A student's output layer starts at zero, as the uniform policy: with PyTorch's default
    initialisation the sharpened loss (temperature 0.01) stands still for thousands of
    updates, and at higher rates the ReLUs die. A learner's does not: equal Q-values make the
    greedy action NOOP everywhere, and in Freeway that finds no reward for a very long time.

    Layers are called without their hooks: to look for some takes longer than a small layer does.

    Args:
        architecture: the layers.
        observation_shape: of one observation: `(C, H, W)`, or any shape for an mlp.
        heads: kind of output per task name, in order.
        parts: what the observations are made of, for a combined torso.
        input_scale: factor on the inputs: 1/255 for bytes; with a combined torso on its images alone.
        normalization: of the inputs by running statistics, instead of the factor.
        zero_output: start with output layers of zero.
        generator: draws the initial weights.
    """

    def __init__(
        self,
        architecture: Architecture,
        observation_shape: tuple[int, ...],
        heads: Mapping[str, OutputLayer],
        *,
        parts: Sequence[ObservationPart] = (),
        input_scale: float = 1.0,
        normalization: InputNormalization | None = None,
        zero_output: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.observation_shape = observation_shape
        self.head_names = tuple(heads)
        is_combined = architecture.kind == "combined"
        scale = 1.0 if is_combined else input_scale
        self.scale = ScaleInput(scale) if normalization is None else NormalizeInput(normalization)
        self.stack = Stack(architecture.stack, math.prod(observation_shape)) if architecture.stack else None
        if is_combined:
            self.torso = CombinedTorso(architecture, parts, math.prod(observation_shape), input_scale)
            num_features = self.torso.num_features
        else:
            shape = observation_shape if self.stack is None else (self.stack.width,)
            self.torso, num_features = make_torso(architecture, shape)
        memory = architecture.memory
        self.memory = None if memory is None else RecurrentCell(memory, num_features, architecture.memory_size)
        self.memory_above = nn.ModuleList()
        if memory is not None:
            num_features = size = architecture.memory_size
            self.memory_above.extend(RecurrentCell(memory, size, size) for _ in range(architecture.memory_layers - 1))
        # Task names hold dots and colons, which module names must not: heads go by position.
        self.heads = nn.ModuleList(Head(num_features, layer, architecture) for layer in heads.values())
        self._initialise(generator, zero_output=zero_output)
        self.use_channels_last()

    def _initialise(self, generator: torch.Generator | None, *, zero_output: bool) -> None:
        if next(self.parameters()).is_meta:
            return  # it is about to be given a file's weights, and drawing on this device imports torch._dynamo: 1 s
        gain = INITIAL_GAINS.get(self.architecture.activation, "relu")
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity=gain, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for cell in self.cells:
            cell.initialise(generator)
        for head in self.heads:
            assert isinstance(head, Head)
            head.rows.initialise()
            if zero_output:
                nn.init.zeros_(head.output.weight)
            else:
                nn.init.kaiming_normal_(head.output.weight, nonlinearity="linear", generator=generator)

    def use_channels_last(self) -> None:
        """Lay convolution weights out as the CPU and the GPU compute fastest: up to twice in bfloat16."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)

    def with_head(self, head: int) -> "PolicyNetwork":
        """Return a copy that has the torso and only one of the heads; nothing is shared with this network."""
        network = copy.deepcopy(self)
        network.head_names = (self.head_names[head],)
        network.heads = nn.ModuleList([network.heads[head]])
        return network

    @property
    def cells(self) -> list[RecurrentCell]:
        """The recurrent layers, from below."""
        return [cell for cell in (self.memory, *self.memory_above) if isinstance(cell, RecurrentCell)]

    def initial_state(self, num_envs: int) -> State:
        """Return what is remembered when an episode begins: earlier observations, then the cells'; None: nothing."""
        cells = tuple(chain(*(cell.initial_state(num_envs) for cell in self.cells)))
        if self.stack is None:
            return cells or None
        earlier = next(self.parameters()).new_zeros(num_envs, self.stack.width - self.stack.num_inputs)
        return (earlier, *cells)

    @property
    def takes_blocks(self) -> bool:
        """Whether `forward` can compute several blocks at once."""
        return not self.architecture.takes_images and self.stack is None and self.memory is None

    def forward(
        self, observations: Tensors, head: int = 0, state: State = None, block: int | None = None
    ) -> NetworkOutput:
        """Return one head's outputs for observations `[B, *observation_shape]` or their parts, and the next state.

        Args:
            observations: rows, or their parts by name.
            head: by number.
            state: what the network gave before; None: an episode begins.
            block: outputs are, to the last bit, those of so many rows at a time; B is a multiple of it, and the network
                one that `takes_blocks`. None: of all rows together.
        """
        # Here, and nowhere before, several parts become one vector: a torso may as well take each by itself.
        observations = join_parts(observations)
        if self.stack is not None or self.memory is not None:
            return self._remembering(observations, head, state)
        chosen = self.heads[head]
        assert isinstance(chosen, Head)
        return chosen.forward(self._features(self.scale.forward(self.laid_out(observations)), block), block)

    def over_windows(
        self, observations: Tensors, num_windows: int, head: int, begins: Tensor | None, burn_in: int
    ) -> NetworkOutput:
        """Return what a network with a memory gives for the steps of windows, after those that only fill it.

        The same numbers as `forward` step by step, from an empty memory, but for their rounding: all that does not
        depend on the memory is computed for all steps at once.

        Args:
            observations: of T · B steps, `[T · B, *observation_shape]` or their parts, the first step of all first.
            num_windows: B.
            head: of the outputs.
            begins: `[T, B]`, bool: where an episode begins; None: nowhere.
            burn_in: how many steps of each window only fill the memory.

        Returns:
            Outputs of (T - burn_in) · B rows, in the same order.
        """
        begins = None if begins is None else begins.unsqueeze(-1)
        rows = self.scale(self.laid_out(join_parts(observations)))
        if self.stack is not None:
            rows = self.stack.over_time(rows.view(-1, num_windows, self.stack.num_inputs), begins)
            # Without a memory above it a step that teaches nothing need not go further.
            rows = (rows if self.memory is not None else rows[burn_in:]).flatten(0, 1)
        features = self.torso(rows)
        if self.memory is not None:
            steps = features.view(-1, num_windows, features.shape[-1])
            for cell in self.cells:
                steps = cell.over_time(steps, begins, burn_in)
            features = steps[burn_in:].flatten(0, 1)
        return self.heads[head](features)

    def _features(self, rows: Tensor, block: int | None = None) -> Tensor:
        return run_layers(self.torso if isinstance(self.torso, nn.Sequential) else (self.torso,), rows, block)

    def laid_out(self, observations: Tensor) -> Tensor:
        """Return observations as the first layer gets them: images as `[B, C, H, W]`, all else as it is."""
        if not self.architecture.takes_images:
            return observations
        return to_images(observations).contiguous(memory_format=torch.channels_last)

    def _remembering(self, observations: Tensor, head: int, state: State) -> NetworkOutput:
        """Return what `forward` does, of a network with a memory; without a state an episode begins."""
        kept = state or self.initial_state(len(observations))
        assert kept is not None, "it remembers"
        rows, following = self.scale(self.laid_out(observations)), ()
        if self.stack is not None:
            rows, earlier = self.stack(rows, kept[0])
            kept, following = kept[1:], (earlier,)
        features = self._features(rows)
        for cell in self.cells:
            features, own = cell(features, kept)
            kept, following = kept[len(own) :], (*following, *own)
        return replace(self.heads[head](features), state=following)
