"""`rldistill export`."""

from collections.abc import Sequence
from dataclasses import replace

from rldistill.cli.options import read_options
from rldistill.cli.output import write_options, write_result
from rldistill.options.export import ExportOptions
from rldistill.options.shared import recorded

_EXAMPLE = "rldistill export runs/pong-net3 --out pong-net3.onnx --task atari:pong"


def run(argv: Sequence[str]) -> None:
    """Export a policy."""
    given = read_options(
        "export", [ExportOptions], argv, example=_EXAMPLE, positional="policy", expected="a policy file or a run folder"
    )
    from rldistill.cli.progress import callbacks
    from rldistill.verbs.export import prepare
    from rldistill.verbs.export_run import run

    options, flags = given.make(ExportOptions), given.flags
    with callbacks(quiet=flags.quiet or flags.dry_run) as listeners:
        job = prepare(replace(options, callbacks=listeners))
        if flags.dry_run:
            write_options({**recorded(job.options), "to": job.format.name}, flags)
            return
        result = run(job)
    write_result(flags, result.to_dict(), str(result))
