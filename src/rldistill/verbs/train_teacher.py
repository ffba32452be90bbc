"""Train a teacher, with everything it takes to go on after a stop."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from rldistill.errors import UsageError
from rldistill.events import Callback, check_callbacks
from rldistill.networks import parse_architecture
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
from rldistill.verbs.machine import resolve_training_machine
from rldistill.verbs.teacher_config import TrainTeacherConfig, TrainTeacherSettings
from rldistill.verbs.teachers import initial_policy, make_tasks, resolve_algorithm
from rldistill.verbs.training_run import GAMES_PER_MEAN as GAMES_PER_MEAN
from rldistill.verbs.training_run import TrainingResult, TrainingRun

_MAY_DIFFER = frozenset({"out", "num_threads", "checkpoint_period", "device"})


def resolve(config: TrainTeacherConfig, *, resume: bool = False) -> TrainTeacherConfig:
    """Return the configuration with every `auto` replaced by what it stands for here.

    Raises:
        UsageError: the task, the network, the algorithm's settings or the device cannot be.
    """
    make_tasks(config)
    parse_architecture(config.network)
    return resolve_training_machine(resolve_algorithm(config), resume=resume)


def check_training(config: TrainTeacherConfig, *, resume: bool, overwrite: bool) -> None:
    """Check all of a training that can be checked without playing: its tasks, its first policy and its folder.

    Raises:
        RldistillError: as `train_teacher`.
    """
    config = resolve(config, resume=resume)
    keep_inputs(config.out, [config.init_from], overwrite=overwrite)
    initial_policy(config, [playable.task for playable in make_tasks(config)])
    if earlier_run(config.out, may_stay=resume or overwrite) and resume:
        _check_same(config)


def train_teacher(
    task: str | Sequence[str],
    *,
    out: str | Path,
    num_steps: int = TrainTeacherConfig.num_steps,
    env_kwargs: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    **settings: Unpack[TrainTeacherSettings],
) -> TrainingResult:
    """Train a teacher for a task, or one network for several; `out` holds its policies, records and checkpoint.

    Args:
        task: `atari:<game>`, a Gymnasium id, or `module:EnvId`; a list of them is learned by one
            network with a head for each.
        out: run folder.
        num_steps: decisions over all environments and the whole schedule, of each task.
        env_kwargs: settings of the task, or of every one.
        resume: go on with the run in `out`, if there is one.
        overwrite: delete a run in `out` first.
        callbacks: receive events and may stop the run.
        **settings: every other field of `TrainTeacherConfig`, by name.

    Raises:
        UsageError: a value is unknown or out of range.
        OutputExistsError: `out` holds something and neither flag was given.
        NumericalError: the learner diverged.
        KeyboardInterrupt: stopped; the state is saved.
    """
    options = json.dumps(dict(env_kwargs or {}))
    is_one = isinstance(task, str)
    if not is_one and not (isinstance(task, Sequence) and all(isinstance(each, str) for each in task)):
        raise UsageError(
            f"task: got a {type(task).__name__}, expected an id, or a list of ids: a run writes down what it plays, to "
            'go on with it. Register yours with gymnasium.register(id="Mine-v0", entry_point=…) in a module of your '
            "own, and pass 'module:Mine-v0'."
        )
    config = TrainTeacherConfig(
        task=task if is_one else None,
        tasks=None if is_one else ",".join(task),
        out=Path(out),
        num_steps=num_steps,
        env_kwargs=options,
        **settings,
    )
    return run_train_teacher(config, resume=resume, overwrite=overwrite, callbacks=callbacks)


def run_train_teacher(
    config: TrainTeacherConfig, *, resume: bool, overwrite: bool, callbacks: Sequence[Callback] = ()
) -> TrainingResult:
    """Train as configured, in `config.out`.

    Raises:
        RldistillError: the folder is taken, the task unknown, the learner diverged, …
        KeyboardInterrupt: after Ctrl-C, with everything saved.
    """
    check_callbacks(callbacks)
    keep_inputs(config.out, [config.init_from], overwrite=overwrite)
    config = resolve(config, resume=resume)
    tasks = make_tasks(config)
    with run_folder(config.out, resume=resume, overwrite=overwrite) as continues, use_threads(config.num_threads):
        if continues:
            _check_same(config)
        else:
            write_config(config.out, "train-teacher", config_values(config))
        with stop_on_interrupt(callbacks) as listeners:
            return TrainingRun(config, tasks, listeners, continues=continues).run()


def _check_same(config: TrainTeacherConfig) -> None:
    """Check that a run that is to go on began as this one would."""
    defaults = default_values(TrainTeacherConfig)
    check_same_config(config.out, config_values(config), may_differ=_MAY_DIFFER, defaults=defaults)
