"""PQN and DQN learn what is solvable by design, over several seeds, to the optimum; random play does not come near."""

import numpy as np
import pytest
import torch

from rldistill.envs import make_task
from rldistill.networks import parse_architecture
from rldistill.policies import RandomPolicy, TorchPolicy
from rldistill.rollout.evaluate import play_episodes
from rldistill.seeding import stream_generator
from rldistill.training.dqn import DQNLearner, DQNSettings, DQNTraining
from rldistill.training.pqn import PQNLearner, PQNSettings
from rldistill.training.stream import TrainingStream
from tests.kit.tiny_envs import ContextualBandit, TinyChain

NUM_SEEDS = 5
NUM_EPISODES = 20


def train(task, seed, num_steps):
    """Train as `train-teacher` does, without a folder; return the greedy policy."""
    settings = PQNSettings(
        num_envs=8, rollout_length=8, num_minibatches=4, learning_rate=1e-2, gamma=0.9, exploration_fraction=0.5
    )
    generator = torch.Generator().manual_seed(seed)
    policy = TorchPolicy.create(
        parse_architecture("mlp:32", layer_norm=True), [task.task], zero_output=False, generator=generator
    )
    learner = PQNLearner(policy.network, settings, precision="float32", generator=generator)
    num_actions = task.task.fingerprint.action_layout.sizes[0]
    envs = task.make_envs(settings.num_envs, 1)
    stream = TrainingStream(envs, num_actions, first_seed=1000 * seed, gamma=settings.gamma)
    rng = stream_generator(seed, "exploration")
    for step in range(0, num_steps, settings.steps_per_rollout):
        progress = step / num_steps
        epsilon = settings.exploration_epsilon(progress)
        rollout = stream.rollout(learner.q_values, settings.rollout_length, exploration_epsilon=epsilon, rng=rng)
        learner.learn(rollout, progress=progress)
    envs.close()
    return policy


def scores_of(policy, task, seed=0):
    envs = task.make_envs(4, 1)
    played = play_episodes(policy, envs, range(NUM_EPISODES), seed=seed, exploration_epsilon=0.0)
    envs.close()
    return played.scores


@pytest.mark.learning
@pytest.mark.parametrize(
    ("env", "num_steps", "random_at_most"), [(TinyChain, 6_000, 0.45), (ContextualBandit, 6_000, 4.5)]
)
def test_pqn_reaches_the_optimal_return_in_at_least_4_of_5_seeds(env, num_steps, random_at_most):
    task = make_task(env)
    # By chance the chain gives 0.32 on average, the bandit 3.3; one step less far-sighted, the chain gives 0.3.
    assert scores_of(RandomPolicy(task.task), task).mean() < random_at_most
    worst = [scores_of(train(task, seed, num_steps), task).min() for seed in range(NUM_SEEDS)]
    assert np.sum(np.array(worst) == env.OPTIMAL_RETURN) >= 4, worst


def train_dqn(task, seed, num_steps, **changes):
    settings = DQNSettings(
        **{
            "replay_capacity": 4_000,
            "learning_starts": 500,
            "exploration_steps": 3_000,
            "target_network_update_period": 100,
            "optimizer": "adam",
            "learning_rate": 3e-3,
            "gamma": 0.9,
        }
        | changes
    )
    generator = torch.Generator().manual_seed(seed)
    policy = TorchPolicy.create(parse_architecture("mlp:32"), [task.task], zero_output=False, generator=generator)
    stream = TrainingStream(
        task.make_envs(settings.num_envs, 1),
        task.task.fingerprint.action_layout.sizes[0],
        first_seed=1000 * seed,
        gamma=settings.gamma,
    )
    training = DQNTraining(
        DQNLearner(policy.network, settings, precision="float32"),
        [stream],
        [task.task],
        num_steps=num_steps,
        seed=seed,
        rng=stream_generator(seed, "exploration"),
    )
    step = 0
    while step < num_steps:
        step += training.iterate([step]).num_steps
    training.close()
    return policy


@pytest.mark.learning
def test_dqn_finds_the_reward_at_the_end_of_the_chain_in_one_of_three_seeds():
    task = make_task(TinyChain)
    # Processors round otherwise, which is as another seed: that one fails says nothing.
    found = (scores_of(train_dqn(task, seed, 4_000), task).min() == TinyChain.OPTIMAL_RETURN for seed in range(3))
    assert any(found)


@pytest.mark.slow
@pytest.mark.learning
@pytest.mark.parametrize(("env", "random_at_most"), [(TinyChain, 0.45), (ContextualBandit, 4.5)])
def test_dqn_reaches_the_optimal_return_in_at_least_4_of_5_seeds(env, random_at_most):
    task = make_task(env)
    assert scores_of(RandomPolicy(task.task), task).mean() < random_at_most
    worst = [scores_of(train_dqn(task, seed, 6_000), task).min() for seed in range(NUM_SEEDS)]
    assert np.sum(np.array(worst) == env.OPTIMAL_RETURN) >= 4, worst


@pytest.mark.slow
@pytest.mark.learning
@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "rmsprop", "learning_rate": 1e-3},
        {"double_q": True},
        {"num_return_steps": 3},
        {"double_q": True, "num_return_steps": 3, "num_envs": 7},
    ],
)
def test_every_variant_of_dqn_reaches_the_optimal_return_in_at_least_4_of_5_seeds(changes):
    task = make_task(TinyChain)
    worst = [scores_of(train_dqn(task, seed, 8_000, **changes), task).min() for seed in range(NUM_SEEDS)]
    assert np.sum(np.array(worst) == TinyChain.OPTIMAL_RETURN) >= 4, worst
