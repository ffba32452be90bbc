"""The manifest of a dataset: where the data come from, what fields there are, which shards count.

`manifest.json` is replaced in one step after each shard; what it lists is what has been
reported written. A shard file that it does not list is left over from a kill and means
nothing. The format is described for strangers in `docs/dataset-format.md`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast, get_args

from rldistill.checks import check_kind, check_name, check_share, check_whole
from rldistill.data.layout import (
    OBSERVATION,
    FieldSpec,
    StepLayout,
    observation_fields,
    step_fields,
    whole_observation_field,
)
from rldistill.errors import DatasetError, RldistillError, shown
from rldistill.limits import JSON, is_file, read_file, read_json
from rldistill.storage import canonical_json, check_checksum, sha256_bytes, with_checksum, write_json
from rldistill.tasks import Task
from rldistill.types import FURTHER_FIELDS, OutputKind

MANIFEST_NAME = "manifest.json"
FORMAT_NAME = "rldistill-dataset"
SCHEMA_VERSION = 2
MINARI_PREFIX = "minari:"
"""In `behaviour`, before the id of the Minari dataset that the episodes are from: who played them it does not say."""
DATASET_REMEDY = "Copy the dataset again, or collect anew with --overwrite."
# Within these, a manifest and a shard's header say whose they are.
_NUM_FIRST_BYTES = 10_000
# Fields of a manifest that are plain numbers and truth values.
_COUNTS = ("target_num_steps", "num_steps", "num_episodes", "num_interrupted", "next_episode", "is_complete")


@dataclass(frozen=True)
class TeacherEntry:
    """Who gave the targets."""

    name: str  # for people, such as the file's name
    hash: str  # the policy file's hash, its identity everywhere
    output_kind: OutputKind  # `q_values`, `logits`, `gaussian` or `actions`
    path: str | None = None  # where its file was, None if it had none: a hint, the hash decides
    # Of observations, by the running statistics that it was trained with: `mean` and `variance` of every element,
    # `epsilon` and `clip`; None: it takes observations as they are. The student takes it over.
    normalization: Mapping[str, Any] | None = None
    # What a user said of a file that does not say it itself: `outputs`, `input_scale`, `activation`, `normalizer`,
    # `behaviour`, as far as they were said; None: nothing.
    reading: Mapping[str, Any] | None = None
    behaviour: str | None = None  # how it acts, where the data were played otherwise; None: as the data were played
    num_parameters: int | None = None  # of its network, as far as it is known
    # Where it is several policies: `choose`, what says whose a step is, and `teachers`, in order the `name`, `hash`,
    # `path` and `reading` of each; None: it is one.
    several: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_name(self, "name", "hash")
        if self.output_kind not in get_args(OutputKind):
            raise ValueError(f"output_kind must be {' or '.join(get_args(OutputKind))}, got {shown(self.output_kind)}.")
        for name, kind in (("path", str), ("normalization", Mapping), ("reading", Mapping), ("several", Mapping)):
            if getattr(self, name) is not None:
                check_kind(self, kind, name)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data; what came to the format later stands there only where it says something."""
        optional = ("normalization", "reading", "behaviour", "num_parameters", "several")
        return {key: value for key, value in asdict(self).items() if value is not None or key not in optional}

    @property
    def for_student(self) -> dict[str, Any]:
        """What a student's file says of its teacher: that by which it is found again."""
        kept = ("name", "hash", "path", "reading", "several")
        return {key: value for key, value in self.to_dict().items() if key in kept}


