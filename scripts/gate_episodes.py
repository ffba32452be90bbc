"""How many episodes does a gate need, with the same episodes resampled together, and with each policy's by themselves?

For each teacher a student is distilled, and both play, beside random play, the episodes of one seed: a pool, kept in
`--pools`. Gates of n episodes are drawn from it, and open where the one-sided 95 % lower bound of retention reaches
what is required: 5 points below what the student keeps over the whole pool. Both kinds of gate see the same draws. The
table says from which n on 80 % of the gates open, and how often gates of 30 and of 100 episodes open that require what
is kept exactly: 5 % should. It stands in docs/evaluation.md.

    python scripts/gate_episodes.py ../shared/teachers/sb3
"""

import argparse
import tempfile
from collections.abc import Collection
from pathlib import Path

import numpy as np

import rldistill as rd
from rldistill.seeding import stream_generator
from rldistill.statistics import ROLES, Role, Stratum, lower_bound, retention, retention_samples

TEACHERS = ("sac/Pendulum-v1", "ppo/LunarLander-v2", "ppo/Acrobot-v1", "tqc/Hopper-v3")
SUCCESSORS = {"LunarLander-v2": "LunarLander-v3", "Hopper-v3": "Hopper-v4"}
MARGIN, POWER = 0.05, 0.8
NUM_GATES, NUM_RESAMPLES = 400, 1000
MOST_EPISODES = 20_000


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with the zips, as <algorithm>/<environment>/<environment>.zip")
    parser.add_argument("--num-episodes", type=int, default=300, help="of a pool (300)")
    parser.add_argument("--pools", type=Path, default=Path("build/gate_episodes"), help="folder where scores are kept")
    parser.add_argument("--only", nargs="+", default=TEACHERS, help="teachers, as <algorithm>/<environment>")
    arguments = parser.parse_args()
    arguments.pools.mkdir(parents=True, exist_ok=True)
    print("| teacher | kept | correlation | together | by themselves | ratio | open by mistake: 30 episodes | 100 |")
    print("|---|---|---|---|---|---|---|---|")
    for name in arguments.only:
        file = arguments.pools / f"{name.replace('/', '-')}-{arguments.num_episodes}.npy"
        if not file.is_file():
            np.save(file, played(arguments.folder, name, arguments.num_episodes))
        print(row_of(name, np.load(file)), flush=True)


def row_of(name: str, pool: np.ndarray) -> str:
    """Return one row of the table."""
    kept = retention(*pool)
    assert kept is not None, "a published teacher is better than random play"
    together, apart = (episodes_needed(pool, kept - MARGIN, roles) for roles in (ROLES, ()))
    mistakes = [
        " and ".join(f"{share_open(pool, size, kept, roles):.0%}" for roles in (ROLES, ())) for size in (30, 100)
    ]
    correlation = np.corrcoef(pool[0], pool[1])[0, 1]
    return (
        f"| `{name}` | {kept:.3f} | {correlation:.2f} | {together:,} | {apart:,} | {apart / together:.1f} "
        f"| {mistakes[0]} | {mistakes[1]} |"
    )


def played(folder: Path, name: str, num_episodes: int) -> np.ndarray:
    """Return the scores of student, teacher and random play, `[3, E]`."""
    environment = name.partition("/")[2]
    teacher, task = folder / name / f"{environment}.zip", SUCCESSORS.get(environment, environment)
    with tempfile.TemporaryDirectory() as out:
        source = rd.Live(teacher, task)
        policy = rd.distill(source, student="mlp:32x32", num_updates=5000, evaluate_episodes=0, out=Path(out) / "run")
        result = rd.evaluate(policy, task, teacher=teacher, num_episodes=num_episodes, seed=1000)
    assert result.teacher is not None
    return np.stack([row.played.scores for row in (result.students[0], result.teacher, result.random)])


def episodes_needed(pool: np.ndarray, required: float, together: Collection[Role]) -> int:
    """Return from which number of episodes on a gate opens as often as it should, within 3 %."""
    low, high = 5, 10
    while share_open(pool, high, required, together) < POWER:
        low, high = high, 2 * high
        if high > MOST_EPISODES:
            return high
    while high - low > max(1, 0.03 * high):
        middle = (low + high) // 2
        low, high = (low, middle) if share_open(pool, middle, required, together) >= POWER else (middle, high)
    return high


def share_open(pool: np.ndarray, size: int, required: float, together: Collection[Role]) -> float:
    """Return how many of the gates of `size` episodes open."""
    opened = 0
    for gate in range(NUM_GATES):
        drawn = stream_generator(gate, "gate", size).integers(pool.shape[1], size=size)
        rng = stream_generator(gate, "resamples", size)
        samples = retention_samples(Stratum(*pool[:, drawn], together=together), rng=rng, num_resamples=NUM_RESAMPLES)
        opened += samples is not None and lower_bound(samples) >= required
    return opened / NUM_GATES


if __name__ == "__main__":
    main()
