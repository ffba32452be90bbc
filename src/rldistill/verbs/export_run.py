"""The work of an export: write it, read it back, compare it over whole trajectories, and then put it in its place."""

from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rldistill.data import Dataset
from rldistill.envs import PlayableTask
from rldistill.errors import GateError
from rldistill.evaluation.names import NamedPolicy
from rldistill.evaluation.play import TaskPlay
from rldistill.evaluation.records import Evaluation
from rldistill.events import Callback, ProgressEvent, StopRequestedError, notify, tell
from rldistill.exports import trajectories
from rldistill.exports.contract import make_contract, retention_in, score_in
from rldistill.exports.fine_tuning import NUM_UPDATES, fine_tune
from rldistill.exports.formats import Export, ExportFormat, as_seen
from rldistill.exports.names import Names
from rldistill.exports.parity import DecisionTime, compare, time_decisions
from rldistill.exports.places import beside, free_name, move_in, staging
from rldistill.exports.result import Exported
from rldistill.exports.sb3_format import predict_of
from rldistill.exports.trajectories import Decisions, TrajectorySource
from rldistill.limits import JSON, read_file, read_json
from rldistill.loading.named import PolicyLike, path_of
from rldistill.loading.recorded import recorded_teacher
from rldistill.observations import flat
from rldistill.options.export import ExportOptions
from rldistill.policies import Policy, TorchPolicy
from rldistill.policies.sighted import seeing
from rldistill.rollout.threads import use_threads
from rldistill.session.interrupts import stop_on_interrupt
from rldistill.session.run_folder import without_folders
from rldistill.sight import Sight
from rldistill.storage import write_json, writing
from rldistill.tasks import Task

_TIMED_ROWS = 64
_EVALUATION_FILE = "evaluation.json"


@dataclass(frozen=True)
class Job:
    """An export that was checked as far as nothing is played or written for it."""

    options: ExportOptions
    named: PolicyLike
    policy: TorchPolicy  # plays the head that is exported
    format: ExportFormat
    names: Names
    task: PlayableTask | None  # that was named, to be played for a score
    playable: PlayableTask | None  # the policy's task, where it can be made here
    dataset: Dataset | None
    calibration: trajectories.Sample | None  # what eight bits, and the one spread of some Gaussians, are measured on
    source: TrajectorySource

    @property
    def out(self) -> Path:
        """Where the export goes."""
        return Path(self.options.out)


def run(job: Job) -> Exported:
    """Write, read back, compare, and move everything into its place; raises as `export`."""
    options = job.options
    with (
        use_threads(options.num_threads),
        stop_on_interrupt(options.callbacks) as listeners,
        staging(job.out) as folder,
    ):
        if job.policy.behaviour == "sample":
            text = f"{job.policy.name} draws its actions: `action` is the most likely one, draw from the other outputs"
            tell(listeners, text)
        try:
            made = _made(job, _rows(job, listeners), listeners)
            with writing(job.out):
                written = job.format.write(made, folder / job.out.name)
            result = replace(_verified(job, made, folder, listeners), written=written)
        except StopRequestedError:
            raise KeyboardInterrupt("stopped; nothing is written.") from None
        _deliver(job, made, result, folder)
    return result


def _made(job: Job, rows: Any, listeners: list[Callback]) -> Export:  # noqa: ANN401 (JSON)
    """Return the policy with all that goes out with it, and what an evaluation's rows say of it."""
    options, policy = job.options, on_cpu(job.policy)
    measured = policy.hash
    # An export without data was refused where it needs them.
    dataset, calibration = job.dataset, job.calibration
    if options.quantization_aware:
        assert dataset is not None and calibration is not None, "refused before"

        def observe(steps: NDArray[np.int64]) -> NDArray[np.generic]:
            return trajectories.seen_rows(policy, flat(dataset.observations(steps)))

        def heard(num_updates: int) -> None:
            notify(listeners, ProgressEvent("fine-tune", num_updates, NUM_UPDATES, "updates"))

        rows_seen = torch.as_tensor(calibration.observations)
        tuned = fine_tune(as_seen(policy), observe, dataset.num_steps, rows_seen, seed=options.seed, progress=heard)
        policy = tuned.with_spec(heads=policy.spec.heads, sight=policy.spec.sight)
    if job.format.name == "hub-folder":  # made to be published: of several heads the exported one alone
        policy = policy.single_task(policy.tasks[0].name)
        policy = policy.with_provenance(without_folders(policy.spec.provenance))
    is_tuned = options.quantization_aware
    # What was measured is the policy with the weights that it has, not with other or rounded ones, and on its own task.
    own = policy.tasks[0]
    played = own if job.task is None else job.task.task
    is_own = (played.name, played.environment_kwargs) == (own.name, own.environment_kwargs)
    retention = retention_in(rows, measured) if is_own and options.precision == "float32" else None
    tuned_from = measured if is_tuned else None
    return Export(
        policy=as_seen(policy),
        whole=policy,
        contract=make_contract(policy, job.names, retention, precision=options.precision, tuned_from=tuned_from),
        precision=options.precision,
        gives_probabilities=options.probabilities,
        calibration=calibration,
        playable=job.playable,
        score=None if is_tuned else score_in(rows, measured),
        played=played.name,
        license=options.license,
    )


def on_cpu(policy: TorchPolicy) -> TorchPolicy:
    """Return a policy as all formats are written, on the CPU; where it lies elsewhere, as a copy, to leave it there."""
    if policy.device.type == "cpu":
        return policy
    return policy.copy().to(torch.device("cpu"))


