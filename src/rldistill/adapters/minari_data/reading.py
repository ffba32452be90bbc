"""What is read from Minari: episodes, with a teacher's outputs for every step, as a dataset of ours.

A dataset that `to_minari` wrote has the outputs in it (`writing.py` says where). Any other gets those of a teacher.

A dataset may come from a stranger. Minari makes the environment that a dataset names where its metadata have no
spaces, and the name may be any program's. Such a dataset is refused before Minari sees it. Nothing else is executed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rldistill.adapters.load import detect_kind, load_policy, policy_file_of
from rldistill.adapters.minari_data.writing import KEY, SCHEMA_VERSION, import_minari
from rldistill.data import Dataset, DatasetWriter, FieldSpec, Provenance, as_targets, step_fields
from rldistill.data.manifest import MINARI_PREFIX
from rldistill.envs import make_task
from rldistill.envs.extended import ObservationSettings, extend_observations, observed_as
from rldistill.envs.spaces import SpaceCodec, space_fingerprint
from rldistill.errors import DatasetError, EnvironmentFaultError, MismatchError, UsageError, first_line
from rldistill.events import Callback, ProgressEvent, StopRequestedError, notify, tell
from rldistill.observations import flat
from rldistill.policies import Policy, as_played_by, fit_policy
from rldistill.policies.entry import teacher_entry
from rldistill.tasks import ObservationFingerprint, Task
from rldistill.types import PolicyOutput

if TYPE_CHECKING:
    from minari import MinariDataset

# What Minari, h5py, json and gymnasium raise for files that were altered, and our own records too.
_DAMAGE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError, RuntimeError, ImportError),
    *(UsageError, EnvironmentFaultError),
)


def from_minari(
    dataset: "str | Path | MinariDataset",
    out: str | Path,
    *,
    teacher: str | Path | Policy | None = None,
    task: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Dataset:
    """Write a Minari dataset as a dataset folder that `rldistill distill` reads.

    Args:
        dataset: id of a local dataset, its folder, or a `MinariDataset` with the episodes that are wanted.
        out: dataset folder.
        teacher: gives its outputs for the observations: a policy, or a file that says of itself what it is (load others
            by `load_policy`, which takes what they do not say). May be None, or the same teacher, where `to_minari`
            wrote the dataset: its outputs lie there and are taken as they are. Another teacher labels them anew.
        task: which head of the teacher labels, or what it is to be recorded as playing; None: the teacher's own.
        device: of a teacher that is loaded: auto, cpu or cuda.
        overwrite: delete a dataset in `out` first.
        callbacks: receive events and may stop the conversion.

    Returns:
        The new dataset, opened.

    Raises:
        RldistillError: Minari is not installed.
        UsageError: no teacher, and the dataset holds no outputs of one.
        DatasetError: no such dataset, or damaged.
        MismatchError: its spaces are not the teacher's; names both.
        OutputExistsError: `out` holds something.
        NumericalError: a reward or an output is not finite; says where.
        KeyboardInterrupt: stopped; what the manifest lists is there.
    """
    source = _opened(dataset)
    label, num_steps = f"Minari dataset {source.id!r}", source.total_steps
    if not num_steps:
        raise DatasetError(f"{label} is empty: it holds no step.")
    provenance, episodes = _with_outputs(source, label, teacher, task, device, callbacks)
    with DatasetWriter.create(Path(out), provenance, target_num_steps=num_steps, overwrite=overwrite) as writer:
        try:
            for episode in episodes:
                _append(writer, episode, label)
                # Steps that Minari had no place for come on top of those that it counts.
                done = min(writer.num_steps, num_steps)
                notify(callbacks, ProgressEvent("convert", done, num_steps, "steps"))
        except StopRequestedError:
            raise KeyboardInterrupt(f"stopped; {writer.num_listed_steps:,} steps are written.") from None
        writer.finish()
    return Dataset.open(out, verify=False)


def _opened(dataset: "str | Path | MinariDataset") -> "MinariDataset":
    minari = import_minari()
    if not isinstance(dataset, str | Path):
        return dataset
    from minari.storage import get_dataset_path

    root, folder = get_dataset_path(), Path(dataset)
    places = (folder, folder / "data", root / folder / "data")
    path = next((place for place in places if (place / "metadata.json").is_file()), None)
    if path is None:
        raise DatasetError(
            f"Minari dataset {str(dataset)!r} was not found: no such folder, and no such dataset in {root}. "
            "See `minari list local`, or get it by `minari download`."
        )
    try:
        metadata = json.loads((path / "metadata.json").read_text(encoding="utf-8"))
    except _DAMAGE as error:
        reason = f"its metadata.json is damaged ({first_line(error)})"
        raise DatasetError(f"Minari dataset {path} cannot be read: {reason}.") from error
    content = cast(dict[str, Any], metadata) if isinstance(metadata, dict) else {}
    missing = [name for name in ("observation_space", "action_space") if not isinstance(content.get(name), str)]
    if missing:
        raise DatasetError(
            f"Minari dataset {path} is refused: its metadata.json has no {' and no '.join(missing)}, and Minari would "
            "run whatever program it names as its environment to find out. Add them with Minari, if you trust it."
        )
    try:
        return minari.MinariDataset(path)
    except _DAMAGE as error:
        raise DatasetError(f"Minari dataset {dataset} cannot be read: {first_line(error)}.") from error


def _with_outputs(
    source: "MinariDataset",
    label: str,
    teacher: str | Path | Policy | None,
    task: str | None,
    device: str,
    callbacks: Sequence[Callback],
) -> tuple[Provenance, Iterator["_Episode"]]:
    """Return how the new dataset is made, and its episodes with the outputs that they have or a teacher's."""
    path = None
    if isinstance(teacher, str | Path):
        # Our own files say which tasks they play, and may play one that cannot be made here.
        path = policy_file_of(Path(teacher))
        teacher = load_policy(path, device=device, task=None if detect_kind(path) == "policy" else task)
    fingerprint = space_fingerprint(label, source.observation_space, source.action_space)
    try:
        recorded, fingerprint = _recorded(source, fingerprint, label)
    except _DAMAGE as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else first_line(error)
        altered = f"{label}: its record of ours contradicts itself: {reason}. It was altered after it was written."
        if teacher is None:
            advice = "Write it again, or pass teacher=… to label its observations anew."
            raise DatasetError(f"{altered} {advice}") from error
        tell(callbacks, f"{altered} The teacher labels its observations anew.", "warning")
        recorded = None
    episodes = _episodes(source, fingerprint, label)
    if recorded is not None and (teacher is None or teacher.hash == recorded.teacher.hash):
        if task not in (None, recorded.task.name):
            raise UsageError(
                f"task: got {task!r}, but {label} was recorded on {recorded.task.name!r} with the outputs of its "
                "teacher. Leave it out."
            )
        return recorded, _as_recorded(episodes, recorded.step_fields, label)
    if teacher is None:
        raise UsageError(
            f"{label} holds no outputs of a teacher: pass teacher=…, a policy or its file, to label its observations."
        )
    head, played = _fitted(teacher, task, fingerprint, label)
    _warn(source, played.name, label, callbacks)
    # A Minari dataset does not say who played, or with how much chance.
    played = replace(played, protocol=replace(played.protocol, exploration_epsilon=0.0))
    fields = step_fields(played.fingerprint, teacher.output_kind)
    entry, behaviour = teacher_entry(teacher, path), f"{MINARI_PREFIX}{source.id}"
    provenance = Provenance(played, entry, behaviour, seed=0, exploration_epsilon=0.0, fields=fields)
    return provenance, _labelled(episodes, head, played.fingerprint, fields["action"].dtype)


