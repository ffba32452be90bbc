"""Do published teachers score what they scored where they were trained? A page of figures: `make teachers`.

Every zip of a folder `<algorithm>/<environment>/<environment>.zip` that `teachers.toml` knows is loaded without its
library, compared with the outputs that its library computed (`sb3_reference.npz` beside it), and played. Each leaves a
JSON file in `--records`, so that a second call goes on where the first stopped; the page is written anew after each.

    python scripts/teachers_page.py ../shared/teachers/sb3 --num-workers 4
    python scripts/teachers_page.py ../shared/teachers/sb3 --only 'ppo/*' --num-episodes 20
"""

import argparse
import fnmatch
import json
import math
import multiprocessing
import os
import platform
import sys
import tomllib
import traceback
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# Cheapest first: a page that grows says something early.
COSTS = ("CartPole", "MountainCar", "Acrobot", "Pendulum", "Lunar", "Swimmer", "Hopper", "Walker2d", "Bipedal", "Half")
PACKAGES = ("rldistill", "torch", "gymnasium", "mujoco", "Box2D", "numpy")
# Relative to the largest output: what float32 and the order of sums leave.
PARITY = 2e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with the zips, as <algorithm>/<environment>/<environment>.zip")
    parser.add_argument("--num-episodes", type=int, default=100, help="of each teacher (100)")
    parser.add_argument("--seed", type=int, default=0, help="of the episodes (0)")
    parser.add_argument("--only", default="*", help="pattern of <algorithm>/<environment>, such as 'ppo/*'")
    parser.add_argument("--num-workers", type=int, default=1, help="teachers played at a time (1)")
    parser.add_argument("--records", type=Path, default=Path("build/teachers"), help="folder of one JSON per teacher")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "results", help="folder of the page")
    arguments = parser.parse_args()
    teachers = known_teachers(arguments.only)
    if not arguments.folder.is_dir():
        sys.exit(f"no folder {arguments.folder}")
    arguments.records.mkdir(parents=True, exist_ok=True)
    settings = {"num_episodes": arguments.num_episodes, "seed": arguments.seed}
    todo = [
        (teacher, arguments.folder, arguments.records, settings)
        for teacher in teachers
        if not is_measured(teacher, arguments.records, settings)
    ]
    print(f"{len(teachers) - len(todo)} of {len(teachers)} teachers are measured already", flush=True)
    failures = 0
    # Processes are made anew for each teacher: emulators and their leaks end with it.
    with multiprocessing.get_context("spawn").Pool(arguments.num_workers, maxtasksperchild=1) as pool:
        for line, is_good in pool.imap_unordered(measure_one, todo):
            failures += not is_good
            print(line, flush=True)
            write_page(known_teachers("*"), arguments.records, settings, arguments.out)
    write_page(known_teachers("*"), arguments.records, settings, arguments.out)
    sys.exit(1 if failures else 0)


def known_teachers(pattern: str) -> list[dict[str, Any]]:
    """Return the teachers whose name fits a pattern, the cheapest to play first."""
    teachers = tomllib.loads((HERE / "teachers.toml").read_text())["teacher"]
    chosen = [teacher for teacher in teachers if fnmatch.fnmatch(name_of(teacher), pattern)]
    return sorted(chosen, key=lambda teacher: (cost_of(teacher), name_of(teacher)))


def name_of(teacher: dict[str, Any]) -> str:
    return f"{teacher['algorithm']}/{teacher['environment']}"


def cost_of(teacher: dict[str, Any]) -> int:
    fitting = [index for index, start in enumerate(COSTS) if teacher["environment"].startswith(start)]
    return min(fitting, default=len(COSTS))


def zip_of(teacher: dict[str, Any], folder: Path) -> Path:
    return folder / name_of(teacher) / f"{teacher['environment']}.zip"


def record_of(teacher: dict[str, Any], records: Path) -> Path:
    return records / f"{name_of(teacher).replace('/', '-')}.json"


def is_measured(teacher: dict[str, Any], records: Path, settings: dict[str, int]) -> bool:
    record = read_record(teacher, records)
    return record is not None and record["settings"] == settings


def read_record(teacher: dict[str, Any], records: Path) -> dict[str, Any] | None:
    path = record_of(teacher, records)
    return json.loads(path.read_text()) if path.is_file() else None


def measure_one(job: tuple[dict[str, Any], Path, Path, dict[str, int]]) -> tuple[str, bool]:
    """Measure one teacher in a process of its own, and keep the record; return a line about it."""
    teacher, folder, records, settings = job
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    from rldistill.storage import write_json

    try:
        record = measure(teacher, folder, **settings)
    except Exception:
        return f"{name_of(teacher)}: {traceback.format_exc()}", False
    write_json(record_of(teacher, records), record)
    verified = record["verification"]
    return f"{name_of(teacher):<40} {row_of(teacher, record)}", verified["verdict"] == "agrees"


