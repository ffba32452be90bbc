"""rsl_rl: its `Distillation`, the student acts and learns the teacher's actions by their squared error.

It knows continuous actions alone. In the table of updates the four values of LunarLander stand for an action.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from rsl_rl.env import VecEnv
from rsl_rl.models import MLPModel
from rsl_rl.runners import DistillationRunner
from sb3_teacher import load, soft_labels
from tensordict import TensorDict
from way import HIDDEN, LEARNING_RATE, NUM_ENVS, Trained, make, serve, stored

_NUM_STEPS, _PIECE, _MOST_STEPS = 32, 5, 100_000


class Envs(VecEnv):
    """Gymnasium environments as rsl_rl wants them; with no task, stored steps that nobody plays."""

    cfg: Any = None

    def __init__(self, task: str | None, num_envs: int, seed: int, num_inputs: int, num_actions: int) -> None:
        self._envs = [] if task is None else [make(task) for _ in range(num_envs)]
        self._observations = np.zeros((num_envs, num_inputs), np.float32)
        for slot, env in enumerate(self._envs):
            self._observations[slot], _ = env.reset(seed=seed * num_envs + slot)
        self.num_envs, self.num_actions, self.device = num_envs, num_actions, "cpu"
        self.max_episode_length, self.episode_length_buf = 10**6, torch.zeros(num_envs, dtype=torch.long)

    def get_observations(self) -> TensorDict:
        return TensorDict({"policy": torch.from_numpy(self._observations.copy())}, batch_size=[self.num_envs])

    def step(self, actions: torch.Tensor) -> tuple[TensorDict, torch.Tensor, torch.Tensor, dict[str, Any]]:
        rewards, dones = torch.zeros(self.num_envs), torch.zeros(self.num_envs)
        for slot, (env, action) in enumerate(zip(self._envs, actions.numpy(), strict=True)):
            limited = np.clip(action, env.action_space.low, env.action_space.high)
            self._observations[slot], reward, terminated, truncated, _ = env.step(limited)
            rewards[slot], dones[slot] = float(reward), float(terminated or truncated)
            if terminated or truncated:
                self._observations[slot], _ = env.reset()
        return self.get_observations(), rewards, dones, {}


class Teacher(MLPModel):
    """A model of Stable-Baselines3 where rsl_rl expects one of its own."""

    model: Any = None

    def forward(self, obs: TensorDict, *_: Any, **__: Any) -> torch.Tensor:
        return torch.from_numpy(soft_labels(type(self).model, obs["policy"].numpy()))


def runner_of(envs: Envs, num_steps: int, **student: Any) -> DistillationRunner:
    configuration = {
        "num_steps_per_env": num_steps,
        "save_interval": 10**9,
        "obs_groups": {"student": ["policy"], "teacher": ["policy"]},
        "algorithm": {
            "class_name": "Distillation",
            "num_learning_epochs": 4 if student else 1,
            "gradient_length": 1,
            "learning_rate": LEARNING_RATE,
            "loss_type": "mse",
        },
        "student": {"class_name": "MLPModel", "hidden_dims": list(HIDDEN), "activation": "relu", **student},
        "teacher": {"class_name": Teacher},
    }
    runner = DistillationRunner(envs, configuration, log_dir=None, device="cpu")
    runner.alg.teacher_loaded = True
    return runner


def updates(batch_size: int) -> Iterator[None]:
    """Its batches are locksteps: as many environments as the batch has rows."""
    arrays = stored()
    num_batches = len(arrays["observations"]) // batch_size
    kept = num_batches * batch_size
    algorithm = runner_of(Envs(None, batch_size, 0, 8, 4), num_batches).alg
    storage = algorithm.storage
    observations = arrays["observations"][:kept].reshape(num_batches, batch_size, 8)
    storage.observations["policy"][:] = torch.from_numpy(observations)
    storage.privileged_actions[:] = torch.from_numpy(arrays["q_values"][:kept].reshape(num_batches, batch_size, 4))
    whole, inner = storage.generator, iter(())

    def generator() -> Iterator[Any]:
        yield next(inner)

    storage.generator = generator
    while True:
        inner = whole()
        for _ in range(num_batches):
            algorithm.update()
            yield


def student(task: str, seed: int) -> Trained:
    torch.manual_seed(seed)
    Teacher.model = load(task)
    space: Box = make(task).action_space
    envs = Envs(task, NUM_ENVS, seed, Teacher.model.observation_space.shape[0], space.shape[0])
    noise = {"class_name": "GaussianDistribution", "init_std": 0.1}
    runner = runner_of(envs, _NUM_STEPS, distribution_cfg=noise)
    num_steps = 0
    while num_steps < _MOST_STEPS:
        runner.learn(_PIECE)
        num_steps += _PIECE * _NUM_STEPS * NUM_ENVS
        policy = runner.get_inference_policy("cpu")

        @torch.no_grad()
        def decide(observations: np.ndarray, policy=policy) -> np.ndarray:
            outputs = policy(TensorDict({"policy": torch.from_numpy(observations)}, batch_size=[len(observations)]))
            return outputs.numpy().clip(space.low, space.high)

        yield num_steps, decide


def decide_once():
    policy = runner_of(Envs(None, 1, 0, 8, 4), 1).get_inference_policy("cpu")
    observation, _ = make("LunarLander-v3").reset(seed=0)

    @torch.no_grad()
    def decide():
        return policy(TensorDict({"policy": torch.from_numpy(observation[None])}, batch_size=[1])).numpy()

    return decide


if __name__ == "__main__":
    serve(updates=updates, decide_once=decide_once, student=student, students=("Pendulum-v1",))
