"""Where the teacher's outputs of a Minari dataset come from: they lie there, or a teacher gives them now."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rldistill.adapters.minari_data.record import KEY, MINARI_ROLES
from rldistill.adapters.minari_data.source import MinariEpisode, MinariSource
from rldistill.data import Provenance, TeacherEntry, as_targets, step_fields
from rldistill.envs import make_task
from rldistill.envs.extended import ObservationSettings, extend_fingerprint, extend_observations
from rldistill.errors import DatasetError, MismatchError, UsageError
from rldistill.policies import Policy, as_played_by, fit_policy
from rldistill.tasks import ObservationFingerprint, Task


@dataclass(frozen=True)
class LabelledEpisode:
    """An episode as a dataset of ours has it.

    Attributes:
        number: in our dataset.
        observations: `[T, *observation_shape]`, or `[T + 1, *observation_shape]` where it ended.
        values: `[T, …]` by name, for every field but the observation.
        has_ended: whether the last observation is the one after the last step.
    """

    number: int
    observations: NDArray[Any]
    values: Mapping[str, NDArray[Any]]
    has_ended: bool


class Labels(Protocol):
    """Makes episodes of ours of Minari's."""

    @property
    def provenance(self) -> Provenance:
        """Of the dataset that comes of it."""
        ...

    def of(self, episode: MinariEpisode) -> LabelledEpisode:
        """Return an episode with a teacher's outputs."""
        ...


class RecordedLabels:
    """Outputs that `to_minari` wrote, taken as they are.

    Args:
        source: that was made of a dataset of ours.
        provenance: of that dataset.

    Raises:
        DatasetError: spaces and record contradict each other.
    """

    def __init__(self, source: MinariSource, provenance: Provenance) -> None:
        self.provenance = provenance
        self._label = source.label
        self._seen: set[int] = set()
        differences = _differences(source.fingerprint, provenance.task.fingerprint)
        wanted = step_fields(provenance.task.fingerprint, provenance.teacher.output_kind)
        if any(spec != provenance.fields.get(name) for name, spec in wanted.items()):
            differences.append("fields of other types than such a teacher has")
        if differences:
            raise DatasetError(
                f"{source.label} contradicts its record of ours: {'; '.join(differences)}. It was altered after it "
                "was written. Write it again, or pass teacher=… to label its observations anew."
            )

    def of(self, episode: MinariEpisode) -> LabelledEpisode:
        """Return an episode as it was, with the step that Minari had no place for."""
        record = episode.metadata.get(KEY, {})
        last_step = record.get("last_step")
        number = self._number(episode, record)
        own = {
            "action": episode.actions,
            "reward": episode.rewards,
            "terminated": episode.terminated,
            "truncated": episode.truncated,
        }
        if last_step is not None:
            # The mark that says to Minari's readers that the episode goes on elsewhere.
            own["truncated"] = np.concatenate([own["truncated"][:-1], [False]])
            own = {role: np.concatenate([values, [last_step[role]]]) for role, values in own.items()}
        values = {
            name: own[spec.role].astype(spec.dtype) if spec.role in MINARI_ROLES else self._info(episode, name)
            for name, spec in self.provenance.step_fields.items()
        }
        num_steps = len(own["reward"])
        return LabelledEpisode(
            number,
            episode.observations,
            {name: rows[:num_steps] for name, rows in values.items()},
            has_ended=last_step is None,
        )

    def _number(self, episode: MinariEpisode, record: Mapping[str, Any]) -> int:
        if "episode" not in record:
            raise DatasetError(
                f"{self._label}: episode {episode.index} was added by somebody else and has no outputs of the teacher. "
                "Pass teacher=… to label all of them."
            )
        number = int(record["episode"])
        if number in self._seen:
            raise DatasetError(f"{self._label} gives our episode {number} twice. Choose each episode once.")
        self._seen.add(number)
        return number

    def _info(self, episode: MinariEpisode, name: str) -> NDArray[Any]:
        spec = self.provenance.step_fields[name]
        expected = (len(episode.observations), *spec.shape)
        rows = episode.infos.get(KEY, {}).get(name)
        if not isinstance(rows, np.ndarray) or rows.shape != expected or rows.dtype != np.dtype(spec.dtype):
            found = f"{rows.dtype} {list(rows.shape)}" if isinstance(rows, np.ndarray) else "none"
            raise DatasetError(
                f"{self._label}: episode {episode.index} should have {name} {spec.dtype} {list(expected)} among its "
                f"infos, got {found}. Pass teacher=… to label its observations anew."
            )
        return rows


