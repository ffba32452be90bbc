"""A teacher that sees the state of Pendulum, and a student that sees its last four pictures.

    python examples/pixels_from_state.py

One core, 16,000 steps; training seed 0, 30 fresh episodes of evaluation seed 1, 95 % intervals:

    swing_up, from the state                         -143 [-170, -119]
    conv:8-8:32 (4,177 parameters), from pictures    -153 [-187, -123], keeps 0.990 [0.977, 1.000]
"""

import sys

import gymnasium
import numpy as np
from gymnasium import spaces

import rldistill as rd

SIZE, FRAMES = 32, 4
ACROSS, UP = np.meshgrid(np.linspace(-1.2, 1.2, SIZE), np.linspace(1.2, -1.2, SIZE))


class SeenPendulum(gymnasium.ObservationWrapper):
    """Pendulum with its state and its last four pictures, newest last; drawn here, since pygame takes 4 ms for one."""

    def __init__(self) -> None:
        super().__init__(gymnasium.make("Pendulum-v1"))
        camera = spaces.Box(0, 255, (FRAMES, SIZE, SIZE), np.uint8)
        self.observation_space = spaces.Dict({"camera": camera, "state": self.env.observation_space})

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        """Draw a state, and show it with its picture and those before it."""
        cos, sin, _ = observation
        beside, along = np.abs(UP * sin + ACROSS * cos), UP * cos - ACROSS * sin
        frame = (255 * np.clip((0.2 - beside) / 0.1, 0, 1) * ((along > 0) & (along < 1))).astype(np.uint8)
        if self.unwrapped.last_u is None:  # nothing was done yet: an episode begins
            self._frames = [frame] * FRAMES
        self._frames = [*self._frames[1:], frame]
        return {"camera": np.stack(self._frames), "state": observation}


def swing_up(state: np.ndarray) -> np.ndarray:
    """Pump energy until the rod stands up, then hold it: cos, sin and speed [B, 3] to a torque [B, 1]."""
    cos, sin, speed = state[:, 0:1], state[:, 1:2], state[:, 2:3]
    energy = speed**2 / 6 + 5 * cos - 5  # 0 for a rod that stands still upright
    return np.where(cos > 0.9, -15 * sin - 3 * speed, np.where(energy * speed > 0, -2.0, 2.0)).clip(-2, 2)


def main(num_updates: int = 4_000, num_episodes: int = 30, collect_steps: int = 2_000) -> None:
    teacher = rd.load_policy(swing_up, task="Pendulum-v1", outputs="actions")
    play = {"collect_steps": collect_steps, "collect_period": 500, "teacher_fraction": "linear:1->0@0.3"}
    source = rd.Live(teacher, SeenPendulum, teacher_sees="state", **play)
    training = {"num_updates": num_updates, "batch_size": 64, "learning_rate": "linear:2e-3->1e-4"}
    student = rd.distill(source, student="conv:8-8:32", student_sees="camera", out="runs/pixels", **training)
    print(rd.evaluate(student, SeenPendulum, teacher=teacher, teacher_sees="state", num_episodes=num_episodes, seed=1))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
