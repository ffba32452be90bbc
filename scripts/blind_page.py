"""What may a student do without, if it remembers? A page of figures: `make blind`.

Teachers that see velocities teach students that do not: HalfCheetah of a published zip, and the published policy of the
Go1 quadruped, whose body's velocity no real robot can measure. The published policy of the G1 humanoid's legs, which
remembers, teaches students a tenth of its size. Each student is one `rd.distill` with the default recipe, one
`rd.evaluate`, and one `rd.export` to C, which plays. What is measured is kept in `blind.json` beside the page, so that
a second call goes on where the first stopped.

    python scripts/blind_page.py ../shared/teachers
    python scripts/blind_page.py ../shared/teachers --only 'Go1 gru:*'
"""

import argparse
import fnmatch
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
NUM_EPISODES = 100
FULL_EPISODE = {"Go1": 500, "G1": 500}  # decisions; shorter is a fall
SEES_ALL, FOR_LONGER = "that sees all", "for longer"
# A small student has no room for what is rare, and the Go1 falls where its command turns round at full speed: while it
# learns, commands change more often. Its last updates are small, and of many rows.
LONGER: dict[str, Any] = {"num_updates": 160_000, "batch_size": 2_048, "learning_rate": "linear:3e-3->1e-5"}
LONGER_PLAY: dict[str, Any] = {
    "env_kwargs": {"command_period": 70},
    "collect_steps": 16_000,
    "collect_period": 3_200,
}
# Of the G1: decisions in which it takes up a command, and episodes of each command.
SETTLING, WALKS = 100, 5


@dataclass(frozen=True)
class Experiment:
    """A teacher, what its students do not see, and which students are tried."""

    title: str
    teacher: str
    task: str
    names: dict[str, tuple[int, ...]]
    sees: str
    students: tuple[str, ...]
    about: str
    seeing: tuple[str, ...] = ()  # students that see everything, to compare with
    longer: tuple[str, ...] = ()  # students that learn for `LONGER`
    named: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def all_students(self) -> list[str]:
        """Those that see everything, then those that do not."""
        longer = [f"{name} {FOR_LONGER}" for name in self.longer]
        return [*(f"{name} {SEES_ALL}" for name in self.seeing), *self.students, *longer]


