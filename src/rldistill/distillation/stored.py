"""A stored dataset as a source: rows are drawn uniformly from its steps, but for those of episodes held out."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rldistill.data import Dataset, Replay, UniformSampler, split_episodes
from rldistill.distillation.batch import Window, read_window
from rldistill.distillation.sources import (
    HeldOut,
    Loss,
    check_window,
    held_out_windows,
    measure_inputs,
    windows_of,
)
from rldistill.envs import PlayableTask
from rldistill.policies import Policy, TorchPolicy
from rldistill.seeding import stream_generator, stream_seed
from rldistill.types import FURTHER_FIELDS

# Enough to know a median to some percent.
_SAMPLE_SIZE = 10_000


class StoredSource:
    """A dataset as the teacher of one task.

    Args:
        dataset: read at random.
        seed: the rows of update u are a function of (seed, head, u).
        held_out_fraction: share of steps never trained on, in whole episodes.
        window_length: steps of a window; 1: single steps, the rows of the paper.
        burn_in: steps before a window that fill the student's memory.
        playable: what the student is played on while it is trained; None: nothing.
    """

    replays: Sequence[Replay] = ()
    policies: Mapping[str, TorchPolicy] = {}
    policy: Policy | None = None
    notes: Sequence[str] = ()

    def __init__(
        self,
        dataset: Dataset,
        *,
        seed: int,
        held_out_fraction: float = 0.1,
        window_length: int = 1,
        burn_in: int = 0,
        playable: PlayableTask | None = None,
    ) -> None:
        origin = dataset.provenance
        self.dataset = dataset
        self.task, self.teacher, self.playable = origin.task, origin.teacher, playable
        own = origin.teacher.behaviour or origin.behaviour
        self.samples = origin.teacher.output_kind != "q_values" and own == "sample"
        self.label = f"Dataset {dataset.path}"
        self.description = f"{dataset.path} ({len(dataset.episode_numbers)} episodes, {dataset.num_steps:,} steps)"
        self.identity = dataset.manifest.identity
        fields = origin.step_fields
        self.further: Mapping[str, tuple[int, ...]] = {n: fields[n].shape for n in FURTHER_FIELDS if n in fields}
        seeds = dataset.seeds
        self.record: Mapping[str, Any] = {
            "num_steps": dataset.num_steps,
            "seed": seeds[0] if len(seeds) == 1 else list(seeds),
        }
        self.is_decoded = dataset.store.is_decoded
        self._seed, self._window_length, self._burn_in = seed, window_length, burn_in
        self._split = split_episodes(dataset, held_out_fraction, seed)
        self._head = 0

    def teach(
        self, head: int, student: TorchPolicy, loss: Loss, *, num_rows: float | None = None, measure: bool = False
    ) -> None:
        """Get ready to teach a head."""
        del loss  # any learns from the same rows
        self._head = head
        # Tasks draw from streams of their own: two datasets of equal length would give the same places.
        own_seed = stream_seed(self._seed, "task", head) if head else self._seed
        if measure:
            # At random: every k-th step would be the same one of episodes that all have the same length.
            rng = stream_generator(own_seed, "input statistics")
            sample_size = min(len(self._split.train), _SAMPLE_SIZE)
            chosen = np.sort(rng.choice(self._split.train, size=sample_size, replace=False))
            measure_inputs(student, read_window(self.dataset, chosen[None], head=head))
        store, length, burn_in = self.dataset.store, self._window_length, self._burn_in
        check_window(store, length, str(self.dataset.path))
        self._sampler = UniformSampler(
            store,
            self._split.train,
            seed=own_seed,
            window_length=length,
            burn_in=burn_in,
            rows_per_update=num_rows,
        )
        chosen = held_out_windows(store, self._split.held_out, seed=own_seed, window_length=length, burn_in=burn_in)
        batch = read_window(self.dataset, chosen, head=head, burn_in=burn_in)
        layout = self.task.fingerprint.action_layout
        self.held_out = HeldOut.of(batch, len(self._split.held_out), layout, self.teacher.output_kind)

    def advance(self, update: int) -> int:
        """Return that there is nothing to do, ever: the data are stored."""
        del update
        return sys.maxsize

    def finish(self) -> None:
        """Do nothing: what was drawn from is complete."""

    def draw(self, update: int, num_rows: int) -> Window:
        """Return rows of one update; may be called from several threads."""
        steps = self._sampler.windows(update, windows_of(num_rows, self._window_length))
        return read_window(self.dataset, steps, head=self._head, burn_in=self._burn_in)

    def sample_of_targets(self) -> NDArray[np.float32]:
        """Return the teacher's scores `[N, O]` for steps spread evenly over the data."""
        num_steps = self.dataset.num_steps
        chosen = np.linspace(0, num_steps - 1, min(num_steps, _SAMPLE_SIZE)).astype(np.int64)
        return self.dataset.field(self.teacher.output_kind)[chosen]

    @property
    def warnings(self) -> list[str]:
        """Return what makes these data less than they seem."""
        manifest, origin = self.dataset.manifest, self.dataset.provenance
        warnings: list[str] = []
        if not manifest.is_complete:
            of = f"{manifest.num_steps:,} of {manifest.target_num_steps:,} steps"
            warnings.append(
                f"{self.dataset.path} is not finished: {of} are used. `rldistill collect … --resume` goes on."
            )
        has_chance = origin.exploration_epsilon > 0 or origin.task.protocol.sticky_action_probability > 0
        if origin.task.is_atari and origin.behaviour == "greedy" and not has_chance:
            warnings.append(
                f"{self.dataset.path} was played without chance: episodes repeat, and held-out ones may equal those "
                "trained on. Collect with --exploration-epsilon 0.05."
            )
        return warnings

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: a batch is a function of its update."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing: there is no state."""

    def close(self) -> None:
        """Do nothing: there are no environments."""
