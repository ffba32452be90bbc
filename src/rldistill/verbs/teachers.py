"""From a configuration to the objects of a training: the first policy and the algorithm."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch

from rldistill.envs import PlayableTask, make_task
from rldistill.errors import MismatchError, UsageError
from rldistill.networks import Architecture, parse_architecture
from rldistill.networks.precision import resolve_precision
from rldistill.options.train_teacher import TrainTeacherOptions
from rldistill.policies import HeadSpec, TorchPolicy, load_policy
from rldistill.seeding import stream_seed
from rldistill.session.machine import with_precision
from rldistill.tasks import Task
from rldistill.training.dqn import LEARNING_RATES, DQNLearner, DQNSettings, DQNTraining
from rldistill.training.pqn import PQNLearner, PQNSettings, PQNTraining
from rldistill.training.stream import StreamStep, Training, TrainingStream
from rldistill.types import resolve_device
from rldistill.verbs.sizes import kind_of_sight

_SETTINGS: Mapping[str, type[PQNSettings] | type[DQNSettings]] = {"pqn": PQNSettings, "dqn": DQNSettings}
# A policy of more tasks is named by their number.
_LARGEST_NAME = 3
AUTO_NETWORK = "auto"
# Of several parts: the widths of Stable-Baselines3's `MultiInputPolicy`.
_NETWORKS = {"vectors": "mlp:64x64", "images": "dqn", "parts": "combined:32-64-64:256:64x64"}
_LAYER_NORM = {"pqn": True, "dqn": False}


def resolve_algorithm(config: TrainTeacherOptions) -> TrainTeacherOptions:
    """Return the configuration with every option of its algorithm set.

    Raises:
        UsageError: an option belongs to another algorithm, or is out of range.
    """
    layer_norm = _LAYER_NORM[config.algorithm] if config.layer_norm is None else config.layer_norm
    return replace(config, layer_norm=layer_norm, **vars(algorithm_settings(config)))


def algorithm_settings(config: TrainTeacherOptions) -> PQNSettings | DQNSettings:
    """Return the algorithm's part of a configuration, its own defaults for what is not set.

    Raises:
        UsageError: an option belongs to another algorithm, or is out of range.
    """
    known = {algorithm: [item.name for item in fields(kind)] for algorithm, kind in _SETTINGS.items()}
    options = {name: getattr(config, name) for names in known.values() for name in names}
    given = {name: value for name, value in options.items() if value is not None}
    mine = known[config.algorithm]
    for name in given:
        if name not in mine:
            owner = next(algorithm for algorithm, names in known.items() if name in names)
            raise UsageError(f"{name} belongs to {owner}; {config.algorithm} takes {', '.join(sorted(mine))}.")
    if config.algorithm == "dqn" and given.get("optimizer") in LEARNING_RATES:
        given.setdefault("learning_rate", LEARNING_RATES[given["optimizer"]])
    return _SETTINGS[config.algorithm](**given)


def make_tasks(config: TrainTeacherOptions) -> list[PlayableTask]:
    """Return the tasks of a configuration.

    Raises:
        UsageError: one of them cannot be played, or they show different kinds of observations.
    """
    tasks = [make_task(name, config.env_kwargs) for name in config.task_names]
    first = tasks[0].task
    for task in (playable.task for playable in tasks):
        kind = task.fingerprint.action_layout.kind
        if kind != "discrete":
            raise UsageError(
                f"task {task.name!r} has {kind} actions, {config.algorithm} learns one discrete choice. Bring a "
                "teacher that another library trained: `rldistill inspect FILE`."
            )
    seen = first.fingerprint.observation_description
    for other in (task.task for task in tasks[1:]):
        own = other.fingerprint.observation_description
        if own != seen:
            raise UsageError(
                f"tasks: one network needs one kind of observation, got {seen} of {first.name} and {own} of "
                f"{other.name}."
            )
    return tasks


def suited_to(options: TrainTeacherOptions, tasks: Sequence[PlayableTask]) -> TrainTeacherOptions:
    """Return options with the network and the precision that `auto` stands for: they follow from what is seen."""
    sight = kind_of_sight(tasks[0].task.fingerprint)
    if options.network == AUTO_NETWORK:
        options = replace(options, network=_NETWORKS[sight])
    images, goes_on_in = sight != "vectors", Path(options.out) if options.resume else None
    return with_precision(options, images=images, goes_on_in=goes_on_in)


def make_training(
    config: TrainTeacherOptions,
    policy: TorchPolicy,
    tasks: Sequence[PlayableTask],
    *,
    steps: Sequence[int],
    rng: np.random.Generator,
    on_step: Callable[[StreamStep], None] | None = None,
) -> Training:
    """Return the algorithm, ready to play.

    Args:
        config: resolved.
        policy: trained in place; a head per task.
        tasks: to be played.
        steps: of each task so far: environments begin with seeds not used before.
        rng: draws the exploration.
        on_step: shown every step.
    """
    settings = algorithm_settings(config)
    streams = [
        TrainingStream(
            task.make_envs(settings.num_envs, config.num_threads),
            task.task.fingerprint.action_layout.num_outputs("q_values"),
            first_seed=stream_seed(config.seed, "training environments", steps[number], *([number] if number else [])),
            gamma=settings.gamma,
            clip_rewards=settings.clip_rewards,
            cut_at_life_loss=settings.cut_at_life_loss,
            repeat_exponent=settings.repeat_exponent,
            on_step=on_step,
        )
        for number, task in enumerate(tasks)
    ]
    precision = resolve_precision(config.precision, resolve_device(config.device))
    if isinstance(settings, DQNSettings):
        dqn = DQNLearner(policy.network, settings, precision=precision)
        return DQNTraining(
            dqn, streams, [task.task for task in tasks], num_steps=config.num_steps, seed=config.seed, rng=rng
        )
    generator = torch.Generator().manual_seed(stream_seed(config.seed, "minibatches"))
    pqn = PQNLearner(policy.network, settings, precision=precision, generator=generator)
    return PQNTraining(pqn, streams, num_steps=config.num_steps, rng=rng)


def initial_policy(config: TrainTeacherOptions, tasks: Sequence[Task]) -> TorchPolicy:
    """Return the policy that a training begins with: fresh weights, or those of `init_from`.

    Raises:
        MismatchError: the file's policy does not fit the tasks.
        UsageError: it has other layers than the configuration says.
    """
    architecture = parse_architecture(config.network, layer_norm=bool(config.layer_norm))
    name = _policy_name(tasks)
    if config.init_from is None:
        generator = torch.Generator().manual_seed(stream_seed(config.seed, "weights"))
        policy = TorchPolicy.create(architecture, tasks, name=name, zero_output=config.zero_output, generator=generator)
        return policy.with_spec(weights_dtype="float16")
    policy = load_policy(config.init_from)
    heads = policy.spec.heads
    if len(heads) != len(tasks):
        raise MismatchError(
            f"--init-from {config.init_from} has heads for {', '.join(policy.spec.head_sizes)}, expected one for each "
            f"of {', '.join(config.task_names)}."
        )
    for head, task in zip(heads, tasks, strict=True):
        differences = head.task.fingerprint.differences(task.fingerprint)
        if differences:
            raise MismatchError(f"--init-from {config.init_from} does not fit {task.name}: {'; '.join(differences)}.")
    if policy.spec.sight is not None:
        raise MismatchError(
            f"--init-from {config.init_from} sees {', '.join(policy.spec.sight.parts)} alone, {config.algorithm} shows "
            "a network the whole observation. Name a policy that sees all of it."
        )
    if policy.output_kind != "q_values":
        raise MismatchError(
            f"--init-from {config.init_from} gives {policy.output_kind}, {config.algorithm} goes on from q_values."
        )
    if policy.spec.architecture != architecture:
        raise UsageError(
            f"--init-from {config.init_from} holds {policy.spec.network_description}, "
            f"--network says {architecture.description}. {_words_for(policy.spec.architecture)}"
        )
    # Its weights, not its story: two games may share a fingerprint.
    return policy.with_spec(heads=tuple(HeadSpec(task) for task in tasks), name=name)


def _words_for(architecture: Architecture | None) -> str:
    """Return what to say to go on with the layers of a file."""
    try:
        named = architecture and parse_architecture(architecture.name, layer_norm=architecture.layer_norm)
    except UsageError:  # layers of another library
        named = None
    if named is None or named != architecture or named.remembers:
        return "No --network makes its layers: name another file."
    return f"Say the same: --network {named.name} {'--layer-norm' if named.layer_norm else '--no-layer-norm'}."


def _policy_name(tasks: Sequence[Task]) -> str:
    names = [task.name.removeprefix("atari:") for task in tasks]
    return "+".join(names) if len(names) <= _LARGEST_NAME else f"{len(names)} tasks"
