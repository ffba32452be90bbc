"""Zips of Stable-Baselines3, so that a student is trained on by reinforcement learning where its user trains.

The library itself makes the model, with the policy's sizes and the spaces of its task, and writes it; only the weights
that act are ours. Critics and values begin anew. Q-values become a DQN, a squashed Gaussian a SAC, squashed actions a
TD3, all else a PPO.
"""

import contextlib
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import nn

from rldistill.envs.spaces import action_space
from rldistill.errors import RldistillError
from rldistill.exports.dense import DensePolicy, constant_log_std, copy_layers, dense_policy, misfit
from rldistill.exports.formats import Decide, Export, ExportFormat, Opened, Written, read_back
from rldistill.networks.torsos import image_shape
from rldistill.options.reading import Reading
from rldistill.policies import Policy, TorchPolicy
from rldistill.tasks import ObservationFingerprint

_WHAT = "sb3"
# As `adapters.sb3` records it of policies that it reads.
_LIBRARY = "stable-baselines3"
_HERE = "in PyTorch"
_STATISTICS_SUFFIX = ".vecnormalize.pkl"
_NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Channels, kernels and strides of the only convolutions that the library builds itself (NatureCNN)."""
_FEW_IMAGES = 50_000
"""Steps in the replay of an off-policy model on images, which the library would make of a million."""
Algorithm = Literal["DQN", "PPO", "SAC", "TD3"]


def _algorithm(found: DensePolicy) -> Algorithm:
    layer = found.rows.layer
    if layer.kind == "q_values":
        return "DQN"
    if layer.layout.is_continuous and layer.squashes:
        return "SAC" if layer.kind == "gaussian" else "TD3"
    return "PPO"


class _Spaces(gymnasium.Env[Any, Any]):
    """An environment with the spaces of a task, which is all that making a model asks for.

    `coded` is what the task's own gives, where the policy sees that as a vector and the library would not.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        coded: spaces.Space[Any] | None = None,
    ) -> None:
        self.observation_space, self.action_space, self.coded = observation_space, action_space, coded

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {}


def _write(export: Export, path: Path) -> Written | None:
    library = _import("stable_baselines3")
    found = dense_policy(export, _WHAT)
    algorithm = _algorithm(found)
    kwargs = _policy_kwargs(export, found, algorithm)
    env = _spaces(export)
    _check_choices(export, env.action_space)
    own: dict[str, Any] = {}
    is_image = bool(found.convolutions)
    if is_image:
        _check_images(export, env)
    if is_image and algorithm != "PPO":
        own["buffer_size"] = _FEW_IMAGES
    model = getattr(library, algorithm)(
        "CnnPolicy" if is_image else "MlpPolicy", env, policy_kwargs=kwargs, device="cpu", seed=0, **own
    )
    if not is_image and model.observation_space.shape != env.observation_space.shape:
        raise misfit(export, _WHAT, "is an mlp that sees images with their channels last")
    shape = export.policy.tasks[0].fingerprint.observation_shape
    if is_image and model.observation_space.shape != image_shape(shape):
        raise misfit(export, _WHAT, f"has channels of {list(shape)} elsewhere than the library looks for them")
    with torch.no_grad():
        _fill(export, found, algorithm, model.policy)
    model.save(path)
    if export.policy.normalization is not None:
        _write_statistics(export, env, path.with_suffix(_STATISTICS_SUFFIX))
    return _note(export.policy.tasks[0].fingerprint, env)


def _note(seen: ObservationFingerprint, env: _Spaces) -> Written | None:
    """Return what a user must know of the observations that the zip takes; None where they are the environment's."""
    zeros = [f"{seen.zero_padding} zeros"] if seen.zero_padding else []
    clock = [] if seen.time_feature is None else [f"the clock 1 - t / {seen.time_feature}"]
    behind = f", with {' and '.join(zeros + clock)} behind the environment's numbers" if zeros or clock else ""
    appended = {"zero_padding": seen.zero_padding, "time_feature": seen.time_feature} if behind else {}
    parts = [part.name for part in seen.observation_parts]
    if parts:
        text = (
            f"the zip takes one vector, these parts side by side{behind}; to play it here: --teacher-sees "
            f"{','.join(parts)}"
        )
        return Written({"observation_parts": parts} | appended, text)
    if not behind and env.coded is None:
        return None
    coded = "" if env.coded is None else f" instead of {env.coded}"
    text = (
        f"the zip takes the vector that the policy sees{behind}: to train it further, wrap the environment so that it "
        f"gives that vector{coded}"
    )
    return Written(({} if env.coded is None else {"observation_space": str(env.coded)}) | appended, text)


def _check_choices(export: Export, own: spaces.Space[Any]) -> None:
    """Check that the library takes actions of choices: in a row, and counted from 0; raises RldistillError."""
    is_counted_on = isinstance(own, spaces.Discrete | spaces.MultiDiscrete) and np.any(own.start)
    if is_counted_on or (isinstance(own, spaces.MultiDiscrete | spaces.MultiBinary) and len(own.shape) != 1):
        raise misfit(export, _WHAT, f"acts in {' '.join(str(own).split())}")


