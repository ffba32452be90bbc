"""Atari on ale-py's native vector environment: C++ threads step and preprocess.

Four habits of `AtariVectorEnv` are kept away from everyone above: `episodic_life` would hard-reset the game at each
lost life (a learner would never see a second life), rewards are clipped by default, four games end the whole process
from C++, and an action that the game does not have makes it wait forever.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import ale_py
import numpy as np
from ale_py import roms
from ale_py.vector_env import AtariVectorEnv
from numpy.typing import NDArray

from rldistill.envs.protocol import StepBatch, entry, info_of_slot
from rldistill.errors import MismatchError, TaskError, UsageError
from rldistill.tasks import ATARI_PREFIX, ObservationFingerprint, Protocol, Task
from rldistill.types import ActionLayout, Actions

# Their start modes need two players: loading them aborts the process.
MULTI_PLAYER_GAMES = frozenset({"combat", "joust", "maze_craze", "warlords"})
_LARGEST = 2**31 - 1  # ale-py counts in 32 bits


@dataclass(frozen=True)
class AtariOptions:
    """Every setting of an Atari task; the first seven make the fingerprint, the rest the protocol."""

    height: int = 84  # of a frame, in pixels
    width: int = 84  # of a frame, in pixels
    grayscale: bool = True  # grey frames; else RGB
    frame_stack: int = 4  # frames in an observation, oldest first, zeros before the first
    frame_skip: int = 4  # emulator frames per decision
    max_pool: bool = True  # take the pixelwise maximum of the last two emulator frames of a skip
    full_action_set: bool = False  # all 18 actions; else those the game knows
    noop_max: int = 30  # 0 to `noop_max` − 1 frames without action at the start
    max_frames: int = 108_000  # emulator frames after which an episode is truncated
    fire_at_reset: bool = False  # press FIRE after a reset where the game knows it
    sticky_action_probability: float = 0.0  # chance that the last action is repeated
    exploration_epsilon: float = 0.05  # chance of a uniformly random decision

    @classmethod
    def from_kwargs(cls, options: Mapping[str, Any]) -> "AtariOptions":
        """Read options by name. Raises UsageError: an unknown name, or a value of another type."""
        known = {item.name: item for item in fields(cls)}
        for name, value in options.items():
            if name not in known:
                raise UsageError(f"Unknown Atari option: got {name!r}, expected one of {', '.join(known)}.")
            expected = type(known[name].default)
            if type(value) is not expected and not (expected is float and type(value) is int):
                raise UsageError(f"Atari option {name!r}: got {value!r}, expected a {expected.__name__}.")
            if expected is int and value < (0 if name == "noop_max" else 1):
                raise UsageError(f"Atari option {name!r}: got {value}, expected a positive number.")
            if expected is int and value > _LARGEST:
                raise UsageError(f"Atari option {name!r}: got {value}, expected at most {_LARGEST:,}.")
        return cls(**options)


def _check_game(game: str) -> None:
    """Check that one player can play a game. Raises TaskError: unknown (suggests the nearest), or for two players."""
    known = set(roms.get_all_rom_ids())
    if game in MULTI_PLAYER_GAMES:
        playable = ", ".join(f"{ATARI_PREFIX}{name}" for name in ("pong", "boxing", "tennis"))
        raise TaskError(
            f"Atari game {game!r} needs two players, which is not supported. Among those that play alone: {playable}."
        )
    if game not in known:
        near = nearest_game(game, cutoff=0.5)
        hint = f" Did you mean {near}?" if near else ""
        raise TaskError(
            f"Unknown Atari game: got {game!r}, expected ale-py's name of a game, such as space_invaders.{hint}"
        )


def nearest_game(text: str, *, cutoff: float) -> str | None:
    """Return the task of the game that a text probably means, `atari:space_invaders`; None where none is near.

    `SpaceInvaders`, `space-invaders` and `SpaceInvadersNoFrameskip-v4` all mean one game. `cutoff` is how alike the
    letters must be, from 0 to 1: the same.
    """
    wanted = re.sub(r"(noframeskip|deterministic)?-v\d+$", "", text.lower()).replace("ale/", "")
    games = sorted(set(roms.get_all_rom_ids()) - MULTI_PLAYER_GAMES)
    by_letters = {name.replace("_", ""): name for name in games}
    near = difflib.get_close_matches(re.sub(r"[^a-z0-9]", "", wanted), by_letters, n=1, cutoff=cutoff)
    return f"{ATARI_PREFIX}{by_letters[near[0]]}" if near else None


@cache
def _action_sets(game: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the actions that a game knows, and of all; kept, for it loads the ROM."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    interface = ale_py.ALEInterface()
    path = roms.get_rom_path(game)
    assert path is not None, f"{game} was checked before"
    interface.loadROM(str(path))
    minimal, legal = interface.getMinimalActionSet(), interface.getLegalActionSet()
    return tuple(action.name for action in minimal), tuple(action.name for action in legal)


def atari_task(name: str, options: Mapping[str, Any]) -> Task:
    """Return the task of an Atari game, `atari:<game>`, with settings that differ from `AtariOptions`' defaults.

    Raises:
        TaskError: unknown game.
        UsageError: unknown option.
    """
    game = name.removeprefix(ATARI_PREFIX)
    _check_game(game)
    chosen = AtariOptions.from_kwargs(options)
    minimal, legal = _action_sets(game)
    meanings = legal if chosen.full_action_set else minimal
    shape = (chosen.frame_stack, chosen.height, chosen.width)
    fingerprint = ObservationFingerprint(
        observation_shape=shape if chosen.grayscale else (*shape, 3),
        observation_dtype="uint8",
        action_layout=ActionLayout.discrete(len(meanings)),
        action_set=meanings,
        grayscale=chosen.grayscale,
        frame_stack=chosen.frame_stack,
        stack_padding="zero",
        frame_skip=chosen.frame_skip,
        max_pool=chosen.max_pool,
    )
    # Each of its fields is an option of the same name.
    protocol = Protocol(**{item.name: getattr(chosen, item.name) for item in fields(Protocol)})
    return Task(name, fingerprint, protocol)


def atari_settings(task: Task) -> dict[str, Any]:
    """Return what `atari_task` was given to make a task, but for the exploration ε, which is an option of its own."""
    height, width = task.fingerprint.observation_shape[1:3]
    own = vars(task.fingerprint) | vars(task.protocol) | {"height": height, "width": width}
    own |= {"full_action_set": _uses_full_action_set(task), "exploration_epsilon": AtariOptions.exploration_epsilon}
    return {item.name: own[item.name] for item in fields(AtariOptions) if own[item.name] != item.default}


def _uses_full_action_set(task: Task) -> bool:
    recorded = task.fingerprint.action_set
    minimal, legal = _action_sets(task.game)
    if recorded == minimal:
        return False
    if recorded == legal:
        return True
    raise MismatchError(
        f"Task {task.name!r}: got actions {'/'.join(recorded) or 'without names'}, but the game knows "
        f"{'/'.join(minimal)}, or all 18. Was it recorded for another game, or altered?"
    )


class AtariEnvs:
    """N emulators of one game, as `EpisodeEnvs`.

    They step in `num_threads` C++ threads; 0 lets ale-py choose. `grayscale=False` renders the same play in colour, for
    films; None follows the task.
    """

    def __init__(self, task: Task, num_envs: int, *, num_threads: int = 0, grayscale: bool | None = None) -> None:
        _check_game(task.game)
        self.num_envs = num_envs
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        fingerprint, protocol = task.fingerprint, task.protocol
        uses_full_action_set = _uses_full_action_set(task)
        self._envs = AtariVectorEnv(
            task.game,
            num_envs,
            num_threads=num_threads,
            img_height=fingerprint.observation_shape[1],
            img_width=fingerprint.observation_shape[2],
            grayscale=bool(fingerprint.grayscale) if grayscale is None else grayscale,
            stack_num=fingerprint.frame_stack,
            frameskip=fingerprint.frame_skip,
            maxpool=fingerprint.max_pool,
            full_action_space=uses_full_action_set,
            noop_max=protocol.noop_max or 0,
            max_num_frames_per_episode=protocol.max_frames or 108_000,
            use_fire_reset=bool(protocol.fire_at_reset),
            repeat_action_probability=protocol.sticky_action_probability,
            episodic_life=False,
            reward_clipping=False,
        )
        self._num_actions = len(fingerprint.action_set)
        self._enumerable_starts = protocol.sticky_action_probability == 0
        self._start_frames = np.zeros(num_envs, np.int64)
        self._is_fresh, self._is_stepping = True, False
        self._told: Mapping[str, Any] = {}

    def reset(self, slots: Sequence[int], seeds: Sequence[int] | None) -> NDArray[np.generic]:
        """Begin new episodes; a seed costs about 90 ms (ale-py reloads the game), none about 4."""
        if self._is_stepping:  # whoever played may have stopped before it received the step
            self.receive()
        if len(slots) != self.num_envs:
            self._begin_all()
        self._is_fresh = False
        mask = np.zeros(self.num_envs, np.bool_)
        mask[list(slots)] = True
        # ale-py takes seeds in the order of slots.
        order = np.argsort(np.asarray(slots))
        seed = None if seeds is None else np.asarray(seeds, np.int64)[order]
        observations, info = self._envs.reset(seed=seed, options={"reset_mask": mask})
        self._told = info
        self._start_frames = info["episode_frame_number"].astype(np.int64)
        return observations

    def step(self, actions: Actions) -> StepBatch:
        """Apply one action per emulator.

        Raises ValueError: an action that the game does not have: ale-py would wait for its result forever.
        """
        self.send(actions)
        return self.receive()

    def send(self, actions: Actions) -> None:
        """Let the emulators begin a step in their threads; `receive` waits for it."""
        if actions.min() < 0 or actions.max() >= self._num_actions:
            raise ValueError(f"actions must lie in [0, {self._num_actions}), got {actions.tolist()}.")
        self._begin_all()
        self._envs.send(actions)
        self._is_stepping = True

    def _begin_all(self) -> None:
        """Give ale-py the full reset that it wants first, also of slots that nobody plays in."""
        if self._is_fresh:
            self._envs.reset()  # with seeds it would load every game again
            self._is_fresh = False

    def receive(self) -> StepBatch:
        """Return what came of the step that `send` began."""
        # First: an interrupt comes when `recv` is over, and another one would wait forever.
        self._is_stepping = False
        observations, rewards, terminated, truncated, info = self._envs.recv()
        self._told = info
        return StepBatch(observations, rewards.astype(np.float64), terminated, truncated & ~terminated, info["lives"])

    def start_ids(self) -> NDArray[np.int64] | None:
        """Return the no-op frames played at reset: without sticky actions they alone tell starts apart."""
        return self._start_frames.copy() if self._enumerable_starts else None

    def info(self, name: str, slots: Iterable[int]) -> list[Any]:
        """Return an entry of what ale-py told last, such as `lives`."""
        return [entry(info_of_slot(self._told, slot), name) for slot in slots]

    def close(self) -> None:
        """Free the emulators."""
        self._envs.close()
