"""Models that the real Stable-Baselines3 trains for a few steps on random observations."""

import copy

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from rldistill.observations import as_tensors
from rldistill.types import PolicyOutput

BOX = spaces.Box(-2, 2, (5,))
IMAGE = spaces.Box(0, 255, (2, 36, 36), np.uint8)
DICT = spaces.Dict(
    {
        "position": spaces.Box(-1, 1, (3,)),
        "button": spaces.MultiBinary(2),
        "room": spaces.Discrete(4),
        "a matrix": spaces.Box(-3, 3, (2, 2)),
    }
)
GOALS = spaces.Dict(
    {
        "observation": spaces.Box(-1, 1, (4,)),
        "achieved_goal": spaces.Box(-1, 1, (2,)),
        "desired_goal": spaces.Box(-1, 1, (2,)),
    }
)
FAR_GOALS = spaces.Dict(
    {
        "observation": spaces.Box(-1, 1, (4,)),
        "achieved_goal": spaces.Box(-np.inf, np.inf, (2,)),
        "desired_goal": spaces.Box(-np.inf, np.inf, (2,)),
    }
)
SIGHTS = spaces.Dict(
    {
        "view": IMAGE,
        "speed": spaces.Box(-1, 1, (3,)),
        "map": spaces.Box(0, 255, (1, 40, 36), np.uint8),
        "zone": spaces.Discrete(3),
    }
)
FLOAT_IMAGE = spaces.Box(0, 1, (3, 36, 36))
FLOAT_SIGHTS = spaces.Dict(
    {
        "view": FLOAT_IMAGE,
        "speed": spaces.Box(-1, 1, (3,)),
        "map": spaces.Box(0, 255, (1, 40, 36), np.uint8),
        "a matrix": spaces.Box(-3, 3, (2, 2)),
    }
)
VIEWS = spaces.Dict({"right": IMAGE, "left": spaces.Box(0, 255, (1, 36, 36), np.uint8)})
TORQUES = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 5.0], np.float32))


class RandomObservations(gym.Env):
    """Shows random observations and rewards nothing in particular."""

    def __init__(self, observation_space, action_space):
        # Spaces keep a generator: those of a module would make a test depend on the tests before it.
        self.observation_space, self.action_space = copy.deepcopy((observation_space, action_space))
        self._step = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(0 if seed is None else seed)
        self._step = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self._step += 1
        return self.observation_space.sample(), float(np.sum(action)), self._step % 10 == 0, False, {}

    def action_masks(self):
        """Allow all actions, as MaskablePPO asks."""
        return np.ones(spaces.flatdim(self.action_space), dtype=bool)

    def compute_reward(self, achieved, desired, info):
        return -np.linalg.norm(np.asarray(achieved) - desired, axis=-1)


def train(algorithm, policy, observation_space, action_space, *, num_steps=24, normalised=None, wrap=None, **options):
    """Train for a few steps, then shake all weights so that no layer is without effect.

    Args:
        algorithm: a class of the library.
        policy: its name for the kind of policy.
        observation_space: of the environment.
        action_space: of the environment.
        num_steps: of training.
        normalised: options of `VecNormalize`; None: none.
        wrap: makes another environment of the vectorised one; None: it is left as it is.
        **options: of the algorithm.

    Returns:
        The model.
    """
    from stable_baselines3.common.logger import Logger
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    env = DummyVecEnv([lambda: RandomObservations(observation_space, action_space)])
    if normalised is not None:
        env = VecNormalize(env, **normalised)
    if wrap is not None:
        env = wrap(env)
    # The library writes into the options that it is given.
    model = algorithm(policy, env, seed=0, device="cpu", **copy.deepcopy(options))
    model.set_logger(Logger(folder=None, output_formats=[]))  # else it makes a folder for its logs
    model.learn(num_steps)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator) / max(1, parameter.dim()) ** 2)
    return model


