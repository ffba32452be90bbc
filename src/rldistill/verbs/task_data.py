"""What teaches one task of a student: a stored dataset, or a teacher that goes on playing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rldistill.data import Dataset, TeacherEntry, split_episodes
from rldistill.data.sampler import MIN_HELD_OUT_EPISODES
from rldistill.distillation import HeldOut, LiveSource, LiveTask, Source, StoredSource, StoredTask
from rldistill.distillation.live import OnPlay
from rldistill.distillation.sources import held_out_sample
from rldistill.envs import EpisodeEnvs, PlayableTask, make_task
from rldistill.policies import Policy, TorchPolicy, as_played_by, fit_policy
from rldistill.policies.entry import teacher_entry
from rldistill.schedules import TaskSchedule
from rldistill.seeding import stream_seed
from rldistill.tasks import Task
from rldistill.verbs.distill_config import DistillConfig
from rldistill.verbs.online import OnlineData

# Enough to know a median to some percent.
_SAMPLE_SIZE = 10_000
# A GPU learns from more frames than one thread decodes.
_DECODERS_FOR_A_GPU = 4
# In the identity of a teacher that plays otherwise while it is recorded than it acts.
PLAYED_AS = " played as "


class TaskData(Protocol):
    """One task of a run: who teaches it, from what, and on what its student is measured."""

    @property
    def task(self) -> Task:
        """With the head of its name."""
        ...

    @property
    def teacher(self) -> TeacherEntry:
        """Who labels."""
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
        """Of the data: a resumed run must have the same."""
        ...

    @property
    def record(self) -> Mapping[str, Any]:
        """For the student's file."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """What a user should know before trusting a student of these data."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What was decided for the user."""
        ...

    @property
    def playable(self) -> PlayableTask:
        """What the student is played on while it is trained; after `teach`."""
        ...

    def teach(self, head: int, config: DistillConfig) -> None:
        """Get ready to teach a head.

        Raises:
            DatasetError: too few episodes to hold some out.
        """
        ...

    @property
    def held_out(self) -> HeldOut:
        """Steps never trained on; after `teach`."""
        ...

    def save(self, folder: Path) -> None:
        """Keep, beside the student, what is kept nowhere else."""
        ...


class StoredData:
    """A dataset as the data of one task."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        origin = dataset.provenance
        self.task, self.teacher = origin.task, origin.teacher
        own = origin.teacher.behaviour or origin.behaviour
        self.samples = origin.teacher.output_kind != "q_values" and own == "sample"
        self.label = f"Dataset {dataset.path}"
        self.description = f"{dataset.path} ({len(dataset.episode_numbers)} episodes, {dataset.num_steps:,} steps)"
        self.identity = dataset.manifest.identity
        self.record: Mapping[str, Any] = {"num_steps": dataset.num_steps, "seed": origin.seed}
        self.notes: Sequence[str] = ()
        self.head = 0
        self.train: NDArray[np.int64]
        self.held_out: HeldOut
        self.playable: PlayableTask

    def teach(self, head: int, config: DistillConfig) -> None:
        """Split the episodes."""
        self.head = head
        if config.evaluate_episodes:
            # Refused now, if it cannot be made: not after hours of training.
            self.playable = make_task(self.task)
        split = split_episodes(self.dataset, config.held_out_fraction, config.seed)
        self.train = split.train
        self.held_out = held_out_sample(self.dataset, split.held_out, seed=config.seed, head=head)

    def sample_of_targets(self) -> NDArray[np.float32]:
        """Return the teacher's scores `[N, O]` for steps spread evenly over the data."""
        num_steps = self.dataset.num_steps
        chosen = np.linspace(0, num_steps - 1, min(num_steps, _SAMPLE_SIZE)).astype(np.int64)
        return self.dataset.field(self.teacher.output_kind)[chosen]

    def save(self, folder: Path) -> None:
        """Keep nothing: the data stay where they are."""

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


