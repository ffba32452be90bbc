"""One run of a distillation: training, measuring, saving, stopping, going on."""

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from rldistill.distillation import Distiller, Likeness, UpdateRecord, distil, mean_likeness
from rldistill.distillation.live import PLAYED_AS
from rldistill.distillation.loop import HeldOutRecord, UpdateDivergedError
from rldistill.distillation.several import SeveralDistiller
from rldistill.distillation.sources import Source
from rldistill.envs import PlayableTask
from rldistill.errors import MismatchError, RldistillError
from rldistill.events import Callback, ProgressEvent, StopRequestedError, notify, tell
from rldistill.networks import ModuleNetwork
from rldistill.options.distill import DistillOptions
from rldistill.policies import TorchPolicy, load_policy
from rldistill.rollout.evaluate import play_scores
from rldistill.seeding import stream_seed
from rldistill.session.interrupts import interruption
from rldistill.session.metrics import MetricsFile
from rldistill.session.own_files import CONFIG_FILE, REPLAY_FOLDER
from rldistill.session.replay_files import ReplayFiles
from rldistill.session.run_folder import changed_settings, provenance, read_config, recorded_settings, without_folders
from rldistill.storage import load_checkpoint, save_checkpoint
from rldistill.verbs.distillation_setup import DistillationSetup
from rldistill.verbs.final_score import tell_scores

STUDENT_FILE = "student.safetensors"
CHECKPOINT_FILE = "checkpoint.ckpt"
# Text that may differ in a resumed run: it changes no result, or what it names is compared by content (`_load`).
_MAY_DIFFER = frozenset(
    {"out", "device", "num_threads", "num_envs", "data", "teacher", "behaviour", "evaluate_episodes"}
)
# Playing costs far more than measuring held-out steps.
_MEASUREMENTS_PER_PLAY = 5
# Share of the run before which a student that has learned nothing is not warned about.
_WARN_FROM = 0.1


def save_policies_of(sources: Sequence[Source], folder: Path) -> None:
    """Write the policies that sources made themselves, such as a learner's."""
    for source in sources:
        for name, policy in source.policies.items():
            policy.save(folder / f"{name}.safetensors")


def may_differ(values: Mapping[str, Any]) -> frozenset[str]:
    """Return the settings in which a resumed run may differ from the one it goes on with."""
    # Which episodes fill a replay depends on how many are played at once; those of a learner choose the teacher.
    binding = set[str]() if "data" in values else {"num_envs"}
    return _MAY_DIFFER - binding - ({"evaluate_episodes"} if values.get("online") else set[str]())


