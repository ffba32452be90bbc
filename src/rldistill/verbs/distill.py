"""Distil stored datasets into a student, with everything it takes to go on after a stop."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from rldistill.data import Dataset
from rldistill.data.sampler import check_held_out_fraction
from rldistill.distillation import OPTIMIZERS
from rldistill.envs import TaskLike
from rldistill.errors import UsageError
from rldistill.events import Callback, check_callbacks
from rldistill.loading.named import PolicyLike, files_of
from rldistill.losses import CustomLoss
from rldistill.networks import parse_architecture
from rldistill.policies import Behaviour, TorchPolicy
from rldistill.schedules import parse_schedule
from rldistill.session.interrupts import stop_on_interrupt
from rldistill.session.run_folder import (
    check_same_config,
    earlier_run,
    keep_inputs,
    run_folder,
    write_config,
)
from rldistill.session.threads import use_threads
from rldistill.verbs.config import config_values, default_values
from rldistill.verbs.distill_config import AUTO_STUDENT, DistillConfig
from rldistill.verbs.distillation_inputs import (
    Data,
    DistillInputs,
    as_list,
    check_inputs,
    inputs_of,
    open_inputs,
    policy_path,
    task_name,
)
from rldistill.verbs.distillation_run import DistillationRun, may_differ
from rldistill.verbs.distillation_setup import DistillationSetup, prepare, task_schedule
from rldistill.verbs.initial_student import MODULE_PREFIX, STUDENT_STDS, student_name
from rldistill.verbs.machine import resolve_training_machine
from rldistill.verbs.online import learner_config
from rldistill.verbs.per_task import parse_per_task, per_task_text
from rldistill.verbs.task_data import StoredData, TaskData
from rldistill.verbs.task_losses import check_losses


def distill(
    data: Data | Sequence[Data] | None = None,
    *,
    out: str | Path,
    teacher: PolicyLike | Sequence[PolicyLike] | None = None,
    task: TaskLike | Sequence[TaskLike] | None = None,
    student: str | nn.Module = AUTO_STUDENT,
    loss: str | CustomLoss | Mapping[str, str] | None = None,
    temperature: float | str | Mapping[str, float | str] | None = None,
    std: str = "state",
    task_order: str = "in_turn",
    task_weights: Mapping[str, float] | None = None,
    add_head: bool = False,
    train_torso: bool = False,
    online: bool = False,
    algorithm: str | None = None,
    num_steps: int | None = None,
    learner: Mapping[str, Any] | None = None,
    online_teacher: str = "best",
    judge_period: int = 100_000,
    env_kwargs: Mapping[str, Any] | None = None,
    behaviour: Behaviour | None = None,
    exploration_epsilon: float | None = None,
    collect_steps: int = 54_000,
    collect_period: int = 10_000,
    replay_capacity: int = 540_000,
    num_updates: int = 12_000,
    batch_size: int = 128,
    optimizer: str = "adam",
    learning_rate: float | str = "one_cycle:1e-3",
    max_gradient_norm: float = 1.0,
    weight_decay: float = 0.0,
    precision: str = "auto",
    held_out_fraction: float = 0.1,
    evaluate_period: int = 500,
    evaluate_episodes: int | None = None,
    init_from: str | Path | None = None,
    seed: int = 0,
    num_envs: int = 16,
    num_threads: int = 0,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
) -> TorchPolicy:
    """Train a student on teachers' stored outputs and return it; `out` holds its file and records.

    Several datasets, one per task, make one student with a shared torso and a head for each
    task, as in Rusu et al. 2015, section 3.2; `student.for_task("atari:pong")` then plays one.

    With `teacher` instead of data, the paper's live schedule: each teacher plays `collect_steps`,
    the student takes `collect_period` updates on the newest `replay_capacity` of them, and so on.

    Args:
        data: dataset folder, or one per task.
        out: run folder.
        teacher: policy or file whose play is learned from, or one per task.
        task: what the teachers play; None: each its own. With data: its task, which allows to import the module in
            `module:EnvId`.
        online: instead of data, teach the student while its teacher learns `task`, a name.
        algorithm: with `online`, `pqn` or `dqn`; None: `pqn`.
        num_steps: with `online`, decisions of the learner; None: 2,500,000.
        learner: with `online`, other options of `train_teacher`, by name.
        online_teacher: with `online`, `best` (the learner's best policy so far) or `current`.
        judge_period: with `online`, decisions between evaluations of learner and student.
        env_kwargs: with `teacher` or `online`, settings of the task.
        behaviour: with `teacher`, how it acts, `greedy` or `sample`; None: as it does, but a Gaussian is sampled while
            it is recorded.
        exploration_epsilon: with `teacher` or `online`, chance of a random action; None: the protocol's.
        collect_steps: with `teacher`, decisions of each task per collection.
        collect_period: with `teacher`, updates between collections.
        replay_capacity: with `teacher`, newest decisions of each task that are kept.
        student: `auto` (fits the observations, and has at most half as many parameters as its teacher), a preset,
            `mlp:64x64`, `conv:8-8-8:32`, or a module of your own from scaled float32
            observations to `[B, A]` (its file then loads only with `module=`).
        loss: name, by task where they differ, or a callable (student `[B, A]`, target `[B, A]`) →
            `[B]`; None: what suits the teacher's outputs.
        temperature: number or schedule, by task where they differ; None: 0.01 for Q-values, 1 for logits; `auto`: 1/7
            of the median gap between the teacher's best two actions.
        std: of a Gaussian student: `state`, `parameter` or `fixed`.
        task_order: `in_turn` (each batch is one task's, as in the paper), `mixed` (each batch has
            rows of all) or `random`.
        task_weights: by task, the shares in `mixed` and `random`; 1 where none is given.
        add_head: keep the heads of `init_from` and add one per new task; the rest stays frozen.
        train_torso: with `add_head`, train the torso and the old heads too.
        num_updates: gradient steps, over all tasks.
        batch_size: rows per update, over all tasks.
        optimizer: `adam` or `rmsprop`.
        learning_rate: number or schedule.
        max_gradient_norm: gradients are scaled down to this norm.
        weight_decay: 0 or more.
        precision: `auto`, `float32` or `bfloat16`.
        held_out_fraction: share of steps never trained on, in whole episodes, ≥ 0.1.
        evaluate_period: updates between measurements on held-out steps.
        evaluate_episodes: episodes of student, teacher and random play at the end, and of the student now and then; 0:
            none; None: 10 at the end alone, within a minute, none of Atari nor of an environment given as an object.
        init_from: policy file whose weights to begin with.
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
    given = as_list(data)
    teachers, tasks = as_list(teacher), as_list(task)
    config = DistillConfig(
        data=tuple(item.path if isinstance(item, Dataset) else Path(item) for item in given),
        teacher=tuple(policy_path(item) for item in teachers),
        task=",".join(task_name(item) for item in tasks) or None,
        online=online,
        algorithm=algorithm,
        num_steps=num_steps,
        learner=json.dumps(dict(learner or {})),
        online_teacher=online_teacher,
        judge_period=judge_period,
        env_kwargs=json.dumps(dict(env_kwargs or {})),
        behaviour=behaviour,
        exploration_epsilon=exploration_epsilon,
        collect_steps=collect_steps,
        collect_period=collect_period,
        replay_capacity=replay_capacity,
        out=Path(out),
        student=student_name(student),
        loss=None if callable(loss) else per_task_text(loss),
        temperature=per_task_text(temperature),
        std=std,
        task_order=task_order,
        task_weights=per_task_text(task_weights),
        add_head=add_head,
        train_torso=train_torso,
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
        inputs=DistillInputs(given, teachers, tasks),
        custom_loss=loss if callable(loss) else None,
        module=student if isinstance(student, nn.Module) else None,
        resume=resume,
        overwrite=overwrite,
        callbacks=callbacks,
    )


def resolve(config: DistillConfig, *, resume: bool = False) -> DistillConfig:
    """Check what can be checked without data; replace every `auto` by what it stands for here.

    Raises:
        UsageError: a value is unknown or out of range.
    """
    check_inputs(config)
    if config.student != AUTO_STUDENT and not config.student.startswith(MODULE_PREFIX):
        parse_architecture(config.student)
    lowest, highest = parse_schedule(config.learning_rate, "learning_rate").bounds
    if lowest < 0 or highest == 0:
        raise UsageError(
            f"learning_rate must be > 0 and may fall to 0: got {config.learning_rate!r}, {lowest:g} to {highest:g}."
        )
    check_losses(config)
    if config.std not in STUDENT_STDS:
        raise UsageError(f"std: got {config.std!r}, expected one of {', '.join(STUDENT_STDS)}.")
    if config.std == "fixed" and not config.data:
        raise UsageError(
            "std: fixed is the teacher's own spread in a dataset, and a teacher that plays live has not said anything "
            "yet. Collect first, or choose state or parameter."
        )
    task_schedule(config, list(parse_per_task(config.task_weights, "task_weights")) or [""])
    if config.optimizer not in OPTIMIZERS:
        raise UsageError(f"optimizer: got {config.optimizer!r}, expected one of {', '.join(OPTIMIZERS)}.")
    check_held_out_fraction(config.held_out_fraction)
    if config.online:
        learner = learner_config(config)
        config = replace(config, algorithm=learner.algorithm, num_steps=learner.num_steps)
    return resolve_training_machine(config, resume=resume)


def check_distillation(config: DistillConfig, *, resume: bool, overwrite: bool) -> None:
    """Check all of a distillation that can be checked without playing or training: what it reads, fits and writes.

    Raises:
        RldistillError: as `distill`.
    """
    config = resolve(config, resume=resume)
    keep_inputs(config.out, _files_read(config, None), overwrite=overwrite)
    data = open_inputs(inputs_of(config), config, ())
    keep_inputs(config.out, _recorded_teachers(data), overwrite=overwrite)
    setup = prepare(config, data, None, None)
    setup.source.close()
    if earlier_run(config.out, may_stay=resume or overwrite) and resume:
        _check_same(config, setup)


def run_distill(
    config: DistillConfig,
    *,
    inputs: DistillInputs | None = None,
    custom_loss: CustomLoss | None = None,
    module: nn.Module | None = None,
    resume: bool,
    overwrite: bool,
    callbacks: Sequence[Callback] = (),
) -> TorchPolicy:
    """Distil as configured, in `config.out`; see `distill`."""
    check_callbacks(callbacks)
    config = resolve(config, resume=resume)
    keep_inputs(config.out, _files_read(config, inputs), overwrite=overwrite)
    # Around all of it: a learner that teaches reports while it plays, and is to hear Ctrl-C there too.
    with stop_on_interrupt(callbacks) as listeners:
        data = open_inputs(inputs or inputs_of(config), config, listeners)
        keep_inputs(config.out, _recorded_teachers(data), overwrite=overwrite)
        setup = prepare(config, data, custom_loss, module)
        config = replace(config, student=setup.resolved["student"])
        with run_folder(config.out, resume=resume, overwrite=overwrite) as continues, use_threads(config.num_threads):
            if continues:
                _check_same(config, setup)
            else:
                write_config(config.out, "distill", _values(config, setup))
            return DistillationRun(config, setup, listeners, continues=continues).run()


def _values(config: DistillConfig, setup: DistillationSetup) -> dict[str, Any]:
    return config_values(config) | dict(setup.resolved)


def _check_same(config: DistillConfig, setup: DistillationSetup) -> None:
    """Check that a run that is to go on began as this one would."""
    defaults = default_values(DistillConfig)
    check_same_config(config.out, _values(config, setup), may_differ=may_differ(config), defaults=defaults)


def _recorded_teachers(data: Sequence[TaskData]) -> list[Path]:
    """Return the files of the teachers that datasets name: the score at the end reads them."""
    paths = [item.teacher.path for item in data if isinstance(item, StoredData)]
    return [Path(path) for path in paths if path]


def _files_read(config: DistillConfig, inputs: DistillInputs | None) -> list[Path | None]:
    learner = learner_config(config).init_from if config.online else None
    named = files_of(inputs.teachers) if inputs else []
    return [*config.data, *config.teacher, *named, config.normalizer, config.init_from, learner]