def _recorded(
    source: "MinariDataset", found: ObservationFingerprint, label: str
) -> tuple[Provenance | None, ObservationFingerprint]:
    """Return how the data were made, if `to_minari` wrote them, and what its parts are; raises one of `_DAMAGE`."""
    record = source.storage.metadata.get(KEY)
    if record is None:
        return None, found
    version = record["schema_version"]
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise DatasetError(
            f"{label} has a record of ours of version {version}, this rldistill reads up to {SCHEMA_VERSION}. "
            "It was written by a newer version: upgrade rldistill."
        )
    recorded = Provenance.from_dict(record["provenance"])
    wanted = recorded.task.fingerprint
    # `to_minari` writes vectors whole: which parts they were made of stands in its record alone.
    found = replace(found, observation_parts=found.observation_parts or wanted.observation_parts)
    differences = _differences(found, wanted)
    fields = step_fields(wanted, recorded.teacher.output_kind, has_several=recorded.teacher.several is not None)
    if any(recorded.fields.get(name) != spec for name, spec in fields.items()):
        differences.append("fields of other types than such a teacher has")
    if differences:
        raise ValueError("; ".join(differences))
    return recorded, found


def _differences(found: ObservationFingerprint, wanted: ObservationFingerprint) -> list[str]:
    """List what differs in shapes, types and actions; of frames and of what was appended, spaces say nothing."""
    appended = {"zero_padding": wanted.zero_padding, "time_feature": wanted.time_feature}
    return replace(found, **appended).differences(wanted, says_frames=False)


