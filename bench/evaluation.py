"""How fast are several policies evaluated? Episodes per second, beside each evaluated alone and the usual loop.

Random play is part of every evaluation: the first of a task plays it, once however many policies there are, and keeps
it for those that follow. The usual loop steps 16 environments in turn and asks the network for all; it plays no random
episodes and keeps only returns. CartPole, whose episodes are all of one length, one thread, the process's own time.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from control import load_teacher, usual_loop
from kit import Rates, run_alone, show

from rldistill.envs import make_task
from rldistill.policies import TorchPolicy
from rldistill.verbs.evaluate import evaluate

_TASK, _FILE, _NETWORK = "CartPole-v1", "ppo/CartPole-v1/CartPole-v1.zip", "mlp:64x64"
_NUM_POLICIES = 3


def _of_evaluation(policies: Sequence[TorchPolicy], num_episodes: int, cache: str) -> int:
    os.environ["RLDISTILL_CACHE"] = cache
    evaluate(policies, _TASK, num_episodes=num_episodes, num_threads=1)
    return len(policies) * num_episodes


def _of_usual_loop(policy: TorchPolicy, num_episodes: int) -> int:
    num_ended = 0
    for *_, ended in usual_loop(policy, _TASK):
        num_ended += int(ended.sum())
        if num_ended >= num_episodes:
            break
    return num_ended


def _timed(work: Callable[[], int]) -> tuple[int, float]:
    started = time.process_time()
    units = work()
    return units, time.process_time() - started


def main(*, quick: bool) -> None:
    torch.set_num_threads(1)
    num_episodes, num_rounds = (32, 3) if quick else (96, 7)
    policy = load_teacher(make_task(_TASK), _FILE, _NETWORK)
    # The same weights cost the same; another description makes another policy of them.
    policies = [policy.with_spec(name=f"policy {number}") for number in range(_NUM_POLICIES)]
    with tempfile.TemporaryDirectory() as cache:
        _of_evaluation(policies[:1], num_episodes, cache)
        pieces = {
            "usual loop, one policy": partial(_of_usual_loop, policy, num_episodes),
            "the first evaluation, one policy": partial(_of_evaluation, policies[:1], num_episodes, ""),
            "a later one, one policy": partial(_of_evaluation, policies[:1], num_episodes, cache),
            f"the first, {_NUM_POLICIES} policies": partial(_of_evaluation, policies, num_episodes, ""),
            f"a later one, {_NUM_POLICIES} policies": partial(_of_evaluation, policies, num_episodes, cache),
        }
        rates = Rates({name: partial(_timed, work) for name, work in pieces.items()}, num_rounds=num_rounds)
    show(
        f"Evaluation on {_TASK}, {num_episodes} episodes of each policy",
        ["", "episodes/s", "of the usual loop"],
        [[name, f"{rates.median(name):.1f}", f"{rates.ratio(name, 'usual loop, one policy'):.2f}"] for name in pieces],
        f"medians of {num_rounds} rounds, process time; of the last column, within a round.",
    )


if __name__ == "__main__":
    run_alone(main, __doc__)
