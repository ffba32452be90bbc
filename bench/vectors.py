"""What does the library cost beside a loop of 25 lines? Updates per second of a small student of vectors.

All train the same network with Adam on the same stored steps of LunarLander: the library by its own loop from its
dataset, the plain loops from arrays in memory. The first plain loop is what most people write; the second one does all
that the library does: Adam in one kernel, gradients scaled down, the loss read after each update. One thread, and the
process's own time.
"""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from kit import Rates, collect_for_bench, random_teacher, run_alone, show, stored_batches
from torch import nn

from rldistill.data import Dataset
from rldistill.distillation import OPTIMIZERS, Distiller, UpdateRecord, distil
from rldistill.envs import make_task
from rldistill.losses import make_loss
from rldistill.rollout.threads import use_threads
from rldistill.schedules import constant

NETWORK, TEMPERATURE, LEARNING_RATE = "mlp:64x64", 0.01, 1e-3
_ENOUGH_UPDATES = 10**6


def library(dataset: Dataset, batch_size: int) -> Iterator[UpdateRecord]:
    student = random_teacher(make_task("LunarLander-v3"), NETWORK, layer_norm=False).network
    distiller = Distiller(
        student,
        {0: make_loss("sharpened_kl", "q_values", temperature=TEMPERATURE)},
        OPTIMIZERS["adam"](student.parameters(), LEARNING_RATE, 0.0),
        learning_rate=constant(LEARNING_RATE),
        parameters={0: {"temperature": constant(TEMPERATURE)}},
        num_updates=_ENOUGH_UPDATES,
        max_gradient_norm=1.0,
        precision="float32",
    )
    return distil(distiller, stored_batches(dataset, batch_size).of_updates(0, _ENOUGH_UPDATES))


def plain(observations: np.ndarray, targets: np.ndarray, batch_size: int, *, does_all: bool) -> Iterator[None]:
    rng = np.random.default_rng(0)
    network = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, fused=does_all or None)
    for _ in range(_ENOUGH_UPDATES):
        rows = rng.integers(0, len(observations), batch_size)
        target = torch.log_softmax(torch.from_numpy(targets[rows]) / TEMPERATURE, dim=-1)
        student = torch.log_softmax(network(torch.from_numpy(observations[rows])), dim=-1)
        loss = nn.functional.kl_div(student, target, reduction="batchmean", log_target=True)
        optimizer.zero_grad()
        loss.backward()
        if does_all:
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if does_all:
            loss.item()
        yield


def piece_of(loop: Iterator[object], num_updates: int) -> Callable[[], tuple[int, float]]:
    """Return a piece for `Rates`: so many updates, in the process's own time."""

    def piece() -> tuple[int, float]:
        started = time.process_time()
        for _ in itertools.islice(loop, num_updates):
            pass
        return num_updates, time.process_time() - started

    return piece


def main(*, quick: bool) -> None:
    # Short turns, many of them: a shared machine changes its speed from second to second.
    num_steps, num_updates, num_rounds = (5_000, 50, 20) if quick else (50_000, 50, 100)
    task = make_task("LunarLander-v3")
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder, use_threads(1):
        collect_for_bench(random_teacher(task, NETWORK, layer_norm=False), task, Path(folder) / "data", num_steps)
        dataset = Dataset.open(Path(folder) / "data")
        steps = np.arange(dataset.num_steps)
        arrays = dataset.observations(steps), dataset.targets(steps)["q_values"]
        for batch_size in (32, 256, 1024):
            loops = {
                "ours": library(dataset, batch_size),
                "plain": plain(*arrays, batch_size, does_all=False),
                "all": plain(*arrays, batch_size, does_all=True),
            }
            pieces = {name: piece_of(loop, num_updates) for name, loop in loops.items()}
            rates = Rates(pieces, num_rounds=num_rounds)
            rows.append(
                [
                    str(batch_size),
                    *(f"{rates.median(name):,.0f}" for name in loops),
                    f"{rates.ratio('ours', 'plain'):.1%}",
                    f"{rates.ratio('ours', 'all'):.1%}",
                ]
            )
    show(
        f"Updates per second of {NETWORK} on {num_steps:,} stored steps of LunarLander, one thread",
        ["batch", "ours", "plain loop", "one that does all", "of the plain loop", "of the other"],
        rows,
        f"medians of {num_rounds} turns of {num_updates} updates; ratios are medians of those within a turn",
    )


if __name__ == "__main__":
    run_alone(main, __doc__)
