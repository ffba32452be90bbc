"""Environments that can be filmed: played as always, while a screen shows the same in colour.

A network must see exactly what it sees in play, so the film is not made from its
observations. Atari runs a second emulator with the same seed and the same actions, in
colour and in the console's own resolution; a Gymnasium environment renders itself.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import ale_py
import gymnasium
import numpy as np
from ale_py import roms
from numpy.typing import NDArray

from rldistill.envs import EpisodeEnvs, PlayableTask
from rldistill.envs.atari import AtariEnvs
from rldistill.envs.extended import ExtendedEnvs, ObservationSettings
from rldistill.envs.gymnasium_envs import GymnasiumEnvs
from rldistill.envs.make import PYTHON_PREFIX
from rldistill.envs.protocol import StepBatch
from rldistill.envs.versions import older_versions_allowed
from rldistill.errors import RldistillError
from rldistill.tasks import Task
from rldistill.types import Actions

_ATARI_FRAMES_PER_SECOND = 60
_DEFAULT_FRAMES_PER_SECOND = 30


class FilmedEnvs(EpisodeEnvs, Protocol):
    """One slot with a screen."""

    @property
    def decisions_per_second(self) -> float:
        """Decisions in a second of the game's own time."""
        ...

    def frame(self) -> NDArray[np.uint8]:
        """Return what a person would see now, `[H, W, 3]`."""
        ...


def make_filmed_envs(playable: PlayableTask) -> FilmedEnvs:
    """Return one slot of a task, with a screen. Raises RldistillError: the task cannot be filmed; says why."""
    task = playable.task
    if task.is_atari:
        return _AtariScreen(task)
    if task.name.startswith(PYTHON_PREFIX) or playable.fixed_num_envs is not None:
        raise RldistillError(
            f"Task {task.name!r} cannot be filmed: it was given as a Python object, and a film makes its own "
            'environment with render_mode="rgb_array". Register it with Gymnasium and give its id.'
        )
    return _GymnasiumScreen(task)


class _AtariScreen:
    """An emulator for the policy and one for people, in step."""

    def __init__(self, task: Task) -> None:
        self._frame_skip = task.fingerprint.frame_skip
        self._player = AtariEnvs(task, 1, num_threads=1)
        interface = ale_py.ALEInterface()
        interface.loadROM(str(roms.get_rom_path(task.game)))
        height, width = map(int, interface.getScreenDims())
        fingerprint = replace(task.fingerprint, observation_shape=(1, height, width), frame_stack=1)
        self._screen = AtariEnvs(replace(task, fingerprint=fingerprint), 1, num_threads=1, grayscale=False)
        self._frame = np.zeros((1, 1, 3), np.uint8)

    @property
    def num_envs(self) -> int:
        return 1

    @property
    def decisions_per_second(self) -> float:
        return _ATARI_FRAMES_PER_SECOND / self._frame_skip

    def reset(self, slots: Sequence[int], seeds: Sequence[int] | None) -> NDArray[np.generic]:
        self._frame = self._screen.reset(slots, seeds)[0, -1].astype(np.uint8)
        return self._player.reset(slots, seeds)

    def step(self, actions: Actions) -> StepBatch:
        seen, played = self._screen.step(actions), self._player.step(actions)
        in_step = bool((seen.rewards == played.rewards).all() and (seen.ended == played.ended).all())
        assert in_step, "the film shows another play than the policy's"
        self._frame = seen.observations[0, -1].astype(np.uint8)
        return played

    def start_ids(self) -> NDArray[np.int64] | None:
        return self._player.start_ids()

    def frame(self) -> NDArray[np.uint8]:
        return self._frame

    def close(self) -> None:
        self._player.close()
        self._screen.close()


class _GymnasiumScreen:
    """An environment that draws itself."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._made: list[gymnasium.Env[Any, Any]] = []
        plain, settings = GymnasiumEnvs(self._make, 1, task.name), ObservationSettings.of(task.fingerprint)
        self._envs = ExtendedEnvs(plain, settings) if settings.num_appended else plain

    @property
    def num_envs(self) -> int:
        return 1

    @property
    def decisions_per_second(self) -> float:
        return float(self._made[-1].metadata.get("render_fps") or _DEFAULT_FRAMES_PER_SECOND)

    def reset(self, slots: Sequence[int], seeds: Sequence[int] | None) -> NDArray[np.generic]:
        return self._envs.reset(slots, seeds)

    def step(self, actions: Actions) -> StepBatch:
        return self._envs.step(actions)

    def start_ids(self) -> None:
        return None

    def frame(self) -> NDArray[np.uint8]:
        # The newest: an environment that may remember is built anew for its next episode.
        return np.asarray(self._made[-1].render(), np.uint8)

    def close(self) -> None:
        self._envs.close()

    def _make(self) -> gymnasium.Env[Any, Any]:
        name, kwargs = self._task.name, self._task.environment_kwargs
        # Asked of one without a screen first: Gymnasium only warns about a mode that an environment lacks.
        with older_versions_allowed():
            plain = gymnasium.make(name, **kwargs)
        modes: list[str] = list(plain.metadata.get("render_modes") or [])
        plain.close()
        if "rgb_array" not in modes:
            raise RldistillError(
                f"Task {name!r} cannot be filmed: it renders as {', '.join(modes) or 'nothing'}, expected 'rgb_array'."
            )
        with older_versions_allowed():
            self._made.append(gymnasium.make(name, render_mode="rgb_array", **kwargs))
        return self._made[-1]
