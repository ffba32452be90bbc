"""`rldistill distill`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rldistill.cli.options import Given, read_options, repeated_teachers
from rldistill.cli.output import drawn, quoted, task_words, words_of, write_result
from rldistill.cli.run import run_verb
from rldistill.errors import UsageError
from rldistill.options.declaration import Options, option_types
from rldistill.options.distill import DistillOptions, DistillSeveral, Live, Online, Stored

if TYPE_CHECKING:
    from rldistill.options.distill import Source
    from rldistill.policies import TorchPolicy
    from rldistill.tasks import Task

_EXAMPLE = "rldistill distill data/pong --student net3 --out runs/pong-net3"
# Of choices and of continuous actions; a student has one of the two.
_LIKENESSES = ("held_out_agreement", "held_out_action_gap")
# What a command line calls each kind of source.
_WORDS: Mapping[type[Any], str] = {Stored: "a dataset", Live: "--teacher", Online: "--online"}
_NAMES: Mapping[type[Any], str] = {Stored: "data", Live: "teacher", Online: "online"}


@dataclass(frozen=True, kw_only=True)
class Sources(Options):
    """What the student learns from: datasets, teachers that play, or one that still learns."""

    help_title: ClassVar[str] = "source"
    data: tuple[Path, ...] = ()
    """Dataset folder; several, one for each task, for a student with a head for each."""
    teacher: tuple[Path, ...] = ()
    """Instead of a dataset: policy file of a teacher that plays while the student learns; once for each teacher."""
    online: bool = False
    """Instead of a dataset: a teacher learns --task, and teaches the student meanwhile."""
    task: str | Sequence[str] | None = None
    """With --teacher and --online: task to play, several with commas between. Default: the teacher's own. With a
    dataset: its own task, which allows importing the module in module:EnvId."""


def run(argv: Sequence[str]) -> None:
    """Distil what a teacher says into a student."""
    given = read_given(argv)
    source = _source(given)
    from rldistill.verbs.distill import check_distillation, distill
    from rldistill.verbs.distillation_run import STUDENT_FILE

    if not given.values.keys().isdisjoint(("students", "seeds")):
        _run_several(given, source)
        return
    options = given.make(DistillOptions, source=source)
    out = Path(options.out)
    student = run_verb(distill, lambda own: dict(check_distillation(own).values), options, out, given.flags)
    if student is None:
        return
    path = out / STUDENT_FILE
    result, text = _result(path, student), _summary(path, student.spec.provenance, student.tasks, out)
    if isinstance(source, Online):
        from rldistill.reports.curves import FIGURE_FILE, online_curves

        curves = drawn(lambda: online_curves(out, out / FIGURE_FILE), otherwise=f"{out / 'curves.jsonl'}, ")
        text += f"\ncurves: {curves}"
    write_result(given.flags, result, text)


def _result(path: Path, student: "TorchPolicy") -> dict[str, Any]:
    made = student.spec.provenance
    result = {
        "student": str(path),
        "policy_hash": student.hash,
        "num_updates": made["num_updates"],
        **{key: made[key] for key in _LIKENESSES if key in made},
    }
    if "tasks" in made:
        result["tasks"] = {task: _likeness(record) for task, record in made["tasks"].items()}
    return result


def _run_several(given: Given, source: "Source | list[Any]") -> None:
    from rldistill.verbs.distill_several import check_several, distill_several, student_file

    options = given.make(DistillSeveral, source=source)
    out = Path(options.out)
    students = run_verb(distill_several, lambda own: dict(check_several(own).values), options, out, given.flags)
    if students is None:
        return
    paths = [student_file(out, network, seed) for network, seed in options.pairs]
    made = list(zip(paths, students, strict=True))
    result = {"students": [_result(path, student) for path, student in made]}
    lines = [_summary(path, student.spec.provenance, student.tasks).splitlines() for path, student in made]
    # What to do next is the same for all: it stands once.
    text = "\n".join([*(line for of_one in lines for line in of_one[:-1]), lines[0][-1]])
    write_result(given.flags, result, text)


def read_given(argv: Sequence[str]) -> Given:
    """Return what a command line of `distill` says."""
    # `--teacher A B` names two teachers: datasets, which go with none, are not meant.
    words = repeated_teachers(["distill", *argv])[1:]
    return read_options(
        "distill",
        [DistillOptions, Sources, Live, Online, DistillSeveral],
        words,
        example=_EXAMPLE,
        positional="data",
        left_out=("source",),
    )


def _source(given: Given) -> "Source | list[Any]":
    """Return what a command line names as one source, or a list of them.

    Raises UsageError: none, several kinds, or an option of another kind.
    """
    said = given.make(Sources)
    kinds = [kind for kind, named in ((Stored, said.data), (Live, said.teacher), (Online, said.online)) if named]
    if not kinds:
        raise UsageError(
            f"missing argument: expected a dataset folder, --teacher FILE or --online, such as in `{_EXAMPLE}`."
        )
    # Beside --teacher a name such as b.zip can mean nothing else, be there such a file or not.
    files = [path for path in said.data if _is_policy(path) or (said.teacher and path.suffix and not path.is_dir())]
    if files and Online not in kinds:
        named = " ".join(f"--teacher {quoted(path)}" for path in (*said.teacher, *files))
        task = "" if said.task else ", and its task by --task where its file does not say it"
        raise UsageError(
            f"{files[0]} is taken for a dataset, which is a folder that `rldistill collect` wrote. Name each teacher "
            f"with an option of its own: {named}{task}."
        )
    if len(kinds) > 1:
        shown = " and ".join(_NAMES[kind] for kind in kinds)
        raise UsageError(
            f"distill takes one of datasets, --teacher and --online, got {shown}. A dataset knows its own teacher, and "
            "--online makes one."
        )
    kind = kinds[0]
    _check_belongs(given, kind)
    tasks = [said.task] if isinstance(said.task, str) else [*(said.task or ())]
    if kind is Online:
        if len(tasks) != 1:
            raise UsageError(f"--online needs one task: --task atari:pong, got {', '.join(tasks) or None}.")
        return given.make(Online, task=tasks[0])
    if kind is Stored:
        if len(tasks) not in (0, 1, len(said.data)):
            raise UsageError(f"--task names {len(tasks)} tasks for {len(said.data)} datasets, expected one for each.")
        named = tasks if len(tasks) == len(said.data) else [tasks[0] if tasks else None] * len(said.data)
        return [Stored(path, task=task) for path, task in zip(said.data, named, strict=True)]
    return _live(given, said.teacher, tasks)


def _is_policy(path: Path) -> bool:
    """Whether a path is that of a file, or of a run's folder, where a dataset is expected."""
    from rldistill.session.own_files import CONFIG_FILE  # here: --help reads no file

    return path.is_file() or (path / CONFIG_FILE).is_file()


