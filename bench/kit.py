"""What the measurements share: the machine, paired rounds, tables, a teacher with random weights.

A shared machine changes its speed from second to second. Things to be compared are therefore
measured in turns, a short piece of each, and a ratio is the median of the ratios within a turn.
Absolute figures are medians too, and belong to the machine and the minute they were taken on.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from rldistill.data import Dataset
from rldistill.distillation import Batches, StoredSource
from rldistill.envs import PlayableTask, make_task
from rldistill.networks import parse_architecture
from rldistill.policies import Policy, TorchPolicy
from rldistill.schedules import TaskSchedule
from rldistill.types import OutputKind
from rldistill.verbs.collect import CollectionSummary, collect

# Published teachers, where they are present.
TEACHERS = Path(__file__).resolve().parents[2] / "shared" / "teachers" / "sb3"
_CONSOLE = Console(width=118, highlight=False)


class Rates:
    """Rates of several things, measured in turns.

    Args:
        pieces: by name, a function that does a piece of work and returns (units done, seconds).
        num_rounds: turns that count; one more goes before them.
    """

    def __init__(self, pieces: Mapping[str, Callable[[], tuple[int, float]]], *, num_rounds: int) -> None:
        self._rates: dict[str, list[float]] = {name: [] for name in pieces}
        for number in range(num_rounds + 1):
            for name, piece in pieces.items():
                units, seconds = piece()
                if number:
                    self.add(name, units, seconds)

    def add(self, name: str, units: int, seconds: float) -> None:
        """Add one measurement."""
        self._rates.setdefault(name, []).append(units / seconds)

    def median(self, name: str) -> float:
        """Return units per second."""
        return statistics.median(self._rates[name])

    def ratio(self, name: str, to: str) -> float:
        """Return the median of the ratios within a turn."""
        pairs = zip(self._rates[name], self._rates[to], strict=True)
        return statistics.median(mine / other for mine, other in pairs)

    def share(self, name: str, of: Sequence[str]) -> float:
        """Return the median share of `name` in what doing the others one after the other would allow."""
        columns = zip(self._rates[name], *(self._rates[other] for other in of), strict=True)
        return statistics.median(mine * sum(1 / other for other in others) for mine, *others in columns)

    def of_slower(self, name: str, of: Sequence[str]) -> float:
        """Return the median share of `name` in what the slower of the others does."""
        columns = zip(self._rates[name], *(self._rates[other] for other in of), strict=True)
        return statistics.median(mine / min(others) for mine, *others in columns)


def timed(work: Callable[[], int]) -> Callable[[], tuple[int, float]]:
    """Return a piece for `Rates`: the whole call is timed, and returns the units it did."""

    def piece() -> tuple[int, float]:
        started = time.perf_counter()
        units = work()
        return units, time.perf_counter() - started

    return piece


def stored_batches(dataset: Dataset, batch_size: int, *, num_decoders: int = 1) -> Batches:
    """Return the batches of a run on a dataset of one task."""
    source = StoredSource(dataset, seed=0)
    task = make_task(dataset.provenance.task)
    # Any student is taught from the same rows.
    student = random_teacher(task, "dqn" if task.task.is_atari else "mlp:8")
    source.teach(0, student, lambda rows, _targets, _progress: rows.sum(dim=-1))
    return Batches([source], TaskSchedule("in_turn", (1.0,)), batch_size, num_decoders)


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> None:
    """Print a table; the first column is left-aligned, the others are numbers."""
    _CONSOLE.print(title, style="bold")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    _CONSOLE.print(table)
    if note:
        _CONSOLE.print(note, style="dim")
    _CONSOLE.print()


def machine() -> dict[str, str]:
    """Return what the figures were taken on, and how busy it was."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line for line in lines if line.startswith("flags")), "")
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {flag}" in flags]
    packages = ("torch", "ale-py", "blosc2", "numpy", "gymnasium")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": f"{model}, {len(os.sched_getaffinity(0))} available ({', '.join(known)})",
        "memory": f"{memory:.0f} GiB",
        "load before": " ".join(f"{load:.1f}" for load in os.getloadavg()) + "  (1, 5, 15 minutes; 0 is quiet)",
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {metadata.version(name)}" for name in packages),
        "torch threads": str(torch.get_num_threads()),
    }


def describe_machine() -> None:
    """Print what the figures were taken on, and how busy it was."""
    for name, value in machine().items():
        _CONSOLE.print(f"{name:<14}{value}")
    _CONSOLE.print()


def random_teacher(
    task: PlayableTask, network: str = "dqn", *, layer_norm: bool = True, output_kind: OutputKind = "q_values"
) -> TorchPolicy:
    """Return a network as large as a teacher, its weights drawn at random: it costs what a teacher costs."""
    generator = torch.Generator().manual_seed(0)
    architecture = parse_architecture(network, layer_norm=layer_norm)
    return TorchPolicy.create(
        architecture,
        [task.task],
        output_kind=output_kind,
        name="random weights",
        zero_output=False,
        generator=generator,
    )


def collect_for_bench(policy: Policy, task: PlayableTask, out: Path, num_steps: int) -> CollectionSummary:
    """Collect a dataset to measure on."""
    return collect(policy, task, num_steps=num_steps, out=out, num_envs=16)


def run_alone(main: Callable[..., None], question: str | None) -> None:
    """Be the command of one file: `python bench/updates.py [--quick]`."""
    parser = argparse.ArgumentParser(description=question, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter pieces, fewer rounds: rougher figures")
    arguments = parser.parse_args()
    describe_machine()
    main(quick=arguments.quick)