def measure(teacher: dict[str, Any], folder: Path, *, num_episodes: int, seed: int) -> dict[str, Any]:
    """Compare a teacher's outputs with its library's, play it, and return both as plain JSON."""
    from rldistill.verbs.verification import verify

    mean, deviation = teacher["measured"]
    # Without the warning that a version is out of date, once for each environment.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*out of date")
        verification = verify(
            zip_of(teacher, folder),
            teacher.get("task"),
            num_episodes=num_episodes,
            expected_return=mean,
            expected_standard_error=deviation / math.sqrt(100),
            seed=seed,
            env_kwargs=teacher.get("env_kwargs"),
            num_threads=1,
            device="cpu",
        )
    installed = {name: metadata.version(name) for name in PACKAGES if is_installed(name)}
    return {
        "teacher": name_of(teacher),
        "settings": {"num_episodes": num_episodes, "seed": seed},
        "parity": parity(zip_of(teacher, folder)),
        "verification": verification.to_dict(),
        "versions": {"python": platform.python_version(), **installed},
    }


def is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def parity(path: Path) -> dict[str, Any]:
    """Return how far our outputs are from those that Stable-Baselines3 computed, in parts of the largest output."""
    import numpy as np
    import torch

    from rldistill.adapters.sb3.load import load_sb3
    from rldistill.types import PolicyOutput

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the inputs are normalised already, the normaliser is left out on purpose
        policy = load_sb3(path, normalizer="none")
    with np.load(path.with_name("sb3_reference.npz")) as reference:
        inputs, head, action = (reference[name] for name in ("X", "head", "action"))
    with torch.inference_mode():
        raw = policy.network.eval()(torch.from_numpy(inputs)).outputs
    layout = policy.tasks[0].fingerprint.action_layout
    output = PolicyOutput.from_raw(layout, policy.output_kind, raw)
    actions, _ = policy.act(inputs)
    squashed = layout.mapping == "tanh_rescale"
    if output.kind == "q_values":
        pair = (output.q_values, head.mean(axis=1) if head.ndim == 3 else head)
    elif output.kind == "logits":
        # Log-probabilities there, or scores (ARS): compared without what is the same for all actions.
        pair = (torch.log_softmax(output.logits, 1), torch.log_softmax(torch.from_numpy(head), 1).numpy())
    elif output.kind == "gaussian":
        pair = (torch.tanh(output.mean) if squashed else output.mean, head)
    else:
        pair = (output.actions, action if squashed else head)
    ours, theirs = (np.asarray(part, np.float64) for part in pair)
    largest = max(float(np.abs(theirs).max()), float(raw.abs().max()))
    gap = float(np.abs(ours - theirs).max()) / largest
    same = np.isclose(actions, action, rtol=1e-4, atol=1e-4 * largest).mean()
    return {"num_observations": len(inputs), "largest_gap": gap, "same_actions": float(same), "passes": gap <= PARITY}


def row_of(teacher: dict[str, Any], record: dict[str, Any]) -> str:
    verified = record["verification"]
    played = student_of(record)
    mean, published = teacher["measured"], teacher["published"]
    cells = [
        f"{played['mean']:.1f} ± {verified['standard_error']:.1f}",
        f"{mean[0]:.1f} ± {mean[1] / 10:.1f}",
        f"{published[0]:.1f} ± {published[1] / 10:.1f}",
        f"{random_of(record)['mean']:.1f}",
        distance(verified),
        "yes" if verified["verdict"] == "agrees" else "**no**",
    ]
    return " | ".join(cells)


def student_of(record: dict[str, Any]) -> dict[str, Any]:
    return next(row for row in record["verification"]["evaluation"]["policies"] if row["role"] == "student")


def random_of(record: dict[str, Any]) -> dict[str, Any]:
    return next(row for row in record["verification"]["evaluation"]["policies"] if row["role"] == "random")


def distance(verified: dict[str, Any]) -> str:
    """Return how many combined standard errors lie between ours and measured."""
    error = verified["combined_standard_error"]
    return (
        f"{verified['difference'] / error:+.1f}" if error > 0 else f"{0.0 if not verified['difference'] else math.inf}"
    )


def _summary(record: object) -> object:
    """Return a record without its single episodes, which would make the page's file a hundred times as large."""
    if isinstance(record, dict):
        return {key: _summary(value) for key, value in record.items() if key != "episodes"}
    return [_summary(value) for value in record] if isinstance(record, list) else record


def write_page(teachers: list[dict[str, Any]], records: Path, settings: dict[str, int], out: Path) -> None:
    """Write `teachers.md` and `teachers.json` of all records that were made with these settings."""
    from rldistill.storage import write_atomically, write_json

    measured = [
        (teacher, record)
        for teacher in sorted(teachers, key=name_of)
        if (record := read_record(teacher, records)) is not None and record["settings"] == settings
    ]
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "teachers.json", {"schema_version": 1, "teachers": [_summary(record) for _, record in measured]})
    write_atomically(out / "teachers.md", page(teachers, measured, settings).encode())


