"""The student before its first update: new, from a file, or a file's student with further heads."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from rldistill.adapters.in_process import check_module_state
from rldistill.errors import MismatchError, UsageError
from rldistill.networks import (
    Architecture,
    GaussianOptions,
    InputNormalization,
    ModuleNetwork,
    module_name,
    parse_architecture,
)
from rldistill.networks.stemmed import stem_problem
from rldistill.options.distill import DistillOptions
from rldistill.policies import Behaviour, HeadSpec, PolicySpec, TorchPolicy, load_policy
from rldistill.policies.input_statistics import observed_statistics, statistics_for
from rldistill.policies.torch_policy import input_scale_of
from rldistill.seeding import stream_seed
from rldistill.sight import Sight
from rldistill.tasks import ObservationFingerprint, Task
from rldistill.types import OutputKind

MODULE_PREFIX = "module:"


@dataclass(frozen=True)
class StudentTask:
    """A task that is taught.

    Attributes:
        task: with the layout of its teacher's actions.
        samples: whether the student is to sample its actions.
        normalization: of what the student sees, as its teacher has it.
        is_measured: whether its source is to measure that.
        sight: which parts of the observations the student sees; None: all.
        output_kind: of its head.
        remembers: whether its teacher has a memory, as far as is known.
    """

    task: Task
    samples: bool
    normalization: InputNormalization | None = None
    is_measured: bool = False
    sight: Sight | None = None
    output_kind: OutputKind = "q_values"
    remembers: bool = False

    @property
    def seen(self) -> ObservationFingerprint:
        """What the student sees of the task."""
        whole = self.task.fingerprint
        return whole if self.sight is None else self.sight.seen(whole)

    @property
    def behaviour(self) -> Behaviour:
        """How its head acts."""
        return "sample" if self.samples else "greedy"


def student_name(student: str | nn.Module) -> str:
    """Return a student as a configuration names it.

    Raises:
        UsageError: no name and no module, or a module with a memory: it is trained on single steps and would learn
            nothing from it.
    """
    if isinstance(student, nn.Module):
        check_module_state(student)
        return f"{MODULE_PREFIX}{module_name(student)}"
    if not isinstance(student, str):  # pyright: ignore[reportUnnecessaryIsInstance] Python lets anything in
        raise UsageError(
            f"student: got {student!r}, expected a network's name such as mlp:64x64, or a torch.nn.Module."
        )
    return student


def initial_student(
    options: DistillOptions, named: str, tasks: Sequence[StudentTask]
) -> tuple[TorchPolicy, tuple[Mapping[str, Any], ...]]:
    """Return the student to train, and the records of teachers of heads that it had before.

    Raises:
        MismatchError: `init_from` has other heads, observations or layers.
        UsageError: settings that exclude each other.
    """
    if isinstance(options.student, nn.Module):
        # A copy: the same call gives the same student again.
        return _module_student(options, tasks, copy.deepcopy(options.student)), ()
    if named.startswith(MODULE_PREFIX):
        raise UsageError(f"student: got {named!r}, a Python module that its name cannot bring back.")
    initial = None if options.init_from is None else load_policy(options.init_from)
    if initial is None:
        return new_student(options, named, tasks), ()
    _check_sight(options, initial, tasks[0].sight)
    if options.add_head:
        _check_architecture(options, named, initial)
        return _with_more_heads(options, named, initial, tasks)
    in_order = _in_order_of(initial, options, tasks)
    _check_architecture(options, named, initial)
    normalizations = _normalizations_with(options, initial, in_order)
    student = _new_student(options, named, in_order, normalizations)
    _check_inputs(options, initial, normalizations, student.spec.input_scale)
    _check_output_layers(options, initial, student.spec)
    # Only its weights: what the outputs mean and how the student acts follow from this run's losses and teachers.
    student.network.load_state_dict(initial.network.state_dict())
    return student, ()


def new_student(options: DistillOptions, named: str, tasks: Sequence[StudentTask]) -> TorchPolicy:
    """Return a student of fresh weights, with a head for each task in their order.

    Raises:
        MismatchError: the network does not suit the observations, or teachers normalise them differently.
    """
    return _new_student(options, named, tasks, _normalizations(tasks))


def freeze_old_parts(student: TorchPolicy, taught_heads: Sequence[int]) -> nn.Module:
    """Freeze everything but the heads that are taught, and return these."""
    network = student.network
    assert not isinstance(network, ModuleNetwork), "a module of one's own gets no heads"
    network.requires_grad_(requires_grad=False)
    taught = nn.ModuleList(network.heads[head] for head in taught_heads)
    return taught.requires_grad_(requires_grad=True)


def _module_student(options: DistillOptions, tasks: Sequence[StudentTask], module: nn.Module) -> TorchPolicy:
    if options.init_from is not None:
        raise UsageError("init_from does not go with a module of your own: load its weights before you pass it.")
    for option in options.further.values():
        raise UsageError(f"{option}: a module of your own gives its outputs alone. Leave it out, or name a network.")
    if len(tasks) > 1:
        names = ", ".join(task.task.name for task in tasks)
        raise UsageError(f"student: a module of your own plays one task, got {len(tasks)}: {names}. Name a preset.")
    (own,) = tasks
    kind, acts, statistics = own.output_kind, own.behaviour, own.normalization
    return TorchPolicy.from_module(
        module, own.task, output_kind=kind, behaviour=acts, normalization=statistics, sight=own.sight
    )


def kinds_of_observation(tasks: Sequence[StudentTask]) -> list[list[StudentTask]]:
    """Return the tasks by what the student sees of them: those of one kind share a stem, or the whole network."""
    kinds: dict[str, list[StudentTask]] = {}
    for task in tasks:
        kinds.setdefault(task.seen.observation_description, []).append(task)
    return list(kinds.values())


def _normalizations(tasks: Sequence[StudentTask]) -> list[InputNormalization | None]:
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


def _normalizations_of(policy: TorchPolicy) -> list[InputNormalization | None]:
    """Return how a policy normalises each kind of observation."""
    return [observed_statistics(own) for own in _one_of_each_kind(policy)]


def _one_of_each_kind(policy: TorchPolicy) -> list[TorchPolicy]:
    """Return a policy as it plays the first task of each kind of observation."""
    first_heads = dict(reversed([(kind, head) for head, kind in enumerate(policy.spec.stems)]))
    names = list(policy.spec.head_sizes)
    return [policy.for_task(names[first_heads[kind]]) for kind in sorted(first_heads)]


def _normalizations_with(
    options: DistillOptions, initial: TorchPolicy, tasks: Sequence[StudentTask]
) -> list[InputNormalization | None]:
    """Return how observations are normalised for the weights of a file: as the teachers do, else as it has it.

    Raises:
        MismatchError: they are to be normalised, and neither does so.
    """
    taught, own = _normalizations(tasks), _normalizations_of(initial)
    if any(taught) or options.normalize_inputs is False:
        return taught
    if options.normalize_inputs and not any(own):
        raise MismatchError(
            f"--init-from {options.init_from} does not normalise its inputs: its weights would see something else. "
            "Leave --normalize-inputs out."
        )
    return own


def _check_inputs(
    options: DistillOptions,
    initial: TorchPolicy,
    normalizations: Sequence[InputNormalization | None],
    input_scale: float,
) -> None:
    if initial.spec.input_scale != input_scale:
        raise MismatchError(
            f"--init-from {options.init_from} multiplies observations by {initial.spec.input_scale:g}, a student of "
            f"these data by {input_scale:g}: its weights would see something else. Leave --init-from out."
        )
    if _normalizations_of(initial) != list(normalizations):
        raise MismatchError(
            f"--init-from {options.init_from} normalises observations by other statistics than the teacher "
            "(one of the two may have none): its weights would see something else. Leave --init-from out."
        )


def _check_sight(options: DistillOptions, initial: TorchPolicy, sight: Sight | None) -> None:
    own = initial.spec.sight
    if own != sight:
        sees, said = ("everything" if one is None else ",".join(one.parts) for one in (own, sight))
        raise MismatchError(
            f"--init-from {options.init_from} sees {sees}, --student-sees says {said}: its weights would see something "
            "else. Say the same parts, with the same --names, or leave --init-from out."
        )


def _check_output_layers(options: DistillOptions, initial: TorchPolicy, new: PolicySpec) -> None:
    old = initial.spec
    if (old.atoms, old.is_beta) != (new.atoms, new.is_beta):
        raise MismatchError(
            f"--init-from {options.init_from} gives distributions of {'actions' if old.is_beta else 'values'}, and "
            "students cannot begin from those. Distil it instead: --teacher FILE."
        )
    were, are = ([layer.kind for layer in spec.output_layers.values()] for spec in (old, new))
    if "gaussian" in (*were, *are) and (were, old.gaussian) != (are, new.gaussian):
        raise MismatchError(
            f"--init-from {options.init_from} gives {old.output_kind} (std {old.gaussian.std}), this loss makes a "
            f"student of {new.output_kind} (std {new.gaussian.std}). Choose the loss and --std that it was made with."
        )


def _new_student(
    options: DistillOptions,
    named: str,
    tasks: Sequence[StudentTask],
    normalizations: Sequence[InputNormalization | None],
) -> TorchPolicy:
    architecture, first = _architecture(options, named), tasks[0]
    kinds = kinds_of_observation(tasks)
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
    return TorchPolicy.from_spec(spec, normalizations, generator=_generator(options))


def _architecture(options: DistillOptions, named: str) -> Architecture:
    return replace(parse_architecture(named), value_head=options.value_weight > 0)


def _generator(options: DistillOptions) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(options.seed, "weights"))


def _check_architecture(options: DistillOptions, named: str, initial: TorchPolicy) -> None:
    wanted = _architecture(options, named)
    if initial.spec.architecture is not None and initial.spec.architecture.value_head != wanted.value_head:
        raise MismatchError(
            f"--init-from {options.init_from} has {'a' if not wanted.value_head else 'no'} head of state values. "
            f"{'Name' if not wanted.value_head else 'Leave out'} --value-weight."
        )
    if initial.spec.architecture != wanted:
        raise MismatchError(
            f"--init-from {options.init_from} holds {initial.spec.network_description}, "
            f"--student says {wanted.description}."
        )


def _in_order_of(initial: TorchPolicy, options: DistillOptions, tasks: Sequence[StudentTask]) -> list[StudentTask]:
    """Return this run's tasks in the order in which the file has them."""
    by_name = {task.task.name: task for task in tasks}
    old = initial.spec.heads
    # One task to one task: a start from another game's weights is fair, where actions and observations are the same.
    names = [tasks[0].task.name] if len(tasks) == len(old) == 1 else [head.task.name for head in old]
    if set(names) != set(by_name):
        raise MismatchError(
            f"--init-from {options.init_from} has heads for {', '.join(names)}, the data are of {', '.join(by_name)}. "
            "Add heads for new tasks with --add-head."
        )
    for head, name in zip(old, names, strict=True):
        _check_fingerprint(options, head.task, by_name[name].task)
    return [by_name[name] for name in names]


