"""Online distillation: a student of a teacher that is still learning.

While a learner learns, a student is taught on the learner's own stream of states. Its teacher
is the learner's best policy so far (Rusu et al. 2015, section 3.3: the student's curve is far
steadier than the learner's), or the learner as it is at that moment (Sun and Fazli 2019,
"Real-time policy distillation": teacher and student from one replay at every update).
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rldistill.data import Replay
from rldistill.distillation.batch import Minibatch, Window, origin_of
from rldistill.distillation.sources import HeldOut, sample_of_held_out
from rldistill.networks.input_layer import join_parts
from rldistill.policies import TorchPolicy
from rldistill.policies.padded import ROWS_PER_BATCH, run_padded
from rldistill.seeding import stream_generator

OnlineTeacher = Literal["best", "current"]

# As many as fit a processor's cache well; a GPU does not mind.
_LABELLED_AT_ONCE = 128


class Learner(Protocol):
    """A teacher that is still learning."""

    @property
    def policy(self) -> TorchPolicy:
        """What it has learned so far; its weights change."""
        ...

    @property
    def replay(self) -> Replay:
        """The states it met."""
        ...

    @property
    def num_steps(self) -> int:
        """Decisions it has made."""
        ...

    def learn(self) -> None:
        """Play and learn for a while; may raise to stop.

        Raises:
            NumericalError: it diverged.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes, but for the replay and environments."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        ...

    def close(self) -> None:
        """Free the environments."""
        ...


class Judge(Protocol):
    """Says whether a learner is better than ever before, by episodes that it is trained on nowhere."""

    @property
    def best_step(self) -> int:
        """How many steps the learner had made when it was best."""
        ...

    def __call__(self, num_steps: int, policy: TorchPolicy) -> bool:
        """Return whether this policy is the best so far."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what later judgements go by."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        ...


class OnlineSource:
    """Batches of a learner's own states, labelled by its best policy so far or by itself.

    Args:
        learner: learns while the student does.
        judge: asked before the first step, at every `judge_period`, and at the end.
        num_steps: of the learner in the whole run.
        num_updates: of the student in the whole run: the two advance in step.
        batch_size: rows per update.
        teacher: who labels.
        judge_period: steps of the learner between judgements.
        seed: the rows of an update are a function of it and of the replay.
        head: which head of the student is taught.
    """

    def __init__(
        self,
        learner: Learner,
        judge: Judge,
        *,
        num_steps: int,
        num_updates: int,
        batch_size: int,
        teacher: OnlineTeacher,
        judge_period: int,
        seed: int,
        head: int = 0,
    ) -> None:
        self._learner = learner
        self._judge = judge
        self._num_steps = num_steps
        self._num_updates = num_updates
        self._batch_size = batch_size
        self._teacher_kind = teacher
        self._judge_period = judge_period
        self._seed = seed
        self._head = head
        self._next_judgement = 0
        self._recent: tuple[object, HeldOut] | None = None
        self._best = TorchPolicy(copy.deepcopy(learner.policy.network), learner.policy.spec)

    @property
    def best(self) -> TorchPolicy:
        """The learner's best policy so far."""
        return self._best

    @property
    def best_step(self) -> int:
        """How many steps the learner had made when it was best."""
        return self._judge.best_step

    @property
    def learner(self) -> Learner:
        """The one that learns."""
        return self._learner

    def batches(self, first_update: int, num_updates: int) -> Iterator[Minibatch]:
        """Yield the batches of consecutive updates, the learner going on between them."""
        last = first_update + num_updates
        for update in range(first_update, last):
            self._learn_until(-(-(update + 1) * self._num_steps // self._num_updates))
            yield self.batch(update)
        if last == self._num_updates:
            self._judge_now()

    def batch(self, update: int) -> Minibatch:
        """Return the batch of one update."""
        rng = stream_generator(self._seed, "batch", update)
        return (self._labelled(self._learner.replay.draw(self._batch_size, rng)),)

    def recent(self) -> HeldOut:
        """Return a sample of the states kept, labelled by today's teacher: some may have been trained on."""
        num_steps = self._learner.replay.num_steps
        # All that the answer follows from: a measurement asks several times, and decodes and labels once.
        state = (self._learner.num_steps, num_steps, self._judge.best_step)
        if self._recent is not None and self._recent[0] == state:
            return self._recent[1]
        chosen = sample_of_held_out(np.arange(num_steps), seed=self._seed)
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

    def _learn_until(self, num_steps: int) -> None:
        learner = self._learner
        while learner.num_steps < num_steps:
            if learner.num_steps >= self._next_judgement:
                self._judge_now()
                self._next_judgement += self._judge_period
            learner.learn()
        if not learner.replay.num_drawable:
            learner.replay.seal()

    def _judge_now(self) -> None:
        learner = self._learner
        if self._judge(learner.num_steps, learner.policy):
            self._best.network.load_state_dict(learner.policy.network.state_dict())

    def _labelled(self, steps: NDArray[np.int64]) -> Window:
        parts = self._learner.replay.observation_parts(steps)
        observations = {name: torch.from_numpy(part) for name, part in parts.items()}
        teacher = self._best if self._teacher_kind == "best" else self._learner.policy
        return Window.of_steps(
            self._head,
            observations,
            {"q_values": _q_values(teacher, join_parts(observations))},
            origin_of(steps, f"what the learner kept at step {self._learner.num_steps:,}"),
        )


@torch.no_grad()
def _q_values(teacher: TorchPolicy, observations: torch.Tensor) -> torch.Tensor:
    """Return the teacher's outputs `[B, A]` in float32."""
    network, device = teacher.network, teacher.device
    was_training = network.training
    network.eval()
    num_at_once = min(_LABELLED_AT_ONCE, max(len(observations), ROWS_PER_BATCH["cpu"]))
    (q_values,) = run_padded(observations.to(device), num_at_once, lambda rows: (network(rows).outputs.float(),))
    network.train(was_training)
    assert q_values is not None, "every network has outputs"
    return q_values.cpu()