def _fitted(teacher: Policy, task: str | None, found: ObservationFingerprint, label: str) -> tuple[Policy, Task]:
    """Return the head that labels, and the task that it plays."""
    if task is None or task in [own.name for own in teacher.tasks]:
        head = teacher if task is None else teacher.for_task(task)
        played = head.tasks[0]
    else:
        played = make_task(task).observed_as(teacher.tasks[0].fingerprint).task
        head = fit_policy(teacher, played)
        played = as_played_by(head, played)
    differences = _differences(found, played.fingerprint)
    # What the head sees beside an environment's observations can be appended here.
    if differences and observed_as(Task(label, found), played.fingerprint).fingerprint == found:
        raise MismatchError(
            f"{label} does not fit teacher {head.name!r} (made for {played.name}): {'; '.join(differences)}. "
            "Was it played on another environment?"
        )
    return head, played


def _warn(source: "MinariDataset", task_name: str, label: str, callbacks: Sequence[Callback]) -> None:
    """Warn of what may make a teacher's outputs for these observations worse than they look."""
    environment = None if source.env_spec is None else source.env_spec.id
    if environment not in (None, task_name.rpartition(":")[2]):
        text = (
            f"{label} was played on {environment}, and is recorded as {task_name}, the teacher's task: do both show "
            "the same observations? task=… names another."
        )
        tell(callbacks, text, "warning")
    if source.storage.jpeg_encoding and _has_images(source.observation_space):
        text = (
            f"{label} keeps its images as JPEG: the teacher labels pixels that are not quite those of the environment. "
            "Minari's jpeg_encoding=False keeps them."
        )
        tell(callbacks, text, "warning")


def _has_images(space: spaces.Space[Any]) -> bool:
    from minari.dataset.minari_storage import is_image_space

    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        return any(map(_has_images, parts))
    return is_image_space(space)


@dataclass(frozen=True)
class _Episode:
    """An episode of T steps: as Minari has it, then as a dataset of ours has it."""

    number: int  # in Minari, then in our dataset
    observations: NDArray[Any]  # `[T + 1, *observation_shape]`; `[T, …]` where the episode was given up
    values: Mapping[str, NDArray[Any]]  # `[T, …]` by field: those that Minari has, then all
    record: Mapping[str, Any]  # what `to_minari` added to the episode's metadata
    infos: Mapping[str, Any]  # `[T + 1, …]` by name, what `to_minari` added to the episode's infos


def _episodes(source: "MinariDataset", fingerprint: ObservationFingerprint, label: str) -> Iterator[_Episode]:
    """Yield the episodes that hold a step, each read when it is asked for."""
    codec = SpaceCodec(source.observation_space, source.action_space, fingerprint.observation_dtype, "it")
    shapes = {"observations": fingerprint.observation_shape, "action": fingerprint.action_layout.action_shape}
    for index in source.episode_indices.tolist():
        try:
            (raw,) = source.storage.get_episodes([index])
            (metadata,) = source.storage.get_episode_metadata([index])
            values: dict[str, NDArray[Any]] = {
                "action": codec.encode_actions(np.asarray(raw["actions"])),
                "reward": np.asarray(raw["rewards"], np.float64),
                "terminated": np.asarray(raw["terminations"], np.bool_),
                "truncated": np.asarray(raw["truncations"], np.bool_),
            }
            observations, num_steps = flat(codec.encode_batch(raw["observations"])), len(values["reward"])
            for name, rows in {"observations": observations, **values}.items():
                expected = [num_steps + (name == "observations"), *shapes.get(name, ())]
                if len(rows) != expected[0]:
                    raise ValueError(f"{num_steps} rewards and {len(rows)} {name}")
                if list(rows.shape) != expected:
                    raise ValueError(f"{name} {list(rows.shape)}, expected {expected}")
            infos = (raw.get("infos") or {}).get(KEY, {})
            episode = _Episode(index, observations, values, metadata.get(KEY, {}), infos)
        except _DAMAGE as error:
            reason = f"episode {index} cannot be read ({first_line(error)})"
            raise DatasetError(f"{label} is damaged: {reason}. Copy it again.") from error
        if num_steps:
            yield episode


