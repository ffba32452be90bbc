"""Zips as Stable-Baselines3 writes them, made without it: one field or layer at a time can be wrong."""

import base64
import io
import json
import os
import pickle
import zipfile

import torch

BOX = {
    ":type:": "<class 'gymnasium.spaces.box.Box'>",
    "dtype": "float32",
    "_shape": [3],
    "low": "[-1. -1. -1.]",
    "high": "[1. 1. 1.]",
}
DISCRETE = {":type:": "<class 'gymnasium.spaces.discrete.Discrete'>", "n": "2", "_shape": [], "dtype": "int64"}


class Intruder:
    """A pickle of it makes a folder when it is loaded."""

    def __init__(self, path):
        self._path = str(path)

    def __reduce__(self):
        return os.mkdir, (self._path,)


def pickled(value):
    """Return a value as the JSON of a zip holds it."""
    return base64.b64encode(pickle.dumps(value)).decode()


def ppo_weights(num_inputs=3, num_actions=2):
    """Return the state dict of a small PPO policy."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "mlp_extractor.policy_net.0": (4, num_inputs),
        "mlp_extractor.policy_net.2": (5, 4),
        "mlp_extractor.value_net.0": (4, num_inputs),
        "action_net": (num_actions, 5),
        "value_net": (1, 4),
    }
    state = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = torch.randn(shape, generator=generator)
        state[f"{name}.bias"] = torch.randn(shape[0], generator=generator)
    return state


def ppo_data(**changes):
    """Return the JSON of a small PPO policy."""
    return {
        "policy_class": {
            ":type:": "<class 'abc.ABCMeta'>",
            "__module__": "stable_baselines3.common.policies",
            "__init__": "<function ActorCriticPolicy.__init__ at 0x7f>",
        },
        "policy_kwargs": {},
        "observation_space": BOX,
        "action_space": DISCRETE,
        "clip_range": 0.2,
        "num_timesteps": 1000,
        **changes,
    }


def pack(data=None, weights=None, members=None):
    """Return the bytes of a zip; `members` replaces some, None leaves one out."""
    buffer = io.BytesIO()
    torch.save(ppo_weights() if weights is None else weights, buffer)
    content = {
        "data": json.dumps(ppo_data() if data is None else data),
        "policy.pth": buffer.getvalue(),
        "_stable_baselines3_version": "2.3.0",
        **(members or {}),
    }
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zip_file:
        for name, value in content.items():
            if value is not None:
                zip_file.writestr(name, value)
    return archive.getvalue()
