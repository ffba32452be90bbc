"""What a teacher's last layer means: kind of output, action layout, spread, and the folded layers themselves.

Sources: Stable-Baselines3 and sb3-contrib 2.9 (`common/distributions.py`, `sac/policies.py`,
`qrdqn/policies.py`, `ars/policies.py`); their older releases differ in names alone.
"""

from dataclasses import dataclass
from math import isfinite, prod
from typing import Literal

import torch
from torch import Tensor

from rldistill.adapters.sb3.data import Sb3Data, is_true
from rldistill.networks import GaussianOptions
from rldistill.networks.layers import Layer
from rldistill.networks.output_layer import DEFAULT_GAUSSIAN
from rldistill.types import ActionLayout, BoxMapping, OutputKind

Family = Literal["q_network", "quantile_network", "actor_critic", "stochastic_actor", "deterministic_actor", "search"]
"""Which networks the algorithms have; ARS searches without a gradient."""

# What SAC and TQC clip the mean to where their noise is gSDE, unless they were told otherwise.
_DEFAULT_MEAN_LIMIT = 2.0


@dataclass(frozen=True)
class Output:
    """The last layer of a network, and what it means."""

    kind: OutputKind  # which action field its rows are
    layout: ActionLayout
    layer: Layer  # the linear layer; quantiles are averaged into it
    gaussian: GaussianOptions = DEFAULT_GAUSSIAN  # how the spread arises, where the kind is `gaussian`
    log_std: Layer | Tensor | None = None  # the layer, vector or matrix that belongs to it


def read_output(
    family: Family, layer: Layer, log_std: Layer | Tensor | None, data: Sb3Data, *, is_linear: bool
) -> Output:
    """Return what a last layer means in its action space. Raises ValueError: it does not fit that space."""
    if family in ("stochastic_actor", "deterministic_actor") or data.action_space.kind == "box":
        return _box_output(family, layer, log_std, data, is_linear=is_linear)
    layout = _choice_layout(data)
    if family == "quantile_network":
        layer = _mean_over_quantiles(layer, layout)
    kind: OutputKind = "q_values" if family in ("q_network", "quantile_network") else "logits"
    _check_size(layer, layout.num_outputs(kind), data)
    return Output(kind, layout, layer)


def _choice_layout(data: Sb3Data) -> ActionLayout:
    space = data.action_space
    if space.kind == "discrete":
        return ActionLayout.discrete(space.sizes[0])
    if space.kind == "multi_discrete":
        return ActionLayout("multi_discrete", space.sizes)
    if space.kind == "multi_binary":
        return ActionLayout("multi_binary", (prod(space.shape),))
    raise ValueError(f"actions of {space.description}, which no algorithm has")


def _mean_over_quantiles(layer: Layer, layout: ActionLayout) -> Layer:
    """Average the quantiles of each action: outputs come quantile by quantile, all actions of one side by side."""
    (num_actions,) = layout.sizes
    num_outputs, num_features = layer.weight.shape
    if num_outputs % num_actions:
        raise ValueError(f"{num_outputs} quantiles of {num_actions} actions, which is no whole number for each")
    # The mean of linear functions is a linear function; in float64, to round once only.
    weight = layer.weight.double().view(-1, num_actions, num_features).mean(0)
    return Layer(weight.float(), layer.bias.double().view(-1, num_actions).mean(0).float())


def _box_output(
    family: Family, layer: Layer, log_std: Layer | Tensor | None, data: Sb3Data, *, is_linear: bool
) -> Output:
    if data.action_space.kind != "box":
        raise ValueError(f"an actor of a box, and actions of {data.action_space.description}")
    # First of all: bounds are written out for as many dimensions as the file declares.
    _check_size(layer, prod(data.action_space.shape), data)
    if family in ("deterministic_actor", "search"):
        squashes = family == "deterministic_actor" or _search_squashes(data, is_linear=is_linear)
        return Output("actions", _box_layout(data, "tanh_rescale" if squashes else "clip"), layer)
    if log_std is None:
        raise ValueError("actions of a box without a log_std")
    is_gsde = isinstance(log_std, Tensor) and log_std.dim() == 2
    kwargs, is_off_policy = data.policy_kwargs, family == "stochastic_actor"
    squashes = is_off_policy or (is_gsde and is_true(kwargs.get("squash_output")))
    layout = _box_layout(data, "tanh_rescale" if squashes else "clip")
    if isinstance(log_std, Layer) or not is_gsde:
        gaussian = GaussianOptions("state" if isinstance(log_std, Layer) else "parameter")
        return Output("gaussian", layout, layer, gaussian, log_std)
    if is_true(kwargs.get("use_expln")):
        log_std = _log_of_expln(log_std)
    limit = float(kwargs.get("clip_mean", _DEFAULT_MEAN_LIMIT)) if is_off_policy else 0.0
    gaussian = GaussianOptions("gsde", limit if limit > 0 else None)
    # One column stands for all actions.
    return Output("gaussian", layout, layer, gaussian, log_std.expand(-1, len(layer.weight)).contiguous())


def _box_layout(data: Sb3Data, mapping: BoxMapping) -> ActionLayout:
    space = data.action_space
    low, high = space.bounds()
    if mapping == "tanh_rescale" and not all(isfinite(bound) for bound in (*low, *high)):
        raise ValueError("squashed actions of a box without bounds")
    return ActionLayout("box", (prod(space.shape),), low, high, mapping)


def _search_squashes(data: Sb3Data, *, is_linear: bool) -> bool:
    """Return whether ARS squashes: unless told otherwise its MLPs do, and its linear policies do not."""
    is_linear = data.policy_class == "ARSLinearPolicy" or (not data.policy_class and is_linear)
    return is_true(data.policy_kwargs.get("squash_output"), default=not is_linear)


def _log_of_expln(log_std: Tensor) -> Tensor:
    """Return the logarithm of `expln`, which grows as exp below 0 and as a logarithm above it."""
    values = log_std.double()
    # The library adds this where the argument is positive, to keep its gradient finite.
    above = torch.log(torch.log1p(values.clamp(min=0) + 1e-6) + 1)
    return torch.where(values > 0, above, values).float()


def _check_size(layer: Layer, expected: int, data: Sb3Data) -> None:
    if len(layer.weight) != expected:
        raise ValueError(f"{len(layer.weight)} outputs for actions of {data.action_space.description}")
