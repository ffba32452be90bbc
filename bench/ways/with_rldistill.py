"""rldistill, by its public verbs; updates by its own loop, which `distill` drives."""

import functools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from way import BATCH_SIZE, BUDGETS, FILES, LEARNING_RATE, TEACHERS, WORK, Trained, make, serve

import rldistill as rd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from vectors import library

from rldistill.data import Dataset

torch.set_num_threads(1)


def updates(batch_size: int) -> Iterator[object]:
    return library(Dataset.open(WORK / "lander"), batch_size)


def label(task: str, num_steps: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        return rd.collect(
            TEACHERS / FILES[task], task, num_steps=num_steps, out=f"{folder}/data", num_threads=1
        ).num_steps


def evaluate(task: str, num_episodes: int) -> int:
    """Random play is a part of it: played for the first evaluation of a task, and kept for those that follow."""
    rd.evaluate(loaded(task), task, num_episodes=num_episodes, num_threads=1)
    return num_episodes


@functools.cache
def loaded(task: str):
    return rd.load_policy(TEACHERS / FILES[task])


def decide_once():
    policy, (observation, _) = rd.load_policy(TEACHERS / FILES["LunarLander-v3"]), make("LunarLander-v3").reset(seed=0)
    return lambda: policy.act(observation[None])


def student(task: str, seed: int) -> Trained:
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/data"
        for number, (num_steps, num_updates) in enumerate(BUDGETS):
            rd.collect(
                TEACHERS / FILES[task], task, num_steps=num_steps, out=data, resume=number > 0, seed=seed, num_threads=1
            )
            policy = rd.distill(
                data,
                student="mlp:64x64",
                num_updates=num_updates,
                batch_size=BATCH_SIZE,
                learning_rate=LEARNING_RATE,
                evaluate_episodes=0,
                out=f"{folder}/{number}",
                seed=seed,
                num_threads=1,
            )
            yield num_steps, lambda observations, policy=policy: policy.act(observations)[0]


if __name__ == "__main__":
    serve(updates=updates, label=label, evaluate=evaluate, decide_once=decide_once, student=student)
