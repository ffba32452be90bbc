"""Emulators that step in two halves give what they give together: the same records, one for one."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import rldistill as rd
from rldistill.data import Dataset
from rldistill.envs import OverlappedEnvs, make_task
from rldistill.envs.atari import AtariEnvs
from rldistill.policies import TorchPolicy
from rldistill.policies.protocol import ActsByOutputs
from rldistill.policies.switched import Choice, SwitchedPolicy
from rldistill.rollout.decisions import Mixture
from rldistill.rollout.player import BegunEpisode, EpisodePlayer
from rldistill.types import PolicyOutput
from tests.kit.small_policies import small_policy

TASK = make_task("atari:pong", {"max_frames": 160})
SETTINGS = {"seed": 4, "exploration_epsilon": 0.2, "label_period": 3}


@pytest.fixture(scope="module")
def policy() -> TorchPolicy:
    return small_policy(TASK.task, network="conv:4-4:8")


def in_halves(first: int, second: int) -> OverlappedEnvs:
    return OverlappedEnvs(*(AtariEnvs(TASK.task, num_envs, num_threads=1) for num_envs in (first, second)))


def records(policy, envs, episodes, begun=None, actor=None):
    """Return all locksteps: which rows, what was said of them, and what came of it."""
    player = EpisodePlayer(actor or policy, envs, episodes, labellers={"policy": policy}, **SETTINGS)
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


@pytest.mark.parametrize("lengths", [(5, 5, 3, 3), (2, 4), (3,)])
def test_episodes_of_several_lengths_are_taken_up_also_where_a_half_has_none(policy, lengths):
    whole = list(records(policy, TASK.make_envs(1, 1), range(len(lengths))))
    begun = {}
    for episode, length in enumerate(lengths):
        steps = [step for step in whole if step[0] == [episode]]
        actions = np.array([step[3][0] for step in steps[:length]])
        last = np.frombuffer(steps[length - 1][7], np.uint8).reshape(TASK.task.fingerprint.observation_shape)
        begun[episode] = BegunEpisode(actions, last)
    first = next(records(policy, in_halves(2, 2), itertools.count(len(lengths)), begun))
    assert first[1] == [*lengths, *[0] * (4 - len(lengths))]
    assert first[8] == next(records(policy, TASK.make_envs(4, 1), itertools.count(len(lengths)), begun))[8]


class Counting(ActsByOutputs):
    """A policy whose choice depends on how many steps an episode had."""

    def __init__(self, policy: TorchPolicy) -> None:
        self._policy = policy
        self.name, self.tasks, self.output_kind, self.behaviour = "counting", policy.tasks, "q_values", "greedy"

    def initial_state(self, num_envs):
        return (torch.zeros(num_envs),)

    def __call__(self, observations, state=None):
        (steps,) = state
        output, _ = self._policy(observations)
        added = steps.unsqueeze(1) * torch.arange(output.raw.shape[1])
        return PolicyOutput(output.action_layout, q_values=output.raw + added % 5), (steps + 1,)


def test_a_policy_that_remembers_and_a_mixture_play_the_same_in_halves(policy):
    counting = Counting(policy)
    together = list(records(counting, TASK.make_envs(5, 1), range(9)))
    assert list(records(counting, in_halves(3, 2), range(9))) == together
    mixed = [
        list(records(policy, envs, range(9), actor=Mixture(policy, counting, 0.5)))
        for envs in (TASK.make_envs(5, 1), in_halves(3, 2))
    ]
    assert mixed[0] == mixed[1] != together


@pytest.mark.parametrize(
    "choice", [Choice(function=lambda rows: rows[:, -1].sum(axis=(1, 2)) % 2), Choice(entry="whose")]
)
def test_several_teachers_of_unlike_networks_label_the_same_in_halves(policy, choice, monkeypatch):
    whose = lambda self, name, slots: [int(slot % 2) for slot in slots]  # noqa: E731
    for kind in (AtariEnvs, OverlappedEnvs):
        monkeypatch.setattr(kind, "info", whose)
    other = small_policy(TASK.task, network="conv:4-4:16")
    switched = SwitchedPolicy({"a": policy, "b": other}, TASK.task, choice)
    together = list(itertools.islice(records(switched, TASK.make_envs(5, 1), range(9)), 60))
    assert list(itertools.islice(records(switched, in_halves(3, 2), range(9)), 60)) == together


def test_emulators_are_freed_after_an_interrupt_in_a_step():
    envs = TASK.make_envs(2, 1)
    envs.reset(range(2), [1, 2])
    receive = envs._envs.recv

    def interrupted():
        receive()
        raise KeyboardInterrupt

    envs._envs.recv = interrupted
    with pytest.raises(KeyboardInterrupt):
        envs.step(np.zeros(2, np.int64))
    envs._envs.recv = lambda: pytest.fail("nothing is under way: this would wait forever")
    envs.close()


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
    second = slice(2, 5)  # of a half that begins nothing no rows are given
    assert halves.reset([3], [16])[second].tobytes() == together.reset([3], [16])[second].tobytes()
    for envs in (halves, together):
        envs.close()


def test_a_collection_in_halves_is_stored_as_one_of_all_together(tmp_path, policy, monkeypatch):
    made, in_two = [], OverlappedEnvs.__init__
    monkeypatch.setattr(
        OverlappedEnvs, "__init__", lambda self, *halves: (made.append(halves), in_two(self, *halves))[1]
    )
    settings = {"env_kwargs": {"max_frames": 160}, "num_steps": 1_500, "num_envs": 24}
    for name, num_threads in (("together", 1), ("halves", 2)):
        rd.collect(policy, "atari:pong", out=tmp_path / name, num_threads=num_threads, **settings)
    together, halves = (Dataset.open(tmp_path / name) for name in ("together", "halves"))
    assert halves.manifest.identity == together.manifest.identity
    assert len(made) == 1, "one of the two was collected in halves"


@pytest.mark.parametrize(
    ("num_envs", "num_threads", "threads_of_each"),
    [(24, 2, [1, 1]), (25, 3, [2, 2]), (32, 8, [4, 4]), (23, 2, [2]), (64, 1, [1])],
)
def test_halves_need_two_threads_and_enough_emulators(num_envs, num_threads, threads_of_each, monkeypatch):
    made = []

    def emulators(_task, num, *, num_threads):
        made.append(num_threads)
        return SimpleNamespace(num_envs=num)

    monkeypatch.setattr("rldistill.envs.make.AtariEnvs", emulators)
    envs = TASK.envs_for_play(num_envs, num_threads)
    assert made == threads_of_each
    assert isinstance(envs, OverlappedEnvs) == (len(made) == 2)
    assert envs.num_envs == num_envs
