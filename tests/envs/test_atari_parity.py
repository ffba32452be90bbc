"""Frames, rewards, ends and lives equal those of Gymnasium's own Atari wrappers, pixel for pixel.

The reference starts from the same seed with as many no-ops as ours reports, and takes the same random actions.
"""

import ale_py
import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

from rldistill.envs import make_task

NUM_STEPS = 2000
# Asteroids and Space Invaders draw some objects on every other frame only.
GAMES = ["pong", "breakout", "seaquest", "ms_pacman", "space_invaders", "asteroids"]


class NoopStart(gymnasium.Wrapper):
    """Begins each episode with `num_noops` single frames without action."""

    num_noops = 0

    def reset(self, **options):
        observation, info = self.env.reset(**options)
        for _ in range(self.num_noops):
            observation, _, _, _, info = self.env.step(0)
        return observation, info


def make_reference(game):
    start = NoopStart(ale_py.AtariEnv(game, obs_type="grayscale", frameskip=1, repeat_action_probability=0.0))
    processed = AtariPreprocessing(start, noop_max=0, frame_skip=4, screen_size=84)
    return start, FrameStackObservation(processed, 4, padding_type="zero")


@pytest.mark.parametrize("game", GAMES)
def test_play_equals_gymnasiums_preprocessing_over_2000_steps_and_an_episodes_end(game):
    task = make_task(f"atari:{game}")
    ours = task.make_envs(1, 1)
    start, reference = make_reference(game)
    rng = np.random.default_rng(0)
    num_ends, seed, step = 0, 0, 0
    begin = True
    while step < NUM_STEPS or not num_ends:
        if begin:
            seed += 1
            observation = ours.reset([0], [seed])[0]
            start.num_noops = int(ours.start_ids()[0])
            expected, _ = reference.reset(seed=seed)
            np.testing.assert_array_equal(observation, expected, err_msg=f"first observation of seed {seed}")
        action = rng.integers(task.task.fingerprint.action_layout.sizes[0])
        got = ours.step(np.array([action]))
        expected, reward, terminated, truncated, info = reference.step(action)
        np.testing.assert_array_equal(got.observations[0], expected, err_msg=f"step {step}, seed {seed}")
        assert (got.rewards[0], got.terminated[0], got.truncated[0]) == (reward, terminated, truncated)
        assert got.lives[0] == info["lives"]
        begin = terminated or truncated
        num_ends += begin
        step += 1
    ours.close()


def test_fire_at_reset_presses_fire_for_one_frame_before_the_no_ops():
    task = make_task("atari:breakout", {"fire_at_reset": True})
    ours = task.make_envs(1, 1)
    observation = ours.reset([0], [1])[0]
    num_frames = int(ours.start_ids()[0])
    start, reference = make_reference("breakout")
    start.reset = lambda **_: (None, {})  # the wrappers read the screen where this leaves it
    start.unwrapped.reset(seed=1)
    start.unwrapped.step(task.task.fingerprint.action_set.index("FIRE"))
    for _ in range(num_frames - 1):
        start.unwrapped.step(0)
    expected, _ = reference.reset()
    np.testing.assert_array_equal(observation, expected)
    for _ in range(20):
        np.testing.assert_array_equal(ours.step(np.array([0])).observations[0], reference.step(0)[0])
    ours.close()
