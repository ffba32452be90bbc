"""What does the library cost beside a loop with a DataLoader? Updates per second of students of images.

Both train the same layers with Adam on the same stored steps of Pong, in the same precision: the library by its own
loop from compressed frames, the plain loop from a `DataLoader` over stacked arrays in memory, as most people write it.
One thread, and the process's own time, in which the library's decoding counts.
"""

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from kit import Rates, collect_for_bench, random_teacher, run_alone, show, stored_batches
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from updates import training
from vectors import piece_of

from rldistill.data import Dataset
from rldistill.envs import make_task
from rldistill.networks import parse_architecture
from rldistill.networks.precision import Precision
from rldistill.rollout.threads import use_threads

_TEMPERATURE, _LEARNING_RATE = 0.01, 1e-4
_ENOUGH_EPOCHS = 10**6


def _layers(name: str, num_actions: int) -> nn.Sequential:
    """Return the layers of a preset as a script has them."""
    architecture = parse_architecture(name)
    layers: list[nn.Module] = []
    num_channels, side = 4, 84
    for channels, kernel, stride in zip(
        architecture.channels, architecture.kernel_sizes, architecture.strides, strict=True
    ):
        layers += [nn.Conv2d(num_channels, channels, kernel, stride), nn.ReLU()]
        num_channels, side = channels, (side - kernel) // stride + 1
    sizes = num_channels * side**2, *architecture.hidden
    dense = [[nn.Linear(*pair), nn.ReLU()] for pair in itertools.pairwise(sizes)]
    return nn.Sequential(*layers, nn.Flatten(), *itertools.chain(*dense), nn.Linear(sizes[-1], num_actions))


def plain(arrays: tuple[Tensor, Tensor], name: str, batch_size: int, precision: Precision) -> Iterator[None]:
    """Train by the usual loop, update by update."""
    network = _layers(name, arrays[1].shape[1])
    optimizer = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    loader = DataLoader(TensorDataset(*arrays), batch_size=batch_size, shuffle=True, drop_last=True)
    for observations, q_values in itertools.chain.from_iterable(itertools.repeat(loader, _ENOUGH_EPOCHS)):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            outputs = network(observations.float() / 255)
        target = torch.log_softmax(q_values / _TEMPERATURE, dim=-1)
        student = torch.log_softmax(outputs.float(), dim=-1)
        loss = nn.functional.kl_div(student, target, reduction="batchmean", log_target=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield


def main(*, quick: bool) -> None:
    num_steps, num_rounds, num_rows = (1_600, 3, 1_024) if quick else (16_000, 11, 4_096)
    task = make_task("atari:pong")
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder, use_threads(1):
        collect_for_bench(random_teacher(task), task, Path(folder) / "data", num_steps)
        dataset = Dataset.open(Path(folder) / "data")
        steps = np.arange(dataset.num_steps)
        arrays = torch.from_numpy(dataset.observations(steps)), torch.from_numpy(dataset.targets(steps)["q_values"])
        precisions: tuple[Precision, ...] = ("float32", "bfloat16")
        for network, precision, batch_size in itertools.product(("dqn", "net3"), precisions, (128, 32)):
            batches = stored_batches(dataset, batch_size)
            with closing(training(batches, network, precision)) as ours:  # type: ignore[type-var]
                loops = {"ours": ours, "plain": plain(arrays, network, batch_size, precision)}
                pieces = {name: piece_of(loop, num_rows // batch_size) for name, loop in loops.items()}
                rates = Rates(pieces, num_rounds=num_rounds)
            samples = (f"{rates.median(name) * batch_size:,.0f}" for name in loops)
            rows.append([f"{network}, {precision}", str(batch_size), *samples, f"{rates.ratio('ours', 'plain'):.0%}"])
    show(
        f"Rows trained on per second of process time, one thread (Pong, {num_steps:,} steps)",
        ["student", "batch", "ours", "plain loop", "ratio"],
        rows,
        f"medians of {num_rounds} turns of {num_rows:,} rows; ratios are medians of those within a turn",
    )


if __name__ == "__main__":
    run_alone(main, __doc__)