def _check_images(export: Export, env: _Spaces) -> None:
    """Check that the library sees images where the policy does; raises RldistillError."""
    fingerprint = export.policy.tasks[0].fingerprint
    if not _import("stable_baselines3.common.preprocessing").is_image_space(env.observation_space):
        shape = list(fingerprint.observation_shape)
        raise misfit(
            export,
            _WHAT,
            f"has convolutions on {fingerprint.observation_dtype} {shape}, not on bytes of three dimensions",
        )
    if export.policy.normalization is not None:
        raise misfit(export, _WHAT, "normalises images by running statistics")


def _import(name: str) -> Any:  # noqa: ANN401 (a module)
    try:
        return __import__(name, fromlist=["_"])
    except ImportError as error:
        raise RldistillError(
            f"--to {_WHAT} needs stable_baselines3, which writes its zips itself and is not installed: "
            ".venv/bin/pip install stable-baselines3"
        ) from error


def _policy_kwargs(export: Export, found: DensePolicy, algorithm: Algorithm) -> dict[str, Any]:
    """Return the sizes of the library's network, after checking that it can have the policy's."""
    hidden, activations = [layer.out_features for layer in found.hidden], list(found.activations)
    kwargs: dict[str, Any] = {}
    if found.convolutions:
        convolutions = [(layer.out_channels, layer.kernel_size[0], layer.stride[0]) for layer in found.convolutions]
        are_relu = {*found.convolution_activations, *activations[:1]} == {nn.ReLU}
        if tuple(convolutions) != _NATURE or not are_relu or not hidden:
            channels, kernels, strides = ("-".join(map(str, part)) for part in zip(*convolutions, strict=True))
            own = f"{channels} (kernels {kernels}, strides {strides})"
            raise misfit(
                export,
                _WHAT,
                f"has convolutions {own}, not NatureCNN's 32-64-64 (8-4-3, 4-2-1) with ReLU below a layer",
            )
        kwargs["features_extractor_kwargs"] = {"features_dim": hidden.pop(0)}
        activations.pop(0)
    if len(set(activations)) > 1:
        raise misfit(export, _WHAT, "has different activations")
    if algorithm == "SAC" and found.rows.layer.gaussian.std not in ("state", "parameter", "fixed"):
        raise misfit(export, _WHAT, f"has a spread of the kind {found.rows.layer.gaussian.std}")
    last = found.rows.layer
    if last.gaussian.mean_limit is not None or last.atoms is not None or last.is_beta:
        raise misfit(export, _WHAT, "clips its mean, or ends in distributions of values or actions")
    # One list for each of the two networks: the one that acts is the policy's, the other begins anew at the same size.
    kwargs["net_arch"] = hidden if algorithm == "DQN" else {"pi": hidden, "vf" if algorithm == "PPO" else "qf": hidden}
    return kwargs | {"activation_fn": activations[0] if activations else nn.ReLU}


def _fill(export: Export, found: DensePolicy, algorithm: Algorithm, target: Any) -> None:  # noqa: ANN401 (a policy)
    """Write the policy's weights into the library's network."""
    acting_part = target if algorithm == "PPO" else target.q_net if algorithm == "DQN" else target.actor
    hidden = list(found.hidden)
    if found.convolutions:
        extractor = acting_part.features_extractor
        convolutions = [layer for layer in extractor.cnn if isinstance(layer, nn.Conv2d)]
        copy_layers([*found.convolutions, hidden.pop(0)], [*convolutions, extractor.linear[0]])
    if algorithm == "DQN":
        layers = _linears(target.q_net.q_net)
    elif algorithm == "PPO":
        layers = [*_linears(target.mlp_extractor.policy_net), target.action_net]
        if found.rows.layer.layout.is_continuous:
            target.log_std.copy_(constant_log_std(export, found))
    elif algorithm == "TD3":
        layers = _linears(target.actor.mu)
    else:
        layers = [*_linears(target.actor.latent_pi), target.actor.mu]
        _fill_log_std(found, target.actor.log_std)
    copy_layers([*hidden, found.output], layers)
    is_image_space = _import("stable_baselines3.common.preprocessing").is_image_space
    if found.input_scale != 1 and not is_image_space(target.observation_space):
        layers[0].weight.mul_(found.input_scale)  # bytes that are no image go in as they are
    # Training goes on from networks that agree with these.
    if algorithm == "DQN":
        target.q_net_target.load_state_dict(target.q_net.state_dict())
    elif algorithm == "TD3":
        target.actor_target.load_state_dict(target.actor.state_dict())


def _fill_log_std(found: DensePolicy, target: nn.Linear) -> None:
    if found.rows.layer.gaussian.std == "state":
        copy_layers([found.rows.log_std_layer], [target])
        return
    target.weight.zero_()
    assert isinstance(found.rows.log_std, torch.Tensor), "of the other kinds a vector"
    target.bias.copy_(found.rows.log_std)


