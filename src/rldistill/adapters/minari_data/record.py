"""What a Minari dataset says of ours beside Minari's own: in its metadata, its episodes' metadata and its infos.

    metadata.json       rldistill: {schema_version, provenance, identity}
    of an episode       rldistill: {episode, last_step: {action, reward, terminated, truncated}}
    infos               rldistill: {q_values or logits or mean, log_std or actions: [T + 1, …]}

`last_step` stands where an episode was given up: Minari ends episodes with an observation, so the last one of ours
becomes that, and what was decided on it lies here.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from rldistill.adapters.extras import optional_import
from rldistill.data import Manifest, Provenance
from rldistill.errors import DatasetError, UsageError
from rldistill.tasks import ObservationFingerprint, Task
from rldistill.types import ActionLayout

KEY = "rldistill"
SCHEMA_VERSION = 1

MINARI_ROLES = ("action", "reward", "terminated", "truncated")
"""Roles of the fields that have a place of their own in a Minari episode; all others are infos."""

# Minari's HDF5 storage imports the last two, and asks for one of them.
_PACKAGES = ("minari", "h5py", "PIL")


def import_minari() -> Any:  # noqa: ANN401 (a module)
    """Import Minari with what its storage needs.

    Raises:
        RldistillError: one of the packages is not installed; names the extra that brings them.
    """
    what = "Reading or writing Minari datasets"
    minari, *_ = [optional_import(name, what=what, extra="minari") for name in _PACKAGES]
    return minari


def dataset_record(manifest: Manifest) -> dict[str, Any]:
    """Return what a Minari dataset's metadata say of the dataset of ours that it was made of."""
    return {
        "schema_version": SCHEMA_VERSION,
        "provenance": manifest.provenance.to_dict(),
        "identity": manifest.identity,
    }


def recorded_provenance(metadata: Mapping[str, Any], label: str) -> Provenance | None:
    """Return how the data of a Minari dataset were made, where it was made of a dataset of ours.

    Raises:
        DatasetError: the record was altered, or is of a newer version.
    """
    record = metadata.get(KEY)
    if record is None:
        return None
    try:
        version = record["schema_version"]
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise DatasetError(
                f"{label} has a record of ours of version {version}, this rldistill reads up to {SCHEMA_VERSION}. "
                "It was written by a newer version: upgrade rldistill."
            )
        return Provenance.from_dict(record["provenance"])
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).rstrip(".").split())
        raise DatasetError(
            f"{label}: its record of ours contradicts itself: {reason}. It was altered after it was written. "
            "Write it again, or pass teacher=… to label its observations anew."
        ) from error


def observation_space(fingerprint: ObservationFingerprint) -> spaces.Box:
    """Return the space of whole observations, stacks included: bytes and integers bounded by their type."""
    dtype = np.dtype(fingerprint.observation_dtype)
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        return spaces.Box(bounds.min, bounds.max, fingerprint.observation_shape, dtype.type)
    return spaces.Box(-np.inf, np.inf, fingerprint.observation_shape, dtype.type)


def action_space(layout: ActionLayout) -> spaces.Space[Any]:
    """Return the space of actions as we number and shape them: from 0, and flat."""
    match layout.kind:
        case "discrete":
            return spaces.Discrete(layout.sizes[0])
        case "multi_discrete":
            return spaces.MultiDiscrete(list(layout.sizes))
        case "multi_binary":
            return spaces.MultiBinary(layout.sizes[0])
        case "box":
            return spaces.Box(np.array(layout.low, np.float32), np.array(layout.high, np.float32), dtype=np.float32)


def environment_spec(task: Task) -> EnvSpec | None:
    """Return the specification from which Minari makes a task's environment again; None where it cannot.

    Our Atari is no environment of Gymnasium, and one that was given as an object in Python has no name there.
    """
    registered = None if task.is_atari else gymnasium.registry.get(task.name.rpartition(":")[2])
    if registered is None or not isinstance(registered.entry_point, str):
        return None
    kwargs = dict(task.environment_kwargs)
    spec = EnvSpec.from_json(registered.to_json())
    spec.max_episode_steps = kwargs.pop("max_episode_steps", spec.max_episode_steps)
    spec.kwargs = {**spec.kwargs, **kwargs}
    return spec
