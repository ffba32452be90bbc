"""Reading a dataset: fields in memory, observations decoded where and when they are asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rldistill.data.codec import release_gil
from rldistill.data.layout import OBSERVATION, observation_fields, split_parts
from rldistill.data.manifest import DATASET_REMEDY, MINARI_PREFIX, Manifest, Provenance, load_manifest
from rldistill.data.shard import Shard, open_shard
from rldistill.data.store import StepStore
from rldistill.errors import DatasetError, MismatchError, NumericalError, reading_file


@dataclass(frozen=True)
class Segment:
    """Consecutive steps of one episode within one shard."""

    shard: str  # file name
    episode: int  # number of the episode
    first_step: int  # its place in the episode
    steps: range  # indices of its steps in the dataset
    has_last_observation: bool  # whether the episode ended with it


class Dataset:
    """A dataset folder, opened for reading; the manifest is read once, so a writer may be at work.

    Steps are numbered 0 to `num_steps` − 1 in the order in which they lie in the shards.
    All methods may be called from several threads.

    Attributes:
        path: the folder.
        manifest: what it listed when it was opened.
        store: its steps.
        seeds: of its collection, or of those that were joined.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        shards: Sequence[Shard],
        seeds: Sequence[int] | None = None,
        joins: tuple[Sequence[int], Sequence[int]] | None = None,
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.seeds = [manifest.provenance.seed] if seeds is None else list(seeds)
        self._shards = tuple(shards)
        # Of each that was joined, the number of its first episode here, and among beginnings; None: nothing was joined.
        self._joins = None if joins is None else (np.array(joins[0], np.int64), np.array(joins[1], np.int64))
        fields = manifest.provenance.step_fields
        self._target_names = tuple(name for name, spec in fields.items() if spec.role == "target")
        self._part_names = manifest.provenance.task.fingerprint.part_names
        self.store = StepStore(manifest.provenance.layout, shards, origin=f"Dataset {path}")
        release_gil()

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True, allow_empty: bool = False) -> Self:
        """Open a dataset and check it.

        Args:
            path: the folder.
            verify: whether to compare the shards' checksums, which reads every byte once.
            allow_empty: whether a dataset without a step is accepted.

        Raises:
            DatasetError: not a dataset, damaged, of a newer version, or empty; says which shard and what to do.
            NumericalError: a NaN or an infinity in a target or a reward; says where.
        """
        path = Path(path)
        with reading_file(f"Dataset {path}", DatasetError):
            manifest = load_manifest(path)
            if not manifest.num_steps and not allow_empty:
                raise DatasetError(
                    f"Dataset {path} is empty: it lists no step. Collect some: run its collection with --resume."
                )
            layout = manifest.provenance.layout
            dataset = cls(path, manifest, [open_shard(path, entry, layout, verify=verify) for entry in manifest.shards])
            dataset._check_episodes()
            dataset._check_finite()
            return dataset

    @classmethod
    def joined(cls, datasets: Sequence["Dataset"]) -> "Dataset":
        """Return several datasets of one task and one teacher as one: what they learn from adds up.

        Their episodes are numbered anew, those of each dataset after those of the one before. Fields that some of them
        lack are left out.

        Raises:
            MismatchError: they have different teachers or fingerprints, or the same episodes; names both.
        """
        first, shards, offset, offsets = datasets[0], list[Shard](), 0, list[int]()
        for index, dataset in enumerate(datasets):
            for other in datasets[:index]:
                _check_adds_up(other, dataset)
            for shard in dataset._shards:
                numbers = shard.tensors["segment.episode"] + offset
                shards.append(Shard(shard.file, {**shard.tensors, "segment.episode": numbers}))
            offsets.append(offset)
            offset += dataset.manifest.next_episode
        manifests = [dataset.manifest for dataset in datasets]
        fields = first.provenance.fields
        common = {name: fields[name] for name in fields if all(name in item.provenance.fields for item in manifests)}
        manifest = Manifest(
            replace(first.provenance, fields=common),
            target_num_steps=sum(item.target_num_steps for item in manifests),
            num_steps=sum(item.num_steps for item in manifests),
            num_episodes=sum(item.num_episodes for item in manifests),
            num_interrupted=sum(item.num_interrupted for item in manifests),
            next_episode=offset,
            is_complete=all(item.is_complete for item in manifests),
            shards=tuple(entry for item in manifests for entry in item.shards),
        )
        path = Path(" + ".join(str(dataset.path) for dataset in datasets))
        seeds = [item.provenance.seed for item in manifests]
        most = max(item.next_episode for item in manifests)
        return Dataset(path, manifest, shards, seeds, (offsets, [most * seeds.index(seed) for seed in seeds]))

    @property
    def provenance(self) -> Provenance:
        """How the data were made."""
        return self.manifest.provenance

    @property
    def num_steps(self) -> int:
        """Steps in the dataset."""
        return self.manifest.num_steps

    def targets(self, indices: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """Return all that the teacher gave for some steps, `[N, …]` by the name of the field."""
        return {name: self.field(name)[indices] for name in self._target_names}

    @property
    def episodes(self) -> NDArray[np.int64]:
        """`[num_steps]`, the episode of every step."""
        return self.store.episodes

    @property
    def beginnings(self) -> NDArray[np.int64]:
        """`[num_steps]`, of every step a number that all episodes have in common which begin as its own does.

        Of joined datasets of one seed, episodes of one number begin alike, and go on alike until chance parts them.
        """
        if self._joins is None:
            return self.episodes
        offsets, firsts = self._joins
        origins = np.searchsorted(offsets, self.episodes, side="right") - 1
        return self.episodes - offsets[origins] + firsts[origins]

    @property
    def steps_in_episode(self) -> NDArray[np.int64]:
        """`[num_steps]`, the place of every step in its episode, from 0."""
        return self.store.steps_in_episode

    @cached_property
    def episode_numbers(self) -> NDArray[np.int64]:
        """Numbers of the episodes of which there are steps, increasing."""
        return np.unique(self.store.segments["episode"])

    def field(self, name: str) -> NDArray[Any]:
        """Return the values of a field for all steps, `[num_steps, …]`; not to be written to."""
        return self.store.field(name)

    def segments(self) -> list[Segment]:
        """Return all segments in the order of the shards."""
        files = [shard.file for shard in self._shards for _ in shard.tensors["segment.episode"]]
        segments, starts = self.store.segments, self.store.segment_first_index
        columns = (segments["episode"], segments["first_step"], segments["has_last_observation"])
        return [
            Segment(file, int(episode), int(first_step), range(starts[i], starts[i + 1]), bool(has_last))
            for i, (file, episode, first_step, has_last) in enumerate(zip(files, *columns, strict=True))
        ]

    def episode_steps(self, episode: int) -> NDArray[np.int64]:
        """Return the indices of an episode's steps in time order, across shards."""
        return np.flatnonzero(self.store.episodes == episode)

    def observations(self, indices: Sequence[int] | NDArray[Any]) -> NDArray[Any]:
        """Decode the observations of some steps, stacked, zeros standing before an episode's first row.

        Each block that is needed is decompressed once.

        Args:
            indices: `[B]`, in any order, repeats allowed.

        Returns:
            `[B, *observation_shape]`, newly allocated.
        """
        return self.store.observations(np.asarray(indices, np.int64))

    def observation_parts(self, indices: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Decode the observations of some steps by the name of the part, `[B, …]` each; `observation` where it is one.

        Version 1 of the format keeps all parts in one field; they come out as version 2 keeps them.
        """
        parts = self.store.parts(indices)
        if len(parts) != len(self._part_names):
            parts = split_parts(parts[OBSERVATION], observation_fields(self.provenance.task.fingerprint))
        return dict(zip(self._part_names, parts.values(), strict=True))

    def last_observation(self, episode: int) -> NDArray[Any] | None:
        """Return the observation after an episode's last step, stacked; None where it has not ended."""
        segments = self.store.segments
        is_last = (segments["episode"] == episode) & (segments["has_last_observation"] == 1)
        if not is_last.any():
            return None
        return self.store.last_observations(np.flatnonzero(is_last))[0]

    def _check_episodes(self) -> None:
        """Check that every episode's segments follow one another, and that the manifest counts them right."""
        num_seen: dict[int, int] = {}
        ended: set[int] = set()
        for segment in self.segments():
            if segment.first_step != num_seen.get(segment.episode, 0) or segment.episode in ended:
                raise self._inconsistent(
                    f"shard {segment.shard} goes on with episode {segment.episode} at step {segment.first_step}, "
                    f"of which {num_seen.get(segment.episode, 0)} steps came before"
                )
            num_seen[segment.episode] = segment.first_step + len(segment.steps)
            if segment.has_last_observation:
                ended.add(segment.episode)
        running = {entry.episode: entry.num_steps for entry in self.manifest.running}
        counted: Mapping[str, tuple[object, object]] = {
            "num_episodes": (self.manifest.num_episodes, len(ended)),
            "num_interrupted": (self.manifest.num_interrupted, len(num_seen) - len(ended) - len(running)),
            "next_episode": (self.manifest.next_episode, max(num_seen, default=-1) + 1),
            "running": (running, {episode: num_seen.get(episode) for episode in running if episode not in ended}),
        }
        for name, (listed, found) in counted.items():
            if listed != found:
                raise self._inconsistent(f"the manifest says {name} {listed}, its shards say {found}")

    def _check_finite(self) -> None:
        """Check that no target or reward is a NaN or an infinity."""
        for name, spec in self.provenance.step_fields.items():
            if spec.role not in ("target", "reward"):
                continue
            values = self.field(name)
            is_finite = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
            if not is_finite.all():
                index = int(np.argmin(is_finite))
                shard = next(segment.shard for segment in self.segments() if index in segment.steps)
                raise NumericalError(
                    f"Dataset {self.path} holds a {name} that is not finite: {values[index].tolist()} "
                    f"in shard {shard}, episode {self.episodes[index]}, step {self.steps_in_episode[index]}. "
                    "The teacher gave it; check the teacher and collect anew with --overwrite."
                )

    def _inconsistent(self, reason: str) -> DatasetError:
        return DatasetError(
            f"Dataset {self.path} contradicts itself: {reason}. It was altered after it was written. {DATASET_REMEDY}"
        )


def _check_adds_up(first: Dataset, other: Dataset) -> None:
    """Check that two datasets of one task can be learned from together."""
    mine, theirs = first.provenance, other.provenance
    what = f"{first.path} and {other.path} are both of task {mine.task.name!r}"
    differences = mine.task.fingerprint.differences(theirs.task.fingerprint)
    if mine.teacher.hash != theirs.teacher.hash:
        names = (
            f"{mine.teacher.name} ({mine.teacher.hash[:12]}…) and {theirs.teacher.name} ({theirs.teacher.hash[:12]}…)"
        )
        differences = [f"teachers {names}", *differences]
    foreign = [origin.behaviour for origin in (mine, theirs) if origin.behaviour.startswith(MINARI_PREFIX)]
    if _acts(mine) != _acts(theirs) and not foreign:
        differences.append(f"a teacher that acts {_acts(mine)} and one that acts {_acts(theirs)}")
    if mine.observation_fields != theirs.observation_fields:
        differences.append(f"versions {mine.schema_version} and {theirs.schema_version} of the format")
    if differences:
        raise MismatchError(
            f"{what}, but with {'; '.join(differences)}: one head of a student cannot learn from both. "
            "Distil one of them, or collect both with one teacher."
        )
    if foreign:
        raise MismatchError(
            f"{what}, with episodes of {' and '.join(foreign)}: whether both hold the same ones is not known, and "
            "those held out of one might be trained on in the other. Combine them in Minari (to_minari, "
            "minari.combine_datasets, from_minari), or name one of them."
        )
    # What is stored of a step beside it changes no episode.
    same = mine.seed == theirs.seed and all(text.startswith("field ") for text in mine.differences(theirs))
    if same or {s.sha256 for s in first.manifest.shards} & {s.sha256 for s in other.manifest.shards}:
        raise MismatchError(
            f"{what} and of seed {mine.seed}: their episodes are the same, and those held out of one would be trained "
            "on in the other. Collect with another --seed, or name one of them."
        )


def _acts(provenance: Provenance) -> str:
    """Return how a student of these data is to act."""
    return provenance.teacher.behaviour or provenance.behaviour
