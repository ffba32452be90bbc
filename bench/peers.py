"""How fast are other libraries at the same work? Each in a virtual environment of its own: `make bench-peers`.

The table of updates, labelled steps, one decision, and the time from a teacher's file to a student that plays as well,
written as a page with the machine and the versions (`docs/results/peers.md`). The ways of doing the work are the files
of `bench/ways`; they wait for orders and take turns, so that ratios are of the same minute.

    python bench/peers.py --teachers ../shared/teachers/sb3 --sb3-distill ~/src/sb3_distill
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from kit import Rates, collect_for_bench, machine, random_teacher

from rldistill.data import Dataset, is_dataset_folder
from rldistill.envs import make_task
from rldistill.storage import write_atomically, write_json

HERE = Path(__file__).resolve().parent
OURS, SCRIPT = "rldistill", "SB3 and a plain loop"
TASKS = ("CartPole-v1", "LunarLander-v3", "Pendulum-v1")
# Of the way from random play to the teacher; and from where on a ratio is no tie.
KEEP, CLEARLY = 0.95, 1.05
# Box2D is the wheel of `box2d-py`, which would need a compiler. Gymnasium's environments of it import pygame.
_SB3, _BOX2D = "stable-baselines3==2.9.2", ("Box2D==2.3.10", "pygame-ce==2.5.8")


@dataclass(frozen=True)
class Library:
    """A library beside ours.

    Attributes:
        name: for the page.
        way: its file in `ways`.
        venv: name of its virtual environment; None: ours.
        packages: what pip installs into it.
    """

    name: str
    way: str
    venv: str | None = None
    packages: tuple[str, ...] = ()


LIBRARIES = (
    Library(OURS, "with_rldistill"),
    Library(SCRIPT, "with_sb3", "sb3", (_SB3, "sb3-contrib==2.9.2", *_BOX2D)),
    Library("imitation", "with_imitation", "imitation", ("imitation==1.0.1", _BOX2D[0])),
    Library("torchrl", "with_torchrl", "torchrl", ("torchrl==0.14.1", _SB3, *_BOX2D)),
    Library("tianshou", "with_tianshou", "tianshou", ("tianshou==2.0.1", _SB3, *_BOX2D)),
    Library("rsl_rl", "with_rsl_rl", "rsl_rl", ("rsl-rl-lib==5.5.1", _SB3, *_BOX2D)),
    # Not on PyPI: from a folder, in the environment of Stable-Baselines3.
    Library("sb3_distill", "with_sb3_distill", "sb3", (_SB3, "sb3-contrib==2.9.2", *_BOX2D)),
)


class Way:
    """A running way of doing the work, which answers orders.

    Args:
        library: whose.
        python: that has it.
        folders: of the data, and of the teachers.
        extra: a folder to import from besides.
    """

    def __init__(self, library: Library, python: Path, folders: tuple[Path, Path], extra: Path | None) -> None:
        path = [str(extra)] if extra else [os.environ.get("PYTHONPATH", "")] if library.venv is None else []
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
        log = folders[0] / f"{library.way}.log"
        self._library, self._log = library, log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [python, HERE / "ways" / f"{library.way}.py", *folders],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment,
            )  # fmt: skip
        begun = self._answer()
        self.works, self.students, self.versions = begun["works"], begun["students"], begun["versions"]

    def __enter__(self) -> "Way":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def ask(self, **order: object) -> dict[str, Any]:
        """Have some work done, and return what it took."""
        assert self._process.stdin is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return self._answer()

    def piece(self, **order: object) -> tuple[int, float]:
        """Have some work done: (units, seconds)."""
        answer = self.ask(**order)
        return answer["units"], answer["seconds"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            last = self._log.read_text().strip().splitlines()[-1:] or ["nothing"]
            sys.exit(f"{self._library.name} ended: {last[0]} (all of it: {self._log})")
        return json.loads(line)


def python_of(library: Library, venvs: Path, constraints: Path) -> Path:
    """Return the interpreter that has a library, after installing it where it is missing."""
    if library.venv is None:
        return Path(sys.executable)
    folder, wanted = venvs / library.venv, "\n".join(library.packages)
    stamp = folder / "installed.txt"
    if not stamp.is_file() or stamp.read_text() != wanted:
        print(f"installing {', '.join(library.packages)} into {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        # The same torch for everyone.
        torch = next(line for line in constraints.read_text().splitlines() if line.startswith("torch=="))
        subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "-q", torch, *library.packages], check=True)
        stamp.write_text(wanted)
    return folder / "bin" / "python"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teachers", type=Path, default=HERE.parents[1] / "shared" / "teachers" / "sb3")
    parser.add_argument("--sb3-distill", type=Path, help="folder that holds the package sb3_distill; else left out")
    parser.add_argument("--venvs", type=Path, default=HERE.parent / "build" / "peers", help="virtual environments")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "results", help="folder of the page")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, one seed: rougher figures")
    arguments = parser.parse_args()
    if not (arguments.teachers / "ppo").is_dir():
        sys.exit(
            f"--teachers {arguments.teachers}: no folder of published teachers (ppo/CartPole-v1/CartPole-v1.zip …)"
        )
    libraries = [library for library in LIBRARIES if library.way != "with_sb3_distill" or arguments.sb3_distill]
    if not arguments.sb3_distill:
        print("sb3_distill is left out: it is not on PyPI. Say where its source is by --sb3-distill.")
    work = arguments.venvs / "work"
    work.mkdir(parents=True, exist_ok=True)
    make_data(work)
    with ExitStack() as stack:
        ways: dict[str, Way] = {}
        for library in libraries:
            python = python_of(library, arguments.venvs, HERE.parent / "constraints.txt")
            extra = arguments.sb3_distill if library.way == "with_sb3_distill" else None
            ways[library.name] = stack.enter_context(Way(library, python, (work, arguments.teachers.resolve()), extra))
        result = measure(ways, quick=arguments.quick)
    write_json(arguments.out / "peers.json", result)
    write_atomically(arguments.out / "peers.md", page(result).encode())
    print(f"{arguments.out / 'peers.md'} is written")


def make_data(work: Path) -> None:
    """Store 50,000 steps of LunarLander, as a dataset of ours and as arrays."""
    if not is_dataset_folder(work / "lander"):
        task = make_task("LunarLander-v3")
        collect_for_bench(random_teacher(task, "mlp:64x64", layer_norm=False), task, work / "lander", 50_000)
    dataset = Dataset.open(work / "lander")
    steps = np.arange(dataset.num_steps)
    q_values = dataset.targets(steps)["q_values"]
    observations, actions = dataset.observations(steps), q_values.argmax(axis=1)
    np.savez(work / "lander.npz", observations=observations, q_values=q_values, actions=actions)


def measure(ways: Mapping[str, Way], *, quick: bool) -> dict[str, Any]:
    """Return all figures as plain JSON."""
    num_rounds, num_steps, seeds = (3, 10_000, [0]) if quick else (11, 20_000, [0, 1, 2])
    before, tables = machine(), dict[str, Any]()
    for size in (32, 256, 1024):
        tables[f"updates, batch {size}"] = in_turns(ways, num_rounds, work="updates", batch_size=size, num=100)
    for task in ("CartPole-v1", "LunarLander-v3"):
        tables[f"labelled steps, {task}"] = in_turns(ways, min(num_rounds, 5), work="label", task=task, num=num_steps)
        tables[f"evaluated episodes, {task}"] = in_turns(ways, min(num_rounds, 5), work="evaluate", task=task, num=64)
    tables["one decision"] = in_turns(ways, num_rounds, work="decisions", num=500)
    return {
        "schema_version": 1,
        "machine": before,
        "versions": {name: way.versions for name, way in ways.items()},
        "tables": tables,
        "students": {task: students_of(ways, task, seeds) for task in TASKS},
    }


def in_turns(ways: Mapping[str, Way], num_rounds: int, **order: object) -> dict[str, Any]:
    """Have all who can do some work do it, in turns; where ours is not clearly ahead, ask the profiler why."""
    able = {name: way for name, way in ways.items() if order["work"] in way.works}
    rates = Rates({name: partial(way.piece, **order) for name, way in able.items()}, num_rounds=num_rounds)
    rows = {name: {"rate": rates.median(name), "ours_to_it": rates.ratio(OURS, name)} for name in able}
    print(
        order, {name: f"{row['rate']:,.0f}/s, ours {row['ours_to_it']:.2f}" for name, row in rows.items()}, flush=True
    )
    return {"rows": rows, "profile": profile_of(ways, order, [row["ours_to_it"] for row in rows.values()])}


def students_of(ways: Mapping[str, Way], task: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Return what it took from a teacher's file to a student that plays as well; everyone's turn comes at each seed."""
    reference = ways[SCRIPT].ask(work="teacher", task=task)
    needed = reference["random"] + KEEP * (reference["score"] - reference["random"])
    order = {"work": "student", "task": task, "needed": needed}
    able = {name: way for name, way in ways.items() if task in way.students}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in able}
    for seed in seeds:
        for name, way in able.items():
            runs[name].append(way.ask(**order, seed=seed))
            print(task, seed, name, runs[name][-1], flush=True)
    spent = {name: statistics.median(run["seconds"] for run in of_one) for name, of_one in runs.items()}
    ratios = [spent[name] / spent[OURS] for name in able if all(run["is_good"] for run in runs[name])]
    return {**reference, "needed": needed, "runs": runs, "profile": profile_of(ways, {**order, "seed": 0}, ratios)}


