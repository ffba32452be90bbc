"""How long does one decision take? A policy asked by hand, and in a padded batch, beside its bare network.

The network is that of a small control policy: 8 numbers in, two layers of 64, 4 actions, 4,996 parameters. Bare, it is
an `nn.Sequential` that returns its outputs and checks nothing.
"""

import itertools
import time
from collections.abc import Callable

import numpy as np
import torch
from kit import Rates, random_teacher, run_alone, show
from torch import nn

from rldistill.envs import make_task
from rldistill.policies import TorchPolicy, choose_actions

_TASK = "LunarLander-v3"


def _timed(decide: Callable[[], object], num_decisions: int) -> Callable[[], tuple[int, float]]:
    """Return a piece for `Rates`; the process's own time: a decision never waits."""

    def piece() -> tuple[int, float]:
        started = time.process_time()
        for _ in itertools.repeat(None, num_decisions):
            decide()
        return num_decisions, time.process_time() - started

    return piece


def _bare(policy: TorchPolicy) -> nn.Sequential:
    layers = [layer for layer in policy.network.modules() if isinstance(layer, nn.Linear | nn.ReLU)]
    plain = [
        nn.Linear(layer.in_features, layer.out_features) if isinstance(layer, nn.Linear) else layer for layer in layers
    ]
    return nn.Sequential(*plain).eval()


def main(*, quick: bool) -> None:
    torch.set_num_threads(1)
    num_decisions, num_rounds = (200, 5) if quick else (1000, 15)
    policy = random_teacher(make_task(_TASK), "mlp:64x64", layer_norm=False)
    network = _bare(policy)
    observation = np.random.default_rng(0).standard_normal((1, 8), np.float32)
    row = torch.from_numpy(observation)

    def bare() -> None:
        with torch.inference_mode():
            network(row)

    decisions = {
        "bare network": bare,
        "policy.act, one observation": lambda: policy.act(observation),
        "policy(…) padded to 16 rows, then its action": lambda: choose_actions(policy(observation)[0], "greedy"),
    }
    rates = Rates({name: _timed(decide, num_decisions) for name, decide in decisions.items()}, num_rounds=num_rounds)
    num_parameters = sum(parameter.numel() for parameter in policy.network.parameters())
    show(
        f"One decision of {num_parameters:,} parameters",
        ["", "µs", "of the bare network"],
        [
            [name, f"{1e6 / rates.median(name):.0f}", f"{1 / rates.ratio(name, 'bare network'):.1f}"]
            for name in decisions
        ],
        f"medians of {num_rounds} turns of {num_decisions:,} decisions, process time.",
    )


if __name__ == "__main__":
    run_alone(main, __doc__)
