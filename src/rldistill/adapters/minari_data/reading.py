"""A Minari dataset as a dataset of ours, with a teacher's outputs for every step."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rldistill.adapters.detect import detect_kind
from rldistill.adapters.load import Reading, load_with
from rldistill.adapters.minari_data.labels import LabelledEpisode, Labels, RecordedLabels, TeacherLabels
from rldistill.adapters.minari_data.record import recorded_provenance
from rldistill.adapters.minari_data.source import MinariSource, open_source
from rldistill.data import Dataset, DatasetWriter
from rldistill.envs import make_task
from rldistill.errors import DatasetError, UsageError
from rldistill.events import Callback, MessageEvent, ProgressEvent, StopRequestedError, notify
from rldistill.policies import Policy
from rldistill.policies.entry import teacher_entry
from rldistill.types import resolve_device

if TYPE_CHECKING:
    from minari import MinariDataset


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
        teacher: gives its outputs for the observations: a policy, or a file that says of itself what it is (load
            others by `load_policy`, which takes what they do not say). May be None, or the same teacher, where
            `to_minari` wrote the dataset: its outputs lie there and are taken as they are. Another teacher labels
            them anew.
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
    source = open_source(dataset)
    if not source.num_steps:
        raise DatasetError(f"{source.label} is empty: it holds no step.")
    labels = _labels(source, teacher, task, device, callbacks)
    with DatasetWriter.create(
        Path(out), labels.provenance, target_num_steps=source.num_steps, overwrite=overwrite
    ) as writer:
        try:
            for episode in source.episodes():
                if len(episode.rewards):
                    _append(writer, labels.of(episode), source)
                done = min(writer.num_steps, source.num_steps)
                notify(callbacks, ProgressEvent("convert", done, source.num_steps, "steps"))
        except StopRequestedError:
            raise KeyboardInterrupt(f"stopped; {writer.num_listed_steps:,} steps are written.") from None
        writer.finish()
    return Dataset.open(out, verify=False)


def _labels(
    source: MinariSource,
    teacher: str | Path | Policy | None,
    task: str | None,
    device: str,
    callbacks: Sequence[Callback],
) -> Labels:
    path = teacher if isinstance(teacher, str | Path) else None
    policy = _load(Path(teacher), task, device) if isinstance(teacher, str | Path) else teacher
    provenance = recorded_provenance(source.metadata, source.label)
    if provenance is not None:
        source.name_parts(provenance.task.fingerprint)
    if policy is None and provenance is None:
        raise UsageError(
            f"{source.label} holds no outputs of a teacher: pass teacher=…, a policy or its file, to label its "
            "observations."
        )
    if provenance is not None and (policy is None or policy.hash == provenance.teacher.hash):
        if task not in (None, provenance.task.name):
            raise UsageError(
                f"task: got {task!r}, but {source.label} was recorded on {provenance.task.name!r} with the outputs of "
                "its teacher. Leave it out."
            )
        return RecordedLabels(source, provenance)
    assert policy is not None, "or there would be outputs"
    labels = TeacherLabels(source, policy, teacher_entry(policy, path), task)
    for text in _doubts(source, labels.provenance.task.name):
        notify(callbacks, MessageEvent(text, "warning"))
    return labels


def _load(path: Path, task: str | None, device: str) -> Policy:
    # Our own files say which tasks they play, and may play one that cannot be made here.
    is_ours = detect_kind(path) == "policy"
    named = None if task is None or is_ours else make_task(task).task
    return load_with(path, Reading(), device=resolve_device(device).type, task=named)


def _doubts(source: MinariSource, task_name: str) -> list[str]:
    """List what may make a teacher's outputs for these observations worse than they look."""
    doubts: list[str] = []
    if source.environment not in (None, task_name.rpartition(":")[2]):
        doubts.append(
            f"{source.label} was played on {source.environment}, and is recorded as {task_name}, the teacher's task: "
            "do both show the same observations? task=… names another."
        )
    if source.has_altered_images:
        doubts.append(
            f"{source.label} keeps its images as JPEG: the teacher labels pixels that are not quite those of the "
            "environment. Minari's jpeg_encoding=False keeps them."
        )
    return doubts


def _append(writer: DatasetWriter, episode: LabelledEpisode, source: MinariSource) -> None:
    frame_stack = writer.provenance.frame_stack
    rows = writer.provenance.layout.rows(episode.observations)
    if frame_stack > 1:
        _check_stacks(episode.observations, source.label, episode.number)
    number, rows = np.array([episode.number]), np.ascontiguousarray(rows)
    for step in range(len(episode.values["reward"])):
        now = slice(step, step + 1)
        writer.append(number, rows[now], {name: values[now] for name, values in episode.values.items()})
    if episode.has_ended:
        writer.end_episode(episode.number, rows[-1])
    else:
        writer.interrupt(episode.number)


def _check_stacks(observations: NDArray[Any], label: str, episode: int) -> None:
    """Check that the newest frames alone, which are all that is stored, bring the stacks `[T, stack, …]` back.

    Raises:
        DatasetError: a stack is not the one before moved on by a frame, or the first has older frames.
    """
    # Step by step: a comparison of all would take as much memory again.
    bad = next(
        (t for t in range(1, len(observations)) if (observations[t, :-1] != observations[t - 1, 1:]).any()), None
    )
    if observations[0, :-1].any():
        bad = 0
    if bad is not None:
        raise DatasetError(
            f"{label}: episode {episode}, step {bad}, is not the stack of the last {observations.shape[1]} frames with "
            "zeros before the first: a dataset keeps single frames and could not give it back."
        )
