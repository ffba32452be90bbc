"""Where labelled batches come from. Whoever adds a variant of distillation adds a source.

A source gives the batch of each update, in order. A stored dataset is one; a live rollout, a
learner that is still learning, or several tasks in turn are others: the loop sees no difference.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rldistill.data import Dataset, Replay, UniformSampler, prefetch
from rldistill.distillation.batch import Minibatch, Window, read_window
from rldistill.distillation.likeness import Likeness, likeness_of_a_constant
from rldistill.schedules import TaskSchedule
from rldistill.seeding import stream_generator, stream_seed
from rldistill.types import ActionLayout, OutputKind

# Enough for a standard error of agreement below 0.008; as Atari observations, 116 MB.
_MAX_HELD_OUT_STEPS = 4096


class Source(Protocol):
    """Gives labelled batches, in the order of updates."""

    def batches(self, first_update: int, num_updates: int) -> Iterator[Minibatch]:
        """Yield the batches of consecutive updates; close the iterator to stop early."""
        ...

    @property
    def replays(self) -> Sequence[Replay]:
        """What it keeps of past play, one per task; none where data are stored."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes, but for replays and environments."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        ...

    def close(self) -> None:
        """Free environments, if it has any."""
        ...


@dataclass(frozen=True)
class HeldOut:
    """Steps never trained on, to measure the student.

    Attributes:
        batch: a fixed random sample of them.
        num_steps: how many were held out in all.
        layout: of the actions.
        teacher_kind: of the targets.
        constant: what one action would reach, whatever is observed.
    """

    batch: Window
    num_steps: int
    layout: ActionLayout
    teacher_kind: OutputKind
    constant: Likeness

    @classmethod
    def of(cls, batch: Window, num_steps: int, layout: ActionLayout, teacher_kind: OutputKind) -> "HeldOut":
        """Return a sample with what a constant would reach on it."""
        constant = likeness_of_a_constant(batch.target_rows(teacher_kind), teacher_kind, layout)
        return cls(batch, num_steps, layout, teacher_kind, constant)


class TaskRows(Protocol):
    """Gives rows of one task."""

    def draw(self, update: int, num_rows: int) -> Window:
        """Return rows of one update; may be called from several threads."""
        ...


def draw_batch(tasks: Sequence[TaskRows], num_rows: Sequence[int], update: int) -> Minibatch:
    """Return the batch of one update: so many rows of each task, nothing of those that give none."""
    return tuple(task.draw(update, count) for task, count in zip(tasks, num_rows, strict=True) if count)


class StoredTask:
    """One task's dataset, of which windows are drawn uniformly.

    Args:
        dataset: read at random.
        indices: steps that may be drawn.
        seed: the rows of update u are a function of (seed, head, u).
        head: which head of the student this dataset teaches.
        window_length: steps of a window; 1: single steps, the rows of the paper.
    """

    def __init__(
        self, dataset: Dataset, indices: NDArray[np.int64], *, seed: int, head: int = 0, window_length: int = 1
    ) -> None:
        self._dataset = dataset
        self._head = head
        # Tasks draw from streams of their own: two datasets of equal length would give the same places.
        own_seed = stream_seed(seed, "task", head) if head else seed
        self._sampler = UniformSampler(dataset, indices, seed=own_seed, window_length=window_length)

    @property
    def is_decoded(self) -> bool:
        """Whether drawing rows costs no more than copying them."""
        return self._dataset.store.is_decoded

    def draw(self, update: int, num_rows: int) -> Window:
        """Return rows of one update; may be called from several threads."""
        return read_window(self._dataset, self._sampler.windows(update, num_rows), head=self._head)


class StoredSource:
    """Batches from one dataset per task, decoded ahead in background threads where they are compressed.

    Args:
        tasks: in the order of the student's heads.
        batch_size: rows per update, over all tasks.
        schedule: which tasks make up which batch; None: in turn.
        num_decoders: threads that decode ahead; changes no batch.
    """

    def __init__(
        self,
        tasks: Sequence[StoredTask],
        *,
        batch_size: int,
        schedule: TaskSchedule | None = None,
        num_decoders: int = 1,
    ) -> None:
        self._tasks = tasks
        self._batch_size = batch_size
        self._num_decoders = num_decoders
        self._schedule = schedule or TaskSchedule("in_turn", (1.0,) * len(tasks))

    def batch(self, update: int) -> Minibatch:
        """Return the batch of one update; may be called from several threads."""
        return draw_batch(self._tasks, self._schedule.rows(update, self._batch_size), update)

    def batches(self, first_update: int, num_updates: int) -> Iterator[Minibatch]:
        """Yield the batches of consecutive updates."""
        if all(task.is_decoded for task in self._tasks):
            # Handing a batch over from a thread would cost more than drawing it here.
            yield from (self.batch(first_update + number) for number in range(num_updates))
            return
        # Closed with this generator: no decoding thread outlives the loop.
        ahead = prefetch(self, first_update, num_updates, num_threads=self._num_decoders)
        with contextlib.closing(ahead) as batches:
            yield from batches

    @property
    def replays(self) -> Sequence[Replay]:
        """None: the data are stored."""
        return ()

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: a batch is a function of its update."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up nothing."""

    def close(self) -> None:
        """Free nothing."""


def held_out_sample(dataset: Dataset, indices: NDArray[Any], *, seed: int, head: int = 0) -> HeldOut:
    """Draw the sample on which a student is measured, without repeats.

    Args:
        dataset: read at random.
        indices: of the steps held out.
        seed: of the draw.
        head: which head of the student is measured.
    """
    chosen = sample_of_held_out(indices, seed=stream_seed(seed, "task", head) if head else seed)
    batch, origin = read_window(dataset, chosen[None], head=head), dataset.provenance
    return HeldOut.of(batch, len(indices), origin.task.fingerprint.action_layout, origin.teacher.output_kind)


def sample_of_held_out(indices: NDArray[Any], *, seed: int) -> NDArray[np.int64]:
    """Return at most 4,096 of the steps held out, without repeats, in order."""
    rng = stream_generator(seed, "held-out sample")
    return np.sort(rng.choice(indices, size=min(len(indices), _MAX_HELD_OUT_STEPS), replace=False))
