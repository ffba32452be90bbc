# ruff: noqa: D102, ANN401 - the methods and their results are those of Gymnasium

"""Two published walking robots as Gymnasium environments: the Go1 quadruped and the G1 humanoid's legs.

The policies that walk them and G1's model are other people's files in a folder that `ROBOTS` names
(`../shared/teachers/robots`); Go1's model comes with `pip install --no-deps playground` and is read as data.

    PYTHONPATH=scripts rldistill evaluate $ROBOTS/go1_policy.onnx --task robots:Go1-v0
"""

import functools
import importlib.util
import math
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

Vector = NDArray[np.float64]
CONTROL_STEP = 0.02  # seconds: both decide 50 times a second
EPISODE_STEPS = 500


class Go1(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """A quadruped follows a velocity command that changes every five seconds, in the mean.

    Observations are 48 numbers: linear velocity (3, m/s, body frame; a real Go1 cannot measure it), angular velocity
    (3, rad/s), gravity direction (3), joint angles from home (12, rad), joint velocities (12, rad/s), last action (12),
    command (3: m/s, m/s, rad/s). Actions are 12 targets in [-1, 1], half a radian around home. A decision is worth at
    most 1.5; an episode has 500 decisions and ends early when the body lies on its back.

    Args:
        command_period: decisions after which the command changes, in the mean.
    """

    observation_space = Box(-np.inf, np.inf, (48,), np.float32)
    action_space = Box(-1.0, 1.0, (12,), np.float32)
    metadata = {"render_modes": []}  # noqa: RUF012 (as in Gymnasium)
    command_range = np.array([1.5, 0.8, 1.2])

    def __init__(self, command_period: float = 250) -> None:
        self.command_period = command_period
        self.model = go1_model()
        self.data = mujoco.MjData(self.model)
        self.home = self.model.key("home").qpos[7:].copy()
        self.steps_per_decision = round(CONTROL_STEP / self.model.opt.timestep)
        self.last_action = self.command = np.zeros(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        mujoco.mj_resetDataKeyframe(self.model, self.data, self.model.key("home").id)
        self.data.qvel[:6] = self.np_random.uniform(-0.5, 0.5, 6)
        self.last_action = np.zeros(12)
        self.command = self.np_random.uniform(-self.command_range, self.command_range)
        mujoco.mj_forward(self.model, self.data)
        return self._observation(), {}

    def step(self, action: NDArray[np.float32]) -> Any:
        self.data.ctrl[:] = 0.5 * action + self.home
        mujoco.mj_step(self.model, self.data, self.steps_per_decision)
        self.last_action = np.asarray(action, np.float64)
        off = self.command - [*self._sensor("local_linvel")[:2], self._sensor("gyro")[2]]
        reward = math.exp(-float(off[:2] @ off[:2]) / 0.25) + 0.5 * math.exp(-float(off[2] ** 2) / 0.25)
        fallen = bool(self._sensor("upvector")[2] < 0)
        if self.np_random.random() < 1 / self.command_period:
            self.command = self.np_random.uniform(-self.command_range, self.command_range)
        return self._observation(), reward, fallen, False, {"is_success": not fallen}

    def _sensor(self, name: str) -> Vector:
        return self.data.sensor(name).data

    def _observation(self) -> NDArray[np.float32]:
        gravity = -self.data.site("imu").xmat.reshape(3, 3)[2]  # R transposed times (0, 0, -1)
        return np.concatenate(
            [
                *(self._sensor("local_linvel"), self._sensor("gyro"), gravity),
                *(self.data.qpos[7:] - self.home, self.data.qvel[6:], self.last_action, self.command),
            ]
        ).astype(np.float32)


class G1(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """A humanoid's legs follow one of four commands; the policy's own clock gives the rhythm of its steps.

    Observations are 47 numbers: angular velocity / 4 (3), gravity direction (3), command (3, scaled by 2, 2, 1/4),
    joint angles from their defaults (12), joint velocities / 20 (12), last action (12), sine and cosine of the phase
    (2). Actions are 12 targets, a quarter of a radian each around the defaults, without bounds of their own. A decision
    without a fall is worth 1; an episode has 500. `reset(options={"command": 0})` names the command, and
    `info["velocity"]` is the body's velocity over the ground (m/s).
    """

    observation_space = Box(-np.inf, np.inf, (47,), np.float32)
    action_space = Box(-10.0, 10.0, (12,), np.float32)
    metadata = {"render_modes": []}  # noqa: RUF012
    commands = np.array([[0.5, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.3, 0.0], [0.0, 0.0, 0.5]])
    stiffness = np.array([100.0, 100, 100, 150, 40, 40] * 2)
    damping = np.array([2.0, 2, 2, 4, 2, 2] * 2)
    default = np.array([-0.1, 0, 0, 0.3, -0.2, 0] * 2)

    def __init__(self) -> None:
        self.model = without_meshes(Path(os.environ["ROBOTS"]) / "g1_12dof.xml", floor="0 0 0.05")
        self.data = mujoco.MjData(self.model)
        self.last_action = self.command = np.zeros(0)
        self.decisions = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        # Nothing else is drawn by its makers: small velocities make episodes differ.
        self.data.qvel[:6] = self.np_random.uniform(-0.1, 0.1, 6)
        chosen = self.np_random.integers(len(self.commands))
        self.command = self.commands[(options or {}).get("command", chosen)]
        self.last_action = np.zeros(12)
        self.decisions = 0
        mujoco.mj_forward(self.model, self.data)
        return self._observation(), {}

    def step(self, action: NDArray[np.float32]) -> Any:
        self.last_action = np.asarray(action, np.float64)
        target = 0.25 * self.last_action + self.default
        for _ in range(round(CONTROL_STEP / self.model.opt.timestep)):
            self.data.ctrl[:] = (target - self.data.qpos[7:]) * self.stiffness - self.data.qvel[6:] * self.damping
            mujoco.mj_step(self.model, self.data)
        self.decisions += 1
        fallen = bool(self._rotation()[2, 2] < 0.5 or self.data.qpos[2] < 0.5)
        velocity = self._rotation().T @ self.data.qvel[:3]
        return self._observation(), 1.0, fallen, False, {"velocity": velocity, "command": self.command.copy()}

    def _rotation(self) -> Vector:
        return self.data.body("pelvis").xmat.reshape(3, 3)

    def _observation(self) -> NDArray[np.float32]:
        phase = 2 * math.pi * (self.decisions * CONTROL_STEP % 0.8) / 0.8
        return np.concatenate(
            [
                *(self.data.qvel[3:6] * 0.25, -self._rotation()[2], self.command * [2, 2, 0.25]),
                *(self.data.qpos[7:] - self.default, self.data.qvel[6:] * 0.05, self.last_action),
                [math.sin(phase), math.cos(phase)],
            ]
        ).astype(np.float32)


def go1_model() -> mujoco.MjModel:
    """Read Go1's model from the installed `playground`, whose own Python needs JAX and isn't imported."""
    package = importlib.util.find_spec("mujoco_playground")
    if package is None or not package.submodule_search_locations:
        raise gymnasium.error.DependencyNotInstalled("the Go1's model: pip install --no-deps playground")
    folder = Path(package.submodule_search_locations[0]) / "_src/locomotion/go1/xmls"
    return without_meshes(folder / "scene_mjx_feetonly_flat_terrain.xml")


@functools.cache
def without_meshes(path: Path, floor: str | None = None) -> mujoco.MjModel:
    """Compile a MuJoCo model without its meshes, which are for the eye only, and with a floor where it has none.

    Environments share it: what changes is in their `MjData`.
    """
    root = ElementTree.parse(path).getroot()
    for include in root.findall("include"):
        at = list(root).index(include)
        root.remove(include)
        root[at:at] = list(ElementTree.parse(path.parent / include.attrib["file"]).getroot())
    for parent in list(root.iter()):
        for child in [c for c in parent if c.tag == "mesh" or (c.tag == "geom" and "mesh" in c.attrib)]:
            parent.remove(child)
    if floor is not None:
        ElementTree.SubElement(root.find("worldbody"), "geom", name="floor", type="plane", size=floor)  # pyright: ignore
    return mujoco.MjModel.from_xml_string(ElementTree.tostring(root, encoding="unicode"))


gymnasium.register("Go1-v0", entry_point=Go1, max_episode_steps=EPISODE_STEPS)
gymnasium.register("G1-v0", entry_point=G1, max_episode_steps=EPISODE_STEPS)
