"""Where labelled batches come from: a source teaches one task, and `Batches` makes batches of the sources of a run.

Stored data, a teacher that plays on and a learner that still learns are one class each. To add a variant of
distillation, add a source; neither the loop nor the run knows which kind it is.
"""

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rldistill.data import Replay, StepStore, TeacherEntry, UniformSampler, prefetch
from rldistill.distillation.batch import Minibatch, Window
from rldistill.distillation.likeness import Likeness, likeness_of_a_constant
from rldistill.envs import PlayableTask
from rldistill.errors import UsageError
from rldistill.networks import NormalizeInput, PolicyNetwork, network_of
from rldistill.networks.input_layer import join_parts
from rldistill.policies import Policy, TorchPolicy
from rldistill.schedules import TaskSchedule
from rldistill.seeding import stream_generator
from rldistill.tasks import Task
from rldistill.types import ActionLayout, OutputKind

# Enough for a standard error of agreement below 0.008; as Atari observations, 116 MB.
_MAX_HELD_OUT_STEPS = 4096
DEFAULT_WINDOW = 64
"""Steps of the windows that a student with cells is trained on, where nothing is said."""
# A GPU learns from more frames than one thread decodes.
_DECODERS_FOR_A_GPU = 4


Loss = Callable[[Tensor, Tensor, float], Tensor]
"""What a head minimises: (student rows, target rows, progress) → one loss per row."""


@dataclass(frozen=True)
class HeldOut:
    """Steps never trained on, to measure the student."""

    batch: Window  # a fixed random sample of them
    num_steps: int  # how many were held out in all
    layout: ActionLayout  # of the actions
    teacher_kind: OutputKind  # of the targets
    constant: Likeness  # what one action would reach, whatever is observed

    @classmethod
    def of(cls, batch: Window, num_steps: int, layout: ActionLayout, teacher_kind: OutputKind) -> "HeldOut":
        """Return a sample with what a constant would reach on it."""
        constant = likeness_of_a_constant(batch.target_rows(teacher_kind), teacher_kind, layout)
        return cls(batch, num_steps, layout, teacher_kind, constant)


