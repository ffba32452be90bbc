"""A teacher that is still learning as a source: online distillation.

While a learner learns, a student is taught on the learner's own stream of states. Its teacher is the learner's best
policy so far (Rusu et al. 2015, section 3.3: the student's curve is far steadier than the learner's), or the learner
as it is at that moment (Sun and Fazli 2019, "Real-time policy distillation": teacher and student from one replay at
every update).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rldistill.data import Replay, StepLayout, TeacherEntry
from rldistill.distillation.batch import Window, origin_of
from rldistill.distillation.sources import HeldOut, Loss, held_out_windows
from rldistill.envs import PlayableTask
from rldistill.events import Callback, ProgressEvent, notify
from rldistill.observations import Tensors, alone, moved, num_rows
from rldistill.options.distill import Online
from rldistill.policies import Policy, TorchPolicy
from rldistill.policies.entry import teacher_entry
from rldistill.policies.padded import ROWS_PER_BATCH, run_padded
from rldistill.rollout.evaluate import play_scores
from rldistill.seeding import UpdateNumbers, places, stream_seed
from rldistill.session.metrics import MetricsFile
from rldistill.training.stream import StreamStep, Training

BEST_POLICY, LAST_POLICY = "best_policy", "last_policy"

# As many as fit a processor's cache well; a GPU does not mind.
_LABELLED_AT_ONCE = 128

MakeTraining = Callable[[TorchPolicy, int, Callable[[StreamStep], None]], Training]
"""Makes the algorithm of a policy, which it trains in place, from a step on; a function receives every step."""


class OnlineSource:
    """A learner as the teacher of one task.

    Args:
        learner: learns while the student does.
        judge: asked before the first step, at every `judge_period`, and at the end.
        playable: what is learned.
        said: how the learner learns, who labels, and when it is judged.
        folder: in which the policies of the learner will lie.
        num_updates: of the student in the whole run: learner and student advance in step.
        seed: the rows of an update are a function of it and of the replay.
    """

    samples = False
    # The judge plays the student beside the learner.
    playable: PlayableTask | None = None
    policy: Policy | None = None
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    further: Mapping[str, tuple[int, ...]] = {}
    label = "The learner"
    # Each batch is drawn when the learner has come so far: none ahead.
    is_decoded = True

    def __init__(
        self,
        learner: "OnlineLearner",
        judge: "OnlineJudge",
        playable: PlayableTask,
        said: Online,
        *,
        folder: Path,
        num_updates: int,
        seed: int,
    ) -> None:
        self.task = playable.task
        self.description = f"{said.algorithm} learning {self.task.name}"
        self.identity = f"{self.description} {self.task.to_dict()}"
        self._learner, self._judge, self._said = learner, judge, said
        self._folder, self._num_updates = folder, num_updates
        self._seed, self._numbers = seed, UpdateNumbers(seed, "batch")
        self._next_judgement = 0
        self._recent: tuple[object, HeldOut] | None = None
        self._best = learner.policy.copy()

    def teach(
        self, head: int, student: TorchPolicy, loss: Loss, *, num_rows: float | None = None, measure: bool = False
    ) -> None:
        """Note whom to teach; the judge plays the student beside the learner."""
        # Any learns from the same rows, drawn from all that is kept, whose statistics would change.
        del loss, num_rows, measure
        self._head, self._judge.student = head, student

    @property
    def teacher(self) -> TeacherEntry:
        """The learner's best policy so far."""
        best = self.policies[BEST_POLICY]
        return teacher_entry(best, self._folder / f"{BEST_POLICY}.safetensors")

    @property
    def record(self) -> Mapping[str, Any]:
        """What the learner did so far."""
        return {"num_steps": self._learner.num_steps, "best_step": self._judge.best_step}

    @property
    def policies(self) -> Mapping[str, TorchPolicy]:
        """The learner's best policy and its last."""
        best = {
            "verb": "distill",
            "num_steps": self._judge.best_step,
            "chosen_by": "best mean score of its evaluations",
        }
        last = {"verb": "distill", "num_steps": self._learner.num_steps, "chosen_by": "last step"}
        return {
            BEST_POLICY: self._best.with_provenance(best),
            LAST_POLICY: self._learner.policy.with_provenance(last),
        }

    def advance(self, update: int) -> int:
        """Let the learner come as far as the update is in the run."""
        learner = self._learner
        while learner.num_steps < -(-(update + 1) * learner.total_steps // self._num_updates):
            if learner.num_steps >= self._next_judgement:
                self._judge_now()
                self._next_judgement += self._said.judge_period
            learner.learn()
        if not learner.replay.num_drawable:
            learner.replay.seal()
        return update + 1

    def finish(self) -> None:
        """Judge once more, with the finished student."""
        self._judge_now()

    def draw(self, update: int, num_rows: int) -> Window:
        """Return rows of one update, labelled by the teacher of the moment."""
        replay, numbers = self._learner.replay, self._numbers.of(update, num_rows)
        # At first none may make a transition: of many environments, or of returns of many steps. A label needs none.
        return self._labelled(replay.draw(numbers) if replay.num_drawable else places(numbers, replay.num_steps))

    @property
    def held_out(self) -> HeldOut:
        """A sample of the states kept, labelled by today's teacher: some may have been trained on."""
        num_steps = self._learner.replay.num_steps
        # All that the answer follows from: a measurement asks several times, and decodes and labels once.
        state = (self._learner.num_steps, num_steps, self._judge.best_step)
        if self._recent is not None and self._recent[0] == state:
            return self._recent[1]
        chosen = held_out_windows(self._learner.replay.store, np.arange(num_steps), seed=self._seed)[0]
        policy = self._learner.policy
        layout = policy.tasks[0].fingerprint.action_layout
        held_out = HeldOut.of(self._labelled(chosen), num_steps, layout, policy.output_kind)
        self._recent = state, held_out
        return held_out

    @property
    def replays(self) -> Sequence[Replay]:
        """The states that the learner met."""
        return (self._learner.replay,)

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes, but for the replay and environments."""
        return {
            "learner": self._learner.state_dict(),
            "best": self._best.network.state_dict(),
            "next_judgement": self._next_judgement,
            # With the best policy's weights, not from the curves: those may be younger than this state.
            "judge": self._judge.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._learner.load_state_dict(state["learner"])
        self._best.network.load_state_dict(state["best"])
        self._next_judgement = state["next_judgement"]
        self._judge.load_state_dict(state["judge"])
        self._recent = None

    def close(self) -> None:
        """Free the environments."""
        self._learner.close()

    def _judge_now(self) -> None:
        learner = self._learner
        if self._judge(learner.num_steps, learner.policy):
            self._best.network.load_state_dict(learner.policy.network.state_dict())

    def _labelled(self, steps: NDArray[np.int64]) -> Window:
        parts = self._learner.replay.observation_parts(steps)
        observations = {name: torch.from_numpy(part) for name, part in parts.items()}
        teacher = self._best if self._said.online_teacher == "best" else self._learner.policy
        return Window.of_steps(
            self._head,
            observations,
            {"q_values": _q_values(teacher, alone(observations))},
            origin_of(steps, f"what the learner kept at step {self._learner.num_steps:,}"),
        )


class OnlineLearner:
    """A teacher that learns by an algorithm of `train-teacher`, and keeps the states it meets.

    Args:
        policy: trained in place.
        make_training: makes the algorithm.
        playable: what it learns.
        said: how long it learns, and how many states are kept where the algorithm has no replay of its own.
        callbacks: receive how far it is; may stop the run.
    """

    def __init__(
        self,
        policy: TorchPolicy,
        make_training: MakeTraining,
        playable: PlayableTask,
        said: Online,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.policy = policy
        self.total_steps = said.num_steps
        self.num_steps = 0
        self._make_training = make_training
        self._callbacks = callbacks
        self._own_replay = Replay(StepLayout.of_task(playable.task.fingerprint, {}), said.replay_capacity)
        self._training: Training | None = None

    @property
    def replay(self) -> Replay:
        """The algorithm's own, or the states that it met."""
        return next(iter(self._started().replays), self._own_replay)

    def learn(self) -> None:
        """Play and learn for one iteration of the algorithm; a callback may stop it.

        Raises:
            NumericalError: it diverged.
        """
        record = self._started().iterate([self.num_steps])
        self.num_steps += record.num_steps
        shown = {} if record.loss is None else {"loss": record.loss}
        done = min(self.num_steps, self.total_steps)
        notify(self._callbacks, ProgressEvent("learn", done, self.total_steps, "steps", shown))

    def state_dict(self) -> dict[str, Any]:
        """Return the learner's state."""
        return {"training": self._started().state_dict(), "num_steps": self.num_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; the environments begin new episodes."""
        self.close()
        self.num_steps = state["num_steps"]
        self._started().load_state_dict(state["training"])

    def close(self) -> None:
        """Free the environments."""
        if self._training is not None:
            self._training.close()
        self._training = None

    def _started(self) -> Training:
        """Return the algorithm, whose environments begin with seeds not used before."""
        if self._training is None:
            self._training = self._make_training(self.policy, self.num_steps, self._keep)
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
        num_episodes: of each policy.
        num_envs: environments stepped together.
        num_threads: of the emulator.
        seed: of the episodes.
        callbacks: receive how far an evaluation is; may stop the run.
    """

    student: TorchPolicy
    """Played beside the learner; known when the source is told whom to teach."""

    def __init__(
        self,
        path: Path,
        playable: PlayableTask,
        *,
        num_episodes: int,
        num_envs: int,
        num_threads: int,
        seed: int,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self._path = path
        self._playable = playable
        self._num_episodes = num_episodes
        self._num_envs, self._num_threads = num_envs, num_threads
        self._seed = seed
        self._callbacks = callbacks
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
            "student_scores": self._play(self.student, "student", num_steps),
        }
        # A run that was stopped may have judged beyond its checkpoint: what it wrote there goes.
        with MetricsFile(self._path, counter="step", resume_at=num_steps - 1, callbacks=self._callbacks) as metrics:
            metrics.write(record)
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

    def _play(self, policy: TorchPolicy, name: str, num_steps: int) -> list[float]:
        def report(num_finished: int) -> None:
            event = ProgressEvent(f"evaluate {name}", num_finished, self._num_episodes, "episodes")
            notify(self._callbacks, event)

        return play_scores(
            policy,
            self._playable,
            range(self._num_episodes),
            num_envs=self._num_envs,
            num_threads=self._num_threads,
            # Episodes of their own for each purpose and each time.
            seed=stream_seed(self._seed, f"online {name}", num_steps),
            on_step=report,
        )


@torch.no_grad()
def _q_values(teacher: TorchPolicy, observations: Tensors) -> torch.Tensor:
    """Return the teacher's outputs `[B, A]` in float32."""
    network, device = teacher.network, teacher.device
    was_training = network.training
    network.eval()
    num_at_once = min(_LABELLED_AT_ONCE, max(num_rows(observations), ROWS_PER_BATCH["cpu"]))
    (q_values,) = run_padded(moved(observations, device), num_at_once, lambda rows: (network(rows).outputs.float(),))
    network.train(was_training)
    assert q_values is not None, "every network has outputs"
    return q_values.cpu()
