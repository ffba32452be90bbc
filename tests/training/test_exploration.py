"""Random actions that last: how long, when a stretch ends, and what is played between."""

import numpy as np
import pytest
import torch

import rldistill as rd
from rldistill.errors import UsageError
from rldistill.training.exploration import Exploration
from tests.kit.scripted_envs import identity_q, moments
from tests.training.test_stream import make_stream

# Stretches of an exponent near 1 are as good as endless: one in a hundred lasts one step.
ENDLESS = 1.01


def choices(exploration, num_steps, epsilon, *, num_envs=1, num_actions=1000):
    """Actions `[num_steps, num_envs]` where greedy play always takes action 0."""
    rng, q_values = np.random.default_rng(1), torch.zeros(num_envs, num_actions)
    return np.stack([exploration.choose(q_values, epsilon, rng) for _ in range(num_steps)])


def stretches(actions):
    """Lengths of the stretches of equal actions."""
    ends = np.flatnonzero(np.append(np.diff(actions) != 0, True))
    return np.diff(ends, prepend=-1)


def test_stretches_have_the_lengths_of_a_zeta_distribution():
    lengths = stretches(choices(Exploration(1, 2.0), 20_000, 1.0)[:, 0])
    # P(n) = n^-2 / (pi^2 / 6): 0.608 last one step, 0.152 two, 0.038 four.
    assert [np.mean(lengths == n) for n in (1, 2, 4)] == pytest.approx([0.608, 0.152, 0.038], abs=0.03)
    assert lengths.max() > 100


def test_without_an_exponent_random_actions_last_one_step():
    assert stretches(choices(Exploration(1, None), 500, 1.0)[:, 0]).max() == 1


def test_epsilon_is_the_chance_that_a_stretch_begins():
    actions = choices(Exploration(200, ENDLESS), 1, 0.25, num_envs=200)
    assert np.mean(actions != 0) == pytest.approx(0.25, abs=0.1)


def test_a_stretch_goes_on_where_nothing_random_begins_any_more():
    exploration = Exploration(1, ENDLESS)
    begun = choices(exploration, 1, 1.0)[0, 0]
    assert begun != 0
    assert set(choices(exploration, 20, 0.0)[:, 0]) == {begun}


def test_stop_ends_the_stretches_of_the_named_environments():
    exploration = Exploration(2, ENDLESS)
    _, kept = choices(exploration, 1, 1.0, num_envs=2)[0]
    exploration.stop([0])
    assert choices(exploration, 1, 0.0, num_envs=2)[0].tolist() == [0, kept]


def test_a_stretch_ends_with_the_game():
    stream, _ = make_stream([moments(*[0.0] * 5)] * 8, repeat_exponent=ENDLESS)
    played = stream.rollout(identity_q, 40, exploration_epsilon=1.0, rng=np.random.default_rng(1)).actions[:, 0]
    games = [set(game.tolist()) for game in played.reshape(8, 5)]
    assert all(len(game) == 1 for game in games)
    assert set.union(*games) == {0, 1}


def test_an_exponent_of_one_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"repeat_exponent must be > 1, got 1\.0\."):
        rd.train_teacher("CartPole-v1", out=tmp_path / "run", repeat_exponent=1)


@pytest.mark.parametrize("algorithm", ["pqn", "dqn"])
def test_training_repeats_random_actions(tmp_path, algorithm):
    """The runs differ in nothing but what is explored: poles fall sooner where one push lasts."""
    options = {"num_steps": 1024, "exploration_end": 1.0, "algorithm": algorithm, "num_threads": 1}
    options |= {"learning_starts": 512} if algorithm == "dqn" else {}
    plain, repeating = (
        rd.train_teacher("CartPole-v1", out=tmp_path / name, repeat_exponent=exponent, **options).mean_score
        for name, exponent in (("plain", None), ("repeating", 1.5))
    )
    assert repeating < 0.8 * plain