class Source(Protocol):
    """What teaches one task of a student.

    It is made from what the user named, is told which head it teaches, gives rows, and is closed.
    """

    @property
    def task(self) -> Task:
        """With the action layout of the teacher."""
        ...

    @property
    def teacher(self) -> TeacherEntry:
        """Who labels, as the student's file records it."""
        ...

    @property
    def policy(self) -> Policy | None:
        """The teacher, where it is at hand."""
        ...

    @property
    def further(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of what batches hold of the teacher besides its outputs, by name."""
        ...

    @property
    def samples(self) -> bool:
        """Whether the student is to sample its actions, as its teacher does."""
        ...

    @property
    def label(self) -> str:
        """How messages call it."""
        ...

    @property
    def description(self) -> str:
        """What it is, for people."""
        ...

    @property
    def identity(self) -> str:
        """Identity of what is learned from: a resumed run must have the same."""
        ...

    @property
    def record(self) -> Mapping[str, Any]:
        """What was learned from, for the student's file."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """What to know before trusting a student of this source."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What was decided for the user."""
        ...

    @property
    def playable(self) -> PlayableTask | None:
        """What the student is played on while it is trained, where it can be."""
        ...

    def teach(
        self, head: int, student: TorchPolicy, loss: Loss, *, num_rows: float | None = None, measure: bool = False
    ) -> None:
        """Get ready to teach a head of a student, which minimises this loss.

        Args:
            head: of the student.
            student: as it is before the first update.
            loss: likewise.
            num_rows: that an update draws here on average; None: every update alike.
            measure: give the student's normalisation the mean and variance of what is learned from here.

        Raises:
            DatasetError: there are too few episodes to hold some out.
        """
        ...

    @property
    def held_out(self) -> HeldOut:
        """Steps to measure the student on; after `teach`."""
        ...

    def advance(self, update: int) -> int:
        """Play or learn until the rows of an update can be drawn.

        Returns:
            The number of the update before which it is to be called again.
        """
        ...

    def finish(self) -> None:
        """Do what is due after the last update of the run."""
        ...

    @property
    def is_decoded(self) -> bool:
        """Whether drawing rows costs no more than copying them."""
        ...

    def draw(self, update: int, num_rows: int) -> Window:
        """Return rows of one update; may be called from several threads."""
        ...

    @property
    def replays(self) -> Sequence[Replay]:
        """What it keeps of past play; nothing where data are stored."""
        ...

    @property
    def policies(self) -> Mapping[str, TorchPolicy]:
        """Policies to save beside the student, by the names of their files."""
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
class Batches:
    """The batches of a run, each a function of its update."""

    sources: Sequence[Source]  # one for each task that is taught, in the order of the data
    schedule: TaskSchedule  # which sources' rows make up which batch
    batch_size: int  # rows per update, over all tasks
    num_decoders: int = 1  # threads that decode ahead; changes no batch
    window_length: int = 1  # steps of a window, of which tasks get whole ones

    def batch(self, update: int) -> Minibatch:
        """Return the batch of one update, for which the sources are ready; may be called from several threads."""
        # To round each task's rows to windows would spoil their shares.
        counts = self.schedule.rows(update, windows_of(self.batch_size, self.window_length))
        return tuple(
            source.draw(update, count * self.window_length)
            for source, count in zip(self.sources, counts, strict=True)
            if count
        )

    def of_updates(self, first_update: int, num_updates: int) -> Generator[Minibatch]:
        """Yield the batches from an update to the end of the run, which has `num_updates`.

        Between two advances of its sources nothing changes, and batches are decoded ahead in background threads.
        """
        update = first_update
        while update < num_updates:
            until = min(num_updates, *(source.advance(update) for source in self.sources))
            if until == update + 1 or all(source.is_decoded for source in self.sources):
                # Handing a batch over from a thread would cost more than drawing it here.
                yield from (self.batch(number) for number in range(update, until))
            else:
                # Closed with this generator: no decoding thread outlives the loop.
                ahead = prefetch(self.batch, update, until - update, num_threads=self.num_decoders)
                with contextlib.closing(ahead) as decoded:
                    yield from decoded
            update = until
        for source in self.sources:
            source.finish()

    def state_dict(self) -> list[dict[str, Any]]:
        """Return all that changes in the sources, but for replays and environments."""
        return [source.state_dict() for source in self.sources]

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from what `state_dict` returned."""
        for source, state in zip(self.sources, states, strict=True):
            source.load_state_dict(state)

    @property
    def replays(self) -> list[Replay]:
        """What the sources keep of past play."""
        return [replay for source in self.sources for replay in source.replays]

    def close(self) -> None:
        """Free the environments of all sources."""
        for source in self.sources:
            source.close()


def measure_inputs(student: TorchPolicy, window: Window) -> None:
    """Give a student that normalises its inputs the mean and variance of the real steps of windows."""
    network = network_of(student.network, window.head)[0]
    layer = network.scale
    assert isinstance(network, PolicyNetwork) and isinstance(layer, NormalizeInput), "the student was made with it"
    rows = {name: window.rows(part) for name, part in window.observations.items()}
    seen = rows if student.spec.sight is None else student.spec.sight.choose(rows)
    layer.measure(network.laid_out(join_parts(seen)).to(layer.mean.device))


def num_decoders(num_threads: int, device: str) -> int:
    """Return how many threads decode: on a GPU several, which one could not feed; else one, beside torch's own."""
    return min(_DECODERS_FOR_A_GPU, num_threads) if device == "cuda" else 1


def held_out_windows(
    store: StepStore, indices: NDArray[np.int64], *, seed: int, window_length: int = 1, burn_in: int = 0
) -> NDArray[np.int64]:
    """Return the steps `[burn_in + T, B]` of windows held out: at most 4,096 steps, without repeats, in order."""
    sampler = UniformSampler(store, indices, seed=seed, window_length=window_length, burn_in=burn_in)
    rng = stream_generator(seed, "held-out sample")
    num_windows = min(len(sampler.starts), max(1, _MAX_HELD_OUT_STEPS // window_length))
    return sampler.from_starts(np.sort(rng.choice(sampler.starts, size=num_windows, replace=False)))


def check_window(store: StepStore, window_length: int, what: str) -> None:
    """Check that some episode is as long as a window, unless that is the default, which serves every task.

    Raises:
        UsageError: none is: part of every window is padding.
    """
    refuse_long_window(window_length, int(store.steps_in_episode.max()) + 1, what)


def refuse_long_window(window_length: int, longest: int, what: str) -> None:
    """Raise as `check_window` does, where the longest episode is known."""
    if window_length > longest and window_length != DEFAULT_WINDOW:
        longest_of = f"the longest episode of {what} has {longest}"
        raise UsageError(f"window: got {window_length} steps, {longest_of}. Choose fewer.")


def windows_of(num_rows: int, window_length: int) -> int:
    """Return how many windows hold about so many rows, one or more."""
    return max(1, round(num_rows / window_length))