def _linears(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def _spaces(export: Export) -> _Spaces:
    """Return the spaces of a task as its environment has them: the library refuses to train in one with others."""
    fingerprint = export.policy.tasks[0].fingerprint
    playable = export.playable
    with contextlib.nullcontext() if playable is None else playable.environment() as env:
        # What was appended to observations is part of the policy's, and not of the environment's.
        if env is not None and _is_read_alike(env.observation_space, export):
            return _Spaces(env.observation_space, env.action_space)
        coded = None if env is None or isinstance(env.observation_space, spaces.Box) else env.observation_space
    is_bytes = fingerprint.observation_dtype == "uint8"
    low, high, dtype = (0, 255, np.uint8) if is_bytes else (-np.inf, np.inf, np.float32)
    observation = spaces.Box(low, high, fingerprint.observation_shape, dtype)
    return _Spaces(observation, action_space(fingerprint.action_layout), coded)


def _is_read_alike(own: spaces.Space[Any], export: Export) -> bool:
    """Return whether the library makes of a space's observations what the policy sees: choices become one-hot too."""
    shape = export.policy.tasks[0].fingerprint.observation_shape
    if isinstance(own, spaces.Box):
        return own.shape == shape
    if export.policy.normalization is not None:  # the library normalises boxes alone
        return False
    if isinstance(own, spaces.MultiBinary):
        return own.shape == shape
    if isinstance(own, spaces.MultiDiscrete):
        return own.nvec.ndim == 1 and not own.start.any() and shape == (own.nvec.sum(),)
    return isinstance(own, spaces.Discrete) and own.start == 0 and shape == (own.n,)


def _as_given(rows: NDArray[Any], space: spaces.Space[Any]) -> NDArray[Any]:
    """Return what the policy sees as an environment of this space gives it."""
    if isinstance(space, spaces.Discrete):
        return rows.argmax(axis=1)
    if isinstance(space, spaces.MultiDiscrete):
        parts = np.split(rows, np.cumsum(space.nvec)[:-1], axis=1)
        return np.stack([part.argmax(axis=1) for part in parts], axis=1)
    return rows


def _write_statistics(export: Export, env: _Spaces, path: Path) -> None:
    """Write the running statistics as the library keeps them: a VecNormalize beside the zip."""
    vec_env = _import("stable_baselines3.common.vec_env")
    statistics = export.policy.normalization
    assert statistics is not None, "asked for where there are some"
    if statistics.untouched:
        raise misfit(export, _WHAT, "normalises some of its observation alone")
    clip = statistics.clip if statistics.clips else np.inf
    normalize = vec_env.VecNormalize(
        vec_env.DummyVecEnv([lambda: env]), norm_reward=False, clip_obs=clip, epsilon=statistics.epsilon
    )
    shape = export.policy.spec.observation_shape
    normalize.obs_rms.mean = np.array(statistics.mean).reshape(shape)
    normalize.obs_rms.var = np.array(statistics.variance).reshape(shape)
    normalize.obs_rms.count = 1e6  # so many that the next steps of training move them only slowly
    normalize.save(str(path))


def _open(export: Export, path: Path) -> Opened:
    # Nothing is said of the statistics: the loader finds them beside the zip, as it does for users.
    return read_back(export, path, Reading()), _decider(export, path)


def _decider(export: Export, path: Path) -> Decide:
    """Return `predict`, as users of the library act."""
    algorithm = getattr(_import("stable_baselines3"), _algorithm(dense_policy(export, _WHAT)))
    further = {} if algorithm.__name__ == "PPO" else {"buffer_size": 1}
    model = algorithm.load(path, device="cpu", **further)
    return lambda observation: model.predict(_as_given(observation, model.observation_space), deterministic=True)


PREDICT = "predict of stable_baselines3"


def predict_of(teacher: Policy) -> tuple[Decide | None, str]:
    """Return how the library that a teacher was read from makes one decision of it, and what to call that.

    The library gets a model of its own classes with the teacher's weights: to open the zip itself would run what is
    pickled in it. None where the teacher is no model of this library, or that cannot be had here.
    """
    source = teacher.spec.provenance.get("source") if isinstance(teacher, TorchPolicy) else None
    if not isinstance(teacher, TorchPolicy) or not isinstance(source, dict) or source.get("format") != _LIBRARY:
        return None, _HERE
    export = Export(teacher.copy().to(torch.device("cpu")), {})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "teacher.zip")
        try:
            _write(export, path)
            return _decider(export, path), PREDICT
        except RldistillError as error:
            missing = isinstance(error.__cause__, ImportError)
            return (
                None,
                f"{_HERE}: stable_baselines3 {'is not installed' if missing else 'does not build such a network'}",
            )


SB3 = ExportFormat(
    "sb3",
    ".zip",
    ("float32",),
    _write,
    _open,
    companions=(_STATISTICS_SUFFIX,),
    may_give_probabilities=False,
    keeps_state=False,
    keeps_spread=False,
    needs_bounds=True,
    check_packages=partial(_import, "stable_baselines3"),
)
