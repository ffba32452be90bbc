"""`rldistill quickstart`."""

import sys
from collections.abc import Sequence
from typing import Any

from rldistill.cli.arguments import parse, quoted, resolve_machine, write_configuration, write_result
from rldistill.errors import UsageError
from rldistill.runs.config import QuickstartConfig

_EXAMPLE = "rldistill quickstart"


def run(argv: Sequence[str]) -> None:
    """Take the bundled teacher to a proven student."""
    config, flags = parse("quickstart", QuickstartConfig, argv, example=_EXAMPLE)
    if flags.resume:
        raise UsageError("quickstart always goes on where it stopped: --resume does not apply.")
    config = resolve_machine(config)
    if flags.dry_run:
        write_configuration(config)
        return
    from rldistill.cli.progress import callbacks
    from rldistill.reports.quickstart import quickstart
    from rldistill.runs.evaluation_table import evaluation_table

    with callbacks(quiet=flags.quiet) as listeners:
        result = quickstart(config, overwrite=flags.overwrite, callbacks=listeners)
    table = "" if result.table is None else evaluation_table(result.table)
    files = {"student": result.student, "figure": result.figure, "video": result.video}
    if flags.json:
        write_result(flags, {**{key: str(path) for key, path in files.items()}, "evaluation": result.evaluation}, "")
    elif not flags.quiet:
        sys.stderr.write(f"\n{table}\n\n{_summary(result.evaluation)}\n\n")
        sys.stderr.write("".join(f"{key:<8} {path}\n" for key, path in files.items()))
        sys.stderr.write(
            f"\nnext: rldistill inspect {quoted(result.student)}\n"
            f"      rldistill evaluate {quoted(result.student)} --num-episodes 100 --require-retention 0.9\n"
            "      rldistill quickstart --num-steps 200000 --num-updates 40000 --out quickstart-long\n"
        )


def _summary(evaluation: dict[str, Any]) -> str:
    teacher, student = evaluation["policies"][:2]
    smaller = teacher["num_parameters"] / student["num_parameters"]
    if student["retention"] is None:
        return (
            f"{smaller:.0f} times fewer parameters; retention is undefined: the teacher is no better than random play."
        )
    interval = student["retention_interval"]
    shown = "" if interval is None else f" (95 % interval {interval[0]:.3f} to {interval[1]:.3f})"
    return (
        f"{smaller:.0f} times fewer parameters; retention {student['retention']:.3f}{shown}, "
        f"from {len(student['episodes'])} episodes each."
    )
