"""The learner's stream against scripts: what is clipped, where discounts are cut, what is bootstrapped, what is told.

Observations are 100 · episode + step and `identity_q` gives them back as values, so every bootstrap tells its origin.
"""

import numpy as np
import pytest
import torch

from rldistill.envs import make_task
from rldistill.training.stream import TrainingStream
from tests.kit.scripted_envs import Moment, ScriptedEnvs, identity_q, moments

GAMMA = 0.5


def make_stream(*scripts, with_lives=False, first_seed=0, **options):
    envs = ScriptedEnvs(*scripts, with_lives=with_lives)
    return TrainingStream(envs, 2, first_seed=first_seed, gamma=GAMMA, **options), envs


def roll(stream, length, *, exploration_epsilon=0.0, q_function=identity_q):
    return stream.rollout(q_function, length, exploration_epsilon=exploration_epsilon, rng=np.random.default_rng(0))


def column(tensor, slot=0):
    return tensor[:, slot].tolist()


def test_rewards_are_clipped_to_one_in_both_directions():
    stream, _ = make_stream([moments(0.25, -7.0, 100.0, 1.0, -1.0)])
    assert column(roll(stream, 5).rewards) == [0.25, -1.0, 1.0, 1.0, -1.0]


def test_rewards_stay_raw_where_clipping_is_off():
    stream, _ = make_stream([moments(0.25, -7.0, 100.0)], clip_rewards=False)
    assert column(roll(stream, 3).rewards) == [0.25, -7.0, 100.0]


def test_scores_are_raw_and_of_whole_games():
    stream, _ = make_stream([moments(10.0, -3.0), moments(5.0, 5.0, 0.5), moments(1.0, 1.0)])
    assert roll(stream, 6).scores == (7.0, 10.5)


def test_a_game_longer_than_a_rollout_is_reported_by_the_one_in_which_it_ends():
    stream, _ = make_stream([moments(1.0, 2.0, 3.0, 4.0, 5.0), moments(0.0, 0.0)])
    scores = [roll(stream, 2).scores for _ in range(3)]
    assert scores == [(), (), (15.0,)]


def test_games_of_all_slots_are_reported():
    stream, _ = make_stream([moments(1.0), moments(2.0)], [moments(3.0, 4.0)])
    assert set(roll(stream, 2).scores) == {1.0, 2.0, 7.0}


def test_discounts_are_gamma_and_zero_where_a_game_ended():
    stream, _ = make_stream([moments(0.0, 0.0), moments(0.0, 0.0, 0.0)])
    assert column(roll(stream, 4).discounts) == [GAMMA, 0.0, GAMMA, GAMMA]


def test_a_lost_life_cuts_the_discount_while_the_game_goes_on():
    game = [Moment(1.0, lives=lives) for lives in (3, 3, 2, 2, 1)] + [Moment(1.0, terminated=True, lives=0)]
    stream, envs = make_stream([game], with_lives=True)
    rollout = roll(stream, 6)
    assert column(rollout.discounts) == [GAMMA, GAMMA, 0.0, GAMMA, 0.0, 0.0]
    # The game went on to its end: one score, and observations that count on.
    assert rollout.scores == (6.0,)
    assert column(rollout.observations[..., 0]) == [0, 1, 2, 3, 4, 5]
    assert envs.resets == [([0], [0]), ([0], None)]


def test_lost_lives_count_for_nothing_where_that_habit_is_off():
    game = [Moment(lives=lives) for lives in (3, 2, 1)] + [Moment(terminated=True)]
    stream, _ = make_stream([game, moments(0.0)], with_lives=True, cut_at_life_loss=False)
    assert column(roll(stream, 4).discounts) == [GAMMA, GAMMA, GAMMA, 0.0]


def test_the_lives_of_a_new_game_are_not_compared_with_those_of_the_last():
    # One life left at the cut; the next game begins with fewer than the last began with.
    first = [Moment(lives=5), Moment(lives=4, truncated=True)]
    second = [Moment(lives=3), Moment(lives=3), Moment(lives=2), Moment(lives=2)]
    stream, _ = make_stream([first, second], with_lives=True)
    assert column(roll(stream, 5).discounts) == [GAMMA, 0.0, GAMMA, GAMMA, 0.0]


def test_an_extra_life_cuts_nothing():
    game = [Moment(lives=lives) for lives in (3, 4, 4)]
    stream, _ = make_stream([game], with_lives=True)
    assert column(roll(stream, 3).discounts) == [GAMMA] * 3


def test_every_step_bootstraps_from_the_state_it_led_to():
    stream, _ = make_stream([moments(0.0, 0.0, 0.0, 0.0)])
    assert column(roll(stream, 3).next_values) == [1.0, 2.0, 3.0]


