"""An experiment of the paper from its TOML to a table and a plot; what an earlier call finished is not done again."""

import json
import os
import shlex
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rldistill.events import tell
from rldistill.limits import JSON, read_file
from rldistill.options.declaration import default_values, verb
from rldistill.options.reproduce import ReproduceOptions
from rldistill.options.shared import recorded
from rldistill.paper.jobs import Backend, finished_result, run_stage
from rldistill.paper.made import made_here
from rldistill.paper.page import experiment_figure, experiment_page
from rldistill.paper.plan import Plan, make_plan
from rldistill.paper.results import gather
from rldistill.session.interrupts import stop_on_interrupt
from rldistill.session.run_folder import keep_inputs, run_folder, write_config
from rldistill.storage import write_atomically, write_json

RESULTS_FILE, PAGE_FILE, FIGURE_FILE = "results.json", "results.md", "results.png"


@dataclass(frozen=True)
class Reproduction:
    """What an experiment left.

    Attributes:
        results: as JSON.
        table: `results.json`.
        page: `results.md`.
        figure: `results.png`.
    """

    results: dict[str, Any]
    table: Path
    page: Path
    figure: Path


@verb(ReproduceOptions)
def reproduce(options: ReproduceOptions) -> Reproduction:
    """Do one of the paper's experiments: teachers, data, students, evaluation, table and plot.

    Returns:
        `results`, the content of `results.json`, and the files `table`, `page` and `figure`.

    Raises:
        UsageError: an unknown name, or a value out of range.
        RldistillError: jobs failed, or `out` was begun with other settings.
        KeyboardInterrupt: stopped; the next call goes on.
    """
    plan = make_plan(options)
    files = [Path(options.experiment)] if options.experiment.endswith(".toml") else []
    keep_inputs(plan.out, [*files, *options.teachers], overwrite=options.overwrite)
    made = {"command": _command(options), **made_here(plan.device)}
    with run_folder(plan.out, resume=not options.overwrite, overwrite=options.overwrite):
        listed_jobs(plan)  # jobs that were done with other settings are refused before anything is written
        write_config(plan.out, "reproduce", recorded(resolved(options, plan)))
        found: dict[str, Mapping[str, Any]] = {}
        backend = Backend(options.num_workers or os.cpu_count() or 1)
        with closing(backend), stop_on_interrupt(options.callbacks) as listeners:
            for name, jobs in plan.stages.items():
                found[name] = run_stage(jobs, backend, num_threads=options.num_threads, callbacks=listeners)
        results = gather(plan, found) | work_done(plan) | {"provenance": made}
        if lost := _left_out(plan):
            text = f"{plan.out / RESULTS_FILE} also had {lost}: it is replaced by these games and seeds alone; their "
            text += "jobs stay, and the earlier command brings it back."
            tell(options.callbacks, text, "warning")
        table, page, figure = (plan.out / name for name in (RESULTS_FILE, PAGE_FILE, FIGURE_FILE))
        write_json(table, results)
        write_atomically(page, experiment_page(results).encode())
        experiment_figure(results, figure)
        return Reproduction(results, table, page, figure)


def _left_out(plan: Plan) -> str:
    """Return the games and seeds of earlier results that these do not have."""
    try:
        before = json.loads(read_file(plan.out / RESULTS_FILE, JSON.num_bytes))
        games = [game for game in before["games"] if game not in plan.budget.games]
        seeds = [f"seed {seed}" for seed in before["seeds"] if seed not in plan.seeds]
    except (OSError, ValueError, TypeError, KeyError):
        return ""
    return ", ".join([*games, *seeds])


def resolved(options: ReproduceOptions, plan: Plan) -> ReproduceOptions:
    """Return the configuration with everything that was left open as it will be."""
    return replace(
        options,
        games=list(plan.budget.games),
        seeds=len(plan.seeds),
        out=plan.out,
        num_workers=options.num_workers or os.cpu_count() or 1,
        device=plan.device,
    )


def listed_jobs(plan: Plan) -> list[dict[str, Any]]:
    """Return every job with its stage, its name, and whether it is done; raises as `finished_result`."""
    return [
        {"stage": stage, "name": job.name, "done": finished_result(job) is not None}
        for stage, jobs in plan.stages.items()
        for job in jobs
    ]


def work_done(plan: Plan) -> dict[str, Any]:
    """Return how long the calls took that finished the jobs, and by what they were made: each once, with its jobs."""
    records = [json.loads(job.record.read_bytes()) for jobs in plan.stages.values() for job in jobs]
    made: list[dict[str, Any]] = []
    for record in records:
        own = record.get("made")  # a record of an older version does not say it
        same = next((each for each in made if each["made"] == own), None)
        if same is None:
            made.append({"num_jobs": 1, "made": own})
        else:
            same["num_jobs"] += 1
    return {"seconds": sum(record["seconds"] for record in records), "jobs_made": made}


def _command(options: ReproduceOptions) -> str:
    """Return the command that does this, whoever called: files by their names, without folders."""
    words = ["rldistill", "reproduce", Path(options.experiment).name]
    defaults = default_values(ReproduceOptions)
    for name, value in recorded(options).items():
        if name in ("experiment", "out", "overwrite") or value == defaults[name]:
            continue
        for single in value if isinstance(value, tuple | list) else (value,):
            words += [f"--{name.replace('_', '-')}", Path(single).name if name == "teacher" else str(single)]
    return shlex.join(words)
