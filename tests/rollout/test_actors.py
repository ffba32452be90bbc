"""Who acts is separate from who labels, and every slot carries the states of both."""

import itertools

import numpy as np
import pytest
import torch

from rldistill.policies import Policy
from rldistill.rollout.decisions import Mixture
from rldistill.rollout.player import BegunEpisode, EpisodePlayer
from rldistill.types import PolicyOutput
from tests.kit.cart_pole import hand_made_teacher, short_cart_pole
from tests.kit.small_policies import small_policy

SEED, NUM_EPISODES = 3, 6


class Accumulating:
    """A policy with a memory: its Q-values are the hand-made teacher's of the sum of all that it observed."""

    def __init__(self, task) -> None:
        self._inner = hand_made_teacher(task)
        self.name, self.tasks, self.behaviour = "accumulating", self._inner.tasks, "greedy"
        self.output_kind, self.hash = self._inner.output_kind, "0" * 64

    def initial_state(self, num_envs: int) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(num_envs, 4),)

    def __call__(self, observations, state=None) -> tuple[PolicyOutput, tuple[torch.Tensor, ...]]:
        assert state is not None and len(state[0]) == len(observations)
        total = state[0] + torch.as_tensor(observations)
        return self._inner(total)[0], (total,)


def play(actor: Policy | Mixture, labellers=None, *, num_envs: int = 3, epsilon: float = 0.0, label_period: int = 1):
    """Return, by episode, a list of (observation, action, labels by name) for each step."""
    envs = short_cart_pole().make_envs(num_envs, 1)
    player = EpisodePlayer(
        actor,
        envs,
        range(NUM_EPISODES),
        seed=SEED,
        exploration_epsilon=epsilon,
        labellers=labellers,
        label_period=label_period,
    )
    played: dict[int, list] = {}
    for step in player.play():
        place = np.cumsum(step.labelled) - 1
        for row, episode in enumerate(step.episodes.tolist()):
            labels = {name: tuple(o.raw[place[row]].tolist()) for name, o in step.labels.items() if step.labelled[row]}
            played.setdefault(episode, []).append((step.observations[row].tobytes(), int(step.actions[row]), labels))
    envs.close()
    return played


def actions_of(played) -> dict[int, list[int]]:
    return {episode: [step[1] for step in steps] for episode, steps in played.items()}


@pytest.fixture
def teacher():
    return hand_made_teacher()


@pytest.fixture
def student():
    return small_policy(short_cart_pole().task, network="mlp:8")


def test_a_labeller_that_does_not_act_changes_nothing_of_what_is_played(teacher, student):
    alone, asked = play(student, epsilon=0.2), play(student, {"teacher": teacher}, epsilon=0.2)
    assert [[step[:2] for step in alone[e]] for e in alone] == [[step[:2] for step in asked[e]] for e in alone]


def test_a_labeller_says_what_it_would_say_if_it_were_asked_alone(teacher, student):
    for steps in play(student, {"teacher": teacher}).values():
        observations = np.stack([np.frombuffer(step[0], np.float32) for step in steps])
        expected = teacher(observations)[0].raw.tolist()
        assert [list(step[2]["teacher"]) for step in steps] == expected


def test_labellers_are_asked_at_every_nth_step_of_each_episode(teacher, student):
    for steps in play(student, {"teacher": teacher}, label_period=4).values():
        assert [bool(step[2]) for step in steps] == [number % 4 == 0 for number in range(len(steps))]


@pytest.mark.parametrize("per", ["decision", "episode"])
@pytest.mark.parametrize("fraction", [1.0, 0.0])
def test_a_mixture_of_all_or_nothing_plays_as_one_policy_does(teacher, student, per, fraction):
    mixed = play(Mixture(teacher, student, fraction, per), epsilon=0.2)
    assert actions_of(mixed) == actions_of(play(teacher if fraction else student, epsilon=0.2))


@pytest.mark.parametrize("per", ["decision", "episode"])
@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_a_mixture_plays_the_same_episodes_from_any_number_of_environments(teacher, student, per, epsilon):
    mixture = Mixture(teacher, student, 0.5, per)
    assert play(mixture, epsilon=epsilon, num_envs=1) == play(mixture, epsilon=epsilon, num_envs=4)


