"""Export a policy: check all that can be checked before anything is played or written, then do it.

Writing, reading back and comparing are in `export_run.py`.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import torch

from rldistill.data import Dataset
from rldistill.envs import PlayableTask, make_task
from rldistill.errors import RldistillError, UsageError
from rldistill.exports import trajectories
from rldistill.exports.c_format import check_file_name, check_plan
from rldistill.exports.environment import names_of
from rldistill.exports.fine_tuning import tunable
from rldistill.exports.formats import Export, ExportFormat, as_seen, format_of
from rldistill.exports.names import names_of_spans, read_names
from rldistill.exports.places import check_free, places
from rldistill.exports.result import Exported
from rldistill.exports.states import state_parts
from rldistill.exports.table import FORMATS, check_form
from rldistill.exports.trajectories import TrajectorySource
from rldistill.loading.named import as_named, as_policy, files_of, path_of, played_by
from rldistill.options.declaration import verb
from rldistill.options.export import ExportOptions
from rldistill.policies import Policy, TorchPolicy
from rldistill.policies.sighted import SightedPolicy
from rldistill.session.machine import resolve_machine
from rldistill.session.run_folder import keep_inputs, recorded_data
from rldistill.verbs.export_run import Job, on_cpu, run


@verb(ExportOptions)
def export(options: ExportOptions) -> Exported:
    """Write a policy in a form that others run, with its contract, after proving that it acts the same.

    Returns:
        What was written and measured: `path`, `format`, `precision`, `num_bytes`, `parity`, `times`, `score`; `print`
        shows it, `to_dict()` is the JSON.

    Raises:
        UsageError: an option is out of range, or a head must be named.
        MismatchError: policy, task and data do not belong together.
        OutputExistsError: `out` is there already, and `overwrite` was not given.
        GateError: what was written does not act as the policy does; it is kept under another name, and `result` says
            how far apart they are.
        KeyboardInterrupt: stopped; nothing is written.
    """
    return run(prepare(options))


def prepare(options: ExportOptions) -> Job:
    """Load the policy and find what it is compared on: all that is checked before anything is played or written.

    Raises:
        RldistillError: as `export`.
    """
    options = resolve_machine(options)
    chosen = format_of(FORMATS, options.to, Path(options.out))
    _check_usage(options, chosen)
    if chosen.check_packages is not None:
        chosen.check_packages()
    spans = options.names if isinstance(options.names, Mapping) else None
    file = None if options.names is None or spans is not None else Path(str(options.names))
    names = None if file is None else read_names(file)  # wrong usage, likewise
    if isinstance(options.task, str):
        make_task(options.task, options.env_kwargs)  # wrong usage whatever the files say
    named = as_named(options.policy, options)
    data = None if options.data is None else Path(options.data)
    check_free(Path(options.out), chosen, overwrite=options.overwrite)
    for path in places(Path(options.out), chosen):
        keep_inputs(path, [*files_of([named]), data, file], overwrite=options.overwrite)
    policy = _head(as_policy(named, device=options.device, task=options.task, env_kwargs=options.env_kwargs), options)
    check_form(policy, chosen)
    if options.quantization_aware and state_parts(policy):
        raise RldistillError(
            f"--quantization-aware trains on single observations, and policy {policy.name!r} remembers. Leave it out: "
            "int8 keeps 12 bits of what is remembered."
        )
    if options.probabilities and policy.output_kind != "logits":
        raise UsageError(f"--probabilities: policy {policy.name!r} gives {policy.output_kind}, which are no choices.")
    recorded = () if data is not None else recorded_data(path_of(named))
    dataset = trajectories.learned_from(policy, recorded) if data is None else trajectories.open_for(policy, data)
    if options.precision == "int8" and dataset is None:
        raise RldistillError(
            f"--precision int8 is calibrated on observations of a dataset: the run folder of policy {policy.name!r} "
            "names none that is still there. Name one: --data FOLDER, which `rldistill collect` makes of its teacher's "
            "play."
        )
    calibration = _calibration(policy, dataset, options)
    _check_plan(policy, chosen, calibration, options)
    task = None if options.task is None else played_by(policy, make_task(options.task, options.env_kwargs))
    playable = task or _own_task(policy, dataset)
    if names is None:
        names = names_of(playable) if spans is None else names_of_spans(spans, policy.tasks[0])
    source = _source(policy, task, playable, dataset, options)
    return Job(options, named, policy, chosen, names, task, playable, dataset, calibration, source)


def _check_usage(options: ExportOptions, chosen: ExportFormat) -> None:
    """Check that a format has what is asked of it; raises UsageError."""
    if options.precision not in chosen.precisions:
        raise UsageError(f"--precision {options.precision}: --to {chosen.name} has {', '.join(chosen.precisions)}.")
    if options.probabilities and not chosen.may_give_probabilities:
        raise UsageError(f"--probabilities: files of --to {chosen.name} have no place for them. Leave it out.")
    if options.most_bytes and chosen.name != "c":
        raise UsageError(f"--fits is for --to c, got --to {chosen.name}.")
    if options.license is not None and chosen.name != "hub-folder":
        raise UsageError(f"--license is for the card of --to hub-folder, got --to {chosen.name}.")
    if chosen.name == "c":
        check_file_name(Path(options.out))


def _calibration(policy: TorchPolicy, dataset: Dataset | None, options: ExportOptions) -> trajectories.Sample | None:
    """Return what eight bits are calibrated on, and the one spread of a Gaussian where a format has none by state."""
    if dataset is None or (options.precision != "int8" and policy.output_kind != "gaussian"):
        return None
    return trajectories.calibration_sample(on_cpu(policy), dataset, options.seed)


def _check_plan(
    policy: TorchPolicy, chosen: ExportFormat, sample: trajectories.Sample | None, options: ExportOptions
) -> None:
    """Check that C, and fine-tuning for int8, know the policy's layers; raises RldistillError."""
    if chosen.name != "c" and not options.quantization_aware:
        return
    own = on_cpu(policy)
    if chosen.name == "c":
        check_plan(Export(as_seen(own), {}, precision=options.precision, calibration=sample), options.most_bytes)
    else:
        assert sample is not None, "an export of int8 without data was refused before"
        tunable(as_seen(own), torch.as_tensor(sample.observations))


