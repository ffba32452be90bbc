"""What does a GPU give? Training samples per second by place of the data, by precision, with and without torch.compile.

The library's own loop trains the same students from three places: the store, decoded ahead by background threads;
frames in the GPU's memory, of which each batch gathers its rows; one batch that lies there, which is as fast as the
network alone can be. Without a GPU it measures the same on the processor, and says so.
"""

import itertools
import os
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import torch
from kit import Rates, collect_for_bench, random_teacher, run_alone, show, stored_batches
from updates import BATCH_SIZE, Resident, piece_of, training

from rldistill.data import Dataset
from rldistill.distillation import Batches
from rldistill.distillation.batch import Minibatch, Window, read_window
from rldistill.envs import make_task
from rldistill.networks.precision import Precision
from rldistill.types import resolve_device


class _OnDevice:
    """All observations in the device's memory; the rows of a batch are drawn and gathered there."""

    def __init__(self, everything: Window, device: str) -> None:
        self._observations = everything.rows(everything.observations["observation"]).to(device)
        self._targets = everything.target_rows("q_values").to(device)

    def of_updates(self, first_update: int, num_updates: int) -> Generator[Minibatch]:
        for _ in range(num_updates):
            rows = torch.randint(len(self._targets), (BATCH_SIZE,), device=self._targets.device)
            observations, targets = {"observation": self._observations[rows]}, {"q_values": self._targets[rows]}
            yield (Window.of_steps(0, observations, targets, "the device's memory"),)


def _sources(dataset: Dataset, device: str) -> dict[str, "Batches | _OnDevice | Resident"]:
    on_device = _OnDevice(read_window(dataset, np.arange(dataset.num_steps)[None], head=0), device)
    num_decoders = max(1, min(8, (os.cpu_count() or 1) - 1))
    stored = stored_batches(dataset, BATCH_SIZE, num_decoders=num_decoders)
    return {"stored": stored, "on the device": on_device, "resident": Resident(next(on_device.of_updates(0, 1)))}


def main(*, quick: bool) -> None:
    device = resolve_device("auto").type
    num_steps, num_rounds = (1_600, 2) if quick else (16_000, 3)
    num_updates = 100 if device == "cuda" and not quick else 8
    task = make_task("atari:pong")
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        collect_for_bench(random_teacher(task), task, Path(folder) / "data", num_steps)
        sources = _sources(Dataset.open(Path(folder) / "data"), device)
        ways: tuple[tuple[Precision, bool], ...] = (("float32", False), ("bfloat16", False), ("bfloat16", True))
        for network, (precision, compiled) in itertools.product(("dqn", "net3"), ways):
            with ExitStack() as stack:
                # What compiling gives is asked of the network alone; for every place it would be compiled anew.
                places = {"resident": sources["resident"]} if compiled else sources
                pieces = {}
                for name, source in places.items():
                    records = training(source, network, precision, device=device, compiled=compiled)
                    pieces[name] = piece_of(stack.enter_context(closing(records)), num_updates)  # type: ignore[type-var]
                rates = Rates(pieces, num_rounds=num_rounds)
            name = f"{network}, {precision}{', compiled' if compiled else ''}"
            speeds = {place: f"{rates.median(place) * BATCH_SIZE:,.0f}" for place in places}
            rows.append([name, *(speeds.get(place, "") for place in sources)])
    where = torch.cuda.get_device_name() if device == "cuda" else "no GPU here: the processor"
    show(
        f"Training samples per second, updates of {BATCH_SIZE} ({where})",
        ["student", *sources],
        rows,
        f"medians of {num_rounds} turns each; stored: decoded ahead by background threads",
    )


if __name__ == "__main__":
    run_alone(main, __doc__)
