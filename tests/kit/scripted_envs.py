"""Environments whose every reward, life and end is written down beforehand, as `EpisodeEnvs`.

Observations are `[100 · episode + step]`, so that whoever bootstraps from one can be caught: `identity_q` gives
its value back as the greedy Q-value.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rldistill.envs import StepBatch


@dataclass(frozen=True)
class Moment:
    """What one step of a script gives."""

    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    lives: int = 0


Script = Sequence[Sequence[Moment]]


class ScriptedEnvs:
    """One script per slot: a list of episodes, each a list of moments.

    Remembers the seeds it was reset with and the actions it was given. Refuses to be stepped past an end.
    """

    def __init__(self, *scripts: Script, with_lives: bool = False) -> None:
        self._scripts = scripts
        self._with_lives = with_lives
        self._episodes = np.full(len(scripts), -1)
        self._steps = np.zeros(len(scripts), np.int64)
        self._ended = [True] * len(scripts)
        self.resets: list[tuple[list[int], list[int] | None]] = []
        self.actions: list[list[int]] = []
        self.is_closed = False

    @property
    def num_envs(self) -> int:
        return len(self._scripts)

    def _observations(self) -> NDArray[np.float32]:
        return (100.0 * self._episodes + self._steps).astype(np.float32)[:, None]

    def reset(self, slots: Sequence[int], seeds: Sequence[int] | None) -> NDArray[np.float32]:
        self.resets.append((list(slots), None if seeds is None else list(seeds)))
        for slot in slots:
            self._episodes[slot] += 1
            self._steps[slot] = 0
            self._ended[slot] = False
        return self._observations()

    def step(self, actions: NDArray[np.int64]) -> StepBatch:
        assert not any(self._ended), "stepped past the end of an episode"
        self.actions.append(actions.tolist())
        moments = [
            script[episode][step]
            for script, episode, step in zip(self._scripts, self._episodes, self._steps, strict=True)
        ]
        self._steps += 1
        self._ended = [moment.terminated or moment.truncated for moment in moments]
        return StepBatch(
            self._observations(),
            np.array([moment.reward for moment in moments]),
            np.array([moment.terminated for moment in moments]),
            np.array([moment.truncated for moment in moments]),
            np.array([moment.lives for moment in moments], np.int32) if self._with_lives else None,
        )

    def start_ids(self) -> None:
        return None

    def info(self, name: str, slots) -> list:
        raise NotImplementedError

    def close(self) -> None:
        self.is_closed = True


def moments(*rewards: float, end: str = "terminated") -> list[Moment]:
    """Return an episode with these rewards that ends after the last, `terminated` or `truncated`."""
    last = len(rewards) - 1
    return [
        Moment(reward, end == "terminated" and step == last, end == "truncated" and step == last)
        for step, reward in enumerate(rewards)
    ]


def identity_q(observations: Tensor) -> Tensor:
    """Return Q-values `[N, 2]`: the observation itself for action 0, one less for action 1."""
    value = observations.float()
    return torch.cat([value, value - 1], dim=1)
