"""Does training wait for its data? Updates per second from the store against a batch that lies in memory.

Both train the same network by the library's own loop on one thread; only the source differs.
The store decodes ahead in one background thread, so it needs a second processor to be free.
"""

import itertools
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import torch
from kit import Rates, collect_for_bench, random_teacher, run_alone, show, stored_batches

from rldistill.data import Dataset
from rldistill.distillation import OPTIMIZERS, Batches, Distiller, UpdateRecord, distil
from rldistill.distillation.batch import Minibatch
from rldistill.envs import make_task
from rldistill.losses import make_loss
from rldistill.networks.precision import Precision
from rldistill.rollout.threads import use_threads
from rldistill.schedules import constant

BATCH_SIZE = 128
# More than the batches decoded ahead while the other source had its turn.
_UNTIMED_UPDATES = 5
_ENOUGH_UPDATES = 10**6


class Resident:
    """The same batch for every update."""

    def __init__(self, batch: Minibatch) -> None:
        self._batch = batch

    def of_updates(self, first_update: int, num_updates: int) -> Generator[Minibatch]:
        """Yield it, so many times."""
        yield from itertools.repeat(self._batch, num_updates - first_update)


def training(
    source: "Batches | Resident", network: str, precision: Precision, *, device: str = "cpu", compiled: bool = False
) -> Iterator[UpdateRecord]:
    """Return the library's own loop with a student of Pong, to be driven update by update."""
    task = make_task("atari:pong")
    student = random_teacher(task, network, layer_norm=False).network.to(device)
    distiller = Distiller(
        torch.compile(student) if compiled else student,
        {0: make_loss("sharpened_kl", "q_values", temperature=0.01)},
        OPTIMIZERS["adam"](student.parameters(), 1e-4, 0.0),
        learning_rate=constant(1e-4),
        parameters={0: {"temperature": constant(0.01)}},
        num_updates=_ENOUGH_UPDATES,
        max_gradient_norm=1.0,
        precision=precision,
    )
    return distil(distiller, source.of_updates(0, _ENOUGH_UPDATES))


def piece_of(records: Iterator[UpdateRecord], num_updates: int) -> Callable[[], tuple[int, float]]:
    """Return a piece for `Rates`: so many updates."""

    def piece() -> tuple[int, float]:
        for _ in itertools.islice(records, _UNTIMED_UPDATES):
            pass
        started = time.perf_counter()
        for _ in itertools.islice(records, num_updates):
            pass
        return num_updates, time.perf_counter() - started

    return piece


def _measure(dataset: Dataset, network: str, precision: Precision, *, num_updates: int, num_rounds: int) -> Rates:
    stored = stored_batches(dataset, BATCH_SIZE)
    with closing(stored.of_updates(0, 1)) as batches:
        resident = Resident(next(batches))
    with ExitStack() as stack:
        # A source that is left early has a thread to end.
        trained = [stack.enter_context(closing(training(source, network, precision))) for source in (stored, resident)]  # type: ignore[type-var]
        pieces = {
            name: piece_of(records, num_updates) for name, records in zip(("stored", "resident"), trained, strict=True)
        }
        return Rates(pieces, num_rounds=num_rounds)


def main(*, quick: bool) -> None:
    num_steps, num_rounds = (1_600, 2) if quick else (16_000, 7)
    task = make_task("atari:pong")
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        collect_for_bench(random_teacher(task), task, Path(folder) / "data", num_steps)
        dataset = Dataset.open(Path(folder) / "data")
        with use_threads(1):
            precisions: tuple[Precision, ...] = ("float32", "bfloat16")
            for network, precision in itertools.product(("dqn", "net3"), precisions):
                num_updates = (8 if network == "dqn" else 30) * (1 if quick else 2)
                rates = _measure(dataset, network, precision, num_updates=num_updates, num_rounds=num_rounds)
                speed = rates.median("stored")
                rows.append(
                    [
                        f"{network}, {precision}",
                        f"{speed:.1f}",
                        f"{rates.median('resident'):.1f}",
                        f"{rates.ratio('stored', 'resident'):.1%}",
                        f"{speed * BATCH_SIZE:,.0f}",
                    ]
                )
    show(
        f"Training on one thread, updates of {BATCH_SIZE} (Pong, {num_steps:,} steps stored)",
        ["student", "updates/s stored", "updates/s resident", "ratio", "samples/s stored"],
        rows,
        f"medians of {num_rounds} turns each; the ratio is the median of those within a turn",
    )


if __name__ == "__main__":
    run_alone(main, __doc__)
