"""Where labelled batches come from. Whoever adds a variant of distillation adds a source.

A source gives the batch of each update, in order. A stored dataset is one; a live rollout, a
learner that is still learning, or several tasks in turn are others: the loop sees no difference.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rldistill.data import Batch, Dataset, UniformSampler, prefetch
from rldistill.data.sampler import read_batch
from rldistill.seeding import stream_generator
from rldistill.statistics import majority_share

# Enough for a standard error of agreement below 0.008; as Atari observations, 116 MB.
_MAX_HELD_OUT_STEPS = 4096


@dataclass(frozen=True)
class LabelledBatch:
    """One task's observations with the teacher's outputs for them.

    Attributes:
        head: which head of the student is taught.
        observations: `[B, *observation_shape]`, as stored.
        targets: `[B, A]`, float32.
        origin: says where the rows come from, should one of them be at fault.
    """

    head: int
    observations: Tensor
    targets: Tensor
    origin: str


class Source(Protocol):
    """Gives labelled batches, in the order of updates."""

    def batches(self, first_update: int, num_updates: int) -> Iterator[LabelledBatch]:
        """Yield the batches of consecutive updates; close the iterator to stop early."""
        ...


@dataclass(frozen=True)
class HeldOut:
    """Steps never trained on, to measure the student.

    Attributes:
        batch: a fixed random sample of them.
        num_steps: how many were held out in all.
        majority_share: agreement of always naming the commonest action.
    """

    batch: LabelledBatch
    num_steps: int
    majority_share: float


class StoredSource:
    """Uniform batches from a dataset, decoded ahead in a background thread.

    Args:
        dataset: read at random.
        indices: steps that may be drawn.
        batch_size: steps per batch.
        seed: batch u is a function of (seed, u).
        head: which head of the student this dataset teaches.
    """

    def __init__(
        self, dataset: Dataset, indices: NDArray[np.int64], *, batch_size: int, seed: int, head: int = 0
    ) -> None:
        self._dataset = dataset
        self._sampler = UniformSampler(dataset, indices, batch_size=batch_size, seed=seed)
        self._head = head

    def batches(self, first_update: int, num_updates: int) -> Iterator[LabelledBatch]:
        """Yield the batches of consecutive updates."""
        # Closed with this generator: no decoding thread outlives the loop.
        with contextlib.closing(prefetch(self._sampler, first_update, num_updates)) as batches:
            for batch in batches:
                yield labelled(self._dataset, batch, head=self._head)


def labelled(dataset: Dataset, batch: Batch, *, head: int) -> LabelledBatch:
    """Return a batch as tensors that share its memory."""
    shown = ", ".join(map(str, batch.indices[:5].tolist()))
    return LabelledBatch(
        head,
        torch.from_numpy(batch.observations),
        torch.from_numpy(batch.targets[dataset.target_name]),
        f"steps {shown}, … of {dataset.path}",
    )


def held_out_sample(dataset: Dataset, indices: NDArray[Any], *, seed: int, head: int = 0) -> HeldOut:
    """Draw the sample on which a student is measured, without repeats.

    Args:
        dataset: read at random.
        indices: of the steps held out.
        seed: of the draw.
        head: which head of the student is measured.
    """
    rng = stream_generator(seed, "held-out sample")
    chosen = np.sort(rng.choice(indices, size=min(len(indices), _MAX_HELD_OUT_STEPS), replace=False))
    batch = labelled(dataset, read_batch(dataset, chosen), head=head)
    share = majority_share(batch.targets.argmax(dim=1), batch.targets.shape[1])
    assert share is not None, "a held-out split is never empty"
    return HeldOut(batch, len(indices), share)
