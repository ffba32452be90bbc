"""`rldistill reproduce`."""

from collections.abc import Sequence
from dataclasses import replace

from rldistill.cli.options import read_options
from rldistill.cli.output import write_options, write_result
from rldistill.cli.stdout import write_out
from rldistill.options.reproduce import ReproduceOptions
from rldistill.options.shared import recorded

_EXAMPLE = "rldistill reproduce losses --budget smoke"


def run(argv: Sequence[str]) -> None:
    """Do one of the paper's experiments."""
    given = read_options(
        "reproduce", [ReproduceOptions], argv, example=_EXAMPLE, positional="experiment", expected="an experiment"
    )
    # A command may use all processors; a call in Python uses its own process unless it is asked for more.
    made_of = {} if "num_workers" in given.values else {"num_workers": 0}
    options = given.make(ReproduceOptions, **made_of)
    from rldistill.cli.progress import callbacks
    from rldistill.paper.page import experiment_page
    from rldistill.paper.plan import make_plan
    from rldistill.paper.reproduce import listed_jobs, reproduce, resolved

    if given.flags.dry_run:
        plan = make_plan(options)
        jobs, found = listed_jobs(plan), recorded(resolved(options, plan))
        if given.flags.json:
            write_options(found | {"jobs": jobs}, given.flags)
            return
        write_options(found, given.flags)
        write_out(f"\n# {sum(job['done'] for job in jobs)} of {len(jobs)} jobs are done:\n")
        write_out("".join(f"# {'done' if job['done'] else '-':<4}  {job['name']}\n" for job in jobs))
        return
    with callbacks(quiet=given.flags.quiet) as listeners:
        made = reproduce.of(replace(options, callbacks=listeners))
    page = experiment_page(made.results)
    write_result(
        given.flags, made.results, f"\n{page}\nresults: {made.table}\npage:    {made.page}\nfigure:  {made.figure}"
    )
