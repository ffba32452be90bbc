"""How fast are vectors collected? Labelled steps per second of control tasks, beside their parts and the usual loop.

The environments alone repeat what the teacher did in them; the network alone answers batches of 256. Doing the one,
then the other, allows 1 ÷ (1/environments + 1/network) steps a second. The usual loop steps 16 environments in turn, as
Stable-Baselines3's `DummyVecEnv` does, asks the network and keeps all in lists; it writes nothing. One thread, and the
process's own time.

Published teachers play where `../shared/teachers/sb3` has them. Else it is a network of their size with random
weights, whose episodes are short: beginning them takes most of the time.
"""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium
import numpy as np
import torch
from collection import Interruptions
from kit import TEACHERS, Rates, random_teacher, run_alone, show

from rldistill import load_policy
from rldistill.envs import PlayableTask, make_task
from rldistill.policies import TorchPolicy
from rldistill.verbs.collect import collect

# Ours as it is by default, and as many as are usual elsewhere.
_OUR_ENVS, _NUM_ENVS = 128, 16
_BEST_BATCH = 256
# By task: a published teacher, and a network of its size.
_TASKS = {
    "CartPole-v1": ("ppo/CartPole-v1/CartPole-v1.zip", "mlp:64x64"),
    "LunarLander-v3": ("ppo/LunarLander-v2/LunarLander-v2.zip", "mlp:64x64"),
    "HalfCheetah-v5": ("tqc/HalfCheetah-v3/HalfCheetah-v3.zip", "mlp:256x256"),
}
_Step = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def usual_loop(policy: TorchPolicy, task: str) -> Iterator[_Step]:
    """Yield observations, the network's outputs, actions, rewards and ends of a lockstep, for ever."""
    envs = [gymnasium.make(task) for _ in range(_NUM_ENVS)]
    observations = np.stack([env.reset(seed=seed)[0] for seed, env in enumerate(envs)]).astype(np.float32)
    network, is_box = policy.network, isinstance(envs[0].action_space, gymnasium.spaces.Box)
    while True:
        with torch.no_grad():
            outputs = network(torch.from_numpy(observations)).outputs.numpy()
        actions = np.tanh(outputs[:, : outputs.shape[1] // 2]) if is_box else outputs.argmax(axis=1)
        following = np.empty_like(observations)
        rewards, ended = np.zeros(_NUM_ENVS), np.zeros(_NUM_ENVS, np.bool_)
        for slot, env in enumerate(envs):
            following[slot], rewards[slot], is_terminated, is_truncated, _ = env.step(actions[slot])
            ended[slot] = is_terminated or is_truncated
            if ended[slot]:
                following[slot], _ = env.reset()
        yield observations, outputs, actions, rewards, ended
        observations = following


def labelled_steps(policy: TorchPolicy, task: str) -> Callable[[int], int]:
    """Return a function that plays so many locksteps by the usual loop, and keeps what it gives."""
    loop = usual_loop(policy, task)

    def work(num_locksteps: int) -> int:
        kept = [tuple(part.copy() for part in step) for step in itertools.islice(loop, num_locksteps)]
        return len(kept) * _NUM_ENVS

    return work


def environments_alone(policy: TorchPolicy, task: str, num_locksteps: int) -> Callable[[int], int]:
    """Return a function that repeats locksteps of the usual loop, and does nothing else."""
    done = [step[2].copy() for step in itertools.islice(usual_loop(policy, task), num_locksteps)]
    envs = [gymnasium.make(task) for _ in range(_NUM_ENVS)]
    for seed, env in enumerate(envs):
        env.reset(seed=seed)
    actions = itertools.cycle(done)

    def work(num_locksteps: int) -> int:
        for of_all in itertools.islice(actions, num_locksteps):
            for env, action in zip(envs, of_all, strict=True):
                _, _, is_terminated, is_truncated, _ = env.step(action)
                if is_terminated or is_truncated:
                    env.reset()
        return num_locksteps * _NUM_ENVS

    return work


def network_alone(policy: TorchPolicy) -> Callable[[int], int]:
    """Return a function that answers as many observations as so many locksteps have, in large batches."""
    rows = torch.zeros(_BEST_BATCH, *policy.spec.observation_shape)

    def work(num_locksteps: int) -> int:
        num_batches = max(num_locksteps * _NUM_ENVS // _BEST_BATCH, 1)
        with torch.inference_mode():
            for _ in range(num_batches):
                policy.network(rows)
        return num_batches * _BEST_BATCH

    return work


def load_teacher(task: PlayableTask, file: str, network: str) -> TorchPolicy:
    """Return a published teacher, or a network of its size with random weights."""
    if (TEACHERS / file).is_file():
        loaded = load_policy(TEACHERS / file)
        assert isinstance(loaded, TorchPolicy)
        return loaded
    kind = "gaussian" if task.task.fingerprint.action_layout.is_continuous else "q_values"
    return random_teacher(task, network, layer_norm=False, output_kind=kind)


def _measure(name: str, policy: TorchPolicy, task: PlayableTask, *, num_locksteps: int, num_rounds: int) -> Rates:
    rates = Rates({}, num_rounds=0)
    others = {
        "environments": environments_alone(policy, name, num_locksteps * (num_rounds + 1)),
        "network": network_alone(policy),
        "usual loop": labelled_steps(policy, name),
    }
    turns = Interruptions(rates, others, num_locksteps, time.process_time)
    with tempfile.TemporaryDirectory() as folder:
        collect(
            policy,
            task,
            num_steps=(num_rounds + 1) * num_locksteps * _OUR_ENVS,
            out=Path(folder) / "data",
            num_envs=_OUR_ENVS,
            num_threads=1,
            behaviour="greedy",
            callbacks=[turns],
        )
    return rates


def main(*, quick: bool) -> None:
    num_locksteps, num_rounds = (100, 5) if quick else (300, 11)
    rows: list[list[str]] = []
    for name, (file, network) in _TASKS.items():
        task = make_task(name)
        policy = load_teacher(task, file, network)
        rates = _measure(name, policy, task, num_locksteps=num_locksteps, num_rounds=num_rounds)
        rows.append(
            [
                f"{name}, {policy.name}",
                *(f"{rates.median(part):,.0f}" for part in ("collection", "environments", "network", "usual loop")),
                f"{rates.share('collection', ['environments', 'network']):.0%}",
                f"{rates.ratio('collection', 'usual loop'):.2f}",
            ]
        )
    show(
        f"Collection of vectors, {_OUR_ENVS} environments; the usual loop has {_NUM_ENVS}",
        ["", "steps/s", "environments", "network", "usual loop", "of the limit", "of the loop"],
        rows,
        f"medians of {num_rounds} turns of {num_locksteps} locksteps, process time; of the last two, within a turn.",
    )


if __name__ == "__main__":
    run_alone(main, __doc__)