class DistillationRun:
    """One run: student, source, counters and folder."""

    def __init__(
        self, options: DistillOptions, setup: DistillationSetup, callbacks: Sequence[Callback], *, continues: bool
    ) -> None:
        self._options = options
        self._folder = Path(options.out)
        self._setup = setup
        self._callbacks = callbacks
        self._update = 0
        self._warned = False
        # Since the last measurement: of whole batches, and by head.
        self._batch_losses: list[float] = []
        self._losses: defaultdict[int, list[float]] = defaultdict(list)
        self._is_scored = True  # unless a stop came into the play at the end
        # Taken once and carried by the checkpoint: a resumed run makes the same file as one that never stopped.
        self._versions = provenance("distill")
        # A run that goes on keeps its network: that another can be named would be no help.
        self._notes = (*([setup.student_note] if setup.student_note and not continues else []), *setup.notes)
        self._continues = continues and has_checkpoint(self._folder, [self._folder / STUDENT_FILE], STUDENT_FILE)

    def run(self) -> TorchPolicy:
        """Train to the end, saving at each measurement, after a stop, and at the end."""
        try:
            if self._continues:
                self._load()
            return self._run()
        finally:
            self._setup.batches.close()

    def _run(self) -> TorchPolicy:
        options, setup, folder = self._options, self._setup, self._folder
        for note in self._notes:
            tell(self._callbacks, note)
        for warning in setup.warnings:
            tell(self._callbacks, warning, "warning")
        if self._update < setup.num_updates:
            data = " and ".join(task.description for task in setup.sources)
            tell(self._callbacks, f"{data} into {setup.values['student']}, {options.precision} on {options.device}")
        if self._update == setup.num_updates and (folder / STUDENT_FILE).is_file() and self._is_scored:
            tell(self._callbacks, f"{folder} is finished; `rldistill evaluate` plays its student")
            return self._finished()
        path, resumed_at = folder / "metrics.jsonl", self._update if self._continues else None
        try:
            with MetricsFile(path, counter="update", resume_at=resumed_at, callbacks=self._callbacks) as metrics:
                batches = setup.batches.of_updates(self._update, setup.num_updates)
                with closing(distil(setup.distiller, batches, first_update=self._update)) as records:
                    self._train(records, metrics)
            return self._finish()
        except UpdateDivergedError:
            self._save()  # an update that fails changed nothing: this is the state before it
            raise
        except StopRequestedError:
            self._save()
            raise interruption(f"stopped after update {self._update:,}; saved") from None

    def _train(self, records: Iterable[UpdateRecord], metrics: MetricsFile) -> None:
        options, setup = self._options, self._setup
        # From the first update on: the play before it is no time of updates.
        started, first = 0.0, self._update
        alike: dict[str, float] = {}
        for record in records:
            self._update = record.update + 1
            started = started or time.monotonic()
            self._batch_losses.append(record.loss)
            for head, loss in zip(record.heads, record.losses, strict=True):
                self._losses[head].append(loss)
            is_last = self._update == setup.num_updates
            if self._update % options.evaluate_period == 0 or is_last:
                measured = self._measure()
                alike = _mean_likeness(measured)
                metrics.write(self._measurement(record, measured))
                self._batch_losses.clear()
                self._losses.clear()
                self._warn_if_trivial(measured, is_last=is_last)
                if not is_last:
                    metrics.sync()
                    self._save()
            shown = {"loss": record.loss}
            if self._update > first + 1:
                shown["updates_per_second"] = (self._update - first - 1) / max(time.monotonic() - started, 1e-9)
            shown |= alike
            notify(self._callbacks, ProgressEvent("distill", self._update, setup.num_updates, "updates", shown))

    def _measure(self) -> list[HeldOutRecord]:
        """Return loss and likeness on held-out steps of each task."""
        return [self._setup.distiller.measure(task.held_out, self._update) for task in self._setup.sources]

    def _measurement(self, record: UpdateRecord, measured: Sequence[HeldOutRecord]) -> dict[str, Any]:
        tasks = self._setup.sources
        period = self._options.evaluate_period * _MEASUREMENTS_PER_PLAY
        is_time = self._update % period == 0 or self._update == self._setup.num_updates
        plays = bool(self._options.evaluate_episodes) and is_time
        values = [
            self._task_values(task, held_out, plays=plays) for task, held_out in zip(tasks, measured, strict=True)
        ]
        shared = {
            "update": self._update,
            "loss": float(np.mean(self._batch_losses)),
            "gradient_norm": record.gradient_norm,
            "learning_rate": record.learning_rate,
        }
        if len(tasks) == 1:
            return values[0] | shared
        by_task = {task.task.name: value for task, value in zip(tasks, values, strict=True)}
        return shared | _mean_likeness(measured) | {"tasks": by_task}

    def _task_values(self, task: Source, measured: HeldOutRecord, *, plays: bool) -> dict[str, Any]:
        losses = self._losses.get(task.held_out.batch.head)
        values: dict[str, Any] = {
            "loss": float(np.mean(losses)) if losses else None,
            "held_out_loss": measured.loss,
            **_likeness_record(task, measured),
        }
        values |= measured.parameters
        # A VectorEnv of the user's is one object, in which learning goes on: it is played when that is over.
        if plays and task.playable is not None and task.playable.fixed_num_envs is None:
            values["scores"] = self._play(task.playable)
        return values

    def _play(self, playable: PlayableTask) -> list[float]:
        """Return scores of a few episodes, whose seeds serve this purpose alone."""
        options = self._options
        return play_scores(
            self._setup.student,
            playable,
            range(options.evaluate_episodes or 0),
            num_envs=options.num_envs,
            num_threads=options.num_threads,
            seed=stream_seed(options.seed, "evaluation while training"),
        )

    def _warn_if_trivial(self, measured: Sequence[HeldOutRecord], *, is_last: bool) -> None:
        trivial = [
            (task, record.likeness)
            for task, record in zip(self._setup.sources, measured, strict=True)
            if not record.likeness.is_better_than(task.held_out.constant)
        ]
        # While the learning rate warms up nobody has learned anything.
        is_early = self._update < _WARN_FROM * self._setup.num_updates
        if not trivial or is_early or (self._warned and not is_last):
            return
        self._warned = True
        for task, alike in trivial:
            of = "" if len(measured) == 1 else f" of {task.task.name}"
            text = _trivial_text(alike, task.held_out.constant, of)
            tell(self._callbacks, f"after {self._update:,} updates {text}", "warning")

    def _finish(self) -> TorchPolicy:
        measured = self._measure()
        student = self._setup.student.with_provenance(
            student_provenance(self._setup, self._versions, self._update, measured)
        )
        student.save(self._folder / STUDENT_FILE)
        save_policies_of(self._setup.sources, self._folder)
        self._save()
        self._setup.batches.close()
        alike = [record.likeness for record in measured]
        if not tell_scores(student, list(zip(self._setup.sources, alike, strict=True)), self._options, self._callbacks):
            # For a run that goes on; the sources are closed, and all else stands in the checkpoint.
            checkpoint = self._folder / CHECKPOINT_FILE
            save_checkpoint(checkpoint, load_checkpoint(checkpoint) | {"is_scored": False})
        return student

    def _finished(self) -> TorchPolicy:
        """Return the student of a run that had come to its end, as its file has it."""
        network = self._setup.student.network
        module = network.module if isinstance(network, ModuleNetwork) else None
        return load_policy(self._folder / STUDENT_FILE, device=self._options.device, module=module)

    def _save(self) -> None:
        save_run(
            self._folder,
            self._setup,
            self._setup.distiller,
            update=self._update,
            warned=self._warned,
            losses=dict(self._losses),
            batch_losses=self._batch_losses,
            versions=self._versions,
        )

    def _load(self) -> None:
        state = load_run(self._folder, self._setup, self._setup.distiller)
        self._update, self._warned = state["update"], state["warned"]
        self._losses.update(state["losses"])
        self._batch_losses.extend(state.get("batch_losses", ()))  # an earlier version kept none
        self._versions = state["versions"]
        self._is_scored = state.get("is_scored", True)
        tell_where_it_goes_on(self._options, self._update, self._callbacks)