def _check_fingerprint(options: DistillOptions, old: Task, new: Task) -> None:
    differences = old.fingerprint.differences(new.fingerprint)
    if differences:
        raise MismatchError(
            f"--init-from {options.init_from} does not fit the data of {new.name}: {'; '.join(differences)}."
        )


def _with_more_heads(
    options: DistillOptions, named: str, initial: TorchPolicy, tasks: Sequence[StudentTask]
) -> tuple[TorchPolicy, tuple[Mapping[str, Any], ...]]:
    old_names = list(initial.spec.head_sizes)
    new = [task for task in tasks if task.task.name not in old_names]
    if not new:
        raise MismatchError(
            f"--add-head: {options.init_from} has a head for each of {', '.join(t.task.name for t in tasks)} already. "
            "Leave --add-head out to train them on."
        )
    for task in tasks:
        if task.task.name in old_names:
            _check_fingerprint(options, initial.spec.heads[old_names.index(task.task.name)].task, task.task)
    _check_seen(options, initial, new)
    if not options.train_torso and len(new) < len(tasks):
        known = ", ".join(task.task.name for task in tasks if task.task.name in old_names)
        raise UsageError(f"--add-head leaves the head of {known} as it is: leave its data out, or add --train-torso.")
    if initial.output_kind == "q_values" and any(task.samples for task in new):
        raise MismatchError(
            f"--add-head: {options.init_from} gives q_values, and {new[0].task.name} has a teacher that samples from "
            "logits: one policy cannot give both. Train a new student of all tasks."
        )
    behaviour = initial.spec.behaviour
    added = [HeadSpec(task.task, None if task.behaviour == behaviour else task.behaviour) for task in new]
    _check_inputs(options, initial, _normalizations_with(options, initial, new), initial.spec.input_scale)
    for kind in (task.output_kind for task in tasks):
        if kind != initial.output_kind and not {kind, initial.output_kind} <= {"q_values", "logits"}:
            raise MismatchError(
                f"--add-head: {options.init_from} gives {initial.output_kind}, this loss makes a head of {kind}: heads "
                "are added of the kind that is there. Choose another --loss, or train a new student of all tasks."
            )
    _check_added_std(options, initial)
    # All that its description says stays: how it scales inputs, and what its outputs are.
    student = TorchPolicy.from_spec(
        replace(initial.spec, heads=(*initial.spec.heads, *added), name=parse_architecture(named).name),
        [own.normalization for own in _one_of_each_kind(initial)],
        generator=_generator(options),
    )
    missing, unexpected = student.network.load_state_dict(initial.network.state_dict(), strict=False)
    prefixes = tuple(f"heads.{index}." for index in range(len(old_names), len(student.spec.heads)))
    assert not unexpected and all(name.startswith(prefixes) for name in missing), (missing, unexpected)
    return student, _recorded_teachers(initial, {task.task.name for task in tasks})