EXPERIMENTS = (
    Experiment(
        "Go1",
        "robots/go1_policy.onnx",
        "robots:Go1-v0",
        {"velocity": (0, 3), "rest": (3,)},
        "rest",
        (
            *("mlp:256x256", "mlp:64x64", "mlp:28x28", "mlp:32", "stack:4+mlp:64x64", "stack:4+mlp:16"),
            *("gru:64", "gru:32", "gru:22", "gru:16", "gru:12", "gru:8"),
        ),
        "The quadruped of `scripts/robots.py` follows a velocity command. Its published policy (192,504 parameters) "
        "sees the velocity of its body; with that set to zero it falls within seconds and scores 40. The student sees "
        "the other 45 numbers. At most 750 points in 500 decisions. Small students fall where the command turns round "
        f"at full speed; *{FOR_LONGER}*, it changes every {LONGER_PLAY['env_kwargs']['command_period']} decisions "
        "instead of every 250 while they learn.",
        seeing=("mlp:64x64",),
        longer=("mlp:28x28",),
        named={"outputs": "actions"},
    ),
    Experiment(
        "HalfCheetah",
        "sb3/tqc/HalfCheetah-v3/HalfCheetah-v3.zip",
        "HalfCheetah-v4",
        {"place": (0, 8), "velocity": (8,)},
        "place",
        ("mlp:64x64", "stack:4+mlp:64x64", "gru:64", "gru:32"),
        "The student sees the eight positions and angles, and none of the nine velocities.",
        seeing=("mlp:64x64",),
    ),
    Experiment(
        "G1",
        "robots/g1_motion.pt",
        "robots:G1-v0",
        {},
        "",
        (),
        "The legs of the humanoid follow one of four commands (forward at 0.5 and 1 m/s, to the left at 0.3 m/s, a "
        "turn of 0.5 rad/s). Its published policy is an LSTM of about 31,000 parameters; the student sees the same. A "
        "decision without a fall is worth 1, of 500. *Off by* is how far the mean velocity over the ground is from "
        f"that of the command (m/s, after {SETTLING} decisions, mean of the four commands, {WALKS} episodes each), in "
        "brackets the teacher's.",
        seeing=("gru:15", "lstm:12", "mlp:32"),
        named={"trust": True, "outputs": "actions"},
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with the teachers: robots/, sb3/")
    parser.add_argument("--only", default="*", help="pattern of `TASK STUDENT`, such as 'Go1 gru:*'")
    parser.add_argument("--num-seeds", type=int, default=2, help="of each student (2)")
    parser.add_argument("--runs", type=Path, default=Path("build/blind"), help="folder of the runs")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "results", help="folder of the page")
    arguments = parser.parse_args()
    os.environ.setdefault("ROBOTS", str((arguments.folder / "robots").resolve()))
    records_file = arguments.out / "blind.json"
    records: dict[str, Any] = json.loads(records_file.read_text()) if records_file.is_file() else {}
    for experiment, student, seed in jobs(arguments.num_seeds):
        key = f"{experiment.title} {student}"
        own = records.setdefault(key, {})
        if str(seed) in own or not fnmatch.fnmatch(key, arguments.only):
            continue
        own[str(seed)] = run(experiment, student, seed, arguments.folder, arguments.runs)
        print(key, seed, own[str(seed)], flush=True)
        records_file.write_text(json.dumps(records, indent=1, sort_keys=True) + "\n")
        (arguments.out / "blind.md").write_text(page(records))


def jobs(num_seeds: int) -> list[tuple[Experiment, str, int]]:
    """Return all that is to be done: first one seed of everything."""
    return [(each, student, seed) for seed in range(num_seeds) for each in EXPERIMENTS for student in each.all_students]


def run(experiment: Experiment, student: str, seed: int, folder: Path, runs: Path) -> dict[str, Any]:
    """Distil one student and play it beside its teacher."""
    import rldistill as rd

    network, _, way = student.partition(" ")
    sight: dict[str, Any] = {} if way == SEES_ALL else {"names": experiment.names, "student_sees": experiment.sees}
    longer, play = (LONGER, LONGER_PLAY) if way == FOR_LONGER else ({}, {})
    teacher = rd.load_policy(folder / experiment.teacher, task=experiment.task, **experiment.named)
    started = time.process_time()
    learned = rd.distill(
        rd.Live(teacher, experiment.task, **play),
        student=network,
        out=runs / f"{experiment.title}-{student}-{seed}".replace(" ", "-"),
        seed=seed,
        num_threads=1,
        evaluate_episodes=0,
        overwrite=True,
        **sight,
        **longer,
    )
    seconds = time.process_time() - started
    played = rd.evaluate(
        learned, experiment.task, teacher=teacher, num_episodes=NUM_EPISODES, seed=1_000, num_threads=1
    )
    (row,) = played.students
    full = FULL_EPISODE.get(experiment.title)
    compiled = rd.export(
        learned,
        to="c",
        task=experiment.task,
        out=runs / f"{experiment.title}-{student}-{seed}.c".replace(" ", "-").replace(":", "-"),
        overwrite=True,
    )
    assert compiled.score is not None and compiled.written is not None
    (in_c,) = compiled.score.students
    measured: dict[str, Any] = {}
    if experiment.title == "G1":
        measured = {"velocity_error": velocity_error(learned), "teacher_velocity_error": velocity_error(teacher)}
    return measured | {
        "c_mean": in_c.mean,
        "c_flash": compiled.written.data["flash_bytes"],
        "num_parameters": learned.num_parameters,
        "num_steps": learned.spec.provenance["dataset"]["num_steps"],
        "cpu_seconds": round(seconds),
        "teacher_mean": played.teacher.mean if played.teacher else None,
        "mean": row.mean,
        "interval": row.interval.to_list() if row.interval else None,
        "retention": row.retention,
        "retention_interval": row.retention_interval.to_list() if row.retention_interval else None,
        "num_falls": None if full is None else sum(episode.length < full for episode in row.played.episodes),
    }


def velocity_error(policy: Any) -> float:  # noqa: ANN401 (any policy)
    """Return how far the G1's mean velocity is from the command's, in m/s, over all commands."""
    import gymnasium
    import robots

    errors: list[float] = []
    for number in range(WALKS * len(robots.G1.commands)):
        env, which = gymnasium.make("robots:G1-v0"), number % len(robots.G1.commands)
        observation, _ = env.reset(seed=2_000 + number, options={"command": which})
        state, velocities, is_over = policy.initial_state(1), list[Any](), False
        while not is_over:
            output, state = policy(observation[None], state)
            observation, _, has_fallen, is_over, info = env.step(np.asarray(output.actions[0]))
            is_over = is_over or has_fallen
            velocities.append(info["velocity"][:2])
        # One that falls before has followed nothing.
        mean = np.mean(velocities[SETTLING:], axis=0) if len(velocities) > SETTLING else np.zeros(2)
        errors.append(float(np.hypot(*(mean - robots.G1.commands[which][:2]))))
    return float(np.mean(errors))


def page(records: dict[str, Any]) -> str:
    """Return the page of what is measured so far."""
    lines = [
        "# Students that see less than their teacher",
        "",
        "Made by `make blind` (`scripts/blind_page.py`); not written by hand. Each row is one student of the default "
        "recipe: `rd.distill(rd.Live(TEACHER, TASK), student=…, names=…, student_sees=…)` with nothing else said but "
        f"the seed, then {NUM_EPISODES} fresh episodes, the same for all, with [95 %] intervals. Those *{FOR_LONGER}* "
        f"learn from {LONGER['num_updates']:,} updates of {LONGER['batch_size']:,} rows at rates "
        f"`{LONGER['learning_rate']}`, as their section says more. No fall in 100 "
        "episodes leaves room for 3 falls in 100 (95 % confidence). *Minutes* are of "
        "processor time on one thread. *In C* is the mean score of the student's C over 30 episodes, *flash* what it "
        "takes. [Who sees what](../who-sees-what.md) explains the options.",
        "",
    ]
    for experiment in EXPERIMENTS:
        rows = [
            line(student, seed, record)
            for student in experiment.all_students
            for seed, record in sorted(records.get(f"{experiment.title} {student}", {}).items())
        ]
        if rows:
            lines += [f"## {experiment.title}", "", experiment.about, "", *HEAD, *rows, ""]
    return "\n".join(lines)


HEAD = (
    "| student | parameters | seed | score | teacher's | retention | falls | off by | in C | flash | steps | minutes |",
    "|---|--:|--:|---|--:|---|--:|---|--:|--:|--:|--:|",
)


def line(student: str, seed: str, record: dict[str, Any]) -> str:
    name, _, way = student.partition(" ")
    falls = "-" if record["num_falls"] is None else f"{record['num_falls']} of {NUM_EPISODES}"
    cells = [f"`{name}` {way}".strip(), f"{record['num_parameters']:,}", seed]
    cells += [interval(record["mean"], record["interval"], ",.0f"), f"{record['teacher_mean']:,.0f}"]
    cells += [interval(record["retention"], record["retention_interval"], ".3f"), falls]
    own, teachers = record.get("velocity_error"), record.get("teacher_velocity_error")
    cells += ["-" if own is None else f"{own:.2f} ({teachers:.2f})"]
    in_c = (record.get("c_mean"), record.get("c_flash"))
    cells += ["-", "-"] if None in in_c else [f"{record['c_mean']:,.0f}", f"{record['c_flash'] / 1024:.1f} KB"]
    cells += [f"{record['num_steps']:,}", f"{record['cpu_seconds'] / 60:.1f}"]
    return f"| {' | '.join(cells)} |"


def interval(value: float, ends: list[float] | None, form: str) -> str:
    return f"{value:{form}}" + ("" if ends is None else f" [{ends[0]:{form}}, {ends[1]:{form}}]")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    main()
