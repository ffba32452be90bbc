"""From what a user names to something that can be played.

Who names a task decides what may be imported. A text is what somebody typed, and `module:EnvId` in it imports the
module. A `Task` is a record, perhaps from a stranger's file: it imports nothing, and plays only what is there already.
"""

import contextlib
import json
import shlex
import warnings
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium
from gymnasium import vector
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from rldistill.envs.atari import AtariEnvs, AtariOptions, atari_settings, atari_task, nearest_game
from rldistill.envs.extended import ExtendedEnvs, ObservationSettings, extend_fingerprint
from rldistill.envs.gymnasium_envs import (
    GymnasiumEnv,
    GymnasiumEnvs,
    VectorEnvs,
    close_all,
    failed,
    older_versions_allowed,
    other_versions,
    successor,
    take_over_remarks,
)
from rldistill.envs.overlapped import OverlappedEnvs
from rldistill.envs.protocol import EpisodeEnvs as EpisodeEnvs
from rldistill.envs.spaces import space_fingerprint
from rldistill.envs.task_modules import PYTHON_PREFIX, check_imports_nothing, import_task_module
from rldistill.errors import RldistillError, TaskError, UsageError, install_hint, printable, shown
from rldistill.tasks import ATARI_PREFIX, UNNAMED_TASK, ObservationFingerprint, Protocol, Task

# Families of Gymnasium's own environments that need more than Gymnasium, each with an extra of its name.
_EXTRAS = ("mujoco", "box2d")
# Settings that a file may not choose: what opens another file or a window, and maps, which are drawn in full.
_NEVER_FROM_A_FILE = frozenset({"xml_file", "render_mode", "desc"})
_HARMLESS_AT_ANY_SIZE = frozenset({"max_episode_steps", "time_feature"})
_LARGEST_RECORDED, _LONGEST_RECORDED = 10_000, 1_000
# What `gymnasium.make_vec` takes for the vector as a whole, and keeps among the settings of its environments.
_OF_THE_VECTOR = frozenset({"num_envs", "vectorization_mode", "vector_kwargs", "render_mode"})
# Wrappers of Gymnasium's around a vector that leave its observations, actions, rewards and ends as they are.
_WATCHING_WRAPPERS = frozenset({"DictInfoToList", "HumanRendering", "RecordEpisodeStatistics", "RecordVideo"})
_FEW_ENVS, _MANY_ENVS, _MANY_EMULATORS = 16, 128, 64
# Of emulators; with fewer, too much of a network's batch is padding.
_FEWEST_OF_A_HALF = 12


