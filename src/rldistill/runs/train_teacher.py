"""Train a teacher, with everything it takes to go on after a stop."""

import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

from rldistill.envs import PlayableTask, make_task
from rldistill.errors import MismatchError, UsageError
from rldistill.events import Callback, MessageEvent, ProgressEvent, StopRequestedError, notify
from rldistill.networks import Architecture, parse_architecture
from rldistill.networks.precision import resolve_precision
from rldistill.policies import HeadSpec, TorchPolicy, load_policy
from rldistill.runs.config import TrainTeacherConfig, TrainTeacherSettings, config_values, parse_options
from rldistill.runs.metrics import MetricsFile
from rldistill.runs.run_folder import check_same_config, plain, provenance, run_folder, write_config
from rldistill.runs.threads import use_threads
from rldistill.seeding import stream_generator, stream_seed
from rldistill.storage import load_checkpoint, save_checkpoint
from rldistill.training import GameRecord, PQNLearner, PQNSettings, TrainingStream
from rldistill.types import resolve_device

CHECKPOINT_FILE = "checkpoint.ckpt"
LAST_FILE = "last_policy.safetensors"
BEST_FILE = "best_policy.safetensors"
# The best policy is chosen by the mean score of this many whole training games.
GAMES_PER_MEAN = 32
_MAY_DIFFER = frozenset({"out", "num_threads", "checkpoint_period", "device"})


@dataclass(frozen=True)
class TrainingResult:
    """What a training run left.

    Attributes:
        last_policy: file of the policy at the last step.
        best_policy: file of the policy with the best mean training score, if any games ended.
        num_steps: steps done.
        mean_score: of the last `GAMES_PER_MEAN` training games, None if fewer ended.
    """

    last_policy: Path
    best_policy: Path | None
    num_steps: int
    mean_score: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {key: plain(value) for key, value in vars(self).items()}


@dataclass
class _Progress:
    """Counters that a checkpoint carries."""

    step: int
    best_mean: float | None
    scores: deque[float]

    def record(self, games: Sequence[GameRecord]) -> None:
        self.scores.extend(game.score for game in games)

    @property
    def mean_score(self) -> float | None:
        return float(np.mean(self.scores)) if len(self.scores) == GAMES_PER_MEAN else None


def resolve(config: TrainTeacherConfig) -> TrainTeacherConfig:
    """Return the configuration with every `auto` replaced by what it stands for here.

    Raises:
        UsageError: the task, the network, the algorithm's settings or the device cannot be.
    """
    device = resolve_device(config.device)
    make_task(config.task, parse_options(config.env_kwargs))
    parse_architecture(config.network)
    pqn_settings(config)
    num_threads = config.num_threads or torch.get_num_threads()
    return replace(
        config, device=device.type, precision=resolve_precision(config.precision, device), num_threads=num_threads
    )


def train_teacher(
    task: str,
    *,
    out: str | Path,
    num_steps: int = TrainTeacherConfig.num_steps,
    env_kwargs: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    **settings: Unpack[TrainTeacherSettings],
) -> TrainingResult:
    """Train a teacher for one task; `out` holds its policies, records and checkpoint.

    Args:
        task: `atari:<game>`, a Gymnasium id, or `module:EnvId`.
        out: run folder.
        num_steps: decisions over all environments and the whole schedule.
        env_kwargs: settings of the task.
        resume: go on with the run in `out`, if there is one.
        overwrite: delete a run in `out` first.
        callbacks: receive events and may stop the run.
        **settings: every other field of `TrainTeacherConfig`, by name.

    Raises:
        UsageError: a value is unknown or out of range.
        OutputExistsError: `out` holds something and neither flag was given.
        NumericalError: the learner diverged.
        KeyboardInterrupt: stopped; the state is saved.
    """
    options = json.dumps(dict(env_kwargs or {}))
    config = TrainTeacherConfig(task=task, out=Path(out), num_steps=num_steps, env_kwargs=options, **settings)
    return run_train_teacher(config, resume=resume, overwrite=overwrite, callbacks=callbacks)


