"""How each kind of teacher is distilled well: data, each with the evidence for it.

`shrink` uses them for every student that it tries. What was measured stands beside each recipe; change one only with a
measurement of your own.
"""

from dataclasses import dataclass, replace

from rldistill.networks.torsos import image_shape
from rldistill.policies import Policy
from rldistill.tasks import Task


@dataclass(frozen=True)
class Recipe:
    """Settings of a distillation from a teacher that plays.

    Attributes:
        loss: by name; None: what suits the teacher's outputs.
        temperature: a number or the text of a schedule; None: the loss's own.
        teacher_fraction: share of the play in which the teacher acts, as a schedule; the student acts in the rest.
        collect_steps: decisions per collection.
        collect_period: updates between collections.
        max_updates: after so many a student that is not good enough is given up.
        batch_size: rows per update.
        learning_rate: as the text of a schedule.
        check_period: updates between looks at the student's score.
        evidence: what was measured.
    """

    loss: str | None
    temperature: float | str | None
    teacher_fraction: str
    collect_steps: int
    collect_period: int
    max_updates: int
    batch_size: int
    learning_rate: str
    check_period: int
    evidence: str

    @property
    def why(self) -> str:
        """What was chosen, in one line."""
        chosen = [self.loss or "the loss of its outputs", f"teacher acts {self.teacher_fraction}"]
        return f"recipe: {', '.join(chosen)}, {self.learning_rate}; {self.evidence}"


_IMAGES = Recipe(
    loss="sharpened_kl",
    temperature="linear:0.2->0.01@0.5",
    teacher_fraction="1",
    collect_steps=60_000,
    collect_period=12_000,
    max_updates=12_000,
    batch_size=128,
    learning_rate="one_cycle:1e-3@0.1",
    check_period=4_000,
    evidence="Pong: net3 keeps 0.99 [0.96, 1.02] of its teacher after 12,000 updates on 60,000 decisions",
)
_CHOICES = Recipe(
    loss=None,
    temperature=None,
    teacher_fraction="linear:1->0@0.3",
    collect_steps=2_000,
    collect_period=300,
    max_updates=6_000,
    batch_size=256,
    learning_rate="linear:1e-2->5e-4",
    check_period=600,
    evidence="LunarLander, mlp:2: the student's own mistakes, labelled, turn −1,500 points into +100",
)
_BOXES = Recipe(
    loss="mean_mse",
    temperature=None,
    teacher_fraction="linear:1->0@0.3",
    collect_steps=4_000,
    collect_period=600,
    max_updates=15_000,
    batch_size=256,
    learning_rate="linear:3e-3->1e-4",
    check_period=1_200,
    evidence="HalfCheetah, tanh-squashed teacher: mean_mse 7,300 to 8,000 points where a KL before the tanh has 2,000 "
    "to 4,900",
)


def choose_recipe(teacher: Policy, task: Task) -> Recipe:
    """Return how to distil a teacher on a task."""
    if image_shape(task.fingerprint.observation_shape) is None:
        return _CHOICES if teacher.output_kind in ("q_values", "logits") else _BOXES
    if teacher.output_kind == "q_values":
        return _IMAGES
    # The temperature was measured for Q-values; the rest is play and rates of images.
    loss = None if teacher.output_kind == "logits" else "mean_mse"
    return replace(_IMAGES, loss=loss, temperature=None, evidence="as for Q-values on images, not measured by itself")
