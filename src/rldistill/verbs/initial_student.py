"""The student before its first update, of fresh weights or of a module."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from rldistill.errors import MismatchError, UsageError
from rldistill.networks import Architecture, GaussianOptions, InputNormalization, parse_architecture
from rldistill.networks.stemmed import stem_problem
from rldistill.options.distill import DistillOptions
from rldistill.policies import Behaviour, HeadSpec, PolicySpec, TorchPolicy
from rldistill.policies.input_statistics import statistics_for
from rldistill.policies.torch_policy import input_scale_of
from rldistill.seeding import stream_seed
from rldistill.verbs.student_task import StudentTask, kinds_of_observation


def new_student(options: DistillOptions, named: str, tasks: Sequence[StudentTask]) -> TorchPolicy:
    """Return a student of fresh weights, with a head for each task in their order; or of a module.

    Raises:
        MismatchError: the network does not suit the observations, or teachers normalise them differently.
        UsageError: something is said that a module does not take.
    """
    if isinstance(options.student, nn.Module):
        # A copy: the same call gives the same student again.
        return _module_student(options, named, tasks, copy.deepcopy(options.student))
    return student_of(options, architecture_of(options, named), tasks, normalizations_of_teachers(tasks))


def _module_student(
    options: DistillOptions, named: str, tasks: Sequence[StudentTask], module: nn.Module
) -> TorchPolicy:
    for option in options.further.values():
        raise UsageError(f"{option}: a module of your own gives its outputs alone. Leave it out, or name a network.")
    if len(tasks) > 1:
        names = ", ".join(task.task.name for task in tasks)
        raise UsageError(f"student: a module of your own plays one task, got {len(tasks)}: {names}. Name a preset.")
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise UsageError(f"student: {named} has no parameters that are trained.")
    (own,) = tasks
    kind, acts, statistics = own.output_kind, own.behaviour, own.normalization
    return TorchPolicy.from_module(
        module, own.task, output_kind=kind, behaviour=acts, normalization=statistics, sight=own.sight
    )


def normalizations_of_teachers(tasks: Sequence[StudentTask]) -> list[InputNormalization | None]:
    """Return the one normalisation of each kind of observation.

    Raises:
        MismatchError: teachers normalise the same kind differently.
    """
    for first, *others in kinds_of_observation(tasks):
        for task in others:
            if task.normalization != first.normalization:
                raise MismatchError(
                    f"The teachers of {first.task.name} and {task.task.name} normalise observations by different "
                    "statistics: one torso cannot see both. Distil each into a student of its own."
                )
    return [first.normalization for first, *_ in kinds_of_observation(tasks)]


def student_of(
    options: DistillOptions,
    architecture: Architecture,
    tasks: Sequence[StudentTask],
    normalizations: Sequence[InputNormalization | None],
) -> TorchPolicy:
    """Return a student of fresh weights; `normalizations` is one for each kind of observation."""
    first, kinds = tasks[0], kinds_of_observation(tasks)
    if len(kinds) > 1 and (why := stem_problem(architecture)):
        shown = " and ".join(f"{own[0].seen.observation_description} of {own[0].task.name}" for own in kinds[:2])
        raise MismatchError(
            f"Network {architecture.name!r} cannot see {shown}: {why}. Tasks of different vectors share an mlp of two "
            "hidden layers or more, and each kind has its own first layer: --student mlp:64x64, mlp:32+gru:16."
        )
    normalizations = [
        statistics_for(architecture, own[0].seen.observation_shape, normalization)
        for own, normalization in zip(kinds, normalizations, strict=True)
    ]
    settings = {
        own[0].task.name: None if normalization is None else normalization.settings
        for own, normalization in zip(kinds, normalizations, strict=True)
    }
    # What all heads do alike the policy says once.
    shared: Behaviour = "sample" if all(task.samples for task in tasks) else "greedy"
    heads = [
        HeadSpec(
            task.task,
            None if task.behaviour == shared else task.behaviour,
            None if task.output_kind == first.output_kind else task.output_kind,
            settings.get(task.task.name) if len(kinds) > 1 else None,
        )
        for task in tasks
    ]
    spec = PolicySpec(
        name=architecture.name,
        architecture=architecture,
        heads=tuple(heads),
        output_kind=first.output_kind,
        behaviour=shared,
        input_scale=input_scale_of(architecture, first.seen),
        gaussian=GaussianOptions(options.std),  # pyright: ignore[reportArgumentType] it checks
        normalization=settings[first.task.name] if len(kinds) == 1 else None,
        sight=first.sight,
    )
    return TorchPolicy.from_spec(spec, normalizations, generator=generator_of(options))


def architecture_of(options: DistillOptions, named: str) -> Architecture:
    """Return the network of a name, with what the options add to it."""
    return replace(parse_architecture(named), value_head=options.value_weight > 0)


def generator_of(options: DistillOptions) -> torch.Generator:
    """Return what fresh weights are drawn from."""
    return torch.Generator().manual_seed(stream_seed(options.seed, "weights"))
