"""One training run in its folder: iterations, records, checkpoints, policies; whichever the algorithm."""

import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rldistill.envs import PlayableTask
from rldistill.events import Callback, ProgressEvent, StopRequestedError, notify, tell
from rldistill.options.shared import recorded
from rldistill.options.train_teacher import TrainTeacherOptions
from rldistill.policies import TorchPolicy, load_policy
from rldistill.seeding import stream_generator
from rldistill.session.interrupts import interruption
from rldistill.session.metrics import MetricsFile
from rldistill.session.own_files import REPLAY_FOLDER
from rldistill.session.replay_files import ReplayFiles
from rldistill.session.run_folder import plain, provenance, recorded_settings, without_folders
from rldistill.statistics import normalised_score
from rldistill.storage import load_checkpoint, save_checkpoint
from rldistill.tasks import ATARI_PREFIX
from rldistill.training.stream import IterationRecord
from rldistill.types import resolve_device
from rldistill.verbs.teachers import make_training

CHECKPOINT_FILE = "checkpoint.ckpt"
LAST_FILE = "last_policy.safetensors"
BEST_FILE = "best_policy.safetensors"
# The best policy is chosen by the mean score of this many whole training games.
GAMES_PER_MEAN = 32
_NOT_SHOWN = frozenset({"step", "task", "task_step", "scores"})


@dataclass(frozen=True)
class TrainingResult:
    """What a training run left.

    Attributes:
        last_policy: file of the policy at the last step.
        best_policy: file of the policy with the best mean training score, if any games ended; of
            several tasks, with the best mean of their normalised scores, where all have one.
        num_steps: steps done, of all tasks.
        mean_score: of the last `GAMES_PER_MEAN` training games, None if fewer ended or there are several tasks.
        mean_scores: the same by task.
    """

    last_policy: Path
    best_policy: Path | None
    num_steps: int
    mean_score: float | None
    mean_scores: Mapping[str, float | None]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {key: plain(value) for key, value in vars(self).items()}


class _Progress:
    """Counters that a checkpoint carries: steps and recent scores of every task."""

    def __init__(self, steps: Sequence[int]) -> None:
        self.steps = list(steps)
        self.best_mean: float | None = None
        self._scores: list[deque[float]] = [deque(maxlen=GAMES_PER_MEAN) for _ in steps]

    @property
    def step(self) -> int:
        """Steps of all tasks."""
        return sum(self.steps)

    def record(self, record: IterationRecord) -> None:
        self.steps[record.task] += record.num_steps
        self._scores[record.task].extend(record.scores)

    def mean_score(self, task: int) -> float | None:
        scores = self._scores[task]
        return float(np.mean(scores)) if len(scores) == GAMES_PER_MEAN else None

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "steps": self.steps,
            "best_mean": self.best_mean,
            "scores": [score for scores in self._scores for score in scores],
            "score_tasks": [task for task, scores in enumerate(self._scores) for _ in scores],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = list(state["steps"])
        self.best_mean = state["best_mean"]
        for task, score in zip(state["score_tasks"], state["scores"], strict=True):
            self._scores[task].append(score)


