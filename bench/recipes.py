"""Is a default recipe ever below a plain loop? The same student, distilled by each from published teachers.

The plain loop is what most people write for continuous actions: it records as many steps of the teacher's own play as
the recipe played, and fits a network that ends in tanh to the teacher's actions, by squared error and Adam at 1e-3,
with as many updates of as many rows. Both students play the same episodes. Published teachers are needed, in
`../shared/teachers/sb3`.
"""

import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kit import TEACHERS, run_alone, show
from torch import nn

import rldistill as rd
from rldistill.data import Dataset

_TASKS = {
    "BipedalWalker-v3": "ppo/BipedalWalker-v3/BipedalWalker-v3.zip",
    "Hopper-v4": "tqc/Hopper-v3/Hopper-v3.zip",
    "Walker2d-v4": "tqc/Walker2d-v3/Walker2d-v3.zip",
    "HalfCheetah-v4": "tqc/HalfCheetah-v3/HalfCheetah-v3.zip",
}
_NETWORK, _SIZES = "mlp:64x64", (64, 64)
_BATCH_SIZE, _LEARNING_RATE = 256, 1e-3


class Plain(nn.Module):
    """Two hidden layers, and actions between the bounds of a box."""

    def __init__(self, num_inputs: int, low: np.ndarray, high: np.ndarray) -> None:
        super().__init__()
        sizes = (num_inputs, *_SIZES)
        pairs = itertools.pairwise(sizes)
        self.layers = nn.Sequential(*[part for pair in pairs for part in (nn.Linear(*pair), nn.ReLU())])
        self.output = nn.Linear(_SIZES[-1], len(low))
        self.low, self.high = nn.Buffer(torch.from_numpy(low)), nn.Buffer(torch.from_numpy(high))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Return actions `[B, D]`."""
        return self.low + 0.5 * (torch.tanh(self.output(self.layers(observations))) + 1) * (self.high - self.low)


def plain_student(teacher: Any, task: str, folder: Path, *, num_steps: int, num_updates: int, seed: int) -> Any:  # noqa: ANN401
    """Return what the plain loop makes, as a policy."""
    rd.collect(teacher, task, num_steps=num_steps, behaviour="greedy", seed=seed, out=folder, num_threads=1)
    dataset = Dataset.open(folder)
    steps = np.arange(dataset.num_steps)
    # What the teacher does is what it did: it acted greedily.
    observations, actions = (torch.from_numpy(part) for part in (dataset.observations(steps), dataset.field("action")))
    layout = dataset.provenance.task.fingerprint.action_layout
    torch.manual_seed(seed)
    network = Plain(observations.shape[1], np.float32(layout.low), np.float32(layout.high))
    optimizer = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    for _ in range(num_updates):
        rows = torch.randint(len(observations), (_BATCH_SIZE,))
        loss = nn.functional.mse_loss(network(observations[rows]), actions[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return rd.load_policy(network.eval(), task=task, outputs="actions")


def main(*, quick: bool) -> None:
    num_episodes, seeds = (10, (0,)) if quick else (50, (0, 1))
    rows: list[list[str]] = []
    if not TEACHERS.is_dir():
        print(f"recipes: no published teachers in {TEACHERS}\n")
        return
    for task, file in _TASKS.items():
        teacher = rd.load_policy(TEACHERS / file)
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                began = time.process_time()
                settings: dict[str, Any] = {"num_updates": 1_000} if quick else {}
                ours = rd.distill(
                    rd.Live(teacher, task),
                    student=_NETWORK,
                    out=Path(folder) / "ours",
                    seed=seed,
                    num_threads=1,
                    evaluate_episodes=0,
                    **settings,
                )
                seconds = time.process_time() - began
                made = ours.spec.provenance
                counts = {"num_steps": made["dataset"]["num_steps"], "num_updates": made["num_updates"]}
                began = time.process_time()
                plain = plain_student(teacher, task, Path(folder) / "plain", seed=seed, **counts)
                plain_seconds = time.process_time() - began
                played = rd.evaluate(
                    [ours, plain], task, teacher=teacher, num_episodes=num_episodes, seed=1_000, num_threads=1
                )
            kept = [
                "-" if row.retention_interval is None or row.retention is None
                else f"{row.retention:.3f} [{row.retention_interval.low:.3f}, {row.retention_interval.high:.3f}]"
                for row in played.students
            ]  # fmt: skip
            rows.append([task, str(seed), f"{counts['num_steps']:,}", *kept, f"{seconds:.0f}", f"{plain_seconds:.0f}"])
            print(*rows[-1], flush=True)
    show(
        f"Retention of {_NETWORK} by the default recipe and by a plain loop of tanh and squared error",
        ["task", "seed", "steps", "the recipe", "plain loop", "CPU s", "plain"],
        rows,
        f"{num_episodes} episodes, the same for all, [95 %]; CPU seconds of one thread, play included",
    )


if __name__ == "__main__":
    run_alone(main, __doc__)
