"""What does the usual script do? Gymnasium's wrappers, a list of stacked observations, a DataLoader.

The same game, preprocessing, network, number of environments and one thread; the two collections
take turns. It is written as such scripts are: one process, observations appended as they come.
"""

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import ale_py
import gymnasium
import numpy as np
import torch
from collection import Interruptions
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation
from kit import Rates, random_teacher, run_alone, show, timed
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from rldistill.data import Dataset, UniformSampler
from rldistill.distillation.batch import read_window
from rldistill.envs import make_task
from rldistill.policies import TorchPolicy
from rldistill.verbs.collect import collect

_NUM_ENVS = 16
_BATCH_SIZE = 128
_Sample = tuple[NDArray[np.uint8], NDArray[np.float32]]


def _make_env() -> gymnasium.Env[NDArray[np.uint8], np.int64]:
    env = gymnasium.make("ALE/Pong-v5", frameskip=1, repeat_action_probability=0.0, full_action_space=False)
    return FrameStackObservation(AtariPreprocessing(env, noop_max=30, frame_skip=4), 4, padding_type="zero")


class _UsualCollection:
    """The loop of the script: act, step, append."""

    def __init__(self, policy: TorchPolicy) -> None:
        gymnasium.register_envs(ale_py)
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._network = policy.network.eval()
        self._envs = gymnasium.vector.SyncVectorEnv([_make_env] * _NUM_ENVS)
        self._observations, _ = self._envs.reset(seed=0)
        self._rng = np.random.default_rng(0)
        self.samples: list[_Sample] = []

    def work(self, num_locksteps: int) -> int:
        for _ in range(num_locksteps):
            with torch.inference_mode():
                values = self._network(torch.from_numpy(self._observations)).outputs.numpy()
            actions = values.argmax(axis=1)
            explores = self._rng.random(_NUM_ENVS) < 0.05
            actions[explores] = self._rng.integers(0, values.shape[1], int(explores.sum()))
            self.samples += [(row.copy(), value.copy()) for row, value in zip(self._observations, values, strict=True)]
            self._observations, *_ = self._envs.step(actions)
        return num_locksteps * _NUM_ENVS

    @property
    def bytes_per_step(self) -> float:
        return sum(row.nbytes + value.nbytes for row, value in self.samples) / len(self.samples)


def _loading(samples: list[_Sample], num_batches: int) -> Callable[[], tuple[int, float]]:
    loader: DataLoader[_Sample] = DataLoader(samples, batch_size=_BATCH_SIZE, shuffle=True)  # type: ignore[arg-type]
    endless = itertools.chain.from_iterable(itertools.repeat(loader))
    return timed(lambda: sum(len(observations) for observations, _ in itertools.islice(endless, num_batches)))


def _sampling(dataset: Dataset, num_batches: int) -> Callable[[], tuple[int, float]]:
    sampler = UniformSampler(dataset.store, np.arange(dataset.num_steps), seed=0)
    numbers = itertools.count()

    def piece() -> int:
        steps = (sampler.windows(next(numbers), _BATCH_SIZE) for _ in range(num_batches))
        return sum(read_window(dataset, each, head=0).num_steps for each in steps)

    return timed(piece)


def main(*, quick: bool) -> None:
    num_locksteps, num_rounds, num_batches = (25, 3, 10) if quick else (60, 8, 30)
    task = make_task("atari:pong")
    policy = random_teacher(task)
    usual = _UsualCollection(policy)
    rates = Rates({}, num_rounds=0)
    turns = Interruptions(rates, {"usual": usual.work}, num_locksteps)
    num_steps = (num_rounds + 1) * num_locksteps * _NUM_ENVS
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "data"
        summary = collect(
            policy, task, num_steps=num_steps, out=out, num_envs=_NUM_ENVS, num_threads=1, callbacks=[turns]
        )
        pieces = {"ours": _sampling(Dataset.open(out), num_batches), "usual": _loading(usual.samples, num_batches)}
        reading = Rates(pieces, num_rounds=num_rounds)
    ours_bytes, usual_bytes = summary.num_bytes / num_steps, usual.bytes_per_step
    show(
        f"The usual way beside ours (Pong, dqn with LayerNorm, {_NUM_ENVS} environments, one thread)",
        ["", "rldistill", "usual way", "ratio"],
        [
            [
                "collection, steps/s",
                f"{rates.median('collection'):,.0f}",
                f"{rates.median('usual'):,.0f}",
                f"{rates.ratio('collection', 'usual'):.1f} ×",
            ],
            [
                "random batches, samples/s",
                f"{reading.median('ours'):,.0f}",
                f"{reading.median('usual'):,.0f}",
                f"{reading.ratio('ours', 'usual'):.1f} ×",
            ],
            [
                "bytes per step in memory",
                f"{ours_bytes:,.0f}",
                f"{usual_bytes:,.0f}",
                f"{usual_bytes / ours_bytes:.0f} × less",
            ],
            [
                "540,000 steps in memory",
                f"{ours_bytes * 0.54:,.0f} MB",
                f"{usual_bytes * 0.54:,.0f} MB",
                "",
            ],
        ],
        f"medians of {num_rounds} turns; ours is on disk as well, and stays compressed in memory",
    )


if __name__ == "__main__":
    run_alone(main, __doc__)