def profile_of(ways: Mapping[str, Way], order: Mapping[str, Any], ratios: Sequence[float]) -> list[tuple[str, float]]:
    """Return where our time goes, unless we are clearly ahead of all others (our ratio to ourselves is 1)."""
    is_ahead = sorted(ratios)[0] >= 1 and sum(ratio < CLEARLY for ratio in ratios) == 1
    return [] if is_ahead else ways[OURS].ask(work="profile", of=dict(order))["shares"]


def page(result: Mapping[str, Any]) -> str:
    """Return the page of all figures."""
    columns = list(result["tables"])
    machine_lines = [f"- {name}: {value}" for name, value in result["machine"].items()]
    versions = [
        f"- {name}: " + ", ".join(f"{package} {version}" for package, version in each.items())
        for name, each in result["versions"].items()
    ]
    lines = [
        "# Beside other libraries",
        "",
        "Made by `make bench-peers` (`bench/peers.py`); not written by hand. Each library does the work in a virtual "
        "environment of its own, by a [file of its own](../../bench/ways); all of them wait and take turns. CPU "
        "seconds of one thread; figures are medians of the turns, and *ours* is how many times faster rldistill is, "
        "the median within a turn. Below 1 it is slower.",
        "",
        *machine_lines,
        "",
        "Versions:",
        "",
        *versions,
        "",
        "## Updates, labelled steps, one decision",
        "",
        "The same network, 8-64-64-4, by Adam at 1e-3 on the same 50,000 steps of LunarLander. rldistill and the plain "
        "loop learn the teacher's distribution (KL), torchrl, tianshou and imitation its actions, and rsl_rl four "
        "numbers by their squared error: each what it can. imitation's policy has a critic besides. Labelled steps "
        "come of a published teacher with its distribution; rldistill writes them to disk, and imitation keeps "
        "actions alone. Episodes are evaluated by `rd.evaluate`, which compares with random play, "
        "and by `evaluate_policy` in 16 environments. One decision is one observation of LunarLander.",
        "",
        "| | " + " | ".join(f"{column}, /s" for column in columns) + " |",
        "|---|" + "---|" * len(columns),
        *[
            f"| {name} | " + " | ".join(rate_cell(result, column, name) for column in columns) + " |"
            for name in result["versions"]
        ],
        "",
        *reasons(result["tables"]),
        "## From a teacher's file to a student that plays as well",
        "",
        "The student has two layers of 64 and learns until its mean return over 30 episodes, the same for everyone, "
        f"is {KEEP:.0%} of the way from random play to the teacher. Playing these episodes is not counted, importing "
        "neither; all that was tried before is. Those that learn from stored steps try 1,000 steps and 500 updates of "
        "256, then more of both. imitation does so by DAgger and sb3_distill and rsl_rl by the student's own play, in "
        "rounds of their own; sb3_distill knows no SAC, rsl_rl continuous actions alone.",
        "",
        *student_tables(result["students"]),
    ]
    return "\n".join(lines)