class TrainingRun:
    """One training run: the algorithm, its counters and the folder.

    Args:
        config: resolved.
        tasks: to be learned.
        policy: that the run begins with; trained in place.
        callbacks: receive events and may stop the run.
        continues: whether to go on from the folder's checkpoint, if there is one.
    """

    def __init__(
        self,
        config: TrainTeacherOptions,
        tasks: Sequence[PlayableTask],
        policy: TorchPolicy,
        callbacks: Sequence[Callback],
        *,
        continues: bool,
    ) -> None:
        self._config = config
        self._tasks = [task.task for task in tasks]
        self._callbacks = callbacks
        # Taken now: hours later the source tree may be another than the one that runs.
        self._provenance = provenance("train-teacher") | {"config": recorded_settings(recorded(config))}
        self._policy = policy.to(resolve_device(config.device))
        self._rng = stream_generator(config.seed, "exploration")
        self._progress = _Progress([config.start_step] * len(tasks))
        self._folder = Path(config.out)
        self._checkpoint = self._folder / CHECKPOINT_FILE
        self._resumed_at: int | None = None
        state = load_checkpoint(self._checkpoint) if continues and self._checkpoint.is_file() else None
        if state is not None:
            self._load(state)
        is_complete = min(self._progress.steps) >= config.num_steps and (self._folder / LAST_FILE).is_file()
        self._is_finished = state is not None and is_complete
        if self._is_finished:  # no environment need be made
            return
        if state is not None:
            tell(self._callbacks, f"going on from step {self._progress.step:,}; the emulators begin new episodes")
        how = f"{config.algorithm}, {config.precision} on {config.device}, {config.num_envs} environments"
        tell(self._callbacks, f"{', '.join(config.task_names)} with {how}")
        # Emulator states are not kept: after a resume new episodes begin, with seeds not used before.
        self._training = make_training(config, self._policy, tasks, steps=self._progress.steps, rng=self._rng)
        if state is not None:
            self._load_training(state)

    def run(self) -> TrainingResult:
        """Train to the end, saving at each period, after Ctrl-C, and at the end."""
        if self._is_finished:
            tell(self._callbacks, f"{self._folder} is finished")
            return self._result()
        next_checkpoint = self._progress.step + self._config.checkpoint_period
        try:
            with MetricsFile(
                self._folder / "metrics.jsonl",
                counter="step",
                resume_at=self._resumed_at,
                callbacks=self._callbacks,
            ) as metrics:
                while min(self._progress.steps) < self._config.num_steps:
                    record = self._iteration()
                    metrics.write(record)
                    # Last, for it may stop the run: a resumed one has the record of every step before it.
                    self._show(record)
                    if self._progress.step >= next_checkpoint:
                        metrics.sync()
                        self._save()
                        next_checkpoint += self._config.checkpoint_period
        except StopRequestedError:
            self._save()
            raise interruption(f"stopped at step {self._progress.step:,}; saved") from None
        finally:
            self._training.close()
        # A run that was at its end, and whose policy is gone, has only this to do.
        if self._resumed_at != self._progress.step or not (self._folder / LAST_FILE).is_file():
            self._save()
        return self._result()

    def _result(self) -> TrainingResult:
        best = self._folder / BEST_FILE
        return TrainingResult(
            self._folder / LAST_FILE,
            best if best.is_file() else None,
            self._progress.step,
            self._progress.mean_score(0) if len(self._tasks) == 1 else None,
            self._mean_scores(),
        )

    def _iteration(self) -> dict[str, Any]:
        """Let the algorithm play and learn for a while; return the record of it."""
        started = time.perf_counter()
        record = self._training.iterate(self._progress.steps)
        self._progress.record(record)
        mean = self._progress.mean_score(record.task)
        if record.scores:
            self._keep_best()
        speed = record.num_steps / (time.perf_counter() - started)
        shown: dict[str, Any] = {} if record.loss is None else {"loss": record.loss}
        shown |= {"exploration_epsilon": record.exploration_epsilon, "steps_per_second": speed}
        shown |= {} if mean is None else {"mean_score": mean}
        place: dict[str, Any] = {"step": self._progress.step}
        if len(self._tasks) > 1:
            place |= {"task": self._tasks[record.task].name, "task_step": self._progress.steps[record.task]}
        return {**place, **shown, "scores": [*record.scores]}

    def _keep_best(self) -> None:
        best, mean = self._progress.best_mean, self._overall_score()
        if mean is None or (best is not None and mean <= best):
            return
        self._progress.best_mean = mean
        what = (
            f"mean score of {GAMES_PER_MEAN} training games"
            if len(self._tasks) == 1
            else f"mean normalised score of the last {GAMES_PER_MEAN} training games of each task"
        )
        self._save_policy(BEST_FILE, f"best {what}: {mean:.4g}")

    def _overall_score(self) -> float | None:
        """Return what policies of this run are compared by.

        Points of different games do not add up. Several tasks are therefore compared by their
        scores between random play, 0, and a human tester, 1; where one has no such reference,
        none is called the best.
        """
        means = self._mean_scores()
        if len(means) == 1:
            return self._progress.mean_score(0)
        normalised = [
            None if mean is None else normalised_score(mean, name.removeprefix(ATARI_PREFIX))
            for name, mean in means.items()
        ]
        known = [score for score in normalised if score is not None]
        return sum(known) / len(known) if len(known) == len(normalised) else None

    def _mean_scores(self) -> dict[str, float | None]:
        return {task.name: self._progress.mean_score(number) for number, task in enumerate(self._tasks)}

    def _show(self, record: dict[str, Any]) -> None:
        shown = {name: value for name, value in record.items() if name not in _NOT_SHOWN}
        total = self._config.num_steps * len(self._tasks)
        notify(self._callbacks, ProgressEvent("train", min(record["step"], total), total, "steps", shown))

    def _save(self) -> None:
        """Write the last policy and the checkpoint, which lists the chunks of the replays it goes with."""
        self._save_policy(LAST_FILE, "last step")
        save_checkpoint(
            self._checkpoint,
            {
                "learner": self._training.state_dict(),
                "rng": json.dumps(self._rng.bit_generator.state, default=np.ndarray.tolist),
                "replays": self._replays.write(),
                "provenance": json.dumps(self._provenance),
                **self._progress.state_dict(),
            },
        )
        self._replays.prune()

    def _load(self, state: dict[str, Any]) -> None:
        self._rng.bit_generator.state = json.loads(state["rng"])
        self._provenance = without_folders(json.loads(state["provenance"]))  # of an earlier version: all as typed
        self._progress.load_state_dict(state)
        self._progress.best_mean = self._best_mean(state["best_mean"])
        self._resumed_at = self._progress.step

    def _load_training(self, state: dict[str, Any]) -> None:
        try:
            self._training.load_state_dict(state["learner"])
            self._replays.read(state["replays"])
        except BaseException:
            self._training.close()
            raise

    @property
    def _replays(self) -> ReplayFiles:
        return ReplayFiles(self._folder / REPLAY_FOLDER, self._training.replays)

    def _best_mean(self, saved: float | None) -> float | None:
        """Return the best mean so far: the file may be younger than the checkpoint."""
        best = self._folder / BEST_FILE
        return load_policy(best).spec.provenance["mean_training_score"] if best.is_file() else saved

    def _save_policy(self, file: str, chosen_by: str) -> None:
        record = self._provenance | {
            "num_steps": self._progress.step,
            "chosen_by": chosen_by,
            "mean_training_score": self._overall_score(),
        }
        if len(self._tasks) > 1:
            record["mean_training_scores"] = self._mean_scores()
        self._policy.with_provenance(record).save(self._folder / file)
