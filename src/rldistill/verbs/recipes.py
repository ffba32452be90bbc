"""How each kind of teacher is distilled well: data, each with the evidence for it.

`distill` takes from here whatever its user leaves open, and `shrink` all of it. What was measured stands beside each
recipe; change one only with a measurement of your own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rldistill.distillation.sources import DEFAULT_WINDOW
from rldistill.options.distill import DistillOptions, Live, Named
from rldistill.policies import load_policy
from rldistill.tasks import Task
from rldistill.types import OutputKind
from rldistill.verbs.per_task import shortest, value_for
from rldistill.verbs.sizes import kind_of_sight


@dataclass(frozen=True)
class Recipe:
    """Settings of a distillation."""

    loss: str | None  # by name; None: what suits the teacher's outputs
    temperature: float | str | None  # a number or the text of a schedule; None: the loss's own
    normalize_inputs: bool  # whether a new student of one task of vectors normalises its inputs by what was measured
    num_updates: int  # gradient steps for each task; `shrink` gives a student up after so many
    batch_size: int  # rows per update
    learning_rate: str  # as the text of a schedule
    # Of a teacher that plays: the chance that it acts, as a schedule; else the student does.
    teacher_fraction: float | str
    collect_steps: int  # of a teacher that plays: decisions per collection
    collect_period: int  # of a teacher that plays: updates between collections
    check_period: int  # of `shrink`: updates between looks at the student's score
    why: str  # what the recipe is about, in a few words for the line that is printed
    # Of a student with cells that remember: steps of the windows that it is trained on; None: it has none.
    window: int | None = None
    burn_in: int | None = None  # steps before each window that fill its memory

    def __str__(self) -> str:
        """Return what is chosen, in one line."""
        loss = self.loss or "the usual loss of its outputs"
        tempered = "" if self.temperature is None else f" at temperature {self.temperature}"
        return (
            f"{loss}{tempered}, {self.batch_size} rows an update, rate {self.learning_rate}, the teacher acts "
            f"{self.teacher_fraction} ({self.why})"
        )


# A student that knows nothing learns little from near-greedy targets: on 60,000 steps of Pong, after 4,000 updates, it
# agrees with its teacher in 0.82 of held-out steps, and in 0.77 at the paper's temperature of 0.01 from the start.
# Updates count, and rows less: net2 on these steps keeps 0.94 after 5,500 updates of 128 rows, 0.98 after 11,000 of 64,
# which take as long, and 0.60 after 12,000 of 32 (40 episodes each).
# Pong: net3 keeps 0.980 [0.963, 0.996] of its teacher after 12,000 updates on 60,000 decisions, 0.965 [0.928, 0.997]
# with other batches of them; 0.990 [0.964, 1.019] with 128 rows.
_IMAGES = Recipe(
    loss="sharpened_kl",
    temperature="linear:0.2->0.01@0.5",
    normalize_inputs=False,
    num_updates=12_000,
    batch_size=64,
    learning_rate="one_cycle:1e-3@0.1",
    teacher_fraction=1.0,
    collect_steps=54_000,
    collect_period=10_000,
    check_period=6_000,
    why="targets are soft at first, since near-greedy ones teach a beginner little",
)
# LunarLander, mlp:2: the student's own mistakes, labelled, turn −1,500 points into +100.
_CHOICES = Recipe(
    loss=None,
    temperature=None,
    normalize_inputs=False,
    num_updates=6_000,
    batch_size=256,
    learning_rate="linear:1e-2->5e-4",
    teacher_fraction="linear:1->0@0.3",
    collect_steps=2_000,
    collect_period=300,
    check_period=600,
    why="the student meets its own mistakes, and the teacher says what to do there",
)
# HalfCheetah, tanh-squashed teacher of 11,800 points: mlp:64x64 has 11,000 after 60,000 steps; by a KL before the tanh
# mlp:256x256 had 2,000 to 4,900 after 200,000.
_BOXES = Recipe(
    loss="mean_mse",
    temperature=None,
    normalize_inputs=True,
    num_updates=15_000,
    batch_size=256,
    learning_rate="linear:3e-3->1e-4",
    teacher_fraction="linear:1->0@0.3",
    collect_steps=4_000,
    collect_period=600,
    check_period=1_200,
    why="what is done is compared; the student meets its own mistakes, and the teacher says what to do there",
)
# What a student with cells has instead. Its windows are few rows apart, so that a batch needs more of them; without
# burn-in the windows in the middle of an episode begin with an empty memory, which no state of the play has.
_REMEMBERING: dict[str, int] = {"window": DEFAULT_WINDOW, "burn_in": 32, "batch_size": 512}
# Go1, blind to its velocity (teacher: 706): gru:22 has 691 [682, 699] after 800,000 steps, 687 [676, 695] and 678 [657,
# 694] after 400,000; with windows of 32, 256 rows and 100,000 steps 663 [639, 681]. Without a memory more steps do not
# help: mlp:28x28 has 676 [665, 685] after 100,000, 650 [622, 674] after 400,000.
_REMEMBERING_BOXES = replace(_BOXES, collect_steps=32_000)
# A learner is as good at first as its student: nothing of the above was measured on one, so this is the paper's (Rusu
# et al. 2015, section 3.1).
_LEARNER = replace(_IMAGES, loss=None, temperature=None, learning_rate="one_cycle:1e-3", why="as in the paper")


def choose_recipe(kind: OutputKind, task: Task, *, remembers: bool = False) -> Recipe:
    """Return how to distil a teacher of some kind of output on a task, into a student that may have a memory."""
    recipe = _recipe_for(kind, task, remembers)
    return replace(recipe, **_REMEMBERING) if remembers else recipe


def _recipe_for(kind: OutputKind, task: Task, remembers: bool) -> Recipe:
    fingerprint = task.fingerprint
    if kind_of_sight(fingerprint) == "vectors":
        of_boxes = _REMEMBERING_BOXES if remembers else _BOXES
        recipe = _CHOICES if kind in ("q_values", "logits") else of_boxes
        # Bytes are scaled otherwise.
        is_measured = recipe.normalize_inputs and fingerprint.observation_dtype != "uint8"
        return replace(recipe, normalize_inputs=is_measured)
    if kind == "q_values":
        return _IMAGES
    # The temperature was measured for Q-values; the rest is play and rates of images.
    loss = None if kind == "logits" else "mean_mse"
    return replace(_IMAGES, loss=loss, temperature=None, why="as for Q-values on images, not measured by itself")


def fill_in(
    options: DistillOptions,
    named: Sequence[Named],
    taught: Sequence[tuple[OutputKind, Task]],
    *,
    remembers: bool = False,
) -> tuple[DistillOptions, list[Named], str | None]:
    """Return options and sources in which the recipe says what the user left open, and a line on what it says.

    Args:
        options: of a distillation.
        named: its sources.
        taught: what each teacher gives, and on which task; nothing of a teacher that still learns.
        remembers: whether the student has cells that remember.
    """
    recipes = [choose_recipe(kind, task, remembers=remembers) for kind, task in taught] or [_LEARNER]
    num_tasks = len({task.name for _, task in taught}) or 1  # several datasets may be of one
    # The longest serves several tasks; each has the loss of its own recipe.
    recipe = max(recipes, key=lambda each: each.num_updates)
    begun = None if options.init_from is None else load_policy(options.init_from)
    of_student: dict[str, Any] = {
        "num_updates": recipe.num_updates * num_tasks,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
    }
    if remembers:
        of_student |= {"window": recipe.window, "burn_in": recipe.burn_in}
    # A spread that is spoken of, or that a file's student has, is learned by the usual loss of Gaussians alone.
    has_spread = options.std != "state" or (begun is not None and begun.output_kind == "gaussian")
    by_task = _losses_left_open(options, recipes, taught, has_spread=has_spread)
    # A module may normalise by itself, and one layer cannot suit several tasks. A file's student does what it did.
    if begun is None:
        kinds = {task.fingerprint.observation_description for _, task in taught}
        may = isinstance(options.student, str) and len(kinds) == num_tasks
        of_student["normalize_inputs"] = may and all(each.normalize_inputs for each in recipes)
    of_play = {
        "teacher_fraction": recipe.teacher_fraction,
        "collect_steps": recipe.collect_steps,
        "collect_period": recipe.collect_period * num_tasks,
    }
    chosen = _left_open(options, of_student)
    is_live = isinstance(named[0], Live)
    shown = chosen | (_left_open(named[0], of_play) if is_live else {}) | by_task
    text = ", ".join(f"{name} {value}" for name, value in shown.items() if value not in (None, False))
    why = f" ({recipe.why})" if is_live else ""  # mostly about who plays
    chosen |= {name: _merged(getattr(options, name), value) for name, value in by_task.items()}
    filled = [replace(item, **_left_open(item, of_play)) if isinstance(item, Live) else item for item in named]
    return replace(options, **chosen), filled, f"recipe: {text}{why}" if text else None


def _left_open(options: object, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the values that options do not say themselves."""
    return {name: value for name, value in values.items() if getattr(options, name) is None}


def _losses_left_open(
    options: DistillOptions, recipes: Sequence[Recipe], taught: Sequence[tuple[OutputKind, Task]], *, has_spread: bool
) -> dict[str, object]:
    """Return losses and temperatures of the tasks for which none is named; one for all where all have the same."""
    losses, temperatures = dict[str, object](), dict[str, object]()
    tasks = {task.name: (recipe, kind) for recipe, (kind, task) in zip(recipes, taught, strict=False)}
    for name, (recipe, kind) in tasks.items():
        if value_for(options.loss, name) is not None:
            continue  # a loss that is named has a temperature of its own
        if recipe.loss is not None and not (has_spread and kind == "gaussian"):
            losses[name] = recipe.loss
        if recipe.temperature is not None and value_for(options.temperature, name) is None:
            temperatures[name] = recipe.temperature
    found = {"loss": losses, "temperature": temperatures}
    return {
        option: values if isinstance(getattr(options, option), Mapping) else shortest(values, len(tasks))
        for option, values in found.items()
        if values
    }


def _merged(named: object, left_open: object) -> object:
    return {**named, **left_open} if isinstance(named, Mapping) and isinstance(left_open, Mapping) else left_open