class LiveData:
    """A teacher that goes on playing, as the data of one task.

    Args:
        teacher: plays and labels.
        playable: what it plays, under the protocol's exploration.
        path: of the teacher's file, if it has one.
        on_play: told how far a collection is; may raise to stop.
        reading: what a user said of the file, if anything.
        player: the teacher as it acts while it is recorded; None: as it does.
        note: what people should know of that.
    """

    def __init__(
        self,
        teacher: Policy,
        playable: PlayableTask,
        path: Path | None,
        on_play: OnPlay | None = None,
        *,
        reading: Mapping[str, Any] | None = None,
        player: Policy | None = None,
        note: str | None = None,
    ) -> None:
        self._player = fit_policy(teacher if player is None else player, playable.task)
        self.playable = playable
        self.on_play = on_play
        self.notes = () if note is None else (note,)
        self.task = as_played_by(self._player, playable.task)
        self.teacher = teacher_entry(teacher, path, reading)
        self.policy = fit_policy(teacher, playable.task)
        acts = self.policy.behaviour
        self.samples = teacher.output_kind != "q_values" and acts == "sample"
        self.label = f"Teacher {path or teacher.name}"
        self.description = f"{path or teacher.name} playing {self.task.name}"
        played_as = "" if self._player.behaviour == acts else f"{PLAYED_AS}{self._player.behaviour}"
        self.identity = f"{teacher.hash} {self.task.to_dict()}{played_as}"
        self.live: LiveTask
        self.measured: LiveTask
        self.num_held_out = 1
        self._held_out: HeldOut | None = None

    @property
    def warnings(self) -> list[str]:
        """Return what makes this play less than it seems."""
        has_chance = self._epsilon > 0 or self.task.protocol.sticky_action_probability > 0
        if not self.task.is_atari or self._player.behaviour != "greedy" or has_chance:
            return []
        return [
            f"{self.description} without chance: episodes repeat, and held-out ones may equal those trained on. "
            "Play with --exploration-epsilon 0.05."
        ]

    @property
    def record(self) -> Mapping[str, Any]:
        """What was played so far."""
        return {"num_steps": self.live.replay.num_appended, "exploration_epsilon": self._epsilon}

    def teach(self, head: int, config: DistillConfig) -> None:
        """Lay out the play that is learned from, and that which is held out."""
        num_envs = self.playable.fixed_num_envs or config.num_envs
        self.num_held_out = max(1, round(config.held_out_fraction * config.collect_steps))
        self.live = self._live_task(head, config, "live", num_envs, config.replay_capacity)
        # Steps in whole episodes: the capacity is no limit here.
        few_envs = self.playable.fixed_num_envs or min(num_envs, MIN_HELD_OUT_EPISODES)
        self.measured = self._live_task(head, config, "held-out play", few_envs, 2**62)

    @property
    def held_out(self) -> HeldOut:
        """A sample of the steps that the teacher played for this alone."""
        if self._held_out is None:
            self._held_out = self.measured.held_out()
        return self._held_out

    def save(self, folder: Path) -> None:
        """Keep nothing: the teacher has its file, and replays belong to the checkpoint."""

    @property
    def _epsilon(self) -> float:
        return self.task.protocol.exploration_epsilon

    def _live_task(self, head: int, config: DistillConfig, stream: str, num_envs: int, capacity: int) -> LiveTask:
        def make_envs() -> EpisodeEnvs:
            return self.playable.make_envs(num_envs, config.num_threads)

        return LiveTask(
            self._player,
            make_envs,
            capacity=capacity,
            seed=stream_seed(config.seed, stream, head),
            exploration_epsilon=self._epsilon,
            head=head,
        )


def make_source(
    data: Sequence[TaskData], config: DistillConfig, schedule: TaskSchedule, student: TorchPolicy
) -> Source:
    """Return the source of batches of data that were told which heads they teach."""
    online = [item for item in data if isinstance(item, OnlineData)]
    if online:
        return online[0].make_source(config, student)
    stored = [item for item in data if isinstance(item, StoredData)]
    if stored:
        tasks = [StoredTask(item.dataset, item.train, seed=config.seed, head=item.head) for item in stored]
        return StoredSource(tasks, batch_size=config.batch_size, schedule=schedule, num_decoders=_num_decoders(config))
    live = [item for item in data if isinstance(item, LiveData)]
    return LiveSource(
        [item.live for item in live],
        batch_size=config.batch_size,
        schedule=schedule,
        held_out=[item.measured for item in live],
        held_out_steps=live[0].num_held_out,
        collect_steps=config.collect_steps,
        collect_period=config.collect_period,
        max_collections=num_collections(config.num_updates, config.collect_period),
        on_play=live[0].on_play,
        num_decoders=_num_decoders(config),
    )


def num_collections(num_updates: int, collect_period: int) -> int:
    """Return how often teachers play: a last collection for less than half a period is not worth its play."""
    return max(1, (2 * num_updates + collect_period) // (2 * collect_period))


def _num_decoders(config: DistillConfig) -> int:
    """Return how many threads decode: on a GPU several, which one could not feed; else one, beside torch's own."""
    return min(_DECODERS_FOR_A_GPU, config.num_threads) if config.device == "cuda" else 1
