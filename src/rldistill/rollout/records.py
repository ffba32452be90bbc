"""What a player tells of each lockstep."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from rldistill.types import Actions, PolicyOutput


@dataclass(frozen=True)
class StepRecord:
    """One decision in each of M slots that play."""

    episodes: NDArray[np.int64]  # `[M]`, which episode each row belongs to
    steps: NDArray[np.int64]  # `[M]`, how many decisions that episode had before this one
    observations: NDArray[np.generic]  # `[M, ...]`, what was decided on
    labelled: NDArray[np.bool_]  # `[M]`, bool: rows that the labellers were asked about
    labels: Mapping[str, PolicyOutput]  # by labeller, its output for the labelled rows; empty where there are none
    actions: Actions  # `[M, *action_shape]`, what was done, exploration included
    rewards: NDArray[np.float64]  # `[M]`, float64
    terminated: NDArray[np.bool_]  # `[M]`, bool
    truncated: NDArray[np.bool_]  # `[M]`, bool
    next_observations: NDArray[np.generic]  # `[M, ...]`, what came of it; at an episode's end its last observation

    @property
    def ended(self) -> NDArray[np.bool_]:
        """`[M]`: this was the episode's last decision."""
        return self.terminated | self.truncated


def joined(first: StepRecord, second: StepRecord) -> StepRecord:
    """Return the records of both halves as one, in the order of episodes."""
    order = np.argsort(np.concatenate([first.episodes, second.episodes]))
    arrays = [item.name for item in fields(StepRecord) if item.name != "labels"]
    both = {name: np.concatenate([getattr(first, name), getattr(second, name)])[order] for name in arrays}
    labels = dict(first.labels or second.labels)
    if first.labels and second.labels:
        # They have the labelled rows alone, in the same order.
        places = np.argsort(np.concatenate([first.episodes[first.labelled], second.episodes[second.labelled]]))
        labels = {name: output.followed_by(second.labels[name], places) for name, output in first.labels.items()}
    return StepRecord(labels=labels, **both)
