"""Episodes that are functions of (seed, number), a player that writes them, and the naive reference to compare with."""

import multiprocessing
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np

from rldistill.data import Dataset, DatasetWriter, Provenance, TeacherEntry, step_fields
from rldistill.seeding import stream_generator
from rldistill.tasks import ObservationFingerprint, ObservationPart, Protocol, Task
from rldistill.types import ActionLayout

NUM_ACTIONS = 3
FRAME = (6, 5)
CAMERA = ObservationPart("camera", (6, 5, 3), "uint8")


def make_provenance(
    *, frame_stack: int = 4, seed: int = 0, teacher_hash: str = "abc", num_actions: int = NUM_ACTIONS, vector: int = 0
) -> Provenance:
    """Frames of 6 × 5 bytes, stacked; or, with `vector` > 0, that many float32 numbers without a stack."""
    fingerprint = ObservationFingerprint(
        observation_shape=(vector,) if vector else (frame_stack, *FRAME) if frame_stack > 1 else FRAME,
        observation_dtype="float32" if vector else "uint8",
        action_layout=ActionLayout.discrete(num_actions),
        frame_stack=frame_stack,
    )
    teacher = TeacherEntry("made-up", teacher_hash, "q_values")
    task = Task("made-up", fingerprint, Protocol(exploration_epsilon=0.05))
    return Provenance(task, teacher, "greedy", seed, 0.05, step_fields(fingerprint, "q_values"))


def make_provenance_of_parts() -> Provenance:
    """An image of bytes, two joints and a single number, side by side in one vector."""
    fingerprint = ObservationFingerprint(
        (CAMERA.size + 3,),
        "float32",
        ActionLayout.discrete(NUM_ACTIONS),
        observation_parts=(CAMERA, ObservationPart("joints", (2,)), ObservationPart("mark", ())),
    )
    whole = make_provenance(vector=1, frame_stack=1)
    fields = step_fields(fingerprint, "q_values")
    return replace(whole, task=replace(whole.task, fingerprint=fingerprint), fields=fields)


@dataclass(frozen=True)
class Episode:
    """rows [T + 1, …], the last one being the observation after the last step; fields [T, …]."""

    rows: np.ndarray
    fields: dict[str, np.ndarray]

    @property
    def length(self) -> int:
        return len(self.rows) - 1


def process_context() -> ForkServerContext:
    """Processes forked from one that has imported everything: quick to start, and without pytest's threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.data.made_up"])
    return context


def make_episode(provenance: Provenance, number: int, length: int) -> Episode:
    rng = stream_generator(provenance.seed, "made-up", number)
    spec = provenance.layout.row_spec
    rows = (rng.random((length + 1, *spec.shape)) * 250 + 1).astype(spec.dtype)
    if provenance.task.fingerprint.separate_parts:
        rows[:, : CAMERA.size] = np.floor(rows[:, : CAMERA.size])  # bytes, before the others made them floats
    is_last = np.arange(length) == length - 1
    num_actions = provenance.task.fingerprint.action_layout.sizes[0]
    fields = {
        "action": rng.integers(0, num_actions, length).astype(np.int32),
        "reward": rng.normal(size=length),
        "terminated": is_last & (number % 2 == 0),
        "truncated": is_last & (number % 2 == 1),
        "q_values": rng.normal(size=(length, num_actions)).astype(np.float32),
    }
    return Episode(rows, fields)


def episode_length(provenance: Provenance, number: int) -> int:
    return int(stream_generator(provenance.seed, "length", number).integers(1, 60))


def naive_stack(rows: np.ndarray, step: int, frame_stack: int) -> np.ndarray:
    """The observation at a step, the slow way: a list of frames, zeros before the first."""
    if frame_stack == 1:
        return rows[step]
    return np.stack([rows[at] if at >= 0 else np.zeros_like(rows[0]) for at in range(step - frame_stack + 1, step + 1)])


class Player:
    """Plays episodes in slots, in the order of their numbers, and goes on from where a writer stands."""

    def __init__(self, writer: DatasetWriter, *, num_slots: int, lengths: dict[int, int] | None = None) -> None:
        self._writer = writer
        self._provenance = writer.provenance
        self._lengths = lengths
        self._next = writer.next_episode
        self._slots = [(episode, step) for episode, step in writer.running.items()]
        self._num_slots = num_slots
        self._episodes: dict[int, Episode] = {}

    def episode(self, number: int) -> Episode:
        if number not in self._episodes:
            length = self._lengths[number] if self._lengths else episode_length(self._provenance, number)
            self._episodes[number] = make_episode(self._provenance, number, length)
        return self._episodes[number]

    def step(self) -> bool:
        """Append one step for every slot; False when no episode is left."""
        while len(self._slots) < self._num_slots and (self._lengths is None or self._next in self._lengths):
            self._slots.append((self._next, 0))
            self._next += 1
        if not self._slots:
            return False
        played = [(self.episode(number), step) for number, step in self._slots]
        self._writer.append(
            [number for number, _ in self._slots],
            np.stack([episode.rows[step] for episode, step in played]),
            {
                name: np.stack([episode.fields[name][step] for episode, step in played])
                for name in self._provenance.step_fields
            },
        )
        going_on = []
        for (number, step), (episode, _) in zip(self._slots, played, strict=True):
            if step + 1 == episode.length:
                self._writer.end_episode(number, episode.rows[-1])
            else:
                going_on.append((number, step + 1))
        self._slots = going_on
        return True


def write_dataset(
    path: Path,
    provenance: Provenance | None = None,
    *,
    lengths: tuple[int, ...] = (40, 25, 60, 1, 30, 44, 9, 70),
    num_slots: int = 3,
    steps_per_shard: int = 64,
) -> Provenance:
    """Write a finished dataset of the episodes 0, 1, … with these lengths."""
    provenance = provenance or make_provenance()
    with DatasetWriter.create(
        path, provenance, target_num_steps=sum(lengths), steps_per_shard=steps_per_shard
    ) as writer:
        player = Player(writer, num_slots=num_slots, lengths=dict(enumerate(lengths)))
        while player.step():
            pass
        writer.finish()
    return provenance


def check_dataset(dataset: Dataset, lengths: dict[int, int] | None = None) -> None:
    """Compare every listed step of every episode with the reference, byte for byte."""
    provenance = dataset.provenance
    assert len(dataset.episodes) == dataset.num_steps
    running = {entry.episode: entry.num_steps for entry in dataset.manifest.running}
    for number in dataset.episode_numbers.tolist():
        length = lengths[number] if lengths else episode_length(provenance, number)
        episode = make_episode(provenance, number, length)
        indices = dataset.episode_steps(number)
        np.testing.assert_array_equal(dataset.steps_in_episode[indices], np.arange(len(indices)))
        for name, values in episode.fields.items():
            np.testing.assert_array_equal(dataset.field(name)[indices], values[: len(indices)])
        stacks = [naive_stack(episode.rows, step, provenance.frame_stack) for step in range(len(indices))]
        np.testing.assert_array_equal(dataset.observations(indices), np.stack(stacks))
        last = dataset.last_observation(number)
        if last is None:
            assert running.get(number, len(indices)) == len(indices)
        else:
            assert len(indices) == length
            np.testing.assert_array_equal(last, naive_stack(episode.rows, length, provenance.frame_stack))
