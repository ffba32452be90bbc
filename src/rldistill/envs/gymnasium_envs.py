"""Gymnasium environments as `EpisodeEnvs`: stepped one after the other, or a given `VectorEnv`.

Some environments keep state across resets (Box2D keeps its world, so the same seed gives another episode the second
time), and some wrappers do (`NormalizeObservation` its mean). All but those known to start afresh are therefore built
anew for each seeded episode.
"""

import contextlib
import importlib
import logging
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.envs.registration import parse_env_id
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from rldistill.envs.protocol import StepBatch, entry, info_of_slot
from rldistill.envs.spaces import SpaceCodec, check_finite, space_fingerprint
from rldistill.errors import EnvironmentFaultError, RldistillError, TaskError, UsageError, first_line, shown
from rldistill.observations import no_rows
from rldistill.types import Actions

# What to give instead of a `VectorEnv` whose environments only begin together.
_SYNC = "gymnasium.make_vec(…, vectorization_mode='sync'), or name the task, such as CartPole-v1."


def other_versions(name: str) -> list[str]:
    """Return the ids of all other registered versions of an environment, oldest first; none for a foreign name."""
    module, colon, plain = name.rpartition(":")
    own = _parsed_id(plain)
    if own is None:
        return []
    versions: dict[str, int] = {}
    for registered in cast(Mapping[str, Any], gymnasium.registry):
        other = _parsed_id(registered)
        if other is not None and other[:2] == own[:2] and registered != plain:
            versions[f"{module}{colon}{registered}"] = other[2]
    return sorted(versions, key=lambda registered: versions[registered])


def successor(name: str) -> str | None:
    """Return the oldest later version of an environment that can be made here; None where there is none."""
    own = _parsed_id(name.rpartition(":")[2])
    if own is None:
        return None
    later = [other for other in other_versions(name) if (_parsed_id(other.rpartition(":")[2]) or own)[2] > own[2]]
    return next((other for other in later if _can_be_made(other)), None)


@contextlib.contextmanager
def older_versions_allowed() -> Generator[None]:
    """Let older versions be made on purpose: without Gymnasium's advice to take the newest."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*out of date", DeprecationWarning)
        yield


def _parsed_id(name: str) -> tuple[str | None, str, int] | None:
    """Return namespace, name and version of an id; None where it is none, or has no version."""
    try:
        namespace, short, version = parse_env_id(name)
    except gymnasium.error.Error:
        return None
    return None if version is None else (namespace, short, version)


def _can_be_made(name: str) -> bool:
    take_over_remarks(name)
    with older_versions_allowed():
        try:
            gymnasium.make(name).close()
        except Exception:  # whatever an environment raises: this one is no successor
            return False
    return True


_log = logging.getLogger("rldistill.mujoco")
_FOR_THE_MAKERS = "is deprecated and will be removed in a future release"


def take_over_remarks(name: str) -> None:
    """Take MuJoCo's remarks over, where this task may load it or somebody did, and nobody else has taken them."""
    spec = gymnasium.registry.get(name.rpartition(":")[2])
    entry_point = "" if spec is None else str(spec.entry_point)
    if entry_point.startswith("gymnasium.envs.mujoco"):
        try:
            importlib.import_module("mujoco")
        except ImportError:
            return  # making the environment says so
    mujoco: Any = sys.modules.get("mujoco")
    if mujoco is not None and mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(_pass_on)


def _pass_on(remark: str) -> None:
    """Pass a remark on; called from C, where an exception would end the process."""
    if _FOR_THE_MAKERS not in remark:
        _log.warning("MuJoCo: %s", " ".join(remark.split()))


GymnasiumEnv = gymnasium.Env[Any, Any]

# Reset by seed restores these completely; building a MuJoCo model costs more than an episode's start.
_STATELESS_FAMILIES = ("gymnasium.envs.classic_control", "gymnasium.envs.toy_text", "gymnasium.envs.mujoco")
# Wrappers of Gymnasium's that do not change this: they keep nothing, forget it at a reset, or watch alone.
_FORGETFUL_WRAPPERS = frozenset((
    "ClipAction", "ClipReward", "DelayObservation", "DiscretizeAction", "DiscretizeObservation", "DtypeObservation",
    "FilterObservation", "FlattenObservation", "FrameStackObservation", "GrayscaleObservation", "HumanRendering",
    "OrderEnforcing", "PassiveEnvChecker", "RecordEpisodeStatistics", "RecordVideo", "RenderCollection",
    "RepeatAction", "RescaleAction", "RescaleObservation", "ReshapeObservation", "ResizeObservation",
    "StickyAction", "TimeAwareObservation", "TimeLimit", "TransformAction", "TransformObservation",
    "TransformReward",
))  # fmt: skip
# What a reward mostly is, told at a glance.
_NUMBERS = (float, int, np.floating, np.integer)


