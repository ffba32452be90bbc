"""How much of the machine does a collection use? Its steps per second against its parts alone.

The emulator alone steps and begins episodes as a collection does; the network alone answers
one observation of each environment. On one thread, doing the one, then the other, allows
1 ÷ (1/emulator + 1/network) steps a second: what a collection loses to choosing actions,
compressing and writing is the rest. On more threads the two overlap, each on half of them: that
allows what the slower of them does.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from kit import Rates, random_teacher, run_alone, show

from rldistill.envs import PlayableTask, make_task
from rldistill.events import Event, ProgressEvent
from rldistill.policies import TorchPolicy
from rldistill.rollout.threads import use_threads
from rldistill.verbs.collect import collect

# By default, of a short and of a long collection; the latter overlap in two halves.
_NUM_ENVS, _NUM_OVERLAPPED = 16, 64


class Interruptions:
    """A callback that stops a collection's clock now and then, and lets others have their turn.

    Args:
        rates: takes the collection's speed as `collection`, and the others' by name.
        others: by name, functions that do so many locksteps.
        num_locksteps: in a turn.
        clock: seconds; the process's own time measures what does not wait for other threads.
    """

    def __init__(
        self,
        rates: Rates,
        others: dict[str, Callable[[int], int]],
        num_locksteps: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._rates = rates
        self._others = others
        self._num_locksteps = num_locksteps
        self._locksteps = 0
        self._is_first = True
        self._steps_before = 0
        self._clock = clock
        self._started = clock()

    def __call__(self, event: Event) -> None:
        """Count a lockstep."""
        if not isinstance(event, ProgressEvent):
            return
        self._locksteps += 1
        if self._locksteps % self._num_locksteps:
            return
        seconds = self._clock() - self._started
        measured = {"collection": (event.done - self._steps_before, seconds)}
        for name, work in self._others.items():
            started = self._clock()
            units = work(self._num_locksteps)
            measured[name] = (units, self._clock() - started)
        # The first turn holds the start of all episodes and everyone's warming up.
        for name, (units, seconds) in measured.items() if not self._is_first else ():
            self._rates.add(name, units, seconds)
        self._is_first = False
        self._steps_before, self._started = event.done, self._clock()


def emulator_alone(task: PlayableTask, num_threads: int) -> tuple[Callable[[int], int], Callable[[], None]]:
    """Return a function that does locksteps at random, resetting by seed what ended, and one that ends it."""
    envs = task.make_envs(_NUM_ENVS, num_threads)
    rng = np.random.default_rng(0)
    num_actions = len(task.task.fingerprint.action_set)
    envs.reset(range(_NUM_ENVS), range(_NUM_ENVS))

    def work(num_locksteps: int) -> int:
        for _ in range(num_locksteps):
            step = envs.step(rng.integers(0, num_actions, _NUM_ENVS))
            ended = np.flatnonzero(step.ended).tolist()
            if ended:
                envs.reset(ended, ended)
        return num_locksteps * _NUM_ENVS

    return work, envs.close


def network_alone(policy: TorchPolicy, num_threads: int) -> Callable[[int], int]:
    """Return a function that answers so many batches of one observation per environment."""
    observations = np.zeros((_NUM_ENVS, *policy.spec.observation_shape), np.uint8)

    def work(num_locksteps: int) -> int:
        with use_threads(num_threads):
            for _ in range(num_locksteps):
                policy(observations)
        return num_locksteps * _NUM_ENVS

    return work


def _measure(task: PlayableTask, num_threads: int, *, num_locksteps: int, num_rounds: int) -> Rates:
    policy = random_teacher(task)
    rates = Rates({}, num_rounds=0)
    num_envs, own_threads = (_NUM_ENVS, 1) if num_threads == 1 else (_NUM_OVERLAPPED, num_threads // 2)
    emulator, close = emulator_alone(task, own_threads)
    others = {"emulator": emulator, "network": network_alone(policy, own_threads)}
    turns = Interruptions(rates, others, num_locksteps)
    with tempfile.TemporaryDirectory() as folder:
        collect(
            policy,
            task,
            num_steps=(num_rounds + 1) * num_locksteps * num_envs,
            out=Path(folder) / "data",
            num_envs=num_envs,
            num_threads=num_threads,
            callbacks=[turns],
        )
    close()
    return rates


def main(*, quick: bool) -> None:
    num_locksteps, num_rounds = (40, 3) if quick else (100, 8)
    rows: list[list[str]] = []
    for game in ("pong",) if quick else ("pong", "seaquest"):
        for num_threads in sorted({1, torch.get_num_threads()}):
            rates = _measure(
                make_task(f"atari:{game}"), num_threads, num_locksteps=num_locksteps, num_rounds=num_rounds
            )
            overlap = num_threads > 1
            allowed = rates.of_slower if overlap else rates.share
            rows.append(
                [
                    f"{game}, {num_threads} thread{'s' if overlap else ''}",
                    *(f"{rates.median(name):,.0f}" for name in ("collection", "emulator", "network")),
                    f"{allowed('collection', ['emulator', 'network']):.0%}",
                ]
            )
    show(
        f"Collection by a dqn with LayerNorm, {_NUM_ENVS} environments; {_NUM_OVERLAPPED} on more than one thread",
        ["", "steps/s", "emulator alone", "network alone", "of what both allow"],
        rows,
        f"medians of {num_rounds} turns of {num_locksteps} locksteps; of the share, within a turn. On more than one "
        "thread, emulator and network alone have half of the threads each.",
    )


if __name__ == "__main__":
    run_alone(main, __doc__)