def tell_where_it_goes_on(options: DistillOptions, update: int, callbacks: Sequence[Callback]) -> None:
    """Tell from which update a run goes on, and whether it computes otherwise than it began."""
    here = {"device": options.device, "num_threads": options.num_threads}
    moved = changed_settings(read_config(Path(options.out) / CONFIG_FILE), here, keys=here.keys())
    note = f"; {', '.join(moved)}: last bits may differ from those of a run that never stopped" if moved else ""
    tell(callbacks, f"going on from update {update:,}{note}")


def has_checkpoint(folder: Path, students: Iterable[Path], what: str) -> bool:
    """Return whether a run left what it needs to go on.

    Args:
        folder: of the run.
        students: the files that it ends in.
        what: how these are called.

    Raises:
        RldistillError: it did not, and to begin anew would replace students.
    """
    if (folder / CHECKPOINT_FILE).is_file():
        return True
    if any(student.is_file() for student in students):
        raise RldistillError(
            f"--resume {folder}: {CHECKPOINT_FILE} is missing, and beginning anew would replace {what}. Put the "
            "checkpoint back, or --overwrite."
        )
    return False


def save_run(
    folder: Path,
    setup: DistillationSetup,
    distiller: Distiller | SeveralDistiller,
    *,
    versions: Mapping[str, Any],
    **own: Any,  # noqa: ANN401 (state)
) -> None:
    """Write what a run needs to go on: `versions` it began with, and in `own` what it counts itself."""
    replays = ReplayFiles(folder / REPLAY_FOLDER, setup.batches.replays)
    state = {
        "distiller": distiller.state_dict(),
        "replays": replays.write(),
        "source": setup.batches.state_dict(),
        "data": [source.identity for source in setup.sources],
        "versions": json.dumps(versions),
    }
    save_checkpoint(folder / CHECKPOINT_FILE, state | own)
    replays.prune()


