"""Collect a dataset, going on where an earlier collection stopped."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rldistill.data import DatasetWriter, Provenance, is_dataset_folder, load_manifest, step_fields
from rldistill.data.manifest import Manifest
from rldistill.envs import PlayableTask
from rldistill.envs.make import options_of
from rldistill.errors import DatasetError, DiskFullError, MismatchError, OutputExistsError, RldistillError
from rldistill.events import Callback, ProgressEvent, StopRequestedError, notify, tell
from rldistill.loading.named import (
    PolicyLike,
    as_named,
    as_teacher,
    entry_of,
    files_of,
    sampling_note,
    while_recorded,
)
from rldistill.options.collect import CollectOptions
from rldistill.options.declaration import verb
from rldistill.policies import Policy, as_played_by
from rldistill.policies.entry import further_shapes
from rldistill.policies.switched import SwitchedPolicy
from rldistill.rollout.collect import collect_steps
from rldistill.rollout.records import StepRecord
from rldistill.rollout.threads import use_threads
from rldistill.seeding import stream_seed
from rldistill.session.interrupts import interruption, stop_on_interrupt
from rldistill.session.machine import resolve_machine
from rldistill.session.run_folder import check_place, keep_inputs
from rldistill.tasks import Task


@dataclass(frozen=True)
class CollectionSummary:
    """What a dataset folder holds.

    Attributes:
        path: of the folder.
        num_steps: listed in its manifest.
        num_episodes: that came to their end.
        num_interrupted: that were given up before their end, when the target was reached.
        num_bytes: of all shards.
        teacher_hash: identity of the policy that gave the targets.
    """

    path: Path
    num_steps: int
    num_episodes: int
    num_interrupted: int
    num_bytes: int
    teacher_hash: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {**vars(self), "path": str(self.path)}


# Fewer would be beginnings of episodes alone, where episodes are long.
_STEPS_OF_AN_ENV = 2_000
_NUM_STEPS = 50_000


@verb(CollectOptions)
def collect(options: CollectOptions) -> CollectionSummary:
    """Let a teacher play and store observations, its outputs, actions and rewards.

    Returns:
        What the dataset holds: `path`, `num_steps`, `num_episodes`, `num_interrupted`, `num_bytes`, `teacher_hash`.

    Raises:
        UsageError: an option is out of range.
        MismatchError: teacher and task do not fit, or `out` was begun with other settings.
        OutputExistsError: `out` holds something and neither `resume` nor `overwrite` was given.
        KeyboardInterrupt: stopped; what the manifest lists is there.
    """
    options = resolve_machine(options)
    out, teacher = Path(options.out), as_named(options.teacher, options, options.choose)
    keep_inputs(out, files_of([teacher]), overwrite=options.overwrite)
    policy, playable = as_teacher(teacher, options.task, options, device=options.device, names=options.names)
    begun = _begun(options)
    # The rest of a dataset that was played greedily is, too.
    was_greedy = begun is not None and begun.provenance.behaviour == "greedy"
    # Targets are what the policy says; what it does while it is recorded may be more varied.
    player = while_recorded(policy, options.behaviour or ("greedy" if was_greedy else None))
    provenance = _provenance(policy, player, playable.task, options, teacher)
    num_steps = _target(options, begun)
    _check_folder(options)
    if begun is None:
        writer = DatasetWriter.create(out, provenance, target_num_steps=num_steps, overwrite=options.overwrite)
    else:
        writer = DatasetWriter.resume(out, provenance, target_num_steps=num_steps)
    with use_threads(options.num_threads), stop_on_interrupt(options.callbacks) as listeners:
        if note := sampling_note(policy, player):
            tell(listeners, note)
        envs = _num_envs(options, playable, num_steps)
        if options.num_envs is None and playable.fixed_num_envs is None:
            envs = max(envs, len(writer.running))  # an episode is given up only where fewer are asked for
        run = _CollectionRun(writer, player, playable, num_steps, envs, options.seed, listeners)
        run.collect(options.num_threads)
    manifest = load_manifest(out)
    if manifest.num_episodes == 0 and manifest.num_steps > run.first_steps:
        steps = f"{manifest.num_steps:,} steps in {run.num_envs} environments"
        text = f"no episode came to its end: {steps} are too few. Raise --num-steps, or lower --num-envs."
        tell(options.callbacks, text, "warning")
    return CollectionSummary(
        out,
        manifest.num_steps,
        manifest.num_episodes,
        manifest.num_interrupted,
        sum(shard.num_bytes for shard in manifest.shards),
        policy.hash,
    )


def check_collection(options: CollectOptions) -> CollectOptions:
    """Check all of a collection that can be checked without playing: its teacher, its task and its folder.

    Returns:
        The options with what `auto` stands for here.

    Raises:
        RldistillError: as `collect`.
    """
    options = resolve_machine(options)
    teacher = as_named(options.teacher, options, options.choose)
    keep_inputs(Path(options.out), files_of([teacher]), overwrite=options.overwrite)
    policy, playable = as_teacher(teacher, options.task, options, device=options.device, names=options.names)
    further_shapes(policy, playable.task, options.further, "store")
    _check_folder(options)
    num_steps = _target(options, _begun(options))
    own = options_of(playable.task) if options.task is None else {}
    return replace(options, num_steps=num_steps, num_envs=_num_envs(options, playable, num_steps), **own)


def _num_envs(options: CollectOptions, playable: PlayableTask, num_steps: int) -> int:
    return playable.num_envs(options.num_envs, num_steps // _STEPS_OF_AN_ENV)


def _check_folder(options: CollectOptions) -> None:
    """Check that a dataset can be written.

    Raises:
        OutputExistsError: there is one, and neither `resume` nor `overwrite` was given; or no folder can be there.
    """
    out = Path(options.out)
    check_place(out)
    if is_dataset_folder(out) and not (options.resume or options.overwrite):
        raise OutputExistsError(
            f"--out {out} already holds a dataset. Add --resume to go on, --overwrite to delete it (in Python "
            "resume=True, overwrite=True), or choose another."
        )


def _begun(options: CollectOptions) -> Manifest | None:
    """Return what a dataset that is gone on with says; None: a new one is begun."""
    out = Path(options.out)
    return load_manifest(out) if options.resume and is_dataset_folder(out) else None


def _provenance(policy: Policy, player: Policy, task: Task, options: CollectOptions, teacher: PolicyLike) -> Provenance:
    task = as_played_by(policy, task)
    further = further_shapes(policy, task, options.further, "store")
    return Provenance(
        task=task,
        teacher=entry_of(policy, teacher, played_as=player.behaviour),
        behaviour=player.behaviour,
        seed=options.seed,
        exploration_epsilon=task.protocol.exploration_epsilon,
        fields=step_fields(
            task.fingerprint, policy.output_kind, further, has_several=isinstance(policy, SwitchedPolicy)
        ),
    )


def _target(options: CollectOptions, begun: Manifest | None) -> int:
    """Return how many steps there are to be: of a dataset that is gone on with, as many as it was begun with.

    Raises:
        MismatchError: fewer are asked for of a dataset that is not finished: its running episodes would be cut.
    """
    if options.num_steps is None:
        return _NUM_STEPS if begun is None else begun.target_num_steps
    if begun is not None and not begun.is_complete and options.num_steps < begun.target_num_steps:
        raise MismatchError(
            f"--num-steps {options.num_steps}: {Path(options.out)} was begun with {begun.target_num_steps} and is not "
            "finished. Give as many or more, begin anew with --overwrite, or distil what is there: it is a dataset as "
            "it is."
        )
    return options.num_steps


@dataclass
class _CollectionRun:
    """One process's part of a collection."""

    writer: DatasetWriter
    teacher: Policy  # as it plays while it is recorded
    playable: PlayableTask
    num_steps: int  # that there are to be
    num_envs: int
    seed: int
    callbacks: Sequence[Callback]

    def __post_init__(self) -> None:
        self.started, self.first_steps = time.monotonic(), self.writer.num_steps

    def collect(self, num_threads: int) -> None:
        """Play to the target; after a stop, write what there is and raise `KeyboardInterrupt`."""
        stopped = False
        with self.writer as writer:
            if writer.num_steps >= self.num_steps:
                tell(self.callbacks, f"{writer.path} already holds {writer.num_steps:,} steps")
                writer.finish()
                return
            if writer.num_steps:
                text = f"going on from step {writer.num_steps:,}, {len(writer.running)} episodes under way"
                tell(self.callbacks, text)
            if (lost := len(writer.running) - self.num_envs) > 0:
                text = f"{lost} of them are given up: there are only {self.num_envs} environments"
                tell(self.callbacks, text, "warning")
            envs = self.playable.envs_for_play(self.num_envs, num_threads)
            try:
                task = self.playable.task
                collect_steps(
                    self.teacher,
                    envs,
                    writer,
                    num_steps=self.num_steps,
                    # Streams of its own: at the same seed, evaluation meets other episodes than training did.
                    seed=stream_seed(self.seed, "collection"),
                    exploration_epsilon=task.protocol.exploration_epsilon,
                    on_step=self._report,
                    on_diverged=self._warn_diverged,
                )
                writer.finish()
            except StopRequestedError:
                stopped = True
            except (DiskFullError, DatasetError):
                raise
            except RldistillError:  # of the environment or the policy, between two steps: those before are whole
                writer.flush()
                if num_steps := writer.num_listed_steps:
                    text = f"{num_steps:,} steps are written. Once the cause is mended, go on with --resume."
                    tell(self.callbacks, text, "warning")
                raise
            finally:
                envs.close()
        if stopped:
            raise interruption(f"stopped; {self.writer.num_listed_steps:,} steps are written")

    def _report(self, _step: StepRecord) -> None:
        done = self.writer.num_steps
        speed = (done - self.first_steps) / max(time.monotonic() - self.started, 1e-9)
        notify(self.callbacks, ProgressEvent("collect", done, self.num_steps, "steps", {"steps_per_second": speed}))

    def _warn_diverged(self, episodes: list[int]) -> None:
        text = f"{len(episodes)} episodes came out differently when repeated and were ended where they stood"
        tell(self.callbacks, f"{text}: this environment is not a function of its seed.", "warning")