def samples(space, count, seed=5):
    """Return observations of a space as the library takes them: an array, or one array per key."""
    if isinstance(space, spaces.Dict):
        return {key: samples(part, count, seed) for key, part in space.spaces.items()}
    space = copy.deepcopy(space)
    space.seed(seed)
    return np.stack([space.sample() for _ in range(count)])


def flattened(space, observations):
    """Return observations as our policies take them: one vector, keys sorted, choices one-hot."""
    if isinstance(space, spaces.Dict):
        parts = [flattened(space[key], observations[key]) for key in sorted(space.spaces)]
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1).astype(np.float32)
    if isinstance(space, spaces.Discrete):
        return np.eye(int(space.n), dtype=np.float32)[observations]
    if isinstance(space, spaces.MultiDiscrete):
        return np.hstack([np.eye(size, dtype=np.float32)[observations[:, i]] for i, size in enumerate(space.nvec)])
    return observations


def _heads_of(model, observations):
    """Return what the real library's network computes, by our names."""
    policy = model.policy
    policy.set_training_mode(False)
    tensors, _ = policy.obs_to_tensor(observations)
    with torch.inference_mode():
        match type(model).__name__:
            case "DQN":
                return {"q_values": policy.q_net(tensors)}
            case "QRDQN":
                return {"q_values": policy.quantile_net(tensors).mean(dim=1)}
            case "SAC" | "TQC" | "CrossQ":
                mean, log_std, extra = policy.actor.get_action_dist_params(tensors)
                gaussian = policy.actor.action_dist.proba_distribution(mean, log_std, **extra).distribution
                return {"mean": mean, "std": gaussian.stddev}
            case "TD3" | "DDPG":
                actions = policy.actor(tensors).numpy()
                return {"actions": torch.from_numpy(policy.unscale_action(actions))}
            case "ARS":
                features = policy.extract_features(tensors, policy.features_extractor)
                scores = policy.action_net(features)
                if isinstance(model.action_space, spaces.Discrete):
                    return {"logits": scores}
                return (
                    {"actions": torch.from_numpy(policy.unscale_action(scores.numpy()))}
                    if policy.squash_output
                    else {"actions": scores}
                )
        distribution = policy.get_distribution(tensors)
        inner = distribution.distribution if hasattr(distribution, "distribution") else distribution.distributions
        if isinstance(model.action_space, spaces.Box):
            return {"mean": inner.mean, "std": inner.stddev}
        if isinstance(inner, list):
            return {"logits": torch.cat([each.logits for each in inner], dim=1)}
        return {"logits": inner.logits}


def _normalised_logits(logits, layout):
    """Return log-probabilities of each choice: the library subtracts their normaliser already."""
    if layout.kind == "multi_binary":
        return logits
    return torch.cat([torch.log_softmax(part, 1) for part in logits.split(layout.sizes, dim=1)], dim=1)


def compare(model, policy, observations, rows):
    """Check that a policy of ours computes and acts as a model of the library.

    Args:
        model: of the library.
        policy: of ours.
        observations: as the library takes them.
        rows: the same as our policies take them.
    """
    expected = _heads_of(model, observations)
    with torch.inference_mode():
        seen = as_tensors(rows, policy.tasks[0].fingerprint)
        raw = policy.network.eval()(seen).outputs
    layout = policy.tasks[0].fingerprint.action_layout
    output = PolicyOutput.from_raw(layout, policy.output_kind, raw)
    for name, values in expected.items():
        actual = output.log_std.exp() if name == "std" else getattr(output, name)
        if name == "logits" and "ARS" not in type(model).__name__:
            actual = _normalised_logits(actual, layout)
        torch.testing.assert_close(actual, values, rtol=1e-5, atol=1e-5 * values.abs().max().item())
        assert values.std() > 1e-3, "a head without effect would prove nothing"
    actions, _ = model.predict(observations, deterministic=True)
    own, _ = policy.act(rows)
    if layout.kind == "box":
        np.testing.assert_allclose(own, actions, rtol=1e-5, atol=1e-4)
    else:
        assert (own == actions).mean() > 0.995, "greedy actions differ where two are equally good, and nowhere else"
