"""Other people's Atari teachers, rebuilt as our policies from their safetensors.

Their files name layers in two ways; both are torsos that `Architecture` can describe.
"""

from pathlib import Path

import safetensors.torch

from rldistill.envs import make_task
from rldistill.networks import Architecture
from rldistill.policies import TorchPolicy

_A2C_LAYERS = {
    "torso.0": "conv1",
    "torso.2": "conv2",
    "torso.4": "conv3",
    "torso.7": "fc",
    "heads.0.output": "pi",
    "heads.0.value": "v",
}
_PQN_LAYERS = {
    "torso.0": "c1",
    "torso.1": "n1",
    "torso.3": "c2",
    "torso.4": "n2",
    "torso.6": "c3",
    "torso.7": "n3",
    "torso.10": "f",
    "torso.11": "n4",
    "heads.0.output": "o",
}
_CONVOLUTIONS = {"kernel_sizes": (8, 4, 3), "strides": (4, 2, 1)}


def load_actor_critic(path: Path, *, behaviour: str = "greedy") -> TorchPolicy:
    """Rebuild `atari/<game>_<algorithm>.safetensors`: logits over the minimal action set."""
    architecture = Architecture("a2c", "conv", (512,), (32, 64, 32), **_CONVOLUTIONS, value_head=True)
    return _rebuild(path, architecture, _A2C_LAYERS, "logits", behaviour)


def load_pqn(path: Path) -> TorchPolicy:
    """Rebuild `atari_pqn/<game>….safetensors`: Q-values, LayerNorm after every layer."""
    architecture = Architecture("pqn", "conv", (512,), (32, 64, 64), **_CONVOLUTIONS, layer_norm=True)
    return _rebuild(path, architecture, _PQN_LAYERS, "q_values", "greedy")


def _rebuild(path: Path, architecture: Architecture, layers: dict[str, str], kind: str, behaviour: str) -> TorchPolicy:
    game = path.stem.split("_")[0]
    policy = TorchPolicy.create(
        architecture, [make_task(f"atari:{game}").task], output_kind=kind, behaviour=behaviour, name=f"{game} teacher"
    )
    tensors = safetensors.torch.load_file(path)
    state = {
        f"{ours}.{part}": tensors[f"{theirs}.{part}"] for ours, theirs in layers.items() for part in ("weight", "bias")
    }
    policy.network.load_state_dict(state)
    return policy