def run_train_teacher(
    config: TrainTeacherConfig, *, resume: bool, overwrite: bool, callbacks: Sequence[Callback] = ()
) -> TrainingResult:
    """Train as configured, in `config.out`.

    Raises:
        RldistillError: the folder is taken, the task unknown, the learner diverged, …
        KeyboardInterrupt: after Ctrl-C, with everything saved.
    """
    config = resolve(config)
    task = make_task(config.task, parse_options(config.env_kwargs))
    with run_folder(config.out, resume=resume, overwrite=overwrite) as continues, use_threads(config.num_threads):
        if continues:
            check_same_config(config.out, config_values(config), may_differ=_MAY_DIFFER)
        else:
            write_config(config.out, "train-teacher", config_values(config))
        return _TrainingRun(config, task, callbacks, continues=continues).run()


class _TrainingRun:
    """One training run: learner, stream, counters and folder."""

    def __init__(
        self, config: TrainTeacherConfig, task: PlayableTask, callbacks: Sequence[Callback], *, continues: bool
    ) -> None:
        self._config = config
        self._callbacks = callbacks
        # Taken now: hours later the source tree may be another than the one that runs.
        self._provenance = provenance("train-teacher", config_values(config))
        self._settings = pqn_settings(config)
        device = resolve_device(config.device)
        self._policy = _initial_policy(config, task).to(device)
        generator = torch.Generator().manual_seed(stream_seed(config.seed, "minibatches"))
        precision = resolve_precision(config.precision, device)
        self._learner = PQNLearner(self._policy.network, self._settings, precision=precision, generator=generator)
        self._rng = stream_generator(config.seed, "exploration")
        self._progress = _Progress(config.start_step, None, deque(maxlen=GAMES_PER_MEAN))
        self._checkpoint = config.out / CHECKPOINT_FILE
        self._resumed_at: int | None = None
        if continues and self._checkpoint.is_file():
            self._load()
        self._tell(
            f"{config.task} with {config.algorithm}, {precision} on {device.type}, {config.num_envs} environments"
        )
        self._envs = task.make_envs(config.num_envs, config.num_threads)
        # Emulator states are not kept: after a resume new episodes begin, with seeds not used before.
        self._stream = TrainingStream(
            self._envs,
            self._policy.tasks[0].fingerprint.action_layout.num_outputs,
            first_seed=stream_seed(config.seed, "training environments", self._progress.step),
            gamma=config.gamma,
            clip_rewards=self._settings.clip_rewards,
            cut_at_life_loss=self._settings.cut_at_life_loss,
        )

    def run(self) -> TrainingResult:
        """Train to the end, saving at each period, after Ctrl-C, and at the end."""
        next_checkpoint = self._progress.step + self._config.checkpoint_period
        try:
            with MetricsFile(self._config.out / "metrics.jsonl", counter="step", resume_at=self._resumed_at) as metrics:
                while self._progress.step < self._config.num_steps:
                    record = self._iteration()
                    metrics.write(record)
                    # Last, for it may stop the run: a resumed one has the record of every step before it.
                    self._show(record)
                    if self._progress.step >= next_checkpoint:
                        self._save()
                        next_checkpoint += self._config.checkpoint_period
        except StopRequestedError:
            self._save()
            self._tell(f"stopped at step {self._progress.step:,}; saved. Go on with --resume.")
            raise KeyboardInterrupt from None
        finally:
            self._envs.close()
        if self._resumed_at != self._progress.step:
            self._save()
        best = self._config.out / BEST_FILE
        return TrainingResult(
            self._config.out / LAST_FILE,
            best if best.is_file() else None,
            self._progress.step,
            self._progress.mean_score,
        )

    def _iteration(self) -> dict[str, Any]:
        """Play one rollout, learn from it, return its record."""
        started = time.perf_counter()
        settings, state = self._settings, self._progress
        share = state.step / self._config.num_steps
        epsilon = settings.exploration_epsilon(share)
        rollout = self._stream.rollout(
            self._learner.q_values, settings.rollout_length, exploration_epsilon=epsilon, rng=self._rng
        )
        loss = self._learner.learn(rollout, progress=share)
        state.step += settings.steps_per_rollout
        state.record(rollout.games)
        mean = state.mean_score
        if rollout.games and mean is not None and (state.best_mean is None or mean > state.best_mean):
            state.best_mean = mean
            self._save_policy(BEST_FILE, f"best mean score of {GAMES_PER_MEAN} training games: {mean:.4g}")
        speed = settings.steps_per_rollout / (time.perf_counter() - started)
        shown = {"loss": loss, "exploration_epsilon": epsilon, "steps_per_second": speed}
        shown |= {} if mean is None else {"mean_score": mean}
        return {"step": state.step, **shown, "scores": [game.score for game in rollout.games]}

    def _show(self, record: dict[str, Any]) -> None:
        shown = {name: value for name, value in record.items() if name not in ("step", "scores")}
        total = self._config.num_steps
        notify(self._callbacks, ProgressEvent("train", min(record["step"], total), total, "steps", shown))

    def _save(self) -> None:
        self._save_policy(LAST_FILE, "last step")
        save_checkpoint(
            self._checkpoint,
            {
                "learner": self._learner.state_dict(),
                "rng": json.dumps(_rng_state(self._rng)),
                "step": self._progress.step,
                "best_mean": self._progress.best_mean,
                "scores": list(self._progress.scores),
                "provenance": json.dumps(self._provenance),
            },
        )

    def _load(self) -> None:
        state = load_checkpoint(self._checkpoint)
        self._learner.load_state_dict(state["learner"])
        self._rng.bit_generator.state = _restored_rng_state(json.loads(state["rng"]))
        self._provenance = json.loads(state["provenance"])
        self._progress = _Progress(
            state["step"], self._best_mean(state["best_mean"]), deque(state["scores"], maxlen=GAMES_PER_MEAN)
        )
        self._resumed_at = self._progress.step
        self._tell(f"going on from step {self._progress.step:,}; the emulators begin new episodes")

    def _best_mean(self, saved: float | None) -> float | None:
        """Return the best mean so far: the file may be younger than the checkpoint."""
        best = self._config.out / BEST_FILE
        return load_policy(best).spec.provenance["mean_training_score"] if best.is_file() else saved

    def _save_policy(self, file: str, chosen_by: str) -> None:
        record = self._provenance | {
            "num_steps": self._progress.step,
            "chosen_by": chosen_by,
            "mean_training_score": self._progress.mean_score,
        }
        self._policy.with_provenance(record).save(self._config.out / file)

    def _tell(self, text: str) -> None:
        notify(self._callbacks, MessageEvent(text))


