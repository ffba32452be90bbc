"""What a distillation is given: dataset folders, or teachers that play, by path or as Python objects."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar, cast

from gymnasium.vector import VectorEnv

from rldistill.data import Dataset
from rldistill.envs import PlayableTask, TaskLike, make_task
from rldistill.envs.make import import_task_module
from rldistill.errors import UsageError
from rldistill.events import Callback, ProgressEvent, notify
from rldistill.loading.named import (
    PolicyFile,
    PolicyLike,
    as_policy,
    path_of,
    played_by,
    policy_files,
    sampling_note,
    told_to_act,
    while_recorded,
    words_of,
)
from rldistill.policies.behaviour import check_behaviour
from rldistill.tasks import Task
from rldistill.verbs.config import parse_options
from rldistill.verbs.distill_config import DistillConfig
from rldistill.verbs.online import OnlineData, learner_config
from rldistill.verbs.task_data import LiveData, StoredData, TaskData

Data = str | Path | Dataset
Item = TypeVar("Item")

_OWNERS: Mapping[str, tuple[str, ...]] = {
    "task": ("data", "teacher", "online"),
    "exploration_epsilon": ("teacher", "online"),
    "trust": ("teacher",),
    "outputs": ("teacher",),
    "input_scale": ("teacher",),
    "activation": ("teacher",),
    "normalizer": ("teacher",),
    "behaviour": ("teacher",),
    "env_kwargs": ("teacher", "online"),
    "collect_steps": ("teacher",),
    "collect_period": ("teacher",),
    "replay_capacity": ("teacher", "online"),
    "algorithm": ("online",),
    "num_steps": ("online",),
    "learner": ("online",),
    "online_teacher": ("online",),
    "judge_period": ("online",),
    "task_order": ("data", "teacher"),
    "task_weights": ("data", "teacher"),
    "held_out_fraction": ("data", "teacher"),
}


@dataclass(frozen=True)
class DistillInputs:
    """Datasets, or teachers with what they play.

    Attributes:
        data: folders or open datasets.
        teachers: files or policies; empty where there are data.
        tasks: what they play; empty: each its own; else as many, or one teacher plays them all. Of datasets: those
            whose modules may be imported.
    """

    data: Sequence[Data]
    teachers: Sequence[PolicyLike] = ()
    tasks: Sequence[TaskLike] = ()


def as_list(value: Item | Sequence[Item] | None) -> list[Item]:
    """Return one value, or several, or none, as a list."""
    if value is None:
        return []
    if isinstance(value, Sequence) and not isinstance(value, str | Path):
        return list(cast(Sequence[Item], value))
    return [cast(Item, value)]


def policy_path(policy: PolicyLike) -> Path:
    """Return a policy as a configuration names it: its file, or `policy:` and its hash."""
    path = path_of(policy)
    if path is not None:
        return path
    assert not isinstance(policy, str | Path | PolicyFile), "those have a path"
    return Path(f"policy:{policy.hash}")


def task_name(task: TaskLike) -> str:
    """Return a task as a configuration names it."""
    if isinstance(task, str):
        return task
    if isinstance(task, Task):
        return task.name
    if isinstance(task, PlayableTask):
        return task.task.name
    return type(task).__name__ if isinstance(task, VectorEnv) else getattr(task, "__qualname__", repr(task))


def inputs_of(config: DistillConfig) -> DistillInputs:
    """Return what a configuration names."""
    tasks = [] if config.task is None else [name.strip() for name in config.task.split(",")]
    return DistillInputs(config.data, policy_files(config.teacher, config), tasks)


def check_inputs(config: DistillConfig) -> None:
    """Check that there are either data or teachers.

    Raises:
        UsageError: neither, both, or a number of tasks that does not fit.
    """
    sources = [name for name in ("data", "teacher", "online") if getattr(config, name)]
    if not sources:
        raise UsageError(
            "distill needs a dataset, a teacher that plays, or --online: "
            "rldistill distill data/pong --out runs/pong-net3."
        )
    files = [path for path in config.data if path.suffix and not path.is_dir()]
    if sources == ["data", "teacher"] and files:
        raise UsageError(
            f"{files[0]} is taken for a dataset, which is a folder. Name each teacher with an option of its "
            f"own: --teacher {config.teacher[0]} --teacher {files[0]}."
        )
    if len(sources) > 1:
        raise UsageError(
            f"distill takes one of datasets, --teacher and --online, got {' and '.join(sources)}. "
            "A dataset knows its own teacher, and --online makes one."
        )
    defaults = {item.name: item.default for item in fields(DistillConfig)}
    for name, allowed in _OWNERS.items():
        if getattr(config, name) != defaults[name] and sources[0] not in allowed:
            shown = " and ".join("a dataset" if source == "data" else f"--{source}" for source in allowed)
            raise UsageError(f"{name} belongs with {shown}, got it with {sources[0]}.")
    if config.online:
        learner_config(config)
        return
    num_tasks = 0 if config.task is None else len(config.task.split(","))
    if config.teacher and num_tasks and num_tasks != len(config.teacher) != 1:
        raise UsageError(f"--task names {num_tasks} tasks for {len(config.teacher)} teachers, expected one for each.")


def open_inputs(inputs: DistillInputs, config: DistillConfig, callbacks: Sequence[Callback]) -> Sequence[TaskData]:
    """Open datasets, or load teachers and make what they play.

    Raises:
        DatasetError: a dataset cannot be read.
        PolicyFileError: a teacher's file cannot be trusted.
        MismatchError: a teacher does not fit its task.
    """
    if config.online:
        learner = learner_config(config)
        assert learner.task is not None, "learner_config checks that there is one"
        playable = _with_exploration(make_task(learner.task, parse_options(config.env_kwargs)), config)
        return [OnlineData(learner, playable, callbacks)]
    if inputs.data:
        datasets = [item if isinstance(item, Dataset) else Dataset.open(item) for item in inputs.data]
        _allow_modules(inputs.tasks, [dataset.provenance.task.name for dataset in datasets])
        return [StoredData(dataset) for dataset in datasets]
    teachers, tasks = list(inputs.teachers), list(inputs.tasks)
    if len(teachers) == 1:
        teachers *= max(len(tasks), 1)
    on_play = _reporter(callbacks)
    return [
        _live_data(teacher, tasks[number] if tasks else None, config, on_play)
        for number, teacher in enumerate(teachers)
    ]


def _allow_modules(tasks: Sequence[TaskLike], recorded: Sequence[str]) -> None:
    """Import the modules of datasets' tasks that the user names: a dataset by itself may import nothing.

    Raises:
        UsageError: a name is none of the datasets'.
    """
    for task in tasks:
        name = task_name(task)
        if name not in recorded:
            raise UsageError(
                f"task: got {name!r}, expected {' or '.join(map(repr, recorded))}: a dataset's task is the one it was "
                "collected on. Leave it out, or name it as it stands there."
            )
        if isinstance(task, str):  # typed, and no record
            import_task_module(name)


def _live_data(
    teacher: PolicyLike, task: TaskLike | None, config: DistillConfig, on_play: Callable[[str, int, int], None]
) -> LiveData:
    options = parse_options(config.env_kwargs)
    said = check_behaviour(config.behaviour)
    policy = told_to_act(as_policy(teacher, device=config.device, task=task, env_kwargs=options), said)
    playable = played_by(policy, make_task(task if task is not None else policy.tasks[0], options))
    player = while_recorded(policy, said)
    return LiveData(
        policy,
        _with_exploration(playable, config),
        path_of(teacher),
        on_play,
        reading=words_of(teacher),
        player=player,
        note=sampling_note(policy, player),
    )


def _with_exploration(playable: PlayableTask, config: DistillConfig) -> PlayableTask:
    epsilon = config.exploration_epsilon
    return playable if epsilon is None else playable.with_exploration(epsilon)


def _reporter(callbacks: Sequence[Callback]) -> Callable[[str, int, int], None]:
    def report(task: str, done: int, total: int) -> None:
        notify(callbacks, ProgressEvent(f"play {task}", done, total, "steps"))

    return report
