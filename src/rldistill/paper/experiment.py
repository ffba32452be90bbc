"""An experiment as its TOML says it: arms that are compared, the paper's figures, and budgets.

The sections of a budget are settings of the verbs, by their names there: `[budgets.cpu.distill]` takes what `distill`
takes, `train_teacher` and `joint` what `train-teacher` takes. An arm is a further set of settings of its method, which
override the budget's; `[budgets.cpu.arms]` adds those of an arm at one budget, such as its number of updates. A key
that nobody knows is an error. Without a section `collect` the students learn from teachers that play meanwhile, the
paper's live schedule (`collect_steps`, `collect_period` and `replay_capacity` of `distill`).
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from rldistill.errors import UsageError
from rldistill.loading.bundled import bundled_experiments
from rldistill.losses.spec import TEMPERED_LOSS_NAMES
from rldistill.options.collect import CollectOptions
from rldistill.options.declaration import AtLeast, Count, Options, check_option, option_types
from rldistill.options.distill import DistillOptions, Live, Online
from rldistill.options.evaluate import EvaluateOptions
from rldistill.options.reading import Reading
from rldistill.options.shared import Folder, Told
from rldistill.options.train_teacher import TrainTeacherOptions
from rldistill.session.run_folder import read_config

Kind = Literal["single_task", "multi_task", "online"]
Method = Literal["distill", "joint", "online", "learner"]
"""`distill`: a student learns from teachers; `joint`: without any, one network learns all games by playing them;
`online`: a student learns while its teacher does; `learner`: that teacher at its last step."""
Settings = Mapping[str, Any]
TeacherChoice = Literal["trained", "named"]
Record = TypeVar("Record")

# What the plan itself decides for every job, and what says how files of other libraries are read: --teacher takes files
# that say everything themselves.
_PLANNED = {
    *("task", "out", "env_kwargs", "seed", "device", "num_threads", "num_envs", "source", "teacher", "policies"),
    *("exploration_epsilon", "init_from", *option_types(Reading), *option_types(Folder), *option_types(Told)),
}
_ALONE = frozenset({"task_weights", "add_head", "train_torso"})
# The records whose options a section takes, without those of the second.
_SECTIONS: Mapping[str, tuple[tuple[type[Any], ...], frozenset[str]]] = {
    "train_teacher": ((TrainTeacherOptions,), frozenset({"start_step"})),
    "joint": ((TrainTeacherOptions,), frozenset({"start_step"})),
    "collect": ((CollectOptions,), frozenset()),
    "distill": ((DistillOptions, Live), _ALONE),
    "online": ((DistillOptions, Online), _ALONE | {"task_order", "held_out_fraction"}),
    "evaluate": ((EvaluateOptions,), frozenset({"require_retention"})),
}
# These learn as they were told for themselves: an algorithm has a number of environments of its own.
_OF_TRAINING = frozenset({"num_envs"})


@dataclass(frozen=True, kw_only=True)
class Arm(Options):
    """One of the things that are compared."""

    name: str  # for tables and files
    settings: Settings  # of the method, over those of the budget
    method: Method = "distill"  # how its student is made
    # The paper's figure, the geometric mean over its games of student ÷ teacher.
    paper: Annotated[float, AtLeast(0)] | None = None


@dataclass(frozen=True, kw_only=True)
class Budget(Options):
    """How much of everything an experiment may take; the sections are settings of the verbs."""

    games: Sequence[str]  # Atari games by ale-py's names
    num_seeds: Count  # students of each arm
    evaluate: Settings  # of every student and teacher
    train_teacher: Settings = field(default_factory=dict[str, Any])  # for games without a teacher's file
    distill: Settings = field(default_factory=dict[str, Any])  # of arms of this method
    online: Settings | None = None  # of arms of this method
    collect: Settings | None = None  # one dataset per game; None: teachers play while students learn
    joint: Settings | None = None  # of arms of this method; None: such arms are left out, and said to be
    arms: Mapping[str, Settings] = field(default_factory=dict[str, Settings])  # of single arms at this budget, by name
    env: Settings = field(default_factory=dict[str, Any])  # settings of every task
    # Where they come from if not from files, else the zoo, else training: `trained`: never from the zoo, so that they
    # learn from as many steps as a joint arm; `named`: from files alone.
    teachers: TeacherChoice | None = None

    def settings_of(self, arm: Arm) -> dict[str, Any]:
        """Return the settings of an arm's method; a temperature only where its loss takes one."""
        sections = {"distill": self.distill, "joint": self.joint, "online": self.online}
        settings = {**(sections.get(arm.method) or {}), **arm.settings, **self.arms.get(arm.name, {})}
        if settings.get("loss", TEMPERED_LOSS_NAMES[0]) not in TEMPERED_LOSS_NAMES:
            settings.pop("temperature", None)
        return settings

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data, without what is not set."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items() if value}


@dataclass(frozen=True, kw_only=True)
class Experiment(Options):
    """What an experiment compares."""

    name: str  # of its file
    title: str  # a question or a statement for a headline
    section: str = ""  # where in the paper
    # `single_task`: a student for each game; `multi_task`: one for all games; `online`: one for each game, of a teacher
    # that learns meanwhile.
    kind: Kind
    arms: tuple[Arm, ...]  # in the order of tables
    budgets: Mapping[str, Budget]  # by name
    paper_games: Sequence[str] = ()  # over which its figures are
    paper_order: Sequence[str] = ()  # the arms' names, best first, where the paper ranks them


