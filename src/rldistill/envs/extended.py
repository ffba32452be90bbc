"""What some policies see beside their environment's observation: zeros, and a clock.

Environments lost inputs between versions (Ant its 84 contact forces), and policies trained
with a time feature see how much of an episode is left. Both are appended to the vector, the
zeros first: `environment's own ~ 0 0 … 0 ~ 1 − t / T`, t steps since the reset.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rldistill.envs.protocol import EpisodeEnvs, StepBatch
from rldistill.errors import UsageError
from rldistill.observations import flat
from rldistill.tasks import ObservationFingerprint, Task
from rldistill.types import Actions


@dataclass(frozen=True)
class ObservationSettings:
    """What is appended to an observation."""

    zero_padding: int = 0  # number of zeros
    time_feature: int | None = None  # T, where a clock follows; None: no clock

    @classmethod
    def of(cls, fingerprint: ObservationFingerprint) -> "ObservationSettings":
        """Return what a fingerprint says."""
        return cls(fingerprint.zero_padding, fingerprint.time_feature)

    @classmethod
    def from_kwargs(cls, options: Mapping[str, Any]) -> tuple["ObservationSettings", dict[str, Any]]:
        """Return the settings among a task's options, and the options that are left.

        Raises UsageError: a value that is no whole number in range.
        """
        names = [item.name for item in fields(cls)]
        for name, lowest in zip(names, (0, 1), strict=True):
            value = options.get(name, lowest)
            is_absent = value is None and name == "time_feature"
            if not is_absent and (type(value) is not int or value < lowest):
                raise UsageError(f"{name}: got {value!r}, expected a whole number, {lowest} or more.")
        settings = {name: options[name] for name in names if name in options}
        return cls(**settings), {name: value for name, value in options.items() if name not in names}

    @property
    def num_appended(self) -> int:
        """Numbers that an observation grows by."""
        return self.zero_padding + (self.time_feature is not None)


def extend_fingerprint(
    name: str, fingerprint: ObservationFingerprint, settings: ObservationSettings
) -> ObservationFingerprint:
    """Return the fingerprint of a task's extended observations. Raises UsageError: they are no float32 vectors."""
    if not settings.num_appended:
        return fingerprint
    if len(fingerprint.observation_shape) != 1 or fingerprint.observation_dtype != "float32":
        raise UsageError(
            f"Task {name!r}: zero_padding and time_feature extend float32 vectors, got observations "
            f"{fingerprint.observation_dtype} {list(fingerprint.observation_shape)}. Leave them out."
        )
    return replace(
        fingerprint,
        observation_shape=(fingerprint.observation_shape[0] + settings.num_appended,),
        zero_padding=settings.zero_padding,
        time_feature=settings.time_feature,
    )


def observed_as(task: Task, fingerprint: ObservationFingerprint) -> Task:
    """Return a task's record with what a policy of this fingerprint needs appended to its observations.

    The task comes back as it is where the user's own settings extend it already, and where the policy does not fit it.
    """
    wanted = ObservationSettings.of(fingerprint)
    if not wanted.num_appended or ObservationSettings.of(task.fingerprint).num_appended:
        return task
    try:
        extended = extend_fingerprint(task.name, task.fingerprint, wanted)
    except UsageError:  # not a vector: nothing can be appended
        return task
    return task if fingerprint.differences(extended) else replace(task, fingerprint=extended)


def extend_observations(
    observations: NDArray[Any], num_steps: NDArray[np.int64], settings: ObservationSettings
) -> NDArray[Any]:
    """Return observations as vectors `[N, D]` with zeros and a clock appended, after `[N]` steps since the reset."""
    observations = flat(observations, "float32")
    appended = np.zeros((len(observations), settings.num_appended))
    if settings.time_feature is not None:
        appended[:, -1] = 1 - num_steps / settings.time_feature
    return np.concatenate([observations, appended.astype(observations.dtype)], axis=1)


class ExtendedEnvs:
    """Environments that append zeros and a clock to every observation, as `EpisodeEnvs`."""

    def __init__(self, envs: EpisodeEnvs, settings: ObservationSettings) -> None:
        self._envs = envs
        self.num_envs = envs.num_envs
        self._settings = settings
        self._num_steps = np.zeros(envs.num_envs, np.int64)
        self._ended = np.zeros(envs.num_envs, np.bool_)

    def reset(self, slots: Sequence[int], seeds: Sequence[int] | None) -> NDArray[np.generic]:
        """Begin new episodes, and start their clocks."""
        observations = self._envs.reset(slots, seeds)
        self._num_steps[list(slots)] = 0
        self._ended[list(slots)] = False
        return self._extended(observations)

    def step(self, actions: Actions) -> StepBatch:
        """Apply one action per slot; the clocks of ended episodes stand still."""
        step = self._envs.step(actions)
        self._num_steps += ~self._ended
        self._ended |= step.ended
        return replace(step, observations=self._extended(step.observations))

    def start_ids(self) -> NDArray[np.int64] | None:
        """Return what the environments return."""
        return self._envs.start_ids()

    def info(self, name: str, slots: Iterable[int]) -> list[Any]:
        """Return what the environments told."""
        return self._envs.info(name, slots)

    def close(self) -> None:
        """Close the environments."""
        self._envs.close()

    def _extended(self, observations: NDArray[Any]) -> NDArray[np.generic]:
        return extend_observations(observations, self._num_steps, self._settings)
