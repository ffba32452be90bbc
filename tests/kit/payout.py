"""An environment whose score is written down beforehand, and policies that always do the same.

Who does the same thing forty times gets that action's payout; whoever changes their mind gets `otherwise`. Random play
thus scores `otherwise`, and every mean, ratio and interval can be worked out by hand. Importing this file makes
`tests.kit.payout:Payout-v0` a task, and `PayoutA-v0` to `PayoutC-v0` beside it for policies of several tasks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from rldistill.envs import PlayableTask, make_task
from rldistill.networks import parse_architecture
from rldistill.policies import TorchPolicy

PAYOUT_TASK = "tests.kit.payout:Payout-v0"


class Payout(gymnasium.Env[np.ndarray, int]):
    """Forty steps without a reward, then the payout of the action that was always taken."""

    NUM_STEPS = 40

    def __init__(self, payouts: Sequence[float] = (2, 6, 10), otherwise: float = 2, noise: float = 0) -> None:
        self.observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Discrete(len(payouts))
        self._payouts, self._otherwise, self._noise = payouts, otherwise, noise
        self._actions: list[int] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self._actions = []
        return np.zeros(1, np.float32), {}

    def step(self, action: int):
        self._actions.append(int(action))
        is_over = len(self._actions) == self.NUM_STEPS
        reward = 0.0
        if is_over:
            is_same = len(set(self._actions)) == 1
            reward = self._payouts[self._actions[0]] if is_same else self._otherwise
            # Of each action by itself: what all policies share in an episode would cancel out of their ratios.
            noise = self.np_random.normal(size=len(self._payouts) + 1)
            reward += self._noise * noise[self._actions[0] if is_same else -1]
        return np.zeros(1, np.float32), reward, is_over, False, {}


def payout_task(**settings: object) -> PlayableTask:
    """Return the task, with other payouts, another score of random play, or noise."""
    return make_task(PAYOUT_TASK, settings)


def constant_policy(task: PlayableTask, action: int, name: str | None = None) -> TorchPolicy:
    """Return a policy that always takes one action."""
    policy = TorchPolicy.create(
        parse_architecture("mlp:1"),
        [task.task],
        name=name or f"always {action}",
        generator=torch.Generator().manual_seed(0),
    )
    policy.network.heads[0].output.bias.data = torch.eye(task.task.fingerprint.action_layout.sizes[0])[action]
    return policy


def payout_tasks(**settings: Mapping[str, object]) -> list[PlayableTask]:
    """Return a task per letter, such as `a={"payouts": [1, 2]}`."""
    return [make_task(f"tests.kit.payout:Payout{letter.upper()}-v0", kwargs) for letter, kwargs in settings.items()]


def constant_heads(tasks: Sequence[PlayableTask], actions: Sequence[int], name: str = "student") -> TorchPolicy:
    """Return a policy of several tasks that always takes one action in each."""
    policy = TorchPolicy.create(
        parse_architecture("mlp:1"),
        [task.task for task in tasks],
        name=name,
        generator=torch.Generator().manual_seed(0),
    )
    for head, action in zip(policy.network.heads, actions, strict=True):
        head.output.bias.data = torch.eye(len(head.output.bias))[action]
    return policy


for _name in ("Payout-v0", "PayoutA-v0", "PayoutB-v0", "PayoutC-v0"):
    gymnasium.register(_name, entry_point=Payout)