def load_experiment(name: str) -> Experiment:
    """Read an experiment: one of those that come with the package, or a TOML file of yours.

    Raises UsageError: there is none of that name, or its file says something it should not.
    """
    bundled = bundled_experiments()
    path = Path(name) if name.endswith(".toml") else bundled.get(name)
    if path is None:
        raise UsageError(
            f"Unknown experiment: got {name!r}, expected one of {', '.join(sorted(bundled))}, or a TOML file."
        )
    place = path.name
    table = _table(read_config(path), place, required=("title", "kind", "arms", "budgets"), known=_known(Experiment))
    if not isinstance(table["arms"], list):
        raise UsageError(f"{place}: arms: got {table['arms']!r}, expected a list of tables.")
    arms = tuple(_arm(arm, f"{place}, arms") for arm in cast(list[object], table["arms"]))
    is_online = table["kind"] == "online"
    budgets = {
        key: _budget(value, f"{place}, budgets.{key}", is_online=is_online)
        for key, value in _table(table["budgets"], f"{place}, budgets", required=(), known=None).items()
    }
    experiment = _filled(Experiment, place, table | {"name": path.stem, "arms": arms, "budgets": budgets})
    names, order = [arm.name for arm in arms], experiment.paper_order
    if len(set(names)) < len(names) or not arms or not set(order) <= set(names):
        raise UsageError(f"{place}: arms need names of their own, and paper_order names arms: got {names}, {order}.")
    for key, budget in budgets.items():
        for name, settings in budget.arms.items():
            if name not in names:
                raise UsageError(f"{place}, budgets.{key}: arms: got {name!r}, expected one of {', '.join(names)}.")
            _check_arm_settings(settings, arms[names.index(name)], f"{place}, budgets.{key}.arms.{name}")
    are_online = [arm.method in ("online", "learner") for arm in arms]
    if is_online != all(are_online) or (is_online and arms[0].method != "online"):
        raise UsageError(f"{place}: kind online takes arms of method online, then learner; other kinds take neither.")
    has_joint = any(arm.method == "joint" for arm in arms)
    if has_joint and table["kind"] != "multi_task":
        raise UsageError(f"{place}: a joint arm needs several tasks: kind multi_task.")
    return experiment


def _arm(table: object, place: str) -> Arm:
    values = _table(table, place, required=("name",), known=None)
    settings = {key: value for key, value in values.items() if key not in ("name", "method", "paper")}
    own = {key: value for key, value in values.items() if key not in settings}
    arm = _filled(Arm, place, own | {"settings": settings})
    if not re.fullmatch("[a-z0-9_]+", arm.name) or arm.name in ("teacher", "random"):
        raise UsageError(f"{place}: name is {arm.name!r}, expected letters, digits and _, and no role's name.")
    _check_arm_settings(settings, arm, place)
    return arm


def _check_arm_settings(settings: Settings, arm: Arm, place: str) -> None:
    if arm.method != "learner":
        _check_section(settings, arm.method, place)
    elif settings:
        raise UsageError(f"{place}: the learner takes no settings of its own, got {', '.join(settings)}.")


def _budget(table: object, place: str, *, is_online: bool) -> Budget:
    required = ("games", "num_seeds", "evaluate", *(("online",) if is_online else ("train_teacher", "distill")))
    values = _table(table, place, required=required, known=_known(Budget))
    budget = _filled(Budget, place, values)
    if not budget.games:
        raise UsageError(f"{place}: games: got none, expected one or more.")
    for name in [name for name in _SECTIONS if name in values]:
        _check_section(values[name], name, f"{place}.{name}")
    return budget


def _filled(record: type[Record], place: str, values: Mapping[str, Any]) -> Record:
    """Return a record of these values, which checks their types; lists become tuples."""
    try:
        return record(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from error


def _check_section(table: object, name: str, place: str) -> None:
    """Check a section against the options of its verb: names, types and ranges."""
    records, refused = _SECTIONS[name]
    planned = _PLANNED - (_OF_TRAINING if records == (TrainTeacherOptions,) else frozenset())
    owners = {key: record for record in reversed(records) for key in option_types(record)}
    known = {key: record for key, record in owners.items() if key not in planned | refused}
    for key, value in _table(table, place, required=(), known=known.keys()).items():
        try:
            check_option(known[key], key, value)
        except UsageError as error:
            raise UsageError(f"{place}: {error}") from error


def _table(table: object, place: str, *, required: Sequence[str], known: Collection[str] | None) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise UsageError(f"{place}: got {table!r}, expected a table.")
    values = cast(dict[str, Any], table)
    missing = [key for key in required if key not in values]
    if missing:
        raise UsageError(f"{place}: {missing[0]} is missing.")
    if known is not None and (unknown := [key for key in values if key not in known]):
        raise UsageError(f"{place}: unknown key {unknown[0]!r}, expected one of {', '.join(sorted(known))}.")
    return values


def _known(record: type[Any]) -> set[str]:
    return {item.name for item in fields(record)} - {"name"}