def failed(what: str, doing: str, error: Exception) -> EnvironmentFaultError:
    """Return the error for an environment whose own code raised in `doing`: `reset`, `step`, or another question."""
    return EnvironmentFaultError(
        f"{what} failed: {_raised(error, doing)}. Mend it, or what it needs (a display, a simulator, another version "
        "of a package). Set RLDISTILL_TRACEBACK=1 to see where."
    )


def close_all(what: str, envs: Iterable[GymnasiumEnv]) -> None:
    """Close environments; of those that raise in it the first is told: what they played is good all the same."""
    errors: list[Exception] = []
    for env in envs:
        try:
            env.close()
        except Exception as error:  # code that is not ours raises what it likes
            errors.append(error)
    if errors:
        # From one line whoever closes: Python tells a text once a line.
        warnings.warn(f"{what}: {_raised(errors[0], 'close')}. What was played before is kept.", stacklevel=1)


def _raised(error: Exception, doing: str) -> str:
    said = f": {first_line(error)}" if str(error) else ""
    return f"its environment raised {type(error).__name__} in {doing}{said}"


def number(what: str, reward: object) -> float:
    """Return a reward, a number or an array of one, as a number. Raises EnvironmentFaultError: it is something else."""
    value = np.asarray(reward)
    if value.size != 1 or value.dtype.kind not in "biuf":
        got = f"shape {list(value.shape)}" if value.size != 1 else f"{reward!r}"[:60]
        raise EnvironmentFaultError(f"{what} gave a reward of {got}, expected one number. Fix the environment.")
    return float(value.reshape(()))


def _as_array(given: object) -> NDArray[Any]:
    """Return what an environment gave as an array; one of None where it can be none."""
    try:
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError):  # lists of several lengths, tensors elsewhere
        return np.array(None)


def _called(given: object, values: NDArray[Any]) -> str:
    """Return how messages call what was given, and is this array."""
    return shown(given) if values.ndim == 0 else f"an array of type {values.dtype} and shape {list(values.shape)}"


def _numbers(what: str, rewards: object, num: int) -> NDArray[np.float64]:
    """Return the rewards of so many environments. Raises EnvironmentFaultError: they are something else."""
    values = _as_array(rewards)
    if values.dtype.kind not in "biuf" or values.size != num:
        raise EnvironmentFaultError(
            f"{what} gave rewards of {_called(rewards, values)}, expected {num} numbers. Fix the environment."
        )
    return values.reshape(num).astype(np.float64)


def truth(what: str, name: str, flag: object) -> bool:
    """Return whether an episode ended, said by a truth value, 0, 1, or an array of one; raises as `truths`."""
    return bool(flag) if isinstance(flag, bool | np.bool_) else bool(truths(what, name, flag, 1)[0])


def truths(what: str, name: str, flags: object, num: int) -> NDArray[np.bool_]:
    """Return which of so many episodes ended. Raises EnvironmentFaultError: the flags are no truth values."""
    values = _as_array(flags)
    are_true = values.dtype.kind in "biuf" and values.size == num and ((values == 0) | (values == 1)).all()
    if not are_true:
        expected = "True or False" if num == 1 else f"{num} of True and False"
        raise EnvironmentFaultError(
            f"{what} gave {_called(flags, values)} as {name}, expected {expected}: whether the episode ended. Fix the "
            "environment."
        )
    return values.reshape(num).astype(np.bool_)


def _layers(env: GymnasiumEnv) -> Generator[GymnasiumEnv]:
    """Give an environment's wrappers, from outside, and then itself."""
    while isinstance(env, gymnasium.Wrapper):
        yield env
        env = env.env
    yield env


def _base(env: GymnasiumEnv) -> GymnasiumEnv:
    """Return an environment without its wrappers."""
    *_, base = _layers(env)
    return base


def _starts_afresh(env: GymnasiumEnv) -> bool:
    """Return whether a reset by seed restores an environment and its wrappers completely, as far as is known."""
    *wrappers, base = _layers(env)
    return type(base).__module__.startswith(_STATELESS_FAMILIES) and all(
        # A subclass, of whatever name, may keep what it likes.
        type(wrapper).__module__.startswith("gymnasium.wrappers.") and type(wrapper).__name__ in _FORGETFUL_WRAPPERS
        for wrapper in wrappers
    )