def page(
    teachers: list[dict[str, Any]], measured: list[tuple[dict[str, Any], dict[str, Any]]], settings: dict[str, int]
) -> str:
    agreeing = [record for _, record in measured if record["verification"]["verdict"] == "agrees"]
    exact = [record for _, record in measured if record["parity"]["passes"]]
    versions = sorted({", ".join(f"{k} {v}" for k, v in record["versions"].items()) for _, record in measured})
    lines = [
        "# Teachers that others trained",
        "",
        "Made by `make teachers` (`scripts/teachers_page.py`); not written by hand. Every teacher is a zip of "
        "Stable-Baselines3 or sb3-contrib that the public [RL-Zoo](https://github.com/DLR-RM/rl-trained-agents) "
        "published between 2020 and 2024, loaded by rldistill without either library and without executing anything "
        "in it, and played greedily.",
        "",
        f"{len(measured)} of {len(teachers)} teachers are measured so far, {settings['num_episodes']} episodes each, "
        f"seed {settings['seed']}: {len(exact)} give Stable-Baselines3's own outputs, and {len(agreeing)} score on "
        "today's environments what an independent re-measurement of the same zips gives. "
        f"{sum(falls_short(teacher, record) for teacher, record in measured)} score less than RL-Zoo published on the "
        "environments of its time, by more than three combined standard errors.",
        "",
        *[f"Versions: {each}." for each in versions],
        "",
        "## Returns",
        "",
        "*Ours*, *measured* and *published* are means with their standard errors. *Measured* is the same zip on "
        "today's environments, rebuilt apart from rldistill: 100 episodes, other seeds. *Published* is what the zoo "
        "said of it, on the environments of that time (its number of episodes is taken as 100). *Apart*: (ours − "
        "measured) ÷ combined standard error. A teacher *agrees* where that is at most 3 (and half a unit in the last "
        "digit of *measured*); among 59 teachers that all agree, one beyond 3 is to be expected in one page of seven.",
        "",
        "| teacher | played on | ours | measured | published | random play | apart | agrees |",
        "|---|---|---|---|---|---|---|---|",
        *[f"| {name_of(teacher)} | {played_on(teacher)} | {row_of(teacher, record)} |" for teacher, record in measured],
        "",
        *explanations(measured),
        *notes([teacher for teacher, _ in measured]),
        "## What was checked",
        "",
        f"*Outputs*: the largest difference to what Stable-Baselines3 2.9.2 computes for 64 inputs, in parts of the "
        f"largest output (at most {PARITY:g} passes), and the share of equal greedy actions. The others are the usual "
        "silent mistakes, none of which raises an error by itself: what is done about each. They show in *outputs* "
        "(activation, scaling of actions, order of quantiles) or in the return (normaliser, time feature, version).",
        "",
        "| teacher | outputs | equal actions | normaliser | activation | actions | time feature | version | acts |",
        "|---|---|---|---|---|---|---|---|---|",
        *[check_row(teacher, record) for teacher, record in measured],
        "",
    ]
    return "\n".join(lines)


def falls_short(teacher: dict[str, Any], record: dict[str, Any]) -> bool:
    """Return whether a teacher scores less than was published, by more than three combined standard errors."""
    mean, deviation = teacher["published"]
    error = math.hypot(record["verification"]["standard_error"], deviation / 10)
    return student_of(record)["mean"] < mean - 3 * error


def played_on(teacher: dict[str, Any]) -> str:
    options = "".join(f", {name}" for name in teacher.get("env_kwargs", {}))
    return f"{teacher.get('task', teacher['environment'])}{options}"


def explanations(measured: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[str]:
    """Return, for those that do not agree, what their files speak for."""
    lines: list[str] = []
    for teacher, record in measured:
        if record["verification"]["verdict"] == "agrees":
            continue
        causes = "; ".join(record["verification"]["likely_causes"])
        lines.append(f"- {name_of(teacher)} does not agree. Likely causes: {causes or 'its file speaks for none'}.")
    return ["Those that do not agree:", "", *lines, ""] if lines else []


def notes(teachers: list[dict[str, Any]]) -> list[str]:
    lines = [f"- {name_of(teacher)}: {teacher['note']}." for teacher in teachers if "note" in teacher]
    return ["Of the measured returns themselves:", "", *lines, ""] if lines else []


def check_row(teacher: dict[str, Any], record: dict[str, Any]) -> str:
    outputs = record["parity"]
    found = {finding["mistake"]: finding["as_played"] for finding in record["verification"]["mistakes"]}
    quantiles = f"; quantiles {found['quantile order']}" if "quantile order" in found else ""
    cells = [
        name_of(teacher),
        f"{outputs['largest_gap']:.0e}" + ("" if outputs["passes"] else " **too far**"),
        f"{outputs['same_actions']:.0%}",
        found["normaliser"],
        found.get("activation", "none: linear"),
        found.get("action scaling", "one choice") + quantiles,
        found["time feature"],
        found["environment version"],
        found["greedy or sampling"],
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
