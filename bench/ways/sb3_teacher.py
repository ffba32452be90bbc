"""A published teacher through Stable-Baselines3, as those use it whose library reads no such file itself."""

import sys
from typing import Any

import gymnasium
import gymnasium.spaces
import numpy as np
import torch
from way import FILES, NUM_ENVS, TEACHERS, make

# The zips were made with Gym, before there was Gymnasium: their pickles look for it.
sys.modules["gym"] = gymnasium
for _name in [name for name in sys.modules if name.startswith("gymnasium.")]:
    sys.modules[_name.replace("gymnasium", "gym", 1)] = sys.modules[_name]

from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv

torch.set_num_threads(1)


def load(task: str) -> Any:
    """Return the model, with the spaces of today's environment."""
    file = FILES[task]
    kind: Any = SAC if file.startswith("sac") else PPO
    options = {"buffer_size": 1} if kind is SAC else {}
    model = kind.load(TEACHERS / file, device="cpu", custom_objects={"lr_schedule": lambda _: 0.0, **options})
    env = make(task)
    model.observation_space = model.policy.observation_space = env.observation_space
    return model


def soft_labels(model: Any, observations: np.ndarray) -> np.ndarray:
    """Return what a student learns from: logits `[B, A]`, or actions `[B, D]`."""
    with torch.no_grad():
        if isinstance(model, PPO):
            return model.policy.get_distribution(torch.as_tensor(observations)).distribution.logits.numpy()
    return model.predict(observations, deterministic=True)[0]


class Labelling:
    """A teacher that samples its actions in 16 environments; all that it saw and said is kept.

    Args:
        model: of `load`.
        task: that it plays.
        seed: of environments and actions.
    """

    def __init__(self, model: Any, task: str, seed: int) -> None:
        torch.manual_seed(seed)
        self._model = model
        self._envs = DummyVecEnv([lambda: make(task)] * NUM_ENVS)
        self._envs.seed(seed)
        self._observations = self._envs.reset()
        self._kept: list[tuple[np.ndarray, np.ndarray]] = []

    def until(self, num_steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return at least so many steps, with those of before: observations and labels."""
        policy = self._model.policy
        while len(self._kept) * NUM_ENVS < num_steps:
            if isinstance(self._model, PPO):
                with torch.no_grad():
                    distribution = policy.get_distribution(torch.as_tensor(self._observations))
                labels, actions = distribution.distribution.logits.numpy(), distribution.sample().numpy()
            else:
                actions = self._model.predict(self._observations)[0]
                labels = soft_labels(self._model, self._observations)
            self._kept.append((self._observations.copy(), labels))
            self._observations, *_ = self._envs.step(actions)
        observations, labels = zip(*self._kept, strict=True)
        return torch.from_numpy(np.concatenate(observations)), torch.from_numpy(np.concatenate(labels))
