"""An experiment on a budget as jobs, in stages: teachers, data, students, evaluations.

    OUT/teachers/pong.safetensors      pong.json           (and the folder pong/, if it was trained)
    OUT/data/pong/                     pong.json
    OUT/students/net3-pong-seed0/      net3-pong-seed0.json
    OUT/evaluations/                   pong-seed0.json, or of students of several games pong-of-pong-qbert-seed0.json

The JSON beside each is the record of its job. Students of all seeds learn from the same data.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from rldistill.envs import make_task
from rldistill.errors import MismatchError, UsageError, check_installed
from rldistill.limits import JSON, read_file
from rldistill.loading.bundled import find_bundled_teacher
from rldistill.losses import make_loss
from rldistill.options.distill import DistillOptions, Live, Online
from rldistill.options.reproduce import ReproduceOptions
from rldistill.options.train_teacher import TrainTeacherOptions
from rldistill.paper import work
from rldistill.paper.experiment import Arm, Budget, Experiment, load_experiment
from rldistill.paper.jobs import Job
from rldistill.policies import fit_policy, load_policy
from rldistill.schedules import as_schedule
from rldistill.session.run_folder import check_place
from rldistill.tasks import ATARI_PREFIX
from rldistill.types import OutputKind, resolve_device
from rldistill.verbs.distill import resolve_distillation
from rldistill.verbs.train_teacher import resolve_training
from rldistill.verbs.training_run import BEST_FILE, LAST_FILE


@dataclass(frozen=True)
class TeacherSource:
    """Where a game's teacher comes from."""

    game: str  # ale-py's name
    origin: Literal["file", "zoo", "trained"]  # `file`: named by the user; `zoo`: bundled; `trained`: here
    path: Path | None = None  # of the file, None if trained
    policy_hash: str | None = None  # identity, None if trained
    output_kind: OutputKind = "q_values"  # what it gives; the learners here give Q-values


def _find_teachers(games: Sequence[str], files: Sequence[Path], *, use_zoo: bool = True) -> dict[str, TeacherSource]:
    """Return every game's teacher: a file that was named, else the zoo's if those may be used, else one to be trained.

    Raises:
        UsageError: a game is named twice.
        PolicyFileError: a file is not there, or cannot be trusted.
        MismatchError: a file is for none of the games, or two are for one.
    """
    if twice := sorted({game for game in games if games.count(game) > 1}):
        raise UsageError(f"games: got {', '.join(twice)} more than once.")
    found: dict[str, TeacherSource] = {}
    for path in files:
        named = [task.name.removeprefix(ATARI_PREFIX) for task in load_policy(path).tasks if task.is_atari]
        fitting = [game for game in games if game in named]
        if not fitting:
            raise MismatchError(
                f"--teacher {path} is for {', '.join(named) or 'no game'}, expected {', '.join(games)}."
            )
        for game in fitting:
            if game in found:
                raise MismatchError(f"Two teachers for {game}: {found[game].path} and {path}. Leave one out.")
            found[game] = _fitting_source(game, path, "file")
    for game in games:
        bundled = find_bundled_teacher(game) if use_zoo else None
        if game not in found:
            found[game] = TeacherSource(game, "trained") if bundled is None else _fitting_source(game, bundled, "zoo")
    return {game: found[game] for game in games}


def _fitting_source(game: str, path: Path, origin: Literal["file", "zoo"]) -> TeacherSource:
    policy = load_policy(path)
    fit_policy(policy, make_task(f"{ATARI_PREFIX}{game}").task)
    return TeacherSource(game, origin, path, policy.hash, policy.output_kind)


