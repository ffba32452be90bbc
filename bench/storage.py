"""How many bytes does a step take on disk, and how much would the paper's 540,000 steps take?"""

import tempfile
from pathlib import Path

from kit import collect_for_bench, random_teacher, run_alone, show

from rldistill.envs import make_task
from rldistill.policies import Policy, RandomPolicy

_GAMES = ("pong", "breakout", "seaquest", "space_invaders", "ms_pacman", "qbert")
_PAPER_STEPS = 540_000
_FRAME_BYTES = 84 * 84


def main(*, quick: bool) -> None:
    num_steps = 1_600 if quick else 6_400
    rows: list[list[str]] = []
    averages: list[float] = []
    for game in _GAMES[: 2 if quick else None]:
        task = make_task(f"atari:{game}")
        policies: list[Policy] = [random_teacher(task), RandomPolicy(task.task)]
        with tempfile.TemporaryDirectory() as folder:
            sizes = [
                collect_for_bench(policy, task, Path(folder) / policy.name, num_steps).num_bytes / num_steps
                for policy in policies
            ]
        averages.append(sum(sizes) / len(sizes))
        largest = max(sizes)
        rows.append(
            [
                game,
                *(f"{size:.0f}" for size in sizes),
                f"{largest * _PAPER_STEPS / 1e6:.0f} MB",
                f"{4 * _FRAME_BYTES / largest:.0f} ×",
            ]
        )
    mean = sum(averages) / len(averages)
    rows.append(["mean", "", f"{mean:.0f}", f"{mean * _PAPER_STEPS / 1e6:.0f} MB", ""])
    show(
        "Bytes per step on disk: frames, Q-values, actions, rewards and flags",
        ["game", "random weights, ε 0.05", "random play", "540,000 steps", "smaller than 4 raw frames"],
        rows,
        f"{num_steps:,} steps each, shards whole; the last two columns: of the larger of the two",
    )


if __name__ == "__main__":
    run_alone(main, __doc__)
