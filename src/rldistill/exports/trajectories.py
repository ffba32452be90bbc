"""Real observations for an export: whole trajectories to compare it on, and rows to calibrate it with.

They come from a task that policy plays, or from a dataset: of the two only the first is what the policy meets itself.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rldistill.data import Dataset, is_dataset_folder
from rldistill.envs import PlayableTask
from rldistill.errors import MismatchError, RldistillError
from rldistill.exports.formats import Sample
from rldistill.networks.input_layer import join_parts
from rldistill.observations import as_tensors, flat
from rldistill.policies import TorchPolicy, fit_policy
from rldistill.rollout.player import EpisodePlayer
from rldistill.seeding import stream_generator
from rldistill.types import PolicyOutput

# Rows that are decoded and compared at once.
_ROWS_AT_ONCE = 256
# Of which a policy that remembers is asked at once, and whose observations lie in memory.
_EPISODES_AT_ONCE = 8
# Enough for the ranges of every layer: more change the smallest and the largest value by little.
_CALIBRATION_ROWS = 1024
# From which they are drawn where whole episodes must be gone through.
_CALIBRATION_STEPS = 8192


@dataclass(frozen=True)
class Decisions:
    """Some decisions: of one episode in their order, or one each of several episodes."""

    observations: NDArray[np.generic]  # `[M, *observation_shape]`, as the task shows them
    seen: NDArray[np.generic]  # `[M, …]`, what the policy sees of them, as an export takes it
    output: PolicyOutput  # of the policy
    episodes: NDArray[np.int64]  # `[M]`, to which each of them belongs
    begin: NDArray[np.bool_]  # `[M]`: the first of its episode
    num_ended: int  # episodes that ended with them


Trajectories = Iterator[Decisions]


@dataclass(frozen=True)
class TrajectorySource:
    """Where whole trajectories come from."""

    description: str  # as the report calls it
    num_episodes: int
    open: Callable[[], Trajectories]


def of_task(
    policy: TorchPolicy, playable: PlayableTask, num_episodes: int, *, seed: int, num_envs: int, num_threads: int
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
                rows = flat(step.observations)
                ended = int(step.ended.sum())
                yield Decisions(
                    rows, seen_rows(policy, rows), step.labels["policy"], step.episodes, step.steps == 0, ended
                )
        finally:
            envs.close()

    return TrajectorySource(f"{num_episodes} episodes of {task.name}", num_episodes, play)


def of_dataset(policy: TorchPolicy, dataset: Dataset, num_episodes: int) -> TrajectorySource:
    """Return the first episodes of a dataset."""
    episodes = dataset.episode_numbers[:num_episodes]
    description = f"{len(episodes)} episodes of {dataset.path}"
    return TrajectorySource(
        description, len(episodes), lambda: (own for own, _ in _replayed(policy, dataset, episodes))
    )


def _replayed(
    policy: TorchPolicy, dataset: Dataset, episodes: NDArray[np.int64]
) -> Iterator[tuple[Decisions, tuple[Tensor, ...]]]:
    """Yield a policy's decisions on recorded observations, and what it remembered before each of them."""
    if policy.initial_state(1) is not None:
        for start in range(0, len(episodes), _EPISODES_AT_ONCE):
            yield from _side_by_side(policy, dataset, episodes[start : start + _EPISODES_AT_ONCE])
        return
    for episode in episodes:
        steps = dataset.episode_steps(int(episode))
        for start in range(0, len(steps), _ROWS_AT_ONCE):
            rows = flat(dataset.observations(steps[start : start + _ROWS_AT_ONCE]))
            begin = np.arange(start, start + len(rows)) == 0
            ended = int(start + _ROWS_AT_ONCE >= len(steps))
            numbers = np.full(len(rows), episode, np.int64)
            yield Decisions(rows, seen_rows(policy, rows), policy(rows)[0], numbers, begin, ended), ()


def _side_by_side(
    policy: TorchPolicy, dataset: Dataset, episodes: NDArray[np.int64]
) -> Iterator[tuple[Decisions, tuple[Tensor, ...]]]:
    """Yield the decisions of a policy that remembers, step by step in several episodes at once."""
    recorded = [flat(dataset.observations(dataset.episode_steps(int(episode)))) for episode in episodes]
    lengths = np.array([len(rows) for rows in recorded])
    state = policy.initial_state(len(episodes))
    assert state is not None, "asked of policies that remember"
    for step in range(lengths.max()):
        playing = np.flatnonzero(lengths > step)
        rows = np.stack([recorded[place][step] for place in playing])
        before = tuple(part[playing] for part in state)
        output, after = policy(rows, before)
        for part, own in zip(state, after or (), strict=True):
            part[playing] = own
        begin, ended = np.full(len(playing), step == 0), int((lengths == step + 1).sum())
        yield Decisions(rows, seen_rows(policy, rows), output, episodes[playing], begin, ended), before


def seen_rows(policy: TorchPolicy, rows: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return what a policy sees of observations `[N, …]` of its task, as an export of it takes them.

    That is bytes where the environment gives bytes, and float32 for all else.
    """
    sight, seen = policy.spec.sight, policy.spec.seen_by(policy.head)
    if sight is not None:
        rows = join_parts(sight.choose(as_tensors(rows, policy.tasks[0].fingerprint))).numpy()
    return rows.astype("uint8" if seen.observation_dtype == "uint8" else "float32", copy=False)


def calibration_sample(policy: TorchPolicy, dataset: Dataset, seed: int) -> Sample:
    """Return observations drawn from all steps of a dataset; of a policy that remembers, from whole episodes."""
    rng = stream_generator(seed, "calibration")
    if policy.initial_state(1) is None:
        count = min(_CALIBRATION_ROWS, dataset.num_steps)
        rows = dataset.observations(np.sort(rng.choice(dataset.num_steps, count, replace=False)))
        return Sample(seen_rows(policy, flat(rows)))
    heard: list[tuple[NDArray[np.generic], tuple[Tensor, ...]]] = []
    num_heard = 0
    for decisions, before in _replayed(policy, dataset, rng.permutation(dataset.episode_numbers)):
        heard.append((decisions.seen, before))
        num_heard += len(decisions.seen)
        if num_heard >= _CALIBRATION_STEPS:
            break
    chosen = np.sort(rng.choice(num_heard, min(_CALIBRATION_ROWS, num_heard), replace=False))
    states = zip(*(before for _, before in heard), strict=True)
    return Sample(
        np.concatenate([rows for rows, _ in heard])[chosen], tuple(torch.cat(parts)[chosen] for parts in states)
    )


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


def learned_from(policy: TorchPolicy, paths: Iterable[Path]) -> Dataset | None:
    """Return the data of its task that a student learned from; None where they are gone, or others by now.

    The paths are hints: how many steps there were, and the seeds of their episodes, are compared with its file.
    """
    name, made, found = policy.tasks[0].name, policy.spec.provenance, list[Dataset]()
    for path in paths:
        with contextlib.suppress(RldistillError, OSError, ValueError):  # such as data of another task
            found += [open_for(policy, path)] if is_dataset_folder(path) else []
    found = [dataset for dataset in found if dataset.provenance.task.name == name]
    with contextlib.suppress(RldistillError, AttributeError):  # a stranger's file may say anything
        dataset = found[0] if len(found) == 1 else Dataset.joined(found) if found else None
        said = made.get("tasks", {}).get(name, made).get("dataset", {})
        seed = said.get("seed")
        seeds = seed if isinstance(seed, list) else [seed]
        if dataset is not None and (dataset.num_steps, list(dataset.seeds)) == (said.get("num_steps"), seeds):
            return dataset
    return None
