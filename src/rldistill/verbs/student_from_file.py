"""The student before its first update, from a policy file: with its weights, or with further heads."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from rldistill.errors import MismatchError, UsageError
from rldistill.networks import Architecture, InputNormalization, ModuleNetwork
from rldistill.options.distill import DistillOptions
from rldistill.policies import HeadSpec, PolicySpec, TorchPolicy, load_policy
from rldistill.policies.input_statistics import observed_statistics
from rldistill.sight import Sight
from rldistill.tasks import Task
from rldistill.verbs.initial_student import architecture_of, generator_of, normalizations_of_teachers, student_of
from rldistill.verbs.student_task import StudentTask


def student_from_file(
    options: DistillOptions, named: str, tasks: Sequence[StudentTask]
) -> tuple[TorchPolicy, tuple[Mapping[str, Any], ...]]:
    """Return the student of `init_from`, and the records of teachers of heads that it had before.

    Raises:
        MismatchError: the file has other heads, observations or layers.
        UsageError: settings that exclude each other.
    """
    assert options.init_from is not None, "it names the file"
    initial, wanted = load_policy(options.init_from), architecture_of(options, named)
    _check_sight(options, initial, tasks[0].sight)
    if options.add_head:
        _check_architecture(options, wanted, initial)
        return _with_more_heads(options, wanted, initial, tasks)
    in_order = _in_order_of(initial, options, tasks)
    _check_architecture(options, wanted, initial)
    normalizations = _normalizations_with(options, initial, in_order)
    student = student_of(options, wanted, in_order, normalizations)
    _check_inputs(options, initial, normalizations, student.spec.input_scale)
    _check_output_layers(options, initial, student.spec)
    # Only its weights: what the outputs mean and how the student acts follow from this run's losses and teachers.
    student.network.load_state_dict(initial.network.state_dict())
    return student, ()


def freeze_old_parts(student: TorchPolicy, taught_heads: Sequence[int]) -> nn.Module:
    """Freeze everything but the heads that are taught, and return these."""
    network = student.network
    assert not isinstance(network, ModuleNetwork), "a module of one's own gets no heads"
    network.requires_grad_(requires_grad=False)
    taught = nn.ModuleList(network.heads[head] for head in taught_heads)
    return taught.requires_grad_(requires_grad=True)


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
        MismatchError: they are to be normalised, and neither does so; or they are not to be, and the file does.
    """
    taught, own = normalizations_of_teachers(tasks), _normalizations_of(initial)
    if options.normalize_inputs is False and any(own) and not any(taught):
        raise MismatchError(
            f"--init-from {options.init_from} normalises its inputs: without that its weights would see something "
            "else. Leave --no-normalize-inputs out."
        )
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


def _check_architecture(options: DistillOptions, wanted: Architecture, initial: TorchPolicy) -> None:
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
    options: DistillOptions, wanted: Architecture, initial: TorchPolicy, tasks: Sequence[StudentTask]
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
        replace(initial.spec, heads=(*initial.spec.heads, *added), name=wanted.name),
        [own.normalization for own in _one_of_each_kind(initial)],
        generator=generator_of(options),
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
    old = dict.fromkeys(task.fingerprint.observation_description for task in initial.tasks)
    for task in new:
        if (own := task.task.fingerprint.observation_description) not in old:
            raise MismatchError(
                f"--add-head: {options.init_from} sees {'; '.join(old)}; {task.task.name} gives {own}: its torso "
                "cannot see that, too. Distil the new task into a student of its own."
            )


def _recorded_teachers(initial: TorchPolicy, taught: set[str]) -> tuple[Mapping[str, Any], ...]:
    """Return the records of teachers of the heads that are not taught anew."""
    provenance = initial.spec.provenance
    records: Any = provenance.get("teachers")
    if records is None and "teacher" in provenance and len(initial.spec.heads) == 1:
        records = [{"task": initial.spec.heads[0].task.name, **provenance["teacher"]}]
    return tuple(record for record in records or () if record.get("task") not in taught)
