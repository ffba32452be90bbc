"""What every way of doing the work shares: orders, the tasks, the score of a student.

A way runs in the virtual environment of its library: `python with_NAME.py WORK TEACHERS`. It reads one order a line
from its standard input, `{"work": "updates", "batch_size": 32}`, and answers it with one JSON line, so that the ways
can take turns without starting anew. This file imports numpy and Gymnasium alone, which every library brings.
"""

import cProfile
import functools
import itertools
import json
import os
import pstats
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import gymnasium
import numpy as np

WORK, TEACHERS = Path(sys.argv[1]), Path(sys.argv[2])
# By task: a published teacher.
FILES = {
    "CartPole-v1": "ppo/CartPole-v1/CartPole-v1.zip",
    "LunarLander-v3": "ppo/LunarLander-v2/LunarLander-v2.zip",
    "Pendulum-v1": "sac/Pendulum-v1/Pendulum-v1.zip",
}
HIDDEN, LEARNING_RATE, BATCH_SIZE, NUM_ENVS = (64, 64), 1e-3, 256, 16
# Steps of the teacher that are stored, and updates on them, until the student is good enough.
BUDGETS = [(1_000, 500), (2_500, 1_000), (5_000, 2_000), (10_000, 4_000), (20_000, 8_000), (40_000, 16_000)]
_NUM_EPISODES, _FIRST_SEED = 30, 1_000
_NUM_FUNCTIONS = 8
_PACKAGES = ["torch", "numpy", "gymnasium", "stable-baselines3", "imitation", "torchrl", "tianshou", "rsl-rl-lib"]

Decide = Callable[[np.ndarray], np.ndarray]
"""Observations `[B, ...]` to actions of the environment `[B, ...]`."""
Trained = Iterator[tuple[int, Decide]]
"""A student as it gets better: steps of the environment so far, and what it decides."""


def make(task: str) -> gymnasium.Env:
    # Gymnasium 0.29, which imitation needs, knows the lander of before.
    return gymnasium.make(task if task in gymnasium.registry else task.replace("v3", "v2"))


def score(decide: Decide, task: str) -> float:
    """Return the mean return of the same episodes for everyone."""
    envs = [make(task) for _ in range(_NUM_EPISODES)]
    observations = np.stack([env.reset(seed=_FIRST_SEED + number)[0] for number, env in enumerate(envs)])
    total, playing = 0.0, list(range(_NUM_EPISODES))
    while playing:
        ended = set()
        for slot, action in zip(playing, decide(observations[playing].astype(np.float32)), strict=True):
            observations[slot], reward, terminated, truncated, _ = envs[slot].step(action)
            total += float(reward)
            ended |= {slot} if terminated or truncated else set()
        playing = [slot for slot in playing if slot not in ended]
    return total / _NUM_EPISODES


def random_score(task: str) -> float:
    space = make(task).action_space
    space.seed(0)
    return score(lambda observations: np.array([space.sample() for _ in observations]), task)


def until_good(trained: Trained, task: str, needed: float, profile: cProfile.Profile | None) -> dict[str, Any]:
    """Train until the score is as needed; playing for the score is not counted, it is the same for everyone."""
    seconds, reached, num_steps = 0.0, -np.inf, 0
    while reached < needed:
        started = time.process_time()
        following = profile.runcall(next, trained, None) if profile else next(trained, None)
        seconds += time.process_time() - started
        if following is None:
            break
        num_steps, decide = following
        reached = score(decide, task)
    return {"is_good": bool(reached >= needed), "seconds": seconds, "num_steps": num_steps, "score": float(reached)}


def serve(
    *,
    updates: Callable[[int], Iterator[object]] | None = None,
    label: Callable[[str, int], int] | None = None,
    evaluate: Callable[[str, int], int] | None = None,
    decide_once: Callable[[], Callable[[], object]] | None = None,
    student: Callable[[str, int], Trained] | None = None,
    students: tuple[str, ...] = tuple(FILES),
    teacher_score: Callable[[str], float] | None = None,
) -> None:
    """Answer orders until there are no more.

    Args:
        updates: batch size to an endless loop of updates.
        label: task and number of steps to the steps that a teacher played and labelled.
        evaluate: task and number of episodes to the episodes that were played for a teacher's score.
        decide_once: a function that makes one decision of LunarLander.
        student: task and seed to a student as it gets better.
        students: tasks that `student` can do.
        teacher_score: task to the teacher's own score.
    """
    loops = functools.cache(updates) if updates else None
    decision = functools.cache(decide_once) if decide_once else None
    given = {"updates": updates, "label": label, "evaluate": evaluate, "decisions": decide_once, "student": student}

    def answer(order: dict[str, Any], profile: cProfile.Profile | None = None) -> dict[str, Any]:
        started = time.process_time()
        match order["work"]:
            case "begin":
                works = [name for name, work in given.items() if work]
                return {"works": works, "students": students if student else (), "versions": versions()}
            case "updates":
                num_done = sum(1 for _ in itertools.islice(loops(order["batch_size"]), order["num"]))
            case "label":
                num_done = label(order["task"], order["num"])
            case "evaluate":
                num_done = evaluate(order["task"], order["num"])
            case "decisions":
                num_done = sum(1 for _ in range(order["num"]) if decision()() is not None)
            case "student":
                return until_good(student(order["task"], order["seed"]), order["task"], order["needed"], profile)
            case "teacher":
                return {"score": teacher_score(order["task"]), "random": random_score(order["task"])}
            case "profile":
                profile = cProfile.Profile()
                is_student = order["of"]["work"] == "student"  # whose playing for the score is left out
                answer(order["of"], profile) if is_student else profile.runcall(answer, order["of"])
                return {"shares": shares_of(profile)}
        return {"units": num_done, "seconds": time.process_time() - started}

    # What libraries print must not get between the answers, also where they hold the standard output already.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in itertools.chain(['{"work": "begin"}'], sys.stdin):
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


def shares_of(profile: cProfile.Profile) -> list[tuple[str, float]]:
    """Return the functions with the most time of their own, and the share of each."""
    own = {key: entry[2] for key, entry in pstats.Stats(profile).stats.items()}
    largest = sorted(own, key=own.__getitem__, reverse=True)[:_NUM_FUNCTIONS]
    return [(_name_of(*key), own[key] / sum(own.values())) for key in largest]


def _name_of(file: str, _line: int, function: str) -> str:
    folder = next((part for part in ("rldistill", "torch", "gymnasium", "numpy") if f"/{part}/" in file), "")
    return f"{file.split(f'/{folder}/')[-1]}: {function}" if folder else function.strip("<>").replace("built-in ", "")


def versions() -> dict[str, str]:
    """Return the releases of what matters here, as far as they are installed."""
    installed = {
        distribution.name.lower().replace("_", "-"): distribution.version for distribution in metadata.distributions()
    }
    return {name: installed[name] for name in _PACKAGES if name in installed}


def stored() -> dict[str, np.ndarray]:
    """Return the steps of LunarLander that all train on: `observations` [N, 8], `q_values` [N, 4], `actions` [N]."""
    with np.load(WORK / "lander.npz") as arrays:
        return dict(arrays)
