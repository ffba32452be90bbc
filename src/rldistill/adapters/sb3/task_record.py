"""Which task a teacher plays and what it saw of it, as far as its files say: inputs, statistics, dead inputs, a clock.

Order: environment → padding with zeros → time feature (1 − t/T) → statistics → network. A Dict observation is one
vector here, its keys sorted; the library concatenates them in the order of the space, so the columns of the first
layer are brought into ours. So it is with an image that goes into fully connected layers: the library turns its
channels to the front, a task may show them last.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import gymnasium
import numpy as np
import torch

from rldistill.adapters.normalizer_file import NormalizerRecord
from rldistill.adapters.sb3.beside import ATARI_ID, ZooFiles
from rldistill.adapters.sb3.data import Sb3Data, Space
from rldistill.envs import make_task
from rldistill.envs.atari import AtariOptions
from rldistill.envs.extended import observed_as
from rldistill.errors import PolicyFileError, TaskError
from rldistill.networks import InputNormalization
from rldistill.networks.layers import Layer, NetworkLayers
from rldistill.networks.torsos import image_shape, to_images
from rldistill.tasks import ATARI_PREFIX, UNNAMED_TASK, ObservationFingerprint, ObservationPart, Protocol, Task
from rldistill.types import ActionLayout

# An input that never moved has the variance that the wrapper started with, 1, divided by the count over 0.0001:
# 1e-10 after a million steps. Inputs that moved have 1e-5 and more.
_DEAD_VARIANCE = 1e-7


@dataclass(frozen=True)
class Part:
    """One part of an observation as a vector."""

    key: str  # in a Dict observation; empty otherwise
    space: Space
    start: int  # its first input, in the order of the library
    size: int  # how many inputs it has


def _parts_of(space: Space, *, image_features: Mapping[str, int] | None = None) -> list[Part]:
    """Return the parts of an observation sorted by key, with their sizes or the widths of their image features."""
    named: Mapping[str, Space] = space.parts if space.kind == "dict" else {"": space}
    parts: list[Part] = []
    start = 0
    for key, part in named.items():
        size = (image_features or {}).get(key, part.num_inputs)
        parts.append(Part(key, part, start, size))
        start += size
    return sorted(parts, key=lambda part: part.key)


def in_our_order(layers: NetworkLayers, space: Space, seen: tuple[int, ...]) -> NetworkLayers:
    """Return layers whose columns are in the order of our inputs: of the lowest, or of those above all images.

    `space` is that of the observation as the network saw it, `seen` the shape in which the task shows it: of an image,
    its channels may be last.

    Raises:
        ValueError: the layers take another number of inputs.
    """
    features = [len(torso[-1].weight) for torso in layers.images]
    keys = space.image_keys(float_images=layers.float_images) if features else []
    parts = _parts_of(space, image_features=dict(zip(keys, features, strict=True)))
    above = layers.head if layers.images else layers.torso
    num_inputs = (*(cell.input for cell in layers.memory), *above, layers.output)[0].weight.shape[1]
    if num_inputs != sum(part.size for part in parts):
        raise ValueError(f"{num_inputs} inputs, and observations of {space.description}")
    order = _turned_order(space, seen) or [part.start + place for part in parts for place in range(part.size)]
    if order == sorted(order):
        return layers
    index = torch.tensor(order)

    def turned(layer: Layer) -> Layer:
        return replace(layer, weight=layer.weight[:, index])

    if layers.memory:
        cell, *higher = layers.memory
        return replace(layers, memory=(replace(cell, input=turned(cell.input)), *higher))
    if above:
        lowest = (turned(above[0]), *above[1:])
        return replace(layers, head=lowest) if layers.images else replace(layers, torso=lowest)
    log_std, value = layers.log_std, layers.value
    if isinstance(log_std, Layer):
        log_std = turned(log_std)
    elif log_std is not None and log_std.dim() == 2:
        log_std = log_std[index]
    value = None if value is None else turned(value)
    return replace(layers, output=turned(layers.output), log_std=log_std, value=value)


def _turned_order(space: Space, seen: tuple[int, ...]) -> list[int]:
    """Return, for each element of an image as a task shows it, its place in that of the library; empty: the same."""
    if len(space.shape) != 3 or seen == space.shape:
        return []
    shown = torch.arange(math.prod(seen)).reshape(1, *seen)
    return to_images(shown).reshape(-1).argsort().tolist()


def observation_shape(space: Space) -> tuple[int, ...]:
    """Return the shape of an observation as our networks get it: a Dict or a choice is one vector."""
    return space.shape if space.kind == "box" else (space.num_inputs,)


def observation_dtype(space: Space) -> str:
    """Return its numpy name: float32 for all floating-point numbers, and for what is made into a vector.

    A vector of nothing but images is one of bytes.
    """
    if space.kind == "dict":
        has_images_alone = all(len(part.shape) == 3 and part.dtype == "uint8" for part in space.parts.values())
        return "uint8" if has_images_alone else "float32"
    is_whole = space.kind == "box" and space.dtype and not space.dtype.startswith("float")
    return space.dtype if is_whole else "float32"


def make_normalization(
    record: NormalizerRecord, space: Space, seen: tuple[int, ...], *, scale: float = 1.0
) -> InputNormalization | None:
    """Return the statistics for the network's inputs, in our order; parts without any are left untouched.

    Space and `seen` are those of `in_our_order`; `scale` is the factor that the library applies to the normalised
    observations of a space of images. Returns None where observations were not normalised at all.

    Raises:
        ValueError: statistics that do not fit the observations.
    """
    if not record.norm_obs:
        return None
    parts = _parts_of(space)
    unknown = sorted(record.statistics.keys() - {part.key for part in parts})
    if unknown:
        raise ValueError(f"statistics of {', '.join(map(repr, unknown))}, and observations {space.description}")
    mean: list[float] = []
    variance: list[float] = []
    untouched: list[tuple[int, int]] = []
    for part in parts:
        statistics = record.statistics.get(part.key)
        if statistics is None:
            untouched.append((len(mean), len(mean) + part.size))
            mean += [0.0] * part.size
            variance += [1.0] * part.size
        else:
            if statistics.mean.shape != part.space.shape:
                raise ValueError(
                    f"statistics of shape {list(statistics.mean.shape)} for {part.key or 'observations'} of shape "
                    f"{list(part.space.shape)}"
                )
            mean += statistics.mean.reshape(-1).tolist()
            variance += statistics.variance.reshape(-1).tolist()
    if order := _turned_order(space, seen):
        mean, variance = ([values[place] for place in order] for values in (mean, variance))
    # A factor behind a division is another divisor, and another limit.
    variances = tuple(value / scale**2 for value in variance)
    epsilon = max(record.epsilon / scale**2, record.positive_epsilon)
    return InputNormalization(tuple(mean), variances, epsilon, record.clip * scale, tuple(untouched))


def _dead_inputs_at_end(record: NormalizerRecord | None, *, time_feature: bool) -> int:
    """Return how many inputs at the end, before the clock, never moved from 0 while the statistics were taken."""
    statistics = record.statistics.get("") if record is not None else None
    if statistics is None or statistics.mean.ndim != 1:
        return 0
    end = len(statistics.mean) - time_feature
    dead = (statistics.variance[:end] <= _DEAD_VARIANCE) & (np.abs(statistics.mean[:end]) <= math.sqrt(_DEAD_VARIANCE))
    return 0 if dead.all() else int(np.argmin(dead[::-1]))


# Whose environments the zoo plays by sampling, beside these games.
_SAMPLED = ("ALE/", "MiniGrid-", "BabyAI-")
_VERSION = re.compile(r"-v\d+$")
# The length of an episode that TimeFeatureWrapper assumes by default.
_DEFAULT_EPISODE_LENGTH = 1000
_HISTORY = ("HistoryWrapper", "HistoryWrapperObsDict")
# Which environments lost inputs at their end between two versions; other inputs that never moved are still there.
_LOST_INPUTS = ("Ant",)


@dataclass(frozen=True)
class Teacher:
    """What is known of a teacher when its task is to be told."""

    data: Sb3Data
    zoo: ZooFiles
    record: NormalizerRecord | None
    layout: ActionLayout

    @property
    def space(self) -> Space:
        """Of its observations, as the network saw them."""
        return self.data.observation_space

    @property
    def clock(self) -> int | None:
        """T of its time feature, or None."""
        if not self.zoo.time_feature:
            return None
        return self.zoo.time_feature_steps or _episode_length(self.zoo.environment)


def check_stacking(
    space: Space, zoo: ZooFiles, record: NormalizerRecord | None, task: Task | None, *, source: str
) -> None:
    """Check that a teacher of stacked vectors plays a task that stacks them itself, since tasks here do not.

    RL-Zoo stacks in two ways. `HistoryWrapper` joins the latest observations and actions, before a
    normaliser; `frame_stack` (`VecFrameStack`) joins the latest observations after it, so that statistics
    are those of a single observation and the zeros after a reset are never normalised.

    Raises:
        PolicyFileError: the task does not stack, or the statistics are those of a single observation.
    """
    stacking = _stacking(space, zoo)
    if stacking is None:
        return
    if task is None or task.fingerprint.observation_shape != (space.num_inputs,):
        got = "no task" if task is None else f"{list(task.fingerprint.observation_shape)} from task {task.name!r}"
        raise PolicyFileError(
            f"{source} saw observations that {stacking} joins, as its config.yml says: got {got}, expected one vector "
            f"of {space.num_inputs} numbers. Tasks here do not join them: register an environment that does, and name "
            "it: --task module:EnvId."
        )
    statistics = None if record is None else record.statistics.get("")
    if statistics is not None and statistics.mean.shape != space.shape:
        raise PolicyFileError(
            f"{source} saw observations that {stacking} joins after they were normalised: got statistics of shape "
            f"{list(statistics.mean.shape)} for observations {list(space.shape)}. Let your environment normalise too, "
            "before it joins them, and leave the file out with normalizer none."
        )


def _stacking(space: Space, zoo: ZooFiles) -> str | None:
    """Return what joined observations to one vector, by name; None: nothing did."""
    if space.kind == "box" and len(space.shape) != 1:
        return None
    names = [name for name in zoo.wrappers if name in _HISTORY]
    if zoo.frame_stack > 1:
        names.append(f"VecFrameStack of {zoo.frame_stack} (frame_stack)")
    return " and ".join(names) or None


def record_task(teacher: Teacher, task: Task | None) -> Task:
    """Return the task that a teacher plays, with the fingerprint of what it saw. Raises ValueError: an odd clock."""
    name = teacher.zoo.environment or UNNAMED_TASK
    if task is not None:
        seen = _declared(teacher, task.fingerprint)
        if not seen.differences(observed_as(task, seen).fingerprint, says_frames=False):
            return replace(task, fingerprint=seen)
        # `fit_policy` will refuse it, with the name of the teacher's own environment as far as it is known.
        return Task(name, seen)
    return _atari_task(teacher) or Task(
        name, _own_fingerprint(teacher), environment_kwargs=teacher.zoo.environment_kwargs
    )


def is_sampled(zoo: ZooFiles) -> bool:
    """Return whether the zoo plays, and scores, the policies of such an environment by sampling."""
    name = zoo.environment or ""
    return ATARI_ID.fullmatch(name) is not None or name.startswith(_SAMPLED)


def unused_settings(zoo: ZooFiles, task: Task) -> Mapping[str, Any]:
    """Return the settings that the files give an environment and a task lacks whose user gave it none."""
    if not task.is_atari:
        return {} if task.environment_kwargs else zoo.environment_kwargs
    own = {item.name: getattr(task.protocol, item.name) for item in fields(Protocol)}
    if not zoo.is_atari or any(value != getattr(AtariOptions, name) for name, value in own.items()):
        return {}
    settings = _atari_settings(zoo)
    if "FIRE" not in task.fingerprint.action_set:
        del settings["fire_at_reset"]
    return {name: value for name, value in settings.items() if name in own and value != own[name]}


def _atari_settings(zoo: ZooFiles) -> dict[str, Any]:
    """Return how the zoo made a game, as settings of a task of ours: its wrapper presses FIRE after a reset."""
    return {"fire_at_reset": True, "max_pool": zoo.atari_options.get("frame_skip") != 1, **zoo.atari_options}


def _own_fingerprint(teacher: Teacher, *, padding: int | None = None) -> ObservationFingerprint:
    space, clock = teacher.space, teacher.clock
    shape = observation_shape(space)
    if clock is not None and len(shape) != 1:
        raise ValueError(f"a time feature in observations of {space.description}")
    if padding is None:
        dead = _dead_inputs_at_end(teacher.record, time_feature=clock is not None)
        padding = dead if _VERSION.sub("", teacher.zoo.environment or "") in _LOST_INPUTS else 0
    return ObservationFingerprint(
        shape,
        observation_dtype(space),
        teacher.layout,
        observation_parts=_parts(space, has_clock=clock is not None),
        zero_padding=padding,
        time_feature=clock,
    )


def _parts(space: Space, *, has_clock: bool) -> tuple[ObservationPart, ...]:
    """Return what a Dict observation was made of; the wrapper appended its clock to the part `observation`."""
    if space.kind != "dict":
        return ()
    parts: list[ObservationPart] = []
    for part in _parts_of(space):
        shape = part.space.shape if part.space.kind == "multi_binary" else observation_shape(part.space)
        parts.append(ObservationPart(part.key, shape, "uint8" if part.space.dtype == "uint8" else "float32"))
    if has_clock:
        last = parts[-1]
        if last.name != "observation" or len(last.shape) != 1:
            raise ValueError(f"a time feature that is not the last of its inputs: {space.description}")
        parts[-1] = replace(last, shape=(last.shape[0] - 1,))
    return tuple(parts)


def _declared(teacher: Teacher, task: ObservationFingerprint) -> ObservationFingerprint:
    """Return what a teacher saw of a task that the user names; what does not fit is left to be found unfit."""
    shape = observation_shape(teacher.space)
    is_extended = bool(task.zero_padding) or task.time_feature is not None
    if len(shape) == 1 and len(task.observation_shape) == 1 and not is_extended:
        missing = shape[0] - task.observation_shape[0] - (teacher.clock is not None)
        dead = _dead_inputs_at_end(teacher.record, time_feature=teacher.clock is not None)
        own = _own_fingerprint(teacher, padding=missing if 0 <= missing <= dead else None)
        own = _as_shown(own, task, () if teacher.record is None else teacher.record.statistics.keys())
        return replace(own, action_set=task.action_set) if _same_choices(teacher.layout, task) else own
    turned = len(shape) == 3 and image_shape(task.observation_shape) == shape
    if (task.observation_shape == shape or turned) and _same_choices(teacher.layout, task):
        game = _atari_task(teacher) if task.grayscale is not None else None
        frames = task if game is None else game.fingerprint
        return replace(task, action_layout=teacher.layout, frame_skip=frames.frame_skip, max_pool=frames.max_pool)
    return _own_fingerprint(teacher)


def _as_shown(
    own: ObservationFingerprint, task: ObservationFingerprint, normalised: Collection[str]
) -> ObservationFingerprint:
    """Return the fingerprint of a vector with those images in it that a task shows in another way.

    Their channels may be last, and they are bytes also where statistics make floats of them.
    """
    shown = {part.name: part for part in task.observation_parts if part.is_image}

    def fits(part: ObservationPart) -> bool:
        if part.name not in shown:
            return False
        image = shown[part.name].shape
        return image_shape(image) == part.shape if part.is_image else part.name in normalised and image == part.shape

    parts = tuple(shown[part.name] if fits(part) else part for part in own.observation_parts)
    dtype = task.observation_dtype if parts and parts == task.observation_parts else own.observation_dtype
    return replace(own, observation_parts=parts, observation_dtype=dtype)


def _same_choices(layout: ActionLayout, task: ObservationFingerprint) -> bool:
    return (layout.kind, layout.sizes) == (task.action_layout.kind, task.action_layout.sizes)


def _atari_task(teacher: Teacher) -> Task | None:
    """Return the task of an Atari game of the zoo, `PongNoFrameskip-v4`; None where it is no such game."""
    found = ATARI_ID.fullmatch(teacher.zoo.environment or "")
    if found is None or not teacher.zoo.is_atari:
        return None
    game = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", found[1]).lower()
    try:
        task = make_task(f"{ATARI_PREFIX}{game}", _atari_settings(teacher.zoo) | _frame_size(teacher.space)).task
    except TaskError:
        return None
    fingerprint = task.fingerprint
    fits = fingerprint.observation_shape == teacher.space.shape and _same_choices(teacher.layout, fingerprint)
    return replace(task, fingerprint=replace(fingerprint, action_layout=teacher.layout)) if fits else None


def _frame_size(space: Space) -> dict[str, Any]:
    """Return height and width of stacked frames, which the zip says."""
    return dict(zip(("height", "width"), space.shape[1:], strict=True)) if len(space.shape) == 3 else {}


def _episode_length(environment: str | None) -> int:
    """Return the T of a time feature: the length of an episode in any version of the environment that is registered."""
    family = _VERSION.sub("", environment or "")
    registry = cast(Mapping[str, Any], gymnasium.registry)
    lengths = [spec.max_episode_steps for name, spec in registry.items() if _VERSION.sub("", name) == family]
    return next((length for length in lengths if length), _DEFAULT_EPISODE_LENGTH)