@dataclass(frozen=True)
class Provenance:
    """How the data are made; a collection can be resumed only with all of it equal."""

    task: Task  # environment, fingerprint and protocol
    teacher: TeacherEntry  # who gave the targets
    behaviour: str  # how actions were chosen, such as `greedy`
    seed: int  # of the collection
    exploration_epsilon: float  # chance that a decision was a uniformly random action
    fields: Mapping[str, FieldSpec]  # what every step holds, by name; observations of several parts have one for each

    def __post_init__(self) -> None:
        if not self.observation_fields:
            raise ValueError(f"a field must have the role 'observation', got {dict(self.fields)}.")
        stack, shape = self.frame_stack, self.task.fingerprint.observation_shape
        if stack > 1 and shape[:1] != (stack,):
            raise ValueError(f"observations of shape {list(shape)} are no stacks of {stack} frames")
        check_name(self, "behaviour")
        check_whole(self, "seed", least=0)
        check_share(self, "exploration_epsilon")

    @property
    def frame_stack(self) -> int:
        """Rows that make one observation."""
        return self.task.fingerprint.frame_stack

    @property
    def observation_fields(self) -> dict[str, FieldSpec]:
        """The fields whose rows lie in blocks."""
        return {name: spec for name, spec in self.fields.items() if spec.role == "observation"}

    @property
    def schema_version(self) -> int:
        """2 where observations have several fields, else 1: such a dataset is the same in both."""
        return 1 if list(self.observation_fields) == [OBSERVATION] else 2

    @property
    def step_fields(self) -> dict[str, FieldSpec]:
        """The fields that lie in arrays, one value per step."""
        return {name: spec for name, spec in self.fields.items() if spec.role != "observation"}

    @property
    def layout(self) -> StepLayout:
        """What a store needs to know of the fields."""
        return StepLayout(
            self.task.fingerprint.observation_shape, self.frame_stack, self.observation_fields, self.step_fields
        )

    def differences(self, other: "Provenance") -> list[str]:
        """List what differs, as `name: mine against theirs`; empty when the two match."""
        mine, theirs = self._flat(), other._flat()
        differences = [
            f"{name}: {mine.get(name)} against {theirs.get(name)}"
            for name in [*mine, *(name for name in theirs if name not in mine)]
            if mine.get(name) != theirs.get(name)
        ]
        return differences + self.task.fingerprint.differences(other.task.fingerprint)

    def _flat(self) -> dict[str, Any]:
        return {
            "task": self.task.name,
            "environment_kwargs": dict(self.task.environment_kwargs),
            **{f"protocol {name}": value for name, value in self.task.protocol.to_dict().items()},
            "teacher hash": self.teacher.hash,
            "teacher output_kind": self.teacher.output_kind,
            "behaviour": self.behaviour,
            "seed": self.seed,
            "exploration_epsilon": self.exploration_epsilon,
            # The fields of observations follow from the fingerprint and the version of the format.
            **{f"field {name}": f"{s.dtype} {list(s.shape)} {s.role}" for name, s in self.step_fields.items()},
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "task": self.task.to_dict(),
            "teacher": self.teacher.to_dict(),
            "behaviour": self.behaviour,
            "seed": self.seed,
            "exploration_epsilon": self.exploration_epsilon,
            "frame_stack": self.frame_stack,
            "fields": {name: asdict(spec) | {"shape": list(spec.shape)} for name, spec in self.fields.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Provenance":
        """Read what `to_dict` wrote."""
        provenance = cls(
            Task.from_dict(data["task"]),
            TeacherEntry(**data["teacher"]),
            data["behaviour"],
            data["seed"],
            data["exploration_epsilon"],
            {name: FieldSpec.from_dict(spec) for name, spec in data["fields"].items()},
        )
        teacher = provenance.teacher
        has_several = teacher.several is not None
        wanted = step_fields(provenance.task.fingerprint, teacher.output_kind, has_several=has_several)
        found = {n: s for n, s in provenance.step_fields.items() if not (n in FURTHER_FIELDS and s.role == "target")}
        if found != {name: spec for name, spec in wanted.items() if spec.role != "observation"}:
            raise ValueError("its fields are not those of its task's actions and its teacher's outputs")
        if provenance.frame_stack != data["frame_stack"]:
            raise ValueError(f"frame_stack {data['frame_stack']} is not the fingerprint's {provenance.frame_stack}")
        fingerprint = provenance.task.fingerprint
        if provenance.observation_fields not in (observation_fields(fingerprint), whole_observation_field(fingerprint)):
            raise ValueError("dtype and shape of its observation field are not the fingerprint's")
        return provenance


@dataclass(frozen=True)
class ShardEntry:
    """One payload file, as the manifest lists it."""

    file: str
    sha256: str
    num_bytes: int
    num_steps: int
    num_segments: int

    def __post_init__(self) -> None:
        check_whole(self, "num_bytes", "num_steps", "num_segments", least=0)
        # A manifest is data from strangers: no name in it may lead out of the folder.
        check_name(self, "file")
        if Path(self.file).name != self.file or not self.file.endswith(".safetensors"):
            raise ValueError(f"{shown(self.file)} is not the name of a shard")


@dataclass(frozen=True)
class RunningEpisode:
    """An episode of which steps are listed and which has not ended: a collection goes on from it."""

    episode: int
    num_steps: int

    def __post_init__(self) -> None:
        check_whole(self, "episode", "num_steps", least=0)


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says."""

    provenance: Provenance  # how the data are made
    target_num_steps: int  # steps the collection is to reach
    num_steps: int = 0  # steps listed
    num_episodes: int = 0  # episodes that ended, with all their steps listed
    num_interrupted: int = 0  # episodes given up before their end; their steps are listed and valid
    next_episode: int = 0  # smallest number above every episode of which steps are listed
    is_complete: bool = False  # whether the collection reached its target
    running: tuple[RunningEpisode, ...] = ()  # episodes that wait to be continued
    # Files that count, in the order in which they were written.
    shards: tuple[ShardEntry, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        check_whole(self, "target_num_steps", "num_steps", "num_episodes", "num_interrupted", "next_episode", least=0)
        check_kind(self, bool, "is_complete")
        listed = sum(shard.num_steps for shard in self.shards)
        if listed != self.num_steps:
            raise ValueError(f"num_steps is {self.num_steps}, but its shards hold {listed}")

    @property
    def identity(self) -> str:
        """SHA-256 over the shards' own: which data these are, however the folder is called."""
        return sha256_bytes(canonical_json([shard.sha256 for shard in self.shards]).encode())

    def with_shard(self, shard: ShardEntry) -> "Manifest":
        """Return the manifest that lists one more shard."""
        return replace(self, shards=(*self.shards, shard), num_steps=self.num_steps + shard.num_steps)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "format": FORMAT_NAME,
            "schema_version": self.provenance.schema_version,
            **self.provenance.to_dict(),
            **{name: getattr(self, name) for name in _COUNTS},
            "running": [asdict(entry) for entry in self.running],
            "shards": [asdict(shard) for shard in self.shards],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Manifest":
        """Read what `to_dict` wrote."""
        return cls(
            Provenance.from_dict(data),
            **{name: data[name] for name in _COUNTS},
            running=tuple(RunningEpisode(**entry) for entry in data["running"]),
            shards=tuple(ShardEntry(**shard) for shard in data["shards"]),
        )


def is_dataset_folder(folder: Path) -> bool:
    """Whether a folder holds a dataset of ours, of whatever version, its manifest whole or damaged."""
    try:
        return _read_json(folder)["format"] == FORMAT_NAME
    except DatasetError:
        return _is_damaged_dataset(folder)


def _is_damaged_dataset(folder: Path) -> bool:
    """Whether a folder without a whole manifest holds what is left of a dataset: the beginning of one, or a shard."""
    if FORMAT_NAME.encode() in _beginning(folder / MANIFEST_NAME):
        return True
    return any(b'"segment.episode"' in _beginning(path) for path in folder.glob("shard-*.safetensors"))


def _beginning(path: Path) -> bytes:
    """Return a file's first bytes, none where it cannot be read or is no file: a pipe might never end."""
    if not is_file(path):
        return b""
    try:
        with path.open("rb") as file:
            return file.read(_NUM_FIRST_BYTES)
    except OSError:
        return b""


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest, durably and in one step.

    Raises:
        DiskFullError: no space; the old manifest still stands.
    """
    write_json(folder / MANIFEST_NAME, with_checksum(manifest.to_dict()))


def load_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a dataset folder.

    Raises:
        DatasetError: not a dataset, unreadable, of a newer version, or with counts that contradict each other.
    """
    data = _read_json(folder)
    version = data.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise DatasetError(
            f"Dataset {folder} has schema version {version}, this rldistill reads up to {SCHEMA_VERSION}. "
            "It was written by a newer version: upgrade rldistill."
        )
    try:
        if version not in range(1, SCHEMA_VERSION + 1):
            raise ValueError(f"schema_version is {shown(version)}")
        check_checksum(data)
        manifest = Manifest.from_dict(data)
        if manifest.provenance.schema_version != version:
            raise ValueError(f"schema_version {version} has other fields of observations")
        # Written by a version that had no checksum; or the very name of it was altered.
        if "sha256" not in data and (unknown := data.keys() - manifest.to_dict().keys()):
            raise ValueError(f"its key {min(unknown)!r} is unknown")
        return manifest
    except (KeyError, TypeError, ValueError, AttributeError, RldistillError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).rstrip(".").split())
        raise DatasetError(
            f"Manifest of dataset {folder} contradicts itself: {reason}. It was altered after it was written. "
            f"{DATASET_REMEDY}"
        ) from error


def _read_json(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST_NAME
    try:
        data = read_json(read_file(path, JSON.num_bytes))
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "does not exist" if not folder.exists() else f"has no {MANIFEST_NAME}"
        raise DatasetError(
            f"{folder} is not a dataset: it {what}. Give the folder that `rldistill collect` wrote."
        ) from error
    except OSError as error:
        raise DatasetError(
            f"Dataset {folder}: its {MANIFEST_NAME} cannot be read: {error.strerror}. Check what you may do there."
        ) from error
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise DatasetError(
            f"Dataset {folder} cannot be read: its {MANIFEST_NAME} is damaged ({reason}). {DATASET_REMEDY}"
        ) from error
    if not isinstance(data, dict) or cast(dict[str, Any], data).get("format") != FORMAT_NAME:
        reason = f"its {MANIFEST_NAME} does not say format {FORMAT_NAME!r}"
        if _is_damaged_dataset(folder):
            raise DatasetError(f"Dataset {folder} cannot be read: {reason}. {DATASET_REMEDY}")
        raise DatasetError(f"{folder} is not a dataset: {reason}. Give the folder that `rldistill collect` wrote.")
    return cast(dict[str, Any], data)
