"""A CartPole teacher made by hand, and datasets of it: two features, hence nothing to train and nothing to load."""

from pathlib import Path
from typing import Any

import gymnasium
import torch
from gymnasium.envs.classic_control import CartPoleEnv

from rldistill.envs import PlayableTask, make_task
from rldistill.networks import parse_architecture
from rldistill.policies import TorchPolicy
from rldistill.verbs.collect import collect

# Position, velocity, angle, angular velocity: push to where the pole falls. Balances for as long as anyone looks.
_CONTROLLER = (0.1, 0.2, 1.0, 1.0)


MIRRORED_TASK = "tests.kit.cart_pole:MirroredCartPole-v0"


class MirroredCartPole(CartPoleEnv):
    """CartPole with left and right exchanged, and a third action that does what the first one does.

    It looks like CartPole and wants the opposite: one network plays both only if it knows which one it plays.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.action_space = gymnasium.spaces.Discrete(3)

    def step(self, action: Any):
        return super().step(0 if action == 1 else 1)


def short_mirrored_cart_pole(max_episode_steps: int = 40) -> PlayableTask:
    """Return the mirrored one with short episodes."""
    return make_task(MIRRORED_TASK, {"max_episode_steps": max_episode_steps})


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


def mirrored_teacher(task: PlayableTask | None = None, *, kind: str = "q_values", scale: float = 1.0) -> TorchPolicy:
    """Return a policy that never lets the mirrored pole fall."""
    task = task or short_mirrored_cart_pole()
    policy = TorchPolicy.create(parse_architecture("mlp:2"), [task.task], output_kind=kind, name="mirrored")
    state = hand_made_teacher(scale=scale).network.state_dict()
    left, right = state["heads.0.output.weight"]
    policy.network.load_state_dict(
        {
            **state,
            "heads.0.output.weight": torch.stack([right, left, torch.zeros(2)]),
            "heads.0.output.bias": torch.tensor([0.0, 0.0, -scale]),
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


gymnasium.register("MirroredCartPole-v0", entry_point=MirroredCartPole, max_episode_steps=500)