def who_acted(steps, teacher, student) -> list[str]:
    observations = np.stack([np.frombuffer(step[0], np.float32) for step in steps])
    chosen = {"teacher": teacher.act(observations)[0], "student": student.act(observations)[0]}
    done = np.array([step[1] for step in steps])
    assert ((chosen["teacher"] == done) | (chosen["student"] == done)).all()
    apart = chosen["teacher"] != chosen["student"]
    return ["teacher" if is_teacher else "student" for is_teacher in (chosen["teacher"] == done)[apart]]


def test_a_mixture_per_episode_keeps_to_the_policy_that_it_drew(teacher, student):
    played = play(Mixture(teacher, student, 0.5, "episode"))
    actors = [set(who_acted(steps, teacher, student)) for steps in played.values()]
    assert all(len(names) <= 1 for names in actors)
    assert set().union(*actors) == {"teacher", "student"}


def test_a_mixture_per_decision_draws_with_its_fraction(teacher, student):
    played = play(Mixture(teacher, student, 0.25))
    names = [name for steps in played.values() for name in who_acted(steps, teacher, student)]
    # Within four standard errors.
    share = names.count("teacher") / len(names)
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / len(names)) ** 0.5
    assert len(names) > 30


def test_a_mixture_may_sample_and_explore_and_still_repeats_its_episodes(teacher):
    sampling = hand_made_teacher(kind="logits", behaviour="sample", scale=0.5)
    mixture = Mixture(teacher, sampling, 0.5)
    assert play(mixture, num_envs=1) == play(mixture, num_envs=5)


def test_a_state_begins_anew_with_each_episode_and_is_never_shared():
    task = short_cart_pole()
    policy = Accumulating(task)
    played = play(policy, {"itself": policy})
    for steps in played.values():
        total = np.cumsum(np.stack([np.frombuffer(step[0], np.float32) for step in steps]), axis=0, dtype=np.float32)
        expected = hand_made_teacher(task)(total)[0].raw
        torch.testing.assert_close(torch.tensor([step[2]["itself"] for step in steps]), expected)
    assert played == play(policy, {"itself": policy}, num_envs=1)


def test_a_labeller_with_a_memory_sees_every_step_even_where_it_is_asked_rarely(teacher):
    policy = Accumulating(short_cart_pole())
    often, rarely = play(teacher, {"a": policy}), play(teacher, {"a": policy}, label_period=4)
    for episode, steps in often.items():
        assert [step[2] for step in steps[::4]] == [step[2] for step in rarely[episode][::4]]


@pytest.mark.parametrize("per", ["decision", "episode"])
def test_wound_forward_states_and_mixtures_go_on_as_they_would_have(teacher, per):
    task = short_cart_pole()
    policy = Accumulating(task)
    mixture = Mixture(teacher, hand_made_teacher(kind="logits", behaviour="sample"), 0.5, per)
    for actor in (policy, mixture):
        whole = play(actor, {"label": policy}, epsilon=0.2)
        lengths = {1: 9, 3: 5, 4: 1}
        begun = {
            episode: BegunEpisode(
                np.array([step[1] for step in whole[episode][:length]]),
                np.frombuffer(whole[episode][length - 1][0], np.float32),
            )
            for episode, length in lengths.items()
        }
        envs = task.make_envs(3, 1)
        player = EpisodePlayer(
            actor, envs, itertools.repeat(0, 0), seed=SEED, exploration_epsilon=0.2, labellers={"label": policy}
        )
        assert player.wind_forward(begun) == []
        rest: dict[int, list] = {}
        for step in player.play():
            for row, episode in enumerate(step.episodes.tolist()):
                label = {"label": tuple(step.labels["label"].raw[row].tolist())}
                rest.setdefault(episode, []).append((step.observations[row].tobytes(), int(step.actions[row]), label))
        envs.close()
        assert rest == {episode: whole[episode][length:] for episode, length in lengths.items()}
