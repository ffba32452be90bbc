"""Real observations for an export: whole trajectories to compare it on, and rows to calibrate it with.

They come from a task that policy plays, or from a dataset: of the two only the first is what the policy meets itself.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rldistill.data import Dataset, is_dataset_folder
from rldistill.envs import PlayableTask
from rldistill.errors import DatasetError, MismatchError, RldistillError
from rldistill.observations import flat
from rldistill.policies import Policy, TorchPolicy, fit_policy
from rldistill.rollout.player import EpisodePlayer
from rldistill.seeding import stream_generator
from rldistill.types import PolicyOutput

# Rows that are decoded and compared at once.
_ROWS_AT_ONCE = 256
# Enough for the ranges of every layer: more change the smallest and the largest value by little.
_CALIBRATION_ROWS = 1024


@dataclass(frozen=True)
class Decisions:
    """Some decisions in the order of whole episodes."""

    observations: NDArray[np.generic]  # `[M, *observation_shape]`
    output: PolicyOutput  # of the policy
    num_ended: int  # episodes that ended with them


Trajectories = Iterator[Decisions]


@dataclass(frozen=True)
class TrajectorySource:
    """Where whole trajectories come from."""

    description: str  # as the report calls it
    num_episodes: int
    open: Callable[[], Trajectories]


def of_task(
    policy: Policy, playable: PlayableTask, num_episodes: int, *, seed: int, num_envs: int, num_threads: int
) -> TrajectorySource:
    """Return episodes that a policy plays."""
    task = playable.task
    player = fit_policy(policy, task)

    def play() -> Trajectories:
        envs = playable.make_envs(playable.fixed_num_envs or min(num_envs, num_episodes), num_threads)
        try:
            epsilon = task.protocol.exploration_epsilon
            episodes = EpisodePlayer(
                player,
                envs,
                range(num_episodes),
                seed=seed,
                exploration_epsilon=epsilon,
                labellers={"policy": player},
            )
            for step in episodes.play():
                yield Decisions(flat(step.observations), step.labels["policy"], int(step.ended.sum()))
        finally:
            envs.close()

    return TrajectorySource(f"{num_episodes} episodes of {task.name}", num_episodes, play)


def of_dataset(policy: Policy, dataset: Dataset, num_episodes: int) -> TrajectorySource:
    """Return the first episodes of a dataset."""
    episodes = dataset.episode_numbers[:num_episodes]

    def read() -> Trajectories:
        for episode in episodes:
            steps = dataset.episode_steps(int(episode))
            for start in range(0, len(steps), _ROWS_AT_ONCE):
                rows = dataset.observations(steps[start : start + _ROWS_AT_ONCE])
                yield Decisions(rows, policy(rows)[0], int(start + _ROWS_AT_ONCE >= len(steps)))

    return TrajectorySource(f"{len(episodes)} episodes of {dataset.path}", len(episodes), read)


def calibration_rows(dataset: Dataset, seed: int) -> NDArray[np.generic]:
    """Return observations drawn from all steps of a dataset, `[N, *observation_shape]`."""
    count = min(_CALIBRATION_ROWS, dataset.num_steps)
    rng = stream_generator(seed, "calibration")
    return dataset.observations(np.sort(rng.choice(dataset.num_steps, count, replace=False)))


def open_for(policy: TorchPolicy, path: Path) -> Dataset:
    """Open a dataset whose observations a policy takes.

    Raises:
        DatasetError: it cannot be read.
        MismatchError: its observations are others.
    """
    dataset = Dataset.open(path)
    mine, theirs = policy.tasks[0].fingerprint, dataset.provenance.task.fingerprint
    if mine.observation_description != theirs.observation_description:
        raise MismatchError(
            f"--data {path} holds observations {theirs.observation_description}, policy {policy.name!r} takes "
            f"{mine.observation_description}. Name data of its own task."
        )
    return dataset


def recorded_data(policy: TorchPolicy) -> Dataset | None:
    """Return the dataset that a student's file says it was distilled from; None where it is gone, or none is named."""
    config: Any = policy.spec.provenance.get("config")
    named: Any = config.get("data") if isinstance(config, dict) else None
    for path in named if isinstance(named, list) else [named]:
        if not isinstance(path, str):
            continue
        try:
            if is_dataset_folder(Path(path)):
                dataset = open_for(policy, Path(path))
                if dataset.provenance.task.name == policy.tasks[0].name:
                    return dataset
        except (DatasetError, MismatchError, RldistillError, OSError, ValueError):
            continue  # another dataset by now: the path is a hint
    return None