def _verified(job: Job, made: Export, folder: Path, listeners: list[Callback]) -> Exported:
    """Return what was found of an export before it takes its place."""
    options, path = job.options, folder / job.out.name
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    exported, decide = job.format.open(made, path)
    sample: list[Decisions] = []
    heard = _heard(job, listeners, sample)
    if exported is None:
        next(heard)  # rows to time the policy itself with
        parity = None
    else:
        parity = compare(exported, heard, options.precision)
    rows, seen = (np.concatenate([getattr(each, name) for each in sample]) for name in ("observations", "seen"))
    teacher = recorded_teacher(job.policy, job.policy.tasks[0], device=options.device)
    with use_threads(1):
        times = {} if decide is None else {"export": time_decisions(decide, seen)}
        times["policy"] = _time(as_seen(job.policy), seen)
        # A policy of another library is a teacher itself, and that library's own way of acting is of interest.
        predict, way = predict_of(job.policy if teacher is None else teacher)
        if teacher is not None or predict is not None:
            times["teacher"] = _time(teacher or job.policy, rows) if predict is None else time_decisions(predict, rows)
        else:
            way = None
    original = NamedPolicy("policy", job.policy)
    return Exported(
        format=job.format.name,
        path=job.out,
        precision=options.precision,
        num_bytes={str(file.relative_to(folder)): file.stat().st_size for file in files},
        compared_on=job.source.description,
        parity=parity,
        times=times,
        teacher_decides_by=way,
        keeps_spread=job.format.keeps_spread,
        score=None if exported is None else _score(job, _whole(job, exported), original, listeners),
    )


def _whole(job: Job, exported: Policy) -> NamedPolicy:
    """Return an export as it plays its task, given the parts that the policy sees: side by side if it knows none."""
    task, sight = job.policy.tasks[0], job.policy.spec.sight
    parts = task.fingerprint.separate_parts
    if sight is None and parts and not exported.tasks[0].fingerprint.observation_parts:
        sight = Sight(tuple(part.name for part in parts))
    return NamedPolicy("export", seeing(exported, task, sight))


def _heard(job: Job, listeners: list[Callback], sample: list[Decisions]) -> Generator[Decisions]:
    """Yield trajectories, tell how far they are, and keep the first of them for timing."""
    num_ended = num_kept = 0
    for decisions in job.source.open():
        if num_kept < _TIMED_ROWS:
            kept = replace(decisions, observations=decisions.observations.copy(), seen=decisions.seen.copy())
            sample.append(kept)
            num_kept += len(decisions.seen)
        num_ended += decisions.num_ended
        notify(listeners, ProgressEvent("compare", num_ended, job.source.num_episodes, "episodes"))
        yield decisions


def _time(policy: Policy, rows: NDArray[np.generic]) -> DecisionTime:
    rng = np.random.default_rng(0)  # for policies that draw
    state = policy.initial_state(1)

    def decide(row: NDArray[np.generic]) -> object:
        nonlocal state
        action, state = policy.act(row, state=state, rng=rng)
        return action

    return time_decisions(decide, rows)


def _score(job: Job, student: NamedPolicy, teacher: NamedPolicy | None, listeners: list[Callback]) -> Evaluation | None:
    """Return what a policy and its reference score on the same episodes; None where no task was named."""
    if job.task is None:
        return None
    options = job.options
    play = TaskPlay(job.task, options.num_episodes, options.seed, options.num_envs, options.num_threads, listeners)
    return Evaluation(options.seed, play.compare([student], teacher))


def _rows(job: Job, listeners: list[Callback]) -> Any:  # noqa: ANN401 (JSON)
    """Return the rows of an evaluation of the policy: of the task that is named, else recorded beside its file."""
    if job.task is not None:
        found = recorded_teacher(job.policy, job.task.task, device=job.options.device)
        teacher = None if found is None else NamedPolicy("teacher", found)
        result = _score(job, NamedPolicy("policy", job.policy), teacher, listeners)
        return None if result is None else result.to_dict()["policies"]
    path = path_of(job.named)
    if path is None:
        return None
    own = job.policy.tasks[0]
    # A record's protocol is that of the play that it was recorded in.
    protocol = (own if job.playable is None else job.playable.task).protocol
    return _recorded_rows((path if path.is_dir() else path.parent) / _EVALUATION_FILE, replace(own, protocol=protocol))


def _recorded_rows(path: Path, task: Task) -> Any:  # noqa: ANN401 (JSON)
    """Return the rows of an evaluation that was kept; None where it is of another task, or played otherwise."""
    try:
        data = read_json(read_file(path, JSON.num_bytes))
        own = {"task": task.name, "environment_kwargs": task.environment_kwargs, "protocol": task.protocol.to_dict()}
        is_own = all(data.get(key, value) == value for key, value in own.items())
        return data.get("policies") if is_own else None
    except (OSError, ValueError, AttributeError):
        return None  # a hint: the contract then says nothing of it


def _deliver(job: Job, made: Export, result: Exported, folder: Path) -> None:
    """Move an export into its place, with its contract and its report beside it; one that failed, aside.

    Raises:
        GateError: it failed; `result` is the report.
        OutputExistsError: something came into its place while it was made.
    """
    out, problems = job.out, result.problems
    if problems:
        out = free_name(out, job.format)
        if job.format.rename is not None:
            job.format.rename(folder / job.out.name, out.stem)
    written = folder / job.out.name
    write_json(beside(written, "contract"), dict(made.contract))
    write_json(beside(written, "report"), result.to_dict())
    move_in(folder, job.out, out, job.format, overwrite=job.options.overwrite)
    if problems:
        error = GateError(
            f"--out {job.out} is not written: {'; '.join(problems)}. What was written is kept as {out}, with its "
            f"report {beside(out, 'report').name}."
        )
        error.result = result.to_dict()
        raise error
