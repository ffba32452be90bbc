"""How much memory does a distillation of many games take at the paper's 540,000 steps of each?

Each game's dataset is some real play written again and again until it is as long: compressed
blocks are not shared, so every byte counts. Each row is a process of its own that opens the
datasets and trains `multitask10` on them; peak memory includes the pages of the files that it
touched, Python and torch.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from kit import collect_for_bench, random_teacher, run_alone, show
from numpy.typing import NDArray

from rldistill.data import Dataset, DatasetWriter
from rldistill.envs import make_task

_GAMES = (
    "beam_rider",
    "breakout",
    "enduro",
    "freeway",
    "ms_pacman",
    "pong",
    "qbert",
    "riverraid",
    "seaquest",
    "space_invaders",
)
_CHILD = """
import json, resource, sys, tempfile, time
from pathlib import Path
import rldistill as rd

times = []
with tempfile.TemporaryDirectory() as out:
    rd.distill(
        sys.argv[2:], student="multitask10", num_updates=int(sys.argv[1]), evaluate_period=10**6, batch_size=32,
        num_threads=1, out=Path(out) / "run", callbacks=[lambda event: times.append(time.perf_counter()) and None],
    )
tail = times[len(times) // 2 :]
print(json.dumps({"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                  "updates_per_second": (len(tail) - 1) / (tail[-1] - tail[0])}))
"""


def _write_long(short: Dataset, out: Path, num_steps: int) -> None:
    """Write a dataset's steps again and again, as new episodes, until there are enough."""
    layout = short.provenance
    episodes = [short.episode_steps(int(number)) for number in short.episode_numbers]
    rows: list[NDArray[Any]] = [short.observations(steps)[:, -1] for steps in episodes]
    values = {name: short.field(name) for name in layout.step_fields}
    with DatasetWriter.create(out, layout, target_num_steps=num_steps) as writer:
        while writer.num_steps < num_steps:
            for steps, frames in zip(episodes, rows, strict=True):
                number = np.array([writer.next_episode])
                for index, step in enumerate(steps.tolist()):
                    writer.append(number, frames[index : index + 1], {k: v[step : step + 1] for k, v in values.items()})
                writer.end_episode(int(number[0]), frames[-1])
        writer.finish()


def _measure(paths: list[Path], num_updates: int) -> dict[str, float]:
    command = [sys.executable, "-c", _CHILD, str(num_updates), *map(str, paths)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(*, quick: bool) -> None:
    num_steps, num_updates, counts = (20_000, 20, (1, 2)) if quick else (540_000, 100, (1, 2, 5, 10))
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        paths: list[Path] = []
        for game in _GAMES[: counts[-1]]:
            task = make_task(f"atari:{game}", {"max_frames": 2000})
            collect_for_bench(random_teacher(task), task, Path(folder) / f"{game}-short", 10_000)
            paths.append(Path(folder) / game)
            started = time.perf_counter()
            _write_long(Dataset.open(Path(folder) / f"{game}-short"), paths[-1], num_steps)
            print(f"{game}: written in {time.perf_counter() - started:.0f} s", file=sys.stderr)
        for count in counts:
            measured = _measure(paths[:count], num_updates)
            on_disk = sum(file.stat().st_size for path in paths[:count] for file in path.iterdir())
            rows.append(
                [
                    str(count),
                    f"{count * num_steps:,}",
                    f"{on_disk / 1e6:,.0f} MB",
                    f"{measured['peak_bytes'] / 1e6:,.0f} MB",
                    f"{measured['updates_per_second']:.1f}",
                ]
            )
    show(
        "Peak memory of distilling many games into multitask10 (batches of 32, one thread)",
        ["games", "steps", "on disk", "peak memory", "updates/s"],
        rows,
        "random weights with ε 0.05, 10,000 real steps of each game repeated; a process of its own for each row",
    )


if __name__ == "__main__":
    run_alone(main, __doc__)
