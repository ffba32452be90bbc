"""How fast are uniform random samples decoded? One thread, blocks as they are stored.

Frames are decoded for each batch. Vectors are decoded once and kept where they fit into a share of memory; where they
do not, in pools (here the share is an eighth of what they take). Without either, each row costs a block.
"""

import itertools
import tempfile
from pathlib import Path

import numpy as np
from kit import Rates, collect_for_bench, random_teacher, run_alone, show, timed

from rldistill.data import Dataset, UniformSampler, store
from rldistill.data.codec import ROWS_PER_BLOCK
from rldistill.distillation.batch import read_window
from rldistill.envs import make_task

_BATCH_SIZE = 128
_GAMES = ("pong", "breakout", "seaquest", "space_invaders")


def measure_vectors(folder: Path, *, num_rounds: int, num_batches: int) -> None:
    task = make_task("LunarLander-v3")
    collect_for_bench(random_teacher(task, "mlp:64x64", layer_norm=False), task, folder, 50_000)
    share = store._MOST_BYTES_DECODED

    def reader(way: str) -> object:
        dataset = Dataset.open(folder)
        num_bytes = dataset.num_steps * dataset.provenance.observation_fields["observation"].shape[0] * 4
        store._MOST_BYTES_DECODED = share if way == "kept" else num_bytes // 8
        sampler, numbers = UniformSampler(dataset.store, np.arange(dataset.num_steps), seed=0), itertools.count()
        if way == "a block for each row":
            sampler._pools = None
        store._MOST_BYTES_DECODED = share

        def piece() -> int:
            steps = (sampler.draw(next(numbers), _BATCH_SIZE) for _ in range(num_batches))
            return sum(len(dataset.store.observations(each)) for each in steps)

        return timed(piece)

    ways = ("kept", "pools", "a block for each row")
    rates = Rates({way: reader(way) for way in ways}, num_rounds=num_rounds)
    show(
        f"Random observations of LunarLander, one thread (batches of {_BATCH_SIZE})",
        ["decoded", "samples/s", "of those that are kept"],
        [[way, f"{rates.median(way):,.0f}", f"{rates.ratio(way, 'kept'):.2f}"] for way in ways],
        f"medians of {num_rounds} turns of {num_batches} batches",
    )


def main(*, quick: bool) -> None:
    num_steps, num_rounds, num_batches = (1_600, 3, 20) if quick else (6_400, 9, 60)
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        datasets: dict[str, Dataset] = {}
        for game in _GAMES[: 2 if quick else None]:
            task = make_task(f"atari:{game}")
            collect_for_bench(random_teacher(task), task, Path(folder) / game, num_steps)
            datasets[game] = Dataset.open(Path(folder) / game)

        def reader(dataset: Dataset) -> object:
            sampler = UniformSampler(dataset.store, np.arange(dataset.num_steps), seed=0)
            numbers = itertools.count()

            def piece() -> int:
                steps = (sampler.windows(next(numbers), _BATCH_SIZE) for _ in range(num_batches))
                return sum(read_window(dataset, each, head=0).num_steps for each in steps)

            return timed(piece)

        rates = Rates({game: reader(dataset) for game, dataset in datasets.items()}, num_rounds=num_rounds)
        measure_vectors(Path(folder) / "vectors", num_rounds=num_rounds, num_batches=10 * num_batches)
        for game, dataset in datasets.items():
            num_bytes = sum(shard.num_bytes for shard in dataset.manifest.shards)
            rows.append([game, f"{rates.median(game):,.0f}", f"{num_bytes / dataset.num_steps:.0f}"])
    show(
        f"Uniform random samples of 4 frames, one thread (batches of {_BATCH_SIZE}, blocks of {ROWS_PER_BLOCK} frames)",
        ["game", "samples/s", "bytes per step"],
        rows,
        f"medians of {num_rounds} turns; {num_steps:,} steps of play by random weights with ε 0.05",
    )


if __name__ == "__main__":
    run_alone(main, __doc__)