def _check_belongs(given: Given, kind: type[Any]) -> None:
    """Check that no option of another kind of source is given: it would be ignored.

    Raises UsageError: names the first, and the kinds that it belongs to.
    """
    for name in given.values:
        owners = [owner for owner in _WORDS if name in option_types(owner)]
        if owners and kind not in owners and name not in option_types(DistillOptions):
            shown = " and ".join(_WORDS[owner] for owner in owners)
            raise UsageError(f"{name} belongs with {shown}, got it with {_NAMES[kind]}.")


def _live(given: Given, teachers: Sequence[Path], tasks: Sequence[str]) -> list[Live]:
    """Return a source for each teacher, or for each task of one teacher of several."""
    if "choose" in given.values:  # several teachers of one task
        if len(tasks) > 1:
            raise UsageError(f"choose is for several teachers of one task, got --task {','.join(tasks)}.")
        return [given.make(Live, teacher=teachers, task=tasks[0] if tasks else None)]
    if tasks and len(tasks) != len(teachers) != 1:
        raise UsageError(f"--task names {len(tasks)} tasks for {len(teachers)} teachers, expected one for each.")
    from rldistill.loading.named import policy_files

    pairs: list[tuple[Path, str | None]] = [
        (teachers[number if len(teachers) > 1 else 0], tasks[number] if tasks else None)
        for number in range(max(len(teachers), len(tasks)))
    ]
    shared = given.make(Live, teacher=teachers[0], task=None)
    files = policy_files(list(teachers), shared.as_reading())
    # What is said of several files at once counts for those that leave it open.
    words = {file.path: vars(file.reading) for file in files}
    return [given.make(Live, teacher=path, task=task, **words[path]) for path, task in pairs]


def _likeness(record: Mapping[str, Any]) -> float:
    return next(record[key] for key in _LIKENESSES if key in record)


def _in_words(record: Mapping[str, Any]) -> str:
    if "held_out_agreement" in record:
        return f"{record['held_out_agreement']:.1%} the teacher's action"
    return f"{record['held_out_action_gap']:.2%} of the box from the teacher's action"


def _summary(path: Path, made: Mapping[str, Any], tasks: "Sequence[Task]" = (), folder: Path | None = None) -> str:
    steps = "recent steps, some of them trained on" if made["config"].get("online") else "held-out steps"
    if "tasks" in made:
        width = max(map(len, made["tasks"]))
        lines = [f"student: {path}, in held-out steps of"]
        lines += [f"  {task:<{width}}  {_in_words(record)}" for task, record in made["tasks"].items()]
    else:
        lines = [f"student: {path}, {_in_words(made)} in {steps}"]
    # A run's folder rather than its file: there the evaluation is kept.
    words = filter(None, (quoted(folder or path), _task_options(tasks), _teacher_options(made)))
    return "\n".join([*lines, f"next: rldistill evaluate {' '.join(words)}"])


def _task_options(tasks: "Sequence[Task]") -> str:
    names = [task.name for task in tasks]
    # A task that need not be named is played as the file records it, and so is each of several.
    settings = tasks[0].environment_kwargs if len(tasks) == 1 else None
    return task_words(names, settings) if task_words(names) else ""


def _teacher_options(made: Mapping[str, Any]) -> str:
    from rldistill.loading.bundled import find_recorded
    from rldistill.sight import recorded_sight

    records = [record for record in made.get("teachers", (made.get("teacher"),)) if record]
    if any("several" in record for record in records):
        return ""  # the student's file names each of them
    said: list[Mapping[str, Any]] = [record.get("reading", {}) for record in records]
    if any(words != said[0] for words in said):
        return ""  # options are said of all files at once; the student's file says how each of its teachers is read
    words = dict(said[0]) if said else {}
    if sight := recorded_sight(words):
        words = {name: value for name, value in words.items() if name != "sight"}
        words |= {"teacher_sees": sight.parts} | ({"names": sight.spans} if sight.spans else {})
    paths = [record["path"] and find_recorded(Path(record["path"])) for record in records]
    return words_of([*(("teacher", path or "FILE") for path in paths), *words.items()])
