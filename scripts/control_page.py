"""How small may the students of published teachers be? A page of figures: `make control`.

Every zip of a folder `<algorithm>/<environment>/<environment>.zip` that `teachers.toml` knows goes through `rd.shrink`
with nothing said but the time. Six of them are also distilled with the same network and three kinds of play. What is
measured is kept in `control.json` beside the page, so that a second call goes on where the first stopped.

    python scripts/control_page.py ../shared/teachers/sb3 --within 300
    python scripts/control_page.py ../shared/teachers/sb3 --only 'ppo/*'
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import sys
import time
import traceback
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

from teachers_page import HERE, PACKAGES, is_installed, known_teachers, name_of, zip_of

# Two of choices, two squashed by tanh, two clipped Gaussians; how their students' data are played.
COMPARED = (
    *("ppo/CartPole-v1", "ppo/LunarLander-v2"),
    *("sac/Pendulum-v1", "tqc/Hopper-v3"),
    *("ppo/MountainCarContinuous-v0", "ppo/BipedalWalker-v3"),
)
PLAY = {"the teacher": 1.0, "the student": 0.0, "mixed": "linear:1->0@0.3"}
NUM_EPISODES, NUM_SEEDS = 100, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with the zips, as <algorithm>/<environment>/<environment>.zip")
    parser.add_argument("--within", type=float, default=300.0, help="seconds for each teacher (300)")
    parser.add_argument("--only", default="*", help="pattern of <algorithm>/<environment>, such as 'ppo/*'")
    parser.add_argument("--num-workers", type=int, default=1, help="teachers at a time (1)")
    parser.add_argument("--runs", type=Path, default=Path("build/control"), help="folder of the searches")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "results", help="folder of the page")
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        sys.exit(f"no folder {arguments.folder}")
    records_file = arguments.out / "control.json"
    records: dict[str, dict[str, Any]] = json.loads(records_file.read_text()) if records_file.is_file() else {}
    records = {"searches": {}, "play": {}} | records
    failures = 0
    for section, work in (("searches", search), ("play", compare)):
        todo = [
            (work, teacher, arguments.folder, arguments.runs, arguments.within)
            for teacher in known_teachers(arguments.only)
            if name_of(teacher) not in records[section] and (section == "searches" or name_of(teacher) in COMPARED)
        ]
        print(f"{section}: {len(todo)} to do, {len(records[section])} done", flush=True)
        # Processes are made anew for each teacher: their times and leaks are their own.
        with multiprocessing.get_context("spawn").Pool(arguments.num_workers, maxtasksperchild=1) as pool:
            for name, record, trouble in pool.imap_unordered(attempt, todo):
                failures += record is None
                print(f"{name}: {trouble or record.get('verdict') or 'done'}", flush=True)
                if record is not None:
                    records[section][name] = record
                    records_file.write_text(json.dumps(records, indent=1, sort_keys=True) + "\n")
                    (arguments.out / "control.md").write_text(page(records))
    sys.exit(1 if failures else 0)


def attempt(job: tuple[Any, ...]) -> tuple[str, dict[str, Any] | None, str | None]:
    """Do one piece of work in a process of its own; return its name, its record, and what went wrong."""
    work, teacher, folder, runs, within = job
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message=".*out of date")
    try:
        return name_of(teacher), work(teacher, folder, runs, within), None
    except Exception:
        return name_of(teacher), None, traceback.format_exc()


def search(teacher: dict[str, Any], folder: Path, runs: Path, within: float) -> dict[str, Any]:
    """Look for the smallest student of one teacher."""
    import rldistill as rd
    from rldistill.errors import MismatchError

    path, task, started = zip_of(teacher, folder), teacher.get("task", teacher["environment"]), time.monotonic()
    size = rd.load_policy(path, task=task, env_kwargs=teacher.get("env_kwargs")).num_parameters
    record: dict[str, Any] = {"task": task, "teacher_parameters": size, "within": within, "versions": versions()}
    try:
        found = rd.shrink(
            path,
            task,
            env_kwargs=teacher.get("env_kwargs"),
            out=runs / name_of(teacher).replace("/", "-"),
            within=within,
            num_threads=1,
            overwrite=True,
        )
    except MismatchError as error:
        return record | {"refused": str(error)}
    spent = resource.getrusage(resource.RUSAGE_SELF)
    times = {"wall_seconds": time.monotonic() - started, "cpu_seconds": spent.ru_utime + spent.ru_stime}
    return record | times | {key: value for key, value in found.to_dict().items() if key not in ("student", "out")}


def compare(teacher: dict[str, Any], folder: Path, runs: Path, within: float) -> dict[str, Any]:
    """Distil one network by teachers', students' and mixed play, and evaluate each on the same episodes."""
    import rldistill as rd

    records = json.loads((runs / name_of(teacher).replace("/", "-") / "shrink.json").read_text())
    holding = [trial for trial in records["trials"] if trial["holds"]] or records["trials"]
    network = min(holding, key=lambda trial: trial["num_parameters"])["network"]
    path, task = zip_of(teacher, folder), teacher.get("task", teacher["environment"])
    named: dict[str, Any] = {"env_kwargs": teacher.get("env_kwargs")}
    results: dict[str, Any] = {}
    for way, fraction in PLAY.items():
        for seed in range(NUM_SEEDS):
            out = runs / "play" / f"{name_of(teacher).replace('/', '-')}-{way.replace(' ', '-')}-{seed}"
            student = rd.distill(
                rd.Live(path, task, teacher_fraction=fraction, **named),
                student=network,
                out=out,
                seed=seed,
                num_threads=1,
                evaluate_episodes=0,
                overwrite=True,
            )
            played = rd.evaluate(
                student, task, teacher=rd.load_policy(path, task=task, **named), num_episodes=NUM_EPISODES,
                seed=1_000, num_threads=1, **named,
            )  # fmt: skip
            (row,) = [row for row in played.to_dict()["policies"] if row["role"] == "student"]
            result = {key: row[key] for key in ("mean", "retention", "retention_interval")}
            results.setdefault(way, []).append(result | {"num_steps": student.spec.provenance["dataset"]["num_steps"]})
    return {"network": network, "num_episodes": NUM_EPISODES, "results": results}


def versions() -> dict[str, str]:
    installed = {name: metadata.version(name) for name in PACKAGES if is_installed(name)}
    return {"python": platform.python_version(), **installed}


def page(records: dict[str, dict[str, Any]]) -> str:
    """Return the page of what is measured so far."""
    order = [name_of(teacher) for teacher in known_teachers("*")]
    searches = {name: records["searches"][name] for name in order if name in records["searches"]}
    done = {name: record for name, record in searches.items() if "refused" not in record}
    held = [record for record in done.values() if record["held"]]
    # "NAME plays TASK no better than random play (teacher 2, random play 1, 40 episodes each): …"
    reasons = {name: record["refused"] for name, record in searches.items() if "refused" in record}
    refused = [f"{name} ({text.partition('(')[2].partition(')')[0]})" for name, text in reasons.items()]
    lines = [
        "# How small the students of published teachers may be",
        "",
        "Made by `make control` (`scripts/control_page.py`); not written by hand. Every teacher is a zip that the "
        "public [RL-Zoo](https://github.com/DLR-RM/rl-trained-agents) published, and every row one `rldistill shrink "
        "TEACHER --task TASK` with nothing else said but `--within`: one search, seed 0, `--keep 0.95`. The "
        "[page of `shrink`](../shrink.md) says how it searches.",
        "",
        f"{len(searches)} of {len(order)} teachers so far; of {len(done)} that play better than random, a student was "
        f"proved for {len(held)}.",
        "",
        "*Retention* is the student's skill above random play in parts of its teacher's, in the fresh episodes of the "
        "proof; *at least* its one-sided bound, 95 % over all looks of a search together. *Steps* are decisions played "
        "to learn from, over all sizes that were tried; *minutes* are of processor time, everything included. Where "
        "nothing was proved, the row shows the best student on the episodes that sizes are chosen by, in brackets. "
        "Only networks with fewer parameters than the teacher are tried: below the linear ones of ARS that leaves very "
        "few.",
        "",
        "| teacher | task | its parameters | student | parameters | times smaller | retention | at least | episodes | "
        "steps | minutes |",
        "|---|---|--:|---|--:|--:|--:|--:|--:|--:|--:|",
        *(row(name, record) for name, record in done.items()),
        "",
        *([f"Refused, because they play no better than random: {'; '.join(refused)}.", ""] if refused else []),
        *play_lines(records["play"]),
    ]
    return "\n".join(lines)


def row(name: str, record: dict[str, Any]) -> str:
    proofs = [proof for proof in record["proofs"] if proof["holds"]]
    if record["held"]:
        proof = proofs[0]
        network, shown = proof["network"], [f"{proof['retention']:.3f}", f"{proof['bound']:.3f}"]
        episodes = str(proof["num_episodes"])
    else:
        best = max(record["trials"], key=lambda trial: (trial["bound"], trial["retention"]))
        network, episodes = best["network"], "-"
        shown = [f"({best['retention']:.3f})", f"({best['bound']:.3f})"]
    size = next(trial["num_parameters"] for trial in record["trials"] if trial["network"] == network)
    steps = sum(trial["num_steps"] for trial in record["trials"])
    times = record["teacher_parameters"] / size
    cells = [name, record["task"], f"{record['teacher_parameters']:,}", f"`{network}`", f"{size:,}", f"{times:.3g}"]
    cells += [*shown, episodes, f"{steps:,}", f"{record['cpu_seconds'] / 60:.1f}"]
    return f"| {' | '.join(cells)} |"


def play_lines(compared: dict[str, Any]) -> list[str]:
    if not compared:
        return []
    lines = [
        "## Who acts while the student learns",
        "",
        "The network that the search found, distilled anew by the default recipe of `distill`, with three kinds of "
        f"play: the teacher acts, the student acts, or the teacher at first and the student later. Retention in "
        f"{NUM_EPISODES} episodes, the same for all, [95 %], one value for each of {NUM_SEEDS} seeds.",
        "",
        f"| teacher | student | {' | '.join(PLAY)} |",
        f"|---|---|{'---|' * len(PLAY)}",
    ]
    for name, record in compared.items():
        cells = [", ".join(map(shown_retention, record["results"][way])) for way in PLAY]
        lines.append(f"| {name} | `{record['network']}` | {' | '.join(cells)} |")
    return [*lines, ""]


def shown_retention(result: dict[str, Any]) -> str:
    interval = result["retention_interval"]
    ends = "" if interval is None else f" [{interval[0]:.2f}, {interval[1]:.2f}]"
    return f"{result['retention']:.2f}{ends}"


if __name__ == "__main__":
    main()