class GymnasiumEnvs:
    """N environments made by a function and stepped in turn, as `EpisodeEnvs`; messages name the task.

    Raises TaskError: two environments are one object. EnvironmentFaultError: an environment raised, or gave what its
    spaces do not hold. So do `reset` and `step`.
    """

    def __init__(self, make: Callable[[], GymnasiumEnv], num_envs: int, name: str = "environment") -> None:
        self._what = f"Task {name!r}"
        self.num_envs = num_envs
        self._make_own = make
        self._envs: list[GymnasiumEnv] = []
        for _ in range(num_envs):
            self._envs.append(self._make())
        first = self._envs[0]
        self._keeps_state = not _starts_afresh(first)
        self._used = [False] * num_envs
        fingerprint = space_fingerprint(name, first.observation_space, first.action_space)
        self._codec = SpaceCodec(first.observation_space, first.action_space, fingerprint.observation_dtype, self._what)
        self._rows = self._codec.widened(no_rows(fingerprint, num_envs))
        self._ended = [False] * num_envs
        self._infos: list[Mapping[str, Any]] = [{} for _ in range(num_envs)]

    def reset(self, slots: Sequence[int], seeds: Sequence[int] | None) -> NDArray[np.generic]:
        """Begin new episodes, in a new environment where the old one may remember."""
        for index, slot in enumerate(slots):
            if seeds is not None and self._keeps_state and self._used[slot]:
                close_all(self._what, [self._envs[slot]])
                self._envs[slot] = self._make()
            self._used[slot] = True
            try:
                observation, self._infos[slot] = self._envs[slot].reset(seed=None if seeds is None else seeds[index])
            except Exception as error:  # code that is not ours raises what it likes
                raise failed(self._what, "reset", error) from error
            self._rows[slot] = self._codec.encode(observation)
            self._ended[slot] = False
        return self._observed()

    def step(self, actions: Actions) -> StepBatch:
        """Apply one action per environment; ended ones wait for their reset."""
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, np.bool_), np.zeros(self.num_envs, np.bool_)
        encode, rows = self._codec.encode, self._rows
        own_actions = self._codec.decode_each(actions)
        for slot, env in enumerate(self._envs):
            if self._ended[slot] or not self._used[slot]:
                continue
            try:
                observation, reward, is_terminated, is_truncated, self._infos[slot] = env.step(own_actions[slot])
            except Exception as error:
                raise failed(self._what, "step", error) from error
            if is_terminated is not False or is_truncated is not False:  # nearly every step gives this very object
                terminated[slot] = truth(self._what, "terminated", is_terminated)
                truncated[slot] = truth(self._what, "truncated", is_truncated)
                self._ended[slot] = bool(terminated[slot] or truncated[slot])
            rows[slot] = encode(observation)
            rewards[slot] = reward if isinstance(reward, _NUMBERS) else number(self._what, reward)
        check_finite(self._what, "reward", rewards)
        return StepBatch(self._observed(), rewards, terminated, truncated & ~terminated)

    def _observed(self) -> NDArray[np.generic]:
        """Return what all slots observe; one look at each would take as long as some environments' steps."""
        observations = self._codec.narrowed(self._rows)
        check_finite(self._what, "observation", observations)
        return observations

    def _make(self) -> GymnasiumEnv:
        try:
            made = self._make_own()
        except RldistillError:
            raise
        except Exception as error:
            raise failed(self._what, "its constructor", error) from error
        # In one object all slots would step each other's episodes, and none of them could be made anew.
        base = _base(made)
        if any(_base(env) is base for env in self._envs):
            raise TaskError(
                f"{self._what}: its callable gives the same environment twice, expected a new one at each call: "
                "lambda: gymnasium.make(…)."
            )
        return made

    def start_ids(self) -> None:
        """Return None: the starts of a Gymnasium task cannot be enumerated."""

    def info(self, name: str, slots: Iterable[int]) -> list[Any]:
        """Return an entry of what some environments told last."""
        return [entry(self._infos[slot], name) for slot in slots]

    def close(self) -> None:
        """Close every environment."""
        close_all(self._what, self._envs)


