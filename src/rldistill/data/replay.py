"""The frame ring: the newest steps of some environments, for learners and for live sources.

Steps are compressed as they come and sealed in *chunks* with the layout of a dataset's shards:
each frame once, in blocks of 32. When there are more steps than the capacity, the oldest
chunk goes. Two consequences of storing chunks whole:

- Steps can be drawn once their chunk is sealed: at most `steps_per_chunk` later.
- A step can be drawn for a transition only when what followed it is there: the newest step of
  every episode under way is not drawn, nor (with windows of n steps) are the n − 1 before it, nor
  the last n of an episode that was broken off by a stop.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rldistill.data.codec import release_gil
from rldistill.data.layout import OBSERVATION, StepLayout
from rldistill.data.manifest import ShardEntry
from rldistill.data.segments import ShardBuffer
from rldistill.data.shard import Shard, open_shard, write_shard
from rldistill.data.store import UNKNOWN, StepStore
from rldistill.errors import DatasetError
from rldistill.seeding import places
from rldistill.storage import is_temporary, temporary_files
from rldistill.value_learning import n_step_returns

CHUNK_PATTERN = "chunk-*.safetensors"
_SCHEMA_VERSION = 1
_LARGEST_CHUNK = 8192
_CHUNKS_PER_CAPACITY = 16
_REMEDY = "Begin anew with --overwrite."


@dataclass(frozen=True)
class Transitions:
    """What n steps from some states paid and where they led."""

    steps: NDArray[np.int64]  # `[B]`, which steps of the store
    observations: NDArray[Any]  # `[B, *observation_shape]`, what the first action was decided on
    actions: NDArray[Any]  # `[B]`, the first action
    returns: NDArray[np.float32]  # `[B]`, float32, discounted rewards of the steps
    # `[B]`, float32, the factor on the value of the next observation: 0 where the return ended.
    discounts: NDArray[np.float32]
    next_observations: NDArray[Any]  # `[B, *observation_shape]`; where an episode was cut off, its last one


class Replay:
    """A bounded store of steps that is overwritten from its old end; one thread at a time.

    Args:
        layout: what every step holds. Transitions need the fields `action`, `reward` and
            `discount` (γ, or 0 where the return ended, be it at a lost life).
        capacity: steps to keep at most; those of the chunk being filled come on top.
        num_return_steps: n of the transitions; 0 where single steps are all that is drawn.
        steps_per_chunk: None: a sixteenth of the capacity, at most 8,192.

    Attributes:
        layout: what every step holds.
        capacity: steps to keep at most.
        num_appended: steps of its whole life, dropped ones too.
        store: the steps that are sealed; another one after each `seal`.
    """

    def __init__(
        self, layout: StepLayout, capacity: int, *, num_return_steps: int = 0, steps_per_chunk: int | None = None
    ) -> None:
        if capacity < 1 or num_return_steps < 0:
            raise ValueError(f"capacity must be ≥ 1 and num_return_steps ≥ 0, got {capacity} and {num_return_steps}.")
        self.layout = layout
        self.capacity = capacity
        self.num_appended = 0
        self._num_return_steps = num_return_steps
        self._steps_per_chunk = steps_per_chunk or max(1, min(_LARGEST_CHUNK, capacity // _CHUNKS_PER_CAPACITY))
        self._chunks: list[Shard] = []
        self._next_chunk = 0
        self._next_episode = 0
        self._folder: Path | None = None
        self._written: dict[str, ShardEntry] = {}
        self._slots: list[int | None] = []  # the episode in each
        self._buffer = ShardBuffer(layout)
        self._index()
        release_gil()

    @property
    def num_steps(self) -> int:
        """Steps that are sealed."""
        return self.store.num_steps

    @property
    def num_drawable(self) -> int:
        """Steps that can be drawn."""
        return len(self._drawable)

    def append(
        self,
        observations: NDArray[Any],
        values: Mapping[str, NDArray[Any]],
        *,
        ended: NDArray[np.bool_],
        next_observations: NDArray[Any],
    ) -> None:
        """Add one step of each of N slots, always the same N; all arrays are copied.

        Args:
            observations: `[N, *observation_shape]`, what the steps were decided on.
            values: `[N, …]` by name, for every field of the layout.
            ended: `[N]`, whether the episode in a slot ended with this step, for whichever reason.
            next_observations: `[N, *observation_shape]`, the true next ones; read where one ended.
        """
        if self._buffer.num_steps >= self._steps_per_chunk:
            self.seal()
        if not self._slots:
            self._slots = [None] * len(observations)
        assert len(observations) == len(self._slots), f"{len(observations)} rows for {len(self._slots)} slots"
        episodes = [self._new_episode() if episode is None else episode for episode in self._slots]
        self._buffer.append(np.array(episodes, np.int64), self.layout.rows(observations), values)
        last_rows = self.layout.rows(next_observations)
        for slot in np.flatnonzero(ended).tolist():
            self._buffer.end(episodes[slot], last_rows[slot])
        self._slots = [None if ends else episode for episode, ends in zip(episodes, ended, strict=True)]
        self.num_appended += len(observations)

    def seal(self) -> None:
        """Close the chunk that is being filled: its steps can be drawn from now on."""
        tensors = self._buffer.tensors()
        if tensors is None:
            return
        self._chunks.append(Shard(f"chunk-{self._next_chunk:06d}.safetensors", tensors))
        self._next_chunk += 1
        while len(self._chunks) > 1 and sum(chunk.num_steps for chunk in self._chunks) > self.capacity:
            del self._chunks[0]
        self._buffer.clear()
        self._index()

    def break_off(self) -> None:
        """Seal, and give up the episodes that are under way: other environments play on."""
        self.seal()
        self._slots = []

    def draw(self, numbers: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the steps `[B]` that random numbers `[B]` in [0, 1) choose; they hold until the next `append`."""
        assert self.num_drawable, "nothing to draw from: seal first"
        return self._drawable[places(numbers, self.num_drawable)]

    def observation_parts(self, steps: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Decode the observations of steps `[B]` by the name of the part; `observation` where it is one."""
        return {name.removeprefix(f"{OBSERVATION}."): part for name, part in self.store.parts(steps).items()}

    def field(self, name: str) -> NDArray[Any]:
        """Return the values of a field for all sealed steps, `[num_steps, …]`; not to be written to."""
        return self.store.field(name)

    def transitions(self, steps: NDArray[np.int64]) -> Transitions:
        """Return the transitions that begin with drawn steps `[B]`; each block is decompressed once."""
        num_steps, next_steps = self._num_return_steps, self.store.next_steps
        assert num_steps, "this replay was made for single steps: num_return_steps is 0"
        rewards = np.zeros((num_steps, len(steps)), np.float32)
        discounts = np.ones((num_steps, len(steps)), np.float32)
        at = steps.copy()
        for t in range(num_steps):
            going_on = at >= 0  # a window ends with its episode
            rewards[t, going_on] = self.field("reward")[at[going_on]]
            discounts[t, going_on] = self.field("discount")[at[going_on]]
            at[going_on] = next_steps[at[going_on]]
        returns, factors = n_step_returns(torch.from_numpy(rewards), torch.from_numpy(discounts))
        observations, next_observations = self.store.observations_and_next(steps, at)
        return Transitions(
            steps, observations, self.field("action")[steps], returns.numpy(), factors.numpy(), next_observations
        )

    def write(self, folder: Path) -> dict[str, Any]:
        """Seal, write the chunks that are not yet there, and return what lists them all.

        Nothing is deleted. The caller writes the list next, in its checkpoint, and then calls `prune`: the two agree
        whenever the process is killed.
        """
        self.seal()
        if folder != self._folder:
            self._folder, self._written = folder, {}
        listed = {chunk.file: self._written.get(chunk.file) for chunk in self._chunks}
        for chunk in self._chunks:
            listed[chunk.file] = listed[chunk.file] or write_shard(folder, chunk.file, chunk.tensors)
        self._written = {file: entry for file, entry in listed.items() if entry is not None}
        return {
            "schema_version": _SCHEMA_VERSION,
            "capacity": self.capacity,
            "steps_per_chunk": self._steps_per_chunk,
            "num_appended": self.num_appended,
            "next_chunk": self._next_chunk,
            "next_episode": self._next_episode,
            "fields": _described(self.layout),
            "chunks": [asdict(entry) for entry in self._written.values()],
        }

    def prune(self, folder: Path) -> None:
        """Delete the chunks in a folder that the last `write` or `read` did not list."""
        for path in [*folder.glob(CHUNK_PATTERN), *temporary_files(folder, CHUNK_PATTERN)]:
            if path.name not in self._written:
                path.unlink()

    def read(self, folder: Path, state: Mapping[str, Any]) -> None:
        """Become what `write` described; the episodes that were under way are broken off.

        Raises:
            DatasetError: the description or a chunk is damaged, or of other fields.
        """
        try:
            if state["schema_version"] != _SCHEMA_VERSION or state["fields"] != _described(self.layout):
                raise ValueError("it is of another version, or of another task's fields")
            entries = [ShardEntry(**entry) for entry in state["chunks"]]
            self.capacity, self._steps_per_chunk = int(state["capacity"]), int(state["steps_per_chunk"])
            self.num_appended, self._next_episode = int(state["num_appended"]), int(state["next_episode"])
            self._next_chunk = int(state["next_chunk"])
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"Replay {folder} cannot be read: {error}. {_REMEDY}") from error
        self._chunks = [open_shard(folder, entry, self.layout, verify=True, remedy=_REMEDY) for entry in entries]
        self._folder, self._written = folder, {entry.file: entry for entry in entries}
        self._slots, self._buffer = [], ShardBuffer(self.layout)
        self._index()

    def _new_episode(self) -> int:
        self._next_episode += 1
        return self._next_episode - 1

    def _index(self) -> None:
        self.store = StepStore(self.layout, self._chunks, origin="The replay", remedy=_REMEDY)
        self._drawable = np.arange(self.store.num_steps)
        if self._num_return_steps:
            next_steps = self.store.next_steps
            is_cut = is_unknown = next_steps == UNKNOWN
            for _ in range(self._num_return_steps - 1):
                is_cut = is_unknown | ((next_steps >= 0) & is_cut[np.maximum(next_steps, 0)])
            self._drawable = np.flatnonzero(~is_cut)


def is_replay_folder(folder: Path) -> bool:
    """Whether a folder holds chunks of a replay and nothing else."""
    return all(path.match(CHUNK_PATTERN) or is_temporary(path, CHUNK_PATTERN) for path in folder.iterdir())


def _described(layout: StepLayout) -> dict[str, Any]:
    specs = {**layout.observation_fields, **layout.step_fields}
    # The observation of one part has no name here, as in the first checkpoints.
    described = {name if name != OBSERVATION else "": [s.dtype, list(s.shape)] for name, s in specs.items()}
    return described | {"frame_stack": layout.frame_stack}