def _check_added_std(options: DistillOptions, initial: TorchPolicy) -> None:
    """Check that a new head's spread is what the user says, and that `fixed` is taken from this head's own teacher."""
    own, said = initial.spec.gaussian.std, options.std
    if initial.output_kind == "gaussian" and own != said and (own == "fixed" or said != "state"):
        raise MismatchError(
            f"--add-head: {options.init_from} gives Gaussians of std {own}, --std says {said}: all heads of a policy "
            f"have the same. Say --std {own}, or train a new student of all tasks."
        )


def _check_seen(options: DistillOptions, initial: TorchPolicy, new: Sequence[StudentTask]) -> None:
    """Check that the torso of a file can see the tasks that its student gets heads for."""
    old = initial.tasks[0].fingerprint.observation_description
    for task in new:
        if (own := task.task.fingerprint.observation_description) != old:
            raise MismatchError(
                f"--add-head: {options.init_from} sees {old}, {task.task.name} gives {own}: one torso cannot see both. "
                "Distil the new task into a student of its own."
            )


def _recorded_teachers(initial: TorchPolicy, taught: set[str]) -> tuple[Mapping[str, Any], ...]:
    """Return the records of teachers of the heads that are not taught anew."""
    provenance = initial.spec.provenance
    records: Any = provenance.get("teachers")
    if records is None and "teacher" in provenance and len(initial.spec.heads) == 1:
        records = [{"task": initial.spec.heads[0].task.name, **provenance["teacher"]}]
    return tuple(record for record in records or () if record.get("task") not in taught)
