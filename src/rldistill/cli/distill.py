"""`rldistill distill`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rldistill.cli.arguments import parse, quoted, repeated, require, tell_if_new, write_configuration, write_result
from rldistill.verbs.distill_config import DistillConfig

_EXAMPLE = "rldistill distill data/pong --student net3 --out runs/pong-net3"

# Of choices and of continuous actions; a student has one of the two.
_LIKENESSES = ("held_out_agreement", "held_out_action_gap")


def run(argv: Sequence[str]) -> None:
    """Distil a dataset into a student."""
    config, flags = parse("distill", DistillConfig, _several_teachers(argv), example=_EXAMPLE)
    require(
        config.data or config.teacher or config.online or None, "a dataset folder, --teacher FILE or --online", _EXAMPLE
    )
    from rldistill.cli.progress import callbacks
    from rldistill.verbs.distill import check_distillation, resolve, run_distill
    from rldistill.verbs.distillation_run import STUDENT_FILE

    config = resolve(config, resume=flags.resume)
    if flags.dry_run:
        check_distillation(config, resume=flags.resume, overwrite=flags.overwrite)
        write_configuration(config, flags)
        return
    tell_if_new(flags, config.out)
    with callbacks(quiet=flags.quiet) as listeners:
        student = run_distill(config, resume=flags.resume, overwrite=flags.overwrite, callbacks=listeners)
    made = student.spec.provenance
    path = config.out / STUDENT_FILE
    result = {
        "student": str(path),
        "policy_hash": student.hash,
        "num_updates": made["num_updates"],
        **{key: made[key] for key in _LIKENESSES if key in made},
    }
    if "tasks" in made:
        result["tasks"] = {task: _likeness(record) for task, record in made["tasks"].items()}
    text = _summary(path, made)
    if config.online:
        text += f"\ncurves: {_draw_curves(config.out)}"
    write_result(flags, result, text)


def _several_teachers(argv: Sequence[str]) -> list[str]:
    """Let `--teacher A B` name two teachers: datasets, which go with none, are not meant."""
    return repeated(["distill", *argv], "--teacher")[1:]


def _draw_curves(folder: Path) -> str:
    """Draw learner and student; return where, or why not: the run itself is done and kept."""
    from rldistill.errors import RldistillError
    from rldistill.reports.online import FIGURE_FILE, online_curves

    try:
        return str(online_curves(folder, folder / FIGURE_FILE))
    except RldistillError as error:
        return f"{folder / 'curves.jsonl'} (not drawn: {error})"


def _likeness(record: Mapping[str, Any]) -> float:
    return next(record[key] for key in _LIKENESSES if key in record)


def _in_words(record: Mapping[str, Any]) -> str:
    if "held_out_agreement" in record:
        return f"{record['held_out_agreement']:.1%} the teacher's action"
    return f"{record['held_out_action_gap']:.2%} of the box from the teacher's action"


def _summary(path: Path, made: Mapping[str, Any]) -> str:
    steps = "recent steps, some of them trained on" if made["config"]["online"] else "held-out steps"
    if "tasks" in made:
        width = max(map(len, made["tasks"]))
        lines = [f"student: {path}, in held-out steps of"]
        lines += [f"  {task:<{width}}  {_in_words(record)}" for task, record in made["tasks"].items()]
    else:
        lines = [f"student: {path}, {_in_words(made)} in {steps}"]
    return "\n".join([*lines, f"next: rldistill evaluate {quoted(path)} {_teacher_options(made)}".rstrip()])


def _teacher_options(made: Mapping[str, Any]) -> str:
    records = [record for record in made.get("teachers", (made.get("teacher"),)) if record]
    said: list[Mapping[str, Any]] = [record.get("reading", {}) for record in records]
    if any(words != said[0] for words in said):
        return ""  # options are said of all files at once; the student's file says how each of its teachers is read
    words = said[0] if said else {}
    options = [f"--teacher {quoted(record['path'] or 'FILE')}" for record in records]
    return " ".join([*options, *(f"--{name.replace('_', '-')} {quoted(value)}" for name, value in words.items())])
