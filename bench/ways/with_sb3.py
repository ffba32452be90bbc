"""Stable-Baselines3 for the teacher, and a loop of one's own for the student."""

import functools
import itertools
from collections.abc import Iterator

import numpy as np
import sb3_teacher
import torch
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn
from way import BATCH_SIZE, BUDGETS, HIDDEN, LEARNING_RATE, NUM_ENVS, Decide, Trained, make, score, serve, stored


def network_of(num_inputs: int, num_outputs: int) -> nn.Sequential:
    sizes = (num_inputs, *HIDDEN)
    hidden = itertools.chain(*((nn.Linear(*pair), nn.ReLU()) for pair in itertools.pairwise(sizes)))
    return nn.Sequential(*hidden, nn.Linear(HIDDEN[-1], num_outputs))


def training(
    network: nn.Module, observations: torch.Tensor, labels: torch.Tensor, batch_size: int, *, is_box: bool, seed: int
) -> Iterator[None]:
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    while True:
        rows = rng.integers(0, len(observations), batch_size)
        outputs, target = network(observations[rows]), labels[rows]
        if is_box:
            loss = nn.functional.mse_loss(outputs, target)
        else:
            target, outputs = torch.log_softmax(target, dim=-1), torch.log_softmax(outputs, dim=-1)
            loss = nn.functional.kl_div(outputs, target, reduction="batchmean", log_target=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield


def updates(batch_size: int) -> Iterator[None]:
    arrays = stored()
    observations, labels = torch.from_numpy(arrays["observations"]), torch.from_numpy(arrays["q_values"])
    return training(network_of(8, 4), observations, labels, batch_size, is_box=False, seed=0)


def decider(network: nn.Module, task: str) -> Decide:
    is_box = task == "Pendulum-v1"

    def decide(observations: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            outputs = network(torch.from_numpy(observations)).numpy()
        return outputs.clip(-2, 2) if is_box else outputs.argmax(axis=1)

    return decide


def student(task: str, seed: int) -> Trained:
    labelling = sb3_teacher.Labelling(sb3_teacher.load(task), task, seed)
    for num_steps, num_updates in BUDGETS:
        observations, labels = labelling.until(num_steps)
        torch.manual_seed(seed)
        network = network_of(observations.shape[1], labels.shape[1])
        loop = training(network, observations, labels, BATCH_SIZE, is_box=task == "Pendulum-v1", seed=seed)
        for _ in range(num_updates):
            next(loop)
        yield len(observations), decider(network, task)


def label(task: str, num_steps: int) -> int:
    observations, _ = sb3_teacher.Labelling(sb3_teacher.load(task), task, 0).until(num_steps)
    return len(observations)


@functools.cache
def to_evaluate(task: str):
    return sb3_teacher.load(task), DummyVecEnv([lambda: Monitor(make(task))] * NUM_ENVS)


def evaluate(task: str, num_episodes: int) -> int:
    model, envs = to_evaluate(task)
    return len(evaluate_policy(model, envs, n_eval_episodes=num_episodes, return_episode_rewards=True)[0])


def decide_once():
    model, (observation, _) = sb3_teacher.load("LunarLander-v3"), make("LunarLander-v3").reset(seed=0)
    return lambda: model.predict(observation, deterministic=True)


def teacher_score(task: str) -> float:
    model = sb3_teacher.load(task)
    return score(lambda observations: model.predict(observations, deterministic=True)[0], task)


if __name__ == "__main__":
    serve(
        updates=updates,
        label=label,
        evaluate=evaluate,
        decide_once=decide_once,
        student=student,
        teacher_score=teacher_score,
    )
