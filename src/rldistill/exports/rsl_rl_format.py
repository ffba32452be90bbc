"""Checkpoints of rsl_rl 5.5: the actor, from which its runner trains on.

`runner.load(path, load_cfg={"actor": True})` takes it; critic and optimiser begin anew. What a checkpoint does not say
must stand in the runner's configuration: the sizes of the layers, the activation, and whether observations are
normalised. Layout: rsl_rl 5.5.0, `models/mlp_model.py`, `modules/normalization.py`, `modules/distribution.py`.
"""

from pathlib import Path

import torch
from torch import Tensor

from rldistill.adapters.load import acting
from rldistill.exports.dense import constant_log_std, dense_policy, misfit
from rldistill.exports.formats import Export, ExportFormat, Opened, read_back, write_from_memory
from rldistill.networks import InputNormalization
from rldistill.networks.torsos import ACTIVATIONS
from rldistill.options.reading import Reading

_WHAT = "rsl-rl"
# rsl_rl adds this to the standard deviation, not to the variance.
_NORMALIZER_EPSILON = 1e-2


def _write(export: Export, path: Path) -> None:
    found = dense_policy(export, _WHAT)
    layer = found.rows.layer
    if found.convolutions or not layer.layout.is_continuous or layer.squashes:
        raise misfit(export, _WHAT, "is no MLP from vectors to actions of a box that are clipped")
    if len(set(found.activations)) > 1 or layer.gaussian.mean_limit is not None or layer.is_beta:
        raise misfit(export, _WHAT, "has different activations, clips its mean, or ends in Beta distributions")
    actor: dict[str, Tensor] = {}
    for index, linear in enumerate([*found.hidden, found.output]):
        actor[f"mlp.{2 * index}.weight"] = linear.weight.detach().cpu().clone()
        actor[f"mlp.{2 * index}.bias"] = linear.bias.detach().cpu().clone()
    if found.input_scale != 1:
        actor["mlp.0.weight"] *= found.input_scale
    if (statistics := export.policy.normalization) is not None:
        actor |= _normalizer(export, statistics)
    actor["distribution.std_param"] = constant_log_std(export, found).exp()
    checkpoint = {"actor_state_dict": actor, "iter": 0, "infos": None}
    write_from_memory(path, lambda file: torch.save(checkpoint, file))


def _normalizer(export: Export, statistics: InputNormalization) -> dict[str, Tensor]:
    """Return statistics by which (o − mean) ÷ (std + 0.01) is what the policy computes; rsl_rl clips nothing."""
    if statistics.untouched:
        raise misfit(export, _WHAT, "normalises some of its observation alone")
    divisor = (torch.tensor(statistics.variance, dtype=torch.float64) + statistics.epsilon).sqrt()
    std = divisor - _NORMALIZER_EPSILON
    return {
        "obs_normalizer._mean": torch.tensor(statistics.mean, dtype=torch.float64).float()[None],
        "obs_normalizer._var": std.clamp(min=0).square().float()[None],
        "obs_normalizer._std": std.float()[None],
        "obs_normalizer.count": torch.tensor(1_000_000),  # it stays as it is while training goes on from here
    }


def _open(export: Export, path: Path) -> Opened:
    activations, names = dense_policy(export, _WHAT).activations, {kind: name for name, kind in ACTIVATIONS.items()}
    said = Reading(activation=names[activations[0]] if activations else None)  # which the checkpoint does not say
    policy = read_back(export, path, said)
    greedy = acting(policy, "greedy")
    return policy, lambda observation: greedy.act(observation)


RSL_RL = ExportFormat(
    "rsl-rl",
    ".pt",
    ("float32",),
    _write,
    _open,
    may_give_probabilities=False,
    keeps_state=False,
    keeps_spread=False,
)
