"""Make teachers of the actor-critics of github.com/ikostrikov/pytorch-a2c-ppo-acktr-gail: `reproduce` takes these.

Their files hold weights alone, named `conv1`, `conv2`, `conv3`, `fc`, `pi` (logits) and `v`, and are called
`<game>_<algorithm>.safetensors`. Breakout's and Qbert's play by sampling, Pong's and Seaquest's greedily.

    python scripts/actor_critics.py breakout_a2c.safetensors --behaviour sample --out teachers/breakout.safetensors
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch

from rldistill.envs import make_task
from rldistill.networks import Architecture
from rldistill.policies import TorchPolicy
from rldistill.policies.behaviour import LEARNED_BEHAVIOURS, Behaviour
from rldistill.types import OutputKind

ARCHITECTURE = Architecture(
    "a2c", "conv", (512,), (32, 64, 32), kernel_sizes=(8, 4, 3), strides=(4, 2, 1), value_head=True
)
LAYERS = {
    "torso.0": "conv1",
    "torso.2": "conv2",
    "torso.4": "conv3",
    "torso.7": "fc",
    "heads.0.output": "pi",
    "heads.0.value": "v",
}


def load_actor_critic(path: Path, *, behaviour: Behaviour = "greedy") -> TorchPolicy:
    return rebuild(path, ARCHITECTURE, LAYERS, output_kind="logits", behaviour=behaviour)


def rebuild(
    path: Path,
    architecture: Architecture,
    layers: Mapping[str, str],
    *,
    output_kind: OutputKind,
    behaviour: Behaviour = "greedy",
) -> TorchPolicy:
    game = path.stem.split("_")[0]
    policy = TorchPolicy.create(
        architecture,
        [make_task(f"atari:{game}").task],
        output_kind=output_kind,
        behaviour=behaviour,
        name=f"{game} teacher",
    )
    tensors = safetensors.torch.load_file(path)
    policy.network.load_state_dict(
        {
            f"{ours}.{part}": tensors[f"{theirs}.{part}"]
            for ours, theirs in layers.items()
            for part in ("weight", "bias")
        }
    )
    return policy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--behaviour", choices=LEARNED_BEHAVIOURS, default="greedy")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    load_actor_critic(arguments.file, behaviour=arguments.behaviour).save(arguments.out)


if __name__ == "__main__":
    main()
