"""The unit of learning: a window of consecutive steps of B episodes, with what the teacher said of them.

Single steps, the rows of the paper, are windows of T = 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rldistill.data import Dataset
from rldistill.types import OUTPUT_FIELDS, OutputKind


@dataclass(frozen=True)
class Window:
    """Steps of one task; all parts are `[T, B, ...]`."""

    head: int  # which head of the student is taught
    observations: Mapping[str, Tensor]  # by the name of the part, as stored
    targets: Mapping[str, Tensor]  # what the teacher gave, by the name of the field, float32
    origin: str  # says where the steps come from, should one of them be at fault
    actions: Tensor | None = None  # what was done; None where the source does not keep it
    # `[T, B]`, bool: False where a window is padded because its episode ends, and where it is burnt in; None: all are
    # real.
    is_real: Tensor | None = None
    # `[T, B]`, bool: whether an episode begins here, or what is held of it; None: only windows begin, at their first
    # step.
    is_first: Tensor | None = None
    future: Tensor | None = None  # `[T, B]`, loss of what followed in the student's own play; None: it does not count
    weights: Tensor | None = None  # `[T, B]`, factors of the steps' losses; None: 1
    burn_in: int = 0  # how many steps come first that fill the memory and teach nothing

    @classmethod
    def of_steps(
        cls,
        head: int,
        observations: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        origin: str,
    ) -> "Window":
        """Return single steps, every part `[B, ...]`, as a window of T = 1."""
        return cls(
            head,
            {name: part[None] for name, part in observations.items()},
            {name: part[None] for name, part in targets.items()},
            origin,
        )

    @property
    def num_windows(self) -> int:
        """B."""
        return next(iter(self.targets.values())).shape[1]

    @property
    def num_steps(self) -> int:
        """How many steps are real."""
        targets = next(iter(self.targets.values()))
        return targets.shape[0] * targets.shape[1] if self.is_real is None else int(self.is_real.sum())

    def rows(self, part: Tensor) -> Tensor:
        """Return the real steps of a part as rows, `[N, ...]`; they share its memory where all steps are real."""
        rows = part.flatten(0, 1)
        return rows if self.is_real is None else rows[self.is_real.flatten().to(rows.device)]

    def target_rows(self, kind: OutputKind) -> Tensor:
        """Return the teacher's outputs as rows `[N, O]`: of a Gaussian its mean, then its log std."""
        names = OUTPUT_FIELDS[kind]
        if len(names) == 1:
            return self.rows(self.targets[names[0]])
        return self.rows(torch.cat([self.targets[name] for name in names], dim=-1))


Minibatch = tuple[Window, ...]
"""What one update fits: steps of one task, or of several."""


def read_window(dataset: Dataset, steps: NDArray[np.int64], *, head: int, burn_in: int = 0) -> Window:
    """Read the steps `[T, B]` of windows; -1 stands for padding, and the first `burn_in` steps teach nothing."""
    return make_window(
        steps,
        head=head,
        burn_in=burn_in,
        observations=dataset.observation_parts,
        targets=dataset.targets,
        steps_in_episode=dataset.steps_in_episode,
        where=str(dataset.path),
        values={},
    )


def make_window(
    steps: NDArray[np.int64],
    *,
    head: int,
    burn_in: int,
    observations: Callable[[NDArray[np.int64]], Mapping[str, NDArray[Any]]],
    targets: Callable[[NDArray[np.int64]], Mapping[str, NDArray[np.float32]]],
    steps_in_episode: NDArray[np.int64],
    where: str,
    values: Mapping[str, NDArray[Any]],
) -> Window:
    """Return windows of what a source holds.

    Args:
        steps: `[T, B]`, -1 stands for padding.
        head: which head of the student is taught.
        burn_in: how many steps come first that teach nothing.
        observations: of steps `[N]`, by the name of the part.
        targets: of steps `[N]`, by the name of the field.
        steps_in_episode: of all steps, their place in their episode.
        where: what messages call the source.
        values: of all steps: `actions`, `future` and `weights` of a window, as far as the source has them.
    """
    shape = steps.shape
    has_masks = shape[0] > 1  # single steps have no mask, and cost nothing for it
    # Padding holds a step like any other: it is finite, and nothing looks at it.
    flat = np.maximum(steps, 0).reshape(-1) if has_masks else steps[0]

    def windows(values: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(values.reshape(*shape, *values.shape[1:]))

    is_real = is_first = None
    if has_masks:
        is_held = steps >= 0
        begins = is_held & (steps_in_episode[flat].reshape(shape) == 0)
        # Padding is no past. It begins nothing itself: a recurrent layer is cut, and slower, wherever something does.
        begins[1:] |= is_held[1:] & ~is_held[:-1]
        is_first, is_real = torch.from_numpy(begins), torch.from_numpy(is_held)
        is_real[:burn_in] = False
    return Window(
        head,
        {name: windows(part) for name, part in observations(flat).items()},
        {name: windows(values) for name, values in targets(flat).items()},
        origin_of(steps[burn_in], where),
        is_real=is_real,
        is_first=is_first,
        burn_in=burn_in,
        **{name: windows(of_steps[flat]) for name, of_steps in values.items()},
    )


def origin_of(steps: NDArray[np.int64], where: str) -> str:
    """Return what a message calls rows: the first of their steps, and where they come from."""
    return f"steps {', '.join(map(str, steps[:5].tolist()))}, … of {where}"
