"""`rldistill quickstart`."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rldistill.cli.options import read_options, repeated_teachers
from rldistill.cli.output import quoted, task_words, teacher_words, words_of, write_options, write_result
from rldistill.cli.shrink import seconds
from rldistill.options.quickstart import QuickstartOptions

_EXAMPLE = "rldistill quickstart"


def run(argv: Sequence[str]) -> None:
    """Take the bundled teacher to a proven student."""
    given = read_options(
        "quickstart",
        [QuickstartOptions],
        repeated_teachers(["quickstart", *argv])[1:],
        example=_EXAMPLE,
        text_values={"within": seconds},
    )
    options, flags = given.make(QuickstartOptions, teacher=given.teacher), given.flags
    from rldistill.session.machine import resolve_machine

    options, out = resolve_machine(options), Path(options.out)
    if flags.dry_run:
        from rldistill.envs.make import options_of
        from rldistill.reports.quickstart import load_teacher

        _, playable = load_teacher(options)
        own = options_of(playable.task)
        # There is no option for settings: a task that has some is named by the teacher's file alone.
        task = options.task or (None if own["env_kwargs"] else own["task"])
        write_options(replace(options, task=task, student=options.network), flags)
        return
    from rldistill.cli.progress import callbacks
    from rldistill.reports.quickstart import quickstart

    with callbacks(quiet=flags.quiet) as listeners:
        result = quickstart(replace(options, callbacks=listeners))
    table = result.table.read_text()  # a second call shows what the first one measured
    files = {"student": result.student, "figure": result.figure}
    files |= {} if result.video is None else {"video": result.video}
    if flags.json:
        write_result(flags, {**{key: str(path) for key, path in files.items()}, "evaluation": result.evaluation}, "")
    elif not flags.quiet:
        sys.stderr.write(f"\n{table}\n\n{_summary(result.evaluation)}\n\n")
        sys.stderr.write("".join(f"{key:<8} {path}\n" for key, path in files.items()))
        student = " ".join(filter(None, (quoted(result.student), task_words([options.task]))))
        again = " ".join(filter(None, (_taught(options), _longer(options))))
        sys.stderr.write(
            f"\nnext: rldistill inspect {quoted(result.student)}\n"
            f"      rldistill evaluate {student} --num-episodes 100 --require-retention 0.9\n"
            f"      rldistill quickstart {again} --out {quoted(f'{out}-long')}\n"
        )


def _taught(options: QuickstartOptions) -> str:
    """Return the options that name what was distilled, and what the student sees of it."""
    said: list[tuple[str, object]] = [("task", options.task), ("student-sees", options.student_sees)]
    if options.choose is options.teacher_sees is None:  # else the names stand with the teacher
        said.append(("names", options.names))
    words = (teacher_words(options), words_of(said))
    return " ".join(filter(None, words))


def _longer(options: QuickstartOptions) -> str:
    """Return the options of a call that takes more time for more."""
    if options.network is None:
        return "--within 1h"
    named = "" if options.student is None else f"--student {quoted(options.student)} "
    return f"{named}--num-steps 200000 --num-updates 40000"


def _summary(evaluation: dict[str, Any]) -> str:
    teacher, student = evaluation["policies"][:2]
    size = f"{student['num_parameters']:,} parameters"
    if teacher["num_parameters"]:
        size = f"{teacher['num_parameters'] / student['num_parameters']:.2g} times fewer parameters"
    if student["retention"] is None:
        return f"{size}; retention is undefined: the teacher is no better than random play."
    interval = student["retention_interval"]
    shown = "" if interval is None else f" (95 % interval {interval[0]:.3f} to {interval[1]:.3f})"
    return f"{size}; retention {student['retention']:.3f}{shown}, from {len(student['episodes'])} episodes each."
