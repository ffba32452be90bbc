"""A teacher plays; what it saw, said and did is stored."""

import itertools
from collections.abc import Callable

import numpy as np

from rldistill.data import Dataset, DatasetWriter, as_targets
from rldistill.data.layout import TEACHER
from rldistill.envs import EpisodeEnvs
from rldistill.policies import Policy
from rldistill.rollout.player import BegunEpisode, EpisodePlayer
from rldistill.rollout.records import StepRecord

_TEACHER = "teacher"


def collect_steps(
    teacher: Policy,
    envs: EpisodeEnvs,
    writer: DatasetWriter,
    *,
    num_steps: int,
    seed: int,
    exploration_epsilon: float,
    on_step: Callable[[StepRecord], None],
    on_diverged: Callable[[list[int]], None],
) -> None:
    """Play until the writer holds `num_steps`; episodes under way in the writer are taken up first.

    A collection that was stopped and taken up again holds the same steps as one that never
    stopped, as long as environments are functions of their seeds.

    Args:
        teacher: acts by its own behaviour, and labels.
        envs: N slots.
        writer: of the dataset.
        num_steps: to be reached, over all episodes.
        seed: of the episodes.
        exploration_epsilon: chance of a uniformly random action.
        on_step: called after each lockstep is stored; may raise to stop.
        on_diverged: called with begun episodes that could not be repeated and were given up.
    """
    begun = _begun_episodes(writer, envs.num_envs)
    player = EpisodePlayer(
        teacher,
        envs,
        itertools.count(writer.next_episode),
        seed=seed,
        exploration_epsilon=exploration_epsilon,
        labellers={_TEACHER: teacher},
    )
    diverged = player.wind_forward(begun)
    for episode in diverged:
        writer.interrupt(episode)
    if diverged:
        on_diverged(diverged)
    for step in player.play():
        _store(writer, step, limit=num_steps - writer.num_steps)
        on_step(step)
        if writer.num_steps >= num_steps:
            break


def _begun_episodes(writer: DatasetWriter, num_envs: int) -> dict[int, BegunEpisode]:
    running = list(writer.running)
    # Fewer environments than before: the youngest episodes are given up.
    for episode in running[num_envs:]:
        writer.interrupt(episode)
    if not running:
        return {}
    dataset = Dataset.open(writer.path, verify=False)
    begun: dict[int, BegunEpisode] = {}
    for episode in running[:num_envs]:
        steps = dataset.episode_steps(episode)
        actions = dataset.field("action")[steps]
        actions = actions.astype(np.int64) if actions.dtype.kind == "i" else actions
        begun[episode] = BegunEpisode(actions, dataset.observations(steps[-1:])[0])
    return begun


def _store(writer: DatasetWriter, step: StepRecord, *, limit: int) -> None:
    """Append one lockstep, or the oldest episodes' part of it where that reaches the target."""
    kept = slice(limit)  # the rows are in the order of episodes
    targets, stored = step.labels[_TEACHER], writer.provenance.layout.rows
    layout, actions = targets.action_layout, step.actions[kept]
    writer.append(
        step.episodes[kept],
        stored(step.observations)[kept],
        {
            "action": actions if layout.is_continuous else actions.astype(np.int32),
            "reward": step.rewards[kept],
            "terminated": step.terminated[kept],
            "truncated": step.truncated[kept],
            **as_targets(targets.raw.float().cpu().numpy()[kept], layout, targets.kind),
            **{name: rows[kept] for name, rows in targets.further(writer.provenance.step_fields).items()},
            **({} if targets.teacher is None else {TEACHER: targets.teacher.numpy()[kept].astype(np.int32)}),
        },
    )
    last_rows = stored(step.next_observations)
    for row in np.flatnonzero(step.ended[kept]):
        writer.end_episode(int(step.episodes[row]), last_rows[row])
