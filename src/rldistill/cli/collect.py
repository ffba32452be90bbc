"""`rldistill collect`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rldistill.cli.options import read_options
from rldistill.cli.output import quoted, tell_if_new, write_options, write_result
from rldistill.options.collect import CollectOptions

_EXAMPLE = "rldistill collect zoo/pong.safetensors --num-steps 50000 --out data/pong"


def run(argv: Sequence[str]) -> None:
    """Collect a dataset."""
    given = read_options(
        "collect", [CollectOptions], argv, example=_EXAMPLE, positional="teacher", expected="a teacher's policy file"
    )
    from rldistill.cli.progress import callbacks
    from rldistill.evaluation.table import size_text
    from rldistill.verbs.collect import check_collection, collect

    options = given.make(CollectOptions, teacher=given.teacher)
    if given.flags.dry_run:
        write_options(check_collection(options), given.flags)
        return
    tell_if_new(options, Path(options.out), given.flags)
    with callbacks(quiet=given.flags.quiet) as listeners:
        summary = collect.of(replace(options, callbacks=listeners))
    write_result(
        given.flags,
        summary.to_dict(),
        f"{summary.path}: {summary.num_steps:,} steps of {summary.num_episodes} whole and "
        f"{summary.num_interrupted} cut episodes, {size_text(summary.num_bytes)}\n"
        f"next: rldistill distill {quoted(summary.path)} --out {quoted(f'runs/{summary.path.name}')}",
    )
