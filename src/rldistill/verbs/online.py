"""Online distillation in a run: the learner, the judge of its policies, and what a student is taught by them."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np

from rldistill.data import Replay, StepLayout, TeacherEntry
from rldistill.distillation import HeldOut
from rldistill.distillation.online import OnlineSource, OnlineTeacher
from rldistill.envs import PlayableTask
from rldistill.errors import UsageError
from rldistill.events import Callback, ProgressEvent, notify
from rldistill.policies import TorchPolicy
from rldistill.rollout.evaluate import play_scores
from rldistill.seeding import stream_generator, stream_seed
from rldistill.session.metrics import MetricsFile
from rldistill.training import StreamStep, Training
from rldistill.types import resolve_device
from rldistill.verbs.config import parse_options, value_types, wrong_type
from rldistill.verbs.distill_config import DistillConfig
from rldistill.verbs.teacher_config import TrainTeacherConfig
from rldistill.verbs.teachers import initial_policy, make_training
from rldistill.verbs.train_teacher import resolve as resolve_learner
from rldistill.verbs.training_run import BEST_FILE, LAST_FILE

CURVES_FILE = "curves.jsonl"
DEFAULT_EPISODES = 10
_SAID_ELSEWHERE = ("task", "tasks", "out", "algorithm", "num_steps", "env_kwargs", "device", "num_threads")
_NOT_THE_LEARNERS = frozenset({*_SAID_ELSEWHERE, "start_step", "checkpoint_period"})


def learner_config(config: DistillConfig) -> TrainTeacherConfig:
    """Return how the teacher of an online distillation learns, every choice made.

    Raises:
        UsageError: no single task, or options that `train-teacher` does not take.
    """
    if config.task is None or "," in config.task:
        raise UsageError(f"--online needs one task: --task atari:pong, got {config.task!r}.")
    options = _learner_options(config)
    shared: dict[str, Any] = {"seed": config.seed, "precision": config.precision}
    return resolve_learner(
        TrainTeacherConfig(
            task=config.task,
            out=config.out,
            algorithm=config.algorithm or "pqn",
            num_steps=TrainTeacherConfig.num_steps if config.num_steps is None else config.num_steps,
            env_kwargs=config.env_kwargs,
            device=config.device,
            num_threads=config.num_threads,
            **(shared | options),
        )
    )


def _learner_options(config: DistillConfig) -> dict[str, Any]:
    """Return `--learner` as options of `train-teacher`, each of the type that it has there."""
    options = parse_options(config.learner, "learner")
    types = value_types(TrainTeacherConfig)
    known = sorted({item.name for item in fields(TrainTeacherConfig)} - _NOT_THE_LEARNERS)
    for name, value in options.items():
        if name not in known:
            raise UsageError(f"learner: got {name!r}, expected some of {', '.join(known)}.")
        if Path in types[name] and isinstance(value, str):
            options[name] = Path(value)
        elif type(value) not in types[name]:
            raise UsageError(f"learner: {wrong_type(name, value, types[name])}")
    return options


class OnlineLearner:
    """A teacher that learns by an algorithm of `train-teacher`; keeps the states it meets.

    Args:
        config: resolved.
        playable: what it learns.
        capacity: states to keep, where the algorithm has no replay of its own.
        callbacks: told how far it is; may stop the run.
    """

    def __init__(
        self, config: TrainTeacherConfig, playable: PlayableTask, capacity: int, callbacks: Sequence[Callback]
    ) -> None:
        self._config = config
        self._playable = playable
        self._callbacks = callbacks
        self._policy = initial_policy(config, [playable.task]).to(resolve_device(config.device))
        self._num_steps = 0
        self._own_replay = Replay(StepLayout.of_task(playable.task.fingerprint, {}), capacity)
        self._training: Training | None = None

    @property
    def policy(self) -> TorchPolicy:
        """What it has learned so far; its weights change."""
        return self._policy

    @property
    def replay(self) -> Replay:
        """The algorithm's own, or the states that it met."""
        return next(iter(self._started().replays), self._own_replay)

    @property
    def num_steps(self) -> int:
        """Decisions it has made."""
        return self._num_steps

    def learn(self) -> None:
        """Play and learn for one iteration of the algorithm."""
        record = self._started().iterate([self._num_steps])
        self._num_steps += record.num_steps
        total = self._config.num_steps
        shown = {} if record.loss is None else {"loss": record.loss}
        notify(self._callbacks, ProgressEvent("learn", min(self._num_steps, total), total, "steps", shown))

    def state_dict(self) -> dict[str, Any]:
        """Return the learner's state."""
        return {"training": self._started().state_dict(), "num_steps": self._num_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; the environments begin new episodes."""
        self.close()
        self._num_steps = state["num_steps"]
        self._started().load_state_dict(state["training"])

    def close(self) -> None:
        """Free the environments."""
        if self._training is not None:
            self._training.close()
        self._training = None

    def _started(self) -> Training:
        """Return the algorithm, whose environments begin with seeds not used before."""
        if self._training is None:
            rng = stream_generator(self._config.seed, "exploration", self._num_steps)
            self._training = make_training(
                self._config, self._policy, [self._playable], steps=[self._num_steps], rng=rng, on_step=self._keep
            )
        return self._training

    def _keep(self, step: StreamStep) -> None:
        if self._training is not None and not self._training.replays:
            self._own_replay.append(step.observations, {}, ended=step.ended, next_observations=step.next_observations)


class OnlineJudge:
    """Plays learner and student on episodes that serve nothing else, and keeps both curves.

    The learner is judged on new episodes each time; what is reported of its best policy, and of
    the student, comes from others: the best of many noisy scores flatters.

    Args:
        path: of the records.
        playable: what is played.
        student: reported beside the learner.
        config: number of episodes, environments and the seed.
        callbacks: told how far an evaluation is; may stop the run.
    """

    def __init__(
        self,
        path: Path,
        playable: PlayableTask,
        student: TorchPolicy,
        config: DistillConfig,
        callbacks: Sequence[Callback],
    ) -> None:
        self._path = path
        self._playable = playable
        self._student = student
        self._config = config
        self._callbacks = callbacks
        self._num_episodes = config.evaluate_episodes or DEFAULT_EPISODES
        self._best_mean: float | None = None
        self._best_scores: list[float] = []
        self.best_step = 0

    def __call__(self, num_steps: int, policy: TorchPolicy) -> bool:
        """Return whether this policy is the best so far; record both curves."""
        learner = self._play(policy, "learner", num_steps)
        mean = float(np.mean(learner))
        is_best = self._best_mean is None or mean > self._best_mean
        best_step = num_steps if is_best else self.best_step
        best_scores = self._play(policy, "best policy", num_steps) if is_best else self._best_scores
        record = {
            "step": num_steps,
            "learner_scores": learner,
            "best_step": best_step,
            "best_scores": best_scores,
            "student_scores": self._play(self._student, "student", num_steps),
        }
        self._write(record)
        # Last: a judgement that was stopped half-way is made again, and must not have counted already.
        if is_best:
            self._best_mean, self._best_scores, self.best_step = mean, best_scores, best_step
        return is_best

    def state_dict(self) -> dict[str, Any]:
        """Return the best so far."""
        return {"best_mean": self._best_mean, "best_scores": self._best_scores, "best_step": self.best_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._best_mean, self._best_scores = state["best_mean"], list(state["best_scores"])
        self.best_step = state["best_step"]

    def _write(self, record: dict[str, Any]) -> None:
        # A run that was stopped may have judged beyond its checkpoint: what it wrote there goes.
        with MetricsFile(
            self._path, counter="step", resume_at=record["step"] - 1, callbacks=self._callbacks
        ) as metrics:
            metrics.write(record)

    def _play(self, policy: TorchPolicy, name: str, num_steps: int) -> list[float]:
        def report(num_finished: int) -> None:
            event = ProgressEvent(f"evaluate {name}", num_finished, self._num_episodes, "episodes")
            notify(self._callbacks, event)

        return play_scores(
            policy,
            self._playable,
            self._num_episodes,
            num_envs=self._config.num_envs,
            num_threads=self._config.num_threads,
            # Episodes of their own for each purpose and each time.
            seed=stream_seed(self._config.seed, f"online {name}", num_steps),
            on_step=report,
        )


class OnlineData:
    """A learner as the data of one task.

    Args:
        learner: how it learns, resolved.
        playable: what it learns.
        callbacks: receive events and may stop the run.
    """

    def __init__(self, learner: TrainTeacherConfig, playable: PlayableTask, callbacks: Sequence[Callback]) -> None:
        self._learner_config = learner
        self._callbacks = callbacks
        self.playable = playable
        self.task = playable.task
        self.samples = False
        self.label = "The learner"
        self.description = f"{learner.algorithm} learning {self.task.name}"
        self.identity = f"{self.description} {self.task.to_dict()}"
        self.warnings: Sequence[str] = ()
        self.notes: Sequence[str] = ()
        self._source: OnlineSource | None = None
        self._head = 0

    @property
    def teacher(self) -> TeacherEntry:
        """The learner's best policy so far."""
        if self._source is None:
            return TeacherEntry(f"{self._learner_config.algorithm} learner", "", "q_values")
        best = self._best_policy()
        return TeacherEntry(best.name, best.hash, "q_values", str(self._learner_config.out / BEST_FILE))

    @property
    def record(self) -> Mapping[str, Any]:
        """What the learner did so far."""
        source = self._made()
        return {"num_steps": source.learner.num_steps, "best_step": source.best_step}

    def teach(self, head: int, config: DistillConfig) -> None:
        """Note the head."""
        self._head = head

    @property
    def held_out(self) -> HeldOut:
        """Recent states of the learner, with what its teacher says of them today."""
        return self._made().recent()

    def make_source(self, config: DistillConfig, student: TorchPolicy) -> OnlineSource:
        """Return the learner and its judge as a source."""
        learner = OnlineLearner(self._learner_config, self.playable, config.replay_capacity, self._callbacks)
        judge = OnlineJudge(config.out / CURVES_FILE, self.playable, student, config, self._callbacks)
        self._source = OnlineSource(
            learner,
            judge,
            num_steps=self._learner_config.num_steps,
            num_updates=config.num_updates,
            batch_size=config.batch_size,
            teacher=cast(OnlineTeacher, config.online_teacher),
            judge_period=config.judge_period,
            seed=config.seed,
            head=self._head,
        )
        return self._source

    def save(self, folder: Path) -> None:
        """Write the learner's best and last policies beside the student."""
        learner = self._made().learner
        last = {"verb": "distill", "num_steps": learner.num_steps, "chosen_by": "last step"}
        learner.policy.with_provenance(last).save(folder / LAST_FILE)
        self._best_policy().save(folder / BEST_FILE)

    def _best_policy(self) -> TorchPolicy:
        source = self._made()
        made = {"verb": "distill", "num_steps": source.best_step, "chosen_by": "best mean score of its evaluations"}
        return source.best.with_provenance(made)

    def _made(self) -> OnlineSource:
        assert self._source is not None, "make_source comes first"
        return self._source
