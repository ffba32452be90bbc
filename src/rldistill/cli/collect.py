"""`rldistill collect`."""

from collections.abc import Sequence
from pathlib import Path

from rldistill.cli.options import read_options
from rldistill.cli.output import quoted, task_words, write_result
from rldistill.cli.run import run_verb
from rldistill.options.collect import CollectOptions

_EXAMPLE = "rldistill collect zoo/pong.safetensors --num-steps 50000 --out data/pong"


def run(argv: Sequence[str]) -> None:
    """Collect a dataset."""
    given = read_options(
        "collect", [CollectOptions], argv, example=_EXAMPLE, positional="teacher", expected="a teacher's policy file"
    )
    from rldistill.evaluation.table import size_text
    from rldistill.verbs.collect import check_collection, collect

    options = given.make(CollectOptions, teacher=given.teacher)
    summary = run_verb(collect, check_collection, options, Path(options.out), given.flags)
    if summary is None:
        return
    data = " ".join(filter(None, (quoted(summary.path), task_words([options.task]))))
    write_result(
        given.flags,
        summary.to_dict(),
        f"{summary.path}: {summary.num_steps:,} steps of {summary.num_episodes} whole and "
        f"{summary.num_interrupted} cut episodes, {size_text(summary.num_bytes)}\n"
        f"next: rldistill distill {data} --out {quoted(f'runs/{summary.path.name}')}",
    )