def rate_cell(result: Mapping[str, Any], column: str, name: str) -> str:
    row = result["tables"][column]["rows"].get(name)
    if row is None:
        return "–"
    return f"{row['rate']:,.0f}" + ("" if name == OURS else f" (ours {row['ours_to_it']:.2f})")


def reasons(tables: Mapping[str, Any]) -> list[str]:
    """Return, for each table where ours is not clearly ahead, where its time goes."""
    lines = [
        f"- {title}: " + ", ".join(f"{share:.0%} {function}" for function, share in table["profile"])
        for title, table in tables.items()
        if table["profile"]
    ]
    if not lines:
        return []
    return [
        "Where rldistill loses or ties, its own time by function (cProfile, which makes small ones look larger):",
        "",
        *lines,
        "",
    ]


def student_tables(students: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for task, table in students.items():
        lines += [
            f"{task}: the teacher has {table['score']:.1f}, random play {table['random']:.1f}, "
            f"{table['needed']:.1f} is asked.",
            "",
            "| | as good | CPU seconds | steps of the environment | mean return |",
            "|---|---|---|---|---|",
        ]
        for name, runs in table["runs"].items():
            cells = [" / ".join(f"{run[key]:{form}}" for run in runs) for key, form in _RUN_CELLS]
            lines.append(f"| {name} | {sum(run['is_good'] for run in runs)} of {len(runs)} | {' | '.join(cells)} |")
        lines.append("")
    return [*lines, *reasons(students)]


_RUN_CELLS = (("seconds", ".1f"), ("num_steps", ",d"), ("score", ".1f"))


if __name__ == "__main__":
    main()
