"""Teachers of other people, rebuilt as our policies: the numbers of their own description, and their skill."""

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.nn import functional

from rldistill.envs import make_task
from rldistill.policies import fit_policy
from rldistill.rollout.evaluate import play_episodes
from tests.kit.shared_teachers import load_actor_critic, load_pqn

ACTOR_CRITICS = ["pong_acktr", "breakout_a2c", "qbert_acktr", "seaquest_acktr"]
PQN_TEACHERS = ["pong", "breakout"]


def real_frames(game, num_steps=40):
    """Return what the first steps of random play show, `[B, 4, 84, 84]`."""
    task = make_task(f"atari:{game}")
    envs = task.make_envs(1, 1)
    observations = [envs.reset([0], [1])]
    rng = np.random.default_rng(0)
    for _ in range(num_steps):
        actions = rng.integers(task.task.fingerprint.action_layout.sizes[0], size=1)
        observations.append(envs.step(actions).observations)
    envs.close()
    return torch.from_numpy(np.concatenate(observations))


def find(folder, name):
    (path,) = folder.glob(f"{name}*.safetensors")
    return path


def actor_critic_by_hand(tensors, observations):
    """conv1, conv2, conv3, fc with ReLU; pi and v: the description in words, as torch's functions."""

    def layer(function, x, name, *stride):
        return function(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], *stride)

    x = observations.float() / 255
    for name, stride in (("conv1", 4), ("conv2", 2), ("conv3", 1)):
        x = functional.relu(layer(functional.conv2d, x, name, stride))
    x = functional.relu(layer(functional.linear, x.flatten(1), "fc"))
    return layer(functional.linear, x, "pi"), layer(functional.linear, x, "v").squeeze(1)


def pqn_by_hand(tensors, observations):
    """Convolutions normalised over channels and space with one weight per channel; then a normalised f, and o."""
    x = observations.float() / 255
    for number, stride in ((1, 4), (2, 2), (3, 1)):
        x = functional.conv2d(x, tensors[f"c{number}.weight"], tensors[f"c{number}.bias"], stride)
        x = functional.layer_norm(x, x.shape[1:])
        scale, shift = (tensors[f"n{number}.{part}"][:, None, None] for part in ("weight", "bias"))
        x = functional.relu(x * scale + shift)
    x = functional.linear(x.flatten(1), tensors["f.weight"], tensors["f.bias"])
    x = functional.relu(functional.layer_norm(x, x.shape[1:], tensors["n4.weight"], tensors["n4.bias"]))
    return functional.linear(x, tensors["o.weight"], tensors["o.bias"])


@pytest.mark.parametrize("name", ACTOR_CRITICS)
def test_a_rebuilt_actor_critic_gives_its_own_logits_and_values_on_real_frames(shared_teachers, name):
    path = find(shared_teachers / "atari", name)
    policy = load_actor_critic(path)
    observations = real_frames(name.partition("_")[0])
    logits, values = actor_critic_by_hand(safetensors.torch.load_file(path), observations)
    output, _ = policy(observations)
    torch.testing.assert_close(output.logits, logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.value, values, atol=1e-5, rtol=1e-5)
    assert output.logits.std() > 0.1


@pytest.mark.parametrize("name", PQN_TEACHERS)
def test_a_rebuilt_q_network_gives_its_own_q_values_on_real_frames(shared_teachers, name):
    path = find(shared_teachers / "atari_pqn", name)
    policy = load_pqn(path)
    observations = real_frames(name)
    q_values = pqn_by_hand(safetensors.torch.load_file(path), observations)
    output, _ = policy(observations)
    torch.testing.assert_close(output.q_values, q_values, atol=1e-5, rtol=1e-5)
    assert output.q_values.std() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["actor-critic", "pqn"])
def test_a_rebuilt_pong_teacher_wins_by_18_or_more(shared_teachers, kind):
    if kind == "pqn":
        policy = load_pqn(find(shared_teachers / "atari_pqn", "pong"))
    else:
        policy = load_actor_critic(find(shared_teachers / "atari", "pong_acktr"))
    task = make_task("atari:pong")
    envs = task.make_envs(1, 1)
    played = play_episodes(fit_policy(policy, task.task), envs, [0], seed=0, exploration_epsilon=0.0)
    envs.close()
    assert played.episodes[0].score >= 18
