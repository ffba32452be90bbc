"""Other people's Atari teachers, rebuilt as our policies from their safetensors.

Their files name layers in two ways; both are torsos that `Architecture` can describe.
"""

from pathlib import Path

from rldistill.networks import Architecture
from rldistill.policies import TorchPolicy
from scripts.actor_critics import load_actor_critic as load_actor_critic
from scripts.actor_critics import rebuild

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


def load_pqn(path: Path) -> TorchPolicy:
    """Rebuild `atari_pqn/<game>….safetensors`: Q-values, LayerNorm after every layer."""
    architecture = Architecture("pqn", "conv", (512,), (32, 64, 64), **_CONVOLUTIONS, layer_norm=True)
    return rebuild(path, architecture, _PQN_LAYERS, output_kind="q_values")