def _as_recorded(episodes: Iterator[_Episode], fields: Mapping[str, FieldSpec], label: str) -> Iterator[_Episode]:
    """Yield episodes as they were, with the outputs that lie there and the steps that Minari had no place for."""
    seen: set[int] = set()
    for episode in episodes:
        if "episode" not in episode.record:
            raise DatasetError(
                f"{label}: episode {episode.number} was added by another program and has no outputs of the teacher. "
                "Pass teacher=… to label all of them."
            )
        number = int(episode.record["episode"])
        if number in seen:
            raise DatasetError(f"{label} gives our episode {number} twice. Choose each episode once.")
        seen.add(number)
        values, last_step = dict(episode.values), episode.record.get("last_step")
        if last_step is not None:
            values = {name: np.concatenate([rows, [last_step[name]]]) for name, rows in values.items()}
            values["truncated"][-2] = False  # the mark that tells Minari's readers of the cut
        for name, spec in fields.items():
            rows = values[name].astype(spec.dtype) if name in values else _info(episode, name, spec, label)
            values[name] = rows[: len(values["reward"])]
        yield replace(episode, number=number, values=values)


def _info(episode: _Episode, name: str, spec: FieldSpec, label: str) -> NDArray[Any]:
    expected = (len(episode.observations), *spec.shape)
    rows = episode.infos.get(name)
    if not isinstance(rows, np.ndarray) or rows.shape != expected or rows.dtype != np.dtype(spec.dtype):
        found = f"{rows.dtype} {list(rows.shape)}" if isinstance(rows, np.ndarray) else "none"
        raise DatasetError(
            f"{label}: episode {episode.number} should have {name} {spec.dtype} {list(expected)} among its infos, got "
            f"{found}. Pass teacher=… to label its observations anew."
        )
    return rows


def _labelled(
    episodes: Iterator[_Episode], teacher: Policy, seen: ObservationFingerprint, action_dtype: str
) -> Iterator[_Episode]:
    """Yield episodes with a teacher's outputs for each of their steps."""
    for number, episode in enumerate(episodes):
        observations, values = episode.observations, episode.values
        if observations.shape[1:] != seen.observation_shape:
            ages = np.arange(len(observations))
            observations = extend_observations(observations, ages, ObservationSettings.of(seen))
        output = _outputs(teacher, observations[:-1])
        if not (values["terminated"][-1] or values["truncated"][-1]):
            observations = observations[:-1]
        values = {
            **values,
            "action": values["action"].astype(action_dtype),
            "truncated": values["truncated"] & ~values["terminated"],
            **as_targets(output.raw.float().cpu().numpy(), output.action_layout, output.kind),
        }
        yield replace(episode, number=number, observations=observations, values=values)


def _outputs(teacher: Policy, observations: NDArray[np.generic]) -> PolicyOutput:
    """Return a teacher's outputs for the steps of an episode, `[T, ...]`: with a memory, one after the other."""
    if (state := teacher.initial_state(1)) is None:
        return teacher(observations)[0]
    answers: list[Tensor] = []
    for row in observations:
        output, state = teacher(row[None], state)
        answers.append(output.raw)
    return PolicyOutput.from_raw(teacher.tasks[0].fingerprint.action_layout, teacher.output_kind, torch.cat(answers))


def _append(writer: DatasetWriter, episode: _Episode, label: str) -> None:
    # Only the newest frame of a stack is stored: the frames before it must be those that are stored already, zeros
    # before the first. Step by step, because a comparison of all would take as much memory again.
    before = np.zeros_like(episode.observations[0])
    for step, stack in enumerate(episode.observations if writer.provenance.frame_stack > 1 else ()):
        if (stack[:-1] != before[1:]).any():
            raise DatasetError(
                f"{label}: episode {episode.number}, step {step}, is not the stack of the last {len(stack)} frames "
                "with zeros before the first: a dataset keeps single frames and could not give it back."
            )
        before = stack
    layout = writer.provenance.layout
    rows = np.ascontiguousarray(layout.rows(episode.observations), layout.row_spec.dtype)
    num_steps = len(episode.values["reward"])
    for step in range(num_steps):
        now = slice(step, step + 1)
        writer.append([episode.number], rows[now], {name: values[now] for name, values in episode.values.items()})
    if len(rows) > num_steps:
        writer.end_episode(episode.number, rows[-1])
    else:
        writer.interrupt(episode.number)
