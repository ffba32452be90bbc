"""What a student's own play says of its steps afterwards: which losses followed them, and which rewards.

Both are known only when the play is over, so they are found between play and learning, from what the play kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rldistill.data import FieldSpec, Replay
from rldistill.distillation.sources import Loss
from rldistill.errors import UsageError
from rldistill.losses.on_policy import future_sums
from rldistill.options.distill import Live
from rldistill.policies import Policy, TorchPolicy
from rldistill.rollout.records import StepRecord
from rldistill.schedules import Schedule
from rldistill.types import OutputKind

# So many rows of student and teacher are compared at once.
_ROWS = 8192


@dataclass(frozen=True)
class Hindsight:
    """What is kept of a student's play, and what follows from it."""

    student: Policy  # as it acts; asked again about each observation, at no cost: it is asked once
    loss: Loss  # that it minimises
    lookahead: float = 0.0  # discount of the losses that followed; 0: they do not count
    # Discount of the rewards that its teacher's values are compared with; None: they are not.
    value_gate: float | None = None

    @property
    def fields(self) -> dict[str, FieldSpec]:
        """What is kept of every step."""
        fields = {"reward": FieldSpec("float32", (), "reward")}
        if self.lookahead:
            layout = self.student.tasks[0].fingerprint.action_layout
            fields["action"] = FieldSpec("int32", layout.action_shape, "action")
            fields["student"] = FieldSpec("float32", (layout.num_outputs(self.student.output_kind),), "target")
        return fields

    def values(self, record: StepRecord, label: str) -> dict[str, NDArray[np.generic]]:
        """Return the fields of one lockstep, `[M, ...]`; the student's output bears this label."""
        values: dict[str, NDArray[np.generic]] = {"reward": record.rewards.astype(np.float32)}
        if self.lookahead:
            values["action"] = record.actions.astype(np.int32)
            values["student"] = record.labels[label].raw.float().cpu().numpy()
        return values

    def of(self, replay: Replay, teacher_kind: OutputKind, progress: float) -> Mapping[str, NDArray[np.float32]]:
        """Return `future` and `weights` of all steps of a replay, `[num_steps]`, as windows have them.

        Of an episode that goes on, and of one that was broken off, what is not known counts as 0.

        Args:
            replay: whole, with the fields that are kept.
            teacher_kind: the field that holds the teacher's outputs.
            progress: of the run when it was played.
        """
        found: dict[str, NDArray[np.float32]] = {}
        following, places = replay.store.next_steps, replay.store.steps_in_episode
        if self.lookahead:
            student, teacher = replay.field("student"), replay.field(teacher_kind)
            losses = [
                self.loss(
                    torch.from_numpy(student[first : first + _ROWS]),
                    torch.from_numpy(teacher[first : first + _ROWS]),
                    progress,
                ).numpy()
                for first in range(0, len(student), _ROWS)
            ]
            found["future"] = future_sums(np.concatenate(losses), following, places, self.lookahead)
        if self.value_gate is not None:
            rewards = replay.field("reward")
            returns = rewards + future_sums(rewards, following, places, self.value_gate)
            found["weights"] = (replay.field("value") > returns).astype(np.float32)
        return found


def check_own_play(said: Live, teacher_fraction: Schedule, epsilon: float) -> None:
    """Check that a student plays as what looks at its play needs it; `epsilon`: chance of a random action.

    Raises:
        UsageError: it does not; names the first option that says otherwise.
    """
    has_lookahead, has_gate = said.lookahead > 0, said.value_gate is not None
    for option, is_on in (("lookahead", has_lookahead), ("value_gate", has_gate)):
        if is_on and teacher_fraction.bounds[1] > 0:
            fraction = teacher_fraction.to_value()
            raise UsageError(f"{option} looks at the student's own play, got teacher_fraction {fraction}. Set it to 0.")
    if has_lookahead and has_gate:
        raise UsageError(
            "lookahead minimises the losses of whole episodes, and value_gate leaves steps out of them. Set one of "
            "both."
        )
    if has_lookahead and said.replay != "once":
        raise UsageError(f"lookahead is for the newest play, got replay {said.replay!r}. Set it to 'once'.")
    if has_lookahead and epsilon > 0:
        raise UsageError(
            f"lookahead needs actions that the student drew itself, got exploration_epsilon {epsilon:g}. Set it to 0."
        )


def sampling(student: TorchPolicy) -> TorchPolicy:
    """Return a student that draws its actions: only of draws is it known how likely others would have been.

    Raises:
        UsageError: its outputs are no logits.
    """
    if student.output_kind != "logits":
        raise UsageError(
            f"lookahead is for choices and a loss that makes logits of them, got a student of {student.output_kind}. "
            "Leave it out, or use reverse_kl."
        )
    return student.acting("sample")