@dataclass(frozen=True)
class PlayableTask:
    """A task with the way to make its environments."""

    task: Task  # the two records
    # `(num_envs, num_threads)` to that many environments; 0 threads: a fixed rule.
    make_envs: Callable[[int, int], EpisodeEnvs]
    fixed_num_envs: int | None = None  # set where the user gave the environments themselves
    # The same without what is appended to observations, where something is.
    plain: "PlayableTask | None" = field(default=None, repr=False)
    # One environment as Gymnasium has it, with its spaces and metadata; None for those that are stepped otherwise.
    make_env: Callable[[], GymnasiumEnv] | None = field(default=None, repr=False)

    def num_envs(self, asked: int | None, num_busy: int) -> int:
        """Return in how many environments to play.

        A step of a vector costs little beside asking a network for a batch, which takes as long for 16 rows as for
        few: more environments share that. Images are computed with for longer, and take more memory. Of emulators one
        half can step while the other is decided on (`envs_for_play`), each with a batch of its own.

        Args:
            asked: by the user; None: 16, of vectors up to 128, of Atari half of those that have work, up to 64.
            num_busy: how many have work.
        """
        if self.fixed_num_envs is not None or asked is not None:
            return self.fixed_num_envs or asked or _FEW_ENVS
        if self.task.is_atari:
            return max(_FEW_ENVS, min(num_busy // 2, _MANY_EMULATORS))
        seen = self.task.fingerprint
        is_vector = len(seen.observation_shape) == 1 and not any(part.is_image for part in seen.observation_parts)
        return max(_FEW_ENVS, min(num_busy, _MANY_ENVS)) if is_vector else _FEW_ENVS

    def envs_for_play(self, num_envs: int, num_threads: int) -> EpisodeEnvs:
        """Make environments for play by policies that stay as they are: emulators in two halves, if there are enough.

        A half steps while the other is decided on, so decisions are made before the last record is out: to change a
        policy between records, play in `make_envs`.
        """
        if not self.task.is_atari or num_threads < 2 or num_envs < 2 * _FEWEST_OF_A_HALF:
            return self.make_envs(num_envs, num_threads)
        first = num_envs // 2
        # The network has the other half of the threads, rounded down.
        own_threads = num_threads - num_threads // 2
        halves = [AtariEnvs(self.task, num, num_threads=own_threads) for num in (first, num_envs - first)]
        return OverlappedEnvs(*halves)

    @property
    def longest_episode(self) -> int | None:
        """Decisions after which every episode ends; None: nobody says. An environment is made to see it."""
        if self.task.is_atari:
            frames, skip = self.task.protocol.max_frames, self.task.fingerprint.frame_skip
            return None if frames is None or not skip else -(-frames // skip)
        with self.environment() as env:
            return None if env is None or env.spec is None else env.spec.max_episode_steps

    @contextlib.contextmanager
    def environment(self) -> Generator[GymnasiumEnv | None]:
        """Give one environment; None where it has none that is a Gymnasium environment, as Atari's."""
        make = (self.plain or self).make_env
        if make is None:
            yield None
            return
        env = make()
        try:
            yield env
        finally:
            close_all(f"Task {self.task.name!r}", [env])

    def with_exploration(self, exploration_epsilon: float) -> "PlayableTask":
        """Return the same task with another exploration ε in its protocol."""
        protocol = replace(self.task.protocol, exploration_epsilon=exploration_epsilon)
        return replace(self, task=replace(self.task, protocol=protocol))

    def observed_as(self, fingerprint: ObservationFingerprint) -> "PlayableTask":
        """Return the same task with what a policy of this fingerprint needs appended to its observations.

        Its zero padding and time feature take the place of the task's own where the two then match; else the task
        comes back as it is, which the policy does not fit.
        """
        wanted = ObservationSettings.of(fingerprint)
        if wanted == ObservationSettings.of(self.task.fingerprint):
            return self
        try:
            extended = _extend(self.plain or self, wanted)
        except UsageError:  # not a vector: nothing can be appended
            return self
        if fingerprint.differences(extended.task.fingerprint):
            return self
        return replace(extended, task=replace(extended.task, protocol=self.task.protocol))


TaskLike = str | Task | PlayableTask | Callable[[], GymnasiumEnv] | VectorEnv[Any, Any, Any]


def options_of(task: Task) -> dict[str, Any]:
    """Return the options that name a task which a file chose, its settings among them."""
    settings = atari_settings(task) if task.is_atari else task.environment_kwargs
    return {"task": task.name, "env_kwargs": settings or None}


def make_task(task: TaskLike, options: Mapping[str, Any] | None = None) -> PlayableTask:
    """Return something that can be played.

    Args:
        task: `atari:<game>`; a Gymnasium id; `module:EnvId`, whose module is imported; a callable that makes an
            `Env`; a `VectorEnv`; or a `Task` that a file recorded, which imports nothing and is played under the
            exploration ε of its kind: 0.05 for Atari, else 0.
        options: `AtariOptions` by name, or keyword arguments of the environment; among the latter
            `zero_padding` and `time_feature` extend observations (`ObservationSettings`).

    Raises:
        TaskError: there is no such environment, its spaces are not supported, or a record's module is not imported.
        UsageError: options that do not apply.
    """
    options = dict(options or {})
    if isinstance(task, str) and task.startswith(ATARI_PREFIX):
        return _atari(atari_task(task, options))
    for name, value in options.items():
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(
                f"env_kwargs: got {name}={shown(value)}, expected a finite number, a text of valid Unicode, or a list "
                "or mapping of them, of Python's own types: files record it as JSON. For anything else name a callable "
                "that makes the environment."
            ) from error
    settings, kwargs = ObservationSettings.from_kwargs(options)
    if isinstance(task, str):
        import_task_module(task)
        # As a file holds it, such as a tuple as a list: what goes on would seem to have other settings.
        recorded = json.loads(json.dumps(kwargs))
        return _extend(_from_factory(task, _factory(task, kwargs), recorded), settings)
    if kwargs or (options and isinstance(task, PlayableTask | Task)):
        example = task.name if isinstance(task, Task) else "ID"
        raise UsageError(
            f"Environment options ({', '.join(options)}) belong with a task's name: got them with one that is already "
            f"complete. Name the task too: --task {example}."
        )
    if isinstance(task, PlayableTask):
        return task
    if isinstance(task, Task):
        if task.name == UNNAMED_TASK:
            raise TaskError("The policy's file does not say which task it plays. Name it: --task ID, in Python task=.")
        try:
            return _from_record(task)
        except UsageError as error:
            error.exit_code = 1  # nobody typed it: a file is at fault
            raise
    if isinstance(task, VectorEnv):
        return _extend(_from_vector_env(task), settings)
    if isinstance(task, gymnasium.Env):
        way_on = "its id" if task.spec is None else repr(task.spec.id)
        raise UsageError(
            f"task: got an environment that is made already ({type(task.unwrapped).__name__}), expected what makes "
            f"one: several are played at once. Pass {way_on}, or a callable without arguments that makes it."
        )
    if not callable(task):
        raise UsageError(
            f"task: got a {type(task).__name__}, expected the id of an environment, such as 'CartPole-v1' or "
            "'atari:pong', or a callable that makes one."
        )
    name = f"{PYTHON_PREFIX}{getattr(task, '__name__', type(task).__name__)}"
    return _extend(_from_factory(name, task, {}), settings)


def _extend(plain: PlayableTask, settings: ObservationSettings) -> PlayableTask:
    fingerprint = extend_fingerprint(plain.task.name, plain.task.fingerprint, settings)
    if fingerprint == plain.task.fingerprint:
        return plain

    def make_envs(num_envs: int, num_threads: int) -> EpisodeEnvs:
        return ExtendedEnvs(plain.make_envs(num_envs, num_threads), settings)

    return PlayableTask(replace(plain.task, fingerprint=fingerprint), make_envs, plain.fixed_num_envs, plain)


def _atari(task: Task) -> PlayableTask:
    return PlayableTask(task, lambda num_envs, num_threads: AtariEnvs(task, num_envs, num_threads=num_threads))


def _from_record(task: Task) -> PlayableTask:
    # A record's ε is that of the play which was recorded, such as a collection. It is not the task's.
    epsilon = AtariOptions.exploration_epsilon if task.is_atari else Protocol.exploration_epsilon
    task = replace(task, protocol=replace(task.protocol, exploration_epsilon=epsilon))
    _check_recorded_settings(task)
    if task.is_atari:
        return _atari(task)
    check_imports_nothing(task.name)
    kwargs = dict(task.environment_kwargs)
    factory = _factory(task.name, kwargs)
    try:
        plain = _from_factory(task.name, factory, kwargs)
    except UsageError as error:
        raise TaskError(f"{error} That task stands in a file; name your own: --task, in Python task=.") from error
    playable = _extend(plain, ObservationSettings.of(task.fingerprint))
    return replace(playable, task=replace(playable.task, protocol=task.protocol))


def _check_recorded_settings(task: Task) -> None:
    """Check that playing a recorded task ends: a stranger's settings could ask for a step that takes hours."""
    fingerprint, protocol = task.fingerprint, task.protocol
    frames = {"noop_max": protocol.noop_max, "frame_skip": fingerprint.frame_skip, "stack": fingerprint.frame_stack}
    settings = {name: value for name, value in task.environment_kwargs.items() if name not in _HARMLESS_AT_ANY_SIZE}
    for name, value in {**frames, **settings}.items():
        is_large = isinstance(value, int | float) and abs(value) > _LARGEST_RECORDED
        if name in _NEVER_FROM_A_FILE or is_large or len(str(value)) > _LONGEST_RECORDED:
            raise TaskError(
                f"Task {task.name!r} stands in a file with the setting {name}={printable(str(value), 60)}, which only "
                f"you may choose. Name both yourself: --task {shlex.quote(task.name)} with --env-kwargs."
            )


def _from_vector_env(envs: "VectorEnv[Any, Any, Any]") -> PlayableTask:
    fingerprint = space_fingerprint("vector environment", envs.single_observation_space, envs.single_action_space)
    VectorEnvs(envs)  # refuses those that cannot be played
    spec: EnvSpec | None = getattr(envs, "spec", None)
    kwargs = None if spec is None or _is_changed(envs) else _recordable_kwargs(spec)
    name = f"{PYTHON_PREFIX}{type(envs).__name__}" if spec is None or kwargs is None else spec.id
    task = Task(name, fingerprint, Protocol(), kwargs or {})
    return PlayableTask(task, lambda _num_envs, _num_threads: VectorEnvs(envs), envs.num_envs)


def _is_changed(envs: "VectorEnv[Any, Any, Any]") -> bool:
    """Whether a wrapper around a vector may change what its environments are: its spec is that of the vector inside."""
    while isinstance(envs, vector.VectorWrapper):
        kind = type(envs)
        if not kind.__module__.startswith("gymnasium.wrappers.vector.") or kind.__name__ not in _WATCHING_WRAPPERS:
            return True
        envs = envs.env
    return False


def _recordable_kwargs(spec: EnvSpec) -> dict[str, Any] | None:
    """Return in what one environment of a vector differs from its id; None where JSON cannot say it."""
    registered = gymnasium.registry.get(spec.id)
    own = {} if registered is None else {"max_episode_steps": registered.max_episode_steps, **registered.kwargs}
    try:
        kwargs = {
            name: value
            for name, value in spec.kwargs.items()
            if name not in _OF_THE_VECTOR and not (name in own and own[name] == value)
        }
        return None if spec.additional_wrappers else json.loads(json.dumps(kwargs, allow_nan=False))
    except (TypeError, ValueError):  # an object, such as wrappers
        return None


def _factory(name: str, kwargs: Mapping[str, Any]) -> Callable[[], GymnasiumEnv]:
    if name.startswith(PYTHON_PREFIX):
        raise TaskError(
            f"Task {name!r} was given as an object in Python, which a file cannot bring back: pass it as task=…."
        )

    def make() -> GymnasiumEnv:
        # Which version is played was chosen, by the user or by what a teacher was trained on.
        with older_versions_allowed():
            return gymnasium.make(name, **kwargs)

    return make


def _from_factory(name: str, make: Callable[[], GymnasiumEnv], kwargs: Mapping[str, Any]) -> PlayableTask:
    take_over_remarks(name)
    try:
        env = make()
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        if later := successor(name):
            raise TaskError(_gone(name, later)) from error
        if name.startswith(PYTHON_PREFIX) and isinstance(error, ImportError):  # a mistake in the user's own code
            raise failed(f"Task {name!r}", "its constructor", error) from error
        raise RldistillError(_missing_package(name, error)) from error
    except gymnasium.error.Error as error:
        if later := successor(name):
            raise TaskError(_gone(name, later)) from error
        if game := nearest_game(name, cutoff=1.0):
            raise TaskError(f"Task {name!r} cannot be made: Atari games have a prefix. Did you mean {game}?") from error
        # Of an environment that is known only the version is wrong.
        ways = " Atari games are written atari:pong, environments of a module of your own MODULE:ID."
        raise TaskError(f"Task {name!r} cannot be made: {error}{'' if other_versions(name) else ways}") from error
    except Exception as error:  # code that is not ours raises what it likes
        if kwargs and isinstance(error, TypeError | ValueError | KeyError | AssertionError):
            given = ", ".join(kwargs)
            raise UsageError(f"Task {name!r} does not take these keyword arguments ({given}): {error}") from error
        raise failed(f"Task {name!r}", "its constructor", error) from error
    take_over_remarks(name)  # of MuJoCo, if it was loaded only now
    if not isinstance(env, gymnasium.Env):
        raise TaskError(f"Task {name!r}: got a {type(env).__name__}, expected something that makes a gymnasium.Env.")
    fingerprint = space_fingerprint(name, env.observation_space, env.action_space)
    close_all(f"Task {name!r}", [env])
    # As ale-py registers it: one that a user registers may preprocess its frames.
    is_emulator = env.spec is not None and str(env.spec.entry_point).startswith("ale_py.")
    if is_emulator and len(fingerprint.observation_shape) > 1 and (game := nearest_game(name, cutoff=1.0)):
        warnings.warn(
            f"task {name} shows the emulator's own frames, {list(fingerprint.observation_shape)}, one at a time. "
            f"{game} is the same game with the usual preprocessing (84x84 grey, 4 frames, skip 4, no-ops).",
            stacklevel=1,
        )
    task = Task(name, fingerprint, Protocol(), kwargs)
    return PlayableTask(task, lambda num_envs, _num_threads: GymnasiumEnvs(make, num_envs, name), make_env=make)


def _missing_package(name: str, error: Exception) -> str:
    """Return the line about a package that is not installed, with the extra of ours that brings it."""
    spec = gymnasium.registry.get(name)
    entry_point = spec.entry_point if spec is not None and isinstance(spec.entry_point, str) else ""
    extra = next((extra for extra in _EXTRAS if entry_point.startswith(f"gymnasium.envs.{extra}")), None)
    if extra is None:
        return f"Task {name!r} needs a package that is not installed: {error}"
    # After the comma comes Gymnasium's own advice, which would install what our constraints do not hold.
    reason = str(error).partition(",")[0].strip().rstrip(".")
    return f"Task {name!r} needs a package that is not installed ({reason}): {install_hint(extra)}."


def _gone(name: str, later: str) -> str:
    return (
        f"Task {name!r} cannot be made: this version is gone from Gymnasium {gymnasium.__version__}. The nearest that "
        f"is there is {later}: --task {later}."
    )
