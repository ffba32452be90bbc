"""A CartPole teacher made by hand, and datasets of it: two features, hence nothing to train and nothing to load."""

from pathlib import Path

import torch

from rldistill.envs import PlayableTask, make_task
from rldistill.networks import parse_architecture
from rldistill.policies import TorchPolicy
from rldistill.runs.collect import collect

# Position, velocity, angle, angular velocity: push to where the pole falls. Balances for as long as anyone looks.
_CONTROLLER = (0.1, 0.2, 1.0, 1.0)


def short_cart_pole(max_episode_steps: int = 40) -> PlayableTask:
    """Return CartPole with short episodes: many fit into a small dataset."""
    return make_task("CartPole-v1", {"max_episode_steps": max_episode_steps})


def hand_made_teacher(
    task: PlayableTask | None = None, *, kind: str = "q_values", behaviour: str = "greedy", scale: float = 1.0
) -> TorchPolicy:
    """Return a policy that never lets the pole fall; `scale` multiplies its outputs."""
    task = task or short_cart_pole()
    policy = TorchPolicy.create(
        parse_architecture("mlp:2"), [task.task], output_kind=kind, behaviour=behaviour, name="hand-made"
    )
    push = torch.tensor(_CONTROLLER)
    policy.network.load_state_dict(
        {
            "torso.1.weight": torch.stack([push, -push]),
            "torso.1.bias": torch.zeros(2),
            "heads.0.output.weight": scale * torch.tensor([[-1.0, 1.0], [1.0, -1.0]]),
            "heads.0.output.bias": torch.zeros(2),
        }
    )
    return policy


def saved_teacher(folder: Path, **options) -> Path:
    """Write the hand-made teacher's file and return its path."""
    path = folder / "teacher.safetensors"
    hand_made_teacher(**options).save(path)
    return path


def collect_cart_pole(
    path: Path, teacher: TorchPolicy | Path | None = None, *, num_steps: int = 2000, exploration_epsilon: float = 0.3
) -> Path:
    """Collect a dataset of the hand-made teacher (or of another) and return its path."""
    collect(teacher or hand_made_teacher(), num_steps=num_steps, out=path, exploration_epsilon=exploration_epsilon)
    return path
