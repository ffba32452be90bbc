"""From what a user names to a policy and the task it plays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, cast

from gymnasium.vector import VectorEnv

from rldistill.adapters.load import (
    LoadedPolicy,
    acting,
    detect_kind,
    hint_to_save,
    load_with,
    policy_file_of,
    share_words,
)
from rldistill.data import TeacherEntry
from rldistill.envs import PlayableTask, TaskLike, make_task
from rldistill.envs.atari import atari_task
from rldistill.envs.extended import ObservationSettings
from rldistill.errors import MismatchError, UsageError
from rldistill.loading.bundled import recorded_path
from rldistill.loading.several import Choose, SeveralTeachers, make_choice, several_by_name
from rldistill.options.collect import CollectOptions
from rldistill.options.distill import Live
from rldistill.options.reading import Reading
from rldistill.options.shrink import ShrinkOptions
from rldistill.policies import Policy, TorchPolicy, fit_policy
from rldistill.policies.behaviour import Behaviour, check_behaviour, check_can_sample
from rldistill.policies.entry import several_entry, teacher_entry
from rldistill.policies.sighted import SightedPolicy, check_takes_parts, seeing
from rldistill.policies.switched import SwitchedPolicy
from rldistill.sight import choose_parts, shown_to
from rldistill.tasks import Protocol, Task
from rldistill.types import resolve_device


@dataclass(frozen=True)
class PolicyFile:
    """A file, or a run folder, with what the user says of files that do not say it themselves."""

    path: Path
    reading: Reading


PolicyLike = str | Path | PolicyFile | Policy | SeveralTeachers


def policy_files(paths: Sequence[Path], reading: Reading) -> list[PolicyFile]:
    """Return files, each with what is said of files like it.

    Raises:
        PolicyFileError: there is no such file.
        UsageError: something that is said applies to none of them.
    """
    if len(paths) == 1:
        return [PolicyFile(paths[0], reading)]
    readings = share_words([policy_file_of(path) for path in paths], reading)
    return [PolicyFile(path, own) for path, own in zip(paths, readings, strict=True)]


def as_named(
    policy: PolicyLike | Mapping[str, PolicyLike] | Sequence[PolicyLike], reading: Reading, choose: Choose | None = None
) -> PolicyLike:
    """Return a policy with what is said of its file; a policy that is given as an object has none.

    Of several teachers of one task, by name, `choose` says which of them labels a row.

    Raises:
        UsageError: something is said of an object that only files leave open; or several teachers are not told apart.
    """
    several = several_by_name(policy, choose)
    if several is not None:
        assert choose is not None, "several teachers come with what chooses among them"
        named = as_all_named(list(several.values()), reading)
        return SeveralTeachers(dict(zip(several, named, strict=True)), choose)
    if isinstance(policy, str | Path):
        return PolicyFile(Path(policy), reading.as_reading())
    said = [name for name in reading.to_dict() if name != "behaviour"]
    if said and not isinstance(policy, SeveralTeachers):
        raise UsageError(f"{said[0]} is said of policy files, got a {type(policy).__name__}. Leave it out.")
    return cast(PolicyLike, policy)  # no mapping and no list is left


def as_all_named(policies: Sequence[PolicyLike], reading: Reading) -> list[PolicyLike]:
    """Return policies, each file with what is said of files like it.

    Raises:
        PolicyFileError: there is no such file.
        UsageError: something that is said applies to none of them.
    """
    if not any(isinstance(policy, str | Path) for policy in policies):
        return [as_named(policy, reading) for policy in policies]
    paths = [Path(policy) for policy in policies if isinstance(policy, str | Path)]
    files = iter(policy_files(paths, reading.as_reading()))
    return [next(files) if isinstance(policy, str | Path) else policy for policy in policies]


def path_of(policy: PolicyLike) -> Path | None:
    """Return where a policy comes from; None for one that was given as an object."""
    if isinstance(policy, PolicyFile):
        return policy.path
    return Path(policy) if isinstance(policy, str | Path) else None


def files_of(policies: Sequence[PolicyLike]) -> list[Path]:
    """Return the files that policies are read from: their own, and of the statistics that were named with them."""
    by_policy = (own.teachers.values() if isinstance(own, SeveralTeachers) else (own,) for own in policies)
    single = list(chain(*by_policy))
    own = [path for policy in single if (path := path_of(policy)) is not None]
    said = [policy.reading.normalizer for policy in single if isinstance(policy, PolicyFile)]
    return [*own, *(Path(normalizer) for normalizer in said if normalizer is not None)]


def policy_name(named: PolicyLike) -> str | tuple[str, ...]:
    """Return a policy as a configuration names it: its file, or `policy:` and its hash; of several one by one."""
    if isinstance(named, SeveralTeachers):
        return tuple(f"{name}={policy_name(own)}" for name, own in named.teachers.items())
    path = path_of(named)
    if path is None:
        assert not isinstance(named, str | Path | PolicyFile), "those have a path"
        return f"policy:{named.hash}"
    return str(path)


def task_name(task: TaskLike) -> str:
    """Return a task as a configuration names it."""
    if isinstance(task, str):
        return task
    if isinstance(task, Task):
        return task.name
    if isinstance(task, PlayableTask):
        return task.task.name
    return type(task).__name__ if isinstance(task, VectorEnv) else getattr(task, "__qualname__", repr(task))


def as_policy(
    policy: PolicyLike,
    *,
    device: str,
    task: object = None,
    env_kwargs: Mapping[str, Any] | None = None,
    sees: str | Sequence[str] | None = None,
    names: Mapping[str, Sequence[int]] | None = None,
) -> Policy:
    """Return a policy: itself, from its file, or what a run folder ends in: the student, or the last policy.

    Args:
        policy: itself, a file of any library, or a run folder.
        device: auto, cpu or cuda.
        task: that it is to play, for files that do not say it; several of them say nothing.
        env_kwargs: settings of the task.
        sees: which parts of the task's observations it is given, in order; None: all.
        names: of spans of a vector.

    Raises:
        PolicyFileError: there is no such file, or it cannot be trusted.
        UsageError: the file does not say something that nobody said; the task has no such part; or the file itself
            says which parts it sees.
    """
    if isinstance(policy, SeveralTeachers):
        load = partial(as_policy, device=device, task=task, env_kwargs=env_kwargs, sees=sees, names=names)
        members = {name: load(own) for name, own in policy.teachers.items()}
        first = next(iter(members.values()))
        observed = played_by(first, make_task(_one_task(task, env_kwargs) or first.tasks[0])).task
        fitted = {name: fit_policy(own, observed) for name, own in members.items()}
        return SwitchedPolicy(fitted, observed, make_choice(policy.choose, names, observed))
    if sees is not None:
        whole = _one_task(task, env_kwargs)
        if whole is None:
            raise UsageError("teacher_sees chooses parts of the observations of one task: name it, --task ID.")
        sight = choose_parts("teacher_sees", sees, names, whole)
        assert sight is not None, "parts are chosen"
        own = as_policy(policy, device=device, task=shown_to(whole, sight))
        check_takes_parts(own, sight, str(path_of(policy) or f"Policy {own.name!r}"))
        return seeing(own, whole, sight)
    if not isinstance(policy, str | Path | PolicyFile):
        if not hasattr(policy, "tasks"):  # a protocol's isinstance would look at every method
            raise UsageError(
                f"policy: got a {type(policy).__name__}, expected a policy or its file. load_policy makes a policy of "
                f"a module or a function.{hint_to_save(policy)}"
            )
        return policy.to(resolve_device(device)) if isinstance(policy, TorchPolicy) else policy
    named = policy if isinstance(policy, PolicyFile) else PolicyFile(Path(policy), Reading())
    return load_file(named, device=device, task=task, env_kwargs=env_kwargs)


def entry_of(policy: Policy, named: PolicyLike, *, played_as: Behaviour | None = None) -> TeacherEntry:
    """Return what datasets and students record of a teacher, and of what its user said of it.

    `played_as` is how it acted while it was recorded; None: as it does.
    """
    if not isinstance(named, SeveralTeachers):
        path, said = path_of(named), named.reading.to_dict() if isinstance(named, PolicyFile) else {}
        return teacher_entry(policy, None if path is None else recorded_path(path), said or None, played_as=played_as)
    assert isinstance(policy, SwitchedPolicy), "several teachers are one such policy"
    members = [entry_of(own, named.teachers[name]) for name, own in policy.members.items()]
    return several_entry(policy, members, played_as=played_as)


def load_file(
    named: PolicyFile, *, device: str, task: object, env_kwargs: Mapping[str, Any] | None = None
) -> LoadedPolicy:
    """Return what a file holds; one that names no task is read for this one."""
    path = policy_file_of(named.path)
    is_ours = detect_kind(path) == "policy"
    return load_with(path, named.reading, device=device, task=None if is_ours else _one_task(task, env_kwargs))


def _one_task(task: Any, env_kwargs: Mapping[str, Any] | None) -> Task | None:  # noqa: ANN401 (whatever names tasks)
    """Return the one task that is named, under its usual protocol.

    A policy that takes its task from here has the same identity whatever the protocol of the moment.
    """
    if isinstance(task, Sequence) and not isinstance(task, str):
        task = task[0] if len(task) == 1 else None
    if task is None:
        return None
    named = task if isinstance(task, Task) else make_task(task, env_kwargs).task
    protocol = atari_task(named.name, {}).protocol if named.is_atari else Protocol()
    return replace(named, protocol=protocol)


def played_by(policy: Policy, playable: PlayableTask) -> PlayableTask:
    """Return a task with what a policy was trained to see beside the environment's observations, such as a clock.

    Raises:
        MismatchError: the user said that something else is appended, which the policy does not see.
    """
    name = playable.task.name
    head = policy.for_task(name) if name in [own.name for own in policy.tasks] else policy
    observed = playable.observed_as(head.tasks[0].fingerprint)
    said, wanted = (ObservationSettings.of(each.task.fingerprint) for each in (playable, observed))
    if said.num_appended and said != wanted:
        raise MismatchError(
            f"Task {name!r}: got zero_padding {said.zero_padding} and time_feature {said.time_feature}, policy "
            f"{policy.name!r} was trained with {wanted.zero_padding} and {wanted.time_feature}. Leave both out: what a "
            "policy sees beside its environment is appended without being told."
        )
    return observed


def as_teacher(
    named: PolicyLike,
    task: TaskLike | None,
    said: CollectOptions | Live | ShrinkOptions,
    *,
    device: str,
    names: Mapping[str, Sequence[int]] | None,
) -> tuple[Policy, PlayableTask]:
    """Return a policy that acts as the user says, and the task that it is to play (None: its own), as it is played.

    `said` is what it sees, how it acts and how the task is played; `names` are those of spans of a vector. `device` is
    auto, cpu or cuda.

    Raises:
        PolicyFileError: there is no such file, or it cannot be trusted.
        MismatchError: policy and task do not fit.
        UsageError: a task, a setting or a behaviour that nobody knows.
    """
    if isinstance(task, str):
        make_task(task, said.env_kwargs)  # wrong usage whatever the files say
    policy = as_policy(named, device=device, task=task, env_kwargs=said.env_kwargs, sees=said.teacher_sees, names=names)
    playable = played_by(policy, make_task(task if task is not None else policy.tasks[0], said.env_kwargs))
    if said.exploration_epsilon is not None:
        playable = playable.with_exploration(said.exploration_epsilon)
    return told_to_act(fit_policy(policy, playable.task), said.behaviour), playable


def told_to_act(policy: Policy, behaviour: Behaviour | None) -> Policy:
    """Return a policy that acts as the user says; None: as it does.

    Raises:
        UsageError: nobody knows that behaviour, or there is nothing to sample from.
    """
    if check_behaviour(behaviour) in (None, policy.behaviour):
        return policy
    if isinstance(policy, SightedPolicy | SwitchedPolicy):
        return policy.mapped(lambda own: told_to_act(own, behaviour))
    if not isinstance(policy, LoadedPolicy):
        raise UsageError(
            f"behaviour: got {behaviour!r} for a {type(policy).__name__}, which acts as it does. Leave it out."
        )
    if behaviour == "sample":
        check_can_sample(policy.name, policy.output_kind)
    return acting(policy, behaviour)


def while_recorded(policy: Policy, behaviour: Behaviour | None) -> Policy:
    """Return a teacher as it plays while its steps are recorded.

    A Gaussian that acts by its mean is sampled unless the user says how it acts: the mean alone visits the states of
    perfect play, and the student's first error leads elsewhere. Targets stay what they are, the whole distribution.

    `behaviour` is what the user said of how it acts; None: nothing.
    """
    if isinstance(policy, SightedPolicy | SwitchedPolicy):
        return policy.mapped(lambda own: while_recorded(own, behaviour))
    if behaviour is not None or policy.output_kind != "gaussian" or not isinstance(policy, LoadedPolicy):
        return policy
    return acting(policy, "sample")


def sampling_note(teacher: Policy, player: Policy) -> str | None:
    """Return what people should know where a teacher plays otherwise while it is recorded than it acts."""
    if teacher.behaviour == player.behaviour:
        return None
    return (
        f"{teacher.name} acts greedily, but while it is recorded its actions are sampled so that the data cover more "
        "states. --behaviour greedy turns this off."
    )
