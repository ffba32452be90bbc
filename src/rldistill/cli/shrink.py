"""`rldistill shrink`."""

import re
from collections.abc import Sequence
from dataclasses import replace

from rldistill.cli.options import read_options
from rldistill.cli.output import drawn, quoted, task_words, teacher_words, write_options, write_result
from rldistill.cli.stdout import write_out
from rldistill.errors import UsageError
from rldistill.options.shrink import ShrinkOptions

_EXAMPLE = "rldistill shrink ppo-LunarLander-v2.zip --task LunarLander-v3"
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def run(argv: Sequence[str]) -> None:
    """Find the smallest student that is good enough."""
    given = read_options(
        "shrink",
        [ShrinkOptions],
        argv,
        example=_EXAMPLE,
        positional="teacher",
        expected="a teacher's policy file",
        text_values={"within": seconds},
    )
    from rldistill.cli.progress import callbacks
    from rldistill.verbs.shrink import check_shrink, shrink

    options = given.make(ShrinkOptions, teacher=given.teacher)
    if given.flags.dry_run:
        write_options(check_shrink(options), given.flags)
        return
    with callbacks(quiet=given.flags.quiet) as listeners:
        found = shrink.of(replace(options, callbacks=listeners))
    if given.flags.json:
        write_result(given.flags, found.to_dict(), "")
        return
    write_out(f"{found}\n")
    student = quoted(found.out / "student.safetensors")
    lines = [f"student: {student}"]
    from rldistill.reports.curves import size_curve

    lines.append(f"figure:  {drawn(lambda: size_curve(found.to_dict(), found.out / 'shrink.png'))}")
    task = task_words([options.task], options.env_kwargs)
    words = " ".join(filter(None, (student, task, teacher_words(options))))
    lines.append(f"next: rldistill evaluate {words} --num-episodes 100 --seed 1")
    write_result(given.flags, {}, "\n".join(lines))


def seconds(text: str) -> float:
    """Return a time such as 90s, 10m or 2h in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if found is None:
        raise UsageError(f"within: got {text!r}, expected a time such as 90s, 10m or 2h.")
    return float(found[1]) * _UNITS[found[2]]
