"""A Minari dataset as arrays: found, checked, and read an episode at a time.

Minari makes the environment that a dataset names where its metadata lack the spaces, and what is named may be any
program. Such a dataset is refused before Minari sees it; otherwise nothing in one is executed.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rldistill.adapters.minari_data.record import import_minari
from rldistill.envs.spaces import SpaceCodec, space_fingerprint
from rldistill.errors import DatasetError, RldistillError
from rldistill.tasks import ObservationFingerprint
from rldistill.types import Actions

if TYPE_CHECKING:
    from minari import MinariDataset

_METADATA = "metadata.json"
# What Minari, its storages and gymnasium raise for metadata and files that were altered.
_DAMAGE = (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError, NotImplementedError)


@dataclass(frozen=True)
class MinariEpisode:
    """T steps and the observations around them.

    Attributes:
        index: in the Minari dataset.
        observations: `[T + 1, *observation_shape]`, as the library has them.
        actions: `[T, *action_shape]`, numbered from 0.
        rewards: `[T]`, float64.
        terminated: `[T]`, bool.
        truncated: `[T]`, bool.
        infos: by name, `[T + 1, …]`, nested.
        metadata: what else stands there of the episode.
    """

    index: int
    observations: NDArray[Any]
    actions: Actions
    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    infos: Mapping[str, Any]
    metadata: Mapping[str, Any]

    def __post_init__(self) -> None:
        num_steps = len(self.rewards)
        counts = {"observations": len(self.observations) - 1} | {
            name: len(getattr(self, name)) for name in ("actions", "terminated", "truncated")
        }
        for name, count in counts.items():
            if count != num_steps:
                raise ValueError(f"{num_steps} rewards and {count + (name == 'observations')} {name}")


class MinariSource:
    """A Minari dataset, opened.

    Attributes:
        name: its id.
        label: how messages call it.
        metadata: of the whole dataset.
        fingerprint: what its spaces are to the library.
    """

    def __init__(self, dataset: "MinariDataset") -> None:
        self._dataset = dataset
        self.name: str = dataset.id
        self.label = f"Minari dataset {self.name!r}"
        self.metadata: Mapping[str, Any] = dataset.storage.metadata
        self.fingerprint = space_fingerprint(self.label, dataset.observation_space, dataset.action_space)
        self._codec = SpaceCodec(
            dataset.observation_space, dataset.action_space, self.fingerprint.observation_dtype, self.label
        )

    def name_parts(self, recorded: ObservationFingerprint) -> None:
        """Say what its vectors were made of: `to_minari` writes them whole, and parts stand in its record alone."""
        if not self.fingerprint.observation_parts:
            self.fingerprint = replace(self.fingerprint, observation_parts=recorded.observation_parts)

    @property
    def num_steps(self) -> int:
        """Steps of all its episodes."""
        return self._dataset.total_steps

    @property
    def environment(self) -> str | None:
        """The id of the environment that it says it was played on."""
        spec = self._dataset.env_spec
        return None if spec is None else spec.id

    @property
    def has_altered_images(self) -> bool:
        """Whether images lie there as JPEG: not as they were seen when it was played."""
        from minari.dataset.minari_storage import is_image_space

        found = [space for space in _plain_spaces(self._dataset.observation_space) if is_image_space(space)]
        return bool(found) and self._dataset.storage.jpeg_encoding

    def episodes(self) -> Iterator[MinariEpisode]:
        """Yield its episodes, each read when it is asked for.

        Raises:
            DatasetError: an episode is damaged; says which.
        """
        storage = self._dataset.storage
        for index in self._dataset.episode_indices.tolist():
            try:
                (raw,) = storage.get_episodes([index])
                (metadata,) = storage.get_episode_metadata([index])
                episode = self._decoded(index, raw, metadata)
            except _DAMAGE as error:
                raise DatasetError(
                    f"{self.label} is damaged: episode {index} cannot be read ({_one_line(error)}). Copy it again."
                ) from error
            yield episode

    def _decoded(self, index: int, raw: Mapping[str, Any], metadata: Mapping[str, Any]) -> MinariEpisode:
        return MinariEpisode(
            index,
            self._codec.encode_batch(raw["observations"]),
            self._codec.encode_actions(np.asarray(raw["actions"])),
            np.asarray(raw["rewards"], np.float64),
            np.asarray(raw["terminations"], np.bool_),
            np.asarray(raw["truncations"], np.bool_),
            raw.get("infos") or {},
            metadata,
        )


def open_source(dataset: "str | Path | MinariDataset") -> MinariSource:
    """Open a Minari dataset by its id, by its folder, or as it is, with the episodes that were chosen from it.

    Raises:
        RldistillError: Minari, or what it needs for this dataset, is not installed.
        DatasetError: there is no such dataset, it is damaged, or does not hold its spaces.
        TaskError: spaces that are not supported.
    """
    minari = import_minari()
    if not isinstance(dataset, str | Path):
        return MinariSource(dataset)
    path = _find(dataset)
    _check_spaces(path)
    try:
        opened = minari.MinariDataset(path)
    except ImportError as error:
        raise RldistillError(f"Minari dataset {dataset} needs another package: {_one_line(error)}") from error
    except _DAMAGE as error:
        raise DatasetError(f"Minari dataset {dataset} cannot be read: {_one_line(error)}.") from error
    return MinariSource(opened)


def _find(dataset: str | Path) -> Path:
    from minari.storage import get_dataset_path

    root = get_dataset_path()
    for path in (Path(dataset), Path(dataset) / "data", root / dataset / "data"):
        if (path / _METADATA).is_file():
            return path
    raise DatasetError(
        f"Minari dataset {str(dataset)!r} was not found: no such folder, and no such dataset in {root}. "
        "See `minari list local`, or get it by `minari download`."
    )


def _check_spaces(path: Path) -> None:
    try:
        metadata = json.loads((path / _METADATA).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(
            f"Minari dataset {path} cannot be read: its {_METADATA} is damaged ({_one_line(error)})."
        ) from error
    content = cast(dict[str, Any], metadata) if isinstance(metadata, dict) else {}
    missing = [name for name in ("observation_space", "action_space") if not isinstance(content.get(name), str)]
    if missing:
        raise DatasetError(
            f"Minari dataset {path} is refused: its {_METADATA} has no {' and no '.join(missing)}, and Minari would "
            "run whatever program it names as its environment to find out. Add them with Minari, if you trust it."
        )


def _plain_spaces(space: spaces.Space[Any]) -> Iterator[spaces.Space[Any]]:
    if isinstance(space, spaces.Dict):
        parts = list(space.spaces.values())
    elif isinstance(space, spaces.Tuple):
        parts = list(space.spaces)
    else:
        yield space
        return
    for part in parts:
        yield from _plain_spaces(part)


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")
