"""imitation: behavioural cloning on stored actions, and DAgger for a student of a teacher."""

import tempfile
from collections.abc import Iterator

import numpy as np
import sb3_teacher
import torch
from gymnasium.spaces import Box, Discrete
from imitation.algorithms import bc
from imitation.algorithms.dagger import SimpleDAggerTrainer
from imitation.data import rollout, types
from imitation.data.wrappers import RolloutInfoWrapper
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv
from way import BATCH_SIZE, HIDDEN, LEARNING_RATE, NUM_ENVS, Trained, make, serve, stored

# DAgger goes on in rounds of its own.
_ROUND_STEPS, _MOST_STEPS, _EPOCHS = 2_000, 40_000, 4


def cloning(observation_space, action_space, batch_size: int, rng: np.random.Generator, demonstrations=None) -> bc.BC:
    policy = ActorCriticPolicy(
        observation_space, action_space, lr_schedule=lambda _: LEARNING_RATE, net_arch=list(HIDDEN),
        activation_fn=torch.nn.ReLU,
    )  # fmt: skip
    return bc.BC(
        observation_space=observation_space,
        action_space=action_space,
        rng=rng,
        policy=policy,
        demonstrations=demonstrations,
        batch_size=batch_size,
        optimizer_kwargs={"lr": LEARNING_RATE},
        ent_weight=0.0,
        device="cpu",
    )


def updates(batch_size: int) -> Iterator[None]:
    arrays = stored()
    observations = arrays["observations"]
    count = len(observations)
    demonstrations = types.Transitions(
        obs=observations,
        acts=arrays["actions"],
        infos=np.array([{}] * count),
        next_obs=observations,
        dones=np.zeros(count, bool),
    )
    space = Box(-np.inf, np.inf, (8,), np.float32)
    trainer = cloning(space, Discrete(4), batch_size, np.random.default_rng(0), demonstrations)
    while True:
        # A call of `train` begins an epoch anew; so many at a time make that small.
        trainer.train(n_batches=100, progress_bar=False, log_interval=10**9)
        yield from range(100)


def student(task: str, seed: int) -> Trained:
    torch.manual_seed(seed)
    rng, teacher = np.random.default_rng(seed), sb3_teacher.load(task)
    envs = DummyVecEnv([lambda: RolloutInfoWrapper(make(task))] * NUM_ENVS)
    envs.seed(seed)
    teacher.policy.observation_space = envs.observation_space
    cloner = cloning(envs.observation_space, envs.action_space, BATCH_SIZE, rng)
    options = {"n_epochs": _EPOCHS, "progress_bar": False, "log_interval": 10**9, "log_rollouts_venv": None}
    with tempfile.TemporaryDirectory() as folder:
        trainer = SimpleDAggerTrainer(
            venv=envs, scratch_dir=folder, expert_policy=teacher.policy, bc_trainer=cloner, rng=rng
        )
        num_steps = 0
        while num_steps < _MOST_STEPS:
            collector = trainer.create_trajectory_collector()
            enough = rollout.make_sample_until(min_timesteps=_ROUND_STEPS, min_episodes=3)
            episodes = rollout.generate_trajectories(teacher.policy, collector, enough, rng, deterministic_policy=True)
            num_steps += sum(len(episode) for episode in episodes)
            trainer.extend_and_update(dict(options))
            yield num_steps, lambda observations: cloner.policy.predict(observations, deterministic=True)[0]


def label(task: str, num_steps: int) -> int:
    """It keeps actions, no distributions."""
    teacher = sb3_teacher.load(task)
    envs = DummyVecEnv([lambda: RolloutInfoWrapper(make(task))] * NUM_ENVS)
    teacher.policy.observation_space = envs.observation_space
    enough, rng = rollout.make_sample_until(min_timesteps=num_steps), np.random.default_rng(0)
    return sum(len(episode) for episode in rollout.generate_trajectories(teacher.policy, envs, enough, rng))


def decide_once():
    env = make("LunarLander-v3")
    policy = cloning(env.observation_space, env.action_space, 32, np.random.default_rng(0)).policy
    observation, _ = env.reset(seed=0)
    return lambda: policy.predict(observation, deterministic=True)


if __name__ == "__main__":
    serve(updates=updates, label=label, decide_once=decide_once, student=student)
