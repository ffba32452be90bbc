"""What does the library cost beside a loop of 25 lines? Updates per second of a small student of vectors.

Both train the same network with the same optimiser on the same stored steps of LunarLander: the library by its own
loop from its dataset, the plain loop from arrays in memory. One thread.
"""

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from kit import Rates, collect_for_bench, random_teacher, run_alone, show, stored_batches
from torch import nn
from updates import piece_of

from rldistill.data import Dataset
from rldistill.distillation import OPTIMIZERS, Distiller, UpdateRecord, distil
from rldistill.envs import make_task
from rldistill.losses import make_loss
from rldistill.schedules import constant
from rldistill.session.threads import use_threads

NETWORK, TEMPERATURE, LEARNING_RATE = "mlp:64x64", 0.01, 1e-3
_ENOUGH_UPDATES = 10**6


def library(dataset: Dataset, batch_size: int) -> Iterator[UpdateRecord]:
    student = random_teacher(make_task("LunarLander-v3"), NETWORK, layer_norm=False).network
    distiller = Distiller(
        student,
        [make_loss("sharpened_kl", "q_values", temperature=TEMPERATURE)],
        OPTIMIZERS["adam"](student.parameters(), LEARNING_RATE, 0.0),
        learning_rate=constant(LEARNING_RATE),
        temperatures=[constant(TEMPERATURE)],
        num_updates=_ENOUGH_UPDATES,
        max_gradient_norm=1.0,
        precision="float32",
    )
    return distil(distiller, stored_batches(dataset, batch_size).of_updates(0, _ENOUGH_UPDATES))


def plain(observations: np.ndarray, targets: np.ndarray, batch_size: int) -> Iterator[float]:
    rng = np.random.default_rng(0)
    network = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    for _ in range(_ENOUGH_UPDATES):
        rows = rng.integers(0, len(observations), batch_size)
        target = torch.log_softmax(torch.from_numpy(targets[rows]) / TEMPERATURE, dim=-1)
        student = torch.log_softmax(network(torch.from_numpy(observations[rows])), dim=-1)
        loss = nn.functional.kl_div(student, target, reduction="batchmean", log_target=True)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        yield loss.item()


def main(*, quick: bool) -> None:
    num_steps, num_updates, num_rounds = (5_000, 100, 3) if quick else (50_000, 400, 9)
    task = make_task("LunarLander-v3")
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder, use_threads(1):
        collect_for_bench(random_teacher(task, NETWORK, layer_norm=False), task, Path(folder) / "data", num_steps)
        dataset = Dataset.open(Path(folder) / "data")
        steps = np.arange(dataset.num_steps)
        arrays = dataset.observations(steps), dataset.targets(steps)["q_values"]
        for batch_size in (32, 256, 1024):
            with closing(library(dataset, batch_size)) as ours, closing(plain(*arrays, batch_size)) as theirs:  # type: ignore[type-var]
                rates = Rates(
                    {"ours": piece_of(ours, num_updates), "plain": piece_of(theirs, num_updates)},
                    num_rounds=num_rounds,
                )
            rows.append(
                [
                    str(batch_size),
                    f"{rates.median('ours'):,.0f}",
                    f"{rates.median('plain'):,.0f}",
                    f"{rates.ratio('ours', 'plain'):.1%}",
                ]
            )
    show(
        f"Training {NETWORK} on {num_steps:,} stored steps of LunarLander, one thread",
        ["batch", "updates/s ours", "updates/s plain loop", "ratio"],
        rows,
        f"medians of {num_rounds} turns each; the ratio is the median of those within a turn",
    )


if __name__ == "__main__":
    run_alone(main, __doc__)
