"""Atari as slots that are reset by seed: what an episode depends on, its limits, and the games that are refused."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from ale_py import roms

from rldistill.envs import atari, make_task
from rldistill.envs.atari import MULTI_PLAYER_GAMES, AtariEnvs, AtariOptions, atari_settings, atari_task
from rldistill.errors import MismatchError, TaskError, UsageError

EIGHT_GAMES = {
    "pong": 6,
    "breakout": 4,
    "freeway": 3,
    "seaquest": 18,
    "ms_pacman": 9,
    "qbert": 6,
    "space_invaders": 6,
    "enduro": 9,
}
PLAYABLE_GAMES = sorted(set(roms.get_all_rom_ids()) - MULTI_PLAYER_GAMES)


def make_envs(game, num_envs=1, num_threads=1, **options):
    return make_task(f"atari:{game}", options).make_envs(num_envs, num_threads)


def play_slot(envs, slot, seed, actions):
    """Play an episode in one slot, whatever the others do; return its observations and rewards."""
    other_actions = np.random.default_rng(slot).integers(0, 4, (len(actions), envs.num_envs))
    other_actions[:, slot] = actions
    observations = [envs.reset([slot], [seed])[slot]]
    rewards = []
    for row in other_actions:
        step = envs.step(row)
        observations.append(step.observations[slot])
        rewards.append(step.rewards[slot])
        if step.ended[slot]:
            break
    return np.stack(observations), np.array(rewards)


@pytest.fixture(scope="module")
def reference_episode():
    """Demon Attack, seed 7, alone in one slot: its actions, observations and rewards."""
    actions = np.random.default_rng(0).integers(0, 6, 60)
    envs = make_envs("demon_attack")
    observations, rewards = play_slot(envs, 0, 7, actions)
    envs.close()
    assert rewards.sum() > 0, "an episode without rewards would compare little"
    return actions, observations, rewards


@pytest.mark.parametrize(("num_envs", "num_threads", "slot"), [(1, 1, 0), (3, 1, 2), (3, 2, 0), (5, 4, 3)])
def test_an_episode_depends_on_its_seed_and_not_on_slot_number_of_envs_or_threads(
    reference_episode, num_envs, num_threads, slot
):
    actions, observations, rewards = reference_episode
    envs = make_envs("demon_attack", num_envs, num_threads)
    envs.reset(range(num_envs), range(100, 100 + num_envs))
    for _ in range(3):
        envs.step(np.zeros(num_envs, np.int64))
    got_observations, got_rewards = play_slot(envs, slot, 7, actions)
    np.testing.assert_array_equal(got_observations, observations)
    np.testing.assert_array_equal(got_rewards, rewards)
    envs.close()


@pytest.mark.parametrize("num_idle_steps", [0, 1, 6])
def test_an_episode_does_not_depend_on_how_far_its_slot_was_stepped_past_an_end(reference_episode, num_idle_steps):
    actions, observations, _ = reference_episode
    envs = make_envs("demon_attack", max_frames=80)
    envs.reset([0], [3])
    ended = False
    while not ended:
        ended = bool(envs.step(np.array([1])).ended[0])
    for _ in range(num_idle_steps):
        envs.step(np.array([1]))
    got_observations, _ = play_slot(envs, 0, 7, actions)
    assert len(got_observations) == 21  # 80 frames, four a decision, after the first observation
    # A truncated episode's last frame is not compared: the emulator stops before it is drawn.
    np.testing.assert_array_equal(got_observations[:-1], observations[:20])
    envs.close()


@pytest.mark.parametrize(
    "options", [{}, {"frame_skip": 2, "width": 64}, {"full_action_set": True, "noop_max": 1, "fire_at_reset": True}]
)
def test_the_settings_of_a_task_make_it_again(options):
    assert atari_settings(atari_task("atari:pong", options)) == options


def test_seeds_belong_to_slots_in_the_order_they_are_given():
    envs = make_envs("breakout", 3)
    envs.reset([0, 1, 2], [10, 11, 12])
    expected = envs.start_ids()
    envs.reset([2, 0, 1], [12, 10, 11])
    assert len(set(expected)) == 3
    np.testing.assert_array_equal(envs.start_ids(), expected)
    envs.close()


def test_resetting_a_slot_leaves_the_others_as_they_are():
    envs = make_envs("pong", 3)
    envs.reset([0, 1, 2], [1, 2, 3])
    before = envs.step(np.zeros(3, np.int64)).observations
    after = envs.reset([1], [9])
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
    assert not np.array_equal(after[1], before[1])
    envs.close()


def test_what_was_returned_is_not_changed_by_later_steps_and_resets():
    envs = make_envs("pong", 2)
    first = envs.reset([0, 1], [1, 2])
    step = envs.step(np.array([2, 3]))
    kept = [first, step.observations, step.rewards, step.terminated, step.truncated, step.lives]
    copies = [array.copy() for array in kept]
    for _ in range(30):
        envs.step(np.array([2, 3]))
    envs.reset([1], [5])
    for array, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    envs.close()


def test_an_unseeded_reset_begins_a_new_episode():
    envs = make_envs("breakout")
    envs.reset([0], [1])
    starts = set()
    for _ in range(10):
        observations = envs.reset([0], None)
        starts.add(int(envs.start_ids()[0]))
        assert not observations[0, :3].any()
    assert len(starts) > 3
    envs.close()


def test_the_stack_is_padded_with_zeros_at_the_start():
    envs = make_envs("pong")
    observation = envs.reset([0], [1])[0]
    assert [bool(frame.any()) for frame in observation] == [False, False, False, True]
    envs.close()


@pytest.mark.parametrize(("max_frames", "num_decisions"), [(40, 10), (41, 11), (44, 11)])
def test_an_episode_is_truncated_at_max_frames_not_counting_the_no_ops(max_frames, num_decisions):
    envs = make_envs("pong", max_frames=max_frames)
    envs.reset([0], [1])
    assert envs.start_ids()[0] > 0
    steps = [envs.step(np.array([0])) for _ in range(num_decisions)]
    assert [bool(step.truncated[0]) for step in steps] == [False] * (num_decisions - 1) + [True]
    assert not any(step.terminated[0] for step in steps)
    assert steps[-1].ended[0]
    envs.close()


@pytest.mark.parametrize(("noop_max", "expected"), [(0, {0}), (1, {0}), (3, {0, 1, 2})])
def test_no_ops_number_from_0_to_one_less_than_the_maximum(noop_max, expected):
    envs = make_envs("pong", noop_max=noop_max)
    envs.reset([0], [0])
    starts = set()
    for _ in range(30):
        envs.reset([0], None)
        starts.add(int(envs.start_ids()[0]))
    assert starts == expected
    envs.close()


def test_starts_cannot_be_enumerated_with_sticky_actions():
    envs = make_envs("pong", sticky_action_probability=0.25)
    envs.reset([0], [1])
    assert envs.start_ids() is None
    envs.close()


def test_a_lost_life_does_not_end_the_episode():
    envs = make_envs("breakout", fire_at_reset=True)
    envs.reset([0], [1])
    lives = [5]
    while lives[-1] > 3:
        step = envs.step(np.array([1]))  # only ever fires: the paddle stands still
        lives.append(int(step.lives[0]))
        assert not step.ended[0]
    assert sorted(set(lives)) == [3, 4, 5]
    envs.close()


def test_rewards_are_raw_scores():
    envs = make_envs("ms_pacman")
    envs.reset([0], [1])
    rewards = [float(envs.step(np.array([3])).rewards[0]) for _ in range(80)]
    assert 10.0 in rewards  # a dot
    assert envs.step(np.array([0])).rewards.dtype == np.float64
    envs.close()


def test_colour_for_films_shows_the_same_play():
    task = make_task("atari:pong").task
    colour, grey = AtariEnvs(task, 1, num_threads=1, grayscale=False), AtariEnvs(task, 1, num_threads=1)
    assert colour.reset([0], [1]).shape == (1, 4, 84, 84, 3)
    grey.reset([0], [1])
    for action in np.random.default_rng(0).integers(0, 6, 40):
        seen, expected = colour.step(np.array([action])), grey.step(np.array([action]))
    # Greyness is the usual weighting of red, green and blue; where something moved, the maximum of two frames differs.
    weighted = seen.observations[0] @ np.array([0.299, 0.587, 0.114])
    assert (np.abs(weighted - expected.observations[0]) > 2).mean() < 0.002
    colour.close()
    grey.close()


def test_the_task_records_what_a_network_sees_and_the_papers_protocol():
    task = make_task("atari:pong").task
    fingerprint, protocol = task.fingerprint, task.protocol
    assert fingerprint.action_set == ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")
    assert (fingerprint.observation_shape, fingerprint.observation_dtype) == ((4, 84, 84), "uint8")
    assert (fingerprint.frame_stack, fingerprint.stack_padding, fingerprint.frame_skip) == (4, "zero", 4)
    assert fingerprint.grayscale is fingerprint.max_pool is True
    assert (protocol.noop_max, protocol.max_frames, protocol.exploration_epsilon) == (30, 108_000, 0.05)
    assert (protocol.fire_at_reset, protocol.sticky_action_probability) == (False, 0.0)


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"height": 42, "width": 63}, {"observation_shape": (4, 42, 63)}),
        ({"frame_stack": 2}, {"observation_shape": (2, 84, 84), "frame_stack": 2}),
        ({"grayscale": False}, {"observation_shape": (4, 84, 84, 3), "grayscale": False}),
        ({"frame_skip": 2}, {"frame_skip": 2}),
        ({"max_pool": False}, {"max_pool": False}),
    ],
)
def test_options_of_preprocessing_change_the_fingerprint_and_the_frames(options, changed):
    plain, other = make_task("atari:pong"), make_task("atari:pong", options)
    assert other.task.fingerprint == replace(plain.task.fingerprint, **changed)
    assert other.task.protocol == plain.task.protocol
    envs = other.make_envs(1, 1)
    observations = envs.reset([0], [1])
    assert observations.shape == (1, *other.task.fingerprint.observation_shape)
    assert envs.step(np.array([2])).observations.shape == observations.shape
    envs.close()


@pytest.mark.parametrize(
    "options",
    [
        {"noop_max": 3},
        {"max_frames": 400},
        {"fire_at_reset": True},
        {"sticky_action_probability": 0.25},
        {"exploration_epsilon": 0.5},
    ],
)
def test_options_of_the_protocol_leave_the_fingerprint_alone(options):
    plain, other = make_task("atari:pong").task, make_task("atari:pong", options).task
    assert other.fingerprint == plain.fingerprint
    assert other.protocol == replace(plain.protocol, **options)


def test_the_full_action_set_has_18_actions_that_are_played():
    task = make_task("atari:pong", {"full_action_set": True})
    assert task.task.fingerprint.action_layout.sizes[0] == len(task.task.fingerprint.action_set) == 18
    envs = task.make_envs(1, 1)
    envs.reset([0], [1])
    envs.step(np.array([17]))
    envs.close()


@pytest.mark.parametrize("action", [-1, 6])
def test_an_action_that_the_game_does_not_have_is_refused(action):
    envs = make_envs("pong", 2)
    envs.reset([0, 1], [1, 2])
    with pytest.raises(ValueError, match=rf"^actions must lie in \[0, 6\), got \[0, {action}\]\.$"):
        envs.step(np.array([0, action]))
    envs.close()


def test_every_nth_decision_of_a_smaller_skip_equals_the_larger_one():
    one, four = make_envs("pong", frame_skip=1, max_pool=False), make_envs("pong", max_pool=False)
    one.reset([0], [1])
    four.reset([0], [1])
    for action in [2, 2, 3, 0, 3]:
        singles = [one.step(np.array([action])) for _ in range(4)]
        expected = four.step(np.array([action]))
        np.testing.assert_array_equal(singles[-1].observations[0, -1], expected.observations[0, -1])
    one.close()
    four.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frameskip": 4}, "Unknown Atari option: got 'frameskip', expected one of height, width, grayscale"),
        ({"frame_skip": 4.0}, r"Atari option 'frame_skip': got 4\.0, expected a int\."),
        ({"frame_skip": True}, r"Atari option 'frame_skip': got True, expected a int\."),
        ({"grayscale": 1}, r"Atari option 'grayscale': got 1, expected a bool\."),
        ({"max_frames": 2**31}, r"Atari option 'max_frames': got 2147483648, expected at most 2,147,483,647\."),
        ({"frame_skip": 0}, r"Atari option 'frame_skip': got 0, expected a positive number\."),
        ({"noop_max": -1}, r"Atari option 'noop_max': got -1, expected a positive number\."),
        ({"sticky_action_probability": 1.5}, r"sticky_action_probability must lie in \[0, 1\], got 1\.5\."),
        ({"exploration_epsilon": float("nan")}, r"exploration_epsilon must lie in \[0, 1\], got nan\."),
    ],
)
def test_a_wrong_option_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        make_task("atari:pong", options)


def test_whole_numbers_may_stand_where_fractions_are_expected():
    assert AtariOptions.from_kwargs({"exploration_epsilon": 1}).exploration_epsilon == 1


@pytest.mark.parametrize(
    ("game", "suggested"),
    [
        ("Pong", "pong"),
        ("SpaceInvaders", "space_invaders"),
        ("space-invaders", "space_invaders"),
        ("SpaceInvadersNoFrameskip-v4", "space_invaders"),
        ("ALE/MsPacman-v5", "ms_pacman"),
        ("breakot", "breakout"),
    ],
)
def test_another_spelling_is_refused_with_the_right_one(game, suggested):
    with pytest.raises(TaskError) as caught:
        make_task(f"atari:{game}")
    assert str(caught.value) == (
        f"Unknown Atari game: got {game!r}, expected ale-py's name of a game, such as space_invaders. "
        f"Did you mean atari:{suggested}?"
    )


@pytest.mark.parametrize("game", ["", "xyzzyqqq"])
def test_a_game_like_no_other_is_refused_without_a_suggestion(game):
    with pytest.raises(TaskError, match=r"such as space_invaders\.$"):
        make_task(f"atari:{game}")


@pytest.mark.parametrize("game", sorted(MULTI_PLAYER_GAMES))
def test_games_for_two_are_refused(game):
    with pytest.raises(TaskError) as caught:
        make_task(f"atari:{game}")
    assert str(caught.value) == (
        f"Atari game {game!r} needs two players, which is not supported. "
        "Among those that play alone: atari:pong, atari:boxing, atari:tennis."
    )


def test_a_recorded_task_of_a_game_for_two_is_refused_before_it_ends_the_process():
    task = replace(make_task("atari:pong").task, name="atari:combat")
    with pytest.raises(TaskError, match="needs two players"):
        make_task(task).make_envs(1, 1)


def test_a_recorded_action_set_that_the_game_does_not_have_is_refused():
    pong = make_task("atari:pong").task
    swapped = replace(pong.fingerprint, action_set=("FIRE", "NOOP", *pong.fingerprint.action_set[2:]))
    with pytest.raises(MismatchError, match=r"atari:pong.*FIRE/NOOP/RIGHT.*NOOP/FIRE/RIGHT"):
        make_task(replace(pong, fingerprint=swapped)).make_envs(1, 1)


@pytest.mark.parametrize(("game", "num_actions"), EIGHT_GAMES.items())
def test_a_game_is_a_task_with_its_minimal_action_set(game, num_actions):
    fingerprint = make_task(f"atari:{game}").task.fingerprint
    assert fingerprint.action_layout.sizes == (num_actions,)
    assert fingerprint.action_set[0] == "NOOP"
    assert len(set(fingerprint.action_set)) == num_actions


_PLAY_EVERY_GAME = """
import sys
import numpy as np
from rldistill.envs import make_task
for game in sys.argv[1:]:
    task = make_task("atari:" + game)
    envs = task.make_envs(1, 1)
    assert envs.reset([0], [0]).shape == (1, *task.task.fingerprint.observation_shape)
    for action in range(task.task.fingerprint.action_layout.sizes[0]):
        envs.step(np.array([action]))
    envs.close()
    print(game)
"""


@pytest.mark.slow
def test_every_game_for_one_is_a_task_and_plays_all_its_actions():
    # In a process of its own: a game that ends its process from C++ must not end the tests.
    command = [sys.executable, "-W", "error", "-c", _PLAY_EVERY_GAME, *PLAYABLE_GAMES]
    completed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert completed.stdout.split() == PLAYABLE_GAMES, completed.stderr
    assert len(PLAYABLE_GAMES) == 104


def test_a_game_is_loaded_once_for_the_names_of_its_actions():
    atari._action_sets.cache_clear()
    for full_action_set in (False, True):
        make_envs("pong", full_action_set=full_action_set).close()
    assert atari._action_sets.cache_info().misses == 1