def load_run(folder: Path, setup: DistillationSetup, distiller: Distiller | SeveralDistiller) -> dict[str, Any]:
    """Go on from what `save_run` wrote, and return it.

    Raises:
        MismatchError: the data have changed.
    """
    state = load_checkpoint(folder / CHECKPOINT_FILE)
    for source, identity in zip(setup.sources, state["data"], strict=True):
        if source.identity != identity:
            raise MismatchError(f"--resume {folder}: {_what_differs(source, identity)}, or --overwrite.")
    distiller.load_state_dict(state["distiller"])
    setup.batches.load_state_dict(state["source"])
    # After the sources: a learner that is resumed makes itself a new replay.
    ReplayFiles(folder / REPLAY_FOLDER, setup.batches.replays).read(state["replays"])
    # An earlier version kept the command line there.
    return state | {"versions": without_folders(json.loads(state["versions"]))}


def student_provenance(
    setup: DistillationSetup, versions: Mapping[str, Any], num_updates: int, measured: Sequence[HeldOutRecord]
) -> dict[str, Any]:
    """Return what made a student, without what differs between a run and its resumption."""
    settings = {name: value for name, value in setup.values.items() if name not in may_differ(setup.values)}
    made = {
        **versions,
        "config": recorded_settings(settings),
        "num_updates": num_updates,
        "chosen_by": "last update",
    }
    records: list[dict[str, Any]] = [
        {"teacher": task.teacher.for_student, "dataset": dict(task.record), **_likeness_record(task, held_out)}
        for task, held_out in zip(setup.sources, measured, strict=True)
    ]
    if len(setup.student.spec.heads) == 1:
        return made | records[0]
    teachers = [{"task": t.task.name, **r["teacher"]} for t, r in zip(setup.sources, records, strict=True)]
    return made | {
        "teachers": [*setup.kept_teachers, *teachers],
        "tasks": {task.task.name: record for task, record in zip(setup.sources, records, strict=True)},
        **_mean_likeness(measured),
    }


def held_out_values(sources: Sequence[Source], measured: Sequence[HeldOutRecord]) -> dict[str, Any]:
    """Return a student's loss and likeness on held-out steps; of several tasks by their names."""
    values = [
        {"held_out_loss": record.loss, **_likeness_record(source, record)}
        for source, record in zip(sources, measured, strict=True)
    ]
    return values[0] if len(values) == 1 else {"tasks": dict(zip([s.task.name for s in sources], values, strict=True))}


def _mean_likeness(measured: Sequence[HeldOutRecord]) -> dict[str, float]:
    mean = mean_likeness([record.likeness for record in measured])
    return {} if mean is None else {f"held_out_{mean.name}": mean.value}


def _likeness_record(task: Source, measured: HeldOutRecord) -> dict[str, float]:
    """Return how alike student and teacher are, and what a constant would reach."""
    alike, constant = measured.likeness, task.held_out.constant
    baseline = "majority_share" if constant.name == "agreement" else "constant_action_gap"
    return {f"held_out_{alike.name}": alike.value, baseline: constant.value}


def _what_differs(task: Source, begun: str) -> str:
    """Return what to say of data that are not those that the run began with."""
    if task.identity == f"{begun}{PLAYED_AS}sample":
        return (
            f"{task.description} was played greedily when the run began, and would now be sampled while it is "
            "recorded. Add --behaviour greedy"
        )
    return f"{task.description} is not what the run began with, or has grown. Use the same data"


def _trivial_text(alike: Likeness, constant: Likeness, of: str) -> str:
    if alike.name == "agreement":
        return (
            f"the student agrees with the teacher in {alike.value:.1%} of held-out steps{of}, always naming the "
            f"commonest action in {constant.value:.1%}: it has learned nothing so far. If this lasts, raise the "
            "updates or the temperature (0.01 is meant for Q-values of order 1), or change the learning rate: networks "
            "as large as dqn may need 3e-4."
        )
    return (
        f"the student's actions are {alike.value:.1%} of the box from the teacher's in held-out steps{of}, always its "
        f"median action {constant.value:.1%}: it has learned nothing so far. If this lasts, raise the updates or the "
        "learning rate."
    )
