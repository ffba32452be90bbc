"""Emulators that step in two halves give what they give together: the same records, one for one."""

import itertools

import numpy as np
import pytest

import rldistill as rd
from rldistill.data import Dataset
from rldistill.envs import OverlappedEnvs, make_task
from rldistill.envs.atari import AtariEnvs
from rldistill.policies import TorchPolicy
from rldistill.rollout.player import BegunEpisode, EpisodePlayer
from tests.kit.small_policies import small_policy

TASK = make_task("atari:pong", {"max_frames": 160})
SETTINGS = {"seed": 4, "exploration_epsilon": 0.2, "label_period": 3}


@pytest.fixture(scope="module")
def policy() -> TorchPolicy:
    return small_policy(TASK.task, network="conv:4-4:8")


def in_halves(first: int, second: int) -> OverlappedEnvs:
    return OverlappedEnvs(*(AtariEnvs(TASK.task, num_envs, num_threads=1) for num_envs in (first, second)))


def records(policy, envs, episodes, begun=None):
    """Return all locksteps: which rows, what was said of them, and what came of it."""
    player = EpisodePlayer(policy, envs, episodes, labellers={"policy": policy}, **SETTINGS)
    assert player.wind_forward(begun or {}) == []
    try:
        for step in player.play():
            yield (
                *(getattr(step, name).tolist() for name in ("episodes", "steps", "labelled", "actions", "rewards")),
                *(getattr(step, name).tobytes() for name in ("terminated", "truncated", "observations")),
                step.next_observations.tobytes(),
                {name: output.raw.tolist() for name, output in step.labels.items()},
            )
    finally:
        envs.close()


def test_the_records_are_those_of_all_together_also_where_episodes_run_out(policy):
    together = list(records(policy, TASK.make_envs(5, 1), range(13)))
    # The first half is idle before the second, or the other way round.
    assert list(records(policy, in_halves(2, 3), range(13))) == together
    assert list(records(policy, in_halves(4, 1), range(13))) == together


def test_play_that_goes_on_from_the_middle_of_episodes_is_the_same(policy):
    whole = list(itertools.islice(records(policy, TASK.make_envs(4, 1), itertools.count()), 60))
    so_far, place = {}, 25
    for episodes, steps, _, actions, *_ in whole[:place]:
        for episode, step, action in zip(episodes, steps, actions, strict=True):
            so_far[episode] = [*so_far.get(episode, []), action][: step + 1]
    running, rows = whole[place][0], np.frombuffer(whole[place - 1][8], np.uint8)
    before = np.frombuffer(whole[place - 1][7], np.uint8).reshape(4, *TASK.task.fingerprint.observation_shape)
    assert running == whole[place - 1][0] and len(rows) == before.size, "no episode ended there"
    begun = {
        episode: BegunEpisode(np.array(so_far[episode]), before[place_of]) for place_of, episode in enumerate(running)
    }
    following = itertools.count(max(so_far) + 1)
    assert list(itertools.islice(records(policy, in_halves(2, 2), following, begun), 35)) == whole[place:]


def test_a_step_that_nobody_received_is_waited_for(policy):
    envs = in_halves(2, 2)
    player = EpisodePlayer(policy, envs, itertools.count(), **SETTINGS)
    next(player.play())  # both halves are stepping
    again = EpisodePlayer(policy, envs, itertools.count(), labellers={"policy": policy}, **SETTINGS)
    first = next(again.play())
    fresh = EpisodePlayer(policy, TASK.make_envs(4, 1), itertools.count(), labellers={"policy": policy}, **SETTINGS)
    assert first.next_observations.tobytes() == next(fresh.play()).next_observations.tobytes()
    envs.close()


def test_what_the_emulators_tell_and_their_starts_are_found_by_slot():
    halves, together = in_halves(2, 3), TASK.make_envs(5, 1)
    seeds = [11, 12, 13, 14, 15]
    assert halves.reset(range(5), seeds).tobytes() == together.reset(range(5), seeds).tobytes()
    assert halves.start_ids().tolist() == together.start_ids().tolist()
    assert halves.info("lives", [4, 0]) == together.info("lives", [4, 0])
    actions = np.array([0, 1, 2, 3, 4])
    ours, theirs = halves.step(actions), together.step(actions)
    assert ours.observations.tobytes() == theirs.observations.tobytes()
    assert halves.reset([3], [16]).tobytes() == together.reset([3], [16]).tobytes()
    for envs in (halves, together):
        envs.close()


def test_a_collection_in_halves_is_stored_as_one_of_all_together(tmp_path, policy, monkeypatch):
    settings = {"env_kwargs": {"max_frames": 160}, "num_steps": 1_500, "num_envs": 24}
    for name, num_threads in (("together", 1), ("halves", 2)):
        rd.collect(policy, "atari:pong", out=tmp_path / name, num_threads=num_threads, **settings)
    together, halves = (Dataset.open(tmp_path / name) for name in ("together", "halves"))
    assert halves.manifest.identity == together.manifest.identity


@pytest.mark.parametrize(("num_envs", "num_threads", "are_halves"), [(24, 2, True), (23, 2, False), (64, 1, False)])
def test_halves_need_two_threads_and_enough_emulators(num_envs, num_threads, are_halves, monkeypatch):
    monkeypatch.setattr("rldistill.envs.make.AtariEnvs", lambda _task, num, **_: type("Few", (), {"num_envs": num})())
    envs = TASK.envs_for_play(num_envs, num_threads)
    assert isinstance(envs, OverlappedEnvs) == are_halves
    assert envs.num_envs == num_envs