def _head(policy: Policy, options: ExportOptions) -> TorchPolicy:
    """Return the policy playing the head that is exported."""
    if isinstance(policy, SightedPolicy):
        raise RldistillError(
            f"Policy {policy.name!r} sees parts of {policy.tasks[0].name} by teacher_sees, and an export would not say "
            "which. Export its file by itself, or distil it."
        )
    if not isinstance(policy, TorchPolicy):
        raise RldistillError(
            f"Policy {policy.name!r} is a program, not weights: there is nothing to export but the file that it is. "
            "Distil it into a network first: rldistill distill --teacher FILE."
        )
    heads = [own.name for own in policy.tasks]
    if len(heads) == 1:
        return policy
    if options.task is None:
        raise UsageError(f"Policy {policy.name!r} has heads for {', '.join(heads)}: name one of them with --task.")
    name = options.task if isinstance(options.task, str) else make_task(options.task, options.env_kwargs).task.name
    # Of tasks with different observations each alone is an ordinary network.
    return policy.single_task(name) if policy.spec.has_stems else policy.for_task(name)


def _own_task(policy: TorchPolicy, dataset: Dataset | None) -> PlayableTask | None:
    """Return the task that a policy's file names, else that of the data; None where neither can be made here."""
    try:
        return played_by(policy, make_task(policy.tasks[0]))
    except RldistillError as error:
        if dataset is not None:
            with contextlib.suppress(RldistillError):
                return played_by(policy, make_task(dataset.provenance.task))
            return None
        raise RldistillError(
            f"An export is compared with its policy on real observations, and there are none: {error} Name its task "
            "(--task ID), or a dataset (--data FOLDER)."
        ) from error


def _source(
    policy: TorchPolicy,
    task: PlayableTask | None,
    playable: PlayableTask | None,
    dataset: Dataset | None,
    options: ExportOptions,
) -> TrajectorySource:
    """Return what policy and export are compared on: the named task, else the data, else the policy's own task."""
    if task is None and dataset is not None:
        return trajectories.of_dataset(policy, dataset, options.num_episodes)
    assert playable is not None, "without data the task must be there"
    return trajectories.of_task(
        policy,
        playable,
        options.num_episodes,
        seed=options.seed,
        num_envs=options.num_envs,
        num_threads=options.num_threads,
    )
