"""tianshou: `OfflineImitationLearning` on its replay buffer; it learns the teacher's actions, not its distribution."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from sb3_teacher import Labelling, load
from tianshou.algorithm.algorithm_base import policy_within_training_step
from tianshou.algorithm.imitation.imitation_base import ImitationPolicy, OfflineImitationLearning
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch, ReplayBuffer
from torch import nn
from way import BATCH_SIZE, BUDGETS, HIDDEN, LEARNING_RATE, Trained, make, serve, stored


class Actor(nn.Module):
    """Layers that answer as tianshou wants it: (outputs, state)."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        first, second = HIDDEN
        self.layers = nn.Sequential(
            nn.Linear(num_inputs, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, num_outputs)
        )

    def forward(self, obs: Any, state: Any = None, info: Any = None) -> tuple[torch.Tensor, Any]:
        return self.layers(torch.as_tensor(obs)), state


def policy_of(task: str) -> ImitationPolicy:
    env = make(task)
    space = env.action_space
    num_outputs = space.shape[0] if isinstance(space, Box) else int(space.n)
    return ImitationPolicy(
        actor=Actor(env.observation_space.shape[0], num_outputs),
        action_space=space,
        observation_space=env.observation_space,
        action_scaling=False,
        action_bound_method=None,
    )


def training(policy: ImitationPolicy, observations: np.ndarray, actions: np.ndarray, batch_size: int) -> Iterator[None]:
    algorithm = OfflineImitationLearning(policy=policy, optim=AdamOptimizerFactory(lr=LEARNING_RATE))
    never, nothing = np.zeros(len(observations), bool), np.zeros(len(observations), np.float32)
    buffer = ReplayBuffer.from_data(
        obs=observations, act=actions, rew=nothing, terminated=never, truncated=never, done=never, obs_next=observations
    )
    with policy_within_training_step(policy):
        while True:
            algorithm.update(buffer=buffer, sample_size=batch_size)
            yield


def updates(batch_size: int) -> Iterator[None]:
    arrays = stored()
    return training(policy_of("LunarLander-v3"), arrays["observations"], arrays["actions"], batch_size)


def student(task: str, seed: int) -> Trained:
    labelling, is_box = Labelling(load(task), task, seed), task == "Pendulum-v1"
    for num_steps, num_updates in BUDGETS:
        observations, labels = (part.numpy() for part in labelling.until(num_steps))
        torch.manual_seed(seed)
        np.random.seed(seed)
        policy = policy_of(task)
        loop = training(policy, observations, labels if is_box else labels.argmax(axis=1), BATCH_SIZE)
        for _ in range(num_updates):
            next(loop)

        @torch.no_grad()
        def decide(observations, layers=policy.actor.layers):
            outputs = layers(torch.from_numpy(observations)).numpy()
            return outputs.clip(-2, 2) if is_box else outputs.argmax(axis=1)

        yield len(observations), decide


def decide_once():
    policy, (observation, _) = policy_of("LunarLander-v3"), make("LunarLander-v3").reset(seed=0)

    @torch.no_grad()
    def decide():
        return policy(Batch(obs=observation[None], info={})).act

    return decide


if __name__ == "__main__":
    serve(updates=updates, decide_once=decide_once, student=student)
