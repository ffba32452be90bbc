"""Distil a stored dataset into a student, with everything it takes to go on after a stop."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rldistill.data import Dataset, split_episodes
from rldistill.data.sampler import check_held_out_fraction
from rldistill.distillation import OPTIMIZERS, Distiller, StoredSource
from rldistill.distillation.sources import held_out_sample
from rldistill.errors import MismatchError, UsageError
from rldistill.events import Callback
from rldistill.losses import CustomLoss, LossFunction, make_loss, pairing_warning
from rldistill.networks import module_name, parse_architecture
from rldistill.networks.precision import resolve_precision
from rldistill.policies import Behaviour, TorchPolicy, load_policy
from rldistill.runs.config import DistillConfig, config_values
from rldistill.runs.distillation_run import MAY_DIFFER, DistillationRun, DistillationSetup
from rldistill.runs.run_folder import check_same_config, run_folder, write_config
from rldistill.runs.threads import use_threads
from rldistill.schedules import Constant, Schedule, parse_schedule
from rldistill.seeding import stream_seed
from rldistill.types import OutputKind, resolve_device

_MODULE_PREFIX = "module:"


def distill(
    data: str | Path | Dataset | Sequence[str | Path],
    *,
    out: str | Path,
    student: str | nn.Module = "net3",
    loss: str | CustomLoss | None = None,
    temperature: float | str | None = None,
    num_updates: int = 12_000,
    batch_size: int = 128,
    optimizer: str = "adam",
    learning_rate: float | str = "one_cycle:1e-3",
    max_gradient_norm: float = 1.0,
    weight_decay: float = 0.0,
    precision: str = "auto",
    held_out_fraction: float = 0.1,
    evaluate_period: int = 500,
    evaluate_episodes: int = 0,
    init_from: str | Path | None = None,
    seed: int = 0,
    num_envs: int = 16,
    num_threads: int = 0,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
) -> TorchPolicy:
    """Train a student on a teacher's stored outputs and return it; `out` holds its file and records.

    Args:
        data: dataset folder.
        out: run folder.
        student: preset, `mlp:64x64`, `conv:8-8-8:32`, or a module of your own from scaled float32
            observations to `[B, A]` (its file then loads only with `module=`).
        loss: name, or a callable (student `[B, A]`, target `[B, A]`) → `[B]`; None: what suits
            the teacher's outputs.
        temperature: number or schedule; None: 0.01 for Q-values, 1 for logits.
        num_updates: gradient steps.
        batch_size: steps per update.
        optimizer: `adam` or `rmsprop`.
        learning_rate: number or schedule.
        max_gradient_norm: gradients are scaled down to this norm.
        weight_decay: 0 or more.
        precision: `auto`, `float32` or `bfloat16`.
        held_out_fraction: share of steps never trained on, in whole episodes, ≥ 0.1.
        evaluate_period: updates between measurements on held-out steps.
        evaluate_episodes: episodes the student plays now and then; 0: none.
        init_from: policy file to begin with.
        seed: of everything random.
        num_envs: environments in which the student plays.
        num_threads: of torch and the emulator; 0: one per processor.
        device: `auto`, `cpu` or `cuda`.
        resume: go on with the run in `out`, if there is one.
        overwrite: delete a run in `out` first.
        callbacks: receive events and may stop the run.

    Raises:
        UsageError: a value is out of range or unknown.
        DatasetError: the data cannot be read, or hold too few episodes.
        MismatchError: the loss or the student does not fit what the teacher gave.
        NumericalError: the training diverged.
        KeyboardInterrupt: stopped; the state is saved.
    """
    dataset = data if isinstance(data, Dataset) else None
    paths = (data.path,) if isinstance(data, Dataset) else (data,) if isinstance(data, str | Path) else tuple(data)
    config = DistillConfig(
        data=tuple(Path(path) for path in paths),
        out=Path(out),
        student=student if isinstance(student, str) else f"{_MODULE_PREFIX}{module_name(student)}",
        loss=None if callable(loss) else loss,
        temperature=None if temperature is None else str(temperature),
        num_updates=num_updates,
        batch_size=batch_size,
        optimizer=optimizer,
        learning_rate=str(learning_rate),
        max_gradient_norm=max_gradient_norm,
        weight_decay=weight_decay,
        precision=precision,
        held_out_fraction=held_out_fraction,
        evaluate_period=evaluate_period,
        evaluate_episodes=evaluate_episodes,
        init_from=None if init_from is None else Path(init_from),
        seed=seed,
        num_envs=num_envs,
        num_threads=num_threads,
        device=device,
    )
    return run_distill(
        config,
        dataset=dataset,
        custom_loss=loss if callable(loss) else None,
        module=student if isinstance(student, nn.Module) else None,
        resume=resume,
        overwrite=overwrite,
        callbacks=callbacks,
    )


def resolve(config: DistillConfig) -> DistillConfig:
    """Check what can be checked without data; replace every `auto` by what it stands for here.

    Raises:
        UsageError: a value is unknown or out of range.
    """
    if not config.data:
        raise UsageError("distill needs a dataset: rldistill distill data/pong --out runs/pong-net3.")
    if len(config.data) > 1:
        raise UsageError(f"distill takes one dataset, got {len(config.data)}: {', '.join(map(str, config.data))}.")
    if not config.student.startswith(_MODULE_PREFIX):
        parse_architecture(config.student)
    lowest, highest = parse_schedule(config.learning_rate, "learning_rate").bounds
    if lowest < 0 or highest == 0:
        raise UsageError(
            f"learning_rate must be > 0 and may fall to 0: got {config.learning_rate!r}, {lowest:g} to {highest:g}."
        )
    if config.temperature is not None:
        _positive(parse_schedule(config.temperature, "temperature"), "temperature", config.temperature)
    if config.loss is not None:
        # Known by name, whatever the data: the pairing is checked when the teacher's outputs are known.
        make_loss(config.loss, "q_values", temperature=_any_temperature(config))
    if config.optimizer not in OPTIMIZERS:
        raise UsageError(f"optimizer: got {config.optimizer!r}, expected one of {', '.join(OPTIMIZERS)}.")
    check_held_out_fraction(config.held_out_fraction)
    device = resolve_device(config.device)
    num_threads = config.num_threads or torch.get_num_threads()
    return replace(
        config, device=device.type, precision=resolve_precision(config.precision, device), num_threads=num_threads
    )


def run_distill(
    config: DistillConfig,
    *,
    dataset: Dataset | None = None,
    custom_loss: CustomLoss | None = None,
    module: nn.Module | None = None,
    resume: bool,
    overwrite: bool,
    callbacks: Sequence[Callback] = (),
) -> TorchPolicy:
    """Distil as configured, in `config.out`; see `distill`."""
    config = resolve(config)
    dataset = dataset or Dataset.open(config.data[0])
    setup = _prepare(config, dataset, custom_loss, module)
    with run_folder(config.out, resume=resume, overwrite=overwrite) as continues, use_threads(config.num_threads):
        values = config_values(config) | setup.resolved
        if continues:
            check_same_config(config.out, values, may_differ=MAY_DIFFER)
        else:
            write_config(config.out, "distill", values)
        return DistillationRun(config, setup, callbacks, continues=continues).run()


def _prepare(
    config: DistillConfig, dataset: Dataset, custom_loss: CustomLoss | None, module: nn.Module | None
) -> DistillationSetup:
    teacher = dataset.provenance.teacher
    loss, temperature = _loss_and_temperature(config, teacher.output_kind, custom_loss)
    split = split_episodes(dataset, config.held_out_fraction, config.seed)
    student = _initial_student(config, dataset, module).to(torch.device(config.device))
    learning_rate = parse_schedule(config.learning_rate, "learning_rate")
    optimizer = OPTIMIZERS[config.optimizer](student.network.parameters(), learning_rate.bounds[1], config.weight_decay)
    distiller = Distiller(
        student.network,
        [loss],
        optimizer,
        learning_rate=learning_rate,
        temperatures=[temperature],
        num_updates=config.num_updates,
        max_gradient_norm=config.max_gradient_norm,
        precision=resolve_precision(config.precision, torch.device(config.device)),
    )
    lowest = None if temperature is None else temperature.bounds[0]
    warnings = [] if custom_loss else [pairing_warning(loss.spec.name, teacher.output_kind, lowest)]
    warnings += _data_warnings(dataset)
    resolved: dict[str, Any] = {"loss": loss.spec.name}
    if temperature is not None:
        resolved["temperature"] = temperature.to_text()
    return DistillationSetup(
        dataset,
        student,
        distiller,
        StoredSource(dataset, split.train, batch_size=config.batch_size, seed=config.seed),
        held_out_sample(dataset, split.held_out, seed=config.seed),
        resolved,
        tuple(warning for warning in warnings if warning),
    )


def _data_warnings(dataset: Dataset) -> list[str]:
    """Return what a user should know of the data before trusting a student of theirs."""
    manifest, origin = dataset.manifest, dataset.provenance
    warnings: list[str] = []
    if not manifest.is_complete:
        of = f"{manifest.num_steps:,} of {manifest.target_num_steps:,} steps"
        warnings.append(f"{dataset.path} is not finished: {of} are used. `rldistill collect … --resume` goes on.")
    has_chance = origin.exploration_epsilon > 0 or origin.task.protocol.sticky_action_probability > 0
    if origin.task.is_atari and origin.behaviour == "greedy" and not has_chance:
        warnings.append(
            f"{dataset.path} was played without chance: episodes repeat, and held-out ones may equal those trained on. "
            "Collect with --exploration-epsilon 0.05."
        )
    return warnings


def _loss_and_temperature(
    config: DistillConfig, kind: OutputKind, custom_loss: CustomLoss | None
) -> tuple[LossFunction, Schedule | None]:
    loss = make_loss(custom_loss or config.loss, kind, temperature=_any_temperature(config))
    if config.temperature is not None:
        return loss, parse_schedule(config.temperature, "temperature")
    return loss, None if loss.spec.temperature is None else Constant(loss.spec.temperature)


def _any_temperature(config: DistillConfig) -> float | None:
    """Return a temperature of the schedule, to let the loss judge whether it takes one."""
    return None if config.temperature is None else parse_schedule(config.temperature, "temperature")(0.0)


def _positive(schedule: Schedule, name: str, text: str) -> None:
    if not schedule.bounds[0] > 0:
        raise UsageError(f"{name} must stay > 0, got {text!r}, whose lowest value is {schedule.bounds[0]:g}.")


def _initial_student(config: DistillConfig, dataset: Dataset, module: nn.Module | None) -> TorchPolicy:
    task, teacher = dataset.provenance.task, dataset.provenance.teacher
    # A student of Q-values by a divergence gives logits; argmax and greedy play are the same.
    kind: OutputKind = "q_values" if config.loss == "q_mse" else "logits"
    samples = teacher.output_kind != "q_values" and dataset.provenance.behaviour == "sample"
    behaviour: Behaviour = "sample" if samples else "greedy"
    if module is not None:
        if config.init_from is not None:
            raise UsageError("init_from does not go with a module of your own: load its weights before you pass it.")
        return TorchPolicy.from_module(module, task, output_kind=kind, behaviour=behaviour)
    if config.student.startswith(_MODULE_PREFIX):
        raise UsageError(f"student: got {config.student!r}, a Python module that its name cannot bring back.")
    architecture = parse_architecture(config.student)
    generator = torch.Generator().manual_seed(stream_seed(config.seed, "weights"))
    student = TorchPolicy.create(architecture, [task], output_kind=kind, behaviour=behaviour, generator=generator)
    if config.init_from is None:
        return student
    initial = load_policy(config.init_from)
    differences = initial.tasks[0].fingerprint.differences(task.fingerprint)
    if differences:
        raise MismatchError(
            f"--init-from {config.init_from} does not fit the dataset {dataset.path}: {'; '.join(differences)}."
        )
    if initial.spec.architecture != architecture:
        raise MismatchError(f"--init-from {config.init_from} holds a {initial.name}, --student says {config.student}.")
    # Only its weights: what the outputs mean and how the student acts follow from this run's loss and teacher.
    student.network.load_state_dict(initial.network.state_dict())
    return student
