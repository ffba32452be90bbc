"""Train a teacher, with everything it takes to go on after a stop."""

from pathlib import Path
from typing import Any

from rldistill.envs import PlayableTask
from rldistill.errors import UsageError
from rldistill.networks import parse_architecture
from rldistill.options.declaration import option_types, verb
from rldistill.options.distill import DistillOptions, Online
from rldistill.options.shared import recorded
from rldistill.options.train_teacher import TrainTeacherOptions
from rldistill.rollout.threads import use_threads
from rldistill.session.interrupts import stop_on_interrupt
from rldistill.session.machine import resolve_machine
from rldistill.session.run_folder import check_configured, configured_run, keep_inputs
from rldistill.verbs.teachers import AUTO_NETWORK, initial_policy, make_tasks, resolve_algorithm, suited_to
from rldistill.verbs.training_run import GAMES_PER_MEAN as GAMES_PER_MEAN
from rldistill.verbs.training_run import TrainingResult, TrainingRun

_MAY_DIFFER = frozenset({"out", "num_threads", "checkpoint_period", "device"})
# What does not apply to a learner that teaches.
_NOT_OF_A_LEARNER = frozenset({"start_step", "checkpoint_period", "resume", "overwrite", "callbacks"})


@verb(TrainTeacherOptions)
def train_teacher(options: TrainTeacherOptions) -> TrainingResult:
    """Train a teacher for a task, or one network for several; `out` holds its policies, records and checkpoint.

    Returns:
        What the run left: the files `last_policy` and `best_policy`, `num_steps`, `mean_score`, `mean_scores`.

    Raises:
        UsageError: a value is unknown or out of range.
        OutputExistsError: `out` holds something and neither `resume` nor `overwrite` was given.
        NumericalError: the learner diverged.
        KeyboardInterrupt: stopped; the state is saved.
    """
    out = Path(options.out)
    options, tasks = _prepared(options)
    # Before the folder is touched: a network that does not fit neither makes one nor deletes an earlier run.
    policy = initial_policy(options, [playable.task for playable in tasks])
    with (
        configured_run(out, options, "train-teacher", recorded(options), may_differ=_MAY_DIFFER) as continues,
        use_threads(options.num_threads),
        stop_on_interrupt(options.callbacks) as listeners,
    ):
        return TrainingRun(options, tasks, policy, listeners, continues=continues).run()


def check_training(options: TrainTeacherOptions) -> TrainTeacherOptions:
    """Check all of a training that can be checked without playing: its tasks, its first policy and its folder.

    Returns:
        The options with what `auto` stands for here.

    Raises:
        RldistillError: as `train_teacher`.
    """
    options, tasks = _prepared(options)
    initial_policy(options, [playable.task for playable in tasks])
    check_configured(Path(options.out), options, recorded(options), may_differ=_MAY_DIFFER)
    return options


def _prepared(options: TrainTeacherOptions) -> tuple[TrainTeacherOptions, list[PlayableTask]]:
    """Return the options with what every `auto` stands for here, and the tasks."""
    keep_inputs(Path(options.out), [options.init_from], overwrite=options.overwrite)
    options = resolve_training(options)
    tasks = make_tasks(options)
    return suited_to(options, tasks), tasks


def resolve_training(options: TrainTeacherOptions) -> TrainTeacherOptions:
    """Return the options with every `auto` that needs no task replaced by what it stands for here.

    Raises:
        UsageError: the task, the network, the algorithm's settings or the device cannot be.
    """
    if options.network != AUTO_NETWORK and parse_architecture(options.network).remembers:
        raise UsageError(
            f"network: got {options.network!r}, which remembers, and {options.algorithm} learns from single steps: its "
            "memory would be empty in training and full in play. Choose one without, such as mlp:64x64."
        )
    return resolve_machine(resolve_algorithm(options))


def learner_options(item: Online, options: DistillOptions) -> TrainTeacherOptions:
    """Return how the teacher of an online distillation learns, every choice made.

    Raises:
        UsageError: the learner's options hold one that `train_teacher` does not take.
    """
    own: dict[str, Any] = {name: getattr(item, name) for name in ("task", "algorithm", "num_steps", "env_kwargs")}
    own |= {name: getattr(options, name) for name in ("out", "device", "num_threads")}
    known = sorted(option_types(TrainTeacherOptions).keys() - own.keys() - _NOT_OF_A_LEARNER)
    said: dict[str, Any] = {"seed": options.seed, "precision": options.precision, **(item.learner or {})}
    for name in said:
        if name not in known:
            raise UsageError(f"learner: got {name!r}, expected some of {', '.join(known)}.")
    try:
        return resolve_training(TrainTeacherOptions(**own, **said))
    except UsageError as error:
        raise UsageError(f"learner: {error}") from error