class TeacherLabels:
    """Outputs of a teacher for observations that somebody else's play led to.

    Args:
        source: any Minari dataset whose spaces are the teacher's.
        teacher: labels; it need not be who played.
        entry: what is recorded of it.
        task: a head's name, or any task that it can play; None: the teacher's own.

    Raises:
        MismatchError: the spaces are not the teacher's; names both.
    """

    def __init__(self, source: MinariSource, teacher: Policy, entry: TeacherEntry, task: str | None) -> None:
        self._label = source.label
        self._teacher, played = _head(teacher, task)
        self._settings = _settings(source, self._teacher, played)
        # Who played, and with how much chance, a Minari dataset does not say.
        protocol = replace(played.protocol, exploration_epsilon=0.0)
        self.provenance = Provenance(
            task=replace(played, protocol=protocol),
            teacher=entry,
            behaviour=f"minari:{source.name}",
            seed=0,
            exploration_epsilon=0.0,
            fields=step_fields(played.fingerprint, teacher.output_kind),
        )
        self._next_number = 0

    def of(self, episode: MinariEpisode) -> LabelledEpisode:
        """Return an episode with the teacher's outputs for each of its steps."""
        observations = self._seen_by_teacher(episode.observations)
        output, _ = self._teacher(observations[:-1])
        layout = output.action_layout
        has_ended = bool(episode.terminated[-1] or episode.truncated[-1])
        number = self._next_number
        self._next_number += 1
        return LabelledEpisode(
            number,
            observations if has_ended else observations[:-1],
            {
                "action": episode.actions.astype(self.provenance.fields["action"].dtype),
                "reward": episode.rewards,
                "terminated": episode.terminated,
                "truncated": episode.truncated & ~episode.terminated,
                **as_targets(output.raw.float().cpu().numpy(), layout, output.kind),
            },
            has_ended,
        )

    def _seen_by_teacher(self, observations: NDArray[Any]) -> NDArray[Any]:
        if not self._settings.num_appended:
            return observations
        return extend_observations(observations, np.arange(len(observations)), self._settings)


def _head(teacher: Policy, task: str | None) -> tuple[Policy, Task]:
    """Return the teacher playing a task, and the task with the teacher's actions."""
    if task is None or task in [own.name for own in teacher.tasks]:
        policy = teacher if task is None else teacher.for_task(task)
        return policy, policy.tasks[0]
    playable = make_task(task).observed_as(teacher.tasks[0].fingerprint)
    policy = fit_policy(teacher, playable.task)
    return policy, as_played_by(policy, playable.task)


def _settings(source: MinariSource, teacher: Policy, task: Task) -> ObservationSettings:
    """Return what has to be appended to a dataset's observations so that they are the teacher's."""
    for settings in (ObservationSettings(), ObservationSettings.of(task.fingerprint)):
        try:
            seen = extend_fingerprint(source.label, source.fingerprint, settings)
        except UsageError:  # nothing can be appended to images
            continue
        if not _differences(seen, task.fingerprint):
            return settings
    raise MismatchError(
        f"{source.label} does not fit teacher {teacher.name!r} (made for {task.name}): "
        f"{'; '.join(_differences(source.fingerprint, task.fingerprint))}. Was it played on another environment?"
    )


def _differences(found: ObservationFingerprint, wanted: ObservationFingerprint) -> list[str]:
    """List what differs in shapes, types and actions; of preprocessing, spaces say nothing."""
    as_found = replace(
        wanted,
        observation_shape=found.observation_shape,
        observation_dtype=found.observation_dtype,
        observation_parts=found.observation_parts,
        action_layout=found.action_layout,
    )
    return as_found.differences(wanted)