def test_truncation_bootstraps_from_the_last_observation_and_not_from_the_next_games_first():
    stream, _ = make_stream([moments(0.0, 0.0, end="truncated"), moments(0.0, 0.0, 0.0)])
    rollout = roll(stream, 4)
    # The second step led to observation 2 of game 0; then game 1 began at observation 100.
    assert column(rollout.next_values) == [1.0, 2.0, 101.0, 102.0]
    assert column(rollout.observations[..., 0]) == [0.0, 1.0, 100.0, 101.0]
    assert column(rollout.truncated) == [False, True, False, False]
    assert column(rollout.discounts) == [GAMMA] * 4
    assert rollout.scores == (0.0,)


def test_truncation_in_one_slot_leaves_the_values_of_the_others():
    stream, _ = make_stream([moments(0.0, end="truncated"), moments(0.0, 0.0)], [moments(0.0, 0.0, 0.0)])
    rollout = roll(stream, 2)
    assert rollout.next_values.tolist() == [[1.0, 1.0], [101.0, 2.0]]
    assert rollout.truncated.tolist() == [[True, False], [False, False]]


def test_a_truncated_last_step_of_a_rollout_bootstraps_like_any_other():
    stream, _ = make_stream([moments(0.0, 0.0, end="truncated"), moments(0.0)])
    assert column(roll(stream, 2).next_values) == [1.0, 2.0]


def test_the_first_slot_begins_at_the_first_seed_and_new_games_go_on_unseeded():
    stream, envs = make_stream([moments(0.0), moments(0.0, 0.0)], [moments(0.0, 0.0)], first_seed=70)
    roll(stream, 1)
    assert envs.resets == [([0, 1], [70, 71]), ([0], None)]


def test_rollouts_follow_each_other_without_a_gap():
    stream, _ = make_stream([moments(0.0, 0.0, 0.0, 0.0, 0.0)])
    assert column(roll(stream, 2).observations[..., 0]) + column(roll(stream, 2).observations[..., 0]) == [0, 1, 2, 3]


def test_greedy_actions_are_taken_without_exploration():
    stream, envs = make_stream([moments(*[0.0] * 9)], [moments(*[0.0] * 9)])
    q_function = lambda observations: torch.tensor([[0.0, 1.0], [1.0, 0.0]])  # noqa: E731
    rollout = roll(stream, 3, q_function=q_function)
    assert envs.actions == rollout.actions.tolist() == [[1, 0]] * 3


def test_exploration_takes_its_share_of_the_actions():
    stream, _ = make_stream(*[[moments(*[0.0] * 600)]] * 4)
    rollout = roll(stream, 500, exploration_epsilon=0.4)
    # Greedy is 0; 40 % of 2,000 decisions are explored, half of them choose 1: 400 ± 18.
    assert 330 < int(rollout.actions.sum()) < 470


def test_full_exploration_ignores_the_q_values():
    stream, _ = make_stream([moments(*[0.0] * 600)])
    assert 200 < int(roll(stream, 500, exploration_epsilon=1.0).actions.sum()) < 300


def test_a_rollout_has_time_first_and_environments_second():
    stream, _ = make_stream(*[[moments(*[0.0] * 9)]] * 3)
    rollout = roll(stream, 5)
    assert rollout.observations.shape == (5, 3, 1)
    for field in ("actions", "rewards", "discounts", "next_values", "truncated"):
        assert getattr(rollout, field).shape == (5, 3), field
    assert (rollout.actions.dtype, rollout.rewards.dtype, rollout.truncated.dtype) == (
        torch.int64,
        torch.float32,
        torch.bool,
    )


@pytest.mark.parametrize("fire_at_reset", [False, True])
def test_on_breakout_several_lives_are_lost_within_a_game(fire_at_reset):
    # ale-py's own episodic life would begin a new game at the first lost life.
    envs = make_task("atari:breakout", {"fire_at_reset": fire_at_reset}).make_envs(1, 1)
    stream = TrainingStream(envs, 4, first_seed=0, gamma=GAMMA)
    rollout = stream.rollout(
        lambda observations: torch.zeros(len(observations), 4),
        250,
        exploration_epsilon=1.0,
        rng=np.random.default_rng(0),
    )
    envs.close()
    num_lives_lost = int((rollout.discounts == 0).sum())
    assert len(rollout.scores) >= 1
    assert num_lives_lost >= 5 * len(rollout.scores)
    # After a lost life the stack goes on: only a new game shows three empty frames.
    num_starts = sum(not bool(stack[:3].any()) for stack in rollout.observations[:, 0])
    assert num_starts == 1 + len(rollout.scores)
