"""What do sixteen students cost beside one? Updates of both through the library, on the same batches.

One student is trained by `distill`'s own loop, sixteen by that of `distill_several`, from the same stored steps of
LunarLander. One thread, and the process's own time.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from kit import Rates, collect_for_bench, random_teacher, run_alone, show, stored_batches
from vectors import piece_of

from rldistill.data import Dataset
from rldistill.distillation import OPTIMIZERS, Batches, Distiller
from rldistill.distillation.several import SeveralDistiller
from rldistill.envs import make_task
from rldistill.losses import make_loss
from rldistill.networks import PolicyNetwork, parse_architecture
from rldistill.policies import TorchPolicy
from rldistill.rollout.threads import use_threads
from rldistill.schedules import constant

_NUM_STUDENTS = 16
_TEMPERATURE, _LEARNING_RATE = 0.01, 1e-3
_ENOUGH_UPDATES = 10**6


def _student(name: str, seed: int) -> PolicyNetwork:
    generator = torch.Generator().manual_seed(seed)
    task = make_task("LunarLander-v3").task
    policy = TorchPolicy.create(parse_architecture(name), [task], output_kind="logits", generator=generator)
    assert isinstance(policy.network, PolicyNetwork)
    return policy.network


def _updates(name: str, batches: Batches, num_students: int) -> Iterator[object]:
    shared: dict[str, Any] = {
        "learning_rate": constant(_LEARNING_RATE),
        "parameters": {0: {"temperature": constant(_TEMPERATURE)}},
        "num_updates": _ENOUGH_UPDATES,
        "max_gradient_norm": 1.0,
        "precision": "float32",
    }
    losses = {0: make_loss("sharpened_kl", "q_values", temperature=_TEMPERATURE)}
    networks = [_student(name, seed) for seed in range(num_students)]
    if num_students == 1:
        optimizer = OPTIMIZERS["adam"](networks[0].parameters(), _LEARNING_RATE, 0.0)
        distiller = Distiller(networks[0], losses, optimizer, **shared)
    else:
        distiller = SeveralDistiller(
            networks, losses, lambda weights: OPTIMIZERS["adam"](weights, _LEARNING_RATE, 0.0), **shared
        )
    for update, batch in enumerate(batches.of_updates(0, _ENOUGH_UPDATES)):
        yield distiller.update(batch, update)


def main(*, quick: bool) -> None:
    num_steps, num_updates, num_rounds = (5_000, 25, 20) if quick else (50_000, 50, 60)
    task = make_task("LunarLander-v3")
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder, use_threads(1):
        teacher = random_teacher(task, "mlp:64x64", layer_norm=False)
        collect_for_bench(teacher, task, Path(folder) / "data", num_steps)
        dataset = Dataset.open(Path(folder) / "data")
        for name, batch_size in (("mlp:8", 32), ("mlp:64x64", 32), ("mlp:8", 128), ("mlp:64x64", 128)):
            batches = stored_batches(dataset, batch_size)
            loops = {"one": _updates(name, batches, 1), "several": _updates(name, batches, _NUM_STUDENTS)}
            rates = Rates({key: piece_of(loop, num_updates) for key, loop in loops.items()}, num_rounds=num_rounds)
            rows.append(
                [
                    name,
                    str(batch_size),
                    *(f"{rates.median(key):,.0f}" for key in loops),
                    f"{rates.ratio('one', 'several'):.2f} times one",
                ]
            )
    show(
        f"Updates per second of one student and of {_NUM_STUDENTS} at once, one thread",
        ["network", "batch", "one", f"all {_NUM_STUDENTS}", "cost"],
        rows,
        f"medians of {num_rounds} turns of {num_updates} updates; the cost is the median within a turn",
    )


if __name__ == "__main__":
    run_alone(main, __doc__)