# Evaluation meets episodes that no teacher, dataset or student has seen.
EVALUATION_SEED = 1_000
_MAKES_STUDENT = {"distill": work.distill_student, "joint": work.train_jointly, "online": work.distill_online}


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before anything is done."""

    experiment: Experiment  # what is compared, without the arms that the budget leaves out
    left_out: tuple[Arm, ...]  # those arms
    budget: Budget  # with the games that will be played
    budget_name: str
    seeds: tuple[int, ...]  # of the students
    teachers: dict[str, TeacherSource]  # by game
    out: Path  # folder of everything
    num_envs: int  # environments stepped together
    device: str  # cpu or cuda

    @cached_property
    def stages(self) -> dict[str, list[Job]]:
        """The jobs, in the order in which they need each other."""
        stages = {
            "teachers": [self._teacher(source) for source in self.teachers.values()],
            "data": [] if self.budget.collect is None else [self._data(game) for game in self.budget.games],
            "students": [
                self._student(arm, games, seed)
                for arm in self.experiment.arms
                if arm.method != "learner"
                for games in self.game_sets
                for seed in self.seeds
            ],
            "evaluations": [self._evaluation(game, seed) for game in self.budget.games for seed in self.seeds],
        }
        return {name: jobs for name, jobs in stages.items() if jobs}

    @property
    def game_sets(self) -> list[Sequence[str]]:
        """What one student plays: a game, or all of them."""
        games = self.budget.games
        return [games] if self.experiment.kind == "multi_task" else [(game,) for game in games]

    def _teacher(self, source: TeacherSource) -> Job:
        game = source.game
        settings = self._settings(self.seeds[0], game=game, origin=source.origin, policy_hash=source.policy_hash)
        settings["training"] = dict(self.budget.train_teacher) if source.path is None else {}
        places = {
            "source_path": None if source.path is None else str(source.path),
            "out_path": str(self.teacher_file(game)),
            "device": self.device,
        }
        return Job(f"teacher of {game}", work.provide_teacher, settings, places, self.out / "teachers" / f"{game}.json")

    def _data(self, game: str) -> Job:
        settings = self._settings(self.seeds[0], game=game, collect_settings=dict(self.budget.collect or {}))
        places = self._places(teacher_path=str(self.teacher_file(game)), out_path=str(self._data_folder(game)))
        return Job(f"data of {game}", work.collect_data, settings, places, self.out / "data" / f"{game}.json")

    def _student(self, arm: Arm, games: Sequence[str], seed: int) -> Job:
        settings = self._settings(seed, **{f"{arm.method}_settings": self.budget.settings_of(arm)})
        folder = self._student_folder(arm, games, seed)
        settings |= {"game": games[0]} if arm.method == "online" else {"games": list(games)}
        places = self._places(out_path=str(folder))
        if arm.method == "joint":
            del places["num_envs"]  # an algorithm has a number of environments of its own
        elif arm.method == "distill":
            is_stored = self.budget.collect is not None
            places["data_paths"] = [str(self._data_folder(game)) for game in games] if is_stored else []
            places["teacher_paths"] = [] if is_stored else [str(self.teacher_file(game)) for game in games]
        record = folder.with_name(f"{folder.name}.json")
        return Job(student_name(arm, games, seed), _MAKES_STUDENT[arm.method], settings, places, record)

    def _evaluation(self, game: str, seed: int) -> Job:
        games = next(games for games in self.game_sets if game in games)
        arms = self.experiment.arms
        settings = self._settings(EVALUATION_SEED + seed, game=game, arms=[arm.name for arm in arms])
        settings["evaluate_settings"] = dict(self.budget.evaluate)
        learned = self._student_folder(arms[0], games, seed)
        students = [
            learned / LAST_FILE if arm.method == "learner" else self._student_folder(arm, games, seed) for arm in arms
        ]
        teacher = learned / BEST_FILE if self.experiment.kind == "online" else self.teacher_file(game)
        places = self._places(student_paths=list(map(str, students)), teacher_path=str(teacher))
        record = self._evaluation_record(game, games, seed)
        return Job(evaluation_name(game, seed), work.evaluate_game, settings, places, record)

    def _evaluation_record(self, game: str, games: Sequence[str], seed: int) -> Path:
        """Return the record of an evaluation, whose name has all the games that its students play."""
        folder, of_game = self.out / "evaluations", f"{game}-seed{seed}.json"
        if len(games) == 1:
            return folder / of_game
        # Those of an older version have no games in their names; whose they are, the students' hashes tell.
        students = {arm.name: self._student(arm, games, seed).record for arm in self.experiment.arms}
        is_ours = _is_of(folder / of_game, students)
        return folder / (of_game if is_ours else f"{game}-of-{'-'.join(games)}-seed{seed}.json")

    def _settings(self, seed: int, **of_job: object) -> dict[str, Any]:
        return {"seed": seed, "env": dict(self.budget.env), **of_job}

    def _places(self, **paths: object) -> dict[str, Any]:
        return {**paths, "device": self.device, "num_envs": self.num_envs}

    def teacher_file(self, game: str) -> Path:
        """Return where a game's teacher will lie."""
        return self.out / "teachers" / f"{game}.safetensors"

    def _data_folder(self, game: str) -> Path:
        return self.out / "data" / game

    def _student_folder(self, arm: Arm, games: Sequence[str], seed: int) -> Path:
        return self.out / "students" / f"{arm.name}-{'-'.join(games)}-seed{seed}"


def _is_of(evaluation: Path, students: Mapping[str, Path]) -> bool:
    """Return whether an evaluation is of these students, by name of their arms: as the records of all say it."""
    try:
        arms, *made = (
            json.loads(read_file(each, JSON.num_bytes))["result"] for each in (evaluation, *students.values())
        )
        hashes = [arms["arms"][name]["policy_hash"] for name in students]
        return hashes == [student["policy_hash"] for student in made]
    except (OSError, ValueError, TypeError, KeyError):
        return False


