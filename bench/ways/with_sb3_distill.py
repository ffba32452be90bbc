"""sb3_distill: `StudentDistill`, the student acts and is corrected; for teachers of PPO and A2C alone."""

import sb3_teacher
import torch
from sb3_distill import StudentDistill
from stable_baselines3.common.vec_env import DummyVecEnv
from way import HIDDEN, LEARNING_RATE, NUM_ENVS, Trained, make, serve

_PIECE, _MOST_STEPS = 5_000, 100_000


def student(task: str, seed: int) -> Trained:
    envs = DummyVecEnv([lambda: make(task)] * NUM_ENVS)
    learner = StudentDistill(
        "MlpPolicy",
        envs,
        n_steps=5,
        learning_rate=LEARNING_RATE,
        policy_kwargs={"net_arch": list(HIDDEN), "activation_fn": torch.nn.ReLU},
        device="cpu",
        seed=seed,
    )
    learner.set_teacher(sb3_teacher.load(task))
    while learner.num_timesteps < _MOST_STEPS:
        learner.learn(_PIECE, reset_num_timesteps=False)
        yield learner.num_timesteps, lambda observations: learner.predict(observations, deterministic=True)[0]


if __name__ == "__main__":
    serve(student=student, students=("CartPole-v1", "LunarLander-v3"))
