"""The one interface through which the library plays: N slots, each reset by seed on demand."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rldistill.errors import MismatchError, listed
from rldistill.types import Actions


@dataclass(frozen=True)
class StepBatch:
    """What one step of all slots gave."""

    # `[N, ...]`, the true next observations; at the end of an episode its last. Of several parts a structured array.
    observations: NDArray[np.generic]
    rewards: NDArray[np.float64]  # `[N]`, float64, neither scaled nor clipped
    terminated: NDArray[np.bool_]  # `[N]`, bool, the episode reached a terminal state
    truncated: NDArray[np.bool_]  # `[N]`, bool, the episode was cut by a limit
    lives: NDArray[np.int32] | None = None  # `[N]`, lives left, where the emulator counts them

    @property
    def ended(self) -> NDArray[np.bool_]:
        """`[N]`: the episode is over, for whichever reason."""
        return self.terminated | self.truncated


class EpisodeEnvs(Protocol):
    """N environments that never reset by themselves.

    A slot whose episode ended must be reset before its next steps count; what it returns
    until then means nothing. Implementations are not thread-safe.
    """

    num_envs: int  # number of slots

    def reset(self, slots: Sequence[int], seeds: Sequence[int] | None) -> NDArray[np.generic]:
        """Begin new episodes in some slots; returns the observations of *all* slots, `[N, ...]`.

        One seed per slot; None lets each environment go on with its own generator.
        """
        ...

    def step(self, actions: Actions) -> StepBatch:
        """Apply one action per slot, `[N]`, `[N, K]` or `[N, D]`, as the task's action layout has them."""
        ...

    def start_ids(self) -> NDArray[np.int64] | None:
        """Return, right after `reset`, a number per slot that tells possible starts apart; None: there is none."""
        ...

    def info(self, name: str, slots: Iterable[int]) -> list[Any]:
        """Return an entry of what the last `reset` or `step` of each of some slots told in its `info`.

        Raises MismatchError: there is no such entry.
        """
        ...

    def close(self) -> None:
        """Free emulators and threads."""
        ...


def entry(info: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 (whatever an environment tells)
    """Return an entry of an `info`. Raises MismatchError: there is none; lists those there are."""
    if name not in info:
        raise MismatchError(
            f"info: an environment told nothing of {name!r}, expected it at every reset and step, got "
            f"{listed(map(str, info)) if info else 'nothing'}. Is it misspelt? Numbers of a vector get names by "
            "--names."
        )
    return info[name]


def info_of_slot(infos: Mapping[str, Any], slot: int) -> dict[str, Any]:
    """Return what a vector environment tells of a slot, of `{name: [N], _name: [N] where it is told}`."""
    # Entries of entries, such as an episode's statistics, name nothing that could choose.
    own = {
        name: values for name, values in infos.items() if not name.startswith("_") and not isinstance(values, Mapping)
    }
    return {name: values[slot] for name, values in own.items() if f"_{name}" not in infos or infos[f"_{name}"][slot]}