def student_name(arm: Arm, games: Sequence[str], seed: int) -> str:
    """Return the name of the job that makes an arm's student of some games and a seed."""
    return f"{arm.name} of {games[0] if len(games) == 1 else f'{len(games)} games'}, seed {seed}"


def evaluation_name(game: str, seed: int) -> str:
    """Return the name of the job that evaluates the students of a game and a seed."""
    return f"evaluation of {game}, seed {seed}"


def make_plan(options: ReproduceOptions) -> Plan:
    """Decide everything, and check all that can be checked before an hour's work.

    Raises:
        UsageError: no such experiment, budget or game; a setting that a verb would refuse.
        RldistillError: a teacher's file cannot be used, no folder can be at `out`, or nothing can be drawn here.
    """
    experiment = load_experiment(options.experiment)
    check_installed("matplotlib", what="The figure of a reproduction", extra="report")
    out = Path(options.out or f"reproduce/{experiment.name}-{options.budget}")
    check_place(out)
    budget = experiment.budgets.get(options.budget)
    if budget is None:
        raise UsageError(f"budget: got {options.budget!r}, {experiment.name} has {', '.join(experiment.budgets)}.")
    games = options.game_names or budget.games
    budget = replace(budget, games=games)
    # A baseline that learns by playing costs as much as all teachers; where it cannot have that, it has no cell.
    left_out = tuple(arm for arm in experiment.arms if arm.method == "joint" and budget.joint is None)
    experiment = replace(experiment, arms=tuple(arm for arm in experiment.arms if arm not in left_out))
    if not experiment.arms:
        raise UsageError(f"{experiment.name}: budget {options.budget} has no section joint, and no other arm is left.")
    if experiment.kind == "multi_task" and len(games) < 2:
        raise UsageError(f"games: got {', '.join(games)} alone, {experiment.name} makes one student of several games.")
    if experiment.kind == "online" and options.teachers:
        raise UsageError(f"--teacher {options.teachers[0]}: {experiment.name} lets its teachers learn.")
    for game in games:
        make_task(f"{ATARI_PREFIX}{game}", budget.env)
    if budget.env.get("exploration_epsilon") == 0 and not budget.env.get("sticky_action_probability"):
        raise UsageError("env: without chance in play a game has 30 episodes at most, whose copies show no interval.")
    teachers = {} if experiment.kind == "online" else _teachers(games, budget, options)
    if any(source.origin == "trained" for source in teachers.values()):
        resolve_training(TrainTeacherOptions(f"{ATARI_PREFIX}{games[0]}", out="out", **budget.train_teacher))
    for arm in experiment.arms:
        _check_arm(arm, budget, teachers)
    return Plan(
        experiment,
        left_out,
        budget,
        options.budget,
        tuple(range(options.seed, options.seed + (options.seeds or budget.num_seeds))),
        teachers,
        out,
        options.num_envs,
        resolve_device(options.device).type,
    )


def _teachers(games: Sequence[str], budget: Budget, options: ReproduceOptions) -> dict[str, TeacherSource]:
    teachers = _find_teachers(games, [Path(file) for file in options.teachers], use_zoo=budget.teachers is None)
    unnamed = [game for game, source in teachers.items() if source.origin != "file"]
    if budget.teachers == "named" and unnamed:
        raise UsageError(
            f"budget {options.budget} is for teachers of yours, got none of {', '.join(unnamed)}. "
            "Name a file for each with --teacher, or choose the --games of those that you have."
        )
    return teachers


def _check_arm(arm: Arm, budget: Budget, teachers: dict[str, TeacherSource]) -> None:
    """Check an arm's settings as its verb will, and that its loss fits what the teachers give."""
    settings = budget.settings_of(arm)
    if arm.method == "learner":
        return
    if arm.method == "joint":
        resolve_training(TrainTeacherOptions([f"{ATARI_PREFIX}{game}" for game in budget.games], out="out", **settings))
        return
    of_source, of_student = work.split_settings(settings, Online if arm.method == "online" else Live)
    if arm.method == "online":
        source = Online(f"{ATARI_PREFIX}{budget.games[0]}", **of_source)
        resolve_distillation(DistillOptions(source, out="out", **of_student))
        return
    source = "data" if budget.collect is not None else Live("teacher", **of_source)
    resolve_distillation(DistillOptions(source, out="out", **of_student))
    temperature = settings.get("temperature")
    lowest = None if temperature is None else as_schedule(temperature, "temperature").bounds[0]
    for source in teachers.values():
        make_loss(settings.get("loss"), source.output_kind, temperature=lowest)
