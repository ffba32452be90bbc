"""One run of a distillation: training, measuring, saving, stopping, going on."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from rldistill.data import Dataset
from rldistill.distillation import Distiller, HeldOut, StoredSource, UpdateRecord, distil
from rldistill.distillation.loop import HeldOutRecord
from rldistill.envs import EpisodeEnvs, make_task
from rldistill.errors import MismatchError, NumericalError
from rldistill.events import Callback, MessageEvent, ProgressEvent, StopRequestedError, notify
from rldistill.networks import ModuleNetwork
from rldistill.policies import TorchPolicy, load_policy
from rldistill.rollout.evaluate import play_episodes
from rldistill.runs.config import DistillConfig, config_values
from rldistill.runs.metrics import MetricsFile
from rldistill.runs.run_folder import plain, provenance
from rldistill.seeding import stream_seed
from rldistill.storage import load_checkpoint, save_checkpoint

STUDENT_FILE = "student.safetensors"
CHECKPOINT_FILE = "checkpoint.ckpt"
# What does not change the result, or is checked by content: a resumed run may differ in it.
MAY_DIFFER = frozenset({"out", "device", "num_threads", "num_envs", "data"})
# Playing costs far more than measuring held-out steps.
_MEASUREMENTS_PER_PLAY = 5


@dataclass(frozen=True)
class DistillationSetup:
    """What a configuration and a dataset make together."""

    dataset: Dataset
    student: TorchPolicy
    distiller: Distiller
    source: StoredSource
    held_out: HeldOut
    resolved: dict[str, Any]
    warnings: tuple[str, ...]


class DistillationRun:
    """One run: student, source, counters and folder."""

    def __init__(
        self, config: DistillConfig, setup: DistillationSetup, callbacks: Sequence[Callback], *, continues: bool
    ) -> None:
        self._config = config
        self._setup = setup
        self._callbacks = callbacks
        self._checkpoint = config.out / CHECKPOINT_FILE
        self._update = 0
        self._warned = False
        self._losses: list[float] = []  # since the last measurement
        self._resumed_at: int | None = None
        # Taken once and carried by the checkpoint: a resumed run makes the same file as one that never stopped.
        self._versions = provenance("distill", {})
        if continues and self._checkpoint.is_file():
            self._load()

    def run(self) -> TorchPolicy:
        """Train to the end, saving at each measurement, after a stop, and at the end."""
        config, setup = self._config, self._setup
        for warning in setup.warnings:
            notify(self._callbacks, MessageEvent(warning, "warning"))
        if self._update < config.num_updates:
            size = f"{len(setup.dataset.episode_numbers)} episodes, {setup.dataset.num_steps:,} steps"
            self._tell(f"{setup.dataset.path} ({size}) into {config.student}, {config.precision} on {config.device}")
        if self._update == config.num_updates and (config.out / STUDENT_FILE).is_file():
            self._tell(f"{config.out} is finished")
            return self._finished()
        try:
            with MetricsFile(config.out / "metrics.jsonl", counter="update", resume_at=self._resumed_at) as metrics:
                records = distil(
                    setup.distiller, setup.source, first_update=self._update, num_updates=config.num_updates
                )
                with closing(records):
                    self._train(records, metrics)
        except StopRequestedError:
            self._save()
            self._tell(f"stopped after update {self._update:,}; saved. Go on with --resume.")
            raise KeyboardInterrupt from None
        return self._finish()

    def _train(self, records: Iterable[UpdateRecord], metrics: MetricsFile) -> None:
        config = self._config
        started, first = time.monotonic(), self._update
        measured: HeldOutRecord | None = None
        for record in self._saved_when_diverged(records):
            self._update = record.update + 1
            self._losses.append(record.loss)
            is_last = self._update == config.num_updates
            if self._update % config.evaluate_period == 0 or is_last:
                measured = self._setup.distiller.measure(self._setup.held_out, self._update)
                metrics.write(self._measurement(record, measured))
                self._losses = []
                self._warn_if_trivial(measured, is_last=is_last)
                if not is_last:
                    self._save()
            speed = (self._update - first) / max(time.monotonic() - started, 1e-9)
            shown = {"loss": record.loss, "updates_per_second": speed}
            shown |= {} if measured is None else {"held_out_agreement": measured.agreement}
            notify(self._callbacks, ProgressEvent("distill", self._update, config.num_updates, "updates", shown))

    def _saved_when_diverged(self, records: Iterable[UpdateRecord]) -> Iterator[UpdateRecord]:
        """Yield the records; an update that fails changed nothing, so the state before it is saved."""
        try:
            yield from records
        except NumericalError:
            self._save()
            raise

    def _measurement(self, record: UpdateRecord, measured: HeldOutRecord) -> dict[str, Any]:
        values: dict[str, Any] = {
            "update": self._update,
            "loss": sum(self._losses) / len(self._losses),
            "gradient_norm": record.gradient_norm,
            "learning_rate": record.learning_rate,
            "held_out_loss": measured.loss,
            "held_out_agreement": measured.agreement,
            "majority_share": self._setup.held_out.majority_share,
        }
        if record.temperature is not None:
            values["temperature"] = record.temperature
        if self._config.evaluate_episodes and self._is_time_to_play():
            values["scores"] = self._play()
        return values

    def _is_time_to_play(self) -> bool:
        period = self._config.evaluate_period * _MEASUREMENTS_PER_PLAY
        return self._update % period == 0 or self._update == self._config.num_updates

    def _play(self) -> list[float]:
        """Return scores of a few episodes, whose seeds serve this purpose alone."""
        config, setup = self._config, self._setup
        playable = make_task(setup.dataset.provenance.task)
        envs: EpisodeEnvs = playable.make_envs(min(config.num_envs, config.evaluate_episodes), config.num_threads)
        try:
            played = play_episodes(
                setup.student,
                envs,
                range(config.evaluate_episodes),
                seed=stream_seed(config.seed, "evaluation while training"),
                exploration_epsilon=playable.task.protocol.exploration_epsilon,
            )
        finally:
            envs.close()
        return played.scores.tolist()

    def _warn_if_trivial(self, measured: HeldOutRecord, *, is_last: bool) -> None:
        share = self._setup.held_out.majority_share
        if measured.agreement > share or (self._warned and not is_last):
            return
        self._warned = True
        text = (
            f"after {self._update:,} updates the student agrees with the teacher in {measured.agreement:.1%} of "
            f"held-out steps, always naming the commonest action in {share:.1%}: it has learned nothing yet. If this "
            "lasts, raise the learning rate or the temperature (temperature 0.01 is meant for Q-values of order 1)."
        )
        notify(self._callbacks, MessageEvent(text, "warning"))

    def _finish(self) -> TorchPolicy:
        config = self._config
        measured = self._setup.distiller.measure(self._setup.held_out, self._update)
        student = self._setup.student.with_provenance(self._student_provenance(measured))
        student.save(config.out / STUDENT_FILE)
        self._save()
        return student

    def _student_provenance(self, measured: HeldOutRecord) -> dict[str, Any]:
        """Return what made the student, without what differs between a run and its resumption."""
        config, dataset = self._config, self._setup.dataset
        teacher = dataset.provenance.teacher
        settings = {name: value for name, value in config_values(config).items() if name not in MAY_DIFFER}
        record = {key: value for key, value in self._versions.items() if key != "command"}
        return record | {
            "config": {
                key: plain(value) for key, value in (settings | self._setup.resolved).items() if value is not None
            },
            "num_updates": self._update,
            "chosen_by": "last update",
            "teacher": {"name": teacher.name, "hash": teacher.hash, "path": teacher.path},
            "dataset": {"num_steps": dataset.num_steps, "seed": dataset.provenance.seed},
            "held_out_agreement": measured.agreement,
            "majority_share": self._setup.held_out.majority_share,
        }

    def _finished(self) -> TorchPolicy:
        """Return the student of a run that had come to its end, as its file has it."""
        network = self._setup.student.network
        module = network.module if isinstance(network, ModuleNetwork) else None
        return load_policy(self._config.out / STUDENT_FILE, device=self._config.device, module=module)

    def _save(self) -> None:
        state = {
            "distiller": self._setup.distiller.state_dict(),
            "update": self._update,
            "warned": self._warned,
            "losses": self._losses,
            "dataset": self._setup.dataset.manifest.identity,
            "versions": json.dumps(self._versions),
        }
        save_checkpoint(self._checkpoint, state)

    def _load(self) -> None:
        state = load_checkpoint(self._checkpoint)
        if state["dataset"] != self._setup.dataset.manifest.identity:
            raise MismatchError(
                f"--resume {self._config.out}: dataset {self._setup.dataset.path} is not the one the run began with, "
                "or has grown. Use the same, or --overwrite."
            )
        self._setup.distiller.load_state_dict(state["distiller"])
        self._update, self._warned, self._losses = state["update"], state["warned"], state["losses"]
        self._versions = json.loads(state["versions"])
        self._resumed_at = self._update
        self._tell(f"going on from update {self._update:,}")

    def _tell(self, text: str) -> None:
        notify(self._callbacks, MessageEvent(text))
