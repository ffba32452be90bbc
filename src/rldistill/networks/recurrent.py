"""Layers that remember: gated cells above a torso, and the last observations below one.

A state is a tuple of tensors `[B, ...]`, zero at the start of an episode; a call takes one step.

Sources: Cho et al. 2014 (GRU, in the form of PyTorch, where the reset gate acts on the product with the state);
Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000 (LSTM). Weights are laid out as those of
`nn.GRUCell` and `nn.LSTMCell`; the products are `AlignedLinear` layers, so that a row's answer does not depend on its
place in the batch, and that sizes are counted as those of all other layers.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from rldistill.networks.architecture import MemoryKind
from rldistill.networks.memory import AlignedLinear

_NUM_GATES = {"gru": 3, "lstm": 4}


class RecurrentCell(nn.Module):
    """A GRU or an LSTM of one layer, one step at a time.

    Args:
        kind: which of the two.
        num_inputs: F, width of the features below it.
        size: H, its units.
    """

    def __init__(self, kind: MemoryKind, num_inputs: int, size: int) -> None:
        super().__init__()
        self.kind: MemoryKind = kind
        self.size = size
        self.input = AlignedLinear(num_inputs, _NUM_GATES[kind] * size)
        self.recurrent = AlignedLinear(size, _NUM_GATES[kind] * size)

    def initial_state(self, num_envs: int) -> tuple[Tensor, ...]:
        """Return zeros: `(h,)` of a GRU, `(h, c)` of an LSTM, `[B, H]` each."""
        weight = self.input.weight
        return tuple(weight.new_zeros(num_envs, self.size) for _ in range(1 if self.kind == "gru" else 2))

    def initialise(self, generator: torch.Generator | None) -> None:
        """Draw weights: orthogonal from state to state, so that what is remembered neither fades nor grows at first."""
        nn.init.xavier_uniform_(self.input.weight, generator=generator)
        for gate in self.recurrent.weight.split(self.size):
            nn.init.orthogonal_(gate, generator=generator)
        nn.init.zeros_(self.input.bias)
        nn.init.zeros_(self.recurrent.bias)
        if self.kind == "lstm":
            # Remember by default (Gers et al. 2000).
            nn.init.ones_(self.input.bias[self.size : 2 * self.size])

    def forward(self, features: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return `[B, H]` of features `[B, F]`, and the next state."""
        return next_state(self.kind, self.input.forward(features), self.recurrent.forward(state[0]), state)

    def over_time(self, features: Tensor, begins: Tensor | None, burn_in: int) -> Tensor:
        """Return `[T, B, H]` of features `[T, B, F]` before which nothing was seen; as `forward`, but faster.

        Args:
            features: of all steps.
            begins: `[T, B, 1]`, bool: where an episode begins, what came before is forgotten; None: nowhere.
            burn_in: no gradient goes back to the steps before this one.
        """
        cuts, state = {0, burn_in}, self.initial_state(features.shape[1])
        if begins is not None:
            cuts.update(begins.flatten(1).any(dim=1).nonzero().flatten().tolist())
        hidden = list[Tensor]()
        for first, end in itertools.pairwise([*sorted(cuts), len(features)]):
            if begins is not None:
                state = tuple(part.masked_fill(begins[first], 0.0) for part in state)
            with torch.set_grad_enabled(first >= burn_in and torch.is_grad_enabled()):
                now, state = self._run(features[first:end], state)
            hidden.append(now)
        return torch.cat(hidden)

    def _run(self, features: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return `[T, B, H]` of steps in which no episode begins but at the first, and the state after them."""
        rows = features.float()
        weights = [self.input.weight, self.recurrent.weight, self.input.bias, self.recurrent.bias]
        before = [part.unsqueeze(0) for part in state]
        # In float32, which small cells are no slower in. cuDNN wants all weights in one block, which layers are not.
        with torch.autocast(rows.device.type, enabled=False), torch.backends.cudnn.flags(enabled=False):
            if self.kind == "gru":
                hidden, *after = torch.gru(rows, before[0], weights, True, 1, 0.0, True, False, False)
            else:
                hidden, *after = torch.lstm(rows, before, weights, True, 1, 0.0, True, False, False)
        return hidden, tuple(part.squeeze(0) for part in after)


def next_state(
    kind: MemoryKind, given: Tensor, before: Tensor, state: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return what a cell gives, `[B, H]`, and its next state.

    Args:
        kind: of the cell.
        given: what the gates get from the features, `[B, 3 H]` (reset, update, candidate) or `[B, 4 H]` (input, forget,
            candidate, output).
        before: what they get from the state, likewise.
        state: `(h,)` or `(h, c)`, `[B, H]` each.
    """
    if kind == "gru":
        gates = 2 * state[0].shape[1]
        reset, update = torch.sigmoid(given[:, :gates] + before[:, :gates]).chunk(2, dim=1)
        candidate = torch.tanh(given[:, gates:] + reset * before[:, gates:])
        hidden = (1 - update) * candidate + update * state[0]
        return hidden, (hidden,)
    inputs, forgets, candidates, outputs = (given + before).chunk(4, dim=1)
    cell = torch.sigmoid(forgets) * state[1] + torch.sigmoid(inputs) * torch.tanh(candidates)
    hidden = torch.sigmoid(outputs) * torch.tanh(cell)
    return hidden, (hidden, cell)


class Stack(nn.Module):
    """The newest k observations side by side, oldest first; zeros stand before an episode's first.

    Args:
        num_stacked: k, 2 or more.
        num_inputs: P, length of one.
    """

    def __init__(self, num_stacked: int, num_inputs: int) -> None:
        super().__init__()
        self.num_inputs = num_inputs
        self.width = num_stacked * num_inputs

    def forward(self, rows: Tensor, earlier: Tensor) -> tuple[Tensor, Tensor]:
        """Return `[B, k · P]` of vectors `[B, P]` and the earlier `[B, (k − 1) · P]`, and what is earlier next."""
        stacked = torch.cat([earlier, rows.flatten(1)], dim=1)
        return stacked, stacked[:, self.num_inputs :]

    def over_time(self, rows: Tensor, begins: Tensor | None) -> Tensor:
        """Return `[T, B, k · P]` of vectors `[T, B, P]` before which nothing was seen.

        Args:
            rows: of all steps.
            begins: `[T, B, 1]`, bool: where an episode begins, nothing was seen before; None: nowhere.
        """
        num_steps = len(rows)
        episodes = None if begins is None else begins.cumsum(dim=0)
        lags = list[Tensor]()
        for lag in reversed(range(min(self.width // self.num_inputs, num_steps))):
            earlier = functional.pad(rows[: num_steps - lag], (0, 0, 0, 0, lag, 0))
            if episodes is not None and lag:
                same = functional.pad(episodes[:-lag] == episodes[lag:], (0, 0, 0, 0, lag, 0))
                earlier = earlier.masked_fill(~same, 0.0)
            lags.append(earlier)
        stacked = torch.cat(lags, dim=-1)
        return functional.pad(stacked, (self.width - stacked.shape[-1], 0))
