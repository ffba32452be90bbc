"""What every way of training a teacher looks like from outside: iterations, state, replays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rldistill.data import Replay
from rldistill.training.stream import GameRecord


@dataclass(frozen=True)
class IterationRecord:
    """Some play of one task, and what was learned meanwhile.

    Attributes:
        task: index of the task that was played.
        num_steps: decisions of it, over all environments.
        loss: mean over the updates; None where there was none yet.
        exploration_epsilon: chance of a random action, at the iteration's beginning.
        games: whole games that ended.
    """

    task: int
    num_steps: int
    loss: float | None
    exploration_epsilon: float
    games: tuple[GameRecord, ...]


class Training(Protocol):
    """Plays one or more tasks with one network and learns from them; whoever runs it counts the steps."""

    @property
    def replays(self) -> Sequence[Replay]:
        """What it keeps of past play, one per task; none where it learns from fresh steps alone."""
        ...

    def iterate(self, steps: Sequence[int]) -> IterationRecord:
        """Play and learn for a while.

        Args:
            steps: of each task so far: what schedules go by, and which task is due.

        Raises:
            NumericalError: the learner diverged.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes, but for replays and environments."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        ...

    def close(self) -> None:
        """Free the environments."""
        ...