class VectorEnvs:
    """A `gymnasium.vector.VectorEnv` given by the user, as `EpisodeEnvs`.

    It must take `options={"reset_mask": …}` with a seed per environment, which Gymnasium's
    own do, and must not reset in the same step (the last observation would be lost).

    Raises TaskError, from `reset`: it changes what environments observe that are not reset.
    """

    def __init__(self, envs: "VectorEnv[Any, Any, Any]") -> None:
        mode = envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        if mode is AutoresetMode.SAME_STEP:
            raise UsageError(
                "VectorEnv: got autoreset mode SAME_STEP, expected NEXT_STEP or DISABLED. Make it with "
                "autoreset_mode=gymnasium.vector.AutoresetMode.DISABLED."
            )
        self._envs = envs
        self.num_envs = envs.num_envs
        spaces = envs.single_observation_space, envs.single_action_space
        fingerprint = space_fingerprint("vector environment", *spaces)
        self._what = f"VectorEnv {type(envs).__name__}"
        self._codec = SpaceCodec(*spaces, fingerprint.observation_dtype, self._what)
        self._disabled = mode is AutoresetMode.DISABLED
        self._ended = np.zeros(envs.num_envs, np.bool_)
        self._is_fresh = True
        # What was told last, and what a reset of some slots told of these.
        self._told: list[Mapping[str, Any]] = [{}] * envs.num_envs
        self._observed: NDArray[np.generic] = no_rows(fingerprint, envs.num_envs)

    def reset(self, slots: Sequence[int], seeds: Sequence[int] | None) -> NDArray[np.generic]:
        """Begin new episodes in some slots."""
        if self._is_fresh and len(slots) != self.num_envs:
            try:
                observations, _ = self._envs.reset(seed=0)
            except Exception as error:
                raise failed(self._what, "reset", error) from error
            self._observed = self._encoded(observations)
        self._is_fresh = False
        mask = np.zeros(self.num_envs, np.bool_)
        mask[list(slots)] = True
        seed: list[int | None] = [None] * self.num_envs
        for index, slot in enumerate(slots):
            seed[slot] = None if seeds is None else seeds[index]
        try:
            # Gymnasium's base class declares one integer; its vector environments take a list.
            observations, infos = self._envs.reset(seed=cast(Any, seed), options={"reset_mask": mask})
        except Exception as error:
            singly = "Where it cannot begin single episodes by seed, make it with"
            raise EnvironmentFaultError(f"{failed(self._what, 'reset', error)} {singly} {_SYNC}") from error
        self._ended[mask] = False
        self._told = [infos if mask[slot] else told for slot, told in enumerate(self._told)]
        before, self._observed = self._observed, self._encoded(observations)
        # One that does not know the mask begins all episodes anew, and says nothing.
        if before[~mask].tobytes() != self._observed[~mask].tobytes():
            raise TaskError(
                f"{self._what}: a reset of some of its environments changed what the others observe, expected these to "
                f"go on. Its reset must heed options['reset_mask']: make it with {_SYNC}"
            )
        return self._observed.copy()

    def step(self, actions: Actions) -> StepBatch:
        """Apply one action per environment."""
        if self._disabled and self._ended.any():
            # Idle slots must not be stepped past their end: they begin an episode nobody counts.
            self.reset([int(slot) for slot in np.flatnonzero(self._ended)], None)
        try:
            observations, rewards, terminated, truncated, infos = self._envs.step(self._codec.decode(actions))
        except Exception as error:
            raise failed(self._what, "step", error) from error
        terminated = truths(self._what, "terminated", terminated, self.num_envs)
        truncated = truths(self._what, "truncated", truncated, self.num_envs)
        self._ended = terminated | truncated
        self._told = [infos] * self.num_envs
        rewards = _numbers(self._what, rewards, self.num_envs)
        check_finite(self._what, "reward", rewards)
        self._observed = self._encoded(observations)
        return StepBatch(self._observed.copy(), rewards, terminated, truncated & ~terminated)

    def start_ids(self) -> None:
        """Return None: the starts of a Gymnasium task cannot be enumerated."""

    def info(self, name: str, slots: Iterable[int]) -> list[Any]:
        """Return an entry of what some environments told last."""
        return [entry(info_of_slot(self._told[slot], slot), name) for slot in slots]

    def close(self) -> None:
        """Leave the environments open: they belong to the caller."""

    def _encoded(self, observations: object) -> NDArray[np.generic]:
        encoded = self._codec.encode_batch(observations).copy()
        check_finite(self._what, "observation", encoded)
        return encoded