def pqn_settings(config: TrainTeacherConfig) -> PQNSettings:
    """Return the algorithm's part of a configuration."""
    names = PQNSettings.__dataclass_fields__.keys() & TrainTeacherConfig.__dataclass_fields__.keys()
    return PQNSettings(**{name: getattr(config, name) for name in names})


def _initial_policy(config: TrainTeacherConfig, task: PlayableTask) -> TorchPolicy:
    architecture = parse_architecture(config.network, layer_norm=config.layer_norm)
    name = task.task.name.removeprefix("atari:")
    if config.init_from is None:
        generator = torch.Generator().manual_seed(stream_seed(config.seed, "weights"))
        policy = TorchPolicy.create(
            architecture, [task.task], name=name, zero_output=config.zero_output, generator=generator
        )
        return policy.with_spec(weights_dtype="float16")
    policy = load_policy(config.init_from)
    differences = policy.tasks[0].fingerprint.differences(task.task.fingerprint)
    if differences:
        raise MismatchError(f"--init-from {config.init_from} does not fit {config.task}: {'; '.join(differences)}.")
    if policy.output_kind != "q_values":
        raise MismatchError(f"--init-from {config.init_from} gives {policy.output_kind}, pqn goes on from q_values.")
    if policy.spec.architecture != architecture:
        raise UsageError(
            f"--init-from {config.init_from} holds {_layers(policy.spec.architecture)}, "
            f"--network says {_layers(architecture)}."
        )
    # Its weights, not its story: two games may share a fingerprint.
    return policy.with_spec(heads=(HeadSpec(task.task),), name=name)


def _layers(architecture: Architecture | None) -> str:
    if architecture is None:
        return "a module of its maker's own"
    return f"{architecture.name} {'with' if architecture.layer_norm else 'without'} layer norm"


def _rng_state(rng: np.random.Generator) -> dict[str, Any]:
    """Return a Philox generator's state as JSON knows it."""
    state: Any = rng.bit_generator.state
    words = {key: value.tolist() for key, value in state["state"].items()}
    return {**state, "state": words, "buffer": state["buffer"].tolist()}


def _restored_rng_state(state: dict[str, Any]) -> dict[str, Any]:
    words = {key: np.asarray(value, np.uint64) for key, value in state["state"].items()}
    return {**state, "state": words, "buffer": np.asarray(state["buffer"], np.uint64)}
