"""From a configuration to the objects of a training: the first policy and the algorithm."""

from collections.abc import Sequence

import numpy as np
import torch

from rldistill.envs import PlayableTask
from rldistill.errors import MismatchError, UsageError
from rldistill.networks import Architecture, parse_architecture
from rldistill.networks.precision import resolve_precision
from rldistill.policies import HeadSpec, TorchPolicy, load_policy
from rldistill.runs.config import TrainTeacherConfig
from rldistill.seeding import stream_seed
from rldistill.tasks import Task
from rldistill.training import PQNLearner, PQNSettings, PQNTraining, Training, TrainingStream
from rldistill.types import resolve_device


def pqn_settings(config: TrainTeacherConfig) -> PQNSettings:
    """Return the algorithm's part of a configuration."""
    names = PQNSettings.__dataclass_fields__.keys() & TrainTeacherConfig.__dataclass_fields__.keys()
    return PQNSettings(**{name: getattr(config, name) for name in names})


def make_training(
    config: TrainTeacherConfig,
    policy: TorchPolicy,
    tasks: Sequence[PlayableTask],
    *,
    steps: Sequence[int],
    rng: np.random.Generator,
) -> Training:
    """Return the algorithm, ready to play.

    Args:
        config: resolved.
        policy: trained in place; a head per task.
        tasks: to be played.
        steps: of each task so far: environments begin with seeds not used before.
        rng: draws the exploration.
    """
    settings = pqn_settings(config)
    streams = [
        TrainingStream(
            task.make_envs(config.num_envs, config.num_threads),
            task.task.fingerprint.action_layout.num_outputs,
            first_seed=stream_seed(config.seed, "training environments", steps[number], *([number] if number else [])),
            gamma=settings.gamma,
            clip_rewards=settings.clip_rewards,
            cut_at_life_loss=settings.cut_at_life_loss,
        )
        for number, task in enumerate(tasks)
    ]
    precision = resolve_precision(config.precision, resolve_device(config.device))
    generator = torch.Generator().manual_seed(stream_seed(config.seed, "minibatches"))
    learner = PQNLearner(policy.network, settings, precision=precision, generator=generator)
    return PQNTraining(learner, streams, num_steps=config.num_steps, rng=rng)


def initial_policy(config: TrainTeacherConfig, tasks: Sequence[Task]) -> TorchPolicy:
    """Return the policy that a training begins with: fresh weights, or those of `init_from`.

    Raises:
        MismatchError: the file's policy does not fit the tasks.
        UsageError: it has other layers than the configuration says.
    """
    architecture = parse_architecture(config.network, layer_norm=config.layer_norm)
    name = tasks[0].name.removeprefix("atari:")
    if config.init_from is None:
        generator = torch.Generator().manual_seed(stream_seed(config.seed, "weights"))
        policy = TorchPolicy.create(architecture, tasks, name=name, zero_output=config.zero_output, generator=generator)
        return policy.with_spec(weights_dtype="float16")
    policy = load_policy(config.init_from)
    differences = policy.tasks[0].fingerprint.differences(tasks[0].fingerprint)
    if differences:
        raise MismatchError(f"--init-from {config.init_from} does not fit {config.task}: {'; '.join(differences)}.")
    if policy.output_kind != "q_values":
        raise MismatchError(
            f"--init-from {config.init_from} gives {policy.output_kind}, {config.algorithm} goes on from q_values."
        )
    if policy.spec.architecture != architecture:
        raise UsageError(
            f"--init-from {config.init_from} holds {_layers(policy.spec.architecture)}, "
            f"--network says {_layers(architecture)}."
        )
    # Its weights, not its story: two games may share a fingerprint.
    return policy.with_spec(heads=tuple(HeadSpec(task) for task in tasks), name=name)


def _layers(architecture: Architecture | None) -> str:
    if architecture is None:
        return "a module of its maker's own"
    return f"{architecture.name} {'with' if architecture.layer_norm else 'without'} layer norm"
