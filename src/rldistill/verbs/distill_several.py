"""Distil what teachers say into several students at once: sizes and seeds for little more than the price of one."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rldistill.distillation import OPTIMIZERS
from rldistill.distillation.loop import HeldOutRecord, UpdateDivergedError
from rldistill.distillation.several import SeveralDistiller, SeveralRecord
from rldistill.errors import UsageError
from rldistill.events import Callback, ProgressEvent, StopRequestedError, notify, tell
from rldistill.networks import PolicyNetwork, parse_architecture
from rldistill.networks.precision import resolve_precision
from rldistill.networks.stacked import can_be_stacked
from rldistill.options.declaration import verb
from rldistill.options.distill import DistillOptions, DistillSeveral
from rldistill.policies import TorchPolicy, load_policy
from rldistill.rollout.threads import use_threads
from rldistill.schedules import as_schedule
from rldistill.session.interrupts import interruption, stop_on_interrupt
from rldistill.session.metrics import MetricsFile
from rldistill.session.run_folder import check_configured, configured_run, provenance
from rldistill.verbs.distill import set_up
from rldistill.verbs.distillation_run import (
    has_checkpoint,
    held_out_values,
    load_run,
    may_differ,
    save_policies_of,
    save_run,
    student_provenance,
    tell_where_it_goes_on,
)
from rldistill.verbs.distillation_setup import DistillationSetup, fix_std
from rldistill.verbs.initial_student import new_student

STUDENTS_FOLDER = "students"


@dataclass(frozen=True)
class Several:
    """Students that learn at once, ready to be trained.

    Attributes:
        options: of the first one, with nothing left open.
        names: of each student, in files and records: `mlp-8-seed-0`.
        students: trained in place.
        distiller: trains all of them.
        setup: what they learn from, as for the first alone.
        values: the options as `config.toml` keeps them.
    """

    options: DistillOptions
    names: Sequence[str]
    students: Sequence[TorchPolicy]
    distiller: SeveralDistiller
    setup: DistillationSetup
    values: Mapping[str, Any]

    def measure(self, update: int) -> list[list[HeldOutRecord]]:
        """Return loss and likeness on held-out steps: of each student, for each task."""
        return [
            [self.distiller.measure(student, source.held_out, update) for source in self.setup.sources]
            for student in range(len(self.students))
        ]


def student_file(out: Path, network: str, seed: int) -> Path:
    """Return where a student of a run lies."""
    return out / STUDENTS_FOLDER / f"{network.replace(':', '-')}-seed-{seed}.safetensors"


def prepare_several(options: DistillSeveral, callbacks: Sequence[Callback]) -> Several:
    """Make the students, and what trains them; close `setup.batches` after use.

    Where a source lets the student play, the first one plays for all.

    Args:
        options: of the run.
        callbacks: receive how far a teacher's play is; may stop the run.

    Raises:
        UsageError: a network that cannot be stacked.
        RldistillError: as `distill`.
    """
    (first, first_seed), *others = options.pairs
    for network in options.networks:  # before anything is loaded
        architecture = parse_architecture(network)
        if architecture.kind != "mlp" or architecture.remembers:
            raise UsageError(
                f"students: got {network!r}, expected networks of vectors alone, such as mlp:8. Others are trained one "
                f"by one, by distill: --student {network} (in Python student={network!r})."
            )
    # The run's seed draws the batches, a student's own its weights.
    resolved, setup = set_up(options.of_one(first), callbacks, weights_seed=first_seed)
    students = [setup.student]
    for network, seed in others:
        own = replace(resolved, student=network, seed=seed)
        students.append(new_student(own, network, setup.tasks).to(torch.device(resolved.device)))
    if resolved.std == "fixed":
        for student in students:
            fix_std(student, setup.sources, list(setup.losses))
    for student in students:
        assert isinstance(student.network, PolicyNetwork) and isinstance(setup.student.network, PolicyNetwork)
        assert can_be_stacked(student.network), "others were refused by their names"
        # One input layer of all: what a source measures of the inputs is written into the first student's.
        student.network.scale = setup.student.network.scale
    names = [student_file(Path(options.out), *pair).stem for pair in options.pairs]
    listed = {"students": list(options.networks), "seeds": list(options.weight_seeds)}
    values = {key: value for key, value in setup.values.items() if key != "student"} | listed
    return Several(resolved, names, students, _distiller(resolved, students, setup), setup, values)


def _distiller(options: DistillOptions, students: Sequence[TorchPolicy], setup: DistillationSetup) -> SeveralDistiller:
    assert options.learning_rate is not None, "filled in by the recipe"
    learning_rate = as_schedule(options.learning_rate, "learning_rate")
    make_optimizer = OPTIMIZERS[options.optimizer]
    return SeveralDistiller(
        [student.network for student in students if isinstance(student.network, PolicyNetwork)],
        {head: loss.function for head, loss in setup.losses.items()},
        lambda weights: make_optimizer(weights, learning_rate.bounds[1], options.weight_decay),
        learning_rate=learning_rate,
        parameters={head: loss.parameters for head, loss in setup.losses.items()},
        num_updates=setup.num_updates,
        max_gradient_norm=options.max_gradient_norm,
        precision=resolve_precision(options.precision, torch.device(options.device)),
        sight=setup.student.spec.sight,
    )


@verb(DistillSeveral)
def distill_several(options: DistillSeveral) -> list[TorchPolicy]:
    """Train several students at once on what a teacher says; `out/students` holds a file for each.

    They learn by one loop on the same batches, each as if it were alone. Sixteen cost 1.4 (`mlp:8`, batches of 32) to
    3.8 times one (`mlp:64x64`, batches of 128). Where the student acts (`teacher_fraction`), the first one does, and
    the others learn from its mistakes.

    Returns:
        The students, in the order of `students`, and of each network in the order of `seeds`.

    Raises:
        UsageError: a value is out of range or unknown, or a network is none of vectors.
        RldistillError: as `distill`.
        KeyboardInterrupt: stopped; the state is saved.
    """
    out = Path(options.out)
    with stop_on_interrupt(options.callbacks) as listeners:
        several = prepare_several(options, listeners)
        with (
            closing(several.setup.batches),
            configured_run(out, options, "distill", several.values, may_differ=may_differ(several.values)) as continues,
            use_threads(several.options.num_threads),
        ):
            return _SeveralRun(several, options.pairs, listeners, continues=continues).run()


def check_several(options: DistillSeveral) -> Several:
    """Check all that can be checked without playing or training, and return what would be trained; it is closed.

    Raises:
        RldistillError: as `distill_several`.
    """
    out = Path(options.out)
    several = prepare_several(options, ())
    several.setup.batches.close()
    check_configured(out, options, several.values, may_differ=may_differ(several.values))
    return several


class _SeveralRun:
    """One run of several students: counters and folder."""

    def __init__(
        self,
        several: Several,
        pairs: Sequence[tuple[str, int]],
        callbacks: Sequence[Callback],
        *,
        continues: bool,
    ) -> None:
        self._options, self._several, self._pairs, self._callbacks = several.options, several, pairs, callbacks
        self._folder = Path(several.options.out)
        self._versions = provenance("distill")
        self._update = 0
        # Since the last measurement, of every student.
        self._losses: list[Sequence[float]] = []
        self._files = [student_file(self._folder, *pair) for pair in pairs]
        students = (self._folder / STUDENTS_FOLDER).glob("*.safetensors")
        self._continues = continues and has_checkpoint(self._folder, students, "the students")

    def run(self) -> list[TorchPolicy]:
        """Train to the end, saving at each measurement, after a stop, and at the end."""
        options, setup = self._options, self._several.setup
        if self._continues:
            self._load()
        for note in setup.notes:
            tell(self._callbacks, note)
        for warning in setup.warnings:
            tell(self._callbacks, warning, "warning")
        if self._update == setup.num_updates and all(file.is_file() for file in self._files):
            tell(self._callbacks, f"{self._folder} is finished")
            return self._finished()
        data = " and ".join(source.description for source in setup.sources)
        text = f"{data} into {len(self._several.students)} students, {options.precision} on {options.device}"
        tell(self._callbacks, text)
        resumed_at = self._update if self._continues else None
        path = self._folder / "metrics.jsonl"
        try:
            with MetricsFile(path, counter="update", resume_at=resumed_at, callbacks=self._callbacks) as metrics:
                self._train(metrics)
        except UpdateDivergedError:
            self._save()
            raise
        except StopRequestedError:
            self._save()
            raise interruption(f"stopped after update {self._update:,}; saved") from None
        return self._finish()

    def _train(self, metrics: MetricsFile) -> None:
        num_updates = self._several.setup.num_updates
        with closing(self._several.setup.batches.of_updates(self._update, num_updates)) as batches:
            for update, batch in enumerate(batches, start=self._update):
                record = self._several.distiller.update(batch, update)
                self._update = update + 1
                self._losses.append(record.losses)
                if self._update % self._options.evaluate_period == 0 or self._update == num_updates:
                    metrics.write(self._measurement(record))
                    self._losses.clear()
                    metrics.sync()
                    self._save()
                shown = {"mean_loss": sum(record.losses) / len(record.losses)}
                notify(self._callbacks, ProgressEvent("distill", self._update, num_updates, "updates", shown))

    def _measurement(self, record: SeveralRecord) -> dict[str, Any]:
        losses = np.mean(self._losses, axis=0).tolist()
        of_each = zip(
            self._several.names, losses, record.gradient_norms, self._several.measure(self._update), strict=True
        )
        sources = self._several.setup.sources
        return {
            "update": self._update,
            "learning_rate": record.learning_rate,
            "students": {
                name: {"loss": loss, "gradient_norm": norm, **held_out_values(sources, measured)}
                for name, loss, norm, measured in of_each
            },
        }

    def _finish(self) -> list[TorchPolicy]:
        several = self._several
        (self._folder / STUDENTS_FOLDER).mkdir(exist_ok=True)
        save_policies_of(several.setup.sources, self._folder)
        measured_students = several.measure(self._update)
        finished = zip(self._files, self._pairs, several.students, measured_students, strict=True)
        for file, (network, seed), student, measured in finished:
            made = student_provenance(several.setup, self._versions, self._update, measured)
            own = made["config"] | {"student": network, "student_seed": seed}
            student.with_provenance(made | {"config": own}).save(file)
        return self._finished()

    def _finished(self) -> list[TorchPolicy]:
        """Return the students from their files: while they learn, their weights are parts of larger tensors."""
        return [load_policy(file, device=self._options.device) for file in self._files]

    def _save(self) -> None:
        save_run(
            self._folder,
            self._several.setup,
            self._several.distiller,
            update=self._update,
            losses=[list(losses) for losses in self._losses],
            versions=self._versions,
        )

    def _load(self) -> None:
        state = load_run(self._folder, self._several.setup, self._several.distiller)
        self._update, self._versions = state["update"], state["versions"]
        self._losses.extend(state["losses"])
        tell_where_it_goes_on(self._options, self._update, self._callbacks)
