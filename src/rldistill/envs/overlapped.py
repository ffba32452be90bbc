"""Emulators in two halves: while one half steps in threads of its own, the other's observations are decided on.

Emulators and network cost about the same for a Nature DQN. One after the other, both on all processors, each waits for
the other, and small products are shared out badly.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rldistill.envs.atari import AtariEnvs
from rldistill.envs.protocol import StepBatch
from rldistill.types import Actions


class OverlappedEnvs:
    """Two halves of N emulators, as `EpisodeEnvs`; `EpisodePlayer` lets each step while it decides for the other.

    Attributes:
        halves: the emulators of the first slots, and of the others.
        slots: of each half, its slots.
    """

    def __init__(self, first: AtariEnvs, second: AtariEnvs) -> None:
        self.num_envs = first.num_envs + second.num_envs
        self.halves = first, second
        self.slots = np.arange(first.num_envs), np.arange(first.num_envs, self.num_envs)

    def reset(self, slots: Sequence[int], seeds: Sequence[int] | None) -> NDArray[np.generic]:
        """Begin new episodes in some slots; a half that has none of them may be stepping, and its rows are zeros."""

        def begin(half: AtariEnvs, own: NDArray[np.intp]) -> NDArray[np.generic] | None:
            places = [index for index, slot in enumerate(slots) if own[0] <= slot <= own[-1]]
            of_half = None if seeds is None else [seeds[index] for index in places]
            return half.reset([slots[index] - int(own[0]) for index in places], of_half) if places else None

        with ThreadPoolExecutor(len(self.halves)) as threads:  # a seed costs about 90 ms
            begun = list(threads.map(begin, self.halves, self.slots))
        known = next(each for each in begun if each is not None)
        observations = np.zeros((self.num_envs, *known.shape[1:]), known.dtype)
        for own, of_half in zip(self.slots, begun, strict=True):
            if of_half is not None:
                observations[own] = of_half
        return observations

    def step(self, actions: Actions) -> StepBatch:
        """Apply one action per emulator."""
        for half, own in zip(self.halves, self.slots, strict=True):
            half.send(actions[own])
        steps = [half.receive() for half in self.halves]
        names = [item.name for item in fields(StepBatch)]
        return StepBatch(**{name: np.concatenate([getattr(step, name) for step in steps]) for name in names})

    def begin_step(self, half: int, actions: Actions) -> Callable[[], StepBatch]:
        """Let the emulators of a half step with their own of the actions `[N]`; what is returned waits for them."""
        self.halves[half].send(actions[self.slots[half]])
        return self.halves[half].receive

    def start_ids(self) -> NDArray[np.int64] | None:
        """Return the no-op frames played at reset."""
        ids = [own for half in self.halves if (own := half.start_ids()) is not None]
        return np.concatenate(ids) if ids else None

    def info(self, name: str, slots: Iterable[int]) -> list[Any]:
        """Return an entry of what ale-py told last."""
        first, second = self.halves
        return [
            (first.info(name, [slot]) if slot < first.num_envs else second.info(name, [slot - first.num_envs]))[0]
            for slot in slots
        ]

    def close(self) -> None:
        """Free the emulators."""
        for half in self.halves:
            half.close()
