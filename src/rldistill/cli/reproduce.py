"""`rldistill reproduce`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace

from rldistill.cli.arguments import parse, require, write_configuration, write_result
from rldistill.paper.config import ReproduceConfig

_EXAMPLE = "rldistill reproduce losses --budget smoke"


def run(argv: Sequence[str]) -> None:
    """Do one of the paper's experiments."""
    config, flags = parse("reproduce", ReproduceConfig, argv, example=_EXAMPLE)
    config = replace(config, experiment=str(require(config.experiment, "an experiment", _EXAMPLE)))
    from rldistill.cli.progress import callbacks
    from rldistill.paper.page import experiment_page
    from rldistill.paper.plan import make_plan
    from rldistill.paper.reproduce import listed_jobs, resolved, run_reproduce

    if flags.dry_run:
        plan = make_plan(config)
        jobs = listed_jobs(plan)
        if flags.json:
            sys.stdout.write(json.dumps({"jobs": jobs}) + "\n")
            return
        write_configuration(resolved(config, plan), flags)
        sys.stdout.write(f"\n# {sum(job['done'] for job in jobs)} of {len(jobs)} jobs are done:\n")
        sys.stdout.write("".join(f"# {'done' if job['done'] else '-':<4}  {job['name']}\n" for job in jobs))
        return
    with callbacks(quiet=flags.quiet) as listeners:
        made = run_reproduce(config, overwrite=flags.overwrite, callbacks=listeners)
    page = experiment_page(made.results)
    write_result(flags, made.results, f"\n{page}\nresults: {made.table}\npage:    {made.page}\nfigure:  {made.figure}")
